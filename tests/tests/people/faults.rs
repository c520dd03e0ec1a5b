//! Processes that stop under load: nats-server restarts, and two of each role on one partition for a while.

use std::collections::{HashMap, HashSet};

use natterjack_client::{Client, ClientEvent, Events};
use natterjack_protocol::{Cid, Kind, MsgId, Thread, client::frame::ServerFrame, codec::Codec};
use natterjack_testkit::{Process, eventually_within, within};
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, RawWs, Received, next_event, paging::whole};

use super::common::{Insight, LONG, add, all_well, good, new_group, seen_until};

/// Sends `n` messages in an order, many under way at once, and gives their ids in that order.
async fn write(client: &Client, events: &mut Events, thread: &Thread, name: String, n: usize) -> Vec<MsgId> {
    let put = async {
        let mut locals = Vec::new();
        for i in 0..n {
            locals.push(client.send_text(thread.clone(), format!("{name} {i}")).await.unwrap());
        }
        locals
    };
    let acks = async {
        let mut ids = HashMap::new();
        while ids.len() < n {
            let next = next_event(events, "every send completes", LONG, |e| match e {
                ClientEvent::Sent { local, id, .. } => Some((local, id)),
                ClientEvent::Failed { refusal, .. } => panic!("{refusal}"),
                _ => None,
            });
            let (local, id) = next.await;
            assert!(ids.insert(local, id).is_none(), "confirmed twice");
        }
        ids
    };
    let (locals, ids) = tokio::join!(put, acks);
    locals.iter().map(|local| ids[local]).collect()
}

/// The messages of a thread as an app sees them, until there are `n`.
async fn see(events: &mut Events, thread: &Thread, n: usize) -> Vec<MsgId> {
    let mut seen = Vec::new();
    while seen.len() < n {
        let next = next_event(events, "all the messages", LONG, |e| match e {
            ClientEvent::Message(m) if m.thread == *thread && m.kind == Kind::Text => Some(m.id),
            ClientEvent::Failed { refusal, .. } => panic!("{refusal}"),
            ClientEvent::Ended { code, reason } => panic!("ended with {code} {reason}"),
            _ => None,
        });
        seen.push(next.await);
    }
    seen
}

