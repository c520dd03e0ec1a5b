//! What a role keeps in memory when a crowd is gone: password hashes, attaches, large pages, sockets that come and go
//! at once. Each role as a process of its own, and `up`, which has channel and persister in itself.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use futures_util::{StreamExt, stream};
use natterjack_nats::{Nats, NatsConfig};
use natterjack_protocol::codec::Codec;
use natterjack_testkit::{Process, eventually_within, net::Subnet, process::resident_mib, programs};
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, RawWs, User, mint::Mint};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::common::{SOON, cid, id_of, post};

/// Of messages in the thread that is read, and of one page.
const PAGE: usize = 200;
/// At once; half of them with one name, of which 30 may be under way.
const LOGINS: usize = 32;
const ATTACHES: usize = 64;
const PAGES: usize = 16;

struct Load {
    logins: usize,
    sockets: usize,
    /// All sockets are closed at once and opened again, so often.
    storms: usize,
    pages: usize,
}

const SMALL: Load = Load { logins: 100, sockets: 150, storms: 2, pages: 30 };
const LARGE: Load = Load { logins: 10_000, sockets: 10_000, storms: 3, pages: 2_000 };

/// MiB above what a role has when it has done nothing yet. A hash takes 19 MiB, a page of long texts 2 MB: what is kept
/// of each shows.
const EDGE: u64 = 60;
const CHANNEL: u64 = 30;
const PERSISTER: u64 = 60;
const UP: u64 = CHANNEL + PERSISTER;

/// Neither is what is tried here.
const SET: [(&str, &str); 2] = [("limits.requests_per_user", "0"), ("limits.connects_per_user", "0")];

struct Role {
    name: &'static str,
    pid: u32,
    most: u64,
}

struct System {
    edge: SocketAddr,
    mint: Mint,
    roles: Vec<Role>,
}

impl System {
    async fn of(cluster: &Cluster) -> Self {
        let role = |name, process: &Process, most| Role { name, pid: process.pid(), most };
        let roles = vec![
            role("edge", cluster.edge(0), EDGE),
            role("channel", cluster.channel(0), CHANNEL),
            role("persister", cluster.persister(0), PERSISTER),
        ];
        Self { edge: cluster.edge_addr(0), mint: Mint::new(cluster).await, roles }
    }

    fn resident(&self) -> Vec<u64> {
        self.roles.iter().map(|r| resident_mib(r.pid)).collect()
    }

    fn say(&self, when: &str) {
        let all: Vec<String> =
            self.roles.iter().zip(self.resident()).map(|(r, mib)| format!("{} {mib}", r.name)).collect();
        eprintln!("{when}, MiB: {}", all.join(", "));
    }

    async fn socket(&self, user: &User) -> RawWs {
        let mut ws = RawWs::connect(self.edge, Codec::Msgpack).await;
        ws.hello(user).await;
        ws
    }

    fn api(&self, user: &User) -> Api {
        Api::new(self.edge, Some(user.tokens.access.clone()))
    }
}

