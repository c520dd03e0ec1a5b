//! A whole installation of real processes: nats-server (1 or 3), channel, persister and edges, each a process of its
//! own.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use natterjack_nats::{Layout, Nats, NatsConfig};
use natterjack_testkit::{
    Certificates, NatsProxy, Process, Proxy, Stopwatch, eventually_within,
    net::{NATS_PORT, Subnet, Turn},
    programs,
};
use tempfile::TempDir;
use tokio::{sync::OnceCell, time::Instant};

use super::{api::Api, mint::Mint, panics, secured_nats::SecuredNats};

mod clients;
mod commands;
mod processes;
mod spec;

use self::processes::node;
pub use spec::ClusterSpec;

/// Ends with the test. If the test fails, the end of every log is printed and the folder stays.
pub struct Cluster {
    spec: ClusterSpec,
    net: Subnet,
    nats: Vec<Process>,
    channels: Vec<Process>,
    persisters: Vec<Process>,
    presences: Vec<Process>,
    edges: Vec<Process>,
    nats_proxies: Vec<NatsProxy>,
    presence_proxies: Vec<NatsProxy>,
    proxies: AtomicUsize,
    mint: OnceCell<Mint>,
    certificates: Option<Certificates>,
    secured: Option<Box<SecuredNats>>,
    /// None after a failed test: kept for looking at.
    dir: Option<TempDir>,
    _turn: Turn,
    _watch: Stopwatch,
}

impl Cluster {
    /// Everything runs and answers when this returns.
    pub async fn start(spec: ClusterSpec) -> Self {
        panics::keep();
        let turn = Turn::wait(spec.alone).await;
        let net = Subnet::next();
        let dir = tempfile::Builder::new().prefix("natterjack-test-").tempdir().unwrap();
        let mut cluster = Self {
            net,
            nats: Vec::new(),
            channels: Vec::new(),
            persisters: Vec::new(),
            presences: Vec::new(),
            edges: Vec::new(),
            nats_proxies: Vec::new(),
            presence_proxies: Vec::new(),
            proxies: AtomicUsize::new(0),
            mint: OnceCell::new(),
            certificates: None,
            secured: None,
            dir: Some(dir),
            _turn: turn,
            // Not counted: the wait for a turn.
            _watch: Stopwatch::new(),
            spec,
        };
        if cluster.spec.tls {
            let hosts = (0..cluster.spec.edges).map(|i| cluster.net.edge(i).ip().to_string()).collect();
            cluster.certificates = Some(Certificates::new(cluster.dir(), hosts));
        }
        if let Some(lets_in) = cluster.spec.secured_nats {
            let printed = tokio::process::Command::new(programs::natterjack())
                .args(["provision", "--print-permissions"])
                .output();
            let permissions = String::from_utf8(printed.await.unwrap().stdout).unwrap();
            cluster.secured = Some(Box::new(SecuredNats::new(&cluster.dir(), lets_in, &permissions)));
        }
        cluster.nats = (0..cluster.spec.nats).map(|i| cluster.nats_process(i)).collect();
        cluster.nats.iter().for_each(Process::spawn);
        for n in &cluster.nats {
            n.wait_ready().await;
        }
        cluster.provision().await;
        if cluster.spec.proxied_edges {
            for i in 0..cluster.spec.edges {
                let target = cluster.net.nats(node(&cluster.spec.edge_nodes, i, cluster.spec.nats));
                cluster.nats_proxies.push(NatsProxy::start(cluster.net.nats_proxy(i), target).await);
            }
        }
        let proxied = if cluster.spec.proxied_presences { cluster.spec.presences } else { 0 };
        for i in 0..proxied {
            let target = cluster.net.nats(i % cluster.spec.nats);
            // Behind those of the edges.
            let listen = cluster.net.nats_proxy(cluster.spec.edges + i);
            cluster.presence_proxies.push(NatsProxy::start(listen, target).await);
        }
        cluster.channels = (0..cluster.spec.channels).map(|i| cluster.channel_process(i)).collect();
        cluster.persisters = (0..cluster.spec.persisters).map(|i| cluster.persister_process(i)).collect();
        cluster.presences = (0..cluster.spec.presences).map(|i| cluster.presence_process(i)).collect();
        cluster.edges = (0..cluster.spec.edges).map(|i| cluster.edge_process(i)).collect();
        let roles =
            || cluster.channels.iter().chain(&cluster.persisters).chain(&cluster.presences).chain(&cluster.edges);
        roles().for_each(Process::spawn);
        for role in roles() {
            role.wait_ready().await;
        }
        cluster
    }

    fn dir(&self) -> PathBuf {
        self.dir.as_ref().expect("only taken on drop").path().to_owned()
    }

    /// Names the file that says by how many milliseconds a process's clock is wrong.
    pub const CLOCK: &str = "NATTERJACK_TEST_CLOCK";

    pub fn clock(&self, process: &str) -> PathBuf {
        self.dir().join(format!("clock-{process}"))
    }

    /// From now on this process takes it for so much later.
    pub fn set_clock(&self, process: &str, ms: i64) {
        let (file, new) = (self.clock(process), self.clock(&format!("{process}.new")));
        // Never half of it.
        std::fs::write(&new, ms.to_string()).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// Everything that was stored is gone. Nothing may run.
    pub fn wipe(&self) {
        for i in 0..self.spec.nats {
            std::fs::remove_dir_all(self.dir().join(format!("nats-{i}"))).unwrap();
        }
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(self.dir().join(format!("archive.db{end}")));
        }
    }

