//! How far users have read, from KV into the archive: whoever has a shard's lease follows its keys and copies what
//! changed, a second's changes at a time. `directory/restore` brings it back when the key is lost.

use std::{convert::Infallible, time::Duration};

use futures_util::StreamExt;
use natterjack_nats::{BucketRevision, KeyChange, KvBuckets, KvError};
use natterjack_protocol::{
    UserId,
    internal::{cursors::UserCursors, presence::bucket_revision},
};
use natterjack_role::ShardWork;
use natterjack_runtime::health::Reader;
use tokio::time::interval;

use crate::store::{ArchiveError, ArchiveStore, cursors::ArchivedCursors};

/// How often changes are fetched: many of one user become one row.
const EVERY: Duration = Duration::from_secs(1);
/// Rows in one write.
const ROWS: usize = 1_000;
/// How often the bucket is asked for its newest revision.
const PROBE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("{0}")]
    Kv(#[from] KvError),
    #[error("{0}")]
    Store(#[from] ArchiveError),
}

/// What the copying stands on.
pub(crate) struct CursorCopier<S> {
    pub buckets: KvBuckets,
    pub store: S,
}

impl<S: ArchiveStore> ShardWork for CursorCopier<S> {
    const NAME: &'static str = "persister";
    const PART: &'static str = "cursors";
    type Error = CopyError;

    async fn work(&self, shard: u32, reader: &Reader) -> Result<Infallible, CopyError> {
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

    fn failed(&self, why: &CopyError) {
        tracing::warn!(error = %why, "cursors are not archived now; trying again");
    }
}

/// None: the key was deleted, which it is with the account, whose end takes away the copy; or it was lost.
fn row(change: KeyChange<UserCursors>, made_ms: u64) -> Option<ArchivedCursors> {
    let (user, part) = change.name.split_once(".cursors.")?;
    let (user, cursors) = (UserId::parse(user).ok()?, Some(change.value?));
    Some(ArchivedCursors { user, part: part.to_owned(), revision: bucket_revision(made_ms, change.revision), cursors })
}
