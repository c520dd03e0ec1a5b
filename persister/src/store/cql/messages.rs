//! The table `messages`: history forever, one row per entry of the log, keyed ((thread, bucket), id), newest first; and
//! `controls`, the entries among them that change the thread itself, once more and all in one place for a fold as of a
//! point in the past.
//!
//! What an entry says is written once, with its id as the timestamp: a repetition changes nothing. What operations say
//! about it stands beside it in columns of their own (`operations`) and is laid over it when it is read, with the rules
//! of `overlay`.

use std::collections::HashMap;

use bytes::Bytes;
use natterjack_protocol::{Body, Cid, Kind, Most, MsgId, Thread, Token, UserId, internal::rpc::LastEntry};
use scylla::{statement::prepared::PreparedStatement, value::MaybeUnset};
use uuid::Uuid;

use super::{buckets::Part, corrupt, int, operations, session::Requests, uint};
use crate::store::{ArchiveError, Order, Row};

/// `edits` and `recalls`: see `operations`.
pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS messages (
    thread text, bucket bigint, id bigint, ts bigint, sender text, cid uuid, kind text, body blob, power boolean, raw \
    blob,
    edits map<text, frozen<tuple<bigint, text>>>, recalls map<text, bigint>,
    PRIMARY KEY ((thread, bucket), id)) WITH CLUSTERING ORDER BY (id DESC)";

pub(super) const CONTROLS_SCHEMA: &str = "CREATE TABLE IF NOT EXISTS controls (
    thread text, id bigint, ts bigint, sender text, cid uuid, kind text, body blob, PRIMARY KEY (thread, id))";

/// Of a batch. Cassandra refuses one above 50 KiB; a single row is never larger than an entry of the log (48 KiB) and
/// goes alone.
const BATCH_BYTES: usize = 32 << 10;
const BATCH_ROWS: usize = 100;
/// What a row is besides its body: keys, ids, sender, the statement's own bytes.
const ROW_BYTES: usize = 250;
/// Rows without bodies that are read at once: tens of kilobytes.
const CHUNK: usize = 500;
/// Rows that are read at once: 20 kB at the size of most, 3 MB at the largest.
const BODIES: usize = 64;

type Stored = (
    i64,
    Option<i64>,
    Option<String>,
    Option<Uuid>,
    Option<String>,
    Option<Vec<u8>>,
    Option<bool>,
    Option<Vec<u8>>,
    Option<HashMap<String, (i64, String)>>,
    Option<HashMap<String, i64>>,
);

type Inserted<'a> = (&'a str, i64, i64, i64, &'a str, Uuid, &'static str, Vec<u8>, bool, MaybeUnset<&'a [u8]>, i64);

pub(super) struct Messages {
    insert: PreparedStatement,
    newest_first: PreparedStatement,
    oldest_first: PreparedStatement,
    cids: PreparedStatement,
    times: PreparedStatement,
    control: PreparedStatement,
    controls: PreparedStatement,
}

