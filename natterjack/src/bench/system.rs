//! The system under load: a running `up`, or one of our own in a temporary folder; and users for it.
//!
//! Registering thousands of users would measure password hashing. Whoever knows the address of NATS is an operator already,
//! so the bench puts a signing key of its own beside those of `directory`, valid for an hour, and mints tokens with it.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use natterjack_nats::{Buckets, Layout, Nats, NatsConfig};
use natterjack_protocol::{
    Token, UserId,
    codec::Codec,
    entry::VERSION,
    rpc::{Claims, ISSUER, PublicKey},
};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::Deserialize;
use tokio::process::{Child, Command};

use super::cpu::Process;

#[derive(Debug, Deserialize)]
struct State {
    urls: Vec<String>,
    nats_url: String,
    pids: Pids,
}

#[derive(Debug, Deserialize)]
struct Pids {
    up: u32,
    nats: u32,
    edges: Vec<u32>,
}

/// A user with a token.
#[derive(Clone)]
pub struct User {
    pub id: UserId,
    pub token: String,
}

pub struct System {
    pub urls: Vec<String>,
    pub processes: Vec<Process>,
    buckets: Buckets,
    key: EncodingKey,
    kid: Token,
    child: Option<(Child, tempfile::TempDir)>,
}

const START: Duration = Duration::from_secs(30);

impl System {
    pub async fn open(state: Option<&Path>) -> Result<Self> {
        let (state, child) = match state {
            Some(path) => (read_state(path)?, None),
            None => {
                let (state, child) = start().await?;
                (state, Some(child))
            }
        };
        let nats = Nats::connect(&NatsConfig { urls: vec![state.nats_url.clone()], ..NatsConfig::default() }, "bench").await?;
        let layout = Layout::load(&nats).await?;
        let buckets = Buckets::new(&nats, layout);
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok().context("no random numbers")?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).ok().context("our own key")?;
        let kid = Token::mint('b', rand::random());
        let public = PublicKey { v: VERSION, ed25519: pair.public_key().as_ref().to_vec(), until: now_ms() + 3_600_000 };
        buckets.control().put(&format!("keys.{kid}"), Codec::Msgpack.encode(&public)).await?;
        let role = |role: &str, pid| Process { role: role.into(), pid };
        let mut processes = vec![role("nats-server", state.pids.nats), role("roles", state.pids.up)];
        processes.extend(state.pids.edges.iter().map(|pid| role("edges", *pid)));
        Ok(Self { urls: state.urls, processes, buckets, key: EncodingKey::from_ed_der(pkcs8.as_ref()), kid, child })
    }

    /// New users that exist and can log in, so many that each run has its own.
    pub async fn users(&self, count: usize) -> Result<Vec<User>> {
        stream::iter(0..count).map(|_| self.user()).buffered(64).try_collect().await
    }

    async fn user(&self) -> Result<User> {
        let id = Token::mint('u', rand::random());
        self.buckets.create_empty_threads(&id).await?;
        let now = now_ms() / 1_000;
        let claims = Claims { iss: ISSUER.into(), sub: id.clone(), device: id.clone(), fam: "bench".into(), iat: now, exp: now + 3_000 };
        let header = Header { kid: Some(self.kid.to_string()), ..Header::new(Algorithm::EdDSA) };
        Ok(User { id, token: jsonwebtoken::encode(&header, &claims, &self.key)? })
    }

    pub fn url(&self, n: usize) -> &str {
        &self.urls[n % self.urls.len()]
    }

    /// Stops what was started for this run.
    pub async fn close(self) {
        if let Some((mut child, _folder)) = self.child {
            // Its standard input was ours: closing it ends the system.
            drop(child.stdin.take());
            if tokio::time::timeout(Duration::from_secs(30), child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }
}

fn read_state(path: &Path) -> Result<State> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read: start `natterjack up --state-file` first", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a state file of `natterjack up`", path.display()))
}

async fn start() -> Result<(State, (Child, tempfile::TempDir))> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("state.json");
    let mut child = Command::new(std::env::current_exe()?)
        // What is measured is the way of a message, not the limit of one user.
        .args(["up", "--die-with-parent", "--set", "limits.sends_per_user=0", "--data"])
        .arg(folder.path().join("data"))
        .arg("--state-file")
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let begun = Instant::now();
    loop {
        if let Ok(state) = read_state(&file) {
            return Ok((state, (child, folder)));
        }
        if let Some(status) = child.try_wait()? {
            bail!("the system did not start ({status}): run `natterjack up` to see why");
        }
        if begun.elapsed() > START {
            bail!("the system did not start within {START:?}: run `natterjack up` to see why");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Where the figures come from.
pub fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")).map_or("unknown CPU", |l| l.trim_start_matches([' ', '\t', ':']));
    format!("natterjack {}, {cpus} cores of {model}, load and servers on the same machine", env!("CARGO_PKG_VERSION"))
}