/// What everybody saw and what history says is one and the same, and each message was sent once.
async fn one_order(api: &[Api], thread: &Thread, seen: &[Vec<MsgId>], sent: &[Vec<MsgId>]) {
    let all: HashSet<MsgId> = sent.iter().flatten().copied().collect();
    assert_eq!(all.len(), sent.iter().map(Vec::len).sum::<usize>(), "each send has an id of its own");
    for ids in sent {
        assert!(ids.is_sorted(), "a sender's messages keep their order");
    }
    for api in api {
        let history: Vec<_> = whole(api, thread, false).await.into_iter().filter(|e| e.kind == Kind::Text).collect();
        let cids: HashSet<Cid> = history.iter().map(|e| e.cid).collect();
        assert_eq!(cids.len(), history.len(), "nothing twice");
        let ids: Vec<MsgId> = history.iter().map(|e| e.id).collect();
        assert_eq!(ids.iter().copied().collect::<HashSet<_>>(), all);
        for seen in seen {
            assert_eq!(*seen, ids);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_server_restarts_under_load() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(3).await;
    let group = new_group(&cluster.api(&users[0], 0), "restart", &users[1..]).await;
    let (a, mut a_events) = cluster.client(&users[0], 0).await;
    let (b, mut b_events) = cluster.client(&users[1], 1).await;
    let (c, mut c_events) = cluster.client(&users[2], 1).await;
    const EACH: usize = 150;
    let mut seen = Vec::new();
    let restarts = async {
        for _ in 0..2 {
            seen.extend(see(&mut c_events, &group, 20).await);
            cluster.nats(0).kill9().await;
            cluster.nats(0).start().await;
        }
    };
    let load = async {
        tokio::join!(
            write(&a, &mut a_events, &group, "a".into(), EACH),
            write(&b, &mut b_events, &group, "b".into(), EACH)
        )
    };
    let ((from_a, from_b), ()) = tokio::join!(load, restarts);
    seen.extend(see(&mut c_events, &group, 2 * EACH - seen.len()).await);
    let apis = [cluster.api(&users[0], 0), cluster.api(&users[2], 1)];
    one_order(&apis, &group, &[seen], &[from_a, from_b]).await;
    // All goes on as before: tokens, groups, live.
    let newcomer = cluster.user("newcomer").await;
    good(add(&apis[0], &group, &newcomer).await);
    let mut ws = cluster.raw(&newcomer, 0, Codec::Json).await;
    ws.send_text(&group, "hello").await.unwrap();
    see(&mut c_events, &group, 1).await;
    for client in [a, b, c] {
        client.close().await;
    }
    all_well(&cluster);
}

/// Frozen until `goes_on`, then let go: for a while there are two of it.
async fn frozen_while(process: &Process, goes_on: impl Future<Output = ()>) {
    process.stop();
    goes_on.await;
    process.cont();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_each_on_one_partition_for_a_while() {
    let cluster = Cluster::start(ClusterSpec { channels: 2, persisters: 2, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(4).await;
    let group = new_group(&cluster.api(&users[0], 0), "twins", &users[1..]).await;
    let (a, mut a_events) = cluster.client(&users[0], 0).await;
    let (b, mut b_events) = cluster.client(&users[1], 1).await;
    let other_device = &cluster.mint_users(1).await[0];
    good(add(&cluster.api(&users[0], 0), &group, other_device).await);
    let (c, mut c_events) = cluster.client(other_device, 1).await;
    let mut bare = cluster.raw(&users[2], 0, Codec::Msgpack).await;
    let mut pulse = cluster.raw(&users[3], 1, Codec::Json).await;
    let insight = Insight::of(&cluster).await;
    let mut from_pulse = Vec::new();

    // Whoever holds the partition is one of the two that freeze.
    for round in 0..2 {
        for who in 0..2 {
            let said = format!("while channel {who} is frozen {round}");
            let goes_on = async {
                // It takes 2 s of lease and the warm standby.
                let id = eventually_within("sends go on", LONG, async || {
                    pulse.send_text(&group, &said).await.map_err(|e| e.message)
                })
                .await;
                from_pulse.push(id);
                within("what is sent is shown", LONG, until_event(&mut pulse, id)).await;
            };
            let (sent, ()) = tokio::join!(
                write(&a, &mut a_events, &group, format!("a {round}{who}"), 40),
                frozen_while(cluster.channel(who), goes_on)
            );
            from_pulse.extend(sent);
            let archived = async { within("the archive goes on", LONG, insight.archived()).await };
            let (sent, ()) = tokio::join!(
                write(&b, &mut b_events, &group, format!("b {round}{who}"), 40),
                frozen_while(cluster.persister(who), archived)
            );
            from_pulse.extend(sent);
        }
    }
    let n = from_pulse.len();
    let last = pulse.send_text(&group, "the last").await.unwrap();
    from_pulse.push(last);
    from_pulse.sort();
    let seen = see(&mut c_events, &group, n + 1).await;
    // The bare socket: `seen_until` insists on order and on nothing twice.
    let of_bare = seen_until(&mut bare, "the last").await;
    let of_bare: Vec<MsgId> = of_bare.iter().filter(|e| e.kind == Kind::Text).map(|e| e.id).collect();
    insight.archived().await;
    let apis = [cluster.api(&users[0], 0), cluster.api(&users[1], 1)];
    one_order(&apis, &group, &[seen, of_bare], &[from_pulse]).await;
    // And from the archive alone, the log forgotten.
    let kv = insight.group(&group).await.unwrap();
    assert_eq!(insight.rebuilt_group(&group).await, kv);
    for client in [a, b, c] {
        client.close().await;
    }
    all_well(&cluster);
}

async fn until_event(ws: &mut RawWs, id: MsgId) {
    loop {
        match ws.next_within(LONG).await {
            Received::Frame(ServerFrame::Event(e)) if e.id >= id => return,
            Received::Closed(code, why) => panic!("closed with {code} {why:?}"),
            _ => {}
        }
    }
}
