//! In whatever order and however often entries are written, beside whatever else: the same in the end.

use super::*;

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

/// A message, two edits of it, a recall, an edit that came after the recall, and one by somebody else.
pub(super) async fn every_order_ends_equal<S: ArchiveStore>(store: &S) {
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
pub(super) async fn power_takes_everything_away_in_every_order<S: ArchiveStore>(store: &S) {
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
pub(super) async fn writers_beside_each_other_end_equal<S: ArchiveStore>(store: &S) {
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
pub(super) async fn a_reader_beside_a_writer_misses_nothing<S: ArchiveStore>(store: &S) {
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
