//! What every store must do, whatever is behind it: one suite, generic over the trait. Each backend runs [`all`] from
//! its own tests. Threads are named after the test, so that one store serves the whole suite.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use natterjack_nats::Position;
use natterjack_protocol::{
    Body, Cid, Entry, Kind, Most, MsgId, Thread, Token, UserId, limits,
    log::fold::{GroupState, ThreadItem, apply_group},
};

use crate::store::{
    ArchiveStore, CidLookup, LostRange, Order, PartitionKey, Row, ThreadBatch, UnknownSubject, overlay::is_recalled,
};

/// Of a store that is new.
pub async fn all<S: ArchiveStore>(store: &S) {
    empty_until_something_is_archived(store).await;
    rows_come_back_as_written(store).await;
    replays_change_nothing(store).await;
    every_order_ends_equal(store).await;
    power_takes_everything_away_in_every_order(store).await;
    writers_beside_each_other_end_equal(store).await;
    a_reader_beside_a_writer_misses_nothing(store).await;
    only_who_may_changes_a_message(store).await;
    pages_at_every_edge(store).await;
    pages_end_by_their_bytes(store).await;
    times_at_every_edge(store).await;
    cids_are_found(store).await;
    cids_are_found_where_times_fall(store).await;
    states_only_move_forward(store).await;
    positions_only_move_forward(store).await;
    what_is_lost_stays_lost(store).await;
}

async fn empty_until_something_is_archived<S: ArchiveStore>(fresh: &S) {
    assert!(fresh.is_empty().await.unwrap());
    // A row without a watermark: a persister may die between the two.
    fresh.append(batch(&thread("first"), vec![text(&thread("first"), 1, "a", "x")])).await.unwrap();
    assert!(!fresh.is_empty().await.unwrap());
}

pub fn user(s: &str) -> UserId {
    Token::parse(s).unwrap()
}

pub fn thread(name: &str) -> Thread {
    Thread::group(&user(name))
}

pub fn row(thread: &Thread, id: u64, from: &str, kind: Kind, body: Body) -> Row {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&id.to_be_bytes());
    let entry = Entry::new(user(from), Cid::mint(1_000 + id, random), kind, body);
    Row::from_log(thread, MsgId(id), 1_000 + id, kind.is_control(), &entry.encode())
}

pub fn text(thread: &Thread, id: u64, from: &str, text: &str) -> Row {
    row(thread, id, from, Kind::Text, Body::text(text))
}

pub fn edit(thread: &Thread, id: u64, from: &str, target: u64, text: &str) -> Row {
    row(thread, id, from, Kind::Edit, Body { target: Some(MsgId(target)), ..Body::text(text) })
}

pub fn recall(thread: &Thread, id: u64, from: &str, target: u64) -> Row {
    row(thread, id, from, Kind::Recall, Body { target: Some(MsgId(target)), ..Body::default() })
}

pub fn batch(thread: &Thread, rows: Vec<Row>) -> ThreadBatch {
    ThreadBatch { thread: thread.clone(), rows, group: None, items: Vec::new() }
}

async fn everything<S: ArchiveStore>(store: &S, thread: &Thread) -> Vec<Row> {
    store.rows(thread, MsgId::NONE, MsgId::MAX, Order::OldestFirst, Most::count(1_000)).await.unwrap()
}

async fn last_entries<S: ArchiveStore>(store: &S, threads: &[Thread]) -> Vec<(u64, u64)> {
    store.last_entries(threads).await.unwrap().iter().map(|e| (e.id.0, e.ts)).collect()
}

