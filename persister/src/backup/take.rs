//! The copy: archive, log, control keys, sums, and last the manifest.

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
};

use natterjack_nats::{
    KvBuckets, KvError, LastBackup, Layout, LayoutError, LeaderReader, LogError, LogReader, Nats, Position, ReadError,
    ReadFrom,
};
use natterjack_protocol::MsgId;
use natterjack_runtime::clock;

use super::{
    FORMAT, LogCopy, Manifest, Origin,
    entries::{Key, Lines},
    folder::{self, FolderError},
};
use crate::store::{ArchiveError, ArchiveStore, Cql, CqlConfig, PartitionKey, Sqlite};

/// Records taken from the log at once.
const BATCH: usize = 1_000;
pub(super) const ARCHIVE: &str = "archive.db";
pub(super) const SNAPSHOT: &str = "archive";
pub(super) const CONTROL: &str = "control.jsonl";
/// What the archive is, and how a copy of it is had.
#[derive(Debug, Clone)]
pub enum Source {
    Sqlite {
        path: PathBuf,
        origin: Origin,
    },
    /// `snapshot` is run with the name of a folder and copies the servers' files into it.
    Cql {
        cfg: Box<CqlConfig>,
        snapshot: PathBuf,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the archive {0} is not there; is this the machine of the persister, and persister.archive its file?")]
    NoArchive(PathBuf),
    #[error("the archive cannot be copied: {0}")]
    Store(#[from] ArchiveError),
    #[error("{command} cannot be run: {source}")]
    Snapshot { command: PathBuf, source: std::io::Error },
    #[error("{command} made no snapshot: it ended with {status}")]
    NoSnapshot { command: PathBuf, status: ExitStatus },
    #[error("the log cannot be read: {0}")]
    Log(#[from] LogError),
    #[error("the log cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("the control bucket cannot be read: {0}")]
    Control(#[from] KvError),
    #[error("the log began generation {0} meanwhile; remove the folder and begin again")]
    Moved(u32),
}

/// Copies a running system into `folder`, which must not have anything in it. Stops nothing and nobody.
pub async fn take(nats: &Nats, source: &Source, folder: &Path, version: &str) -> Result<Manifest, BackupError> {
    let begun_ms = clock::wall_ms();
    folder::make(folder)?;
    let layout = Layout::load(nats).await?;
    let mut logs: Vec<LogCopy> = layout.previous().into_iter().chain([layout]).flat_map(partitions).collect();
    archive(source, folder, &mut logs).await?;
    for log in &mut logs {
        entries(nats, layout, log, folder).await?;
    }
    control(nats, layout, folder).await?;
    let newest = Layout::load(nats).await?;
    if newest.generation != layout.generation {
        return Err(BackupError::Moved(newest.generation));
    }
    let Layout { generation, partitions, kv_shards, .. } = layout;
    let origin = match source {
        Source::Sqlite { origin, .. } => *origin,
        Source::Cql { .. } => Origin::Cql,
    };
    let files = folder::sums(folder)?;
    let natterjack = version.to_owned();
    let manifest =
        Manifest { format: FORMAT, natterjack, begun_ms, origin, generation, partitions, kv_shards, logs, files };
    folder::seal(folder, &manifest)?;
    // For `doctor`; the backup is good without it.
    if let Err(e) = KvBuckets::new(nats, layout).last_backup().put(&LastBackup(begun_ms)).await {
        tracing::warn!(error = %e, "the time of the backup was not noted");
    }
    Ok(manifest)
}

fn partitions(layout: Layout) -> impl Iterator<Item = LogCopy> {
    (0..layout.partitions).map(move |partition| LogCopy {
        generation: layout.generation,
        partition,
        watermark: MsgId::NONE,
        watermark_ts: 0,
        last: MsgId::NONE,
        entries: 0,
        holes: Vec::new(),
    })
}

/// The archive as of one moment, and its watermarks of that moment or before.
async fn archive(source: &Source, folder: &Path, logs: &mut [LogCopy]) -> Result<(), BackupError> {
    match source {
        Source::Sqlite { path, .. } => {
            if !path.is_file() {
                return Err(BackupError::NoArchive(path.clone()));
            }
            let copy = folder.join(ARCHIVE);
            Sqlite::copy(path, &copy).await?;
            let store = Sqlite::open_to_read(&copy).await?;
            watermarks(&store, logs).await
        }
        Source::Cql { cfg, snapshot } => {
            // The servers are copied one after the other: what one of them wrote last, another may not have in its
            // copy. What was written when the first of them began is in all, and that is where the log's part begins.
            let store = Cql::connect(cfg).await?;
            watermarks(&store.patient(), logs).await?;
            let into = folder.join(SNAPSHOT);
            let command = || snapshot.clone();
            let made =
                tokio::process::Command::new(snapshot).arg(&into).arg(&cfg.keyspace).kill_on_drop(true).status().await;
            let status = made.map_err(|source| BackupError::Snapshot { command: command(), source })?;
            if !status.success() || !into.is_dir() {
                return Err(BackupError::NoSnapshot { command: command(), status });
            }
            Ok(())
        }
    }
}

async fn watermarks<S: ArchiveStore>(store: &S, logs: &mut [LogCopy]) -> Result<(), BackupError> {
    for log in logs {
        let key = PartitionKey { generation: log.generation, partition: log.partition };
        let Position { id, ts } = store.position(key).await?.unwrap_or_default();
        (log.watermark, log.watermark_ts) = (id, ts);
    }
    Ok(())
}

/// What the log has above the watermark, up to its end now.
async fn entries(nats: &Nats, newest: Layout, log: &mut LogCopy, folder: &Path) -> Result<(), BackupError> {
    let layout = newest.previous().filter(|before| before.generation == log.generation).unwrap_or(newest);
    let bounds = LeaderReader::new(nats, layout).bounds(log.partition).await?;
    log.last = bounds.last;
    let mut lines = Lines::create(&folder.join(log.file()))?;
    let mut reader = LogReader::briefly(nats, layout, log.partition, ReadFrom::After(log.watermark));
    // Of an empty stream the end lies just before the first entry that will be.
    let empty = bounds.entries == 0 || log.watermark >= bounds.last;
    while !empty && reader.position() < bounds.last {
        let batch = reader.next_batch(BATCH).await?;
        if let Some(hole) = batch.hole {
            tracing::error!(
                generation = log.generation, partition = log.partition, from = %hole.0, to = %hole.1,
                "the log lost entries before they were archived; the backup does not have them, either"
            );
            log.holes.push(hole);
        }
        for record in batch.records.iter().take_while(|r| r.id() <= bounds.last) {
            lines.record(log, record)?;
            log.entries += 1;
        }
    }
    Ok(lines.end()?)
}

/// What cannot be made again: the keys that check tokens which are out, and which logins are over.
async fn control(nats: &Nats, layout: Layout, folder: &Path) -> Result<(), BackupError> {
    let (buckets, mut lines) = (KvBuckets::new(nats, layout), Lines::create(&folder.join(CONTROL))?);
    let (signing, revoked) = (buckets.signing_keys(), buckets.revoked_logins());
    for keys in [signing.pattern(), revoked.pattern()] {
        for (key, value) in buckets.control().list(keys).await? {
            lines.write(&Key::new(key, &value))?;
        }
    }
    Ok(lines.end()?)
}
