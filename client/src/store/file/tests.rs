use natterjack_protocol::{Body, Refusal, Thread};

use super::*;
use crate::resume::SyncPoint;

fn row(local: u64, text: &str) -> Unsent {
    let thread: Thread = "dm.a.b".parse().unwrap();
    Unsent {
        local: Local(local),
        thread,
        kind: Kind::Text,
        body: Body::text(text),
        cid: None,
        failed: None,
        unsure: false,
    }
}

fn cid(n: u8) -> Cid {
    Cid::mint(1_800_000_000_000, [n; 10])
}

fn reopen(path: &Path, file: File) -> (File, Stored) {
    drop(file);
    File::open(path).unwrap()
}

#[test]
fn everything_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/client.db");
    let (file, stored) = File::open(&path).unwrap();
    assert!(stored.outbox.is_empty() && stored.tokens.is_none());
    assert_eq!(stored.next_local, 1);
    let refusal = Refusal::invalid("no");
    let changes = [
        Change::Insert(Box::new(row(1, "one"))),
        Change::Insert(Box::new(row(2, "two"))),
        Change::Insert(Box::new(row(3, "three"))),
        Change::Cid(Local(1), Some(cid(1))),
        Change::Fail(Local(2), refusal.clone()),
        Change::Remove(Local(3)),
    ];
    let mut marks = Marks::default();
    marks.cursors.insert("dm.a.b".parse().unwrap(), Cursor { id: MsgId(9), ts: 90 });
    marks.synced = Some(SyncPoint { mark: "2.5".into(), at_ms: 7 });
    file.apply(&changes, &marks).unwrap();
    let tokens = Tokens {
        user: "u1".parse().unwrap(),
        name: "Alice".into(),
        device: "d1".parse().unwrap(),
        access: "a".into(),
        expires_in: 1,
        refresh: "r".into(),
    };
    file.save_login(&tokens.device, Some(&tokens)).unwrap();

    let (file, stored) = reopen(&path, file);
    assert_eq!(
        stored.outbox,
        [Unsent { cid: Some(cid(1)), ..row(1, "one") }, Unsent { failed: Some(refusal), ..row(2, "two") }]
    );
    assert_eq!(stored.cursors, [("dm.a.b".parse().unwrap(), Cursor { id: MsgId(9), ts: 90 })]);
    assert_eq!(stored.synced, marks.synced);
    assert_eq!(stored.next_local, 4, "a key is never used again, though its message is gone");
    assert!(stored.tokens == Some(tokens.clone()));

    marks.cursors.insert("dm.a.b".parse().unwrap(), Cursor { id: MsgId(3), ts: 30 });
    file.apply(&[], &marks).unwrap();
    file.save_login(&tokens.device, None).unwrap();
    let (_, stored) = reopen(&path, file);
    assert_eq!(stored.cursors[0].1, Cursor { id: MsgId(9), ts: 90 }, "cursors only move forward");
    assert!(stored.tokens.is_none());
    assert_eq!((stored.owner.as_deref(), stored.device.as_ref().map(DeviceId::as_str)), (Some("Alice"), Some("d1")));
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.db");
    let (_file, _) = File::open(&path).unwrap();
    assert!(matches!(File::open(&path), Err(StoreError::InUse(_))));
}

/// A copy of the files as they stand is what a kill leaves behind; cutting the journal is a torn last write.
#[test]
fn a_kill_loses_nothing_that_was_stored_and_a_torn_tail_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.db");
    let (file, _) = File::open(&path).unwrap();
    file.apply(&[Change::Insert(Box::new(row(1, "one"))), Change::Cid(Local(1), Some(cid(1)))], &Marks::default())
        .unwrap();
    let wal = dir.path().join("client.db-wal");
    let whole = std::fs::metadata(&wal).unwrap().len();
    file.apply(&[Change::Insert(Box::new(row(2, "two")))], &Marks::default()).unwrap();
    let longer = std::fs::metadata(&wal).unwrap().len();
    assert!(longer > whole);

    let copy = |name: &str, cut: u64| {
        let to = dir.path().join(name);
        std::fs::copy(&path, &to).unwrap();
        let journal = dir.path().join(format!("{name}-wal"));
        std::fs::copy(&wal, &journal).unwrap();
        std::fs::File::options().write(true).open(&journal).unwrap().set_len(longer - cut).unwrap();
        let (_, stored) = File::open(&to).unwrap();
        stored.outbox
    };
    assert_eq!(copy("killed", 0).len(), 2);
    for (i, cut) in [1, 7, 100, (longer - whole) / 2, longer - whole].into_iter().enumerate() {
        let rows = copy(&format!("torn{i}"), cut);
        assert_eq!(rows, [Unsent { cid: Some(cid(1)), ..row(1, "one") }], "cut by {cut}");
    }
}

#[test]
fn a_file_of_something_else_is_refused_without_showing_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.db");
    std::fs::write(&path, "a letter, and a secret one. ".repeat(100)).unwrap();
    let Err(e) = File::open(&path).map(|_| ()) else { panic!("opened") };
    assert!(matches!(e, StoreError::Corrupt { .. }), "{e}");
    assert!(!e.to_string().contains("secret"));
}

#[cfg(unix)]
#[test]
fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.db");
    let (file, _) = File::open(&path).unwrap();
    file.apply(&[Change::Insert(Box::new(row(1, "one")))], &Marks::default()).unwrap();
    for name in ["client.db", "client.db-wal"] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}