async fn rows_come_back_as_written<S: ArchiveStore>(store: &S) {
    let t = thread("as-written");
    let poison = Row::from_log(&t, MsgId(3), 1_003, false, &Bytes::from_static(b"\xc1 no entry at all"));
    assert_eq!(poison.kind, Kind::Unknown);
    let rows = vec![
        text(&t, 1, "a", "grüß dich"),
        row(&t, 2, "b", Kind::Custom, Body { data: Some(Bytes::from_static(&[0, 255, 1])), ..Body::default() }),
        poison,
        row(&t, 1 << 52, "a", Kind::MemberAdded, Body { users: vec![user("c")], ..Body::default() }),
    ];
    store.append(batch(&t, rows.clone())).await.unwrap();
    assert_eq!(everything(store, &t).await, rows);
    assert_eq!(store.controls(&t, MsgId::MAX).await.unwrap(), rows[3..]);
    assert_eq!(store.controls(&t, MsgId(1 << 52)).await.unwrap(), []);
    let unknown = thread("never-heard-of");
    assert_eq!(last_entries(store, &[unknown.clone(), t.clone()]).await, [(0, 0), (1 << 52, 1_000 + (1 << 52))]);
    assert_eq!(everything(store, &unknown).await, []);
    assert_eq!(store.group(&unknown).await.unwrap(), None);
    assert_eq!(store.item(&unknown, &user("a")).await.unwrap(), None);
}

async fn replays_change_nothing<S: ArchiveStore>(store: &S) {
    let t = thread("replay");
    let rows =
        vec![text(&t, 1, "a", "one"), text(&t, 2, "a", "two"), edit(&t, 3, "a", 1, "uno"), recall(&t, 4, "a", 2)];
    store.append(batch(&t, rows.clone())).await.unwrap();
    let first = everything(store, &t).await;
    for from in 0..rows.len() {
        store.append(batch(&t, rows[from..].to_vec())).await.unwrap();
        store.append(batch(&t, rows[..=from].to_vec())).await.unwrap();
        assert_eq!(everything(store, &t).await, first);
    }
    assert_eq!(last_entries(store, std::slice::from_ref(&t)).await, [(4, 1_004)]);
    let stray = UnknownSubject {
        key: PartitionKey { generation: 9, partition: 9 },
        id: MsgId(7),
        ts: 1,
        subject: "chat.9.9.what".into(),
        payload: Bytes::from_static(b"x"),
    };
    store.keep_unknown_subject(stray.clone()).await.unwrap();
    store.keep_unknown_subject(stray).await.unwrap();
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in permutations(n - 1) {
        for at in 0..n {
            let mut p = shorter.clone();
            p.insert(at, n - 1);
            all.push(p);
        }
    }
    all
}

/// As many at once as a server that has just started answers in time.
async fn side_by_side<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    stream::iter(all).buffered(100).collect().await
}

/// A message, two edits of it, a recall, an edit that came after the recall, and one by somebody else.
async fn every_order_ends_equal<S: ArchiveStore>(store: &S) {
    let rows = |t: &Thread| {
        vec![
            text(t, 10, "a", "secret"),
            edit(t, 11, "a", 10, "secret 2"),
            edit(t, 12, "a", 10, "secret 3"),
            edit(t, 13, "b", 10, "not mine"),
            recall(t, 14, "a", 10),
            edit(t, 15, "a", 10, "secret 4"),
        ]
    };
    for without_recall in [false, true] {
        // Each on a thread of its own.
        let ends = side_by_side(permutations(6).into_iter().enumerate().map(async |(i, order)| {
            let t = thread(&format!("perm-{without_recall}-{i}"));
            let rows = rows(&t);
            for at in order {
                if !(without_recall && rows[at].kind == Kind::Recall) {
                    store.append(batch(&t, vec![rows[at].clone()])).await.unwrap();
                }
            }
            let mut end = everything(store, &t).await;
            let spelled = format!("{end:?}");
            if without_recall {
                assert_eq!((end[0].body.text.as_deref(), end[0].rev), (Some("secret 4"), MsgId(15)));
            } else {
                assert!(is_recalled(&end[0]) && end[0].rev == MsgId(14), "{spelled}");
                assert!(!spelled.contains("secret"), "a recall leaves nothing behind: {spelled}");
                assert!(spelled.contains("not mine"), "what somebody else wrote is theirs");
            }
            // Equal but for the name of the thread.
            end.iter_mut().for_each(|r| r.thread = thread("same"));
            end
        }))
        .await;
        assert!(ends.windows(2).all(|w| w[0] == w[1]));
    }
}

