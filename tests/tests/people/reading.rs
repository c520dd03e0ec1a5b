//! What somebody has read: on all of their devices, over all edges, through what dies (P5).

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use natterjack_client::ClientEvent;
use natterjack_protocol::{
    Body, Code, Kind, MsgId, Thread,
    client::frame::{Acknowledged, ClientFrame, Hello, SendMessage, ServerFrame},
    codec::Codec,
    limits::{CURSORS_PER_HELLO, UNREAD_MAX},
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{
    Api, Cluster, ClusterSpec, RawWs,
    counters::{counter, sum_of},
    next_event,
    witness::heavy,
};
use serde_json::json;

use super::common::{Insight, LONG, SOON, add, all_well, good, leave, new_group, refused, seen_until};

const WRITES: &str = "natterjack_edge_cursor_writes_total";

pub fn ack(read: &[(&Thread, MsgId)]) -> ClientFrame {
    let read = read.iter().map(|(thread, id)| ((*thread).clone(), *id)).collect();
    ClientFrame::Ack(Acknowledged { got: BTreeMap::new(), read })
}

/// Read and unread in a thread, as the list says.
pub async fn listed(api: &Api, thread: &Thread) -> (MsgId, u64) {
    row_of(api, thread).await.expect("the thread is in the list")
}

async fn row_of(api: &Api, thread: &Thread) -> Option<(MsgId, u64)> {
    let list = good(api.get("/v1/threads").await);
    let row = list["threads"].as_array().unwrap().iter().find(|t| t["thread"] == json!(thread))?;
    Some((serde_json::from_value(row["read"].clone()).unwrap(), row["unread"].as_u64().unwrap()))
}

pub async fn becomes(api: &Api, thread: &Thread, want: (MsgId, u64)) {
    eventually_within("the list says what was read", SOON, async || {
        // The channel folds the beginning of a conversation in a moment.
        let is = row_of(api, thread).await;
        if is == Some(want) { Ok(()) } else { Err(format!("{is:?}, not {want:?}")) }
    })
    .await;
}

pub async fn told_read(ws: &mut RawWs, thread: &Thread, id: MsgId) {
    ws.until("what was read", |f| match f {
        ServerFrame::Read { threads } if threads.get(thread) == Some(&id) => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_on_one_device_is_read_on_all() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob, eve) = (cluster.user("alice").await, cluster.user("bob").await, cluster.user("eve").await);
    let desk = alice.log_in(&cluster, 1).await;
    let (dm, foreign) = (alice.dm(&bob), bob.dm(&eve));
    let mut b = cluster.raw(&bob, 0, Codec::Json).await;
    b.send_text(&foreign, "not for alice").await.unwrap();
    let mut phone = cluster.raw(&alice, 0, Codec::Json).await;
    let mut other = RawWs::connect(cluster.edge_addr(1), Codec::Msgpack).await;
    let synced = other.hello(&desk).await;
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        ids.push(b.send_text(&dm, text).await.unwrap());
        seen_until(&mut phone, text).await;
    }
    let (at_phone, at_desk) = (cluster.api(&alice, 0), cluster.api(&desk, 1));
    assert_eq!(listed(&at_phone, &dm).await, (MsgId::NONE, 3));
    assert_eq!(listed(&cluster.api(&bob, 0), &dm).await, (MsgId::NONE, 0), "their own");

    phone.send(&ack(&[(&dm, ids[1])])).await;
    told_read(&mut phone, &dm, ids[1]).await;
    told_read(&mut other, &dm, ids[1]).await;
    assert_eq!((listed(&at_desk, &dm).await, listed(&at_phone, &dm).await), ((ids[1], 1), (ids[1], 1)));
    // Back in time, and of a thread that is not theirs: the rest is taken.
    other.send(&ack(&[(&dm, ids[0]), (&foreign, ids[2])])).await;
    let refusal = other
        .until("a refusal", |f| if let ServerFrame::Error { r: None, refusal } = f { Some(refusal) } else { None });
    let refusal = refusal.await;
    assert_eq!((refusal.code, refusal.thread), (Code::NotMember, Some(foreign.clone())));
    told_read(&mut phone, &dm, ids[0]).await;
    assert_eq!(listed(&at_desk, &dm).await, (ids[1], 1));
    refused(at_desk.post("/v1/ack", &json!({ "read": { foreign.to_string(): 5 } })).await, Code::NotMember);
    let back = good(at_desk.post("/v1/ack", &json!({ "read": { dm.to_string(): ids[0] } })).await);
    assert_eq!(back["read"][dm.to_string()], json!(ids[1]), "it never goes back");

    // Ahead of the log: what is said next is unread all the same.
    let far = good(at_phone.post("/v1/ack", &json!({ "read": { dm.to_string(): (1_u64 << 53) - 1 } })).await);
    assert!(far["read"][dm.to_string()].as_u64().unwrap() < 1 << 52, "{far}");
    assert_eq!(listed(&at_phone, &dm).await, (ids[2], 0));
    let fourth = b.send_text(&dm, "four").await.unwrap();
    seen_until(&mut phone, "four").await;
    assert_eq!(listed(&at_phone, &dm).await, (ids[2], 1));

    // Who was away is told when they come back.
    drop(other);
    phone.send(&ack(&[(&dm, fourth)])).await;
    told_read(&mut phone, &dm, fourth).await;
    let mut other = RawWs::connect(cluster.edge_addr(0), Codec::Json).await;
    let hello = Hello::new(desk.tokens.access.clone(), desk.tokens.device.clone());
    other.hello_with(Hello { synced: Some(synced), ..hello }).await;
    let told = |f: &ServerFrame| matches!(f, ServerFrame::Read { threads } if threads.get(&dm) == Some(&fourth));
    assert!(other.passed_over.iter().any(told), "{:?}", other.passed_over);

    let many: BTreeMap<String, u64> = (0..=CURSORS_PER_HELLO).map(|n| (format!("group.g{n}"), 5)).collect();
    refused(at_desk.post("/v1/ack", &json!({ "got": many })).await, Code::Invalid);
    all_well(&cluster);
}

/// What counts as unread, and what the list shows of a thread in which people react, recall, leave and come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_is_what_others_said_and_did_not_take_back() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let (api, owner) = (cluster.api(&alice, 0), cluster.api(&bob, 0));
    let group = new_group(&owner, "readers", std::slice::from_ref(&alice)).await;
    let mut b = cluster.raw(&bob, 0, Codec::Msgpack).await;
    let mut a = cluster.raw(&alice, 1, Codec::Msgpack).await;
    let first = b.send_text(&group, "first").await.unwrap();
    let wrong = b.send_text(&group, "wrong").await.unwrap();
    seen_until(&mut a, "wrong").await;
    a.send_text(&group, "from alice").await.unwrap();
    assert_eq!(listed(&api, &group).await.1, 2);
    let op = |r, kind, target, emoji: Option<&str>| {
        let body = Body { target: Some(target), emoji: emoji.map(str::to_owned), ..Body::default() };
        ClientFrame::Send(SendMessage { r, cid: b.cid(), thread: group.clone(), kind, body, behind: None })
    };
    let recall = op(1, Kind::Recall, wrong, None);
    let reactions: Vec<_> = (2..105).map(|r| op(r, Kind::Reaction, first, Some("👍"))).collect();
    b.send(&recall).await;
    for some in reactions.chunks(50) {
        b.send_together(some).await;
        for _ in some {
            b.until("sent", |f| matches!(f, ServerFrame::Sent { .. }).then_some(())).await;
        }
    }
    // The message lies below 103 reactions and is the last one all the same.
    let list = good(api.get("/v1/threads").await);
    assert_eq!(list["threads"][0]["last"]["body"]["text"], json!("from alice"), "{list}");
    becomes(&api, &group, (MsgId::NONE, 1)).await;

    good(leave(&api, &group).await);
    b.send_text(&group, "behind her back").await.unwrap();
    good(add(&owner, &group, &alice).await);
    let again = b.send_text(&group, "welcome back").await.unwrap();
    seen_until(&mut a, "welcome back").await;
    assert_eq!(listed(&api, &group).await.1, 2, "what was said while she was out is not hers");
    a.send(&ack(&[(&group, again)])).await;
    becomes(&api, &group, (again, 0)).await;

    for n in 0..u32::from(UNREAD_MAX) + 5 {
        b.send_text(&group, &format!("flood {n}")).await.unwrap();
    }
    becomes(&api, &group, (again, u64::from(UNREAD_MAX))).await;
    all_well(&cluster);
}

