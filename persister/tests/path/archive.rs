//! Crashes, doubles and rubbish on the way into the store.

use std::sync::atomic::Ordering;

use natterjack_nats::{KvBuckets, Layout, LeaderReader, Position, Positions, Publisher, subjects};
use natterjack_persister::{
    Config, StoreConfig,
    store::{ArchiveStore, Order, Row, Sqlite, ThreadBatch},
};
use natterjack_protocol::{
    Body, Entry, Event, Kind, Most, MsgId, Thread, Token,
    internal::rpc::PageStart,
    log::{Role, fold},
};
use natterjack_runtime::Health;
use natterjack_testkit::now_ms;
use tokio_util::sync::CancellationToken;

use super::kit::*;

async fn everything(store: &Sqlite, threads: &[&Thread]) -> Vec<Row> {
    let mut all = Vec::new();
    for t in threads {
        all.extend(store.rows(t, MsgId::NONE, MsgId::MAX, Order::OldestFirst, Most::count(10_000)).await.unwrap());
    }
    all
}

#[tokio::test]
async fn killed_between_write_and_watermark_the_replay_changes_nothing() {
    let w = World::new().await;
    let (t, dm): (Thread, Thread) = (group("g"), "dm.a.b".parse().unwrap());
    w.store.stuck.store(true, Ordering::SeqCst);
    let members = Body { users: vec![user("a"), user("b")], name: Some("g".into()), ..Body::default() };
    w.send(&t, "owner", Kind::GroupCreated, members.clone()).await;
    let target = w.say(&t, "a", "one").await;
    w.send(&t, "owner", Kind::Recall, on(target, None)).await;
    w.send(&t, "owner", Kind::RoleChanged, Body { users: vec![user("a")], role: Some(Role::Admin), ..Body::default() })
        .await;
    w.send(&dm, "a", Kind::DmStarted, Body::default()).await;
    let second = w.say(&dm, "a", "two").await;
    w.send(&dm, "a", Kind::Edit, on(second, Some("zwei"))).await;
    let last_dm = w.send(&dm, "b", Kind::Blocked, Body::default()).await;
    let last = w.send(&t, "a", Kind::Recall, on(second, None)).await;
    // All of it is one batch, whose rows are written again and again.
    let archive = w.archive("a");
    eventually("the rows are written", async || {
        let archived = w.store.inner.last_entries(&[t.clone(), dm.clone()]).await.unwrap();
        archived.iter().map(|e| e.id).eq([last, last_dm])
    })
    .await;
    let state = async || {
        let s = &w.store.inner;
        let items = (s.user_threads(&user("a")).await.unwrap(), s.user_threads(&user("b")).await.unwrap());
        (everything(s, &[&t, &dm]).await, s.group(&t).await.unwrap(), items)
    };
    let first = state().await;
    assert_eq!(w.store.inner.position(w.key(&t)).await.unwrap(), None);
    drop(archive);
    w.store.stuck.store(false, Ordering::SeqCst);
    let _again = w.archive("b");
    w.archived(&t, last).await;
    w.archived(&dm, last_dm).await;
    assert_eq!(state().await, first);
    assert_eq!(first.1.as_ref().and_then(|g| g.role(&user("a"))), Some(Role::Admin));
    assert!(first.2.1.iter().any(|(thread, item)| *thread == dm && item.blocks && fold::may_send(item).is_err()));
    // Where `channel` looks for how far the archive is.
    let mirror = Positions::new(&KvBuckets::new(&w.nats, w.layout), "persister");
    eventually("the mirror follows", async || {
        mirror.load(w.layout.partition(&t)).await.unwrap().is_some_and(|p| p.id >= last)
    })
    .await;
}