/// An admin's recall takes what anybody made of the message.
async fn power_takes_everything_away_in_every_order<S: ArchiveStore>(store: &S) {
    let ends = side_by_side(permutations(4).into_iter().enumerate().map(async |(i, order)| {
        let t = thread(&format!("power-{i}"));
        let rows = [
            text(&t, 10, "a", "secret"),
            edit(&t, 11, "a", 10, "secret 2"),
            edit(&t, 12, "b", 10, "secret 3"),
            Row { power: true, ..recall(&t, 13, "admin", 10) },
        ];
        for at in order {
            store.append(batch(&t, vec![rows[at].clone()])).await.unwrap();
        }
        let mut end = everything(store, &t).await;
        end.iter_mut().for_each(|r| r.thread = thread("same"));
        end
    }))
    .await;
    assert!(ends.windows(2).all(|w| w[0] == w[1]));
    assert!(is_recalled(&ends[0][0]) && !format!("{ends:?}").contains("secret"), "{:?}", ends[0]);
}

/// As one persister takes over from another: both follow the log, from whatever watermark, in batches of their own, and
/// overlap.
async fn writers_beside_each_other_end_equal<S: ArchiveStore>(store: &S) {
    let log = |t: &Thread| {
        let row = |n: u64| match n % 7 {
            3 => edit(t, n, "a", n - 2, &format!("edited by {n}")),
            5 => recall(t, n, "a", n - 3),
            6 => row(t, n, "a", Kind::Reaction, Body { target: Some(MsgId(n - 1)), ..Body::default() }),
            _ => text(t, n, "a", &format!("text {n}")),
        };
        (1..=60).map(row).collect::<Vec<_>>()
    };
    let (alone, together) = (thread("writer-alone"), thread("writers-together"));
    store.append(batch(&alone, log(&alone))).await.unwrap();
    let write = async |from: usize, size: usize| {
        for rows in log(&together)[from..].chunks(size) {
            store.append(batch(&together, rows.to_vec())).await.unwrap();
        }
    };
    tokio::join!(write(0, 1), write(0, 4), write(0, 60), write(0, 7));
    tokio::join!(write(17, 5), write(31, 3));
    let mut there = everything(store, &together).await;
    there.iter_mut().for_each(|r| r.thread = alone.clone());
    assert_eq!(there, everything(store, &alone).await);
    assert_eq!(last_entries(store, &[alone, together]).await, [(60, 1_060), (60, 1_060)]);
}

/// Whatever was written before the question is in the answer, also when the thread grows under the reader.
async fn a_reader_beside_a_writer_misses_nothing<S: ArchiveStore>(store: &S) {
    const END: u64 = 60;
    let t = thread("growing");
    let written = AtomicU64::new(0);
    let ids = |rows: &[Row]| rows.iter().map(|r| r.id.0).collect::<Vec<_>>();
    let writer = async {
        for id in 1..=END {
            store.append(batch(&t, vec![text(&t, id, "a", "x")])).await.unwrap();
            written.store(id, Ordering::SeqCst);
        }
    };
    let reader = async {
        loop {
            let w = written.load(Ordering::SeqCst);
            let up = store.rows(&t, MsgId::NONE, MsgId(w + 1), Order::OldestFirst, Most::count(1_000)).await.unwrap();
            assert_eq!(ids(&up), (1..=w).collect::<Vec<_>>());
            let newest =
                ids(&store.rows(&t, MsgId::NONE, MsgId::MAX, Order::NewestFirst, Most::count(7)).await.unwrap());
            assert!(newest.first().copied().unwrap_or(0) >= w, "{newest:?} ends below {w}");
            assert!(newest.windows(2).all(|w| w[0] == w[1] + 1), "{newest:?} has a hole");
            if w == END {
                break;
            }
        }
    };
    tokio::join!(writer, reader);
}

async fn only_who_may_changes_a_message<S: ArchiveStore>(store: &S) {
    let t = thread("may");
    let admin = |id, target| Row { power: true, ..recall(&t, id, "admin", target) };
    let rows = vec![
        text(&t, 1, "a", "one"),
        edit(&t, 2, "c", 1, "hijacked"),
        recall(&t, 3, "b", 1),
        text(&t, 4, "a", "four"),
        admin(5, 4),
        row(&t, 6, "a", Kind::MemberAdded, Body::default()),
        admin(7, 6),
        recall(&t, 8, "a", 9),
        text(&t, 9, "a", "an operation cannot be about the future"),
    ];
    store.append(batch(&t, rows.clone())).await.unwrap();
    let after = everything(store, &t).await;
    assert!(is_recalled(&after[3]));
    for i in [0, 1, 2, 4, 5, 6, 7, 8] {
        assert_eq!(after[i], rows[i], "row {i} stays");
    }
}

