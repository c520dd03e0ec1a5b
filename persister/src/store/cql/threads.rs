//! The tables `threads` (last id and time, how far its buckets are, state of a group) and `user_threads` (each user's
//! item): the fold of the log's control entries, as `archive` made it with the rules of `protocol::log::fold`.
//!
//! Every column is written with the id it stands for as its timestamp, so an older state never replaces a newer one.

use futures_util::{StreamExt, TryStreamExt, stream};
use natterjack_protocol::{
    MsgId, Thread, UserId,
    internal::rpc::LastEntry,
    log::fold::{GroupState, ThreadItem},
};
use scylla::statement::prepared::PreparedStatement;
use serde::{Serialize, de::DeserializeOwned};

use super::{buckets::Filling, corrupt, int, session::Requests, uint};
use crate::store::ArchiveError;

pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS threads (
    thread text PRIMARY KEY, last_id bigint, last_ts bigint, bucket bigint, bucket_rows int, bucket_since bigint, \
    version bigint, state blob)";

pub(super) const USER_THREADS_SCHEMA: &str = "CREATE TABLE IF NOT EXISTS user_threads (
    user text, thread text, v bigint, item blob, PRIMARY KEY (user, thread))";

/// Threads that are asked about at once.
const AT_ONCE: usize = 32;

pub(super) struct Threads {
    touch: PreparedStatement,
    filling: PreparedStatement,
    last_entry: PreparedStatement,
    put_group: PreparedStatement,
    group: PreparedStatement,
    put_item: PreparedStatement,
    item: PreparedStatement,
    items: PreparedStatement,
}

impl Threads {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        Ok(Self {
            touch: r
                .prepare(
                    "UPDATE threads USING TIMESTAMP ? SET last_id = ?, last_ts = ?, bucket = ?, bucket_rows = ?, \
                     bucket_since = ?
                     WHERE thread = ?",
                )
                .await?,
            filling: r
                .prepare("SELECT last_id, bucket, bucket_rows, bucket_since, last_ts FROM threads WHERE thread = ?")
                .await?,
            last_entry: r.prepare("SELECT last_id, last_ts FROM threads WHERE thread = ?").await?,
            put_group: r
                .prepare("UPDATE threads USING TIMESTAMP ? SET version = ?, state = ? WHERE thread = ?")
                .await?,
            group: r.prepare("SELECT state FROM threads WHERE thread = ?").await?,
            put_item: r
                .prepare("INSERT INTO user_threads (user, thread, v, item) VALUES (?, ?, ?, ?) USING TIMESTAMP ?")
                .await?,
            item: r.prepare("SELECT item FROM user_threads WHERE user = ? AND thread = ?").await?,
            items: r.prepare("SELECT thread, item FROM user_threads WHERE user = ?").await?,
        })
    }

    /// The thread has entries up to here, and its buckets stand so.
    pub(super) async fn touch(&self, r: &Requests, thread: &str, to: &Filling, ts: u64) -> Result<(), ArchiveError> {
        let (last, rows) = (int(to.last.0), i32::try_from(to.rows).unwrap_or(i32::MAX));
        r.write(&self.touch, (last, last, int(ts), int(to.bucket), rows, int(to.since), thread)).await
    }

    pub(super) async fn filling(&self, r: &Requests, thread: &str) -> Result<Filling, ArchiveError> {
        let row: Option<(Option<i64>, Option<i64>, Option<i32>, Option<i64>, Option<i64>)> =
            r.read_one(&self.filling, (thread,)).await?;
        Ok(match row {
            Some((Some(last), Some(bucket), Some(rows), Some(since), Some(at))) => Filling {
                last: MsgId(uint(last)),
                bucket: uint(bucket),
                rows: u32::try_from(rows).unwrap_or(0),
                since: uint(since),
                at: uint(at),
            },
            // Only the state of a group was written yet, or nothing.
            _ => Filling::default(),
        })
    }

    pub(super) async fn last_entries(&self, r: &Requests, threads: &[Thread]) -> Result<Vec<LastEntry>, ArchiveError> {
        let asked: Vec<_> = threads.iter().map(|t| self.last_entry(r, t)).collect();
        stream::iter(asked).buffered(AT_ONCE).try_collect().await
    }

    async fn last_entry(&self, r: &Requests, thread: &Thread) -> Result<LastEntry, ArchiveError> {
        let row: Option<(Option<i64>, Option<i64>)> = r.read_one(&self.last_entry, (thread.to_string(),)).await?;
        Ok(match row {
            Some((Some(id), Some(ts))) => LastEntry { id: MsgId(uint(id)), ts: uint(ts) },
            _ => LastEntry::default(),
        })
    }

    pub(super) async fn put_group(&self, r: &Requests, thread: &str, group: &GroupState) -> Result<(), ArchiveError> {
        let version = int(group.version.0);
        r.write(&self.put_group, (version, version, encode(group), thread)).await
    }

    pub(super) async fn group(&self, r: &Requests, thread: &Thread) -> Result<Option<GroupState>, ArchiveError> {
        let row: Option<(Option<Vec<u8>>,)> = r.read_one(&self.group, (thread.to_string(),)).await?;
        row.and_then(|(state,)| state).map(|bytes| decode("threads.state", &bytes)).transpose()
    }

    pub(super) async fn put_item(
        &self,
        r: &Requests,
        thread: &str,
        user: &UserId,
        item: &ThreadItem,
    ) -> Result<(), ArchiveError> {
        let v = int(item.v.0);
        r.write(&self.put_item, (user.as_str(), thread, v, encode(item), v)).await
    }

    pub(super) async fn item(
        &self,
        r: &Requests,
        thread: &Thread,
        user: &UserId,
    ) -> Result<Option<ThreadItem>, ArchiveError> {
        let row: Option<(Vec<u8>,)> = r.read_one(&self.item, (user.as_str(), thread.to_string())).await?;
        row.map(|(item,)| decode("user_threads.item", &item)).transpose()
    }

    pub(super) async fn user_threads(
        &self,
        r: &Requests,
        user: &UserId,
    ) -> Result<Vec<(Thread, ThreadItem)>, ArchiveError> {
        let rows: Vec<(String, Vec<u8>)> = r.read(&self.items, (user.as_str(),)).await?;
        rows.into_iter()
            .map(|(thread, item)| {
                let thread = thread.parse().map_err(|e| corrupt("user_threads.thread", e))?;
                Ok((thread, decode("user_threads.item", &item)?))
            })
            .collect()
    }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("states have only string keys and plain values")
}

pub(super) fn decode<T: DeserializeOwned>(column: &str, bytes: &[u8]) -> Result<T, ArchiveError> {
    rmp_serde::from_slice(bytes).map_err(|e| corrupt(column, e))
}
