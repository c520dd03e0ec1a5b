//! P6: an edge may leave, be killed, or be cut off; its users hardly notice, and nothing is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use natterjack_client::{Client, ClientEvent, Events};
use natterjack_protocol::{Body, Code, Kind, MsgId, Thread, codec::Codec};
use natterjack_testkit::{eventually_within, patience};
use natterjack_tests::kit::{Cluster, ClusterSpec, User};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::common::{ReadLog, SOON, Watcher, assert_log, heavy, listed_edges, send_through};

const DRAIN: Duration = Duration::from_secs(20);
const UNNOTICED: Duration = Duration::from_secs(2);
/// p99.
const BACK: Duration = Duration::from_secs(5);
/// The lease, and the time until a look at it notices.
const LEASE: Duration = Duration::from_secs(12);

#[derive(Default)]
struct Told {
    messages: BTreeMap<Thread, Vec<MsgId>>,
    /// When it was connected, and to which edge.
    connected: Vec<(Instant, String)>,
}

/// Ids, the slowest, refusals.
type Written = (Vec<(Thread, MsgId)>, Duration, Vec<String>);

/// Pairs who write to each other through the SDK without a pause.
struct Load {
    stop: CancellationToken,
    sent: Arc<AtomicUsize>,
    told: Vec<Arc<Mutex<Told>>>,
    readers: Vec<JoinHandle<()>>,
    writers: Vec<JoinHandle<Written>>,
    clients: Vec<Client>,
}

impl Load {
    async fn start(cluster: &Cluster, users: &[User], edge: usize) -> Self {
        let (stop, sent) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
        let mut load =
            Self { stop, sent, told: Vec::new(), readers: Vec::new(), writers: Vec::new(), clients: Vec::new() };
        for (i, user) in users.iter().enumerate() {
            let (client, events) = cluster.client(user, edge).await;
            let told = Arc::<Mutex<Told>>::default();
            load.readers.push(tokio::spawn(read(events, told.clone())));
            load.told.push(told);
            let thread = user.dm(&users[i ^ 1]);
            load.writers.push(tokio::spawn(write(client.clone(), thread, load.stop.clone(), load.sent.clone())));
            load.clients.push(client);
        }
        load
    }

    async fn goes_on(&self, more: usize) {
        let goal = self.sent.load(Ordering::SeqCst) + more;
        eventually_within("the load goes on", SOON * 3, async || self.sent.load(Ordering::SeqCst) >= goal).await;
    }

    /// How long each client took from `since` until it was connected to this edge.
    async fn all_at(&self, edge: &str, since: Instant, limit: Duration) -> Vec<Duration> {
        let mut took = Vec::new();
        for told in &self.told {
            let at = eventually_within("a client is on the other edge", limit, async || {
                let told = told.lock().unwrap();
                told.connected.iter().find(|(at, e)| *at >= since && e == edge).map(|(at, _)| *at)
            })
            .await;
            took.push(at - since);
        }
        took.sort();
        took
    }

    /// Ends it; every message is once in the log, and was shown to both once, in the log's order. Gives the longest
    /// wait of a send.
    async fn end(self, log: &ReadLog) -> Duration {
        self.stop.cancel();
        let mut acked: BTreeMap<Thread, BTreeSet<MsgId>> = BTreeMap::new();
        let mut worst = Duration::ZERO;
        for writer in self.writers {
            let (ids, slowest, refused) = writer.await.unwrap();
            assert_eq!(refused, Vec::<String>::new(), "no send fails");
            worst = worst.max(slowest);
            for (thread, id) in ids {
                assert!(acked.entry(thread).or_default().insert(id), "one id for two messages");
            }
        }
        for (thread, acked) in &acked {
            let in_log = log.messages(thread, MsgId::NONE).await;
            assert_log(thread, &in_log, &acked.iter().copied().collect::<Vec<_>>());
            for told in self.told.iter().filter(|t| t.lock().unwrap().messages.contains_key(thread)) {
                let got = || told.lock().unwrap().messages[thread].clone();
                eventually_within("the last message is shown", SOON, async || got().last() >= in_log.last()).await;
                assert_log(thread, &got(), &in_log);
            }
        }
        for client in self.clients {
            client.close().await;
        }
        for reader in self.readers {
            reader.await.unwrap();
        }
        worst
    }
}

async fn read(mut events: Events, told: Arc<Mutex<Told>>) {
    while let Some(event) = events.next().await {
        let mut told = told.lock().unwrap();
        match event {
            ClientEvent::Message(m) if !m.kind.is_control() => told.messages.entry(m.thread).or_default().push(m.id),
            ClientEvent::Connected { edge } => told.connected.push((Instant::now(), edge)),
            ClientEvent::LoggedOut { .. } | ClientEvent::Ended { .. } => panic!("a client was thrown out: {event:?}"),
            _ => {}
        }
    }
}