async fn pages_at_every_edge<S: ArchiveStore>(store: &S) {
    let t = thread("pages");
    let ids = [10, 20, 30, 40, 50];
    // A neighbour in the order of keys on each side.
    for name in ["page", "pages", "pages-"] {
        let t = thread(name);
        store.append(batch(&t, ids.iter().map(|id| text(&t, *id, "a", "x")).collect())).await.unwrap();
    }
    for lo in (0..=60).step_by(5) {
        for hi in (0..=60).step_by(5).chain([u64::MAX]) {
            for limit in [0, 1, 2, 5, 6] {
                let mut want: Vec<u64> = ids.into_iter().filter(|id| (lo..hi).contains(id)).collect();
                for order in [Order::OldestFirst, Order::NewestFirst] {
                    let got = store.rows(&t, MsgId(lo), MsgId(hi), order, Most::count(limit)).await.unwrap();
                    let got: Vec<u64> = got.iter().map(|r| r.id.0).collect();
                    assert_eq!(got, want[..limit.min(want.len())], "{lo}..{hi} {order:?} {limit}");
                    want.reverse();
                }
            }
        }
    }
}

/// The largest there are: control characters, which JSON spells with six bytes each, and bytes, which it spells in
/// base64.
async fn pages_end_by_their_bytes<S: ArchiveStore>(store: &S) {
    let t = thread("large");
    let body = |id: u64| match id % 3 {
        0 => Body::text("\0".repeat(limits::TEXT_CHARS)),
        1 => Body { data: Some(vec![7; limits::CUSTOM_BYTES].into()), ..Body::default() },
        _ => Body::text("short"),
    };
    let rows: Vec<Row> = (1..=90).map(|id| row(&t, id, "a", Kind::Custom, body(id))).collect();
    for some in rows.chunks(10) {
        store.append(batch(&t, some.to_vec())).await.unwrap();
    }
    for (count, bytes) in
        [(1_000, 1), (1_000, 100_000), (70, 1_000_000), (1_000, 3_000_000), (1_000, usize::MAX), (5, usize::MAX)]
    {
        let most = Most { count, bytes };
        for order in [Order::OldestFirst, Order::NewestFirst] {
            let got = store.rows(&t, MsgId::NONE, MsgId::MAX, order, most).await.unwrap();
            let mut want = rows.clone();
            if order == Order::NewestFirst {
                want.reverse();
            }
            most.keep_first(&mut want);
            assert!(got == want, "{count} {bytes} {order:?}: {} rows, not {}", got.len(), want.len());
        }
    }
}

