//! Edits and recalls that came later are in every page, by whatever way of reading and however far the archive is
//! behind; what cannot be checked is a hole. Against a plain model, and with thousands of later entries.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream};
use natterjack_nats::Position;
use natterjack_persister::{
    fold::fold_thread,
    history::History,
    store::{ArchiveStore, Row, Sqlite},
};
use natterjack_protocol::{
    Body, Event, Kind, Most, MsgId, Thread, UserId,
    client::frame::Page,
    internal::rpc::{AskedThread, HeardOf, HistoryAnswer, HistoryRequest, PageStart, ReadAccess},
    log::{Intervals, Role},
};
use natterjack_testkit::now_ms;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::kit::*;

mod model;

use model::Model;

/// Short, busy with edits and recalls, also late ones and ones that count for nothing; `b` is an admin now and then.
async fn talk(w: &World, rng: &mut StdRng, (team, dm): (&Thread, &Thread), said: &mut Vec<(Thread, MsgId)>) {
    for n in 0..35 {
        let from = *["a", "b", "o"].choose(rng).unwrap();
        let thread = if from != "o" && rng.random_bool(0.3) { dm } else { team };
        let mut targets: Vec<_> = said.iter().filter(|(t, _)| t == thread).map(|(_, id)| *id).collect();
        targets.push(MsgId(1));
        let target =
            if rng.random_bool(0.5) { targets[targets.len().saturating_sub(4)] } else { *targets.choose(rng).unwrap() };
        match rng.random_range(0..10) {
            0..4 => {
                let id = w.say(thread, from, &format!("said {n}")).await;
                said.push((thread.clone(), id));
            }
            4..7 => drop(w.send(thread, from, Kind::Edit, on(target, Some(&format!("edit {n}")))).await),
            7..9 => drop(w.send(thread, from, Kind::Recall, on(target, None)).await),
            _ => {
                let role = if rng.random_bool(0.5) { Role::Admin } else { Role::Member };
                w.send(team, "o", Kind::RoleChanged, Body { role: Some(role), ..members(&["b"]) }).await;
            }
        }
    }
}

pub fn members(users: &[&str]) -> Body {
    let users = users.iter().map(|u| user(u)).collect();
    Body { users, name: Some("g".into()), ..Body::default() }
}

async fn log_of(w: &World, thread: &Thread) -> Vec<Row> {
    let records = w.tail().after(thread, MsgId::NONE, MsgId(1 << 52), Most::count(10_000)).await.unwrap();
    records.into_iter().map(|r| Row::from_log(&r.thread, r.id, r.ts, r.control, &r.payload)).collect()
}

/// An archive that has the first so many entries of each thread.
async fn archive_of(w: &World, file: &str, logs: &[&[Row]]) -> Switched {
    let inner = Sqlite::open(w.dir.path().join(file)).await.unwrap();
    for rows in logs {
        let Some(last) = rows.last() else { continue };
        let (thread, to) = (last.thread.clone(), Position { id: last.id, ts: last.ts });
        inner.append(fold_thread(&inner, thread.clone(), rows.to_vec()).await.unwrap()).await.unwrap();
        inner.advance(w.key(&thread), to).await.unwrap();
    }
    let calls_left = Arc::new(AtomicI64::new(i64::MAX));
    Switched { inner, away: Arc::default(), stuck: Arc::default(), calls_left, searches: Arc::default() }
}

async fn ask(history: &History<Switched>, request: HistoryRequest) -> Option<HistoryAnswer> {
    match history.answer(request).await {
        Ok(answer) => Some(answer),
        Err(e) => {
            assert_eq!(e.code, natterjack_protocol::Code::Unavailable, "{e}");
            None
        }
    }
}

