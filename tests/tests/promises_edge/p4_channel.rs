//! P4 behind NATS: the channel service killed, frozen, and its NATS node killed; attach while others publish on another
//! node.

use std::{collections::BTreeMap, time::Duration};

use natterjack_protocol::{
    Cid, MsgId, Thread,
    client::frame::{ClientFrame, Hello, ServerFrame},
    codec::Codec,
};
use natterjack_testkit::{eventually_within, now_ms, patience};
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, Received, User, witness::Reader, writer::Writer};
use tokio::time::Instant;

use super::common::{ReadLog, SOON, Traffic, Watcher, assert_log, heavy, new_group, send_through, slowest};

const PACE: Duration = Duration::from_millis(10);
/// Of a channel process, see docs/guarantees.md.
const TAKEN_OVER: Duration = Duration::from_secs(3);
/// Of its NATS node, together with sends; an election that NATS takes longer over is not ours to shorten.
const NODE: Duration = Duration::from_secs(10);
/// After an election that took longer than half of that.
const BACK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_from_a_killed_and_from_a_frozen_channel() {
    let cluster = Cluster::start(ClusterSpec { channels: 2, ..ClusterSpec::default() }).await;
    let log = ReadLog::of(&cluster).await;
    let users = cluster.mint_users(4).await;
    let listener = cluster.mint_users(1).await.remove(0);
    let alice = &users[0];
    let group = new_group(&cluster.api(alice, 0), &[&listener]).await;
    // Several threads, so that both partitions have some.
    let mut threads = vec![group];
    threads.extend(users[1..].iter().map(|u| alice.dm(u)));
    let mut a = cluster.raw(alice, 0, Codec::Msgpack).await;
    for thread in &threads {
        send_through(&mut a, thread, "begun").await;
    }
    let mut readers = Vec::new();
    for (user, thread) in users[1..].iter().zip(&threads[1..]) {
        readers.push((Watcher::attach(&cluster, user, 1).await, thread.clone()));
    }
    readers.push((Watcher::attach(&cluster, &listener, 1).await, threads[0].clone()));
    let traffic = Traffic::start(a, threads.clone(), PACE);
    traffic.goes_on(50, SOON).await;

    for killed in [0, 1] {
        cluster.channel(killed).kill9().await;
        traffic.goes_on(100, SOON * 2).await;
        shows_what_is_sent(&traffic, &readers, SOON).await;
        cluster.channel(killed).start().await;
    }
    // Both were killed once, so 0 holds both partitions by now.
    cluster.channel(0).stop();
    // Asks the frozen one for heads, and must not wait for it for ever.
    let mut late = RawWs::connect(cluster.edge_addr(0), Codec::Json).await;
    late.hello(&cluster.other_device(&users[1], "late")).await;
    traffic.goes_on(400, SOON * 3).await;
    shows_what_is_sent(&traffic, &readers, SOON).await;
    cluster.channel(0).cont();
    traffic.goes_on(300, SOON * 3).await;

    let many = traffic.count();
    let acked = traffic.stop().await;
    let mut worst = Duration::ZERO;
    for (w, thread) in &readers {
        w.shows_the_log(&log, thread, Default::default(), SOON).await;
        worst = worst.max(slowest(&acked[thread], &w.messages(thread)));
        w.assert_open();
    }
    eprintln!("two channels killed, one frozen: the slowest of {many} messages was shown {worst:?} after its ack");
    assert!(worst <= patience(TAKEN_OVER), "delivery paused for {worst:?}");
}

