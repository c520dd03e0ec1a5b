//! P1, what came later: while the archive is held back, a text that was recalled or edited is in no page, however it is
//! asked for and whatever came behind the recall. Through whole systems: HTTP, sockets, polls, and the repair of a live
//! chain.

use std::{collections::BTreeMap, time::Duration};

use natterjack_nats::{KvBuckets, Layout, Positions, RoleLease};
use natterjack_protocol::{
    Body, Event, Kind, MsgId, Refusal, Thread, Times,
    client::frame::{ClientFrame, Hello, HistoryQuery, Page, SendMessage, ServerFrame, SyncQuery},
    codec::Codec,
    limits,
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Cassandra, Cluster, ClusterSpec, RawWs, Received, User};
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);
const DIVISOR: u32 = 5;
/// Behind the messages and again behind their recalls: what is still read as a whole, and more than anybody reads of a
/// thread at once.
const SOME: usize = 550;
const MANY: usize = 1_050;

/// Somebody has the leases of the persister and does nothing with them; its history goes on.
struct HeldBack {
    positions: Positions,
    layout: Layout,
    _leases: Vec<RoleLease>,
}

impl HeldBack {
    async fn hold(cluster: &Cluster) -> Self {
        let nats = cluster.connect_nats().await;
        let layout = Layout::load(&nats).await.unwrap();
        let buckets = KvBuckets::new(&nats, layout);
        cluster.persister(0).kill9().await;
        let mut leases = Vec::new();
        for p in 0..layout.partitions {
            let mut lease = RoleLease::new(&buckets, "persister", p, "holds-it-back", &Times::scaled(DIVISOR));
            lease.acquire().await;
            leases.push(lease);
        }
        cluster.persister(0).start().await;
        Self { positions: Positions::new(&buckets, "persister"), layout, _leases: leases }
    }

    async fn archived(&self, thread: &Thread) -> MsgId {
        self.positions.load(self.layout.partition(thread)).await.unwrap().map_or(MsgId::NONE, |p| p.id)
    }
}

fn said(text: &str) -> (Kind, Body) {
    (Kind::Text, Body::text(text))
}

fn recall(target: MsgId) -> (Kind, Body) {
    (Kind::Recall, Body { target: Some(target), ..Body::default() })
}

/// In pipelines; their ids.
async fn send(ws: &mut RawWs, thread: &Thread, all: Vec<(Kind, Body)>) -> Vec<MsgId> {
    let mut ids = Vec::new();
    let mut all = all.into_iter().peekable();
    while all.peek().is_some() {
        let mut frames = Vec::new();
        for (kind, body) in all.by_ref().take(limits::INFLIGHT_REQUESTS) {
            let (r, cid) = (ws.request(), ws.cid());
            frames.push(ClientFrame::Send(SendMessage { r, cid, thread: thread.clone(), kind, body, behind: None }));
        }
        ws.send_together(&frames).await;
        for _ in frames {
            let id = ws.until("sent", |f| match f {
                ServerFrame::Sent { id, .. } => Some(id),
                ServerFrame::Error { refusal, .. } => panic!("{refusal:?}"),
                _ => None,
            });
            ids.push(id.await);
        }
    }
    // Own events.
    ws.passed_over.clear();
    ids
}

async fn one(ws: &mut RawWs, thread: &Thread, what: (Kind, Body)) -> MsgId {
    send(ws, thread, vec![what]).await[0]
}

/// Nothing that was taken back, or that an edit has replaced, is said in any field.
fn says_nothing_of_it(what: &impl std::fmt::Debug) {
    let all = format!("{what:?}");
    assert!(!all.contains("secret"), "{all}");
}

/// The message as the page has it; none: it is in a hole, or the page is refused for now.
fn shown(page: &Page, id: MsgId) -> Option<&Event> {
    says_nothing_of_it(page);
    page.events.iter().find(|e| e.id == id)
}

fn is_as_it_was_left(event: &Event, edited: MsgId) {
    if event.id == edited {
        assert_eq!((event.kind, event.body.text.as_deref()), (Kind::Text, Some("second words")));
    } else {
        assert_eq!((event.kind, &event.body), (Kind::Recall, &Body::default()));
    }
}

/// Each place that a page can be asked for so that it has this message, by the time of the message, too.
fn places(thread: &Thread, id: MsgId, ts: u64) -> Vec<HistoryQuery> {
    let all = HistoryQuery { thread: Some(thread.clone()), limit: Some(10), ..HistoryQuery::default() };
    vec![
        HistoryQuery { before: Some(id.next()), ..all.clone() },
        HistoryQuery { after: Some(MsgId(id.0 - 1)), ..all.clone() },
        HistoryQuery { around: Some(id), ..all.clone() },
        HistoryQuery { at: Some(ts), limit: Some(200), ..all },
    ]
}

