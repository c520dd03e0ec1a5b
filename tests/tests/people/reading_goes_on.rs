//! Reading while what it stands on changes: the log goes on with another number of partitions, and all keys of users
//! are lost.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use natterjack_client::ClientEvent;
use natterjack_nats::{Layout, provision, subjects};
use natterjack_protocol::{
    Body, Kind, MsgId, Thread, Times,
    client::frame::{ClientFrame, Hello, SendMessage, ServerFrame},
    codec::Codec,
};
use natterjack_testkit::{eventually_within, raw_jetstream};
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, RawWs, User, counters::sum_of};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    common::{Insight, LONG, SOON, all_well, good, new_group},
    reading::{becomes, listed},
};

/// Messages before and after what happens.
const SOME: usize = 30;

type Last = BTreeMap<Thread, MsgId>;

/// A device that reads every other message, until it was told of all that its user has read: what it was told last.
fn reader(user: &User, edge: String, nth: usize, mut last: watch::Receiver<Option<Last>>) -> JoinHandle<Last> {
    let connecting = user.builder([edge]).connect();
    tokio::spawn(async move {
        let (client, mut events) = connecting.await.unwrap();
        let mut told = Last::new();
        loop {
            let all = last.borrow().as_ref().is_some_and(|last| last.iter().all(|(t, id)| told.get(t) >= Some(id)));
            if all {
                client.close().await;
                return told;
            }
            let event = tokio::select! {
                event = events.next() => event.expect("the client goes on"),
                _ = last.changed() => continue,
            };
            match event {
                ClientEvent::Message(m) => {
                    let n = m.body.text.as_deref().and_then(|text| text.parse::<usize>().ok());
                    if n.is_some_and(|n| n / 2 % 2 == nth) {
                        client.read(m.thread, m.id).await.unwrap();
                    }
                }
                ClientEvent::Read { thread, id } => {
                    let before = told.insert(thread.clone(), id);
                    assert!(before <= Some(id), "what is read in {thread} went back from {before:?} to {id}");
                }
                _ => {}
            }
        }
    })
}

/// Bob writes and alice's two devices, on two edges, read while `it` happens: the last message of each thread.
async fn while_they_read(
    cluster: &Cluster,
    devices: [&User; 2],
    by: &User,
    threads: [&Thread; 2],
    it: impl Future<Output = ()>,
) -> Last {
    let (tell, told) = watch::channel(None);
    let readers = [0, 1].map(|n| reader(devices[n], cluster.edge_url(n), n, told.clone()));
    let (client, mut events) = by.builder([cluster.edge_url(0), cluster.edge_url(1)]).connect().await.unwrap();
    let drained = tokio::spawn(async move { while events.next().await.is_some() {} });
    let (sent, happened) = (AtomicUsize::new(0), AtomicBool::new(false));
    let writing = async {
        let (mut last, mut rest) = (Last::new(), SOME);
        for n in 0.. {
            let thread = threads[n % 2];
            let (_, id) = client.send_and_wait(thread.clone(), Kind::Text, Body::text(n.to_string())).await.unwrap();
            last.insert(thread.clone(), id);
            sent.fetch_add(1, Ordering::Relaxed);
            rest -= usize::from(happened.load(Ordering::Relaxed));
            if rest == 0 {
                break;
            }
        }
        last
    };
    let meanwhile = async {
        eventually_within("they write", SOON, async || sent.load(Ordering::Relaxed) >= SOME).await;
        it.await;
        happened.store(true, Ordering::Relaxed);
    };
    let (last, ()) = tokio::join!(writing, meanwhile);
    tell.send_replace(Some(last.clone()));
    for reader in readers {
        let told = tokio::time::timeout(LONG, reader).await.expect("all of it is read").unwrap();
        assert!(last.iter().all(|(thread, id)| told[thread] == *id), "{told:?}, not {last:?}");
    }
    client.close().await;
    drained.await.unwrap();
    last
}

/// Alice with two devices, each at an edge of its own, bob, who writes to her and a group, and carol, who does not.
struct World {
    cluster: Cluster,
    alice: User,
    desk: User,
    bob: User,
    carol: User,
    group: Thread,
    dm: Thread,
    quiet: Thread,
    apis: [Api; 2],
}

