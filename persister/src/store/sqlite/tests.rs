//! The conformance suite over a file, and what only a file can do.

use super::*;
use crate::store::conformance::{self, batch, text, thread};

#[tokio::test]
async fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::all(&Sqlite::open(dir.path().join("sub/n.db")).await.unwrap()).await;
}

#[tokio::test]
async fn a_watermark_alone_says_that_something_was_archived() {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::open(dir.path().join("n.db")).await.unwrap();
    assert!(db.is_empty().await.unwrap());
    db.advance(PartitionKey { generation: 3, partition: 1 }, Position { id: MsgId(1), ts: 1 }).await.unwrap();
    assert!(!db.is_empty().await.unwrap());
}

#[tokio::test]
async fn two_may_open_it_at_once_and_all_is_there_again_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n.db");
    let (a, b) = tokio::join!(Sqlite::open(&path), Sqlite::open(&path));
    let (a, b) = (a.unwrap(), b.unwrap());
    let t = thread("t");
    let row = |id| batch(&t, vec![text(&t, id, "a", "x")]);
    let (x, y) = tokio::join!(a.append(row(1)), b.append(row(2)));
    x.and(y).unwrap();
    drop((a, b));
    let again = Sqlite::open(&path).await.unwrap();
    assert_eq!(again.rows(&t, MsgId::NONE, MsgId::MAX, Order::OldestFirst, Most::count(9)).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_new_file_may_be_opened_by_many_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..40 {
        let path = dir.path().join(format!("{n}.db"));
        let opened = futures_util::future::join_all((0..8).map(|_| Sqlite::open(&path))).await;
        assert!(opened.iter().all(Result::is_ok), "{:?}", opened.into_iter().find_map(Result::err));
    }
}

#[tokio::test]
async fn a_job_that_fails_or_panics_undoes_itself_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::open(dir.path().join("n.db")).await.unwrap();
    let put =
        |p: u32| move |tx: &Transaction<'_>| tx.execute("INSERT INTO positions VALUES (1, ?1, 1, 1)", [p]).map(drop);
    let (good, twice, panics, also_good) = tokio::join!(
        db.write(put(1)),
        db.write(move |tx| put(2)(tx).and_then(|()| put(2)(tx))),
        db.write(move |tx| -> rusqlite::Result<()> {
            put(3)(tx)?;
            panic!("on purpose")
        }),
        db.write(put(4)),
    );
    good.and(also_good).unwrap();
    assert!(matches!(twice, Err(ArchiveError::Constraint(_))), "{twice:?}");
    assert!(matches!(panics, Err(ArchiveError::Unavailable(_))), "{panics:?}");
    let there: Vec<u32> = db
        .read(|c| c.prepare("SELECT partition FROM positions ORDER BY 1")?.query_map([], |r| r.get(0))?.collect())
        .await
        .unwrap();
    assert_eq!(there, [1, 4]);
}

/// What the log does not have is on the disk before its answer; if one job of a transaction needs that, for all of
/// them.
#[tokio::test]
async fn only_what_the_log_has_does_not_wait_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::open(dir.path().join("n.db")).await.unwrap();
    let (full, normal) = (2, 1);
    let is = |wanted: u32| {
        move |tx: &Transaction<'_>| {
            tx.pragma_query_value(None, "synchronous", |r| r.get(0)).map(|is: u32| assert_eq!(is, wanted))
        }
    };
    db.write(is(full)).await.unwrap();
    db.write_from_log(is(normal)).await.unwrap();

    // While the first one runs, the others meet behind it.
    let (begun, has_begun) = std::sync::mpsc::sync_channel(1);
    let (go, on) = std::sync::mpsc::sync_channel(1);
    let first = db.write_from_log(move |_| {
        begun.send(()).unwrap();
        on.recv().unwrap();
        Ok(())
    });
    let others = async {
        tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
        tokio::join!(db.write_from_log(is(full)), db.write(is(full)), async { go.send(()).unwrap() })
    };
    let (first, (together, account, ())) = tokio::join!(first, others);
    first.and(together).and(account).unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_and_one_of_a_later_build_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("junk.db");
    std::fs::write(&path, "this is certainly not a database file, however long one looks at it").unwrap();
    assert!(matches!(Sqlite::open(&path).await.map(drop), Err(ArchiveError::Corrupt(_))));
    let path = dir.path().join("later.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 999).unwrap();
    assert!(matches!(Sqlite::open(&path).await.map(drop), Err(ArchiveError::Failed(_))));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_corrupt_and_not_missing() {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::open(dir.path().join("n.db")).await.unwrap();
    let t = thread("t");
    db.append(batch(&t, vec![text(&t, 1, "a", "x")])).await.unwrap();
    db.write(|tx| tx.execute("UPDATE messages SET body = x'c1'", [])).await.unwrap();
    let read = db.rows(&t, MsgId::NONE, MsgId::MAX, Order::OldestFirst, Most::count(9)).await;
    assert!(matches!(read, Err(ArchiveError::Corrupt(_))), "{read:?}");
}
