//! The largest legal content on slow lines: whoever says hello is attached at the first try, over either codec, at any
//! edge, and misses nothing; and so with the SDK and joins. `sizes_asked` is what else may be asked for.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use futures_util::future::join_all;
use natterjack_client::ClientEvent;
use natterjack_protocol::{
    Body, Kind, MsgId, Thread,
    client::frame::{ClientFrame, Hello, HistoryQuery, Page, Request, SendMessage, ServerFrame},
    codec::Codec,
    limits,
};
use natterjack_testkit::{Flow, Proxy, Side, within};
use natterjack_tests::kit::{Cassandra, Cluster, ClusterSpec, RawWs, Received, User};
use serde_json::json;

use super::sizes_asked;

/// A message in JSON at most, and a page: it ends with the event that reaches its bytes.
const EVENT: usize = 6 * limits::TEXT_CHARS + 1_000;
pub const PAGE: usize = limits::PAGE_BYTES + EVENT;

/// Texts of four bytes a character, of control characters, and bytes.
fn large(n: usize) -> (Kind, Body) {
    match n % 3 {
        0 => (Kind::Text, Body::text("\u{1F600}".repeat(limits::TEXT_CHARS))),
        1 => (Kind::Text, Body::text(format!("x{}", "\0".repeat(limits::TEXT_CHARS - 1)))),
        _ => (Kind::Custom, Body { data: Some(vec![0xa5; limits::CUSTOM_BYTES].into()), ..Body::default() }),
    }
}

/// Sends them one behind the other; their ids.
async fn send(ws: &mut RawWs, thread: &Thread, numbers: std::ops::Range<usize>) -> Vec<MsgId> {
    let mut ids = Vec::new();
    for part in numbers.collect::<Vec<_>>().chunks(limits::INFLIGHT_REQUESTS / 2) {
        let mut open = BTreeMap::new();
        for n in part {
            let (r, cid, (kind, body)) = (ws.request(), ws.cid(), large(*n));
            open.insert(r, *n);
            ws.send(&ClientFrame::Send(SendMessage { r, cid, thread: thread.clone(), kind, body, behind: None })).await;
        }
        while !open.is_empty() {
            let (r, id) = ws
                .until("sent", |f| match f {
                    ServerFrame::Sent { r, id, .. } => Some((r, id)),
                    ServerFrame::Error { refusal, .. } => panic!("{refusal:?}"),
                    _ => None,
                })
                .await;
            open.remove(&r);
            ids.push(id);
        }
    }
    ids
}

/// A client on a slow line that attaches once and then reads everything, filling gaps downwards; a close is a panic.
pub struct Reader {
    ws: RawWs,
    attached: bool,
    events: BTreeMap<Thread, BTreeMap<MsgId, MsgId>>,
    asked: HashSet<(Thread, MsgId)>,
    /// The request that [`Reader::ask`] waits for, and its answer.
    wanted: Option<Request>,
    answer: Option<ServerFrame>,
}

impl Reader {
    async fn hello(at: SocketAddr, codec: Codec, user: &User) -> Self {
        let mut ws = RawWs::connect(at, codec).await;
        let (token, device) = (user.tokens.access.clone(), user.tokens.device.clone());
        let hello = Hello::new(token, device);
        ws.send(&ClientFrame::Hello(hello)).await;
        Self { ws, attached: false, events: BTreeMap::new(), asked: HashSet::new(), wanted: None, answer: None }
    }

    /// Until `done`; heartbeats as a client has to.
    async fn read(&mut self, what: &str, limit: Duration, done: impl Fn(&Self) -> bool) {
        within(what, limit, async {
            let mut ping = tokio::time::interval(Duration::from_secs(2));
            while !done(self) {
                tokio::select! {
                    received = self.ws.next_within(limit) => self.take(received).await,
                    _ = ping.tick() => self.ws.send(&ClientFrame::Ping).await,
                }
            }
        })
        .await;
    }

    /// Takes everything as it comes until the answer is there.
    pub async fn ask(&mut self, limit: Duration, frame: impl FnOnce(Request) -> ClientFrame) -> ServerFrame {
        let r = self.ws.request();
        self.wanted = Some(r);
        self.ws.send(&frame(r)).await;
        self.read("an answer", limit, |me| me.answer.is_some()).await;
        self.answer.take().expect("it was waited for")
    }

