//! The list of threads: what is set for them on all devices, its order and pages, what has changed since, and somebody
//! with very many.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use natterjack_client::OutboxStore;
use natterjack_protocol::{
    Code, MsgId, Thread, Token,
    client::{
        frame::{ClientFrame, Hello, ReadAllQuery, ServerFrame, SetThread, ThreadSummary},
        thread_settings::{SettingsChange, ThreadSettings},
    },
    codec::Codec,
    limits,
    log::{
        Intervals,
        fold::{ThreadItem, UserThreads},
    },
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, RawWs, User, counters::sum_of, next_event};
use serde_json::{Value, json};

use super::{
    common::{Insight, LONG, SOON, all_well, good, new_group, refused, seen_until},
    reading::{ack, told_read},
};

/// The default of a list.
async fn list(api: &Api, query: &str) -> Vec<ThreadSummary> {
    serde_json::from_value(good(api.get(&format!("/v1/threads{query}")).await)["threads"].take()).unwrap()
}

async fn settings(api: &Api, thread: &Thread) -> ThreadSettings {
    let both = [list(api, "").await, list(api, "?archived=true").await].concat();
    both.into_iter().find(|t| t.thread == *thread).unwrap().settings.unwrap()
}

fn names(list: &[ThreadSummary]) -> Vec<Thread> {
    list.iter().map(|t| t.thread.clone()).collect()
}

async fn set(api: &Api, thread: &Thread, change: Value) -> (u16, Value) {
    api.patch(&format!("/v1/threads/{thread}/settings"), &change).await
}

