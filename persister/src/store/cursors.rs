//! How far users have read, as the archive keeps it: a copy of what stands in KV, for when that is lost.

use std::future::Future;

use natterjack_nats::BucketRevision;
use natterjack_protocol::{UserId, internal::cursors::UserCursors, merge::MaxMerge};

use super::ArchiveError;

/// The part whose row says whether there is anything of a user.
pub const WHOLE: &str = "0";

/// What stood in KV under one key of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedCursors {
    pub user: UserId,
    /// The place of the key in its tree.
    pub part: String,
    /// Of the key; one of a later bucket is larger (`bucket_revision`).
    pub revision: u64,
    /// None: the account was deleted.
    pub cursors: Option<UserCursors>,
}

impl ArchivedCursors {
    /// Larger than every revision: nothing that comes late brings them back.
    pub fn deleted(user: UserId) -> Self {
        Self { user, part: WHOLE.into(), revision: (1 << 62), cursors: None }
    }
}

pub trait CursorArchive {
    /// Of several for one key the one with the largest revision stays, whatever order they come in. Without a whole
    /// there are no parts.
    fn put_cursors(&self, rows: Vec<ArchivedCursors>) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    /// All parts together. None: nothing was copied of this user, or they are gone.
    fn cursors(&self, user: &UserId) -> impl Future<Output = Result<Option<UserCursors>, ArchiveError>> + Send;

    /// Everything up to here was copied from this shard of the bucket.
    fn cursors_reached(&self, shard: u32, to: BucketRevision) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    fn cursors_position(&self, shard: u32)
    -> impl Future<Output = Result<Option<BucketRevision>, ArchiveError>> + Send;
}

/// Of the parts of a user.
pub(super) fn joined(parts: impl IntoIterator<Item = (String, Option<UserCursors>)>) -> Option<UserCursors> {
    let (mut all, mut whole) = (UserCursors::default(), false);
    for (part, cursors) in parts {
        if let Some(cursors) = cursors {
            whole |= part == WHOLE;
            all.merge_max(&cursors);
        }
    }
    whole.then_some(all)
}
