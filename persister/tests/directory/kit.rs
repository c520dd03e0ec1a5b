//! A real nats-server, a SQLite file and instances of `directory` on them.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use natterjack_nats::{
    Buckets, Layout, Nats, NatsConfig, RpcError, ServerTime, provision,
    server::{Sync, single_config},
    subjects,
};
use natterjack_persister::{
    directory::{self, DirectoryError, Logins},
    password::Cost,
    store::Sqlite,
};
use natterjack_protocol::{
    DeviceId, Refusal, Times, Token, UserId,
    client::http::Tokens,
    internal::rpc::{DirectoryAnswer, DirectoryRequest},
};
use natterjack_runtime::{Health, clock::wall_ms};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct World {
    pub nats: Nats,
    pub layout: Layout,
    pub store: Sqlite,
    pub times: Times,
    health: Health,
    stop: CancellationToken,
    instances: Vec<JoinHandle<Result<(), DirectoryError>>>,
    _server: Server,
    dir: tempfile::TempDir,
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("NATTERJACK_NATS_SERVER") {
        return path.into();
    }
    let on_path = std::env::var_os("PATH").and_then(|p| std::env::split_paths(&p).map(|d| d.join("nats-server")).find(|f| f.is_file()));
    on_path.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/bin/nats-server").into())
}

/// An address of its own for each server of each test process, so that a fixed port is free on it.
fn address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let pid = std::process::id();
    format!("127.{}.{}.{}", 64 + (pid >> 8) % 128, pid & 0xff, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Weak, so that tests of something else do not wait for argon2.
pub fn cheap() -> Cost {
    Cost { memory_kib: 64, passes: 1, lanes: 1 }
}

impl World {
    pub async fn new(cost: Cost) -> Self {
        Self::with(cost, Times::default()).await
    }

    pub async fn with(cost: Cost, times: Times) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = address();
        let config = dir.path().join("nats.conf");
        std::fs::write(&config, single_config(&dir.path().join("js"), &host, 4222, Sync::Interval)).unwrap();
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(binary())
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let cfg = NatsConfig { urls: vec![format!("nats://{host}:4222")], default_max_bytes: Some(64 << 20), ..NatsConfig::default() };
        let nats = Nats::connect(&cfg, "test").await.unwrap();
        let layout = provision(&nats, &cfg, &times).await.unwrap();
        let store = Sqlite::open(dir.path().join("n.db")).await.unwrap();
        let mut world = Self {
            nats,
            layout,
            store,
            times,
            health: Health::new(),
            stop: CancellationToken::new(),
            instances: Vec::new(),
            _server: Server(server),
            dir,
        };
        world.start_directory(cost).await;
        world
    }

    /// Another instance, with its own handle on the file.
    pub async fn start_directory(&mut self, cost: Cost) {
        let store = Sqlite::open(self.dir.path().join("n.db")).await.unwrap();
        let (nats, layout, times) = (self.nats.clone(), self.layout, self.times.clone());
        let (health, stop) = (Health::expecting(["directory"]), self.stop.clone());
        self.health = health.clone();
        self.instances.push(tokio::spawn(async move {
            let time = ServerTime::start(&nats, wall_ms).await;
            let base = directory::Base { nats, layout, store, times, time };
            directory::run(base, Logins { password: cost, external: None }, health, stop).await
        }));
        tokio::time::timeout(Duration::from_secs(20), self.health.ready()).await.expect("directory is ready");
    }

    pub fn buckets(&self) -> Buckets {
        Buckets::new(&self.nats, self.layout)
    }

    pub async fn ask(&self, request: &DirectoryRequest) -> Result<DirectoryAnswer, Refusal> {
        match self.nats.request(subjects::DIRECTORY, request, Duration::from_secs(60)).await {
            Ok(answer) => Ok(answer),
            Err(RpcError::Refused(refusal)) => Err(refusal),
            Err(e) => panic!("directory does not answer: {e}"),
        }
    }

    pub async fn tokens(&self, request: &DirectoryRequest) -> Result<Tokens, Refusal> {
        match self.ask(request).await? {
            DirectoryAnswer::Tokens(t) => Ok(t),
            _ => panic!("tokens were asked for"),
        }
    }

    pub async fn refusal(&self, request: &DirectoryRequest) -> Refusal {
        match self.ask(request).await {
            Err(refusal) => refusal,
            Ok(_) => panic!("a refusal was expected"),
        }
    }

    pub async fn register(&self, name: &str) -> Tokens {
        self.tokens(&register(name)).await.unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub async fn user(&self, name: &str) -> UserId {
        self.register(name).await.user
    }

    pub async fn end(mut self) {
        self.stop.cancel();
        for instance in self.instances.drain(..) {
            instance.await.unwrap().unwrap();
        }
    }
}

pub const PASSWORD: &str = "correct horse battery";

pub fn device() -> DeviceId {
    Token::parse("phone-1").unwrap()
}

pub fn register(name: &str) -> DirectoryRequest {
    DirectoryRequest::Register { name: name.into(), password: PASSWORD.into(), device: device() }
}

pub fn login(name: &str, password: &str) -> DirectoryRequest {
    DirectoryRequest::Login { name: name.into(), password: password.into(), device: device(), known: false }
}

pub fn refresh(t: &Tokens) -> DirectoryRequest {
    DirectoryRequest::Refresh { refresh: t.refresh.clone() }
}
