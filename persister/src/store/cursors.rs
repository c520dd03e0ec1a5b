//! How far users have read, as the archive keeps it: a copy of what stands in KV, for when that is lost.

use std::future::Future;

use natterjack_nats::BucketRevision;
use natterjack_protocol::{UserId, internal::cursors::UserCursors};

use super::ArchiveError;

/// What stood in KV for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedCursors {
    pub user: UserId,
    /// Of the key; one of a later bucket is larger (`bucket_revision`).
    pub revision: u64,
    /// None: the account was deleted.
    pub cursors: Option<UserCursors>,
}

impl ArchivedCursors {
    /// Larger than every revision: nothing that comes late brings them back.
    pub fn deleted(user: UserId) -> Self {
        Self { user, revision: (1 << 62), cursors: None }
    }
}

pub trait CursorArchive {
    /// Of several for one user the one with the largest revision stays, whatever order they come in.
    fn put_cursors(&self, rows: Vec<ArchivedCursors>) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    /// None: nothing was copied of this user, or they are gone.
    fn cursors(&self, user: &UserId) -> impl Future<Output = Result<Option<UserCursors>, ArchiveError>> + Send;

    /// Everything up to here was copied from this shard of the bucket.
    fn cursors_reached(&self, shard: u32, to: BucketRevision) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    fn cursors_position(&self, shard: u32)
    -> impl Future<Output = Result<Option<BucketRevision>, ArchiveError>> + Send;
}
