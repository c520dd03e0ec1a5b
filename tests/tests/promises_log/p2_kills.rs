//! P2 while edges die: between a send and its acknowledgement, of bare sockets and of the SDK.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use natterjack_client::{Client, ClientEvent, Events, OutboxStore};
use natterjack_protocol::{Cid, Event, MsgId, Thread, codec::Codec};
use natterjack_testkit::{eventually_within, patience, within};
use natterjack_tests::kit::{
    Cluster, ClusterSpec, User,
    paging::whole,
    witness::{Reader, SOON, assert_once_and_in_order, assert_thread, group, heavy, texts},
    writer::{send_all, send_until_sent},
};
use tokio::time::sleep;

use super::p2_once::{addrs, spec};

/// 20 times an edge is killed between send and ack with ten sends in flight; all ten are sent again through the other
/// edge. In half of the rounds the acks are lost on purpose: the log has the message and nobody has told the client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_between_send_and_ack() {
    let seed: u64 = std::env::var("NATTERJACK_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("NATTERJACK_SEED={seed}");
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let cluster = Cluster::start(ClusterSpec { edges: 3, proxied_edges: true, ..spec() }).await;
    let users = cluster.mint_users(3).await;
    let [sender, still, mover] = [&users[0], &users[1], &users[2]];
    let mut threads = vec![sender.dm(still), sender.dm(mover)];
    for _ in 0..5 {
        threads.push(group(&cluster, &[sender, still, mover]).await);
    }
    // One stays on an edge that lives, one is thrown from edge to edge.
    let stays = Reader::start(addrs(&cluster, &[2]), still, Codec::Msgpack).await;
    let moves = Reader::start(addrs(&cluster, &[0, 1]), mover, Codec::Json).await;

    let mut acked: HashMap<Cid, MsgId> = HashMap::new();
    let mut sent: Vec<(Thread, Cid, String)> = Vec::new();
    let (mut stored_unacked, mut never_stored) = (0, 0);
    for round in 0..20 {
        let (a, b) = (round % 2, 1 - round % 2);
        cluster.edge(a).wait_ready().await;
        let mut ws = cluster.raw(sender, a, if round % 3 == 0 { Codec::Json } else { Codec::Msgpack }).await;
        // Seven threads, one publish in flight in each; three more wait behind one of them.
        let sends: Vec<(Thread, Cid, String)> =
            (0..10).map(|n| (threads[if n < 7 { n } else { 6 }].clone(), ws.cid(), format!("{round}-{n}"))).collect();
        let mine: HashSet<Cid> = sends.iter().map(|(_, cid, _)| *cid).collect();
        let lossy = round % 4 < 2;
        if lossy {
            cluster.nats_proxy(a).drop_live(|_, payload| payload.starts_with(b"{\"stream\":") && payload.len() < 200);
        }
        let after = Duration::from_micros(rand::Rng::random_range(&mut rng, 0..6_000));
        let kill = async {
            if lossy {
                // Stored: the others have it.
                eventually_within("the log has some of them", SOON, async || {
                    stays.seen().events.iter().rev().take(10).any(|e| mine.contains(&e.cid))
                })
                .await;
            }
            // Somewhere between the send and its acknowledgement, from the seed.
            sleep(after).await;
            cluster.edge(a).kill9().await;
        };
        let (answers, ()) = tokio::join!(send_all(&mut ws, &sends), kill);
        cluster.nats_proxy(a).drop_nothing();
        assert!(answers.refused.is_empty(), "round {round}: {:?}", answers.refused);
        assert!(!lossy || answers.sent.is_empty(), "round {round}: acks came although they were lost");
        cluster.edge(a).spawn();
        if !lossy {
            let stored: HashSet<Cid> = stays.seen().events.iter().map(|e| e.cid).collect();
            stored_unacked += mine.iter().filter(|c| stored.contains(c) && !answers.sent.contains_key(c)).count();
            never_stored += mine.iter().filter(|c| !stored.contains(c)).count();
        }

        let ids = send_until_sent(&addrs(&cluster, &[b]), sender, Codec::Msgpack, &sends).await;
        for (cid, id) in &answers.sent {
            assert_eq!(ids[cid], *id, "round {round}: the resend of an acked message has another id");
        }
        acked.extend(ids);
        sent.extend(sends);
    }
    eprintln!(
        "without lost acks: {stored_unacked} stored and not acked, {never_stored} not stored (or not yet seen) when \
         sent again"
    );

    let expected = |thread: &Thread| {
        let mut all: Vec<(MsgId, String)> =
            sent.iter().filter(|(t, ..)| t == thread).map(|(_, cid, text)| (acked[cid], text.clone())).collect();
        all.sort();
        all
    };
    cluster.edge(0).wait_ready().await;
    cluster.edge(1).wait_ready().await;
    let check = async || {
        for (n, thread) in threads.iter().enumerate() {
            let readers: &[(&str, &Reader)] = match n {
                0 => &[("who stayed", &stays)],
                1 => &[("who moved", &moves)],
                _ => &[("who stayed", &stays), ("who moved", &moves)],
            };
            assert_thread(&cluster, thread, readers, sender, &expected(thread)).await;
        }
    };
    check().await;
    assert!(moves.seen().attached > 10, "the reader that moves has not moved");
    // The first rounds are past the window by now; whoever sends them again is told the same.
    let first = &sent[..20];
    let again = send_until_sent(&addrs(&cluster, &[1, 0]), sender, Codec::Json, first).await;
    for (_, cid, _) in first {
        assert_eq!(again[cid], acked[cid]);
    }
    check().await;
}

