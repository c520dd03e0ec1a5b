//! A whole installation of real processes: nats-server (1 or 3), channel, persister and edges, each a process of its
//! own.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use natterjack_client::{Builder, Client, Events};
use natterjack_nats::{
    Layout, Nats, NatsConfig, NatsRole,
    server_config::{DiskSync, cluster_config, single_config},
};
use natterjack_testkit::{
    Certificates, NatsProxy, Process, Proxy, Stopwatch, eventually_within, nats_server,
    net::{NATS_PORT, Subnet, Turn},
    process::Ready,
    programs,
};
use tempfile::TempDir;
use tokio::{sync::OnceCell, time::Instant};

use super::{
    api::Api,
    mint::Mint,
    panics,
    raw_ws::RawWs,
    secured_nats::{LetsIn, SecuredNats},
    user::User,
};

#[derive(Debug, Clone)]
pub struct ClusterSpec {
    pub edges: usize,
    pub channels: usize,
    pub persisters: usize,
    /// 1 or 3; with 3 everything is replicated three times.
    pub nats: usize,
    pub partitions: u32,
    /// Windows and sweeps divided by this (`Times::scaled`).
    pub times_divisor: u32,
    /// Edge i reaches NATS through a proxy that can drop chosen messages: [`Cluster::nats_proxy`].
    pub proxied_edges: bool,
    /// Which nats-server each instance connects to first; by default instance i takes server i modulo their number.
    pub edge_nodes: Vec<usize>,
    pub channel_nodes: Vec<usize>,
    pub persister_nodes: Vec<usize>,
    /// Edge i is started by a shell that says this first, for instance `ulimit -n 256`.
    pub edge_shell: Vec<String>,
    /// Edges speak TLS, with a certificate of the kit's own authority: [`Cluster::certificates`].
    pub tls: bool,
    /// nats-servers over TLS that let in only these: [`Cluster::secured_nats`].
    pub secured_nats: Option<LetsIn>,
    /// More settings for every process, dotted key and value.
    pub set: Vec<(String, String)>,
    pub log_filter: String,
    /// No other cluster may run meanwhile.
    pub alone: bool,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            edges: 2,
            channels: 1,
            persisters: 1,
            nats: 1,
            partitions: 2,
            times_divisor: 1,
            proxied_edges: false,
            edge_nodes: Vec::new(),
            channel_nodes: Vec::new(),
            persister_nodes: Vec::new(),
            edge_shell: Vec::new(),
            tls: false,
            secured_nats: None,
            set: Vec::new(),
            log_filter: "info,async_nats=warn,scylla=error".into(),
            alone: false,
        }
    }
}