async fn holds(system: &System, load: Load) {
    let users = system.mint.users(load.sockets.max(2)).await;
    let anonymous = Api::new(system.edge, None);
    let idle = system.resident();
    system.say("idle");

    // Every other one right, so that tokens are made and kept, too.
    let (name, password) = (format!("crowd-{:06x}", rand::random::<u32>() & 0xff_ffff), "correct horse battery");
    let (status, body) = anonymous.post("/v1/register", &json!({ "name": name, "password": password })).await;
    assert_eq!(status, 200, "{body}");
    stream::iter(0..load.logins)
        .for_each_concurrent(LOGINS, async |n| {
            let (name, expected) = if n % 2 == 0 { (name.clone(), 200) } else { (format!("nobody-{n}"), 401) };
            let (status, body) = anonymous.post("/v1/login", &json!({ "name": name, "password": password })).await;
            assert_eq!(status, expected, "{body}");
        })
        .await;
    system.say("after logins");

    for _ in 0..load.storms {
        let attach = users.iter().take(load.sockets).map(|user| system.socket(user));
        let open: Vec<_> = stream::iter(attach).buffer_unordered(ATTACHES).collect().await;
        assert_eq!(open.len(), load.sockets);
        system.say("all attached");
        // All at once.
        drop(open);
    }
    system.say("after storms");

    let (thread, api) = (users[0].dm(&users[1]), system.api(&users[0]));
    let long = "ü".repeat(10_000);
    for _ in 0..PAGE {
        id_of(&post(&api, &thread, cid(), &long).await);
    }
    stream::iter(0..load.pages)
        .for_each_concurrent(PAGES, async |_| {
            let (status, page) = api.get(&format!("/v1/threads/{thread}/messages?limit={PAGE}")).await;
            assert_eq!(status, 200, "{page}");
        })
        .await;
    system.say("after pages");

    // What is left behind closed connections goes a moment later.
    eventually_within("no role keeps more than it says", SOON.max(Duration::from_secs(20)), async || {
        let now = system.resident();
        let over: Vec<String> = (system.roles.iter().zip(&idle).zip(&now))
            .filter(|((role, idle), now)| **now > **idle + role.most)
            .map(|((role, idle), now)| {
                format!("{} has {now} MiB, {idle} when idle, and may keep {}", role.name, role.most)
            })
            .collect();
        if over.is_empty() { Ok(()) } else { Err(over.join("; ")) }
    })
    .await;
    system.say("in the end");
}

async fn roles_hold(load: Load) {
    let set = SET.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let cluster = Cluster::start(ClusterSpec { edges: 1, set, ..ClusterSpec::default() }).await;
    holds(&System::of(&cluster).await, load).await;
}

/// `natterjack up`, with everything that it starts.
struct Up {
    child: Child,
    system: System,
}

impl Up {
    async fn start(data: &Path) -> Self {
        let (net, file) = (Subnet::next(), data.join("state.json"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(programs::natterjack()).args([
            "up",
            "--die-with-parent",
            "--port",
            "8080",
        ]);
        command
            .args(["--host", &net.edge(0).ip().to_string()])
            .arg("--data")
            .arg(data.join("data"))
            .arg("--state-file")
            .arg(&file);
        command.args(SET.iter().flat_map(|(k, v)| ["--set".to_owned(), format!("{k}={v}")]));
        command.env("NATTERJACK_NATS_SERVER", programs::nats_server());
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let state: Value = eventually_within("up is ready", Duration::from_secs(60), async || {
            std::fs::read(&file)
                .map_err(|e| e.to_string())
                .and_then(|b| serde_json::from_slice(&b).map_err(|e| e.to_string()))
        })
        .await;
        let pid = |at: &str| state.pointer(at).and_then(Value::as_u64).and_then(|n| n.try_into().ok()).unwrap();
        let roles = vec![
            Role { name: "up", pid: pid("/pids/up"), most: UP },
            Role { name: "edge 1 of up", pid: pid("/pids/edges/0"), most: EDGE },
            Role { name: "edge 2 of up", pid: pid("/pids/edges/1"), most: EDGE },
        ];
        let urls = vec![state["nats_url"].as_str().unwrap().to_owned()];
        let nats = Nats::connect(&NatsConfig { urls, ..NatsConfig::default() }, "test").await.unwrap();
        let edge = (net.edge(0).ip(), 8080).into();
        Self { child, system: System { edge, mint: Mint::on(&nats).await, roles } }
    }
}

async fn up_holds(load: Load) {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Up::start(dir.path()).await;
    holds(&up.system, load).await;
    // Its own end ends its children.
    drop(up.child.stdin.take());
    up.child.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crowd_took_is_given_back() {
    roles_hold(SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crowd_took_is_given_back_by_up() {
    up_holds(SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: 10,000 of each; in make test-heavy"]
async fn what_a_large_crowd_took_is_given_back() {
    roles_hold(LARGE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: 10,000 of each; in make test-heavy"]
async fn what_a_large_crowd_took_is_given_back_by_up() {
    up_holds(LARGE).await;
}
