//! The tables `user_cursors` (how far each user has read) and `cursor_shards` (how far that was copied from KV).

use natterjack_nats::BucketRevision;
use natterjack_protocol::{UserId, internal::cursors::UserCursors};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{
    int,
    threads::{decode, encode},
    uint,
};
use crate::store::cursors::ArchivedCursors;

pub(super) const SCHEMA: &str = "
CREATE TABLE user_cursors (
    user TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    cursors BLOB
) WITHOUT ROWID;
CREATE TABLE cursor_shards (
    shard INTEGER PRIMARY KEY,
    made_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL
);
";

pub(super) fn put(tx: &Transaction<'_>, row: &ArchivedCursors) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO user_cursors (user, revision, cursors) VALUES (?1, ?2, ?3)
         ON CONFLICT (user) DO UPDATE SET revision = excluded.revision, cursors = excluded.cursors WHERE \
         excluded.revision > revision",
    )?
    .execute(params![row.user.as_str(), int(row.revision), row.cursors.as_ref().map(encode)])?;
    Ok(())
}

pub(super) fn of(c: &Connection, user: &UserId) -> rusqlite::Result<Option<UserCursors>> {
    let bytes: Option<Option<Vec<u8>>> = c
        .prepare_cached("SELECT cursors FROM user_cursors WHERE user = ?1")?
        .query_row(params![user.as_str()], |r| r.get(0))
        .optional()?;
    bytes.flatten().map(|bytes| decode(0, &bytes)).transpose()
}

pub(super) fn reached(tx: &Transaction<'_>, shard: u32, to: BucketRevision) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO cursor_shards (shard, made_ms, revision) VALUES (?1, ?2, ?3)")?
        .execute(params![shard, int(to.made_ms), int(to.revision)])?;
    Ok(())
}

pub(super) fn position(c: &Connection, shard: u32) -> rusqlite::Result<Option<BucketRevision>> {
    c.prepare_cached("SELECT made_ms, revision FROM cursor_shards WHERE shard = ?1")?
        .query_row(params![shard], |r| Ok(BucketRevision { made_ms: uint(r.get(0)?), revision: uint(r.get(1)?) }))
        .optional()
}
