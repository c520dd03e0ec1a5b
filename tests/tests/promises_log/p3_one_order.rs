//! P3: live, catch-up and archive show a thread in the log's order; one sender's messages keep the order of sending.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use natterjack_nats::Layout;
use natterjack_protocol::{Cid, MsgId, Retry, Thread, codec::Codec};
use natterjack_testkit::{eventually_within, now_ms, patience};
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, RawWs, User};
use tokio::{sync::watch, task::JoinSet};

use natterjack_tests::kit::counters::{BATCHED, counter, sum_of, until_the_direct_path_is_open};
use natterjack_tests::kit::paging::whole;
use natterjack_tests::kit::witness::{Reader, SOON, assert_once_and_in_order, group, heavy, texts};
use natterjack_tests::kit::writer::{assert_may_come_back, connect, send_all, send_until_sent};

const WRITERS: usize = 10;
/// Between two of them a reader leaves.
const PARTS: usize = 10;

fn codec(n: usize) -> Codec {
    if n.is_multiple_of(2) { Codec::Json } else { Codec::Msgpack }
}

/// `w3-17` is the 18th message of the fourth writer.
fn assert_fifo(log: &[(MsgId, String)], written: &[usize]) {
    for (w, count) in written.iter().enumerate() {
        let begin = format!("w{w}-");
        let shown: Vec<usize> = log.iter().filter_map(|(_, t)| t.strip_prefix(&begin)?.parse().ok()).collect();
        assert_eq!(shown, (0..*count).collect::<Vec<_>>(), "the order of writer {w}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_writers_and_three_readers_agree_on_one_order() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(WRITERS + 3).await;
    let thread = group(&cluster, &users.iter().collect::<Vec<_>>()).await;
    let (writers, readers) = users.split_at(WRITERS);
    let edges = [cluster.edge_addr(0), cluster.edge_addr(1)];
    let first = Reader::start(vec![edges[0]], &readers[0], Codec::Json).await;
    let second = Reader::start(vec![edges[1]], &readers[1], Codec::Msgpack).await;
    let comes_and_goes = Reader::start(edges.to_vec(), &readers[2], Codec::Msgpack).await;

    let each = if heavy() { 500 } else { 60 };
    let all = WRITERS * each;
    // Nobody is so fast that there is nothing left for who leaves: a round begins when that reader has left as often as
    // it may by then.
    let left = watch::Sender::new(0);
    let mut tasks = JoinSet::new();
    for (w, user) in writers.iter().enumerate() {
        let mut ws = cluster.raw(user, w % 2, codec(w / 2)).await;
        let (thread, mut gone) = (thread.clone(), left.subscribe());
        tasks.spawn(async move {
            // Pipelined: the edge keeps them in order.
            let sends: Vec<(Thread, Cid, String)> =
                (0..each).map(|n| (thread.clone(), ws.cid(), format!("w{w}-{n}"))).collect();
            for (round, part) in sends.chunks(each / PARTS).enumerate() {
                gone.wait_for(|left| *left >= round).await.unwrap();
                let (mut left, mut ids) = (part.to_vec(), BTreeMap::new());
                while !left.is_empty() {
                    let answers = send_all(&mut ws, &left).await;
                    // In the first seconds of a log each cid is looked up, and so many at once may be asked to come
                    // again.
                    assert!(answers.refused.values().all(|r| r.code.retry() == Retry::Later), "{answers:?}");
                    assert_eq!(answers.closed, None);
                    ids.extend(answers.sent);
                    left.retain(|(_, cid, _)| !ids.contains_key(cid));
                }
                assert!(part.windows(2).all(|p| ids[&p[0].1] < ids[&p[1].1]), "acked in another order than sent");
            }
        });
    }
    // Meanwhile one reader leaves, again and again, at moments that depend on what it has seen.
    for part in 1..PARTS {
        comes_and_goes.wait_for("the next part", &thread, all * part / PARTS).await;
        comes_and_goes.hang_up().await;
        left.send_replace(part);
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    for reader in [&first, &second, &comes_and_goes] {
        reader.wait_for("all of it", &thread, all).await;
    }
    let log = whole(&cluster.api(&readers[0], 0), &thread, true).await;
    assert_once_and_in_order("history", &log);
    assert_fifo(&texts(&log), &[each; WRITERS]);
    assert_eq!(texts(&log).len(), all);
    let whole_downwards = whole(&cluster.api(&readers[1], 1), &thread, false).await;
    assert_eq!(ids(&whole_downwards), ids(&log), "history downwards");
    // Only now: all of it in pages.
    let latecomer = Reader::start(vec![edges[1]], &readers[0], Codec::Json).await;
    latecomer.wait_for("all of it, later", &thread, all).await;
    for (who, reader) in [
        ("live, JSON", &first),
        ("live, MessagePack", &second),
        ("live and sync", &comes_and_goes),
        ("sync", &latecomer),
    ] {
        reader.assert_nothing_wrong(who);
        assert_eq!(texts(&reader.of(&thread)), texts(&log), "{who}");
    }
    let attached = comes_and_goes.seen().attached;
    let from_pages = comes_and_goes.seen().from_pages;
    assert!(
        attached >= 9 && from_pages > 0,
        "{attached} sessions, {from_pages} events from pages: there was nothing to catch up with"
    );

    // From the archive: the log's part of an answer is only what lies above the watermark.
    eventually_within("everything is archived", SOON, async || archived(&cluster).await > all as f64).await;
    let from_archive = whole(&cluster.api(&readers[2], 1), &thread, true).await;
    assert_eq!(ids(&from_archive), ids(&log), "from the archive");
    assert_eq!(texts(&from_archive), texts(&log));
}

fn ids(events: &[natterjack_protocol::Event]) -> Vec<MsgId> {
    events.iter().map(|e| e.id).collect()
}

/// Entries that the persister has written since it started.
async fn archived(cluster: &Cluster) -> f64 {
    let (_, text) = Api::new(cluster.persister_admin(0), None).get("/metrics").await;
    sum_of(text.as_str().unwrap_or_default(), "natterjack_persister_archived_entries_total")
}

/// Ten at a time; what fails is sent again, in its order, before anything newer.
async fn write(
    edge: SocketAddr,
    user: User,
    codec: Codec,
    (thread, w, each): (Thread, usize, usize),
    mut killed: watch::Receiver<Option<Instant>>,
) -> (usize, Duration) {
    let mut ws = session(edge, &user, codec).await;
    let mut longest = Duration::ZERO;
    let mut last = Instant::now();
    let mut written = 0;
    // However fast this machine is: the last message comes after the kill.
    while written < each || killed.borrow().is_none() {
        let sends: Vec<(Thread, Cid, String)> =
            (written..written + 10).map(|n| (thread.clone(), cid(), format!("w{w}-{n}"))).collect();
        written += sends.len();
        let mut left = sends.clone();
        while !left.is_empty() {
            let answers = send_all(&mut ws, &left).await;
            if let Some(code) = answers.closed {
                assert_may_come_back(code);
                ws = session(edge, &user, codec).await;
            }
            for refusal in answers.refused.values() {
                assert_eq!(refusal.code.retry(), Retry::Later, "{refusal:?}");
            }
            if !answers.sent.is_empty() {
                // From the kill on only.
                if let Some(at) = *killed.borrow_and_update() {
                    longest = longest.max(last.max(at).elapsed());
                }
                last = Instant::now();
            } else {
                // As a client does it between two tries.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            left.retain(|(_, cid, _)| !answers.sent.contains_key(cid));
        }
    }
    (written, longest)
}

/// All clocks here are one.
fn cid() -> Cid {
    Cid::mint(now_ms(), rand::random())
}

async fn session(edge: SocketAddr, user: &User, codec: Codec) -> RawWs {
    eventually_within("a session", SOON, async || connect(edge, user, codec, BTreeMap::new()).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_sending_survives_a_leader_election() {
    let cluster = Cluster::start(ClusterSpec { nats: 3, edges: 3, alone: true, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(7).await;
    let thread = group(&cluster, &users.iter().collect::<Vec<_>>()).await;
    // In the first seconds of a log each cid is looked up, and nothing goes in batches.
    until_the_direct_path_is_open(&cluster, &users[0]).await;
    let (writers, reader) = users.split_at(6);
    let live = Reader::start((0..3).map(|i| cluster.edge_addr(i)).collect(), &reader[0], Codec::Msgpack).await;
    let each = if heavy() { 20_000 } else { 600 };
    let (tell, killed) = watch::channel(None);
    let writing = futures_util::future::join_all(writers.iter().enumerate().map(|(w, user)| {
        write(cluster.edge_addr(w % 3), user.clone(), codec(w), (thread.clone(), w, each), killed.clone())
    }));
    let killing = async {
        live.wait_for("everybody is writing", &thread, 200).await;
        eventually_within("in batches", SOON, async || counter(&cluster, 0, BATCHED).await > 0.0).await;
        let leader = leader(&cluster, &thread).await;
        tell.send_replace(Some(Instant::now()));
        cluster.nats(leader).kill9().await;
        let at_kill = texts(&live.of(&thread)).len();
        (leader, at_kill, cluster.elections().await)
    };
    let (waits, (leader, at_kill, elections)) = tokio::join!(writing, killing);
    let written: Vec<usize> = waits.iter().map(|(n, _)| *n).collect();
    let longest = waits.iter().map(|(_, wait)| *wait).max().unwrap();
    eprintln!(
        "nats {leader} killed after {at_kill} messages; leaders again after {elections:?}; the longest wait for an \
         ack was {longest:?}"
    );
    let all = written.iter().sum();
    assert!(at_kill < all, "the election came after the last message");
    // What the elections took beyond 10 s is not ours; coming back after them is.
    let limit = Duration::from_secs(10).max(elections + Duration::from_secs(5));
    assert!(longest < patience(limit), "sends waited {longest:?}, {elections:?} of it without leaders");
    live.wait_for("all of it, live", &thread, all).await;
    live.assert_nothing_wrong("who reads live");
    let log = whole(&cluster.api(&reader[0], (leader + 1) % 3), &thread, false).await;
    assert_once_and_in_order("history", &log);
    assert_fifo(&texts(&log), &written);
    assert_eq!(texts(&live.of(&thread)), texts(&log), "live and history");
    // And the dead node comes back as a follower that changes nothing.
    cluster.nats(leader).start().await;
    let more = [(thread.clone(), cid(), "after".to_owned())];
    send_until_sent(&[cluster.edge_addr(leader)], &writers[0], Codec::Json, &more).await;
    live.wait_for("one more", &thread, all + 1).await;
}

/// The index of the nats-server that leads the stream of this thread.
async fn leader(cluster: &Cluster, thread: &Thread) -> usize {
    let nats = cluster.connect_nats().await;
    let stream = Layout::load(&nats).await.unwrap().stream(thread);
    let js = natterjack_testkit::raw_jetstream(&nats).await;
    let info = js.get_stream(stream).await.unwrap().get_info().await.unwrap();
    let name = info.cluster.and_then(|c| c.leader).expect("a stream of three has a leader");
    name.trim_start_matches('n').parse().unwrap_or_else(|_| panic!("servers are n0, n1, n2, not {name}"))
}
