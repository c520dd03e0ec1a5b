//! The tables `positions` (the watermark of each partition, in the store itself: it can never be ahead of what it
//! speaks of) and `strays` (entries whose subject names no thread).

use natterjack_nats::Position;
use natterjack_protocol::MsgId;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{int, uint};
use crate::store::{PartitionKey, UnknownSubject};

pub(super) const SCHEMA: &str = "
CREATE TABLE positions (
    generation INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    id INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    PRIMARY KEY (generation, partition)
) WITHOUT ROWID;
CREATE TABLE strays (
    generation INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    id INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    subject TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (generation, partition, id)
);
";

/// A watermark moves behind what it speaks of, so there may be rows without one.
pub(super) fn is_empty(c: &Connection) -> rusqlite::Result<bool> {
    c.query_row(
        "SELECT NOT EXISTS (SELECT 1 FROM positions) AND NOT EXISTS (SELECT 1 FROM messages) AND NOT EXISTS (SELECT 1 \
         FROM strays)",
        [],
        |r| r.get(0),
    )
}

pub(super) fn advance(tx: &Transaction<'_>, key: PartitionKey, to: Position) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO positions (generation, partition, id, ts) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (generation, partition) DO UPDATE SET id = excluded.id, ts = excluded.ts WHERE excluded.id > id",
    )?
    .execute(params![key.generation, key.partition, int(to.id.0), int(to.ts)])?;
    Ok(())
}

pub(super) fn position(c: &Connection, key: PartitionKey) -> rusqlite::Result<Option<Position>> {
    c.prepare_cached("SELECT id, ts FROM positions WHERE generation = ?1 AND partition = ?2")?
        .query_row(params![key.generation, key.partition], |r| {
            Ok(Position { id: MsgId(uint(r.get(0)?)), ts: uint(r.get(1)?) })
        })
        .optional()
}

pub(super) fn positions(c: &Connection) -> rusqlite::Result<Vec<(PartitionKey, Position)>> {
    c.prepare_cached("SELECT generation, partition, id, ts FROM positions")?
        .query_map([], |r| {
            let key = PartitionKey { generation: r.get(0)?, partition: r.get(1)? };
            Ok((key, Position { id: MsgId(uint(r.get(2)?)), ts: uint(r.get(3)?) }))
        })?
        .collect()
}

pub(super) fn keep_unknown_subject(tx: &Transaction<'_>, s: &UnknownSubject) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO strays (generation, partition, id, ts, subject, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON \
         CONFLICT DO NOTHING",
    )?
    .execute(params![s.key.generation, s.key.partition, int(s.id.0), int(s.ts), s.subject, &s.payload[..]])?;
    Ok(())
}
