//! How far users have read, from KV into the archive: whoever has a shard's lease follows its keys and copies what
//! changed, a second's changes at a time. `directory/restore` brings it back when the key is lost.

use std::{convert::Infallible, time::Duration};

use futures_util::StreamExt;
use natterjack_nats::{BucketRevision, KeyChange, KvBuckets, KvError, RoleLease};
use natterjack_protocol::{
    Times, UserId,
    internal::{cursors::UserCursors, presence::bucket_revision},
};
use natterjack_runtime::health::{Reader, Readers};
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::store::{ArchiveError, ArchiveStore, cursors::ArchivedCursors};

/// Names the lease and the part of the health.
const NAME: &str = "persister";
/// How often changes are fetched: many of one user become one row.
const EVERY: Duration = Duration::from_secs(1);
/// Rows in one write.
const ROWS: usize = 1_000;
/// Before a shard is begun again after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the bucket is asked for its newest revision.
const PROBE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error("{0}")]
    Kv(#[from] KvError),
    #[error("{0}")]
    Store(#[from] ArchiveError),
}

/// What the copying stands on.
pub(crate) struct CursorCopier<S> {
    pub buckets: KvBuckets,
    pub shards: u32,
    pub store: S,
    pub instance: String,
    pub times: Times,
}

impl<S: ArchiveStore> CursorCopier<S> {
    /// Copies every shard whose lease it gets, until `stop`.
    pub async fn run(self, readers: Readers, stop: CancellationToken) {
        let copier = std::sync::Arc::new(self);
        let mut shards = JoinSet::new();
        for shard in 0..copier.shards {
            let (copier, reader) = (copier.clone(), readers.open(format!("cursors.{shard}").into()));
            let span = tracing::info_span!("shard", role = NAME, shard);
            let stop = stop.clone();
            shards.spawn(async move { copier.keep(shard, reader, stop).await }.instrument(span));
        }
        while shards.join_next().await.is_some() {}
    }

    async fn keep(&self, shard: u32, reader: Reader, stop: CancellationToken) {
        let mut lease = RoleLease::of_shard(&self.buckets, NAME, shard, &self.instance, &self.times);
        let trouble = reader.trouble();
        while !stop.is_cancelled() {
            reader.rest();
            tokio::select! {
                () = stop.cancelled() => break,
                () = lease.acquire() => {}
                // Whoever stands by knows no end, and needs none.
                never = stands_by(&reader) => match never {},
            }
            let mut held = lease.held();
            let ended = tokio::select! {
                () = stop.cancelled() => break,
                _ = held.wait_for(|held| !held) => continue,
                ended = self.copy(shard, &reader) => ended,
            };
            let Err(why) = ended;
            tracing::warn!(error = %why, "cursors are not archived now; trying again");
            trouble.is(Some(format!("begins again after: {why}")));
            let _ = stop.run_until_cancelled(sleep(AGAIN)).await;
            trouble.is(None);
        }
        lease.release().await;
    }

    async fn copy(&self, shard: u32, reader: &Reader) -> Result<Infallible, CopyError> {
        reader.begin();
        reader.doing("copies how far users have read");
        let from = self.store.cursors_position(shard).await?.unwrap_or_default();
        let keys = self.buckets.cursors_of_shard(shard);
        let (mut changes, progress) = keys.watch_gathered(EVERY, from).await?;
        let mut probe = interval(PROBE);
        loop {
            let first = tokio::select! {
                change = changes.next() => change,
                _ = probe.tick() => {
                    reader.at(progress.seen());
                    reader.end(progress.newest().await?);
                    reader.at(progress.seen());
                    continue;
                }
            };
            // The bucket may be another one with the next change.
            let row = |change| row(change, progress.created_ms());
            let mut rows: Vec<ArchivedCursors> = first.into_iter().filter_map(row).collect();
            // Those that are here already.
            while rows.len() < ROWS
                && let Some(Some(change)) = futures_util::FutureExt::now_or_never(changes.next())
            {
                rows.extend(row(change));
            }
            let reached = BucketRevision { made_ms: progress.created_ms(), revision: progress.seen() };
            let copied = rows.len() as u64;
            self.store.put_cursors(rows).await?;
            metrics::counter!(crate::metrics::CURSORS_COPIED).increment(copied);
            self.store.cursors_reached(shard, reached).await?;
            reader.at(reached.revision);
        }
    }
}

/// None: the key was deleted, which it is with the account, whose end takes away the copy; or it was lost.
fn row(change: KeyChange<UserCursors>, made_ms: u64) -> Option<ArchivedCursors> {
    let (user, part) = change.name.split_once(".cursors.")?;
    let (user, cursors) = (UserId::parse(user).ok()?, Some(change.value?));
    Some(ArchivedCursors { user, part: part.to_owned(), revision: bucket_revision(made_ms, change.revision), cursors })
}

async fn stands_by(reader: &Reader) -> Infallible {
    let mut tick = interval(PROBE);
    loop {
        tick.tick().await;
        reader.end(0);
    }
}
