//! A nats-server of one test's own: real process, temporary directory, an address of its own in 127.0.0.0/8 (so no port is raced for).

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use natterjack_nats::{Layout, Nats, NatsConfig, provision, server};
use natterjack_protocol::{MsgId, Thread, Times};

static NEXT: AtomicU8 = AtomicU8::new(1);
const PORT: u16 = 4222;

pub struct Server {
    child: Option<Child>,
    dir: tempfile::TempDir,
    host: String,
    extra: String,
    /// Index and routes, in a cluster.
    routes: Option<(usize, Vec<String>)>,
}

pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("NATTERJACK_NATS_SERVER") {
        return path.into();
    }
    let on_path = std::env::var_os("PATH").and_then(|p| std::env::split_paths(&p).map(|d| d.join("nats-server")).find(|f| f.is_file()));
    on_path.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.cache/bin/nats-server"))
}

fn own_host() -> String {
    let pid = std::process::id();
    format!("127.{}.{}.{}", 64 + (pid >> 8) % 64, pid % 256, NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Server {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With more lines of configuration.
    pub fn start_with(extra: &str) -> Self {
        Self::start_as(|_| extra.into())
    }

    /// With lines that need to know its address.
    pub fn start_as(extra: impl FnOnce(&str) -> String) -> Self {
        let host = own_host();
        let extra = extra(&host);
        let mut s = Self::at(host, extra, None);
        s.launch();
        s
    }

    /// `n` servers of one cluster.
    pub fn cluster(n: usize) -> Vec<Self> {
        Self::cluster_as(n, |_, _| String::new())
    }

    /// With lines for each, by its number and address.
    pub fn cluster_as(n: usize, extra: impl Fn(usize, &str) -> String) -> Vec<Self> {
        let hosts: Vec<String> = (0..n).map(|_| own_host()).collect();
        let routes: Vec<String> = hosts.iter().map(|h| format!("{h}:6222")).collect();
        let start = |(i, host): (usize, &String)| {
            let mut s = Self::at(host.clone(), extra(i, host), Some((i, routes.clone())));
            s.launch();
            s
        };
        hosts.iter().enumerate().map(start).collect()
    }

    fn at(host: String, extra: String, routes: Option<(usize, Vec<String>)>) -> Self {
        Self { child: None, dir: tempfile::tempdir().unwrap(), host, extra, routes }
    }

    pub fn launch(&mut self) {
        let store = self.dir.path().join("js");
        let config = match &self.routes {
            None => server::single_config(&store, &self.host, PORT, server::Sync::Interval),
            Some((i, routes)) => server::cluster_config(&store, &self.host, PORT, *i, routes, server::Sync::Interval),
        };
        let file = self.dir.path().join("nats.conf");
        std::fs::write(&file, config + &self.extra).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(binary()).arg("-c").arg(&file);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    /// Launched and not killed.
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stopped as a hanging machine is: its sockets stay open, nothing answers. Ends with `kill`.
    pub fn freeze(&self) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    }

    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// The folder of JetStream, for copies of it; the server must not run.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("js")
    }

    /// As after a loss of power: the newest block of a stream ends `lost` bytes earlier, or is gone with everything if it has no more.
    /// The server must not run.
    pub fn cut(&self, stream: &str, lost: u64) {
        let msgs = self.folder().join("jetstream/$G/streams").join(stream).join("msgs");
        let files = std::fs::read_dir(&msgs).unwrap().map(|f| f.unwrap().path());
        let (blocks, rest): (Vec<_>, Vec<_>) = files.partition(|f| f.extension().is_some_and(|e| e == "blk"));
        let newest = blocks.iter().max_by_key(|f| f.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap()).unwrap();
        let left = newest.metadata().unwrap().len().saturating_sub(lost);
        if left == 0 {
            rest.iter().chain([newest]).for_each(|f| std::fs::remove_file(f).unwrap());
        } else {
            std::fs::File::options().write(true).open(newest).unwrap().set_len(left).unwrap();
        }
    }

    pub fn config(&self) -> NatsConfig {
        self.config_of(NatsConfig::default())
    }

    /// Of a client that logs in so.
    pub fn config_of(&self, client: NatsConfig) -> NatsConfig {
        NatsConfig { urls: vec![format!("nats://{}:{PORT}", self.host)], name: "test".into(), default_max_bytes: Some(256 << 20), ..client }
    }

    pub async fn nats(&self) -> Nats {
        Nats::connect(&self.config(), "test").await.unwrap()
    }

    /// Started and provisioned.
    pub async fn ready() -> (Self, Nats, Layout) {
        let s = Self::start();
        let nats = s.nats().await;
        let layout = provision(&nats, &s.config(), &Times::default()).await.unwrap();
        (s, nats, layout)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn thread(s: &str) -> Thread {
    s.parse().unwrap()
}

/// A thread of the given partition.
pub fn thread_in(layout: &Layout, p: u32) -> Thread {
    (0..).map(|i| thread(&format!("group.g{i}"))).find(|t| layout.partition(t) == p).unwrap()
}

pub fn ids(records: &[natterjack_nats::LogRecord]) -> Vec<MsgId> {
    records.iter().map(|r| r.id).collect()
}

/// Waits for a condition, generously.
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Of a batch of the log.
pub fn ids_of(batch: &natterjack_nats::Batch) -> Vec<MsgId> {
    batch.records.iter().map(natterjack_nats::Record::id).collect()
}