async fn over_http(cluster: &Cluster, edge: usize, reader: &User, asked: &HistoryQuery) -> Result<Page, String> {
    let place =
        [("before", asked.before), ("after", asked.after), ("around", asked.around), ("at", asked.at.map(MsgId))];
    let place: String = place.iter().filter_map(|(name, id)| Some(format!("&{name}={}", (*id)?))).collect();
    let thread = asked.thread.as_ref().unwrap();
    let path = format!("/v1/threads/{thread}/messages?limit={}{place}", asked.limit.unwrap_or(50));
    let (status, body) = cluster.api(reader, edge).get(&path).await;
    says_nothing_of_it(&body);
    match status {
        200 => Ok(serde_json::from_value(body).unwrap()),
        503 => Err(body.to_string()),
        _ => panic!("{status} {body}"),
    }
}

async fn over_a_socket(ws: &mut RawWs, asked: &HistoryQuery) -> Result<Page, Refusal> {
    let r = ws.request();
    ws.send(&ClientFrame::History(HistoryQuery { r, ..asked.clone() })).await;
    let page = ws.until("a page", |f| match f {
        ServerFrame::Page(page) if page.r == Some(r) => Some(Ok(page)),
        ServerFrame::Error { r: Some(to), refusal } if to == r => Some(Err(refusal)),
        _ => None,
    });
    page.await
}

/// Everything that a device is sent which has seen what lies below `cursor`, until it is attached.
async fn comes_back(
    cluster: &Cluster,
    edge: usize,
    codec: Codec,
    reader: &User,
    cursors: &BTreeMap<Thread, MsgId>,
) -> RawWs {
    let mut ws = RawWs::connect(cluster.edge_addr(edge), codec).await;
    let (token, device) = (reader.tokens.access.clone(), reader.tokens.device.clone());
    let hello = Hello { cursors: cursors.clone(), ..Hello::new(token, device) };
    ws.hello_with(hello).await;
    assert!(ws.passed_over.iter().any(|f| matches!(f, ServerFrame::Page(_))));
    says_nothing_of_it(&ws.passed_over);
    ws.passed_over.clear();
    ws
}

async fn nobody_reads_what_was_taken_back(set: Vec<(String, String)>, later: usize) {
    let set = [set, vec![("limits.sends_per_user".to_owned(), "0".to_owned())]].concat();
    let cluster =
        Cluster::start(ClusterSpec { times_divisor: DIVISOR, proxied_edges: true, set, ..ClusterSpec::default() })
            .await;
    let users = cluster.mint_users(3).await;
    let (alice, bob, carol) = (&users[0], &users[1], &users[2]);
    let (status, made) =
        cluster.api(alice, 0).post("/v1/groups", &json!({ "name": "g", "users": [bob.id(), carol.id()] })).await;
    assert_eq!(status, 200, "{made}");
    let group: Thread = made["thread"].as_str().unwrap().parse().unwrap();
    let mut alice_ws = cluster.raw(alice, 0, Codec::Msgpack).await;
    let mut carol_ws = cluster.raw(carol, 0, Codec::Json).await;
    let archived = one(&mut alice_ws, &group, said("a secret in the archive")).await;
    let rude = one(&mut carol_ws, &group, said("a secret, and rude")).await;
    let kept = one(&mut alice_ws, &group, said("kept")).await;
    let nats = cluster.connect_nats().await;
    let layout = Layout::load(&nats).await.unwrap();
    let positions = Positions::new(&KvBuckets::new(&nats, layout), "persister");
    eventually_within("the first ones are archived", SOON, async || {
        positions.load(layout.partition(&group)).await.unwrap().is_some_and(|p| p.id >= kept)
    })
    .await;

    let held_back = HeldBack::hold(&cluster).await;
    // Hers has been silent for longer than a socket may: a persister was started.
    alice_ws = cluster.raw(alice, 0, Codec::Msgpack).await;
    let in_log = one(&mut alice_ws, &group, said("a secret in the log")).await;
    let edited = one(&mut alice_ws, &group, said("first words, secret")).await;
    let operations = |n: usize| {
        let emoji =
            |i: usize| Body { target: Some(kept), emoji: Some(["👍", "🐸"][i % 2].into()), ..Body::default() };
        (0..n).map(|i| (Kind::Reaction, emoji(i))).collect::<Vec<_>>()
    };
    send(&mut alice_ws, &group, operations(later)).await;
    let edit = (Kind::Edit, Body { target: Some(edited), text: Some("second words".into()), ..Body::default() });
    let taken_back = send(&mut alice_ws, &group, vec![recall(archived), recall(in_log), recall(rude), edit]).await;
    send(&mut alice_ws, &group, operations(later)).await;

    // Where each message is, in time, too; a page of one has no secret any more.
    let mut asked = Vec::new();
    for id in [archived, rude, in_log, edited] {
        let around =
            HistoryQuery { thread: Some(group.clone()), around: Some(id), limit: Some(1), ..HistoryQuery::default() };
        let page =
            eventually_within("the message can be read", SOON, async || over_http(&cluster, 0, bob, &around).await)
                .await;
        let ts = shown(&page, id).unwrap_or_else(|| panic!("{id} is not in {page:?}")).ts;
        asked.extend(places(&group, id, ts).into_iter().map(|place| (id, place)));
    }
    let cursors = BTreeMap::from([(group.clone(), MsgId(archived.0 - 1))]);
    for (edge, codec) in [(0, Codec::Json), (1, Codec::Msgpack)] {
        let device = cluster.other_device(bob, &format!("d-{edge}"));
        let mut ws = comes_back(&cluster, edge, codec, &device, &cursors).await;
        for (id, place) in &asked {
            let whole = |page: &Page| {
                shown(page, *id)
                    .map(|e| is_as_it_was_left(e, edited))
                    .ok_or_else(|| format!("{id} is in a hole of {place:?}"))
            };
            eventually_within("over HTTP", SOON, async || whole(&over_http(&cluster, edge, bob, place).await?)).await;
            eventually_within("over a socket", SOON, async || {
                whole(&over_a_socket(&mut ws, place).await.map_err(|e| e.to_string())?)
            })
            .await;
        }
        let newest = HistoryQuery { thread: Some(group.clone()), limit: Some(200), ..HistoryQuery::default() };
        says_nothing_of_it(&over_http(&cluster, edge, bob, &newest).await);
        says_nothing_of_it(&over_a_socket(&mut ws, &newest).await);
        let r = ws.request();
        ws.send(&ClientFrame::Sync(SyncQuery { r, cursors: cursors.clone() })).await;
        ws.until("synced", |f| matches!(f, ServerFrame::Ok { r: to } if to == r).then_some(())).await;
        says_nothing_of_it(&ws.passed_over);
        says_nothing_of_it(&cluster.api(bob, edge).get("/v1/threads").await);
        let (status, polled) =
            cluster.api(&device, edge).post("/v1/sync", &json!({ "cursors": cursors, "wait_ms": 0 })).await;
        assert!(status == 200 && polled["frames"].as_array().is_some_and(|f| !f.is_empty()), "{polled}");
        says_nothing_of_it(&polled);
    }
    alice_ws = cluster.raw(alice, 0, Codec::Msgpack).await;
    what_a_gap_hides_is_shown_as_it_was_left(&cluster, (alice, bob), &mut alice_ws).await;
    assert!(held_back.archived(&group).await < in_log, "the archive was held back all the time");
    assert!(taken_back.iter().all(|id| *id > in_log));
}