impl Messages {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        let select = |order| {
            format!(
                "SELECT id, ts, sender, cid, kind, body, power, raw, edits, recalls FROM messages
                 WHERE thread = ? AND bucket = ? AND id >= ? AND id < ? ORDER BY id {order} LIMIT ?"
            )
        };
        Ok(Self {
            insert: r
                .prepare(
                    "INSERT INTO messages (thread, bucket, id, ts, sender, cid, kind, body, power, raw)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
                )
                .await?,
            newest_first: r.prepare(&select("DESC")).await?,
            oldest_first: r.prepare(&select("ASC")).await?,
            cids: r
                .prepare(
                    "SELECT id, ts, sender, cid FROM messages
                     WHERE thread = ? AND bucket = ? AND id >= ? AND id < ? ORDER BY id DESC LIMIT ?",
                )
                .await?,
            times: r
                .prepare(
                    "SELECT id, ts FROM messages WHERE thread = ? AND bucket = ? AND id >= ? AND id < ? ORDER BY id \
                     ASC LIMIT ?",
                )
                .await?,
            control: r
                .prepare(
                    "INSERT INTO controls (thread, id, ts, sender, cid, kind, body) VALUES (?, ?, ?, ?, ?, ?, ?) USING \
                     TIMESTAMP ?",
                )
                .await?,
            controls: r
                .prepare(
                    "SELECT id, ts, sender, cid, kind, body FROM controls WHERE thread = ? AND id >= ? AND id < ? \
                     LIMIT ?",
                )
                .await?,
        })
    }

    /// Rows of one bucket.
    pub(super) async fn insert(
        &self,
        r: &Requests,
        thread: &str,
        bucket: u64,
        rows: &[&Row],
    ) -> Result<(), ArchiveError> {
        let values: Vec<Inserted<'_>> = rows
            .iter()
            .map(|row| {
                let raw = row.raw.as_deref().map_or(MaybeUnset::Unset, MaybeUnset::Set);
                let (id, cid) = (int(row.id.0), Uuid::from_bytes(*row.cid.as_bytes()));
                let (kind, body) = (row.kind.as_str(), encode(&row.body));
                (thread, int(bucket), id, int(row.ts), row.from.as_str(), cid, kind, body, row.power, raw, id)
            })
            .collect();
        let bytes = |v: &Inserted<'_>| {
            let raw = if let MaybeUnset::Set(raw) = &v.9 { raw.len() } else { 0 };
            ROW_BYTES + v.7.len() + raw
        };
        let (mut from, mut size) = (0, 0);
        for (at, value) in values.iter().enumerate() {
            let more = bytes(value);
            if at > from && (size + more > BATCH_BYTES || at - from >= BATCH_ROWS) {
                r.write_rows(&self.insert, &values[from..at]).await?;
                (from, size) = (at, 0);
            }
            size += more;
        }
        if from < values.len() { r.write_rows(&self.insert, &values[from..]).await } else { Ok(()) }
    }

    pub(super) async fn insert_control(&self, r: &Requests, thread: &str, row: &Row) -> Result<(), ArchiveError> {
        let (id, cid) = (int(row.id.0), Uuid::from_bytes(*row.cid.as_bytes()));
        let values = (thread, id, int(row.ts), row.from.as_str(), cid, row.kind.as_str(), encode(&row.body), id);
        r.write(&self.control, values).await
    }

    /// Rows of a part, at most `most`, in order, as the operations left them.
    pub(super) async fn rows(
        &self,
        r: &Requests,
        thread: &Thread,
        mut part: Part,
        order: Order,
        most: Most,
    ) -> Result<Vec<Row>, ArchiveError> {
        let (statement, spelled) = match order {
            Order::NewestFirst => (&self.newest_first, thread.to_string()),
            Order::OldestFirst => (&self.oldest_first, thread.to_string()),
        };
        let mut found = Vec::new();
        while !most.full(&found) && part.lo < part.hi {
            let asked = BODIES.min(most.beside(&found).count);
            let values = (&spelled, int(part.bucket), int(part.lo), int(part.hi), asked as i32);
            let rows: Vec<Stored> = r.read(statement, values).await?;
            let edge = rows.last().map(|row| uint(row.0)).filter(|_| rows.len() == asked);
            for row in rows {
                found.extend(read(thread, row)?);
            }
            match (edge, order) {
                (None, _) => break,
                (Some(id), Order::NewestFirst) => part.hi = id,
                (Some(id), Order::OldestFirst) => part.lo = id + 1,
            }
        }
        most.keep_first(&mut found);
        Ok(found)
    }

    /// Looks through a part, newest first, until `looked` has reached `max` or a row is older than `since`. Says
    /// whether it is done.
    pub(super) async fn find_cid(
        &self,
        r: &Requests,
        thread: &str,
        mut part: Part,
        sought: &mut Sought<'_>,
    ) -> Result<bool, ArchiveError> {
        while part.lo < part.hi {
            let values = (thread, int(part.bucket), int(part.lo), int(part.hi), CHUNK as i32);
            let rows: Vec<(i64, Option<i64>, Option<String>, Option<Uuid>)> = r.read(&self.cids, values).await?;
            let edge = rows.last().map(|row| uint(row.0)).filter(|_| rows.len() == CHUNK);
            for (id, ts, sender, cid) in rows {
                let (Some(ts), Some(sender), Some(cid)) = (ts, sender, cid) else { continue };
                if uint(ts) < sought.since {
                    sought.older = Some(MsgId(uint(id)));
                    return Ok(true);
                }
                sought.looked += 1;
                if sought.looked > sought.max {
                    return Ok(true);
                }
                if cid.as_bytes() == sought.cid.as_bytes() && sender == sought.from.as_str() {
                    sought.lowest = Some(MsgId(uint(id)));
                }
            }
            let Some(edge) = edge else { return Ok(false) };
            part.hi = edge;
        }
        Ok(false)
    }

    /// The first row of a part at or after this time; times rise with ids in it.
    pub(super) async fn id_at(
        &self,
        r: &Requests,
        thread: &str,
        mut part: Part,
        ts: u64,
    ) -> Result<Option<LastEntry>, ArchiveError> {
        while part.lo < part.hi {
            let values = (thread, int(part.bucket), int(part.lo), int(part.hi), CHUNK as i32);
            let rows: Vec<(i64, Option<i64>)> = r.read(&self.times, values).await?;
            let edge = rows.last().map(|(id, _)| uint(*id)).filter(|_| rows.len() == CHUNK);
            let times = rows.into_iter().filter_map(|(id, at)| Some(LastEntry { id: MsgId(uint(id)), ts: uint(at?) }));
            if let Some(found) = times.into_iter().find(|e| e.ts >= ts) {
                return Ok(Some(found));
            }
            let Some(edge) = edge else { return Ok(None) };
            part.lo = edge + 1;
        }
        Ok(None)
    }

    pub(super) async fn controls(&self, r: &Requests, thread: &Thread, below: MsgId) -> Result<Vec<Row>, ArchiveError> {
        let (spelled, mut lo, mut found) = (thread.to_string(), 0, Vec::new());
        loop {
            let values = (&spelled, int(lo), int(below.0), BODIES as i32);
            let rows: Vec<(i64, i64, String, Uuid, String, Vec<u8>)> = r.read(&self.controls, values).await?;
            let edge = rows.last().map(|row| uint(row.0)).filter(|_| rows.len() == BODIES);
            for (id, ts, sender, cid, kind, body) in rows {
                let stored = (id, Some(ts), Some(sender), Some(cid), Some(kind), Some(body), None, None, None, None);
                found.extend(read(thread, stored)?);
            }
            let Some(edge) = edge else { return Ok(found) };
            lo = edge + 1;
        }
    }
}

