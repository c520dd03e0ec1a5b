//! The tables `user_cursors` (how far each user has read) and `cursor_shards` (how far that was copied from KV).

use natterjack_nats::BucketRevision;
use natterjack_protocol::{UserId, internal::cursors::UserCursors};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{
    Sqlite, int,
    threads::{decode, encode},
    uint,
};
use crate::store::{
    ArchiveError,
    cursors::{ArchivedCursors, CursorArchive, joined},
};

pub(super) const SCHEMA: &str = "
CREATE TABLE user_cursors (
    user TEXT NOT NULL,
    part TEXT NOT NULL,
    revision INTEGER NOT NULL,
    cursors BLOB,
    PRIMARY KEY (user, part)
) WITHOUT ROWID;
CREATE TABLE cursor_shards (
    shard INTEGER PRIMARY KEY,
    made_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL
);
";

fn put(tx: &Transaction<'_>, row: &ArchivedCursors) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO user_cursors (user, part, revision, cursors) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (user, part) DO UPDATE SET revision = excluded.revision, cursors = excluded.cursors WHERE \
         excluded.revision > revision",
    )?
    .execute(params![row.user.as_str(), row.part, int(row.revision), row.cursors.as_ref().map(encode)])?;
    Ok(())
}

fn of(c: &Connection, user: &UserId) -> rusqlite::Result<Option<UserCursors>> {
    let mut parts = c.prepare_cached("SELECT part, cursors FROM user_cursors WHERE user = ?1")?;
    let parts = parts.query_map(params![user.as_str()], |r| {
        let (part, bytes): (String, Option<Vec<u8>>) = (r.get(0)?, r.get(1)?);
        Ok((part, bytes.map(|bytes| decode(1, &bytes)).transpose()?))
    })?;
    Ok(joined(parts.collect::<rusqlite::Result<Vec<_>>>()?))
}

fn reached(tx: &Transaction<'_>, shard: u32, to: BucketRevision) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO cursor_shards (shard, made_ms, revision) VALUES (?1, ?2, ?3)")?
        .execute(params![shard, int(to.made_ms), int(to.revision)])?;
    Ok(())
}

fn position(c: &Connection, shard: u32) -> rusqlite::Result<Option<BucketRevision>> {
    c.prepare_cached("SELECT made_ms, revision FROM cursor_shards WHERE shard = ?1")?
        .query_row(params![shard], |r| Ok(BucketRevision { made_ms: uint(r.get(0)?), revision: uint(r.get(1)?) }))
        .optional()
}

impl CursorArchive for Sqlite {
    async fn put_cursors(&self, rows: Vec<ArchivedCursors>) -> Result<(), ArchiveError> {
        self.write_from_log(move |tx| rows.iter().try_for_each(|row| put(tx, row))).await
    }

    async fn cursors(&self, user: &UserId) -> Result<Option<UserCursors>, ArchiveError> {
        let user = user.clone();
        self.read(move |c| of(c, &user)).await
    }

    async fn cursors_reached(&self, shard: u32, to: BucketRevision) -> Result<(), ArchiveError> {
        self.write_from_log(move |tx| reached(tx, shard, to)).await
    }

    async fn cursors_position(&self, shard: u32) -> Result<Option<BucketRevision>, ArchiveError> {
        self.read(move |c| position(c, shard)).await
    }
}
