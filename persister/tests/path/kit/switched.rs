//! A SQLite file behind a switch.

use natterjack_nats::BucketRevision;
use natterjack_persister::store::{CursorArchive, cursors::ArchivedCursors};
use natterjack_protocol::internal::cursors::UserCursors;

use super::*;

/// The store, and the ways in which it can be away.
#[derive(Clone)]
pub struct Switched {
    pub inner: Sqlite,
    /// Nothing works.
    pub away: Arc<AtomicBool>,
    /// Rows are written, the watermark does not move: what a crash between the two leaves.
    pub stuck: Arc<AtomicBool>,
    /// So many more calls are answered, the next never; below zero, it has come: the moment to kill who called.
    pub calls_left: Arc<AtomicI64>,
    /// As a store without an index of cids, after 10,000 later messages.
    pub searches: Arc<AtomicBool>,
}

impl Switched {
    async fn there(&self) -> Result<&Sqlite, ArchiveError> {
        if self.calls_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            std::future::pending::<()>().await;
        }
        if self.away.load(Ordering::SeqCst) {
            Err(ArchiveError::Unavailable("switched off".into()))
        } else {
            Ok(&self.inner)
        }
    }
}

impl CursorArchive for Switched {
    async fn put_cursors(&self, rows: Vec<ArchivedCursors>) -> Result<(), ArchiveError> {
        self.there().await?.put_cursors(rows).await
    }
    async fn cursors(&self, user: &UserId) -> Result<Option<UserCursors>, ArchiveError> {
        self.there().await?.cursors(user).await
    }
    async fn cursors_reached(&self, shard: u32, to: BucketRevision) -> Result<(), ArchiveError> {
        self.there().await?.cursors_reached(shard, to).await
    }
    async fn cursors_position(&self, shard: u32) -> Result<Option<BucketRevision>, ArchiveError> {
        self.there().await?.cursors_position(shard).await
    }
}

impl ArchiveStore for Switched {
    async fn append(&self, batch: ThreadBatch) -> Result<(), ArchiveError> {
        self.there().await?.append(batch).await
    }
    async fn keep_unknown_subject(&self, stray: UnknownSubject) -> Result<(), ArchiveError> {
        self.there().await?.keep_unknown_subject(stray).await
    }
    async fn is_empty(&self) -> Result<bool, ArchiveError> {
        self.there().await?.is_empty().await
    }
    async fn advance(&self, key: PartitionKey, to: Position) -> Result<(), ArchiveError> {
        if self.stuck.load(Ordering::SeqCst) {
            return Err(ArchiveError::Unavailable("stuck".into()));
        }
        self.there().await?.advance(key, to).await
    }
    async fn position(&self, key: PartitionKey) -> Result<Option<Position>, ArchiveError> {
        self.there().await?.position(key).await
    }
    async fn positions(&self) -> Result<Vec<(PartitionKey, Position)>, ArchiveError> {
        self.there().await?.positions().await
    }
    async fn lose(&self, lost: LostRange) -> Result<(), ArchiveError> {
        self.there().await?.lose(lost).await
    }
    async fn lost(&self) -> Result<Vec<LostRange>, ArchiveError> {
        self.there().await?.lost().await
    }
    async fn rows(
        &self,
        thread: &Thread,
        lo: MsgId,
        hi: MsgId,
        order: Order,
        most: Most,
    ) -> Result<Vec<Row>, ArchiveError> {
        self.there().await?.rows(thread, lo, hi, order, most).await
    }
    async fn id_at(&self, thread: &Thread, ts: u64, below: MsgId) -> Result<Option<LastEntry>, ArchiveError> {
        self.there().await?.id_at(thread, ts, below).await
    }
    async fn find_cid(
        &self,
        thread: &Thread,
        from: &UserId,
        cid: Cid,
        since: u64,
        max: usize,
    ) -> Result<CidLookup, ArchiveError> {
        let found = self.there().await?.find_cid(thread, from, cid, since, max).await;
        if self.searches.load(Ordering::SeqCst) { found.map(|_| CidLookup::TooMany) } else { found }
    }
    async fn last_entries(&self, threads: &[Thread]) -> Result<Vec<LastEntry>, ArchiveError> {
        self.there().await?.last_entries(threads).await
    }
    async fn controls(&self, thread: &Thread, below: MsgId) -> Result<Vec<Row>, ArchiveError> {
        self.there().await?.controls(thread, below).await
    }
    async fn group(&self, thread: &Thread) -> Result<Option<GroupState>, ArchiveError> {
        self.there().await?.group(thread).await
    }
    async fn item(&self, thread: &Thread, user: &UserId) -> Result<Option<ThreadItem>, ArchiveError> {
        self.there().await?.item(thread, user).await
    }
    async fn user_threads(&self, user: &UserId) -> Result<Vec<(Thread, ThreadItem)>, ArchiveError> {
        self.there().await?.user_threads(user).await
    }
}
