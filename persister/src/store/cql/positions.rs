//! The tables `positions` (the watermark of each partition, in the store itself) and `strays` (entries whose subject
//! names no thread). Every write has the id it speaks of as its timestamp: the newest stays, in whatever order they
//! come.

use natterjack_nats::Position;
use natterjack_protocol::MsgId;
use scylla::statement::prepared::PreparedStatement;

use super::{int, session::Requests, uint};
use crate::store::{ArchiveError, PartitionKey, UnknownSubject};

pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS positions (
    generation bigint, partition bigint, id bigint, ts bigint, PRIMARY KEY ((generation, partition)))";

pub(super) const STRAYS_SCHEMA: &str = "CREATE TABLE IF NOT EXISTS strays (
    generation bigint, partition bigint, id bigint, ts bigint, subject text, payload blob, PRIMARY KEY ((generation, \
    partition), id))";

pub(super) struct Positions {
    advance: PreparedStatement,
    read: PreparedStatement,
    all: PreparedStatement,
    stray: PreparedStatement,
    /// One row of each table.
    any: [PreparedStatement; 3],
}

impl Positions {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        Ok(Self {
            advance: r
                .prepare("INSERT INTO positions (generation, partition, id, ts) VALUES (?, ?, ?, ?) USING TIMESTAMP ?")
                .await?,
            read: r.prepare("SELECT id, ts FROM positions WHERE generation = ? AND partition = ?").await?,
            all: r.prepare("SELECT generation, partition, id, ts FROM positions").await?,
            stray: r
                .prepare(
                    "INSERT INTO strays (generation, partition, id, ts, subject, payload) VALUES (?, ?, ?, ?, ?, ?) \
                     USING TIMESTAMP ?",
                )
                .await?,
            any: [
                r.prepare("SELECT id FROM positions LIMIT 1").await?,
                r.prepare("SELECT id FROM messages LIMIT 1").await?,
                r.prepare("SELECT id FROM strays LIMIT 1").await?,
            ],
        })
    }

    /// A watermark moves behind what it speaks of, so there may be rows without one.
    pub(super) async fn is_empty(&self, r: &Requests) -> Result<bool, ArchiveError> {
        for any in &self.any {
            let row: Option<(i64,)> = r.read_one(any, ()).await?;
            if row.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) async fn advance(&self, r: &Requests, key: PartitionKey, to: Position) -> Result<(), ArchiveError> {
        let (generation, partition) = spelled(key);
        r.write(&self.advance, (generation, partition, int(to.id.0), int(to.ts), int(to.id.0))).await
    }

    pub(super) async fn position(&self, r: &Requests, key: PartitionKey) -> Result<Option<Position>, ArchiveError> {
        let row: Option<(i64, i64)> = r.read_one(&self.read, spelled(key)).await?;
        Ok(row.map(|(id, ts)| Position { id: MsgId(uint(id)), ts: uint(ts) }))
    }

    /// Through all servers; for once at a start.
    pub(super) async fn positions(&self, r: &Requests) -> Result<Vec<(PartitionKey, Position)>, ArchiveError> {
        let rows: Vec<(i64, i64, i64, i64)> = r.read(&self.all, ()).await?;
        let small = |n: i64| u32::try_from(n).unwrap_or(0);
        let read = |(generation, partition, id, ts)| {
            let key = PartitionKey { generation: small(generation), partition: small(partition) };
            (key, Position { id: MsgId(uint(id)), ts: uint(ts) })
        };
        Ok(rows.into_iter().map(read).collect())
    }

    pub(super) async fn keep_unknown_subject(&self, r: &Requests, s: &UnknownSubject) -> Result<(), ArchiveError> {
        let (generation, partition) = spelled(s.key);
        let id = int(s.id.0);
        r.write(&self.stray, (generation, partition, id, int(s.ts), &s.subject, &s.payload[..], id)).await
    }
}

fn spelled(key: PartitionKey) -> (i64, i64) {
    (key.generation.into(), key.partition.into())
}