/// Who sent what, and how far was looked for it.
pub(super) struct Sought<'a> {
    pub from: &'a UserId,
    pub cid: Cid,
    pub since: u64,
    pub max: usize,
    pub looked: usize,
    pub lowest: Option<MsgId>,
    /// A row that is older than `since`, where the search has ended.
    pub older: Option<MsgId>,
}

pub(super) fn encode(body: &Body) -> Vec<u8> {
    rmp_serde::to_vec_named(body).expect("a body has only string keys and plain values")
}

/// None: operations about it are here, and it is not (yet).
fn read(thread: &Thread, stored: Stored) -> Result<Option<Row>, ArchiveError> {
    let (id, ts, sender, cid, kind, body, power, raw, edits, recalls) = stored;
    let (Some(ts), Some(sender), Some(cid), Some(kind)) = (ts, sender, cid, kind) else { return Ok(None) };
    let body = match &body {
        Some(bytes) => rmp_serde::from_slice(bytes).map_err(|e| corrupt("messages.body", e))?,
        // A recall took it away.
        None if recalls.is_some() => Body::default(),
        None => return Err(corrupt("messages.body", format!("{thread} {id} has none"))),
    };
    let mut row = Row {
        thread: thread.clone(),
        id: MsgId(uint(id)),
        ts: uint(ts),
        from: Token::parse(&sender).map_err(|e| corrupt("messages.sender", e))?,
        cid: Cid::from_bytes(cid.into_bytes()).map_err(|e| corrupt("messages.cid", e))?,
        kind: Kind::parse(&kind),
        body,
        rev: MsgId::NONE,
        power: power.unwrap_or(false),
        raw: raw.map(Bytes::from),
        unchecked: false,
    };
    operations::lay_over(&mut row, edits.unwrap_or_default(), recalls.unwrap_or_default());
    Ok(Some(row))
}