async fn write(client: Client, thread: Thread, stop: CancellationToken, sent: Arc<AtomicUsize>) -> Written {
    let (mut ids, mut slowest, mut refused) = (Vec::new(), Duration::ZERO, Vec::new());
    while !stop.is_cancelled() {
        let began = Instant::now();
        match client.send_and_wait(thread.clone(), Kind::Text, Body::text("under load")).await {
            Ok((_, id)) => ids.push((thread.clone(), id)),
            Err(e) => refused.push(e.to_string()),
        }
        slowest = slowest.max(began.elapsed());
        sent.fetch_add(1, Ordering::SeqCst);
        // A pace: at most 50 a second.
        sleep(Duration::from_millis(20)).await;
    }
    (ids, slowest, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_not_noticed_and_a_killed_edge_is_left_within_seconds() {
    let cluster = Cluster::start(ClusterSpec { alone: true, ..ClusterSpec::default() }).await;
    let log = ReadLog::of(&cluster).await;
    let pairs = if heavy() { 100 } else { 10 };
    let users = cluster.mint_users(pairs * 2).await;
    eventually_within("both edges are listed", SOON, async || listed_edges(&cluster, 0).await.len() == 2).await;

    // A planned drain, under load.
    let load = Load::start(&cluster, &users, 0).await;
    load.goes_on(users.len() * 5).await;
    let began = Instant::now();
    cluster.edge(0).sigterm();
    let unlisted = async {
        eventually_within("a leaving edge is not listed", Duration::from_secs(2), async || {
            !listed_edges(&cluster, 1).await.contains(&cluster.edge_url(0))
        })
        .await;
        began.elapsed()
    };
    let (unlisted, status) = tokio::join!(unlisted, cluster.edge(0).wait_exit(DRAIN));
    let left = began.elapsed();
    assert!(status.success(), "a drained edge ends well: {status}");
    let took = load.all_at(&cluster.edge_url(1), began, SOON).await;
    load.goes_on(users.len() * 3).await;
    let worst = load.end(&log).await;
    eprintln!(
        "drain with {} clients: unlisted after {unlisted:?}, clients over after p50 {:?} max {:?}, process left after \
         {left:?}, slowest send {worst:?}",
        users.len(),
        took[took.len() / 2],
        took[took.len() - 1],
    );
    assert!(worst <= patience(UNNOTICED), "a send took {worst:?}");

    // A kill, under load; the edge that left is back.
    cluster.edge(0).start().await;
    eventually_within("both edges are listed", SOON, async || listed_edges(&cluster, 1).await.len() == 2).await;
    let others = cluster.mint_users(pairs * 2).await;
    let load = Load::start(&cluster, &others, 1).await;
    // At 50 a second each: a client has looked at the list of edges after two seconds.
    load.goes_on(others.len() * 130).await;
    let killed = Instant::now();
    cluster.edge(1).kill9().await;
    let took = load.all_at(&cluster.edge_url(0), killed, SOON * 3).await;
    load.goes_on(others.len() * 3).await;
    eventually_within("a dead edge is not listed", LEASE, async || {
        listed_edges(&cluster, 0).await == [cluster.edge_url(0)]
    })
    .await;
    let unlisted = killed.elapsed();
    let worst = load.end(&log).await;
    let (p50, max) = (took[took.len() / 2], took[took.len() - 1]);
    eprintln!(
        "kill -9 with {} clients: back after p50 {p50:?} max {max:?}, unlisted after {unlisted:?}, slowest send \
         {worst:?}",
        others.len()
    );
    assert!(max <= patience(BACK), "a client was back only after {max:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_cut_off_from_the_log_keeps_its_sockets_says_so_and_shows_what_was_missed() {
    let cluster = Cluster::start(ClusterSpec { proxied_edges: true, ..ClusterSpec::default() }).await;
    let log = ReadLog::of(&cluster).await;
    let users = cluster.mint_users(3).await;
    let (alice, bob, carol) = (&users[0], &users[1], &users[2]);
    let thread = alice.dm(bob);
    let mut a = cluster.raw(alice, 0, Codec::Msgpack).await;
    send_through(&mut a, &thread, "before").await;
    let b = Watcher::attach(&cluster, bob, 1).await;
    let mut c = cluster.raw(carol, 1, Codec::Json).await;
    let own = carol.dm(alice);
    send_through(&mut c, &own, "before").await;
    let proxy = cluster.nats_proxy(1);

    // First the connection is refused, then it is dead and nobody says so.
    for dead in [false, true] {
        if dead {
            proxy.stall();
        } else {
            proxy.refuse(true);
            proxy.reset();
        }
        // More than once, if the way to the log and the lease come and go one after the other.
        eventually_within("who is on the edge is told", SOON, async || b.degraded().last() == Some(&true)).await;
        let refused = c.send_text(&own, "while cut off").await.unwrap_err();
        assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
        assert!(refused.retry_after_ms.is_some(), "it says when to try again");
        let mut missed = Vec::new();
        for _ in 0..20 {
            missed.push(send_through(&mut a, &thread, "missed").await);
        }
        // By the eye of the other edge, and its own.
        eventually_within("it is not listed", LEASE, async || listed_edges(&cluster, 0).await == [cluster.edge_url(0)])
            .await;
        let (status, _) = cluster.anonymous(1).get("/ready").await;
        assert_eq!(status, 503);
        assert!(!listed_edges(&cluster, 1).await.contains(&cluster.edge_url(1)), "its lease of before does not count");
        b.assert_open();

        if dead {
            proxy.pass();
        } else {
            proxy.refuse(false);
        }
        b.shows("what was missed", &thread, *missed.last().unwrap(), SOON).await;
        eventually_within("it is over", SOON, async || b.degraded().last() == Some(&false)).await;
        b.shows_the_log(&log, &thread, MsgId::NONE, SOON).await;
        send_through(&mut c, &own, "again").await;
        eventually_within("it is listed again", SOON, async || listed_edges(&cluster, 0).await.len() == 2).await;
    }
    b.assert_open();
}