async fn times_at_every_edge<S: ArchiveStore>(store: &S) {
    let t = thread("times");
    let at = |id, ts| Row { ts, ..text(&t, id, "a", "x") };
    store.append(batch(&t, vec![at(10, 100), at(11, 100), at(500, 200), at(1 << 50, 300)])).await.unwrap();
    let find =
        async |t: &Thread, ts: u64, below: u64| store.id_at(t, ts, MsgId(below)).await.unwrap().map(|e| (e.id.0, e.ts));
    for (ts, found) in [(0, (10, 100)), (100, (10, 100)), (101, (500, 200)), (200, (500, 200)), (201, (1 << 50, 300))] {
        assert_eq!(find(&t, ts, u64::MAX).await, Some(found), "at {ts}");
    }
    assert_eq!(find(&t, 301, u64::MAX).await, None);
    assert_eq!(find(&t, 201, 1 << 50).await, None, "it is not below");
    assert_eq!(find(&thread("no-times"), 0, u64::MAX).await, None);
    // The log's clock is three hours ahead for two messages, then right, then hours behind for one.
    let t = thread("stepped");
    let at = |id, ts| Row { ts, ..text(&t, id, "a", "x") };
    let ahead = 10_800_000;
    let rows = [
        at(1, 1_000),
        at(2, 2_000),
        at(3, ahead),
        at(4, ahead + 1),
        at(5, 3_000),
        at(6, 4_000),
        at(7, 10),
        at(8, 5_000),
    ];
    // Each stretch in a batch of its own, and across batches; and all of it again, as after a crash.
    for some in [&rows[..3], &rows[3..6], &rows[6..], &rows[2..], &rows[..]] {
        store.append(batch(&t, some.to_vec())).await.unwrap();
    }
    for row in &rows {
        assert_eq!(find(&t, row.ts, u64::MAX).await, Some((row.id.0, row.ts)), "each is found by its time");
    }
    for (ts, id) in [(0, 7), (11, 1), (2_001, 5), (3_500, 6), (4_001, 8), (5_001, 3), (ahead + 1, 4)] {
        assert_eq!(find(&t, ts, u64::MAX).await.map(|f| f.0), Some(id), "at {ts}");
    }
    assert_eq!(find(&t, ahead + 2, u64::MAX).await, None);
    assert_eq!(find(&t, 4_001, 8).await, Some((3, ahead)));
}

async fn cids_are_found<S: ArchiveStore>(store: &S) {
    let t = thread("cids");
    let first = text(&t, 10, "a", "x");
    let copy = Row { id: MsgId(900), ts: 1_900, ..first.clone() };
    store.append(batch(&t, vec![copy])).await.unwrap();
    store.append(batch(&t, vec![first.clone(), text(&t, 11, "a", "y")])).await.unwrap();
    let find = async |thread: &Thread, from: &str, since| {
        store.find_cid(thread, &user(from), first.cid, since, 10_000).await.unwrap()
    };
    assert_eq!(find(&t, "a", 0).await, CidLookup::Found(MsgId(10)));
    // What was stored before it need not be looked at.
    assert!(matches!(find(&t, "a", 1_011).await, CidLookup::Found(MsgId(10 | 900))));
    assert!(matches!(find(&t, "a", 1_901).await, CidLookup::Found(MsgId(10)) | CidLookup::Absent));
    assert_eq!(find(&t, "b", 0).await, CidLookup::Absent);
    assert_eq!(find(&thread("cids2"), "a", 0).await, CidLookup::Absent);
    // A store that has to look at each row gives up; it never guesses.
    let short = store.find_cid(&t, &user("b"), first.cid, 0, 1).await.unwrap();
    assert!(matches!(short, CidLookup::Absent | CidLookup::TooMany), "{short:?}");
    let short = store.find_cid(&t, &user("a"), first.cid, 0, 1).await.unwrap();
    assert!(matches!(short, CidLookup::Found(MsgId(10)) | CidLookup::TooMany), "{short:?}");
}

/// A clock that was set back for a moment hides nothing that was stored before.
async fn cids_are_found_where_times_fall<S: ArchiveStore>(store: &S) {
    let t = thread("cids-stepped");
    let at = |id, ts| Row { ts, ..text(&t, id, "a", "x") };
    let sought = at(2, 20_000);
    let rows = [
        at(1, 10_000),
        sought.clone(),
        at(3, 21_000),
        at(4, 1_000),
        at(5, 1_001),
        at(6, 22_000),
        at(7, 2_000),
        at(8, 23_000),
    ];
    for some in rows.chunks(3) {
        store.append(batch(&t, some.to_vec())).await.unwrap();
    }
    let found = store.find_cid(&t, &user("a"), sought.cid, 19_000, 10_000).await.unwrap();
    assert_eq!(found, CidLookup::Found(MsgId(2)));
}

