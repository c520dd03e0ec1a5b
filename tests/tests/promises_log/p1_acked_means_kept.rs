//! P1: a message that was acked is at once in every member's history, through every edge, around the archive's
//! watermark, on every NATS node, and after the death of everything.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use natterjack_protocol::{
    Event, MsgId, Thread,
    client::frame::{HistoryQuery, Page},
    codec::Codec,
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, User};
use rand::seq::IndexedRandom;

use natterjack_tests::kit::counters::until_the_direct_path_is_open;
use natterjack_tests::kit::paging::{ask, page, whole};
use natterjack_tests::kit::witness::{SOON, group, heavy, texts};

/// What the log has acknowledged in one thread, in the order of the acks.
#[derive(Clone)]
struct Acked {
    thread: Thread,
    ids: Arc<Mutex<Vec<MsgId>>>,
}

impl Acked {
    fn new(thread: Thread) -> Self {
        Self { thread, ids: Arc::default() }
    }

    fn now(&self) -> Vec<MsgId> {
        self.ids.lock().unwrap().clone()
    }

    fn len(&self) -> usize {
        self.ids.lock().unwrap().len()
    }
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Newest,
    Before(MsgId),
    After(MsgId),
    Around(MsgId),
}

impl Place {
    fn any(acked: &[MsgId]) -> Self {
        let id = *acked.choose(&mut rand::rng()).expect("something was acked");
        match rand::random_range(0..6) {
            0 => Self::Before(id),
            1 => Self::After(id),
            2 => Self::Around(id),
            _ => Self::Newest,
        }
    }

    fn query(self, limit: usize) -> String {
        let place = match self {
            Self::Newest => String::new(),
            Self::Before(id) => format!("&before={id}"),
            Self::After(id) => format!("&after={id}"),
            Self::Around(id) => format!("&around={id}"),
        };
        format!("?limit={limit}{place}")
    }
}

/// Nothing that was acked before the page was asked for may be missing from the part of the thread that the page speaks
/// for.
fn missing(acked: &[MsgId], page: &Page, place: Place) -> Vec<MsgId> {
    let ids: Vec<MsgId> = page.events.iter().map(|e| e.id).collect();
    let lowest = ids.first().copied().unwrap_or(MsgId::MAX);
    let highest = ids.last().copied().unwrap_or(MsgId::NONE);
    // It begins where its `prev` says: nothing at all below means from the beginning. It ends with its last event only
    // if it says `more`.
    let from = if page.prev.is_none() { MsgId::NONE } else { page.prev.next() };
    let to = if page.more { highest } else { MsgId::MAX };
    let speaks_for = |id: MsgId| match place {
        Place::Newest => from <= id,
        Place::Before(before) => from <= id && id < before,
        Place::After(after) => after < id && id <= to,
        Place::Around(_) => from <= id && id <= to,
    };
    // An empty page speaks for everything it was asked for.
    let speaks_for =
        |id: MsgId| if ids.is_empty() { speaks_for(id) } else { speaks_for(id) || (lowest <= id && id <= highest) };
    acked.iter().copied().filter(|id| speaks_for(*id) && ids.binary_search(id).is_err()).collect()
}

fn assert_complete(acked: &[MsgId], page: &Page, place: Place, who: &str) {
    assert!(page.holes.is_empty(), "{who}, {place:?}: holes {:?}, though the log has all", page.holes);
    assert!(page.events.windows(2).all(|w| w[0].id < w[1].id), "{who}, {place:?}: not in order");
    let missing = missing(acked, page, place);
    let shown: Vec<_> = page.events.iter().map(|e| e.id).collect();
    assert!(
        missing.is_empty(),
        "{who}, {place:?}: acked and not shown {missing:?}; prev {}, more {}, shown {shown:?}",
        page.prev,
        page.more
    );
}

