//! The table `messages`: history forever, one row per entry of the log. Every write of it is here.
//!
//! A row is inserted once (a replay finds it and does nothing). In the same transaction it meets the operations that
//! name it as their target, whichever of the two came first, and the rule of `overlay` decides what that makes of it.

use bytes::Bytes;
use natterjack_protocol::{Body, Cid, Kind, Most, MsgId, Thread, Token, UserId, internal::rpc::LastEntry, size::Size};
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, Transaction, params};

use super::{bad_column, int, threads, uint};
use crate::store::{Order, Row, overlay};

/// `target` and `power` are there for operations; `control` for the entries that change the thread itself.
pub(super) const SCHEMA: &str = "
CREATE TABLE messages (
    thread TEXT NOT NULL,
    id INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    sender TEXT NOT NULL,
    cid BLOB NOT NULL,
    kind TEXT NOT NULL,
    body BLOB NOT NULL,
    rev INTEGER NOT NULL,
    target INTEGER,
    power INTEGER NOT NULL,
    control INTEGER NOT NULL,
    raw BLOB,
    PRIMARY KEY (thread, id)
) WITHOUT ROWID;
CREATE INDEX messages_by_cid ON messages (thread, sender, cid);
CREATE INDEX messages_by_target ON messages (thread, target) WHERE target IS NOT NULL;
CREATE INDEX messages_control ON messages (thread, id) WHERE control = 1;
";

/// Queries by something else than the id name their index: a planner without statistics takes the primary key and walks
/// the whole thread.
const COLUMNS: &str = "id, ts, sender, cid, kind, body, rev, power, raw";

pub(super) fn insert(tx: &Transaction<'_>, mut row: Row) -> rusqlite::Result<()> {
    let thread = row.thread.to_string();
    let met = operations_on(tx, &row, &thread)?;
    overlay::lay_over(std::slice::from_mut(&mut row), &met);
    // An operation keeps its target for good, also when a recall has emptied it.
    let target = row.kind.is_operation().then_some(row.body.target).flatten().map(|t| int(t.0));
    let new = tx
        .prepare_cached(
            "INSERT INTO messages (thread, id, ts, sender, cid, kind, body, rev, target, power, control, raw)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            thread,
            int(row.id.0),
            int(row.ts),
            row.from.as_str(),
            row.cid.as_bytes(),
            row.kind.as_str(),
            encode(&row.body),
            int(row.rev.0),
            target,
            row.power,
            row.kind.is_control(),
            row.raw.as_deref(),
        ])?;
    if new == 1 && matches!(row.kind, Kind::Edit | Kind::Recall) { reach_back(tx, &row, &thread) } else { Ok(()) }
}

/// What is stored already and may change this row: operations on it; for an edit, also the recalls of what it edits.
fn operations_on(tx: &Transaction<'_>, row: &Row, thread: &str) -> rusqlite::Result<Vec<Row>> {
    let about = match row.kind {
        Kind::Edit => row.body.target.unwrap_or(row.id),
        kind if kind.is_message() => row.id,
        _ => return Ok(Vec::new()),
    };
    targeting(tx, &row.thread, thread, about)
}

/// Lets an operation that is new in the table change what is there.
fn reach_back(tx: &Transaction<'_>, op: &Row, thread: &str) -> rusqlite::Result<()> {
    let Some(target) = op.body.target else { return Ok(()) };
    let mut changed: Vec<Row> = tx
        .prepare_cached(&format!("SELECT {COLUMNS} FROM messages WHERE thread = ?1 AND id = ?2"))?
        .query_row(params![thread, int(target.0)], |r| read(&op.thread, r))
        .optional()?
        .into_iter()
        .collect();
    if op.kind == Kind::Recall {
        changed.extend(targeting(tx, &op.thread, thread, target)?);
    }
    for row in &mut changed {
        if overlay::apply(row, op) {
            tx.prepare_cached("UPDATE messages SET kind = ?3, body = ?4, rev = ?5 WHERE thread = ?1 AND id = ?2")?
                .execute(params![thread, int(row.id.0), row.kind.as_str(), encode(&row.body), int(row.rev.0)])?;
        }
    }
    Ok(())
}

fn targeting(c: &Connection, of: &Thread, thread: &str, target: MsgId) -> rusqlite::Result<Vec<Row>> {
    c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM messages INDEXED BY messages_by_target WHERE thread = ?1 AND target = ?2"
    ))?
    .query_map(params![thread, int(target.0)], |r| read(of, r))?
    .collect()
}