/// One question of each kind at a random place.
async fn question(history: &History<Switched>, model: &Model, mut rng: StdRng, whole: bool) -> Result<(), String> {
    let thread = model.rows[0].thread.clone();
    let access = ReadAccess { intervals: Intervals::all(), v: MsgId(1 << 52) };
    let row = model.rows.choose(&mut rng).unwrap();
    let limit = *[1, 2, 5, 200].choose(&mut rng).unwrap();
    let at = *[
        PageStart::Newest,
        PageStart::Before(row.id),
        PageStart::After(row.id),
        PageStart::Around(row.id),
        PageStart::Time(row.ts),
    ]
    .choose(&mut rng)
    .unwrap();
    let page = HistoryRequest::Page {
        thread: thread.clone(),
        reader: user("reader"),
        access: access.clone(),
        at,
        limit: limit as u16,
        min_id: MsgId::NONE,
    };
    // A long tail is read on for a second for each request: on a busy machine a page may take several.
    let mut tries = 0..20;
    let answer = loop {
        let answer = ask(history, page.clone()).await;
        let read = matches!(&answer, Some(HistoryAnswer::Page(page)) if page.holes.is_empty());
        if read || !whole || tries.next().is_none() {
            break answer;
        }
    };
    match answer {
        Some(HistoryAnswer::Page(page)) => {
            model.check(at, limit, &page, whole).map_err(|e| format!("{at:?} limit {limit}: {e}"))?
        }
        Some(other) => return Err(format!("a page was asked for: {other:?}")),
        None if whole => return Err(format!("{at:?} limit {limit}: refused")),
        None => {}
    }
    let upto = model.rows.choose(&mut rng).unwrap().id.max(row.id);
    if let Some(HistoryAnswer::Between { events, complete }) =
        ask(history, HistoryRequest::Between { thread: thread.clone(), after: row.id, upto, limit: limit as u16 }).await
    {
        events.iter().try_for_each(|e| model.is_shown(e)).map_err(|e| format!("between: {e}"))?;
        let want: Vec<_> = model.rows.iter().map(|r| r.id).filter(|i| row.id < *i && *i <= upto).take(limit).collect();
        let got = ids(&events);
        if !want.starts_with(&got) || (whole || complete) && want != got {
            return Err(format!("between {} and {upto}: {got:?}, not {want:?}", row.id));
        }
    }
    // One of those who write, too: what they wrote is not unread.
    let (read, reader) =
        (model.rows.choose(&mut rng).unwrap().id, [user("reader"), user("a")].choose(&mut rng).unwrap().clone());
    // By an edge that has heard nothing of it, or some.
    let newest = model.rows.last().unwrap().id;
    let before = MsgId(newest.0 - 1);
    let some = [HeardOf { since: newest, head: MsgId::NONE }, HeardOf { since: before, head: newest }];
    let heard = [None, Some(some[0]), Some(some[1])].choose(&mut rng).copied().flatten();
    let threads = vec![AskedThread { thread, access, read: Some(read), heard }];
    match ask(history, HistoryRequest::Latest { reader: reader.clone(), threads }).await {
        Some(HistoryAnswer::Latest(latest)) => {
            let (unread, is) = (latest[0].unread, model.unread(&reader, read));
            if whole && unread != Some(is) {
                return Err(format!("unread behind {read}: {unread:?}, not {is}"));
            }
            latest.iter().filter_map(|l| l.last.as_ref()).try_for_each(|e| {
                model.is_shown(e).map_err(|e| format!("latest: {e}"))?;
                if e.prev.is_none() { Ok(()) } else { Err(format!("latest: {} is in a chain", e.id)) }
            })?;
            let (newest, is) = (latest[0].newest.id, model.rows.last().unwrap().id);
            if whole && newest != is { Err(format!("newest: {newest}, not {is}")) } else { Ok(()) }
        }
        other => Err(format!("the latest were asked for: {other:?}")),
    }
}

