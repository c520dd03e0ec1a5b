//! P5: a client resumes on any edge with nothing but its token and its cursors.

mod by_hand;
mod synced;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use natterjack_client::{Events, OutboxStore};
use natterjack_protocol::{
    Body, Kind, MsgId, Thread,
    client::frame::{ClientFrame, SendMessage, ServerFrame},
    codec::Codec,
};
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, Received, User, next_event};
use tokio::time::sleep;

use self::by_hand::{hello, resume_by_hand};
use super::common::{ReadLog, SOON, Traffic, assert_log, new_group, send_through};

const THREADS: usize = 100;
const MISSED: usize = 5_000;
/// All of a backlog, on a busy machine.
const CATCH_UP: Duration = Duration::from_secs(30);

/// Thread `i` missed `i` messages, the first half one more: none, less than a page, several pages.
fn missed_in(i: usize) -> usize {
    i + usize::from(i < THREADS / 2)
}

struct World {
    cluster: Cluster,
    log: ReadLog,
    writer: User,
    reader: User,
    threads: Vec<Thread>,
    cursors: BTreeMap<Thread, MsgId>,
}

/// One writer, one reader, in 99 groups and a DM, each with one message that the reader has.
async fn world() -> World {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let log = ReadLog::of(&cluster).await;
    let mut users = cluster.mint_users(2).await;
    let (reader, writer) = (users.remove(1), users.remove(0));
    let api = cluster.api(&writer, 0);
    let mut threads = vec![writer.dm(&reader)];
    for _ in 1..THREADS {
        threads.push(new_group(&api, &[&reader]).await);
    }
    let mut ws = cluster.raw(&writer, 0, Codec::Msgpack).await;
    let mut cursors = BTreeMap::new();
    for thread in &threads {
        cursors.insert(thread.clone(), send_through(&mut ws, thread, "already read").await);
    }
    World { cluster, log, writer, reader, threads, cursors }
}

/// Sends these many into each thread, the threads mixed, as many at once as a session may.
async fn write(ws: &mut RawWs, mut left: Vec<(Thread, usize)>) {
    let mut in_flight = 0;
    loop {
        left.retain(|(_, n)| *n > 0);
        if left.is_empty() && in_flight == 0 {
            return;
        }
        for (thread, n) in left.iter_mut().take(48_usize.saturating_sub(in_flight)) {
            let (r, cid) = (ws.request(), ws.cid());
            ws.send(&ClientFrame::Send(SendMessage {
                r,
                cid,
                thread: thread.clone(),
                kind: Kind::Text,
                body: Body::text("missed"),
                behind: None,
            }))
            .await;
            *n -= 1;
            in_flight += 1;
        }
        // The limit is 1,000 frames a second.
        sleep(Duration::from_millis(55)).await;
        let turn = 48.min(left.len().saturating_sub(1));
        left.rotate_left(turn);
        while in_flight > 24 || (left.iter().all(|(_, n)| *n == 0) && in_flight > 0) {
            ws.until("sent", |f| match f {
                ServerFrame::Sent { .. } => Some(()),
                ServerFrame::Error { r: Some(_), refusal } => panic!("{refusal:?}"),
                _ => None,
            })
            .await;
            in_flight -= 1;
        }
    }
}

/// Reads until every thread has come to the end that the log has now; gives what the app was given.
async fn read_all(
    log: &ReadLog,
    events: &mut Events,
    cursors: &BTreeMap<Thread, MsgId>,
) -> BTreeMap<Thread, Vec<MsgId>> {
    let mut open = BTreeMap::new();
    for thread in cursors.keys() {
        let last = log.last(thread).await;
        if last > cursors[thread] {
            open.insert(thread.clone(), last);
        }
    }
    let mut got: BTreeMap<Thread, Vec<MsgId>> = BTreeMap::new();
    while !open.is_empty() {
        let message = next_event(events, "the rest of what was missed", CATCH_UP, |e| match e {
            natterjack_client::ClientEvent::Message(m) => Some(m),
            natterjack_client::ClientEvent::Skipped { thread, .. } => panic!("{thread} has a part skipped"),
            _ => None,
        })
        .await;
        if open.get(&message.thread).is_some_and(|last| message.id >= *last) {
            open.remove(&message.thread);
        }
        if !message.kind.is_control() {
            got.entry(message.thread).or_default().push(message.id);
        }
    }
    got
}