    async fn take(&mut self, received: Received) {
        match received {
            Received::Frame(f @ (ServerFrame::Page(Page { r: Some(r), .. }) | ServerFrame::Threads { r, .. }))
                if Some(r) == self.wanted =>
            {
                (self.wanted, self.answer) = (None, Some(f));
            }
            Received::Frame(ServerFrame::Attached { .. }) => self.attached = true,
            Received::Frame(ServerFrame::Event(e)) => self.had(&e.thread, e.id, e.prev),
            Received::Frame(ServerFrame::Page(page)) => {
                let bytes = natterjack_protocol::size::json(&page);
                assert!(bytes < PAGE, "a page of {bytes} bytes");
                assert!(!page.events.is_empty() && page.holes.is_empty());
                self.page(page).await;
            }
            Received::Frame(ServerFrame::Error { refusal, .. }) => panic!("{refusal:?}"),
            Received::Frame(_) | Received::Unknown => {}
            Received::Closed(code, reason) => panic!("closed with {code} {reason}"),
        }
    }

    fn had(&mut self, thread: &Thread, id: MsgId, prev: MsgId) {
        self.events.entry(thread.clone()).or_default().insert(id, prev);
    }

    async fn page(&mut self, page: Page) {
        let thread = page.thread.clone().unwrap();
        let mut prev = page.prev;
        for e in &page.events {
            self.had(&thread, e.id, prev);
            prev = e.id;
        }
        let known = self.events[&thread].contains_key(&page.prev);
        if !page.prev.is_none() && !known && self.asked.insert((thread.clone(), page.events[0].id)) {
            let (r, before, limit) = (self.ws.request(), Some(page.events[0].id), Some(limits::PAGE_MAX as u16));
            self.ws
                .send(&ClientFrame::History(HistoryQuery {
                    r,
                    thread: Some(thread),
                    before,
                    limit,
                    ..HistoryQuery::default()
                }))
                .await;
        }
    }

    fn has(&self, thread: &Thread, ids: &[MsgId]) -> bool {
        self.events.get(thread).is_some_and(|events| ids.iter().all(|id| events.contains_key(id)))
    }
}

async fn slow(cluster: &Cluster, edge: usize, rate: usize) -> Proxy {
    let proxy = cluster.proxy_to_edge(edge).await;
    proxy.set(Side::FromServer, Flow::Slow(rate));
    proxy
}

/// How large a run is, and how slow its lines.
struct Scale {
    groups: usize,
    rate: usize,
    limit: Duration,
    /// A device for each codec at each edge; else two, which have both of both.
    each: bool,
}

const QUICK: Scale = Scale { groups: 24, rate: 1_000_000, limit: Duration::from_secs(60), each: false };
/// Eight megabytes for each device.
const SLOW: Scale = Scale { groups: 60, rate: 64_000, limit: Duration::from_secs(400), each: true };

const MESSAGES: usize = 40;

