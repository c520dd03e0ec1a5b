//! Instances of the role, users' devices and edges' leases by hand, and what an edge hears.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use natterjack_nats::{KvBuckets, Layout, Nats, RoleConfig, RoleStartError, Service, provision, serve, subjects};
use natterjack_presence::run;
use natterjack_protocol::{
    Times, Token, UserId,
    client::frame::DeviceClass,
    internal::{
        devices::{DeviceEntry, SessionPlace, UserDevices},
        kv::EdgeInfo,
        presence::{Connected, PresenceAnswer, PresenceBatch, PresenceRequest, UserPresence},
        rpc::{EdgeAnswer, EdgeRequest},
    },
};
use natterjack_runtime::Health;
use natterjack_testkit::{NatsServer, edge_info, eventually, now_ms, raw_jetstream, user};
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub struct Instance {
    pub health: Health,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RoleStartError>>,
}

impl Instance {
    pub fn start(server: &NatsServer, name: &str) -> Self {
        let cfg = RoleConfig { nats: server.config(), times: Times::default(), instance: name.into() };
        let (health, stop) = (Health::new(), CancellationToken::new());
        let task = tokio::spawn(run(cfg, health.clone(), stop.clone()));
        Self { health, stop, task }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }

    /// Gone in the middle of whatever it did; its leases are not released.
    pub fn die(self) {
        self.task.abort();
    }
}

type Heard = Arc<Mutex<BTreeMap<UserId, Connected>>>;

/// Everything beside the role.
pub struct World {
    pub server: NatsServer,
    pub nats: Nats,
    pub layout: Layout,
    pub buckets: KvBuckets,
    heard: Heard,
    _hears: AbortOnDropHandle<()>,
}

impl World {
    pub async fn start() -> Self {
        let (server, nats, layout) = NatsServer::ready().await;
        let heard = Heard::default();
        let mut batches = nats.subscribe(subjects::PRESENCE).await.unwrap();
        let hears = tokio::spawn({
            let heard = heard.clone();
            async move {
                while let Some(m) = batches.next().await {
                    let batch: PresenceBatch = rmp_serde::from_slice(&m.payload).unwrap();
                    let mut heard = heard.lock().unwrap();
                    heard.extend(batch.users.into_iter().map(|u| (u.user, u.connected)));
                }
            }
        });
        let buckets = KvBuckets::new(&nats, layout);
        Self { server, nats, layout, buckets, heard, _hears: AbortOnDropHandle::new(hears) }
    }

    /// What was heard of a user last.
    pub fn heard(&self, user: &UserId) -> Option<Connected> {
        self.heard.lock().unwrap().get(user).copied()
    }

    /// Writes an edge's lease, as one whose sessions are in the buckets that there are.
    pub async fn lease(&self, edge: &str, incarnation: &str) {
        let sessions_in = self.buckets.sessions_made_ms().await.unwrap();
        self.lease_with(edge, incarnation, sessions_in).await;
    }

    pub async fn lease_with(&self, edge: &str, incarnation: &str, sessions_in: Vec<u64>) {
        let info = EdgeInfo { sessions_in, ..edge_info(incarnation) };
        self.buckets.edge(&Token::parse(edge).unwrap()).put(&info).await.unwrap();
    }

    /// The lease is gone at once, as if it had expired.
    pub async fn expire(&self, edge: &str) {
        self.buckets.edge(&Token::parse(edge).unwrap()).delete().await.unwrap();
    }

    /// An edge that answers pings.
    pub async fn answers(&self, edge: &str, incarnation: &str) -> Service {
        let incarnation: Arc<str> = incarnation.into();
        let answer = move |_: EdgeRequest| std::future::ready(Ok(EdgeAnswer { incarnation: incarnation.clone() }));
        serve(&self.nats, subjects::edge_service(&Token::parse(edge).unwrap()), None, 8, answer).await.unwrap()
    }

    /// A device of each of these users is connected to this edge.
    pub async fn connect(&self, users: impl IntoIterator<Item = UserId>, edge: &str, incarnation: &str) {
        let writes = stream::iter(users).map(|user| async move {
            self.buckets.devices(&user).put(&devices(Some(place(edge, incarnation)), now_ms())).await.unwrap();
        });
        writes.buffer_unordered(64).collect::<Vec<()>>().await;
    }

    /// The user left so long ago.
    pub async fn left(&self, user: &UserId, ago: Duration) {
        let at = now_ms() - ago.as_millis() as u64;
        self.buckets.devices(user).put(&devices(None, at)).await.unwrap();
    }

    /// Asks as an edge does.
    pub async fn ask(&self, user: &UserId) -> Option<UserPresence> {
        let subject = subjects::presence_service(self.layout.shard(user.as_str()));
        let request = PresenceRequest { users: vec![user.clone()] };
        let answer = self.nats.request::<_, PresenceAnswer>(&subject, &request, Duration::from_secs(2)).await.ok()?;
        answer.users.into_iter().next()
    }

    pub async fn is(&self, user: &UserId, connected: Connected) {
        eventually(&format!("{user} is {connected:?}"), async || {
            let found = self.ask(user).await.map(|u| u.connected);
            if found == Some(connected) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    /// How many of these users have a session in their key.
    pub async fn connected(&self, users: &[UserId]) -> usize {
        let reads = stream::iter(users.to_vec()).map(|user| async move {
            let devices = self.buckets.devices(&user).load().await.unwrap().unwrap();
            usize::from(devices.devices.iter().any(|d| d.session.is_some()))
        });
        reads.buffer_unordered(64).collect::<Vec<usize>>().await.into_iter().sum()
    }

    /// The buckets of sessions are lost, and made again, empty.
    pub async fn lose_sessions(&self) {
        let jetstream = raw_jetstream(&self.nats).await;
        for shard in 0..self.layout.kv_shards {
            jetstream.delete_stream(format!("KV_{}", subjects::sessions_bucket(shard))).await.unwrap();
        }
        provision(&self.nats, &self.server.config(), &Times::default()).await.unwrap();
    }
}

fn place(edge: &str, incarnation: &str) -> SessionPlace {
    SessionPlace { session: user("s1"), edge: user(edge), incarnation: incarnation.into() }
}

fn devices(session: Option<SessionPlace>, active: u64) -> UserDevices {
    let device = DeviceEntry {
        id: user("d1"),
        class: DeviceClass::Phone,
        name: None,
        app: None,
        family: user("f1"),
        since: active,
        active,
        session,
        displaced: None,
    };
    UserDevices { devices: vec![device], ..UserDevices::default() }
}

pub fn users(n: usize) -> Vec<UserId> {
    (0..n).map(|n| user(&format!("u{n}"))).collect()
}
