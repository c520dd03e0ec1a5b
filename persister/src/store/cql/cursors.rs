//! The tables `user_cursors` (how far each user has read) and `cursor_shards` (how far that was copied from KV). A row
//! of the former is written with its revision as timestamp, so an older one never replaces a newer one.

use natterjack_nats::BucketRevision;
use natterjack_protocol::{UserId, internal::cursors::UserCursors};
use scylla::statement::prepared::PreparedStatement;

use super::{
    Cql, all, int,
    session::Requests,
    threads::{decode, encode},
    uint,
};
use crate::store::{
    ArchiveError,
    cursors::{ArchivedCursors, CursorArchive, joined},
};

pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS user_cursors (
    user text, part text, cursors blob, PRIMARY KEY (user, part))";

pub(super) const SHARDS_SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS cursor_shards (shard bigint PRIMARY KEY, made_ms bigint, revision bigint)";

pub(super) struct Cursors {
    put: PreparedStatement,
    of: PreparedStatement,
    reached: PreparedStatement,
    position: PreparedStatement,
}

impl Cursors {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        Ok(Self {
            put: r.prepare("INSERT INTO user_cursors (user, part, cursors) VALUES (?, ?, ?) USING TIMESTAMP ?").await?,
            of: r.prepare("SELECT part, cursors FROM user_cursors WHERE user = ?").await?,
            reached: r.prepare("INSERT INTO cursor_shards (shard, made_ms, revision) VALUES (?, ?, ?)").await?,
            position: r.prepare("SELECT made_ms, revision FROM cursor_shards WHERE shard = ?").await?,
        })
    }

    pub(super) async fn put(&self, r: &Requests, row: &ArchivedCursors) -> Result<(), ArchiveError> {
        let cursors = row.cursors.as_ref().map(encode);
        r.write(&self.put, (row.user.as_str(), row.part.as_str(), cursors, stamp(row.revision))).await
    }

    pub(super) async fn of(&self, r: &Requests, user: &UserId) -> Result<Option<UserCursors>, ArchiveError> {
        let rows: Vec<(String, Option<Vec<u8>>)> = r.read(&self.of, (user.as_str(),)).await?;
        let part = |(part, bytes): (String, Option<Vec<u8>>)| {
            Ok((part, bytes.map(|bytes| decode("user_cursors.cursors", &bytes)).transpose()?))
        };
        Ok(joined(rows.into_iter().map(part).collect::<Result<Vec<_>, ArchiveError>>()?))
    }

    pub(super) async fn reached(&self, r: &Requests, shard: u32, to: BucketRevision) -> Result<(), ArchiveError> {
        r.write(&self.reached, (i64::from(shard), int(to.made_ms), int(to.revision))).await
    }

    pub(super) async fn position(&self, r: &Requests, shard: u32) -> Result<Option<BucketRevision>, ArchiveError> {
        let row: Option<(i64, i64)> = r.read_one(&self.position, (i64::from(shard),)).await?;
        Ok(row.map(|(made_ms, revision)| BucketRevision { made_ms: uint(made_ms), revision: uint(revision) }))
    }
}

/// Revisions are larger than any time in microseconds, and ScyllaDB takes no timestamp of the future.
fn stamp(revision: u64) -> i64 {
    int(revision).saturating_sub(1 << 62)
}

impl CursorArchive for Cql {
    async fn put_cursors(&self, rows: Vec<ArchivedCursors>) -> Result<(), ArchiveError> {
        let db = self.db()?;
        all(rows.iter().map(|row| db.cursors.put(&db.requests, row)).collect()).await
    }

    async fn cursors(&self, user: &UserId) -> Result<Option<UserCursors>, ArchiveError> {
        let db = self.db()?;
        db.cursors.of(&db.requests, user).await
    }

    async fn cursors_reached(&self, shard: u32, to: BucketRevision) -> Result<(), ArchiveError> {
        let db = self.db()?;
        db.cursors.reached(&db.requests, shard, to).await
    }

    async fn cursors_position(&self, shard: u32) -> Result<Option<BucketRevision>, ArchiveError> {
        let db = self.db()?;
        db.cursors.position(&db.requests, shard).await
    }
}