const TRIES: usize = 10;

/// An edge loses a message and its recall on their way from the log, and fetches what it has missed.
async fn what_a_gap_hides_is_shown_as_it_was_left(
    cluster: &Cluster,
    (alice, bob): (&User, &User),
    alice_ws: &mut RawWs,
) {
    let dm = alice.dm(bob);
    let mut bob_ws = cluster.raw(&cluster.other_device(bob, "d-live"), 1, Codec::Json).await;
    one(alice_ws, &dm, said("before")).await;
    bob_ws.until("the first one", |f| matches!(f, ServerFrame::Event(e) if e.kind == Kind::Text).then_some(())).await;
    let proxy = cluster.nats_proxy(1);
    let subject = natterjack_nats::subjects::live_subjects_of(&dm);
    // A beat may come between the two, and the edge then fetches the first one while it is not taken back yet.
    for _ in 0..TRIES {
        let (before, mine) = (proxy.lost(), subject.clone());
        proxy.drop_live(move |s, _| mine.iter().any(|mine| mine == s));
        let lost = one(alice_ws, &dm, said("a secret that is lost")).await;
        one(alice_ws, &dm, recall(lost)).await;
        eventually_within("both were lost", SOON, async || proxy.lost() >= before + 2).await;
        proxy.drop_nothing();
        let last = one(alice_ws, &dm, said("after")).await;
        let mut events = Vec::new();
        while events.last().is_none_or(|e: &Event| e.id != last) {
            match bob_ws.next().await {
                Received::Frame(ServerFrame::Event(e)) if e.thread == dm => events.push(*e),
                Received::Closed(code, why) => panic!("closed with {code} {why}"),
                _ => {}
            }
        }
        let repaired = events.iter().find(|e| e.id == lost).expect("it is told that there was something");
        if repaired.kind == Kind::Recall {
            assert_eq!(repaired.body, Body::default());
            return says_nothing_of_it(&events);
        }
    }
    panic!("{TRIES} times it was shown as it was before it was taken back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_what_was_taken_back_while_the_archive_is_held_back() {
    nobody_reads_what_was_taken_back(Vec::new(), SOME).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts Apache Cassandra; make test-heavy"]
async fn nobody_reads_what_was_taken_back_while_the_archive_on_cql_is_held_back() {
    let cql = Cassandra::one().await;
    nobody_reads_what_was_taken_back(cql.settings(), MANY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "thousands of operations; make test-heavy"]
async fn nobody_reads_what_was_taken_back_behind_more_than_is_read_at_once() {
    nobody_reads_what_was_taken_back(Vec::new(), MANY).await;
}