pub(super) fn rows(
    c: &Connection,
    thread: &Thread,
    lo: MsgId,
    hi: MsgId,
    order: Order,
    most: Most,
) -> rusqlite::Result<Vec<Row>> {
    let order = match order {
        Order::OldestFirst => "ASC",
        Order::NewestFirst => "DESC",
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM messages WHERE thread = ?1 AND id >= ?2 AND id < ?3 ORDER BY id {order} LIMIT ?4"
    );
    let mut statement = c.prepare_cached(&sql)?;
    let mut found = statement.query(params![thread.to_string(), int(lo.0), int(hi.0), int(most.count as u64)])?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while bytes < most.bytes
        && let Some(row) = found.next()?
    {
        let row = read(thread, row)?;
        bytes += row.size();
        rows.push(row);
    }
    Ok(rows)
}

pub(super) fn controls(c: &Connection, thread: &Thread, below: MsgId) -> rusqlite::Result<Vec<Row>> {
    c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM messages WHERE thread = ?1 AND control = 1 AND id < ?2 ORDER BY id"
    ))?
    .query_map(params![thread.to_string(), int(below.0)], |r| read(thread, r))?
    .collect()
}

/// In each stretch in which times rise with ids the row is found by halving: 53 probes of the primary key at most, and
/// no index to write for each message.
pub(super) fn id_at(c: &Connection, thread: &Thread, ts: u64, below: MsgId) -> rusqlite::Result<Option<LastEntry>> {
    let mut best: Option<LastEntry> = None;
    let mut hi = below.0;
    for lo in threads::falls_below(c, thread, below)?.into_iter().map(|id| id.0).chain([0]) {
        let found = first_at(c, thread, ts, (lo, hi))?;
        best = best.into_iter().chain(found).min_by_key(|e| (e.ts, e.id));
        hi = lo;
    }
    Ok(best)
}

/// The first row of a stretch at or after this time.
fn first_at(c: &Connection, thread: &Thread, ts: u64, (from, to): (u64, u64)) -> rusqlite::Result<Option<LastEntry>> {
    let thread = thread.to_string();
    let mut first_from =
        c.prepare_cached("SELECT id, ts FROM messages WHERE thread = ?1 AND id >= ?2 AND id < ?3 ORDER BY id LIMIT 1")?;
    let entry = |r: &SqlRow<'_>| Ok(LastEntry { id: MsgId(uint(r.get(0)?)), ts: uint(r.get(1)?) });
    let mut probe = |at: u64| first_from.query_row(params![thread, int(at), int(to)], entry).optional();
    let last: Option<i64> = c
        .prepare_cached("SELECT max(id) FROM messages WHERE thread = ?1 AND id < ?2")?
        .query_row(params![thread, int(to)], |r| r.get(0))?;
    let Some(last) = last.map(uint) else { return Ok(None) };
    // Invariant: every row of the stretch below `lo` is too old; the row sought, if there is one, is at most `best`.
    let (mut lo, mut hi, mut best) = (from, last.saturating_add(1), None);
    while lo < hi {
        let middle = lo + (hi - lo) / 2;
        match probe(middle)? {
            Some(row) if row.ts < ts => lo = row.id.0 + 1,
            Some(row) => {
                best = Some(row);
                hi = middle;
            }
            None => hi = middle,
        }
    }
    Ok(best)
}

pub(super) fn find_cid(c: &Connection, thread: &Thread, from: &UserId, cid: Cid) -> rusqlite::Result<Option<MsgId>> {
    c.prepare_cached(
        "SELECT min(id) FROM messages INDEXED BY messages_by_cid WHERE thread = ?1 AND sender = ?2 AND cid = ?3",
    )?
    .query_row(params![thread.to_string(), from.as_str(), cid.as_bytes()], |r| r.get::<_, Option<i64>>(0))
    .map(|id| id.map(|id| MsgId(uint(id))))
}

fn encode(body: &Body) -> Vec<u8> {
    rmp_serde::to_vec_named(body).expect("a body has only string keys and plain values")
}

fn read(thread: &Thread, r: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let sender: String = r.get(2)?;
    let cid: [u8; 16] = r.get(3)?;
    let kind: String = r.get(4)?;
    let body: Vec<u8> = r.get(5)?;
    let raw: Option<Vec<u8>> = r.get(8)?;
    Ok(Row {
        thread: thread.clone(),
        id: MsgId(uint(r.get(0)?)),
        ts: uint(r.get(1)?),
        from: Token::parse(&sender).map_err(|e| bad_column(2, e))?,
        cid: Cid::from_bytes(cid).map_err(|e| bad_column(3, e))?,
        kind: Kind::parse(&kind),
        body: rmp_serde::from_slice(&body).map_err(|e| bad_column(5, e))?,
        rev: MsgId(uint(r.get(6)?)),
        power: r.get(7)?,
        raw: raw.map(Bytes::from),
        unchecked: false,
    })
}