/// Reads until everything that was promised has come; whatever comes twice stays twice.
async fn drain(events: &mut Events, into: &mut Vec<Event>, done: impl Fn(&[Event]) -> bool) {
    within("all messages at the SDK", Duration::from_secs(60), async {
        while !done(into) {
            match events.next().await.expect("the client ended") {
                ClientEvent::Message(m) if m.body.text.is_some() => into.push(m),
                ClientEvent::Failed { refusal, .. } => panic!("a message failed for good: {refusal:?}"),
                ClientEvent::Skipped { thread, from, to } => panic!("skipped {from}..{to} of {thread}"),
                _ => {}
            }
        }
    })
    .await;
}

/// Two people with the SDK, outboxes in files, edges killed at random, one client that crashes and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_loses_and_doubles_nothing_while_edges_die() {
    let cluster = Cluster::start(ClusterSpec { edges: 3, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(2).await;
    let (alice, bob) = (&users[0], &users[1]);
    let thread = alice.dm(bob);
    let urls: Vec<String> = (0..3).map(|i| cluster.edge_url(i)).collect();
    let folder = cluster.folder();
    let connect = async |user: &User, file: &str| -> (Client, Events) {
        // The file of a client that was just dropped is let go a moment later.
        eventually_within("a client with its file", SOON, async || {
            user.builder(urls.clone()).store(OutboxStore::File(folder.join(file))).connect().await
        })
        .await
    };
    let each = if heavy() { 1_000 } else { 150 };
    let mut alices = Some(connect(alice, "alice.db").await);
    let (b, mut b_events) = connect(bob, "bob.db").await;
    let (mut a_seen, mut b_seen) = (Vec::new(), Vec::new());

    let kills = async {
        for _ in 0..(if heavy() { 30 } else { 8 }) {
            let edge = cluster.edge(rand::random_range(0..3));
            edge.kill9().await;
            // Away for a moment, or for longer than a client waits.
            sleep(Duration::from_millis(rand::random_range(0..300))).await;
            edge.start().await;
        }
    };
    let writing = async {
        let all = 2 * each;
        let bob_writes = async {
            for n in 0..each {
                b.send_text(thread.clone(), format!("b{n}")).await.unwrap();
                // The pace of somebody who writes.
                sleep(Duration::from_millis(rand::random_range(0..40))).await;
            }
        };
        let alice_writes = async {
            for n in 0..each {
                let (a, events) = alices.as_mut().unwrap();
                a.send_text(thread.clone(), format!("a{n}")).await.unwrap();
                let mut read = Vec::new();
                let _ = tokio::time::timeout(
                    Duration::from_millis(rand::random_range(0..40)),
                    drain(events, &mut read, |_| false),
                )
                .await;
                a_seen.extend(read);
                if n == each / 2 {
                    // Without a goodbye: what was not acked is in the file, what was not seen comes again.
                    drop(alices.take());
                    alices = Some(connect(alice, "alice.db").await);
                }
            }
            let (a, _) = alices.as_ref().unwrap();
            a.flushed(patience(Duration::from_secs(40))).await.unwrap_or_else(|n| panic!("{n} messages were not sent"));
        };
        tokio::join!(bob_writes, alice_writes, drain(&mut b_events, &mut b_seen, |seen| seen.len() >= all));
    };
    tokio::join!(kills, writing);
    b.flushed(patience(Duration::from_secs(40))).await.unwrap();
    let log = whole(&cluster.api(bob, 0), &thread, true).await;
    assert_once_and_in_order("history", &log);
    let log = texts(&log);
    for who in ["a", "b"] {
        let order: Vec<&str> = log.iter().map(|(_, t)| t.as_str()).filter(|t| t.starts_with(who)).collect();
        let wanted: Vec<String> = (0..each).map(|n| format!("{who}{n}")).collect();
        assert_eq!(order, wanted, "each once, in the order of sending");
    }
    assert_eq!(texts(&b_seen), log, "bob saw the log, no more and no less");
    // Alice crashed once: her last moments may have come again, in order; nothing is missing.
    let newest = log.last().unwrap().0;
    if a_seen.last().is_none_or(|e: &Event| e.id < newest) {
        let (_, events) = alices.as_mut().unwrap();
        drain(events, &mut a_seen, |seen| seen.last().is_some_and(|e| e.id >= newest)).await;
    }
    let mut a_seen = texts(&a_seen);
    a_seen.sort();
    a_seen.dedup();
    assert_eq!(a_seen, log, "alice saw the log");
}
