//! One edge with everything it needs, and clients that speak plain frames.

mod client;

use std::{
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use natterjack_edge::{Config, Error, address, run};
use natterjack_nats::{KvBuckets, Layout, LeaderReader, Nats, Service, serve, subjects};
use natterjack_protocol::{
    Body, Code, Entry, Event, Kind, Most, MsgId, Refusal, Thread, Times,
    client::{
        close::Close,
        frame::{Page, ServerFrame},
    },
    codec::Codec,
    internal::{
        claims::{Claims, ISSUER},
        kv::{EdgeInfo, PublicKey},
        live::Beat,
        rpc::{DirectoryAnswer, DirectoryRequest, Heads, HeadsAnswer, HistoryAnswer, HistoryRequest, LastEntry},
    },
    log::fold::UserThreads,
};
use natterjack_runtime::Health;
use natterjack_testkit::{NatsServer, RawHttp, eventually};
pub use natterjack_testkit::{cid, cid_at, now_ms, user as id};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub use self::client::Client;

pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn times() -> Times {
    let ms = Duration::from_millis;
    Times { hello: ms(700), handshake: ms(700), head: ms(700), body: ms(700), drain: ms(4_000), ..Times::default() }
}

/// Holds back the answers to who asks for heads of threads; who asks for none is answered.
#[derive(Clone)]
pub struct Hold(Arc<watch::Sender<bool>>, Arc<AtomicUsize>);

impl Hold {
    pub fn on(&self, held: bool) {
        self.0.send_replace(held);
    }

    /// How many have asked while it was on.
    pub fn asked(&self) -> usize {
        self.1.load(Relaxed)
    }

    async fn pass(&self, q: &Heads) {
        if *self.0.borrow() && !q.threads.is_empty() {
            self.1.fetch_add(1, Relaxed);
            let _ = self.0.subscribe().wait_for(|held| !held).await;
        }
    }
}

/// Edge, log, and what stands in for the other roles.
pub struct World {
    pub addr: SocketAddr,
    pub health: Health,
    pub tail: LeaderReader,
    pub beats: watch::Sender<bool>,
    /// By how many milliseconds the log's clock is ahead, as the beats say it.
    pub log_ahead: Arc<AtomicI64>,
    pub heads: Hold,
    pub nats: Nats,
    buckets: KvBuckets,
    signing: EncodingKey,
    stop: CancellationToken,
    edge: Option<JoinHandle<Result<(), Error>>>,
    _others: (Vec<Service>, AbortOnDropHandle<()>),
    _server: NatsServer,
}

impl World {
    pub async fn start(users: &[&str]) -> Self {
        Self::with(users, times()).await
    }

    pub async fn with(users: &[&str], times: Times) -> Self {
        Self::configured(users, times, |_| ()).await
    }

    pub async fn configured(users: &[&str], times: Times, configure: impl FnOnce(&mut Config)) -> Self {
        let (server, nats, layout) = NatsServer::ready().await;
        let buckets = KvBuckets::new(&nats, layout);
        for user in users {
            buckets.threads(&id(user)).create_if_absent(&UserThreads::default()).await.unwrap();
        }
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let public = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap().public_key().as_ref().to_vec();
        let key = PublicKey { ed25519: public, until: now_ms() + 3_600_000 };
        buckets.signing_key(&id("k1")).put(&key).await.unwrap();

        let tail = LeaderReader::new(&nats, layout);
        let heads = Hold(Arc::new(watch::Sender::new(false)), Arc::default());
        let others = others(&nats, layout, &tail, &heads).await;
        let (beats, on) = watch::channel(true);
        let log_ahead: Arc<AtomicI64> = Arc::default();
        let beating = AbortOnDropHandle::new(tokio::spawn(beat(nats.clone(), layout, on, log_ahead.clone())));

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let mut cfg = Config {
            nats: server.config(),
            times,
            instance: "test".into(),
            edge_id: id("e1"),
            listen: addr,
            ..Config::default()
        };
        configure(&mut cfg);
        let (health, stop) = (Health::new(), CancellationToken::new());
        let edge = tokio::spawn(run(cfg, health.clone(), stop.clone()));
        timeout(PATIENCE, health.ready()).await.unwrap();
        Self {
            addr,
            health,
            tail,
            beats,
            log_ahead,
            heads,
            nats,
            buckets,
            signing: EncodingKey::from_ed_der(pkcs8.as_ref()),
            stop,
            edge: Some(edge),
            _others: (others, beating),
            _server: server,
        }
    }

    /// Asks the edge to leave; its end is the result.
    pub fn stop(&mut self) -> JoinHandle<Result<(), Error>> {
        self.stop.cancel();
        self.edge.take().unwrap()
    }

    pub fn buckets(&self) -> &KvBuckets {
        &self.buckets
    }

    /// The lease of another edge. `machine`: where it runs; `url`: what its operator says that its address is.
    pub async fn another_edge(&self, id: &str, listen: SocketAddr, machine: String, url: Option<&str>) {
        let other = address::lease(url.map(Into::into), listen, false, machine, "i");
        self.buckets().edge(&id.parse().unwrap()).put(&EdgeInfo { healthy: true, ..other }).await.unwrap();
    }

    pub fn token(&self, user: &str, device: &str, lifetime_s: i64) -> String {
        let now = now_ms() / 1_000;
        let exp = now.checked_add_signed(lifetime_s).unwrap();
        let claims = Claims { iss: ISSUER.into(), sub: id(user), device: id(device), fam: "f".into(), iat: now, exp };
        let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &self.signing).unwrap()
    }

    pub async fn socket(&self, codec: Codec) -> Client {
        let mut request = format!("ws://{}/v1/ws", self.addr).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", codec.subprotocol().parse().unwrap());
        let stream = TcpStream::connect(self.addr).await.unwrap();
        let (ws, _) = client_async(request, stream).await.unwrap();
        Client { ws, codec, r: 0 }
    }

    /// HTTP by hand.
    pub async fn dial(&self) -> RawHttp<TcpStream> {
        RawHttp::new(TcpStream::connect(self.addr).await.unwrap())
    }

    /// Likewise, from another address of this machine.
    pub async fn dial_from(&self, address: &str) -> RawHttp<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        RawHttp::new(socket.connect(self.addr).await.unwrap())
    }

    /// Likewise, and the kernel takes so many bytes for it, or what it has as its least.
    pub async fn dial_with_buffer(&self, bytes: u32) -> RawHttp<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        RawHttp::new(socket.connect(self.addr).await.unwrap())
    }

    /// Connected, greeted and attached.
    pub async fn client(&self, user: &str, device: &str, codec: Codec) -> Client {
        let mut client = self.socket(codec).await;
        client.hello(&self.token(user, device, 600), device).await;
        client.until(|f| matches!(f, ServerFrame::Welcome(w) if w.user == id(user))).await;
        client.until(|f| matches!(f, ServerFrame::Attached { .. })).await;
        client
    }

    /// Status, head in lower case, body.
    pub async fn http(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> (u16, String, serde_json::Value) {
        let auth = token.map_or_else(String::new, |t| format!("Authorization: Bearer {t}\r\n"));
        let json = "Content-Type: application/json\r\n";
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: h\r\n{auth}{json}Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        self.raw(&(head + body)).await
    }

    pub async fn raw(&self, request: &str) -> (u16, String, serde_json::Value) {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or_default())
    }
}

