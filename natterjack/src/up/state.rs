//! `--state-file`: URLs and process ids in JSON, for scripts. Written again whenever a child is restarted.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use serde::Serialize;

use super::{edges, ports::Ports};
use crate::settings::Settings;

#[derive(Debug, Clone, Serialize)]
struct State {
    urls: [String; 2],
    nats_url: String,
    /// For operators: of this process, and of each edge.
    admin: Option<[std::net::SocketAddr; 3]>,
    pids: Pids,
}

#[derive(Debug, Clone, Serialize)]
struct Pids {
    up: u32,
    nats: Option<u32>,
    edges: [Option<u32>; 2],
}

pub struct StateFile {
    path: Option<PathBuf>,
    state: Mutex<(State, Written)>,
}

/// The file appears when every part has answered once: its presence means "ready".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    NotYet,
    UpToDate,
}

impl StateFile {
    pub fn new(settings: &Settings, ports: &Ports) -> Self {
        let state = State {
            urls: edges::urls(settings, ports),
            nats_url: format!("nats://127.0.0.1:{}", ports.nats),
            admin: ports.admin,
            pids: Pids { up: std::process::id(), nats: None, edges: [None, None] },
        };
        Self { path: settings.up.state_file.clone(), state: Mutex::new((state, Written::NotYet)) }
    }

    pub fn nats_is(&self, pid: u32) {
        self.change(|s| s.pids.nats = Some(pid));
    }

    pub fn edge_is(&self, index: usize, pid: u32) {
        self.change(|s| s.pids.edges[index] = Some(pid));
    }

    /// Writes the file for the first time. An error here ends the start: a script would wait for ever.
    pub fn ready(&self) -> anyhow::Result<()> {
        let mut held = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        held.1 = Written::UpToDate;
        self.save(&held.0)
    }

    pub fn remove(&self) {
        if let Some(path) = &self.path {
            // Nothing depends on it any more.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Saved under the lock, so that the newest state is the one that stays.
    fn change(&self, f: impl FnOnce(&mut State)) {
        let mut held = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut held.0);
        if held.1 == Written::UpToDate
            && let Err(e) = self.save(&held.0)
        {
            tracing::warn!(error = format!("{e:#}"), "the state file could not be written and is out of date");
        }
    }

    fn save(&self, state: &State) -> anyhow::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        replace(path, &serde_json::to_vec_pretty(state)?)
            .with_context(|| format!("cannot write the state file {}", path.display()))
    }
}

/// Written beside and renamed, so that a reader never sees half of it.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, bytes)?;
    std::fs::rename(&part, path)
}