/// Ends with the test. If the test fails, the end of every log is printed and the folder stays.
pub struct Cluster {
    spec: ClusterSpec,
    net: Subnet,
    nats: Vec<Process>,
    channels: Vec<Process>,
    persisters: Vec<Process>,
    edges: Vec<Process>,
    nats_proxies: Vec<NatsProxy>,
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
            edges: Vec::new(),
            nats_proxies: Vec::new(),
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
            let printed = tokio::process::Command::new(programs::natterjack()).args(["provision", "--print-permissions"]).output();
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
        cluster.channels = (0..cluster.spec.channels).map(|i| cluster.channel_process(i)).collect();
        cluster.persisters = (0..cluster.spec.persisters).map(|i| cluster.persister_process(i)).collect();
        cluster.edges = (0..cluster.spec.edges).map(|i| cluster.edge_process(i)).collect();
        let roles = || cluster.channels.iter().chain(&cluster.persisters).chain(&cluster.edges);
        roles().for_each(Process::spawn);
        for role in roles() {
            role.wait_ready().await;
        }
        cluster
    }

    fn dir(&self) -> PathBuf {
        self.dir.as_ref().expect("only taken on drop").path().to_owned()
    }

    fn nats_process(&self, i: usize) -> Process {
        let (addr, store) = (self.net.nats(i), self.dir().join(format!("nats-{i}")));
        let host = addr.ip().to_string();
        let text = if self.spec.nats == 1 {
            single_config(&store, &host, addr.port(), DiskSync::Interval)
        } else {
            let routes: Vec<String> = (0..self.spec.nats).map(|n| self.net.route(n).to_string()).collect();
            cluster_config(&store, &host, addr.port(), i, &routes, DiskSync::Interval)
        };
        let more = self.secured.as_ref().map(|s| s.server(i, &host)).unwrap_or_default();
        nats_server::process(i, &self.dir(), &(text + &more), addr)
    }

    fn settings(&self, role: NatsRole, first: usize) -> Vec<(String, String)> {
        self.settings_with(role, self.nats_urls(first).join(","))
    }

    fn settings_with(&self, role: NatsRole, nats_url: String) -> Vec<(String, String)> {
        let mut set: Vec<(String, String)> = [
            ("nats.urls", nats_url),
            ("nats.replicas", self.spec.nats.to_string()),
            ("nats.partitions", self.spec.partitions.to_string()),
            // A test writes megabytes; the default would reserve a quarter of the disk.
            ("nats.max_bytes", (256u64 << 20).to_string()),
            ("times.divisor", self.spec.times_divisor.to_string()),
            ("log.filter", self.spec.log_filter.clone()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        set.extend(self.secured.iter().flat_map(|s| s.settings(role)));
        set.extend(self.spec.set.iter().cloned());
        set
    }

    /// Server `first`; where some let nobody in, all of them.
    fn nats_urls(&self, first: usize) -> Vec<String> {
        match &self.secured {
            None => vec![self.nats_url(first)],
            Some(s) => s.urls(&(0..self.spec.nats).map(|i| self.nats_url(i)).collect::<Vec<_>>(), first),
        }
    }

    fn role(&self, name: String, role: NatsRole, nats_url: String, own: &[(&str, String)], ready: String) -> Process {
        let mut args = vec![role.name().to_owned(), "--die-with-parent".to_owned()];
        // What the test says for all comes last and wins.
        let own = own.iter().map(|(k, v)| ((*k).to_owned(), v.clone()));
        args.extend(own.chain(self.settings_with(role, nats_url)).flat_map(|(k, v)| ["--set".to_owned(), format!("{k}={v}")]));
        let clock = self.clock(&name).display().to_string();
        Process::new(name, programs::natterjack(), args, &self.dir(), Ready::Http(ready)).env(Self::CLOCK, &clock)
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

    fn edge_process(&self, i: usize) -> Process {
        let addr = self.net.edge(i);
        let nats = match self.nats_proxies.get(i) {
            Some(proxy) => proxy.url(),
            None => self.nats_urls(node(&self.spec.edge_nodes, i, self.spec.nats)).join(","),
        };
        let mut own = vec![("edge.id", format!("edge-{i}")), ("edge.listen", addr.to_string()), ("edge.url", self.edge_url(i))];
        own.push(("admin.listen", self.edge_admin(i).to_string()));
        if let Some(files) = &self.certificates {
            own.push(("edge.tls.certificate", files.certificate.display().to_string()));
            own.push(("edge.tls.key", files.key.display().to_string()));
        }
        let process =
            self.role(format!("edge-{i}"), NatsRole::Edge, nats, &own, format!("{}/ready", self.edge_url(i).replacen("ws", "http", 1)));
        match self.spec.edge_shell.get(i) {
            Some(first) => process.behind(first),
            None => process,
        }
    }

    fn channel_process(&self, i: usize) -> Process {
        let (admin, nats) = (self.net.channel(i), self.nats_urls(node(&self.spec.channel_nodes, i, self.spec.nats)).join(","));
        self.role(format!("channel-{i}"), NatsRole::Channel, nats, &[("admin.listen", admin.to_string())], format!("http://{admin}/ready"))
    }

    fn persister_process(&self, i: usize) -> Process {
        let (admin, nats) = (self.net.persister(i), self.nats_urls(node(&self.spec.persister_nodes, i, self.spec.nats)).join(","));
        let own = [("admin.listen", admin.to_string()), ("persister.archive", self.archive().display().to_string())];
        self.role(format!("persister-{i}"), NatsRole::Persister, nats, &own, format!("http://{admin}/ready"))
    }

    /// Three servers elect their leaders first; until then they refuse.
    async fn provision(&self) {
        eventually_within("streams and buckets are made", Duration::from_secs(60), async || self.run_provision(&[]).await).await;
    }

    /// `natterjack provision --partitions N`, once; what it says if it fails.
    pub async fn switch(&self, partitions: u32) -> Result<(), String> {
        self.run_provision(&["--partitions".to_owned(), partitions.to_string()]).await
    }

    /// `natterjack provision --new-generation`, once; what it says if it fails.
    pub async fn new_generation(&self) -> Result<(), String> {
        self.run_provision(&["--new-generation".to_owned()]).await
    }

    /// What `natterjack doctor` says, and whether it is content.
    pub async fn doctor(&self) -> (String, bool) {
        let settings = self.settings(NatsRole::Doctor, 0).into_iter().flat_map(|(k, v)| ["--set".to_owned(), format!("{k}={v}")]);
        let mut command = tokio::process::Command::new(programs::natterjack());
        command.env("NATTERJACK_NATS_SERVER", programs::nats_server());
        let out = command.arg("doctor").args(settings).output().await.unwrap();
        (String::from_utf8_lossy(&out.stdout).into_owned(), out.status.success())
    }

    async fn run_provision(&self, own: &[String]) -> Result<(), String> {
        self.run_as(NatsRole::Provision, "provision", own).await.map(drop)
    }

    /// A command of an operator, to its end: what it says, or what it says if it fails.
    pub async fn run(&self, command: &str, args: &[String]) -> Result<String, String> {
        self.run_as(NatsRole::Persister, command, args).await
    }

    async fn run_as(&self, role: NatsRole, command: &str, args: &[String]) -> Result<String, String> {
        let mut settings = self.settings(role, 0);
        settings.push(("persister.archive".into(), self.archive().display().to_string()));
        let settings = settings.into_iter().flat_map(|(k, v)| ["--set".to_owned(), format!("{k}={v}")]);
        let mut process = tokio::process::Command::new(programs::natterjack());
        let out = process.arg(command).args(args).args(settings).kill_on_drop(true).output().await.map_err(|e| e.to_string())?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if out.status.success() { Ok(said(&out.stdout)) } else { Err(said(&out.stderr)) }
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

    /// `/health`, `/ready` and `/metrics` of persister `i`.
    pub fn persister_admin(&self, i: usize) -> SocketAddr {
        self.net.persister(i)
    }

    /// Between edge `i` and its nats-server; only with `proxied_edges`.
    pub fn nats_proxy(&self, i: usize) -> &NatsProxy {
        self.nats_proxies.get(i).expect("set `proxied_edges` in the ClusterSpec")
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

    /// What a command of that role is told, as `--set`.
    pub fn command_line(&self, role: NatsRole) -> Vec<String> {
        self.settings(role, 0).into_iter().flat_map(|(k, v)| ["--set".to_owned(), format!("{k}={v}")]).collect()
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

    /// Registers over HTTP, with a name that begins with this.
    pub async fn user(&self, name: &str) -> User {
        User::register(self, 0, name).await
    }

    /// Many users without the cost of hashing passwords: they exist, and their tokens are signed by a key of the test's
    /// own.
    pub async fn mint_users(&self, count: usize) -> Vec<User> {
        self.mint.get_or_init(|| Mint::new(self)).await.users(count).await
    }

    /// Another device of one of them.
    pub fn other_device(&self, user: &User, device: &str) -> User {
        self.mint.get().expect("a user of `mint_users`").device(user, device)
    }

    pub fn api(&self, user: &User, edge: usize) -> Api {
        self.anonymous(edge).with_token(user.tokens.access.clone())
    }

    /// HTTP without a login.
    pub fn anonymous(&self, edge: usize) -> Api {
        match &self.certificates {
            None => Api::new(self.net.edge(edge), None),
            Some(files) => Api::secure(self.net.edge(edge), &files.ca),
        }
    }

    /// The SDK, connected to one edge first; it learns the others from it.
    pub async fn client(&self, user: &User, edge: usize) -> (Client, Events) {
        self.client_with(user, edge, |b| b).await
    }

    /// Likewise, with settings of its own.
    pub async fn client_with(&self, user: &User, edge: usize, with: impl FnOnce(Builder) -> Builder) -> (Client, Events) {
        let builder = user.builder([self.edge_url(edge)]);
        let builder = match &self.certificates {
            None => builder,
            Some(files) => builder.root_certificates(files.ca.as_str()),
        };
        with(builder).connect().await.unwrap_or_else(|e| panic!("{} cannot connect: {e}", user.name))
    }

    /// A bare socket that said hello and is attached.
    pub async fn raw(&self, user: &User, edge: usize, codec: natterjack_protocol::codec::Codec) -> RawWs {
        let mut ws = match &self.certificates {
            None => RawWs::connect(self.net.edge(edge), codec).await,
            Some(files) => RawWs::connect_tls(self.net.edge(edge), codec, files.client()).await,
        };
        ws.hello(user).await;
        ws
    }

    /// Every process, for looking at logs.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.nats.iter().chain(&self.channels).chain(&self.persisters).chain(&self.edges)
    }

    /// No process may log what is said here (a body, a password, a token).
    pub fn assert_not_logged(&self, secret: &str) {
        for p in self.processes() {
            assert!(!p.log().contains(secret), "{} has logged a secret", p.name());
        }
    }
}

fn node(places: &[usize], i: usize, servers: usize) -> usize {
    places.get(i).copied().unwrap_or(i % servers)
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