/// After a loss of power, or with an older copy, the log goes on in a new generation, above all that the archive knows.
/// What was stored meanwhile under ids that had been given is archived, behind whatever had them; and readers are told
/// of what may be lost.
#[tokio::test]
async fn a_log_that_lost_its_end_goes_on_in_a_new_generation() {
    let mut w = World::new().await;
    let t: Thread = "dm.a.b".parse().unwrap();
    let kept = w.say(&t, "a", "kept").await;
    let archive = w.archive("a");
    w.archived(&t, kept).await;
    drop(archive);
    // As if there had been more: the next id was one of ours, the one after it was of another thread.
    let row = |id: u64, text: &str| Row { id: MsgId(id), ..Row::from_log(&t, MsgId(id), 1, false, &entry("a", text)) };
    let old = ThreadBatch {
        thread: t.clone(),
        rows: vec![row(kept.0 + 1, "lost with the log")],
        group: None,
        items: Vec::new(),
    };
    w.store.inner.append(old).await.unwrap();
    w.store.inner.advance(w.key(&t), Position { id: MsgId(kept.0 + 1_000), ts: now_ms() }).await.unwrap();
    let again = w.say(&t, "a", "its id was given before").await;
    let then = w.say(&t, "b", "and after").await;
    assert_eq!((again.0, then.0), (kept.0 + 1, kept.0 + 2));
    let edit = w.send(&t, "a", Kind::Edit, Body { target: Some(again), ..Body::text("it is changed") }).await;

    let before = w.layout;
    let archive = w.archive("b");
    eventually("a new generation", async || Layout::load(&w.nats).await.unwrap().generation == 2).await;
    w.layout = Layout::load(&w.nats).await.unwrap();
    w.publisher = Publisher::new(&w.nats, w.layout, w.times.clone());
    w.history.goes_on(w.layout);
    let origin = w.tail().bounds(w.layout.partition(&t)).await.unwrap().origin;
    assert!(origin.0 > kept.0 + 1_000);
    let last = w.say(&t, "a", "of the new generation").await;
    assert!(last >= origin);
    // Until it is known where everything stands, nobody's cursor moves over it.
    let page = w.page(&t, PageStart::After(kept), 50).await;
    let told =
        |events: &[Event]| events.iter().map(|e| (e.kind, e.body.text.clone().unwrap_or_default())).collect::<Vec<_>>();
    let want = [
        (Kind::Text, "lost with the log"),
        (Kind::Lost, ""),
        (Kind::Text, "it is changed"),
        (Kind::Text, "and after"),
        (Kind::Edit, "it is changed"),
        (Kind::Text, "of the new generation"),
    ]
    .map(|(kind, text)| (kind, text.to_owned()));
    assert!(!page.holes.is_empty() || told(&page.events) == want, "{page:?}");
    eventually("the former one is archived", async || w.position(before, &t).await == Some(MsgId(origin.0 - 1))).await;
    let _archives = w.archive("c");
    w.archived(&t, last).await;
    let page = w.page(&t, PageStart::After(kept), 50).await;
    assert_eq!((told(&page.events), page.holes), (want.to_vec(), vec![]));
    let ids: Vec<u64> = page.events.iter().map(|e| e.id.0).collect();
    assert!(ids.is_sorted() && ids[1] > kept.0 + 1_000 && ids[4] < origin.0, "{ids:?}");
    assert_eq!(page.events[4].body.target, Some(page.events[2].id), "the edit is about the message's new id: {edit}");
    // A device that had seen everything there was, lost or not.
    assert_eq!(w.page(&t, PageStart::After(MsgId(kept.0 + 1_000)), 50).await.events.len(), 5);
    drop(archive);
    // A persister that begins anew changes nothing, and begins no further generation.
    let _again = w.archive("d");
    let more = w.say(&t, "b", "more").await;
    w.archived(&t, more).await;
    assert_eq!(Layout::load(&w.nats).await.unwrap(), w.layout);
    assert_eq!(w.page(&t, PageStart::After(kept), 50).await.events.len(), 7);
}

fn entry(from: &str, text: &str) -> bytes::Bytes {
    Entry::new(user(from), cid(), Kind::Text, Body::text(text)).encode()
}

/// Before the first call to the store, before the second, and so on until there is no further one; then again by
/// another, to the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_the_loop() {
    let w = World::new().await;
    let mut steps = 0;
    loop {
        let (g, dm): (Thread, Thread) = (group(&format!("g{steps}")), format!("dm.a.b{steps}").parse().unwrap());
        let peer = format!("b{steps}");
        let members = Body { users: vec![user("a"), user(&peer)], name: Some("g".into()), ..Body::default() };
        w.send(&g, "owner", Kind::GroupCreated, members).await;
        w.say(&g, "a", "one").await;
        w.send(&dm, "a", Kind::DmStarted, Body::default()).await;
        let edited = w.say(&dm, "a", "two").await;
        let last_dm = w.send(&dm, "a", Kind::Edit, on(edited, Some("zwei"))).await;
        w.send(
            &g,
            "owner",
            Kind::RoleChanged,
            Body { users: vec![user("a")], role: Some(Role::Admin), ..Body::default() },
        )
        .await;
        let last = w.say(&g, &peer, "three").await;

        w.store.calls_left.store(steps, Ordering::SeqCst);
        let archive = w.archive("persister");
        let done = async || {
            let at = async |t: &Thread| w.store.inner.position(w.key(t)).await.unwrap().unwrap_or_default().id;
            at(&g).await >= last && at(&dm).await >= last_dm
        };
        eventually("it has come that far", async || w.store.calls_left.load(Ordering::SeqCst) < 0 || done().await)
            .await;
        drop(archive);
        let over = w.store.calls_left.load(Ordering::SeqCst) >= 0;
        w.store.calls_left.store(i64::MAX, Ordering::SeqCst);

        let archive = w.archive("persister");
        eventually("all is archived", done).await;
        drop(archive);
        let s = &w.store.inner;
        let told: Vec<_> = everything(s, &[&g, &dm]).await.into_iter().map(|r| (r.kind, r.body.text)).collect();
        let some = |t: &str| Some(t.to_owned());
        let wanted = [
            (Kind::GroupCreated, None),
            (Kind::Text, some("one")),
            (Kind::RoleChanged, None),
            (Kind::Text, some("three")),
            (Kind::DmStarted, None),
            (Kind::Text, some("zwei")),
            (Kind::Edit, some("zwei")),
        ];
        assert_eq!(told, wanted, "killed before call {steps}");
        assert_eq!(
            s.group(&g).await.unwrap().and_then(|g| g.role(&user("a"))),
            Some(Role::Admin),
            "killed before call {steps}"
        );
        for thread in [&g, &dm] {
            assert!(
                s.item(thread, &user(&peer)).await.unwrap().is_some_and(|item| item.intervals.open()),
                "killed before call {steps}"
            );
        }
        if over {
            break;
        }
        steps += 1;
    }
    assert!(steps > 8, "only {steps} steps: what was there to be killed?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_persisters_on_one_partition_write_the_same() {
    let w = World::new().await;
    let t = group("g");
    // The same name: each takes the lease for its own. So it is after a lease that was lost unnoticed.
    let (one, two) = (w.archive("same"), w.archive("same"));
    let mut sent = Vec::new();
    for i in 0..300 {
        sent.push(w.say(&t, "a", &i.to_string()).await);
        if i == 150 {
            sent.push(w.send(&t, "a", Kind::Recall, on(sent[10], None)).await);
        }
    }
    w.archived(&t, sent[300]).await;
    drop((one, two));
    let rows = everything(&w.store.inner, &[&t]).await;
    assert_eq!(rows.iter().map(|r| r.id).collect::<Vec<_>>(), sent);
    assert_eq!((rows[10].kind, rows[10].rev), (Kind::Recall, sent[151]));
    assert_eq!(w.page(&t, PageStart::Newest, 200).await.events.len(), 200);
}