#[test]
fn the_check_itself_finds_what_is_missing() {
    let page = |ids: &[u64], prev, more| {
        let event = |id: &u64| -> Event {
            let c = natterjack_protocol::Cid::mint(1, [0; 10]);
            serde_json::from_value(
                serde_json::json!({ "thread": "dm.a.b", "id": id, "prev": 0, "ts": 1, "from": "a", "cid": c,
                    "kind": "text", "body": {} }),
            )
            .unwrap()
        };
        Page { events: ids.iter().map(event).collect(), prev: MsgId(prev), more, ..Page::default() }
    };
    let acked = [1, 2, 3, 4, 5].map(MsgId);
    let gone = |p: Page, place| missing(&acked, &p, place).iter().map(|i| i.0).collect::<Vec<_>>();
    assert_eq!(gone(page(&[4], 3, false), Place::Newest), [5]);
    assert_eq!(gone(page(&[2, 3, 5], 1, false), Place::Newest), [4]);
    assert_eq!(gone(page(&[4, 5], 0, false), Place::Newest), [1, 2, 3]);
    assert_eq!(gone(page(&[], 0, false), Place::Newest), [1, 2, 3, 4, 5]);
    assert_eq!(gone(page(&[2, 3], 1, true), Place::After(MsgId(1))), Vec::<u64>::new());
    assert_eq!(gone(page(&[2, 3], 1, false), Place::After(MsgId(1))), [4, 5]);
    assert_eq!(gone(page(&[3], 2, true), Place::After(MsgId(1))), [2]);
    assert_eq!(gone(page(&[2], 1, true), Place::Before(MsgId(4))), [3]);
    assert_eq!(gone(page(&[2, 4], 1, true), Place::Around(MsgId(3))), [3]);
}

/// Sends one message after the other; after each ack the same session and a member on another edge look at once.
async fn write(cluster: Arc<Cluster>, acked: Acked, user: User, other: User, edge: usize, stop: Arc<AtomicBool>) {
    let mut ws = cluster.raw(&user, edge, if edge == 0 { Codec::Json } else { Codec::Msgpack }).await;
    let api = cluster.api(&other, 1 - edge);
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let id =
            ws.send_text(&acked.thread, &format!("{n}")).await.unwrap_or_else(|e| panic!("a send was refused: {e:?}"));
        acked.ids.lock().unwrap().push(id);
        if n % 4 == 0 {
            let now = acked.now();
            if let Ok(p) = ask(
                &mut ws,
                HistoryQuery { thread: Some(acked.thread.clone()), limit: Some(7), ..HistoryQuery::default() },
            )
            .await
            {
                assert_complete(&now, &p, Place::Newest, "the sender's own session");
            }
        } else if n % 4 == 1 {
            let now = acked.now();
            if let Ok(p) = page(&api, &acked.thread, "?limit=7").await {
                assert_complete(&now, &p, Place::Newest, "a member through the other edge");
            }
        }
    }
}

