//! A new system from a backup: the archive with what the log had above it, and a log that goes on in a new generation
//! above both.
//!
//! The target must be empty. Everything is checked before anything is written; the archive gets its name last.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use natterjack_nats::{
    IdFloor, KvBuckets, KvError, Layout, LeaderReader, LogError, LogRecord, Nats, NatsConfig, Position, ProvisionError,
    Record,
};
use natterjack_protocol::{MsgId, Times, UserId, log::EntryView};
use natterjack_runtime::{Health, health::Readers};
use tokio::time::timeout;

use super::{
    LogCopy, Manifest, Origin,
    entries::{self, Key},
    folder::{self, FolderError, at},
    take::{ARCHIVE, CONTROL},
};
use crate::{
    batch,
    run::StoreConfig,
    store::{ArchiveError, ArchiveStore, CidLookup, Cql, PartitionKey, Sqlite},
    write::{Copies, Writer},
};

/// Records written as one batch.
const BATCH: usize = 1_000;
/// A batch takes well under a second; who waits this long waits for a store that will not answer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(
        "the target is not empty: {0}. Stop everything that runs there and move it away first; a backup is restored \
         into an empty system"
    )]
    NotEmpty(String),
    #[error("this backup is of an archive {made}, the configuration names one {here}: {hint}")]
    OtherArchive { made: &'static str, here: &'static str, hint: &'static str },
    #[error(
        "the servers have generation {generation}, partition {partition} up to {found} only, the snapshot had \
         {wanted}: load it first \
         (docs/operations.md, backup and restore)"
    )]
    NotLoaded { generation: u32, partition: u32, found: MsgId, wanted: MsgId },
    #[error("the archive: {0}")]
    Store(#[from] ArchiveError),
    #[error("the archive took no writes for {} s; the log says why. Remove what was begun and restore \
             again", PATIENCE.as_secs())]
    Stuck,
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error("the new log cannot be read: {0}")]
    Log(#[from] LogError),
    #[error("the control bucket cannot be written: {0}")]
    Control(#[from] KvError),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    pub manifest: Manifest,
    /// The log as it goes on.
    pub layout: Layout,
    /// Entries that were in the log's part.
    pub entries: u64,
}

/// An error that names what is there. Reads only.
pub async fn target_is_empty(nats: &Nats, store: &StoreConfig) -> Result<(), RestoreError> {
    if let StoreConfig::Sqlite { path } = store {
        archive_is_not_there(path)?;
    }
    match natterjack_nats::existing_stream(nats).await? {
        Some(stream) => Err(RestoreError::NotEmpty(format!("NATS has the stream {stream}"))),
        None => Ok(()),
    }
}

fn archive_is_not_there(path: &Path) -> Result<(), RestoreError> {
    match path.exists() {
        true => Err(RestoreError::NotEmpty(format!("{} is there", path.display()))),
        false => Ok(()),
    }
}

/// Makes of an empty target the system that the backup was made of.
pub async fn restore(
    nats: &Nats,
    cfg: &NatsConfig,
    times: &Times,
    store: &StoreConfig,
    folder: &Path,
) -> Result<Restored, RestoreError> {
    let manifest = folder::check(folder)?;
    target_is_empty(nats, store).await?;
    match (store, manifest.origin) {
        (StoreConfig::Sqlite { path }, Origin::Up | Origin::Sqlite) => {
            let part = part(path);
            copy(&folder.join(ARCHIVE), &part)?;
            let store = Sqlite::open(&part).await?;
            let restored = fill(nats, cfg, times, &store, folder, manifest).await;
            store.close().await;
            let restored = restored?;
            std::fs::rename(&part, path).map_err(at(path))?;
            Ok(restored)
        }
        (StoreConfig::Cql(cql), Origin::Cql) => {
            let store = Cql::connect(cql).await?.patient();
            loaded(&store, &manifest).await?;
            fill(nats, cfg, times, &store, folder, manifest).await
        }
        (StoreConfig::Sqlite { .. }, Origin::Cql) => Err(RestoreError::OtherArchive {
            made: "on CQL servers",
            here: "in SQLite",
            hint: "set cql.contact_points",
        }),
        (StoreConfig::Cql(_), Origin::Up | Origin::Sqlite) => Err(RestoreError::OtherArchive {
            made: "in SQLite",
            here: "on CQL servers",
            hint: "take cql.contact_points out",
        }),
    }
}

fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".restoring");
    name.into()
}

/// What an earlier try has left is written over.
fn copy(from: &Path, to: &Path) -> Result<(), FolderError> {
    if let Some(folder) = to.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
    }
    for journal in ["-wal", "-shm"] {
        let mut name = to.as_os_str().to_owned();
        name.push(journal);
        // Of an earlier try; not there after one that was not interrupted.
        let _ = std::fs::remove_file(PathBuf::from(name));
    }
    std::fs::copy(from, to).map(drop).map_err(at(to))
}