    /// The file of history and people.
    pub fn archive(&self) -> PathBuf {
        self.dir().join("archive.db")
    }

    /// A folder that lives as long as the cluster.
    pub fn folder(&self) -> PathBuf {
        self.dir()
    }

    pub fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    pub fn nats(&self, i: usize) -> &Process {
        &self.nats[i]
    }

    pub fn channel(&self, i: usize) -> &Process {
        &self.channels[i]
    }

    pub fn persister(&self, i: usize) -> &Process {
        &self.persisters[i]
    }

    pub fn edge(&self, i: usize) -> &Process {
        &self.edges[i]
    }

    pub fn nats_url(&self, i: usize) -> String {
        format!("nats://{}", self.net.nats(i))
    }

    /// `ws://…` or `wss://…`, as clients take it.
    pub fn edge_url(&self, i: usize) -> String {
        format!("{}://{}", if self.certificates.is_some() { "wss" } else { "ws" }, self.net.edge(i))
    }

    /// Only with `tls`.
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("set `tls` in the ClusterSpec")
    }

    pub fn edge_addr(&self, i: usize) -> SocketAddr {
        self.net.edge(i)
    }

    /// `/health`, `/ready` and `/metrics` of edge `i`.
    pub fn edge_admin(&self, i: usize) -> SocketAddr {
        self.net.edge_admin(i)
    }

    /// What edge `i` counts, as Prometheus reads it.
    pub async fn edge_metrics(&self, i: usize) -> String {
        let (status, text) = Api::new(self.edge_admin(i), None).get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// What the first persister counts.
    pub async fn persister_metrics(&self) -> String {
        let (status, text) = Api::new(self.persister_admin(0), None).get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        text.as_str().unwrap_or_default().to_owned()
    }

    pub fn presence(&self, i: usize) -> &Process {
        &self.presences[i]
    }

    /// `/health`, `/ready` and `/metrics` of persister `i`.
    pub fn persister_admin(&self, i: usize) -> SocketAddr {
        self.net.persister(i)
    }

    /// Between edge `i` and its nats-server; only with `proxied_edges`.
    pub fn nats_proxy(&self, i: usize) -> &NatsProxy {
        self.nats_proxies.get(i).expect("set `proxied_edges` in the ClusterSpec")
    }

    /// Likewise of presence `i`; only with `proxied_presences`.
    pub fn presence_proxy(&self, i: usize) -> &NatsProxy {
        self.presence_proxies.get(i).expect("set `proxied_presences` in the ClusterSpec")
    }

    /// A new proxy in front of edge `i`; clients connect to its `url()`.
    pub async fn proxy_to_edge(&self, i: usize) -> Proxy {
        Proxy::start(self.proxy_addr(), self.net.edge(i)).await
    }

    /// An address for somebody else's proxy, which the test runs itself.
    pub fn proxy_addr(&self) -> SocketAddr {
        self.net.proxy(self.proxies.fetch_add(1, Ordering::Relaxed))
    }

    /// A connection to NATS for the test itself, with the names and helpers of the nats crate.
    pub async fn connect_nats(&self) -> Nats {
        Nats::connect(&self.nats_config(), "test").await.unwrap()
    }

    /// For connections of the test's own.
    pub fn nats_config(&self) -> NatsConfig {
        let urls: Vec<String> = (0..self.spec.nats).map(|i| self.nats_url(i)).collect();
        match &self.secured {
            None => NatsConfig { urls, ..NatsConfig::default() },
            Some(s) => NatsConfig { urls: s.urls(&urls, 0), ..s.client(None) },
        }
    }

    /// Only with `secured_nats`.
    pub fn secured_nats(&self) -> &SecuredNats {
        self.secured.as_deref().expect("set `secured_nats` in the ClusterSpec")
    }

    /// Where a nats-server that is none of the cluster's may listen.
    pub fn spare_nats(&self) -> SocketAddr {
        self.net.spare(0, NATS_PORT)
    }

    /// From now until every stream has a leader again: the share of NATS in a pause after the death of one of its
    /// nodes.
    pub async fn elections(&self) -> Duration {
        let (began, nats) = (Instant::now(), self.connect_nats().await);
        let limit = Duration::from_secs(30);
        let layout = eventually_within("the layout is read", limit, async || Layout::load(&nats).await).await;
        layout.wait_for_leaders(&nats, limit).await.unwrap();
        began.elapsed()
    }

    /// Every process, for looking at logs.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.nats.iter().chain(&self.channels).chain(&self.persisters).chain(&self.presences).chain(&self.edges)
    }

    /// No process may log what is said here (a body, a password, a token).
    pub fn assert_not_logged(&self, secret: &str) {
        for p in self.processes() {
            assert!(!p.log().contains(secret), "{} has logged a secret", p.name());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for p in self.processes() {
            eprintln!("---- end of the log of {} ----\n{}", p.name(), p.log_tail(40));
        }
        if let Some(dir) = self.dir.take() {
            eprintln!("---- kept: {} ----", dir.keep().display());
        }
        eprintln!("---- the test failed with: {} ----", panics::last().unwrap_or_default());
    }
}