async fn world() -> World {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob, carol) = (cluster.user("alice").await, cluster.user("bob").await, cluster.user("carol").await);
    let desk = alice.log_in(&cluster, 1).await;
    let group = new_group(&cluster.api(&bob, 0), "readers", &[alice.clone(), carol.clone()]).await;
    let (dm, quiet) = (alice.dm(&bob), alice.dm(&carol));
    let apis = [cluster.api(&alice, 0), cluster.api(&desk, 1)];
    World { cluster, alice, desk, bob, carol, group, dm, quiet, apis }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_and_listed_goes_on_with_another_number_of_partitions() {
    let World { cluster, alice, desk, bob, carol, group, dm, quiet, apis } = world().await;
    let mut c = cluster.raw(&carol, 1, Codec::Json).await;
    let early = c.send_text(&quiet, "early").await.unwrap();
    let wrong = c.send_text(&quiet, "wrong").await.unwrap();
    becomes(&apis[0], &quiet, (MsgId::NONE, 2)).await;
    good(apis[0].patch(&format!("/v1/threads/{quiet}/settings"), &json!({ "pinned": true })).await);
    let mark = good(apis[0].get("/v1/threads").await)["synced"].as_str().unwrap().to_owned();
    let mut away = RawWs::connect(cluster.edge_addr(1), Codec::Msgpack).await;
    let synced = away.hello(&desk).await;
    drop(away);

    let switch = async { cluster.switch(3).await.unwrap() };
    let last = while_they_read(&cluster, [&alice, &desk], &bob, [&dm, &group], switch).await;
    assert!(last.len() == 2 && Layout::load(&cluster.connect_nats().await).await.unwrap().generation == 2);

    // What lies in the former log is listed and counted as before, and with what comes in the new one.
    for api in &apis {
        for (thread, id) in &last {
            becomes(api, thread, (*id, 0)).await;
        }
        assert_eq!(listed(api, &quiet).await, (MsgId::NONE, 2));
        let rows = good(api.get("/v1/threads").await)["threads"].take();
        assert_eq!((&rows[0]["thread"], &rows[0]["last"]["body"]["text"]), (&json!(quiet), &json!("wrong")), "{rows}");
        assert_eq!(rows[0]["settings"]["pinned"], json!(true));
    }
    let mut c = cluster.raw(&carol, 0, Codec::Json).await;
    let body = Body { target: Some(wrong), ..Body::default() };
    let recall = SendMessage { r: 1, cid: c.cid(), thread: quiet.clone(), kind: Kind::Recall, body, behind: None };
    c.send(&ClientFrame::Send(recall)).await;
    c.until("sent", |f| matches!(f, ServerFrame::Sent { .. }).then_some(())).await;
    becomes(&apis[1], &quiet, (MsgId::NONE, 1)).await;
    let late = c.send_text(&quiet, "late").await.unwrap();
    becomes(&apis[0], &quiet, (MsgId::NONE, 2)).await;
    good(apis[1].post("/v1/ack", &json!({ "read": { quiet.to_string(): early } })).await);
    becomes(&apis[0], &quiet, (early, 1)).await;
    let state = async |id: MsgId| {
        let path = format!("/v1/threads/{quiet}/messages/{id}/receipts");
        good(cluster.api(&carol, 1).get(&path).await)["users"][0]["state"].as_str().unwrap().to_owned()
    };
    assert_eq!((state(early).await, state(late).await), ("read".to_owned(), "sent".to_owned()));

    // What a client kept of the former one is understood as far as it can be: nothing that changed is left out.
    let since = good(apis[0].get(&format!("/v1/threads?since={mark}")).await);
    for thread in [&dm, &group, &quiet] {
        assert!(since["threads"].as_array().unwrap().iter().any(|t| t["thread"] == json!(thread)), "{since}");
    }
    let mut back = RawWs::connect(cluster.edge_addr(0), Codec::Msgpack).await;
    let hello = Hello::new(desk.tokens.access.clone(), desk.tokens.device.clone());
    back.hello_with(Hello { synced: Some(synced), cursors: [(quiet.clone(), wrong)].into(), ..hello }).await;
    for (thread, id) in &last {
        let told = |f: &ServerFrame| matches!(f, ServerFrame::Read { threads } if threads.get(thread) == Some(id));
        assert!(back.passed_over.iter().any(told), "{:?}", back.passed_over);
    }
    all_well(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_survives_all_keys_of_users_under_load() {
    let World { cluster, alice, desk, bob, carol, group, dm, quiet, apis } = world().await;
    let mut c = cluster.raw(&carol, 1, Codec::Json).await;
    let first = c.send_text(&quiet, "first").await.unwrap();
    c.send_text(&quiet, "second").await.unwrap();
    becomes(&apis[0], &quiet, (MsgId::NONE, 2)).await;
    good(apis[0].post("/v1/ack", &json!({ "read": { quiet.to_string(): first } })).await);
    good(apis[0].patch(&format!("/v1/threads/{quiet}/settings"), &json!({ "pinned": true })).await);
    let copied = async |more: f64| {
        eventually_within("the archive has it", SOON, async || {
            let is = sum_of(&cluster.persister_metrics().await, "natterjack_persister_cursors_copied_total");
            if is >= more { Ok(()) } else { Err(is) }
        })
        .await;
        // The copier fetches once a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        sum_of(&cluster.persister_metrics().await, "natterjack_persister_cursors_copied_total")
    };
    copied(1.0).await;

    let nats = cluster.connect_nats().await;
    let lost = async {
        let jetstream = raw_jetstream(&nats).await;
        for shard in 0..Layout::load(&nats).await.unwrap().kv_shards {
            jetstream.delete_stream(format!("KV_{}", subjects::users_bucket(shard))).await.unwrap();
        }
        provision(&nats, &cluster.nats_config(), &Times::default()).await.unwrap();
    };
    let last = while_they_read(&cluster, [&alice, &desk], &bob, [&dm, &group], Box::pin(lost)).await;
    for api in &apis {
        for (thread, id) in &last {
            becomes(api, thread, (*id, 0)).await;
        }
        assert_eq!(listed(api, &quiet).await, (first, 1));
        let rows = good(api.get("/v1/threads").await)["threads"].take();
        assert_eq!((&rows[0]["thread"], &rows[0]["settings"]["pinned"]), (&json!(quiet), &json!(true)), "{rows}");
    }

    // The copy in the archive goes on with the new buckets.
    let so_far = copied(0.0).await;
    let third = c.send_text(&quiet, "third").await.unwrap();
    good(apis[0].post("/v1/ack", &json!({ "read": { quiet.to_string(): third } })).await);
    copied(so_far + 1.0).await;
    Insight::of(&cluster).await.buckets.cursors(alice.id()).delete().await.unwrap();
    assert_eq!(listed(&apis[1], &quiet).await, (third, 0), "restored from the archive");
    all_well(&cluster);
}