/// Everything acked by now is shown (the pages of the attach are one message per thread).
async fn shows_what_is_sent(traffic: &Traffic, readers: &[(Watcher, Thread)], limit: Duration) {
    let count = traffic.count();
    let shown = || readers.iter().map(|(w, t)| w.messages(t).len()).sum::<usize>();
    eventually_within("what was sent is shown", limit, async || shown() >= count + readers.len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_beside_publishers_on_another_node_and_the_death_of_the_channels_node() {
    let spec = ClusterSpec {
        nats: 3,
        channels: 2,
        channel_nodes: vec![0, 1],
        edge_nodes: vec![1, 2],
        persister_nodes: vec![1],
        ..ClusterSpec::default()
    };
    let cluster = Cluster::start(spec).await;
    let log = ReadLog::of(&cluster).await;
    let users = cluster.mint_users(3).await;
    let (alice, bob, carol) = (&users[0], &users[1], &users[2]);
    let group = new_group(&cluster.api(alice, 0), &[bob, carol]).await;
    let threads = vec![alice.dm(bob), group.clone()];
    let mut writer = Writer::new(vec![cluster.edge_addr(0)], alice, Codec::Msgpack);
    let begun: Vec<_> =
        threads.iter().map(|t| (t.clone(), Cid::mint(now_ms(), rand::random()), "begun".to_owned())).collect();
    let ids = writer.send(&begun).await;
    let mut cursors: BTreeMap<Thread, MsgId> = begun.iter().map(|(t, cid, _)| (t.clone(), ids[cid])).collect();
    let traffic = Traffic::resuming(writer, threads.clone(), Duration::from_millis(1));

    // Each time the edge has nobody else on these subjects: it subscribes anew.
    let rounds = if heavy() { 500 } else { 60 };
    for round in 0..rounds {
        let seen = attach_and_read(&cluster, bob, &cursors, 3).await;
        for (thread, got) in seen {
            let after = cursors[&thread];
            let upto = *got.last().unwrap_or(&after);
            let wanted: Vec<MsgId> = log.messages(&thread, after).await.into_iter().filter(|id| *id <= upto).collect();
            assert_log(&thread, &got, &wanted);
            cursors.insert(thread, upto);
        }
        if round % 20 == 19 {
            eprintln!("{} attaches without a hole", round + 1);
        }
    }

    let reader = Reader::start(vec![cluster.edge_addr(1)], carol, Codec::Json).await;
    traffic.goes_on(50, SOON).await;
    let dead = Instant::now();
    cluster.nats(0).kill9().await;
    // An election may take its time; then both sends and delivery go on.
    let (elections, ()) = tokio::join!(cluster.elections(), traffic.goes_on(200, SOON * 4));
    let acked = traffic.stop().await;
    let again = acked.values().flat_map(BTreeMap::values).filter(|at| **at > dead).min().unwrap();
    let wanted = log.messages(&group, Default::default()).await;
    let last = *wanted.last().unwrap();
    // In an election that takes longer than an edge waits for what it missed, the sockets are closed, and resume.
    eventually_within("all of it is shown", SOON * 2, async || {
        reader.shown(&group).last().is_some_and(|(_, id)| *id >= last)
    })
    .await;
    let got = reader.shown(&group);
    let ids: Vec<MsgId> = got.iter().map(|(_, id)| *id).collect();
    let first = ids[0];
    assert_log(&group, &ids, &wanted.iter().copied().filter(|id| *id >= first).collect::<Vec<_>>());
    let pause = got.windows(2).map(|w| w[1].0 - w[0].0).max().unwrap_or_default();
    let worst = slowest(&acked[&group].iter().filter(|(_, at)| **at > dead).map(|(id, at)| (*id, *at)).collect(), &got);
    eprintln!(
        "the channel's NATS node killed: leaders again after {elections:?}, sends after {:?}; delivery paused \
         {pause:?}, slowest {worst:?} after its ack",
        again.saturating_duration_since(dead)
    );
    reader.assert_nothing_wrong("who reads");
    assert!(
        pause <= patience(NODE.max(elections + BACK)),
        "delivery paused for {pause:?}, {elections:?} of it without leaders"
    );
}

/// Attaches with these cursors and reads on until so many live events came on each thread; gives what was shown beyond
/// the cursors.
async fn attach_and_read(
    cluster: &Cluster,
    user: &User,
    cursors: &BTreeMap<Thread, MsgId>,
    live: usize,
) -> BTreeMap<Thread, Vec<MsgId>> {
    let mut ws = RawWs::connect(cluster.edge_addr(1), Codec::Msgpack).await;
    ws.send(&ClientFrame::Hello(Hello {
        cursors: cursors.clone(),
        ..Hello::new(user.tokens.access.clone(), user.tokens.device.clone())
    }))
    .await;
    let mut seen: BTreeMap<Thread, Vec<MsgId>> = cursors.keys().map(|t| (t.clone(), Vec::new())).collect();
    let mut counts: BTreeMap<Thread, usize> = BTreeMap::new();
    while cursors.keys().any(|t| counts.get(t).is_none_or(|n| *n < live)) {
        match ws.next().await {
            Received::Frame(ServerFrame::Event(e)) => {
                *counts.entry(e.thread.clone()).or_default() += 1;
                let of = seen.get_mut(&e.thread).unwrap();
                // As docs/protocol.md says: what the cursor or the page had already is dropped by its id. An
                // acknowledgement may be here before the event, and an attach with it as its cursor, too.
                if e.id > *of.last().unwrap_or(&cursors[&e.thread]) {
                    of.push(e.id);
                }
            }
            Received::Frame(ServerFrame::Page(p)) => {
                let of = seen.get_mut(p.thread.as_ref().unwrap()).unwrap();
                assert!(
                    p.prev <= cursors[p.thread.as_ref().unwrap()],
                    "more than a page was missed: make the rounds quicker"
                );
                of.extend(p.events.iter().map(|e| e.id));
            }
            Received::Closed(code, reason) => panic!("closed with {code} {reason}"),
            _ => {}
        }
    }
    // The edge has left the subjects when it has closed.
    ws.send(&ClientFrame::Bye).await;
    ws.until_closed(SOON).await;
    seen
}
