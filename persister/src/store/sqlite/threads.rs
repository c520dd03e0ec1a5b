//! The tables `threads` (last id and time, state of a group) and `thread_members` (each user's item): the fold of the
//! log's control entries, as `archive` made it with the rules of `protocol::log::fold`.

use natterjack_protocol::{
    MsgId, Thread, UserId,
    internal::rpc::LastEntry,
    log::fold::{GroupState, ThreadItem},
};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Serialize, de::DeserializeOwned};

use super::{bad_column, int, uint};
use crate::store::FALLS;

pub(super) const SCHEMA: &str = "
CREATE TABLE threads (
    thread TEXT PRIMARY KEY,
    last_id INTEGER NOT NULL,
    last_ts INTEGER NOT NULL,
    version INTEGER NOT NULL DEFAULT 0,
    state BLOB
) WITHOUT ROWID;
CREATE TABLE thread_members (
    thread TEXT NOT NULL,
    user TEXT NOT NULL,
    v INTEGER NOT NULL,
    item BLOB NOT NULL,
    PRIMARY KEY (thread, user)
) WITHOUT ROWID;
CREATE INDEX user_threads ON thread_members (user);
";

/// Where the times of a thread fall; between two of them they rise with the ids.
pub(super) const FALLS_SCHEMA: &str = "
CREATE TABLE thread_falls (
    thread TEXT NOT NULL,
    id INTEGER NOT NULL,
    PRIMARY KEY (thread, id)
) WITHOUT ROWID;
";

pub(super) fn put_fall(tx: &Transaction<'_>, thread: &Thread, id: MsgId) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO thread_falls (thread, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![thread.to_string(), int(id.0)])?;
    Ok(())
}

/// The newest ones below an id, newest first.
pub(super) fn falls_below(c: &Connection, thread: &Thread, id: MsgId) -> rusqlite::Result<Vec<MsgId>> {
    c.prepare_cached("SELECT id FROM thread_falls WHERE thread = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3")?
        .query_map(params![thread.to_string(), int(id.0), int(FALLS as u64)], |r| Ok(MsgId(uint(r.get(0)?))))?
        .collect()
}

/// The thread has entries up to here.
pub(super) fn touch(tx: &Transaction<'_>, thread: &Thread, last: MsgId, ts: u64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO threads (thread, last_id, last_ts) VALUES (?1, ?2, ?3)
         ON CONFLICT (thread) DO UPDATE SET last_id = excluded.last_id, last_ts = excluded.last_ts WHERE \
         excluded.last_id > last_id",
    )?
    .execute(params![thread.to_string(), int(last.0), int(ts)])?;
    Ok(())
}

pub(super) fn put_group(tx: &Transaction<'_>, thread: &Thread, group: &GroupState) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO threads (thread, last_id, last_ts, version, state) VALUES (?1, 0, 0, ?2, ?3)
         ON CONFLICT (thread) DO UPDATE SET version = excluded.version, state = excluded.state WHERE excluded.version \
         > version",
    )?
    .execute(params![thread.to_string(), int(group.version.0), encode(group)])?;
    Ok(())
}

pub(super) fn put_item(
    tx: &Transaction<'_>,
    thread: &Thread,
    user: &UserId,
    item: &ThreadItem,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO thread_members (thread, user, v, item) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (thread, user) DO UPDATE SET v = excluded.v, item = excluded.item WHERE excluded.v > v",
    )?
    .execute(params![thread.to_string(), user.as_str(), int(item.v.0), encode(item)])?;
    Ok(())
}

pub(super) fn last_entries(c: &Connection, threads: &[Thread]) -> rusqlite::Result<Vec<LastEntry>> {
    threads.iter().map(|t| last_entry(c, t)).collect()
}

pub(super) fn last_entry(c: &Connection, thread: &Thread) -> rusqlite::Result<LastEntry> {
    let entry = |r: &rusqlite::Row<'_>| Ok(LastEntry { id: MsgId(uint(r.get(0)?)), ts: uint(r.get(1)?) });
    let found = c
        .prepare_cached("SELECT last_id, last_ts FROM threads WHERE thread = ?1")?
        .query_row(params![thread.to_string()], entry)
        .optional()?;
    Ok(found.unwrap_or_default())
}

pub(super) fn group(c: &Connection, thread: &Thread) -> rusqlite::Result<Option<GroupState>> {
    let state: Option<Option<Vec<u8>>> = c
        .prepare_cached("SELECT state FROM threads WHERE thread = ?1")?
        .query_row(params![thread.to_string()], |r| r.get(0))
        .optional()?;
    state.flatten().map(|bytes| decode(0, &bytes)).transpose()
}

pub(super) fn item(c: &Connection, thread: &Thread, user: &UserId) -> rusqlite::Result<Option<ThreadItem>> {
    let item: Option<Vec<u8>> = c
        .prepare_cached("SELECT item FROM thread_members WHERE thread = ?1 AND user = ?2")?
        .query_row(params![thread.to_string(), user.as_str()], |r| r.get(0))
        .optional()?;
    item.map(|bytes| decode(0, &bytes)).transpose()
}

pub(super) fn user_threads(c: &Connection, user: &UserId) -> rusqlite::Result<Vec<(Thread, ThreadItem)>> {
    c.prepare_cached("SELECT thread, item FROM thread_members WHERE user = ?1 ORDER BY thread")?
        .query_map(params![user.as_str()], |r| {
            let (thread, item): (String, Vec<u8>) = (r.get(0)?, r.get(1)?);
            Ok((thread.parse().map_err(|e| bad_column(0, e))?, decode(1, &item)?))
        })?
        .collect()
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("states have only string keys and plain values")
}

pub(super) fn decode<T: DeserializeOwned>(column: usize, bytes: &[u8]) -> rusqlite::Result<T> {
    rmp_serde::from_slice(bytes).map_err(|e| bad_column(column, e))
}