/// Two devices read different threads in the same instant on two edges, again and again: nothing of either is lost. And
/// whoever says it a thousand times is written a few times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_devices_that_read_at_once_lose_nothing_of_each_other() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob, carol) = (cluster.user("alice").await, cluster.user("bob").await, cluster.user("carol").await);
    let rounds = if heavy() { 1_000 } else { 150 };
    let threads = [alice.dm(&bob), alice.dm(&carol)];
    let mut ids = Vec::new();
    for (user, thread) in [&bob, &carol].into_iter().zip(&threads) {
        let mut ws = cluster.raw(user, 0, Codec::Msgpack).await;
        let mut of = Vec::new();
        for n in 0..rounds {
            of.push(ws.send_text(thread, &n.to_string()).await.unwrap());
        }
        ids.push(of);
    }
    let apis = [cluster.api(&alice, 0), cluster.api(&alice.log_in(&cluster, 1).await, 1)];
    let keys = Insight::of(&cluster).await;
    for n in 0..rounds {
        let said = apis.iter().zip(&threads).zip(&ids).map(|((api, thread), ids)| async move {
            let answer = good(api.post("/v1/ack", &json!({ "read": { thread.to_string(): ids[n] } })).await);
            assert_eq!(answer["read"][thread.to_string()], json!(ids[n]));
        });
        join_all(said).await;
        let stored = keys.buckets.cursors(alice.id()).load().await.unwrap().unwrap();
        assert_eq!(threads.each_ref().map(|t| stored.read(t)), [ids[0][n], ids[1][n]], "round {n}");
    }

    let mut ws = cluster.raw(&alice, 0, Codec::Json).await;
    let last = {
        let mut b = cluster.raw(&bob, 1, Codec::Json).await;
        let mut last = MsgId::NONE;
        for n in 0..20 {
            last = b.send_text(&threads[0], &format!("more {n}")).await.unwrap();
        }
        last
    };
    seen_until(&mut ws, "more 19").await;
    let before = counter(&cluster, 0, WRITES).await;
    for n in (0..1_500_u64).rev() {
        ws.send(&ack(&[(&threads[0], MsgId(last.0 - n / 100))])).await;
    }
    told_read(&mut ws, &threads[0], last).await;
    let written = counter(&cluster, 0, WRITES).await - before;
    assert!((1.0..8.0).contains(&written), "{written} writes for 1,500 frames");
    all_well(&cluster);
}

