//! What every store must do, whatever is behind it: one suite, generic over the trait. Each backend runs [`all`] from
//! its own tests. Threads are named after the test, so that one store serves the whole suite.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use natterjack_nats::{BucketRevision, Position};
use natterjack_protocol::{
    Body, Cid, DeviceId, Entry, Kind, Most, MsgId, Thread, Token, UserId,
    internal::cursors::UserCursors,
    limits,
    log::fold::{GroupState, ThreadItem, apply_group},
    merge::MaxMerge,
};

use crate::store::{
    ArchiveStore, CidLookup, LostRange, Order, PartitionKey, Row, ThreadBatch, UnknownSubject,
    cursors::ArchivedCursors, overlay::is_recalled,
};

// By their paths, which hold also where the tests of a backend include this file.
#[path = "conformance/orders.rs"]
mod orders;
#[path = "conformance/pages.rs"]
mod pages;

use orders::*;
use pages::*;

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
    cursors_of_the_largest_revision_stay(store).await;
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

/// As many at once as a server that has just started answers in time.
async fn side_by_side<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    stream::iter(all).buffered(100).collect().await
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

async fn cursors_of_the_largest_revision_stay<S: ArchiveStore>(store: &S) {
    let (user, other) = (user("reader"), user("reader-2"));
    let read = |id: u64| {
        let mut cursors = UserCursors::default();
        cursors.add_read(&thread("read-1"), MsgId(id), 1_900_000_000);
        cursors.add_got(&user_device(), &thread("read-2"), MsgId(id + 1));
        cursors
    };
    let part = |part: &str, revision, cursors| {
        let (user, part) = (user.clone(), part.to_owned());
        ArchivedCursors { user, part, revision, cursors }
    };
    let row = |revision, cursors| part("0", revision, cursors);
    assert_eq!(store.cursors(&user).await.unwrap(), None);
    // Two persisters that hold the shard for a moment may write in any order.
    let newer = (1 << 52) + 7;
    for revision in [newer, 3, newer, 4] {
        store.put_cursors(vec![row(revision, Some(read(revision)))]).await.unwrap();
    }
    assert_eq!(store.cursors(&user).await.unwrap(), Some(read(newer)));
    assert_eq!(store.cursors(&other).await.unwrap(), None);
    store.put_cursors(vec![row(newer + 1, None), row(newer - 1, Some(read(5)))]).await.unwrap();
    assert_eq!(store.cursors(&user).await.unwrap(), None);
    store.put_cursors(vec![row(newer + 2, Some(read(9)))]).await.unwrap();
    assert_eq!(store.cursors(&user).await.unwrap(), Some(read(9)));
    // One that was cut: what stands in its parts.
    let mut of_part = UserCursors::default();
    of_part.add_read(&thread("read-3"), MsgId(11), 1_900_000_000);
    store.put_cursors(vec![part("0a", 5, Some(of_part.clone()))]).await.unwrap();
    let mut both = read(9);
    both.merge_max(&of_part);
    assert_eq!(store.cursors(&user).await.unwrap(), Some(both));
    store.put_cursors(vec![ArchivedCursors::deleted(user.clone())]).await.unwrap();
    store.put_cursors(vec![row(newer + 3, Some(read(9)))]).await.unwrap();
    assert_eq!(store.cursors(&user).await.unwrap(), None, "whatever comes late");

    assert_eq!(store.cursors_position(7).await.unwrap(), None);
    for (made_ms, revision) in [(1_900_000_000_000, 5), (1_900_000_000_000, 9), (1_900_000_000_001, 2)] {
        let to = BucketRevision { made_ms, revision };
        store.cursors_reached(7, to).await.unwrap();
        assert_eq!(store.cursors_position(7).await.unwrap(), Some(to), "a bucket that was made again counts from 1");
    }
    assert_eq!(store.cursors_position(8).await.unwrap(), None);
}

fn user_device() -> DeviceId {
    Token::parse("phone").unwrap()
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