/// Groups with such a last message each, a conversation with many of them, and more while the devices attach. `set`: of
/// the configuration.
async fn everybody_attaches(set: Vec<(String, String)>, Scale { groups, rate, limit, each }: Scale) {
    let cluster = Cluster::start(ClusterSpec { set, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(3).await;
    let [alice, bob, carol] = users.try_into().ok().unwrap();
    let mut bob_ws = cluster.raw(&bob, 0, Codec::Msgpack).await;
    // A device that has seen a first message and is then cut off.
    let dm = alice.dm(&bob);
    let first = send(&mut bob_ws, &dm, 0..1).await;
    let sdk_line = slow(&cluster, 0, rate).await;
    let builder = alice.builder([sdk_line.url()]);
    let (client, mut events) = builder.connect().await.unwrap();
    let mut sdk_saw = Vec::new();
    let saw = |event: Option<ClientEvent>, sdk_saw: &mut Vec<(Thread, MsgId)>| match event.expect("the SDK goes on") {
        ClientEvent::Message(m) if !m.kind.is_control() => sdk_saw.push((m.thread, m.id)),
        ClientEvent::Ended { code, reason } => panic!("ended with {code} {reason}"),
        ClientEvent::Skipped { thread, from, to } => panic!("{thread} was skipped from {from} to {to}"),
        _ => {}
    };
    within("the first message", limit, async {
        while sdk_saw.is_empty() {
            saw(events.next().await, &mut sdk_saw);
        }
    })
    .await;
    sdk_line.stall();

    let mut all: BTreeMap<Thread, Vec<MsgId>> = BTreeMap::from([(dm.clone(), first)]);
    let sent = send(&mut bob_ws, &dm, 1..MESSAGES).await;
    all.get_mut(&dm).unwrap().extend(sent);
    for n in 0..groups {
        let (status, made) = cluster
            .api(&bob, n % 2)
            .post("/v1/groups", &json!({ "name": format!("g{n}"), "users": [alice.id()] }))
            .await;
        assert_eq!(status, 200, "{made}");
        let thread: Thread = made["thread"].as_str().unwrap().parse().unwrap();
        all.insert(thread.clone(), send(&mut bob_ws, &thread, n..n + 1).await);
    }

    // Beside each other on slow lines: both codecs at both edges, and the SDK with its cursors.
    let lines = [slow(&cluster, 0, rate).await, slow(&cluster, 1, rate).await];
    let mut readers = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        for (m, codec) in Codec::ALL.into_iter().enumerate().filter(|(m, _)| each || *m == n) {
            readers
                .push(Reader::hello(line.addr(), codec, &cluster.other_device(&alice, &format!("d-raw-{n}{m}"))).await);
        }
    }
    sdk_line.set(Side::FromClient, Flow::Pass);
    sdk_line.set(Side::FromServer, Flow::Slow(rate));
    sdk_line.reset();
    let mut carol_ws = cluster.raw(&carol, 1, Codec::Msgpack).await;
    let with_carol = alice.dm(&carol);
    let (with_bob, all) = (dm, all);
    let meanwhile = async {
        // More than is held for a session while it attaches; then quiet, so that a slow line can catch up.
        let said = send(&mut carol_ws, &with_carol, 0..32).await;
        (with_carol.clone(), said)
    };
    let attached = join_all(readers.iter_mut().map(|reader| reader.read("attached", limit, |r| r.attached)));
    let (live, _) = tokio::join!(meanwhile, attached);
    let whole = |r: &Reader| all.iter().chain([(&live.0, &live.1)]).all(|(t, ids)| r.has(t, ids));
    let sdk = within("all of it in the SDK", limit, async {
        let want: usize = all.values().map(Vec::len).sum::<usize>() + live.1.len();
        while sdk_saw.len() < want {
            saw(events.next().await, &mut sdk_saw);
        }
    });
    tokio::join!(join_all(readers.iter_mut().map(|reader| reader.read("all of it", limit, whole))), sdk);
    for (thread, ids) in all.iter().chain([(&live.0, &live.1)]) {
        let shown: Vec<MsgId> = sdk_saw.iter().filter(|(t, _)| t == thread).map(|(_, id)| *id).collect();
        assert_eq!(&shown, ids, "{thread} in the SDK, in order, each once");
    }
    drop(client);

    // A join while the line is slow: the page waits, too.
    let (status, made) =
        cluster.api(&bob, 0).post("/v1/groups", &json!({ "name": "open", "history": "everything" })).await;
    assert_eq!(status, 200, "{made}");
    let group: Thread = made["thread"].as_str().unwrap().parse().unwrap();
    // On a slow line bob has said nothing for longer than a socket may.
    bob_ws = cluster.raw(&bob, 0, Codec::Msgpack).await;
    let said = send(&mut bob_ws, &group, 0..24).await;
    let path = format!("/v1/groups/{}/members", group.to_string().trim_start_matches("group."));
    let (status, added) = cluster.api(&bob, 0).post(&path, &json!({ "users": [alice.id()] })).await;
    assert_eq!(status, 200, "{added}");
    let joined = |r: &Reader| r.has(&group, &said);
    join_all(readers.iter_mut().map(|reader| reader.read("joined", limit, joined))).await;

    sizes_asked::for_everything(&cluster, &mut readers, &lines, (&alice, &with_bob, &all), limit).await;
    for p in cluster.processes() {
        assert!(!p.log().contains("cannot be sent"), "{} made an answer that is too large", p.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_attaches_at_the_first_hello_whatever_there_is() {
    everybody_attaches(Vec::new(), QUICK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; make test-heavy"]
async fn everybody_attaches_at_64_kilobytes_a_second() {
    everybody_attaches(Vec::new(), SLOW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; make test-heavy"]
async fn everybody_attaches_at_64_kilobytes_a_second_with_the_archive_on_cql() {
    let cql = Cassandra::one().await;
    everybody_attaches(cql.settings(), SLOW).await;
}