#[tokio::test]
async fn what_nobody_can_read_is_archived_with_its_bytes_and_stops_nobody() {
    let w = World::new().await;
    let t = group("g");
    let (generation, p) = (w.layout.generation, w.layout.partition(&t));
    let first = w.say(&t, "a", "before").await;
    let junk = w.raw(subjects::chat(generation, p, &t), b"\xc1\x00junk").await;
    let junk_control = w.raw(subjects::ctl(generation, p, &t), b"").await;
    let stray = w.raw(format!("chat.{generation}.{p}.not-a-thread"), b"stray").await;
    let last = w.say(&t, "a", "after").await;
    let before = w.page(&t, PageStart::Newest, 50).await;
    let _archive = w.archive("a");
    w.archived(&t, last).await;
    let page = w.page(&t, PageStart::Newest, 50).await;
    assert_eq!(page, before, "the same from the log and from the archive");
    assert_eq!(ids(&page.events), [first, junk, junk_control, last]);
    assert_eq!((page.events[1].kind, page.events[1].body.data.as_deref()), (Kind::Unknown, Some(&b"\xc1\x00junk"[..])));
    let kept: (i64, Vec<u8>) = w
        .store
        .inner
        .read(|c| c.query_row("SELECT id, payload FROM strays", [], |r| Ok((r.get(0)?, r.get(1)?))))
        .await
        .unwrap();
    assert_eq!(kept, (stray.0 as i64, b"stray".to_vec()));
}

#[tokio::test]
async fn the_role_starts_archives_and_drains_and_starts_again() {
    let w = World::new().await;
    let buckets = KvBuckets::new(&w.nats, w.layout);
    let t = group("g");
    let mut sent = Vec::new();
    for i in 0..2 {
        let cfg = Config {
            nats: w.cfg.clone(),
            times: w.times.clone(),
            instance: Token::parse(&format!("p{i}")).unwrap().to_string(),
            store: StoreConfig::Sqlite { path: w.dir.path().join("role.db") },
            ..Config::default()
        };
        let (health, stop) = (Health::new(), CancellationToken::new());
        let role = tokio::spawn(natterjack_persister::run(cfg, health.clone(), stop.clone()));
        sent.push(w.say(&t, "a", "x").await);
        eventually("it is ready", async || health.report().ready && health.report().parts.len() == w.parts()).await;
        // Of the new log beside an empty archive, and never again: beside one that has something it may be another log.
        let found = buckets.beginning().load().await.unwrap();
        assert_eq!(found.is_some(), i == 0);
        for p in 0..w.layout.partitions {
            let created = LeaderReader::new(&w.nats, w.layout).bounds(p).await.unwrap().created_ms;
            assert!(found.as_ref().is_none_or(|b| b.is_of(p, created) && !b.is_of(p, created + 1)));
        }
        buckets.beginning().delete().await.unwrap();
        let store = Sqlite::open(w.dir.path().join("role.db")).await.unwrap();
        eventually("it is archived", async || {
            store.position(w.key(&t)).await.unwrap().is_some_and(|p| p.id >= sent[i])
        })
        .await;
        stop.cancel();
        role.await.unwrap().unwrap();
        assert_eq!(everything(&store, &[&t]).await.iter().map(|r| r.id).collect::<Vec<_>>(), sent);
    }
}
