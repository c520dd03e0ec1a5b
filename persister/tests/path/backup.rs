//! A backup of a running system, and the system that is made of it: the same archive as if the old one had gone on to
//! its end.

use std::{path::Path, sync::atomic::Ordering};

use natterjack_nats::{KvBuckets, LastBackup, Layout, LeaderReader, Publisher, subjects};
use natterjack_persister::{
    StoreConfig,
    backup::{self, BackupError, FolderError, Origin, RestoreError, Source},
    store::{ArchiveStore, PartitionKey, Sqlite},
};
use natterjack_protocol::{
    Body, Cid, Entry, Kind, MsgId, Thread, Times, Token,
    internal::kv::{PublicKey, RevokedLogin},
    log::Role,
};
use natterjack_testkit::now_ms;

use super::kit::*;

const TABLES: [&str; 4] = ["messages", "threads", "thread_members", "strays"];

/// Every row of every table that the log makes, as text.
async fn contents(store: &Sqlite) -> Vec<String> {
    let mut all = Vec::new();
    for table in TABLES {
        let rows = store
            .read(move |c| {
                let mut statement = c.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2"))?;
                let columns = statement.column_count();
                let row = |r: &rusqlite::Row<'_>| {
                    let cells = (0..columns).map(|i| r.get::<_, rusqlite::types::Value>(i).map(|v| format!("{v:?}")));
                    Ok(format!("{table}: {}", cells.collect::<Result<Vec<_>, _>>()?.join(" ")))
                };
                statement.query_map([], row)?.collect::<Result<Vec<_>, _>>()
            })
            .await
            .unwrap();
        all.extend(rows);
    }
    all
}

fn source(path: &Path) -> Source {
    Source::Sqlite { path: path.to_owned(), origin: Origin::Sqlite }
}

fn into(path: &Path) -> StoreConfig {
    StoreConfig::Sqlite { path: path.to_owned() }
}

/// The newest generation and the one before, archived in part; operations, control entries, rubbish and a copy that
/// came late above it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_had_above_the_archive_is_in_the_restored_one() {
    let times = Times { late: std::time::Duration::from_millis(200), ..Times::default() };
    let mut w = World::with(times).await;
    let (g, dm): (Thread, Thread) = (group("g"), "dm.a.b".parse().unwrap());
    w.send(
        &g,
        "owner",
        Kind::GroupCreated,
        Body { users: vec![user("a"), user("b")], name: Some("g".into()), ..Body::default() },
    )
    .await;
    w.send(&dm, "a", Kind::DmStarted, Body::default()).await;
    let (first, edited) = (w.say(&g, "a", "one").await, w.say(&dm, "a", "two").await);
    let archive = w.archive("a");
    w.archived(&g, first).await;
    w.archived(&dm, edited).await;
    // From here on only the log has it, in two generations.
    w.store.stuck.store(true, Ordering::SeqCst);
    drop(archive);
    w.send(&dm, "a", Kind::Edit, on(edited, Some("zwei"))).await;
    w.send(&g, "owner", Kind::RoleChanged, Body { users: vec![user("a")], role: Some(Role::Admin), ..Body::default() })
        .await;
    let old = w.layout;
    w.switch(3).await;
    let cid = Cid::mint(now_ms() - 3_600_000, rand::random());
    let kept = w.send_as(&g, "b", cid, Kind::Text, Body::text("once")).await;
    // Past the window of duplicates, as after a freeze: shown to nobody.
    let entry = Entry::new(user("b"), cid, Kind::Text, Body::text("twice"));
    let copy =
        Publisher::new(&w.nats, w.layout, w.times.clone()).message(&g, "another-id", entry.encode()).await.unwrap().id;
    w.raw(format!("chat.{}.0.not-a-thread", w.layout.generation), b"stray").await;
    w.raw(subjects::chat(w.layout.generation, w.layout.partition(&g), &g), b"\xc1junk").await;
    let recalled = w.send(&g, "a", Kind::Recall, on(first, None)).await;
    let buckets = KvBuckets::new(&w.nats, w.layout);
    let (k1, family) = keys();
    buckets.signing_key(&token("k1")).put(&k1).await.unwrap();
    buckets.revoked_login(&token("family")).put(&family).await.unwrap();

    let (path, folder) = (w.dir.path().join("n.db"), w.dir.path().join("backup"));
    let manifest = backup::take(&w.nats, &source(&path), &folder, "0.0").await.unwrap();
    assert_eq!((manifest.generation, manifest.partitions, manifest.logs.len()), (w.layout.generation, 3, 5));
    assert!(
        manifest.highest() >= recalled && manifest.logs.iter().map(|l| l.entries).sum::<u64>() >= 7,
        "{manifest:?}"
    );
    assert_eq!(buckets.last_backup().load().await.unwrap(), Some(LastBackup(manifest.begun_ms)));

    // The old system goes on to its end: that is what the restored one has to be equal to.
    w.store.stuck.store(false, Ordering::SeqCst);
    w.history.goes_on(w.layout);
    let _archive = w.archive("b");
    w.archived(&g, recalled).await;
    let dm_end = LeaderReader::new(&w.nats, old).bounds(old.partition(&dm)).await.unwrap().last;
    w.archived_in(old, &dm, dm_end).await;
    eventually("the stray is there", async || contents(&w.store.inner).await.iter().any(|r| r.starts_with("strays")))
        .await;

    let new = Bare::new().await;
    let restored_to = new.dir.path().join("deep/er/archive.db");
    let restored = backup::restore(&new.nats, &new.cfg, &w.times, &into(&restored_to), &folder).await.unwrap();
    let left: Vec<_> =
        std::fs::read_dir(restored_to.parent().unwrap()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(left, ["archive.db"]);
    let store = Sqlite::open(&restored_to).await.unwrap();
    assert_eq!(contents(&store).await, contents(&w.store.inner).await);
    assert!(
        kept < copy && !contents(&store).await.iter().any(|row| row.contains(&copy.0.to_string())),
        "the copy is in no row"
    );
    goes_on(&new, &store, restored.layout, manifest.highest()).await;
}

