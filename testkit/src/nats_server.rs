//! A nats-server of one test's own, or a cluster of them: real processes, a temporary folder, addresses that nobody
//! else has.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use natterjack_nats::{Layout, Nats, NatsConfig, provision, server_config};
use natterjack_protocol::{Thread, Times};

use crate::{
    Stopwatch,
    net::{NATS_PORT, Subnet},
    process::{Process, Ready},
    programs,
};

/// Streams reserve what they may grow to: a test writes megabytes.
const MAX_BYTES: i64 = 256 << 20;

pub struct NatsServer {
    process: Process,
    dir: tempfile::TempDir,
    host: String,
    _place: Place,
    _watch: Stopwatch,
}

/// Tests of a binary run side by side. One that asserts a time runs alone: it begins when no other server of this
/// process is left, and none is started before it ends.
struct Place {
    alone: bool,
}

/// How many servers hold a place; -1: one that is alone.
static TAKEN: Mutex<isize> = Mutex::new(0);

impl Place {
    fn taken() -> MutexGuard<'static, isize> {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(alone: bool) -> Option<Self> {
        let mut taken = Self::taken();
        let free = if alone { *taken == 0 } else { *taken >= 0 };
        free.then(|| {
            *taken += if alone { -1 } else { 1 };
            Self { alone }
        })
    }

    /// Blocks its thread, which has nothing else to do: a test that has a server already never waits here.
    fn beside_others() -> Self {
        loop {
            if let Some(place) = Self::take(false) {
                return place;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *Self::taken() += if self.alone { 1 } else { -1 };
    }
}

impl NatsServer {
    /// Launched; whoever connects waits until it answers.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// While no other server of this process runs: for tests that assert a time.
    pub async fn start_alone() -> Self {
        let place =
            crate::eventually_within("the others are done", Duration::from_secs(600), async || Place::take(true)).await;
        let addr = Subnet::next().nats(0);
        Self::launched(place, 0, addr.ip().to_string(), single)
    }

    /// With more lines of configuration.
    pub fn start_with(extra: &str) -> Self {
        Self::start_as(|_| extra.into())
    }

    /// With lines that need to know its address.
    pub fn start_as(extra: impl FnOnce(&str) -> String) -> Self {
        let addr = Subnet::next().nats(0);
        let host = addr.ip().to_string();
        let extra = extra(&host);
        Self::launched(Place::beside_others(), 0, host, |store, host| single(store, host) + &extra)
    }

    /// `n` servers of one cluster.
    pub fn cluster(n: usize) -> Vec<Self> {
        Self::cluster_as(n, |_, _| String::new())
    }

    /// With lines for each, by its number and address.
    pub fn cluster_as(n: usize, extra: impl Fn(usize, &str) -> String) -> Vec<Self> {
        let net = Subnet::next();
        let routes: Vec<String> = (0..n).map(|i| net.route(i).to_string()).collect();
        let one = |i| {
            Self::launched(Place::beside_others(), i, net.nats(i).ip().to_string(), |store, host| {
                server_config::cluster_config(store, host, NATS_PORT, i, &routes, server_config::DiskSync::Interval)
                    + &extra(i, host)
            })
        };
        (0..n).map(one).collect()
    }

    fn launched(place: Place, i: usize, host: String, config: impl FnOnce(&Path, &str) -> String) -> Self {
        let dir = tempfile::Builder::new().prefix("natterjack-nats-").tempdir().unwrap();
        let text = config(&dir.path().join("js"), &host);
        let addr = (host.parse::<std::net::IpAddr>().unwrap(), NATS_PORT).into();
        let process = process(i, dir.path(), &text, addr);
        process.spawn();
        Self { process, dir, host, _place: place, _watch: Stopwatch::new() }
    }

    pub fn launch(&mut self) {
        self.process.spawn();
    }

    /// Launched and not killed.
    pub fn is_up(&self) -> bool {
        self.process.is_running()
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// How many servers of its cluster it names to a client that connects now, itself included.
    pub fn named(&self) -> usize {
        let mut line = String::new();
        let read = std::net::TcpStream::connect((self.host.as_str(), NATS_PORT))
            .and_then(|stream| BufReader::new(stream).read_line(&mut line));
        let info = line.strip_prefix("INFO ").filter(|_| read.is_ok());
        let info: Option<serde_json::Value> = info.and_then(|json| serde_json::from_str(json).ok());
        info.and_then(|info| Some(info["connect_urls"].as_array()?.len())).unwrap_or_default()
    }

    /// Stopped as a machine that hangs: its sockets stay open, nothing answers. Ends with `kill`.
    pub fn freeze(&self) {
        self.process.stop();
    }

    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// The folder of JetStream, for copies of it; the server must not run.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("js")
    }

    /// As after a loss of power: the newest block of a stream ends `lost` bytes earlier, or is gone with everything if
    /// it has no more. The server must not run.
    pub fn cut(&self, stream: &str, lost: u64) {
        let msgs = self.folder().join("jetstream/$G/streams").join(stream).join("msgs");
        let files = std::fs::read_dir(&msgs).unwrap().map(|f| f.unwrap().path());
        let (blocks, rest): (Vec<_>, Vec<_>) = files.partition(|f| f.extension().is_some_and(|e| e == "blk"));
        let newest =
            blocks.iter().max_by_key(|f| f.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap()).unwrap();
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
        let urls = vec![format!("nats://{}:{NATS_PORT}", self.host)];
        NatsConfig { urls, name: "test".into(), default_max_bytes: Some(MAX_BYTES), ..client }
    }

    pub async fn nats(&self) -> Nats {
        Nats::connect(&self.config(), "test").await.unwrap()
    }

    /// Started and provisioned.
    pub async fn ready() -> (Self, Nats, Layout) {
        Self::start().provisioned().await
    }

    /// Likewise, alone.
    pub async fn ready_alone() -> (Self, Nats, Layout) {
        Self::start_alone().await.provisioned().await
    }

    async fn provisioned(self) -> (Self, Nats, Layout) {
        let nats = self.nats().await;
        let layout = provision(&nats, &self.config(), &Times::default()).await.unwrap();
        (self, nats, layout)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- end of the log of the nats-server at {} ----\n{}", self.host, self.process.log_tail(15));
        }
    }
}

fn single(store: &Path, host: &str) -> String {
    server_config::single_config(store, host, NATS_PORT, server_config::DiskSync::Interval)
}

/// Server `i` with this configuration, not started; configuration and log are in `folder`.
pub fn process(i: usize, folder: &Path, config: &str, addr: std::net::SocketAddr) -> Process {
    let file = folder.join(format!("nats-{i}.conf"));
    std::fs::write(&file, config).unwrap();
    let args = vec!["--config".into(), file.display().to_string()];
    Process::new(format!("nats-{i}"), programs::nats_server(), args, folder, Ready::Tcp(addr))
}

/// A group of the given partition.
pub fn thread_in(layout: &Layout, p: u32) -> Thread {
    (0..).map(|i| crate::thread(&format!("group.g{i}"))).find(|t| layout.partition(t) == p).unwrap()
}