async fn loaded<S: ArchiveStore>(store: &S, manifest: &Manifest) -> Result<(), RestoreError> {
    for log in &manifest.logs {
        let found = store.position(key(log)).await?.unwrap_or_default().id;
        if found < log.watermark {
            let LogCopy { generation, partition, watermark: wanted, .. } = *log;
            return Err(RestoreError::NotLoaded { generation, partition, found, wanted });
        }
    }
    Ok(())
}

fn key(log: &LogCopy) -> PartitionKey {
    PartitionKey { generation: log.generation, partition: log.partition }
}

/// The log's part into the archive, then the new log, then the keys.
async fn fill<S: ArchiveStore>(
    nats: &Nats,
    cfg: &NatsConfig,
    times: &Times,
    store: &S,
    folder: &Path,
    manifest: Manifest,
) -> Result<Restored, RestoreError> {
    let (mut entries, mut end_ts) = (0, 0);
    // The former generation comes first: in this order the entries of a thread are folded.
    for log in &manifest.logs {
        let (read, end) = append(store, times, &folder.join(log.file()), log).await?;
        entries += read;
        end_ts = end_ts.max(end.ts);
    }
    let cfg = NatsConfig { partitions: manifest.partitions, kv_shards: manifest.kv_shards, ..cfg.clone() };
    let above = IdFloor { generation: manifest.generation, id: manifest.highest() };
    let layout = natterjack_nats::provision::provision_above(nats, &cfg, times, above).await?;
    let tail = LeaderReader::new(nats, layout);
    for partition in 0..layout.partitions {
        // The archive has everything below the new log's beginning, so the two meet.
        let first = tail.bounds(partition).await?.first;
        let key = PartitionKey { generation: layout.generation, partition };
        store.advance(key, Position { id: MsgId(first.0.saturating_sub(1)), ts: end_ts }).await?;
    }
    let control = KvBuckets::new(nats, layout).control();
    let path = folder.join(CONTROL);
    for key in entries::lines::<Key>(&path)? {
        let key = key?;
        control.put(&key.key, key.bytes(&path)?.into()).await?;
    }
    Ok(Restored { manifest, layout, entries })
}

/// One file of the log, as the persister would have archived it. How many entries it had, and where that ends.
async fn append<S: ArchiveStore>(
    store: &S,
    times: &Times,
    file: &Path,
    log: &LogCopy,
) -> Result<(u64, Position), RestoreError> {
    let reader = Readers::new(&Health::new()).open("restore".into());
    let (writer, judge) = (Writer { store, reader: &reader }, ByStore { store, times });
    let (mut read, mut position) = (0, Position { id: log.watermark, ts: log.watermark_ts });
    let mut records = entries::records(file, log)?.peekable();
    while records.peek().is_some() {
        let mut batch = Vec::new();
        while let Some(record) = records
            .next_if(|r| batch.is_empty() || (batch.len() < BATCH && !r.as_ref().is_ok_and(|r| is_late(r, times))))
        {
            batch.push(record?);
        }
        read += batch.len() as u64;
        let write = async {
            // Only the first of a batch can be late: everything below it is in the archive, which judges.
            let hidden: HashSet<MsgId> = writer.copies(&batch[..1], &judge).await;
            let sorted = batch::sort(key(log), position, batch, &hidden);
            let end = sorted.end;
            writer.write(key(log), sorted).await;
            end
        };
        position = timeout(PATIENCE, write).await.map_err(|_| RestoreError::Stuck)?;
    }
    Ok((read, position))
}

/// May it be a copy of an earlier one (P2)?
fn suspect(record: &LogRecord, times: &Times) -> Option<(UserId, natterjack_protocol::Cid)> {
    let view = (!record.control).then(|| EntryView::parse(&record.payload).ok()).flatten()?;
    let sender = UserId::parse(view.from).ok()?;
    view.is_late(record.ts, times).then_some((sender, view.cid))
}

fn is_late(record: &Record, times: &Times) -> bool {
    matches!(record, Record::Entry(record) if suspect(record, times).is_some())
}

/// The late rule where all that is below an entry is in the archive.
struct ByStore<'a, S> {
    store: &'a S,
    times: &'a Times,
}

impl<S: ArchiveStore> Copies for ByStore<'_, S> {
    type Error = ArchiveError;

    async fn is_copy(&self, record: &LogRecord) -> Result<bool, ArchiveError> {
        let Some((sender, cid)) = suspect(record, self.times) else { return Ok(false) };
        let since = cid.unix_ms().saturating_sub(self.times.cid_ahead.as_millis() as u64);
        let found = self.store.find_cid(&record.thread, &sender, cid, since, usize::MAX).await?;
        Ok(matches!(found, CidLookup::Found(id) if id < record.id))
    }
}