/// Looks at random places; counts the pages it got. No page is not a promise broken; an incomplete one is.
async fn look(acked: Vec<Acked>, apis: Vec<Api>, pages: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let of = acked.choose(&mut rand::rng()).unwrap();
        let now = of.now();
        if now.is_empty() {
            tokio::task::yield_now().await;
            continue;
        }
        let place = Place::any(&now);
        let api = apis.choose(&mut rand::rng()).unwrap();
        match page(api, &of.thread, &place.query(rand::random_range(3..40))).await {
            Ok(p) => {
                assert_complete(&now, &p, place, "any member, any edge");
                pages.fetch_add(1, Ordering::SeqCst);
            }
            Err(e) => assert!(e.starts_with("503"), "a page is refused with {e}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acked_is_in_every_history_whatever_happens_to_the_archive() {
    let cluster =
        Arc::new(Cluster::start(ClusterSpec { persisters: 2, times_divisor: 5, ..ClusterSpec::default() }).await);
    let users = cluster.mint_users(3).await;
    // Until then every send asks history first, and is refused while nobody answers.
    until_the_direct_path_is_open(&cluster, &users[2]).await;
    let acked =
        vec![Acked::new(group(&cluster, &[&users[0], &users[1], &users[2]]).await), Acked::new(users[0].dm(&users[1]))];
    // Both users of the DM and the members that only read.
    let apis: Vec<Api> =
        [0, 1].into_iter().flat_map(|edge| [cluster.api(&users[0], edge), cluster.api(&users[1], edge)]).collect();
    let (stop, pages) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(write(cluster.clone(), acked[0].clone(), users[0].clone(), users[2].clone(), 0, stop.clone()));
    tasks.spawn(write(cluster.clone(), acked[1].clone(), users[1].clone(), users[0].clone(), 1, stop.clone()));
    for _ in 0..8 {
        tasks.spawn(look(acked.clone(), apis.clone(), pages.clone(), stop.clone()));
    }
    let (many, few) = if heavy() { (400, 60) } else { (60, 6) };
    let go_on = async |what: &str, wanted: usize| {
        let (from, sent) = (pages.load(Ordering::SeqCst), acked.iter().map(Acked::len).collect::<Vec<_>>());
        eventually_within(what, Duration::from_secs(60), async || {
            let more = pages.load(Ordering::SeqCst) - from;
            let sends = acked.iter().zip(&sent).map(|(a, s)| a.len() - s).min().unwrap();
            if more >= wanted && sends >= 5 {
                Ok(())
            } else {
                Err(format!("{more} pages, {sends} acks in the slower thread"))
            }
        })
        .await;
    };
    go_on("pages while all is well", many).await;
    cluster.persister(0).stop();
    go_on("pages while one persister is frozen", few).await;
    cluster.persister(0).cont();
    go_on("pages while it catches up", many).await;
    cluster.persister(1).kill9().await;
    go_on("pages while one persister is dead", few).await;
    cluster.persister(0).kill9().await;
    // Nobody archives, nobody answers pages: sends go on.
    let before = acked[0].len();
    // Two in four writes ask for a page behind them, and wait for it in vain.
    eventually_within("acks while no persister runs", Duration::from_secs(60), async || acked[0].len() > before + 5)
        .await;
    cluster.persister(0).start().await;
    go_on("pages while what was sent meanwhile is archived", many).await;
    cluster.persister(1).start().await;
    go_on("pages from both again", many).await;
    stop.store(true, Ordering::SeqCst);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }

    // The last messages are acked while nobody archives; then everything dies at once.
    cluster.persister(0).stop();
    cluster.persister(1).stop();
    let mut ws = cluster.raw(&users[2], 1, Codec::Json).await;
    for n in 0..20 {
        let id = ws.send_text(&acked[0].thread, &format!("last words {n}")).await.unwrap();
        acked[0].ids.lock().unwrap().push(id);
    }
    for p in cluster.processes() {
        p.kill9().await;
    }
    for p in cluster.processes() {
        p.start().await;
    }
    for of in &acked {
        let ids = of.now();
        for (n, api) in apis.iter().enumerate() {
            let all = whole(api, &of.thread, n % 2 == 0).await;
            let shown: Vec<MsgId> = texts(&all).into_iter().map(|(id, _)| id).collect();
            assert_eq!(shown, ids, "after the death of everything, {}", of.thread);
        }
    }
}

/// A follower's Direct Get is behind the leader right after an ack; history must not be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acked_is_at_once_in_history_through_every_nats_node() {
    let spec = ClusterSpec { nats: 3, edges: 3, persisters: 2, persister_nodes: vec![1, 2], ..ClusterSpec::default() };
    let cluster = Cluster::start(spec).await;
    let peers = if heavy() { 24 } else { 6 };
    let users = cluster.mint_users(1 + peers).await;
    let (me, peers) = users.split_first().unwrap();
    let mut sockets = Vec::new();
    for edge in 0..3 {
        let device = cluster.other_device(me, &format!("d-{edge}"));
        sockets.push(cluster.raw(&device, edge, Codec::Msgpack).await);
    }
    let mut acked = vec![Vec::new(); peers.len()];
    for round in 0..(if heavy() { 60 } else { 15 }) {
        for (n, peer) in peers.iter().enumerate() {
            let (thread, edge) = (me.dm(peer), (round + n) % 3);
            let id = sockets[edge]
                .send_text(&thread, &format!("{round}"))
                .await
                .unwrap_or_else(|e| panic!("refused: {e:?}"));
            acked[n].push(id);
            // All of them at once, and at once: the first message of a thread too.
            let look = async |user: &User, edge: usize| {
                let api = cluster.api(user, edge);
                let p = eventually_within("a page", SOON, async || match page(&api, &thread, "?limit=5").await {
                    Err(e) if e.starts_with("503") => Err(e),
                    other => Ok(other),
                })
                .await;
                p.unwrap_or_else(|e| panic!("round {round}: right after the ack edge {edge} says {e}"))
            };
            let (a, b) = tokio::join!(look(peer, (edge + 1) % 3), look(me, (edge + 2) % 3));
            assert_complete(&acked[n], &a, Place::Newest, "the peer on another node");
            assert_complete(&acked[n], &b, Place::Newest, "the sender on another node");
            let own = ask(
                &mut sockets[edge],
                HistoryQuery { thread: Some(thread), limit: Some(5), ..HistoryQuery::default() },
            )
            .await;
            assert_complete(&acked[n], &own.unwrap(), Place::Newest, "the sender's own session");
        }
    }
}
