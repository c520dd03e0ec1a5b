//! What a process says about itself: each part reports in, the admin server and `/ready` read.
//!
//! A part that reads something (`reader`) is well when it moves, not when it is connected.

mod reader;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::Serialize;
use tokio::sync::watch;

pub use self::reader::{Reader, Readers, Trouble};

/// The name of a part: `directory`, or `archive.1-0` for partition 0 of generation 1 of the log, whose stream is
/// `CHAT-1-0`.
pub type Part = Cow<'static, str>;

/// The part of `what` that has to do with one partition of the log.
pub fn of_partition(what: &str, generation: u32, partition: u32) -> Part {
    format!("{what}.{generation}-{partition}").into()
}

/// Shared by the parts of one process. A process is ready when it has parts and each of them is well.
#[derive(Debug, Clone)]
pub struct Health {
    parts: Arc<watch::Sender<BTreeMap<Part, State>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Ok,
    /// What is missing, in words for whoever operates it; no secrets.
    Failing(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub ready: bool,
    pub parts: BTreeMap<Part, State>,
}

impl Report {
    /// What is wrong, in one line.
    pub fn failing(&self) -> String {
        let failing = self.parts.iter().filter_map(|(part, state)| match state {
            State::Failing(why) => Some(format!("{part}: {why}")),
            State::Ok => None,
        });
        failing.collect::<Vec<_>>().join("; ")
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    pub fn new() -> Self {
        Self { parts: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }

    /// A process with these parts is not ready before each of them has reported in.
    pub fn expecting(parts: impl IntoIterator<Item = &'static str>) -> Self {
        let health = Self::new();
        for part in parts {
            health.set(part, Err("starting".into()));
        }
        health
    }

    /// Says how `part` is. Saying the same again costs nothing and wakes nobody.
    pub fn set(&self, part: impl Into<Part>, state: Result<(), String>) {
        let (part, state) = (part.into(), state.map_or_else(State::Failing, |()| State::Ok));
        metrics::gauge!(crate::metrics::READY, "part" => part.clone()).set(f64::from(u8::from(state == State::Ok)));
        self.parts.send_if_modified(|parts| parts.insert(part, state.clone()).as_ref() != Some(&state));
    }

    /// The part has ended in good order; it no longer counts.
    pub fn remove(&self, part: &str) {
        if self.parts.send_if_modified(|parts| parts.remove(part).is_some()) {
            metrics::gauge!(crate::metrics::READY, "part" => part.to_owned()).set(1.0);
        }
    }

    pub fn report(&self) -> Report {
        let parts = self.parts.borrow().clone();
        Report { ready: is_ready(&parts), parts }
    }

    /// Returns as soon as every part is well. May be dropped at any time.
    pub async fn ready(&self) {
        // Fails only when the sender is gone, and `self` holds it.
        let _ = self.parts.subscribe().wait_for(is_ready).await;
    }
}

fn is_ready(parts: &BTreeMap<Part, State>) -> bool {
    !parts.is_empty() && parts.values().all(|s| *s == State::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_is_every_part() {
        let health = Health::expecting(["a", "b"]);
        health.set("a", Ok(()));
        assert!(!health.report().ready);
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.ready().await }
        });
        health.set("b", Ok(()));
        waiting.await.unwrap();
        assert!(health.report().ready);
        health.set("a", Err("NATS is away".into()));
        assert_eq!(health.report().parts["a"], State::Failing("NATS is away".into()));
        assert_eq!(health.report().failing(), "a: NATS is away");
        assert!(!health.report().ready);
        health.remove("a");
        assert!(health.report().ready);
    }

    #[test]
    fn a_process_without_parts_is_not_ready() {
        assert!(!Health::new().report().ready);
    }
}