async fn states_only_move_forward<S: ArchiveStore>(store: &S) {
    let t = thread("states");
    let mut state: Option<GroupState> = None;
    let created = row(
        &t,
        1,
        "owner",
        Kind::GroupCreated,
        Body { name: Some("g".into()), users: vec![user("st-m")], ..Body::default() },
    );
    apply_group(&mut state, MsgId(1), &created.entry());
    let old = state.clone().unwrap();
    let removed = row(&t, 5, "owner", Kind::MemberRemoved, Body { users: vec![user("st-m")], ..Body::default() });
    apply_group(&mut state, MsgId(5), &removed.entry());
    let new = state.unwrap();
    let with = |g: &GroupState| ThreadBatch {
        group: Some(g.clone()),
        items: vec![(user("st-m"), g.item(&user("st-m")).unwrap())],
        ..batch(&t, Vec::new())
    };
    for g in [&old, &new, &old] {
        store.append(with(g)).await.unwrap();
    }
    assert_eq!(store.group(&t).await.unwrap().as_ref(), Some(&new));
    let item: ThreadItem = store.item(&t, &user("st-m")).await.unwrap().unwrap();
    assert_eq!(item, new.item(&user("st-m")).unwrap());
    // A rename touches no item; a later one must not lose it.
    let other = thread("states-2");
    store.append(ThreadBatch { items: vec![(user("st-m"), item.clone())], ..batch(&other, Vec::new()) }).await.unwrap();
    let mut threads = store.user_threads(&user("st-m")).await.unwrap();
    threads.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(threads, [(t.clone(), item.clone()), (other, item)]);
    assert_eq!(store.user_threads(&user("nobody")).await.unwrap(), []);
    // The last id is of rows, not of states, and does not move back either.
    store.append(batch(&t, vec![text(&t, 7, "owner", "x")])).await.unwrap();
    store.append(batch(&t, vec![text(&t, 6, "owner", "x")])).await.unwrap();
    assert_eq!(last_entries(store, std::slice::from_ref(&t)).await, [(7, 1_007)]);
    assert_eq!(store.group(&t).await.unwrap(), Some(new));
}

async fn positions_only_move_forward<S: ArchiveStore>(store: &S) {
    let key = PartitionKey { generation: 7, partition: 3 };
    assert_eq!(store.position(key).await.unwrap(), None);
    for (to, want) in [(10, 10), (5, 10), (10, 10), (11, 11)] {
        store.advance(key, Position { id: MsgId(to), ts: to * 2 }).await.unwrap();
        assert_eq!(store.position(key).await.unwrap(), Some(Position { id: MsgId(want), ts: want * 2 }));
    }
    assert_eq!(
        store.position(PartitionKey { generation: 8, ..key }).await.unwrap(),
        None,
        "each generation has its own"
    );
}

async fn what_is_lost_stays_lost<S: ArchiveStore>(store: &S) {
    let there = store.lost().await.unwrap().len();
    let key = PartitionKey { generation: 70, partition: 3 };
    let range = |first, last| LostRange {
        key,
        partitions: 5,
        first: MsgId(first),
        last: MsgId(last),
        since: first,
        until: last,
    };
    // A persister that died between the two writes finds more of it gone when it begins again; or an older one comes
    // late.
    for last in [20, 25, 20, 25] {
        store.lose(range(10, last)).await.unwrap();
    }
    store.lose(range(40, 1 << 52)).await.unwrap();
    let mut lost = store.lost().await.unwrap();
    assert!(lost.windows(2).all(|w| w[0].last <= w[1].last), "{lost:?}");
    assert_eq!(lost.len(), there + 2);
    lost.retain(|l| l.key == key);
    assert_eq!(lost, [range(10, 25), range(40, 1 << 52)]);
    store.advance(key, Position { id: MsgId(1 << 52), ts: 9 }).await.unwrap();
    let positions = store.positions().await.unwrap();
    assert!(positions.contains(&(key, Position { id: MsgId(1 << 52), ts: 9 })), "{positions:?}");
    let (mine, other) = (thread("lost-1"), thread("lost-2"));
    let of = |t: &Thread| LostRange { key: PartitionKey { partition: t.partition(5), ..key }, ..range(10, 25) };
    assert!(of(&mine).concerns(&mine) && of(&other).concerns(&other));
    assert_eq!(of(&mine).concerns(&other), mine.partition(5) == other.partition(5));
    let row = of(&mine).row(&mine);
    assert_eq!((row.id, row.body.target, row.kind, row.ts), (MsgId(25), Some(MsgId(10)), Kind::Lost, 25));
}