async fn assert_all(log: &ReadLog, cursors: &BTreeMap<Thread, MsgId>, got: &BTreeMap<Thread, Vec<MsgId>>) {
    for (thread, cursor) in cursors {
        assert_log(thread, got.get(thread).map_or(&[], Vec::as_slice), &log.messages(thread, *cursor).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_missed_messages_in_a_hundred_threads_come_in_the_logs_order_on_another_edge() {
    let w = world().await;
    let store = w.cluster.folder().join("reader.sqlite");
    // The SDK reads what there is on edge 0 …
    let (client, mut events) = w.cluster.client_with(&w.reader, 0, |b| b.store(OutboxStore::File(store.clone()))).await;
    let mut before: BTreeSet<Thread> = BTreeSet::new();
    while before.len() < THREADS {
        let m = next_event(&mut events, "the first message of each thread", CATCH_UP, |e| match e {
            natterjack_client::ClientEvent::Message(m) => (w.cursors[&m.thread] == m.id).then_some(m.thread),
            _ => None,
        })
        .await;
        before.insert(m);
    }
    drop(events);
    client.close().await;
    // … so does a client that is not ours.
    let mut bare = RawWs::connect(w.cluster.edge_addr(0), Codec::Json).await;
    let synced = bare.hello_with(hello(&w.reader, w.cursors.clone(), None)).await;
    bare.send(&ClientFrame::Bye).await;

    let mut ws = w.cluster.raw(&w.writer, 0, Codec::Msgpack).await;
    write(&mut ws, w.threads.iter().cloned().enumerate().map(|(i, t)| (t, missed_in(i))).collect()).await;
    assert_eq!((0..THREADS).map(missed_in).sum::<usize>(), MISSED);

    // … and goes on, on edge 1.
    let (client, mut events) = w.cluster.client_with(&w.reader, 1, |b| b.store(OutboxStore::File(store))).await;
    let began = tokio::time::Instant::now();
    let got = read_all(&w.log, &mut events, &w.cursors).await;
    eprintln!("{MISSED} missed messages in {THREADS} threads caught up by the SDK in {:?}", began.elapsed());
    assert_all(&w.log, &w.cursors, &got).await;
    client.close().await;

    // The same by hand: newest pages, and history before them.
    let mut bare = RawWs::connect(w.cluster.edge_addr(1), Codec::Msgpack).await;
    let (got, _) = resume_by_hand(&mut bare, hello(&w.reader, w.cursors.clone(), Some(synced))).await;
    assert_all(&w.log, &w.cursors, &got).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resuming_in_the_middle_of_live_traffic_misses_nothing_and_doubles_nothing() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let log = ReadLog::of(&cluster).await;
    let users = cluster.mint_users(3).await;
    let (alice, carol, reader) = (&users[0], &users[1], &users[2]);
    let group = new_group(&cluster.api(alice, 0), &[carol, reader]).await;
    let (mut a, mut c) = (cluster.raw(alice, 0, Codec::Msgpack).await, cluster.raw(carol, 1, Codec::Json).await);
    let dm = alice.dm(reader);
    let mut cursors = BTreeMap::from([(group.clone(), MsgId::NONE), (dm.clone(), MsgId::NONE)]);
    send_through(&mut a, &dm, "begun").await;
    send_through(&mut c, &group, "begun").await;
    let traffic = [
        Traffic::start(a, vec![group.clone(), dm.clone()], Duration::from_millis(2)),
        Traffic::start(c, vec![group.clone()], Duration::from_millis(2)),
    ];
    // To and fro between the edges, with nothing but the store.
    let store = cluster.folder().join("reader.sqlite");
    let mut got: BTreeMap<Thread, Vec<MsgId>> = BTreeMap::new();
    let mut floor: BTreeMap<Thread, MsgId> = BTreeMap::new();
    for round in 0..8 {
        let (client, mut events) =
            cluster.client_with(reader, round % 2, |b| b.store(OutboxStore::File(store.clone()))).await;
        for _ in 0..60 {
            let m = next_event(&mut events, "a message", SOON, |e| match e {
                natterjack_client::ClientEvent::Message(m) if !m.kind.is_control() => Some(m),
                natterjack_client::ClientEvent::Skipped { thread, .. } if round > 0 => {
                    panic!("{thread} has a part skipped")
                }
                _ => None,
            })
            .await;
            floor.entry(m.thread.clone()).or_insert(m.id);
            got.entry(m.thread).or_default().push(m.id);
        }
        drop(events);
        client.close().await;
        traffic[0].goes_on(20, SOON).await;
    }
    for t in traffic {
        t.stop().await;
    }
    let (client, mut events) = cluster.client_with(reader, 0, |b| b.store(OutboxStore::File(store))).await;
    for (thread, seen) in &got {
        cursors.insert(thread.clone(), *seen.last().unwrap());
    }
    for (thread, rest) in read_all(&log, &mut events, &cursors).await {
        got.entry(thread).or_default().extend(rest);
    }
    for (thread, got) in &got {
        // A new device begins with the newest page; from its first message on everything counts.
        assert_log(thread, got, &log.messages(thread, MsgId(floor[thread].0 - 1)).await);
    }
    client.close().await;
}

/// A crowd: everybody who was on an edge that died. Nobody's pages are refused because the others want theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_at_once_is_read_to() {
    const CROWD: usize = 80;
    const GROUPS: usize = 12;
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(CROWD).await;
    let api = cluster.api(&users[0], 0);
    let others: Vec<&User> = users[1..].iter().collect();
    let mut groups = Vec::new();
    let mut ws = cluster.raw(&users[0], 0, Codec::Msgpack).await;
    for _ in 0..GROUPS {
        let group = new_group(&api, &others).await;
        send_through(&mut ws, &group, "for everybody").await;
        groups.push(group);
    }
    let come = |i: usize| {
        let (addr, user, groups) = (cluster.edge_addr(i % 2), &users[i], &groups);
        async move {
            let mut ws = RawWs::connect(addr, Codec::Msgpack).await;
            ws.send(&ClientFrame::Hello(hello(user, BTreeMap::new(), None))).await;
            let mut paged = BTreeSet::new();
            loop {
                match ws.next_within(CATCH_UP).await {
                    Received::Frame(ServerFrame::Page(page)) => paged.extend(page.thread),
                    Received::Frame(ServerFrame::Attached { .. }) => break,
                    Received::Frame(ServerFrame::Error { refusal, .. }) => panic!("refused: {refusal}"),
                    Received::Closed(code, reason) => panic!("closed with {code} {reason}"),
                    _ => {}
                }
            }
            assert_eq!(paged, groups.iter().cloned().collect());
            ws
        }
    };
    futures_util::future::join_all((0..CROWD).map(come)).await;
}