/// The log forgets all that it has, as it does after a day.
async fn expire(w: &World, thread: &Thread) {
    let js = natterjack_testkit::raw_jetstream(&w.nats).await;
    let mut stream = js.get_stream(w.layout.stream(thread)).await.unwrap();
    let config = stream.info().await.unwrap().config.clone();
    let moment = Duration::from_millis(100);
    js.update_stream(natterjack_testkit::raw_nats::jetstream::stream::Config {
        max_age: moment,
        duplicate_window: moment,
        ..config.clone()
    })
    .await
    .unwrap();
    eventually("everything expires", async || stream.info().await.unwrap().state.messages == 0).await;
    js.update_stream(config).await.unwrap();
}

/// `expired`: the log begins in the middle, and what lies before is in the archive.
async fn every_page(seed: u64, expired: bool) {
    let mut rng = StdRng::seed_from_u64(seed);
    let w = World::new().await;
    let (team, dm): (Thread, Thread) = (group("g"), "dm.a.b".parse().unwrap());
    let mut said = Vec::new();
    w.send(&team, "o", Kind::GroupCreated, members(&["a", "b"])).await;
    w.say(&dm, "a", "hello").await;
    talk(&w, &mut rng, (&team, &dm), &mut said).await;
    let mut logs = [log_of(&w, &team).await, log_of(&w, &dm).await];
    if expired {
        expire(&w, &team).await;
        expire(&w, &dm).await;
    }
    let half = logs.clone().map(|log| log.len());
    talk(&w, &mut rng, (&team, &dm), &mut said).await;
    for ((log, thread), half) in logs.iter_mut().zip([&team, &dm]).zip(half) {
        let last = log[half - 1].id;
        log.extend(log_of(&w, thread).await.into_iter().filter(|r| r.id > last));
    }
    let models: Vec<Model> = logs.iter().cloned().map(Model::new).collect();
    let mut check = async |part: usize, away: bool| {
        let archived = |n: usize| {
            let from = if expired { half[n] } else { 1 };
            &logs[n][..from + (logs[n].len() - from) * part / 8]
        };
        let store = archive_of(&w, &format!("{part}-{away}.db"), &[archived(0), archived(1)]).await;
        store.away.store(away, Ordering::SeqCst);
        for entries in [2_000, 6] {
            let history = History::new(&w.nats, w.layout, w.times.clone(), store.clone()).reading_whole(entries);
            let asked: Vec<_> = (0..30).map(|n| (n, StdRng::seed_from_u64(rng.random()))).collect();
            let asked = asked.into_iter().map(|(n, rng)| question(&history, &models[n % 2], rng, !away));
            let answers: Vec<_> = stream::iter(asked).buffer_unordered(8).collect().await;
            for answer in answers {
                answer.unwrap_or_else(|e| {
                    panic!("seed {seed}, expired {expired}, part {part}, away {away}, {entries} read whole: {e}")
                });
            }
        }
    };
    for part in 0..=8 {
        check(part, false).await;
    }
    check(0, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_archived_every_page_is_as_the_newest_operations_left_it() {
    let seed: u64 = std::env::var("NATTERJACK_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(now_ms);
    println!("NATTERJACK_SEED={seed}");
    tokio::join!(every_page(seed, false), every_page(seed, true));
}

/// The archive is held back, and more came later than anybody reads for one page: a recall behind 1,500 reactions,
/// another behind 1,100 edits, one by an admin who was made one and is none any more, and an edit that came after its
/// message was recalled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recall_behind_thousands_of_entries_takes_the_text_out_of_every_page() {
    let w = World::new().await;
    let t = group("g");
    let archive = w.archive("first");
    w.send(&t, "o", Kind::GroupCreated, members(&["a", "b"])).await;
    let archived = w.say(&t, "a", "secret in the archive").await;
    let edited = w.say(&t, "a", "one").await;
    w.archived(&t, edited).await;
    drop(archive);
    let in_tail = w.say(&t, "a", "secret in the log").await;
    let rude = w.say(&t, "a", "secret, and rude").await;
    let many = async |kind: Kind, count: usize| {
        for _ in 0..count / 300 {
            let one = || w.send(&t, "b", kind, Body { emoji: Some("x".into()), ..on(edited, Some("not b's")) });
            join_all((0..300).map(|_| one())).await;
        }
    };
    many(Kind::Reaction, 1_500).await;
    w.send(&t, "a", Kind::Recall, on(archived, None)).await;
    w.send(&t, "a", Kind::Edit, on(edited, Some("uno"))).await;
    many(Kind::Edit, 1_200).await;
    let admin = |role| Body { role: Some(role), ..members(&["b"]) };
    w.send(&t, "o", Kind::RoleChanged, admin(Role::Admin)).await;
    w.send(&t, "b", Kind::Recall, on(rude, None)).await;
    w.send(&t, "o", Kind::RoleChanged, admin(Role::Member)).await;
    w.send(&t, "b", Kind::Recall, on(edited, None)).await;
    w.send(&t, "a", Kind::Recall, on(in_tail, None)).await;
    let late = w.send(&t, "a", Kind::Edit, on(in_tail, Some("secret, once more"))).await;
    let last = w.say(&t, "a", "last").await;
    let pages = async || {
        let around = [
            PageStart::Around(archived),
            PageStart::Around(in_tail),
            PageStart::Before(edited),
            PageStart::Before(rude.next()),
            PageStart::After(MsgId(0)),
        ];
        let after = [
            PageStart::After(archived),
            PageStart::After(in_tail),
            PageStart::Time(0),
            PageStart::Newest,
            PageStart::Around(late),
            PageStart::Before(last.next()),
        ];
        let mut texts = Vec::new();
        for at in around.into_iter().chain(after) {
            let page = w.page(&t, at, 50).await;
            assert!(page.holes.is_empty() && !page.events.is_empty(), "{at:?}");
            let all = format!("{page:?}");
            assert!(!all.contains("secret"), "{at:?}: {all}");
            texts.push(page);
        }
        let (events, _) = w.between(&t, MsgId(archived.0 - 1), last, 100).await.unwrap();
        assert!(!format!("{events:?}").contains("secret"));
        let one = events.iter().find(|e| e.id == edited).unwrap();
        assert_eq!((one.kind, one.body.text.as_deref()), (Kind::Text, Some("uno")), "b may not");
        let latest = w.latest("reader", &[&t]).await;
        assert_eq!(latest[0].as_ref().map(|e| e.id), Some(last));
        (texts, latest)
    };
    let before = pages().await;
    // What comes while the operations are kept is seen, too.
    let gone = w.say(&t, "a", "secret for a moment").await;
    w.send(&t, "a", Kind::Recall, on(gone, None)).await;
    let latest = w.latest("reader", &[&t]).await;
    assert_eq!(latest[0].as_ref().map(|e| (e.id, e.kind)), Some((gone, Kind::Recall)));
    assert!(!format!("{:?}", w.page(&t, PageStart::Around(gone), 10).await).contains("secret"));
    // With the archive away: the same, or nothing.
    w.switch_off(true);
    for at in [
        PageStart::Around(in_tail),
        PageStart::Before(rude.next()),
        PageStart::After(in_tail),
        PageStart::Newest,
        PageStart::Around(late),
    ] {
        let page = w.page_as(&t, "reader", at, 50).await;
        assert!(!format!("{page:?}").contains("secret"), "{at:?}");
    }
    w.switch_off(false);
    let _archive = w.archive("second");
    let end = w.last_ids(&[&t]).await[0];
    w.archived(&t, end).await;
    // Archived, the pages are what they were.
    for page in before.0 {
        let first = page.events[0].id;
        let again = w.page(&t, PageStart::After(MsgId(first.0 - 1)), page.events.len() as u16).await;
        assert_eq!(ids(&again.events), ids(&page.events));
        assert!(
            again.events.iter().zip(&page.events).all(|(a, b)| (a.kind, &a.body, a.prev) == (b.kind, &b.body, b.prev))
        );
    }
}