/// The edge that heard it dies before it has written it; then the key is lost, twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_survives_an_edge_and_its_bucket() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let dm = alice.dm(&bob);
    let edges = [cluster.edge_url(0), cluster.edge_url(1)];
    let (client, mut events) = alice.builder(edges.clone()).connect().await.unwrap();
    let connected = |e| if let ClientEvent::Connected { edge } = e { Some(edge) } else { None };
    let edge = next_event(&mut events, "connected", SOON, connected).await;
    let (here, there) = if edge == edges[0] { (0, 1) } else { (1, 0) };
    next_event(&mut events, "attached", SOON, |e| matches!(e, ClientEvent::Attached).then_some(())).await;
    let mut b = cluster.raw(&bob, there, Codec::Json).await;
    let id = b.send_text(&dm, "hello").await.unwrap();
    next_event(&mut events, "a message", SOON, |e| matches!(e, ClientEvent::Message(_)).then_some(())).await;
    client.read(dm.clone(), id).await.unwrap();
    cluster.edge(here).kill9().await;
    let read = next_event(&mut events, "it is stored", LONG, |e| match e {
        ClientEvent::Read { thread, id } => Some((thread, id)),
        _ => None,
    });
    assert_eq!(read.await, (dm.clone(), id));
    let api = cluster.api(&alice, there);
    assert_eq!(listed(&api, &dm).await, (id, 0));

    let copied = async || {
        eventually_within("the archive has it", SOON, async || {
            let metrics = cluster.persister_metrics().await;
            if sum_of(&metrics, "natterjack_persister_cursors_copied_total") > 0.0 {
                Ok(())
            } else {
                Err("nothing yet")
            }
        })
        .await;
        // The copier fetches once a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    copied().await;
    let keys = Insight::of(&cluster).await;
    keys.buckets.cursors(alice.id()).delete().await.unwrap();
    assert_eq!(listed(&api, &dm).await, (id, 0), "restored from the archive");
    let second = b.send_text(&dm, "and again").await.unwrap();
    keys.buckets.cursors(alice.id()).delete().await.unwrap();
    client.read(dm.clone(), second).await.unwrap();
    next_event(&mut events, "it is stored, too", LONG, |e| match e {
        ClientEvent::Read { id, .. } if id == second => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(listed(&api, &dm).await, (second, 0));
    client.close().await;
    all_well_but_the_killed(&cluster);
}

fn all_well_but_the_killed(cluster: &Cluster) {
    for p in cluster.processes() {
        assert!(!p.log().contains("panicked at"), "{} has panicked:\n{}", p.name(), p.log_tail(40));
    }
}