async fn told_set(ws: &mut RawWs, of: &Thread, fits: impl Fn(&ThreadSettings) -> bool) -> ThreadSettings {
    ws.until("what was set", |f| match f {
        ServerFrame::ThreadSettings { r: None, thread, settings } if thread == *of && fits(&settings) => Some(settings),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_on_one_device_is_set_on_all() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob, carol) = (cluster.user("alice").await, cluster.user("bob").await, cluster.user("carol").await);
    let desk = alice.log_in(&cluster, 1).await;
    let (with_bob, with_carol, foreign) = (alice.dm(&bob), alice.dm(&carol), bob.dm(&carol));
    let mut b = cluster.raw(&bob, 0, Codec::Json).await;
    let mut c = cluster.raw(&carol, 1, Codec::Json).await;
    let first = b.send_text(&with_bob, "from bob").await.unwrap();
    b.send_text(&foreign, "not for alice").await.unwrap();
    c.send_text(&with_carol, "from carol").await.unwrap();
    let mut phone = cluster.raw(&alice, 0, Codec::Json).await;
    let mut other = RawWs::connect(cluster.edge_addr(1), Codec::Msgpack).await;
    let synced = other.hello(&desk).await;
    let (at_phone, at_desk) = (cluster.api(&alice, 0), cluster.api(&desk, 1));
    assert_eq!(names(&list(&at_desk, "").await), [with_carol.clone(), with_bob.clone()]);

    // Over the socket, answered, and told to the other device.
    let pin = SettingsChange { pinned: Some(true), ..SettingsChange::default() };
    phone.send(&ClientFrame::SetThread(SetThread { r: 7, thread: with_bob.clone(), set: pin })).await;
    let answer = phone
        .until("an answer", |f| match f {
            ServerFrame::ThreadSettings { r: Some(7), settings, .. } => Some(settings),
            _ => None,
        })
        .await;
    assert!(answer.pinned);
    assert_eq!(told_set(&mut other, &with_bob, |s| s.pinned).await, answer);
    assert_eq!(names(&list(&at_desk, "").await), [with_bob.clone(), with_carol.clone()], "before what is newer");
    // Each changes what the other left.
    good(set(&at_desk, &with_bob, json!({ "muted_until": limits::NUMBER_MAX })).await);
    let both = told_set(&mut phone, &with_bob, |s| s.muted_until > 0).await;
    assert!(both.pinned && both.is_muted(u64::MAX >> 12));
    assert_eq!(settings(&at_phone, &with_bob).await, both);

    // Archived: out of the one list, in the other, also when somebody writes.
    good(set(&at_desk, &with_carol, json!({ "archived": true })).await);
    c.send_text(&with_carol, "are you there?").await.unwrap();
    assert_eq!(names(&list(&at_phone, "").await), std::slice::from_ref(&with_bob));
    assert_eq!(names(&list(&at_phone, "?archived=true").await), std::slice::from_ref(&with_carol));
    good(set(&at_desk, &with_carol, json!({ "archived": false })).await);
    assert_eq!(names(&list(&at_phone, "").await).len(), 2);

    // Marked unread, until something more is read; or until that is taken back.
    phone.send(&ack(&[(&with_bob, first)])).await;
    told_read(&mut phone, &with_bob, first).await;
    good(set(&at_phone, &with_bob, json!({ "unread": true })).await);
    let row = |list: Vec<ThreadSummary>| list.into_iter().find(|t| t.thread == with_bob).unwrap();
    let marked = row(list(&at_desk, "").await);
    assert_eq!((marked.unread, marked.settings.unwrap().unread), (Some(0), true));
    let second = b.send_text(&with_bob, "and?").await.unwrap();
    seen_until(&mut phone, "and?").await;
    phone.send(&ack(&[(&with_bob, second)])).await;
    told_read(&mut phone, &with_bob, second).await;
    assert!(!settings(&at_desk, &with_bob).await.unread);

    // A draft goes on elsewhere; whoever was away is told, with what else was set.
    drop(other);
    let text = "ä".repeat(limits::TEXT_CHARS);
    good(set(&at_phone, &with_bob, json!({ "draft": text })).await);
    let mut other = RawWs::connect(cluster.edge_addr(0), Codec::Json).await;
    let hello = Hello::new(desk.tokens.access.clone(), desk.tokens.device.clone());
    other.hello_with(Hello { synced: Some(synced), ..hello }).await;
    let told = other.passed_over.iter().find_map(|f| match f {
        ServerFrame::ThreadSettings { thread, settings, .. } if *thread == with_bob => Some(settings.clone()),
        _ => None,
    });
    assert_eq!(told.unwrap().draft.as_ref(), Some(&text));
    assert_eq!(settings(&at_desk, &with_bob).await.draft, Some(text));
    good(set(&at_desk, &with_bob, json!({ "draft": "" })).await);
    assert_eq!(settings(&at_phone, &with_bob).await.draft, None);

    // Everything read, and no mark left.
    good(set(&at_phone, &with_bob, json!({ "unread": true })).await);
    phone.send(&ClientFrame::ReadAll(ReadAllQuery { r: 9 })).await;
    phone.until("all is read", |f| matches!(f, ServerFrame::Ok { r: 9 }).then_some(())).await;
    let all = list(&at_desk, "").await;
    assert!(all.iter().all(|t| t.unread == Some(0) && !t.settings.as_ref().unwrap().unread), "{all:?}");
    assert_eq!(good(at_desk.post("/v1/threads/read", &json!({})).await), json!({ "threads": 0 }));

    refused(set(&at_desk, &foreign, json!({ "pinned": true })).await, Code::NotMember);
    refused(set(&at_desk, &with_bob, json!({})).await, Code::Invalid);
    refused(set(&at_desk, &with_bob, json!({ "muted_until": limits::NUMBER_MAX + 1 })).await, Code::BadFrame);
    refused(set(&at_desk, &with_bob, json!({ "draft": "x".repeat(limits::TEXT_CHARS + 1) })).await, Code::Invalid);
    refused(set(&at_desk, &with_bob, json!({ "pinned": "yes" })).await, Code::BadFrame);

    // The bucket forgets her: what is set comes back from the archive.
    eventually_within("the archive has it", SOON, async || {
        let metrics = cluster.persister_metrics().await;
        let copied = sum_of(&metrics, "natterjack_persister_cursors_copied_total");
        if copied > 0.0 { Ok(()) } else { Err("nothing yet") }
    })
    .await;
    // The copier fetches once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Insight::of(&cluster).await.buckets.cursors(alice.id()).delete().await.unwrap();
    let restored = settings(&at_desk, &with_bob).await;
    assert!(restored.pinned && restored.muted_until == limits::NUMBER_MAX, "{restored:?}");
    all_well(&cluster);
}

/// Conversations with people of whom only their ids are known.
fn conversations(of: &User, count: usize) -> UserThreads {
    let item = || {
        let mut intervals = Intervals::default();
        intervals.enter(MsgId(7));
        ThreadItem { v: MsgId(7), intervals, ..ThreadItem::default() }
    };
    (0..count).map(|_| (Thread::dm(of.id(), &Token::mint('u', rand::random())), item())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_threads_are_a_short_list_and_later_only_what_has_changed() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(64).await;
    let (alice, others) = users.split_first().unwrap();
    let insight = Insight::of(&cluster).await;
    insight.buckets.threads(alice.id()).merge(conversations(alice, 2_000 - others.len() - 1)).await.unwrap();
    let long = "ö".repeat(2_000);
    for other in others {
        let mut ws = cluster.raw(other, 0, Codec::Msgpack).await;
        ws.send_text(&alice.dm(other), &long).await.unwrap();
    }
    let group = new_group(&cluster.api(alice, 0), "two", &others[..2]).await;
    let api = cluster.api(alice, 1);
    // The channel folds the last conversations in a moment.
    eventually_within("all of them are there", SOON, async || {
        let there = insight.buckets.threads(alice.id()).load().await.unwrap().unwrap().threads.len();
        if there == 2_000 { Ok(()) } else { Err(there) }
    })
    .await;
    let first = good(api.get("/v1/threads").await);
    assert!(first.to_string().len() <= 64 * 1024, "{} bytes", first.to_string().len());
    let rows: Vec<ThreadSummary> = serde_json::from_value(first["threads"].clone()).unwrap();
    assert_eq!((rows.len(), &rows[0].thread), (limits::PAGE_DEFAULT, &group));
    assert!(rows.is_sorted_by(|a, b| a.active >= b.active));
    let shown = rows[1].last.as_ref().unwrap().body.text.as_ref().unwrap();
    assert_eq!((shown.chars().count(), rows[1].cut, rows[1].unread), (limits::PREVIEW_CHARS, true, Some(1)));

    // All pages, each thread once.
    let (mut seen, mut page) = (HashSet::new(), first.clone());
    loop {
        let rows: Vec<ThreadSummary> = serde_json::from_value(page["threads"].take()).unwrap();
        rows.into_iter().for_each(|t| assert!(seen.insert(t.thread.clone()), "{} twice", t.thread));
        let Some(next) = page["next"].as_u64() else { break };
        page = good(api.get(&format!("/v1/threads?limit=200&before={next}")).await);
    }
    assert_eq!(seen.len(), 2_000);

    // A mark is of some seconds ago, and of a minute for what was read: what changes then is all there is.
    let settled = async {
        // The log went on behind the first list.
        tokio::time::sleep(Duration::from_secs(6)).await;
        good(api.get("/v1/threads?limit=1").await);
        // And behind the second one.
        tokio::time::sleep(Duration::from_secs(6)).await;
        good(api.get("/v1/threads?limit=1").await)["synced"].as_str().unwrap().to_owned()
    };
    let synced = settled.await;
    let changed = async || {
        let list = good(api.get(&format!("/v1/threads?since={synced}")).await);
        let rows: Vec<ThreadSummary> = serde_json::from_value(list["threads"].clone()).unwrap();
        assert!(list["next"].is_null());
        rows.into_iter().map(|t| t.thread).collect::<HashSet<_>>()
    };
    assert_eq!(changed().await, HashSet::new());
    let mut ws = cluster.raw(&others[9], 0, Codec::Json).await;
    ws.send_text(&alice.dm(&others[9]), "news").await.unwrap();
    good(set(&api, &alice.dm(&others[10]), json!({ "pinned": true })).await);
    let newest = rows.iter().find(|t| t.thread == alice.dm(&others[40])).unwrap().last.clone().unwrap();
    good(api.post("/v1/ack", &json!({ "read": { newest.thread.to_string(): newest.id } })).await);
    let want: HashSet<Thread> = [9, 10, 40].map(|n| alice.dm(&others[n])).into();
    eventually_within("what has changed is told", SOON, async || {
        let is = changed().await;
        if is == want { Ok(()) } else { Err(format!("{is:?}")) }
    })
    .await;
    let all = good(api.get("/v1/threads?since=nonsense").await);
    assert!(all["next"].is_u64() && all["threads"].as_array().unwrap().len() == limits::PAGE_DEFAULT, "it means all");

    // As many are pinned as may be.
    for other in &others[11..11 + limits::PINNED_THREADS - 1] {
        good(set(&api, &alice.dm(other), json!({ "pinned": true })).await);
    }
    refused(set(&api, &group, json!({ "pinned": true })).await, Code::LimitReached);
    good(set(&api, &alice.dm(&others[11]), json!({ "pinned": true })).await);
    good(set(&api, &alice.dm(&others[11]), json!({ "pinned": false })).await);
    good(set(&api, &group, json!({ "pinned": true })).await);
    assert!(list(&api, "").await.iter().all(|t| t.settings.as_ref().unwrap().pinned));
    all_well(&cluster);
}

/// More than one value of KV holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_with_fifty_thousand_conversations_chats() {
    const MANY: usize = 50_000;
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(3).await;
    let [alice, bob, carol] = &users[..] else { unreachable!() };
    let insight = Insight::of(&cluster).await;
    insight.buckets.threads(alice.id()).merge(conversations(alice, MANY)).await.unwrap();
    // A conversation begins, by her and with her.
    let mut a = cluster.raw(alice, 0, Codec::Msgpack).await;
    let sent = a.send_text(&alice.dm(bob), "hello bob").await.unwrap();
    let mut c = cluster.raw(carol, 1, Codec::Msgpack).await;
    let got = c.send_text(&alice.dm(carol), "hello alice").await.unwrap();
    assert_eq!(seen_until(&mut a, "hello alice").await.last().unwrap().id, got);
    let api = cluster.api(alice, 1);
    let asked = Instant::now();
    let first = list(&api, "").await;
    assert!(asked.elapsed() < LONG, "{:?}", asked.elapsed());
    assert_eq!(names(&first)[..2], [alice.dm(carol), alice.dm(bob)]);
    assert_eq!((first[1].last.as_ref().unwrap().id, first[0].unread), (sent, Some(1)));
    // As many are read, which is more than one value, too.
    let all = insight.buckets.threads(alice.id()).load().await.unwrap().unwrap().threads;
    assert_eq!(all.len(), MANY + 2);
    let read: Vec<Thread> = all.into_keys().collect();
    for part in read.chunks(limits::CURSORS_PER_HELLO) {
        let read = part.iter().map(|thread| (thread.to_string(), json!(1))).collect::<serde_json::Map<_, _>>();
        good(api.post("/v1/ack", &json!({ "read": read })).await);
    }
    good(api.post("/v1/ack", &json!({ "read": { alice.dm(carol).to_string(): got } })).await);
    assert_eq!(list(&api, "?limit=1").await[0].unread, Some(0));
    let cursors = insight.buckets.cursors(alice.id()).load().await.unwrap().unwrap();
    assert!(read.iter().all(|thread| cursors.read(thread) >= MsgId(1)));
    drop(a);
    // Another device, which has nothing yet.
    let mut again = cluster.raw(alice, 1, Codec::Json).await;
    again.send_text(&alice.dm(carol), "hello carol").await.unwrap();
    seen_until(&mut c, "hello carol").await;
    all_well(&cluster);
}

/// A device shows what it knew before anybody answers, and what it missed is all it asks for later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_without_a_network_shows_what_it_knew() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let dm = alice.dm(&bob);
    let mut b = cluster.raw(&bob, 0, Codec::Json).await;
    b.send_text(&dm, "one").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = OutboxStore::File(dir.path().join("client.db"));
    let builder = |edge: String| alice.builder([edge]).store(store.clone());
    let (client, mut events) = builder(cluster.edge_url(0)).connect().await.unwrap();
    let message = |wanted: &'static str| {
        move |e| match e {
            natterjack_client::ClientEvent::Message(e) if e.body.text.as_deref() == Some(wanted) => Some(e.id),
            _ => None,
        }
    };
    next_event(&mut events, "a message", SOON, message("one")).await;
    client.sync_threads().await.unwrap();
    client.set_thread(&dm, &SettingsChange { pinned: Some(true), ..SettingsChange::default() }).await.unwrap();
    let id = b.send_text(&dm, "two").await.unwrap();
    assert_eq!(next_event(&mut events, "a message", SOON, message("two")).await, id);
    eventually_within("it is known that it is pinned", SOON, async || {
        let known = client.known_threads().await.unwrap();
        let pinned = known.iter().any(|t| t.settings.as_ref().is_some_and(|s| s.pinned));
        if pinned { Ok(()) } else { Err(format!("{known:?}")) }
    })
    .await;
    let before = client.known_threads().await.unwrap();
    assert_eq!((before.len(), before[0].unread), (1, Some(2)));
    drop(events);
    client.close().await;

    let (client, mut events) = builder("ws://127.0.0.1:9".into()).connect().await.unwrap();
    assert_eq!(client.known_threads().await.unwrap(), before);
    let texts = client.known_messages(&dm).await.unwrap().into_iter().filter_map(|e| e.body.text).collect::<Vec<_>>();
    assert_eq!(texts, ["one", "two"]);
    events.seen();
    drop(events);
    client.close().await;

    let third = b.send_text(&dm, "three").await.unwrap();
    let (client, mut events) = builder(cluster.edge_url(1)).connect().await.unwrap();
    next_event(&mut events, "what was missed", SOON, message("three")).await;
    client.sync_threads().await.unwrap();
    let known = client.known_threads().await.unwrap();
    assert_eq!((known[0].unread, known[0].last.as_ref().unwrap().id), (Some(3), third));
    client.read_all().await.unwrap();
    eventually_within("it is read", SOON, async || {
        let unread = client.known_threads().await.unwrap()[0].unread;
        if unread == Some(0) { Ok(()) } else { Err(format!("{unread:?}")) }
    })
    .await;
    client.close().await;
    all_well(&cluster);
}
