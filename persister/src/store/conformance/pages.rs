//! What is read from which place on: pages, times, and entries by their cid.

use super::*;

pub(super) async fn pages_at_every_edge<S: ArchiveStore>(store: &S) {
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
pub(super) async fn pages_end_by_their_bytes<S: ArchiveStore>(store: &S) {
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

pub(super) async fn times_at_every_edge<S: ArchiveStore>(store: &S) {
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

pub(super) async fn cids_are_found<S: ArchiveStore>(store: &S) {
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
pub(super) async fn cids_are_found_where_times_fall<S: ArchiveStore>(store: &S) {
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