fn token(s: &str) -> Token {
    s.parse().unwrap()
}

/// Those that cannot be made again.
fn keys() -> (PublicKey, RevokedLogin) {
    let login = RevokedLogin { user: token("u1"), device: token("d1"), until: 2 };
    (PublicKey { ed25519: vec![7; 32], until: 1 }, login)
}

/// In a later generation, above every id there was, with archive and log meeting, and the keys that cannot be made
/// again.
async fn goes_on(new: &Bare, store: &Sqlite, layout: Layout, highest: MsgId) {
    assert_eq!((layout.former, layout.next), (None, None));
    let now = Layout::load(&new.nats).await.unwrap();
    assert_eq!((now, now.generation), (layout, 3));
    for partition in 0..layout.partitions {
        let bounds = LeaderReader::new(&new.nats, layout).bounds(partition).await.unwrap();
        let key = PartitionKey { generation: layout.generation, partition };
        assert_eq!(store.position(key).await.unwrap().unwrap().id, bounds.last);
        assert!(bounds.first.0 > highest.0 + (1 << 31), "{bounds:?} {highest}");
    }
    let buckets = KvBuckets::new(&new.nats, layout);
    let (k1, family) = keys();
    assert_eq!(buckets.signing_key(&token("k1")).load().await.unwrap(), Some(k1));
    assert_eq!(buckets.revoked_login(&token("family")).load().await.unwrap(), Some(family));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_restored_is_refused_before_anything_is_written() {
    let w = World::new().await;
    w.say(&group("g"), "a", "one").await;
    let (path, folder) = (w.dir.path().join("n.db"), w.dir.path().join("backup"));
    backup::take(&w.nats, &source(&path), &folder, "0.0").await.unwrap();
    let again = backup::take(&w.nats, &source(&path), &folder, "0.0").await.unwrap_err();
    assert!(matches!(again, BackupError::Folder(FolderError::NotEmpty(_))), "{again}");
    let nowhere =
        backup::take(&w.nats, &source(&w.dir.path().join("no.db")), &w.dir.path().join("b2"), "0.0").await.unwrap_err();
    assert!(nowhere.to_string().contains("persister.archive"), "{nowhere}");

    let new = Bare::new().await;
    let target = new.dir.path().join("archive.db");
    let restore = async |bare: &natterjack_nats::Nats, target: &Path, folder: &Path| {
        backup::restore(bare, &new.cfg, &w.times, &into(target), folder).await.unwrap_err()
    };
    let none = restore(&new.nats, &target, w.dir.path()).await;
    assert!(matches!(none, RestoreError::Folder(FolderError::NotABackup(_))), "{none}");
    // The target has something: the file, or the streams.
    std::fs::write(&target, "somebody's").unwrap();
    let there = restore(&new.nats, &target, &folder).await;
    assert!(matches!(&there, RestoreError::NotEmpty(what) if what.contains("archive.db")), "{there}");
    assert_eq!(std::fs::read(&target).unwrap(), b"somebody's");
    std::fs::remove_file(&target).unwrap();
    let streams = restore(&w.nats, &target, &folder).await;
    assert!(matches!(&streams, RestoreError::NotEmpty(what) if what.contains("stream")), "{streams}");
    // One byte of the archive.
    let (copy, mut bytes) = (folder.join("archive.db"), std::fs::read(folder.join("archive.db")).unwrap());
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    let damaged = restore(&new.nats, &target, &folder).await;
    assert!(matches!(&damaged, RestoreError::Folder(FolderError::Damaged(name)) if name == "archive.db"), "{damaged}");
    assert!(!target.exists() && Layout::load(&new.nats).await.is_err(), "nothing was written");
}
