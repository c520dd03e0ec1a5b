//! The system under load: a running `up`, or one started in a temporary folder; and users for it.
//!
//! Registering thousands of users would measure password hashing. Access to NATS is an operator's access, so the bench
//! adds a signing key beside those of `directory`, valid for an hour, and mints tokens with it.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use natterjack_nats::{KvBuckets, Layout, LeaderReader, Nats, NatsConfig};
use natterjack_protocol::{
    Times, Token, UserId,
    internal::{
        claims::{Claims, ISSUER},
        cursors::UserCursors,
        kv::PublicKey,
    },
    log::fold::UserThreads,
};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::Deserialize;
use tokio::process::{Child, Command};

use super::{cpu::ServerProcess, pin};

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
    pub processes: Vec<ServerProcess>,
    pub nats: Nats,
    pub buckets: KvBuckets,
    key: EncodingKey,
    kid: Token,
    own: Option<Own>,
}

/// Started for this run.
struct Own {
    child: Child,
    folder: tempfile::TempDir,
    pinned: bool,
}

const START: Duration = Duration::from_secs(30);

impl System {
    /// `pinned`: servers on one core, we on another.
    pub async fn open(state: Option<&Path>, pinned: bool) -> Result<Self> {
        let (state, own) = match state {
            Some(path) => (read_state(path)?, None),
            None => {
                let folder = tempfile::tempdir()?;
                let (state, child) = start(folder.path(), pinned).await?;
                (state, Some(Own { child, folder, pinned }))
            }
        };
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok().context("no random numbers")?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).ok().context("our own key")?;
        let kid = Token::mint('b', rand::random());
        let public = PublicKey { ed25519: pair.public_key().as_ref().to_vec(), until: now_ms() + 3_600_000 };
        let (nats, buckets) = connect(&state).await?;
        buckets.signing_key(&kid).put(&public).await?;
        let key = EncodingKey::from_ed_der(pkcs8.as_ref());
        until_known(&nats).await?;
        Ok(Self { urls: state.urls.clone(), processes: processes(&state), nats, buckets, key, kid, own })
    }

    /// Ends it in good order and starts it again over the same data: nothing is in anybody's memory.
    pub async fn restart(&mut self) -> Result<()> {
        let Some(own) = self.own.take() else {
            bail!("only a system that this process started can be restarted: leave out --state")
        };
        let Own { child, folder, pinned } = own;
        end(child).await;
        let (state, child) = start(folder.path(), pinned).await?;
        (self.nats, self.buckets) = connect(&state).await?;
        (self.urls, self.processes) = (state.urls.clone(), processes(&state));
        self.own = Some(Own { child, folder, pinned });
        Ok(())
    }

    /// New users that exist and can log in, so many that each run has its own.
    pub async fn users(&self, count: usize) -> Result<Vec<User>> {
        let (threads, cursors) = (UserThreads::default(), UserCursors::default());
        stream::iter(0..count).map(|_| self.user(&threads, &cursors)).buffered(64).try_collect().await
    }

    /// One who is in these threads, and has read so much of them, as far as their own keys say.
    pub async fn user(&self, threads: &UserThreads, cursors: &UserCursors) -> Result<User> {
        let id = Token::mint('u', rand::random());
        self.buckets.cursors(&id).create_if_absent(cursors).await?;
        self.buckets.threads(&id).create_if_absent(threads).await?;
        let now = now_ms() / 1_000;
        let claims = Claims {
            iss: ISSUER.into(),
            sub: id.clone(),
            device: id.clone(),
            fam: "bench".into(),
            iat: now,
            exp: now + 3_000,
        };
        let header = Header { kid: Some(self.kid.to_string()), ..Header::new(Algorithm::EdDSA) };
        Ok(User { id, token: jsonwebtoken::encode(&header, &claims, &self.key)? })
    }

    pub fn url(&self, n: usize) -> &str {
        &self.urls[n % self.urls.len()]
    }

    /// `up` starts it again.
    pub fn kill_edge(&self, n: usize) -> Result<()> {
        let edge = self.processes.iter().filter(|p| p.role == "edges").nth(n).context("there is no such edge")?;
        let pid = rustix::process::Pid::from_raw(edge.pid.cast_signed()).context("an edge has a process id")?;
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::KILL)?)
    }

    /// Stops what was started for this run.
    pub async fn close(self) {
        if let Some(own) = self.own {
            end(own.child).await;
        }
    }
}

async fn connect(state: &State) -> Result<(Nats, KvBuckets)> {
    let nats =
        Nats::connect(&NatsConfig { urls: vec![state.nats_url.clone()], ..NatsConfig::default() }, "bench").await?;
    let layout = Layout::load(&nats).await?;
    let buckets = KvBuckets::new(&nats, layout);
    Ok((nats, buckets))
}

/// A log that is younger than what a message id may be ahead may have been published to before it was made: every send
/// is looked up first. That is over after some seconds and no part of any figure.
async fn until_known(nats: &Nats) -> Result<()> {
    let layout = Layout::load(nats).await?;
    let tail = LeaderReader::new(nats, layout);
    let times = Times::default();
    let young = times.cid_ahead + times.clock_slack + Duration::from_secs(1);
    for p in 0..layout.partitions {
        let bounds = tail.bounds(p).await?;
        let age = Duration::from_millis(bounds.ts_ms.saturating_sub(bounds.created_ms));
        tokio::time::sleep(young.saturating_sub(age)).await;
    }
    Ok(())
}

fn processes(state: &State) -> Vec<ServerProcess> {
    let role = |role: &str, pid| ServerProcess { role: role.into(), pid };
    let mut all = vec![role("nats-server", state.pids.nats), role("roles", state.pids.up)];
    all.extend(state.pids.edges.iter().map(|pid| role("edges", *pid)));
    all
}

async fn end(mut child: Child) {
    // Its standard input was ours: closing it ends the system.
    drop(child.stdin.take());
    if tokio::time::timeout(Duration::from_secs(30), child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn read_state(path: &Path) -> Result<State> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read: start `natterjack up --state-file` first", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a state file of `natterjack up`", path.display()))
}

async fn start(folder: &Path, pinned: bool) -> Result<(State, Child)> {
    let file = folder.join("state.json");
    let mut command = Command::new(std::env::current_exe()?);
    command
        // What is measured is the way of a message, not the limit of one user.
        .args(["up", "--die-with-parent", "--set", "limits.sends_per_user=0", "--data"])
        .arg(folder.join("data"))
        .arg("--state-file")
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = if pinned {
        pin::ourselves().context("this process cannot be bound to a core")?;
        pin::while_starting(|| command.spawn()).context("--pin needs two cores")?
    } else {
        command.spawn()?
    };
    let begun = Instant::now();
    loop {
        if let Ok(state) = read_state(&file) {
            return Ok((state, child));
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
pub fn machine(busy: bool) -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown CPU", |l| l.trim_start_matches([' ', '\t', ':']));
    let awake = if busy { "; the load never sleeps" } else { "" };
    format!(
        "natterjack {}, {cpus} cores of {model}, load and servers on the same machine{awake}",
        env!("CARGO_PKG_VERSION")
    )
}