async fn beat(nats: Nats, layout: Layout, on: watch::Receiver<bool>, ahead: Arc<AtomicI64>) {
    loop {
        for p in 0..layout.partitions {
            let since = now_ms() - 3_600_000;
            let ts = now_ms().saturating_add_signed(ahead.load(Relaxed));
            let beat = Beat { generation: 1, p, ts, dedupe_since: since, frontier: MsgId(1), archive_lag_ms: Some(0) };
            if *on.borrow() {
                nats.publish(subjects::beat(p), beat.encode()).await.unwrap();
            }
        }
        // As often as `channel` does it.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn others(nats: &Nats, layout: Layout, tail: &LeaderReader, hold: &Hold) -> Vec<Service> {
    let mut services = Vec::new();
    for p in 0..layout.partitions {
        let hold = hold.clone();
        let heads = move |q: Heads| {
            let hold = hold.clone();
            async move {
                hold.pass(&q).await;
                let heads = vec![MsgId::NONE; q.threads.len()];
                Ok::<_, Refusal>(HeadsAnswer { heads, frontier: MsgId(1), ts: now_ms(), ..HeadsAnswer::default() })
            }
        };
        services.push(serve(nats, subjects::heads(1, p), None, 64, heads).await.unwrap());
    }
    let tail = tail.clone();
    let history = move |q: HistoryRequest| {
        let tail = tail.clone();
        async move {
            Ok::<_, Refusal>(match q {
                HistoryRequest::FindCid { thread, sender, cid, .. } => {
                    let stored = tail.after(&thread, MsgId::NONE, MsgId::MAX, Most::count(1_000)).await.unwrap();
                    let found = stored
                        .iter()
                        .find(|r| Entry::decode(&r.payload).is_ok_and(|e| e.from == sender && e.cid == cid));
                    HistoryAnswer::FindCid { found: found.map(|r| r.id), seen: now_ms() }
                }
                HistoryRequest::IsMessage { .. } => HistoryAnswer::IsMessage(false),
                HistoryRequest::Page { thread, .. } => {
                    HistoryAnswer::Page(Page { events: vec![long(thread)], ..Page::default() })
                }
                HistoryRequest::LastEntries { threads } => {
                    HistoryAnswer::LastEntries(vec![LastEntry::default(); threads.len()])
                }
                HistoryRequest::Latest { threads, .. } => {
                    HistoryAnswer::Latest(vec![Default::default(); threads.len()])
                }
                HistoryRequest::Between { .. } => HistoryAnswer::Between { events: Vec::new(), complete: true },
            })
        }
    };
    services.push(serve(nats, subjects::HISTORY.into(), Some("history"), 64, history).await.unwrap());
    let directory = |q: DirectoryRequest| async move {
        match q {
            DirectoryRequest::Profiles { .. } | DirectoryRequest::Find { .. } => {
                Ok(DirectoryAnswer::Profiles(Vec::new()))
            }
            DirectoryRequest::Contacts { .. } => Ok(DirectoryAnswer::Contacts { contacts: Vec::new(), more: false }),
            DirectoryRequest::Contact { .. } => Ok(DirectoryAnswer::Contact(None)),
            DirectoryRequest::Logout { .. } | DirectoryRequest::DeleteAccount { .. } => Ok(DirectoryAnswer::Done),
            DirectoryRequest::Sessions { .. } => Ok(DirectoryAnswer::Sessions(Vec::new())),
            DirectoryRequest::EndSessions { .. } | DirectoryRequest::ChangePassword { .. } => {
                Ok(DirectoryAnswer::Ended(1))
            }
            DirectoryRequest::Register { .. } => Err(Refusal::new(Code::Conflict, "this name is taken")),
            DirectoryRequest::RebuildThreads { .. } | DirectoryRequest::RebuildGroup { .. } => {
                Err(Refusal::new(Code::NotFound, "no such thing"))
            }
            _ => Err(Refusal::new(Code::Unauthorized, "nobody has logged in here")),
        }
    };
    services.push(serve(nats, subjects::DIRECTORY.into(), Some("directory"), 64, directory).await.unwrap());
    services
}

/// 20 KB.
fn long(thread: Thread) -> Event {
    let (prev, kind, body) = (MsgId::NONE, Kind::Text, Body::text("ü".repeat(10_000)));
    Event { thread, id: MsgId(1), prev, ts: now_ms(), from: id("ua"), cid: cid(), kind, body }
}

pub async fn degraded(world: &Arc<World>, wanted: bool) {
    eventually("readiness follows the beats", async || world.health.report().ready != wanted).await;
}

/// How often the edges of this process have closed a session with this code.
pub fn closes(why: Close) -> u64 {
    let wanted = format!("natterjack_edge_closes_total{{code=\"{}\"}} ", why.code);
    counted().render().lines().find_map(|l| l.strip_prefix(&wanted)?.parse().ok()).unwrap_or(0)
}

fn counted() -> &'static PrometheusHandle {
    static COUNTED: LazyLock<PrometheusHandle> = LazyLock::new(|| PrometheusBuilder::new().install_recorder().unwrap());
    &COUNTED
}
