//! The table `thread_buckets`: where a thread is cut into partitions. A bucket is named after the first id in it, and
//! the bucket of an id is the one with the greatest name that is not above it; the first one, 0, is not written down.
//!
//! Where a bucket ends is a fold over the rows of the thread in the order of the log ([`Filling`]), kept with the
//! thread's last id. So every writer that follows the log cuts at the same ids, also two that do not know of each
//! other, and a replay finds the cuts that there are. A cut is written before the first row behind it; whoever reads up
//! to a watermark therefore sees every cut below it.

use std::collections::VecDeque;

use natterjack_protocol::{MsgId, internal::rpc::LastEntry};
use scylla::statement::prepared::PreparedStatement;

use super::{config::Buckets as Limits, int, session::Requests, uint};
use crate::store::{ArchiveError, Order, Row};

pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS thread_buckets (
    thread text, first_id bigint, first_ts bigint, PRIMARY KEY (thread, first_id)) WITH CLUSTERING ORDER BY (first_id \
    DESC)";

/// Cuts that are read at once.
const CHUNK: i32 = 64;

/// How far a thread's buckets are: the newest one, the rows in it, the time of its first one; `at`: the time of the
/// last row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Filling {
    pub last: MsgId,
    pub bucket: u64,
    pub rows: u32,
    pub since: u64,
    pub at: u64,
}

/// Where a row belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    In(u64),
    /// It is the first of a new bucket.
    Opens(u64),
    /// Below the newest bucket: written before.
    Earlier,
}

impl Filling {
    /// Takes the next row of the log, or one that was counted before.
    pub(super) fn place(&mut self, limits: Limits, row: &Row) -> Place {
        if row.id <= self.last {
            return if row.id.0 >= self.bucket { Place::In(self.bucket) } else { Place::Earlier };
        }
        (self.last, self.at) = (row.id, row.ts);
        let full = self.rows >= limits.rows || row.ts.saturating_sub(self.since) >= limits.span;
        if self.rows > 0 && full {
            *self = Self { bucket: row.id.0, rows: 1, since: row.ts, ..*self };
            return Place::Opens(self.bucket);
        }
        if self.rows == 0 {
            self.since = row.ts;
        }
        self.rows += 1;
        Place::In(self.bucket)
    }
}

/// A part of a bucket: `lo <= id < hi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub bucket: u64,
    pub lo: u64,
    pub hi: u64,
}

pub(super) struct Buckets {
    cut: PreparedStatement,
    below: PreparedStatement,
    above: PreparedStatement,
    before: PreparedStatement,
}

impl Buckets {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        Ok(Self {
            cut: r
                .prepare("INSERT INTO thread_buckets (thread, first_id, first_ts) VALUES (?, ?, ?) USING TIMESTAMP ?")
                .await?,
            below: r
                .prepare(
                    "SELECT first_id FROM thread_buckets WHERE thread = ? AND first_id < ? ORDER BY first_id DESC \
                     LIMIT ?",
                )
                .await?,
            above: r
                .prepare(
                    "SELECT first_id FROM thread_buckets WHERE thread = ? AND first_id > ? AND first_id < ? ORDER BY \
                     first_id ASC LIMIT ?",
                )
                .await?,
            before: r
                .prepare(
                    "SELECT first_id, first_ts FROM thread_buckets WHERE thread = ? AND first_id < ? ORDER BY first_id \
                     DESC LIMIT ?",
                )
                .await?,
        })
    }

    pub(super) async fn cut(&self, r: &Requests, thread: &str, first: u64, ts: u64) -> Result<(), ArchiveError> {
        r.write(&self.cut, (thread, int(first), int(ts), int(first))).await
    }

    pub(super) async fn of(&self, r: &Requests, thread: &str, id: MsgId) -> Result<u64, ArchiveError> {
        let row: Option<(i64,)> = r.read_one(&self.below, (thread, int(id.next().0), 1)).await?;
        Ok(row.map_or(0, |(first,)| uint(first)))
    }

    pub(super) fn walk<'a>(&'a self, r: &'a Requests, thread: &'a str, lo: MsgId, hi: MsgId, order: Order) -> Walk<'a> {
        let (lo, hi) = (lo.0, hi.0);
        Walk { buckets: self, r, thread, order, parts: VecDeque::new(), rest: (lo < hi).then_some((lo, hi)) }
    }

    /// Of a stretch of ids in which times rise: the part of a bucket with the first row at or after `ts`, if that is
    /// not the first row of the next one, which comes second.
    pub(super) async fn around(
        &self,
        r: &Requests,
        thread: &str,
        (lo, hi): (MsgId, MsgId),
        ts: u64,
    ) -> Result<(Part, Option<LastEntry>), ArchiveError> {
        let (mut to, mut next) = (hi.0, None);
        loop {
            let rows: Vec<(i64, i64)> = r.read(&self.before, (thread, int(to), CHUNK)).await?;
            let ended = rows.len() < CHUNK as usize;
            for (first, first_ts) in rows.into_iter().map(|(id, at)| (uint(id), uint(at))) {
                if first <= lo.0 || first_ts < ts {
                    return Ok((Part { bucket: first, lo: first.max(lo.0), hi: to }, next));
                }
                (to, next) = (first, Some(LastEntry { id: MsgId(first), ts: first_ts }));
            }
            if ended {
                return Ok((Part { bucket: 0, lo: lo.0, hi: to }, next));
            }
        }
    }
}

/// The parts of an interval by bucket, in order, a few at a time.
pub(super) struct Walk<'a> {
    buckets: &'a Buckets,
    r: &'a Requests,
    thread: &'a str,
    order: Order,
    parts: VecDeque<Part>,
    rest: Option<(u64, u64)>,
}

impl Walk<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<Part>, ArchiveError> {
        while self.parts.is_empty()
            && let Some((lo, hi)) = self.rest.take()
        {
            match self.order {
                Order::NewestFirst => self.down(lo, hi).await?,
                Order::OldestFirst => self.up(lo, hi).await?,
            }
        }
        Ok(self.parts.pop_front())
    }

    async fn down(&mut self, lo: u64, hi: u64) -> Result<(), ArchiveError> {
        let cuts: Vec<(i64,)> = self.r.read(&self.buckets.below, (self.thread, int(hi), CHUNK)).await?;
        let all = cuts.len() < CHUNK as usize;
        let mut to = hi;
        for bucket in cuts.into_iter().map(|(c,)| uint(c)).chain(all.then_some(0)) {
            let from = bucket.max(lo);
            if from < to {
                self.parts.push_back(Part { bucket, lo: from, hi: to });
            }
            to = from;
            if from == lo {
                return Ok(());
            }
        }
        self.rest = (lo < to && !all).then_some((lo, to));
        Ok(())
    }

    async fn up(&mut self, lo: u64, hi: u64) -> Result<(), ArchiveError> {
        let (first, cuts) = tokio::try_join!(
            self.buckets.of(self.r, self.thread, MsgId(lo)),
            self.r.read::<(i64,)>(&self.buckets.above, (self.thread, int(lo), int(hi), CHUNK)),
        )?;
        let all = cuts.len() < CHUNK as usize;
        let (mut bucket, mut from) = (first, lo);
        for (cut,) in cuts {
            let cut = uint(cut);
            self.parts.push_back(Part { bucket, lo: from, hi: cut });
            (bucket, from) = (cut, cut);
        }
        if all {
            self.parts.push_back(Part { bucket, lo: from, hi });
        } else {
            self.rest = Some((from, hi));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::conformance::{text, thread};

    fn row(id: u64, ts: u64) -> Row {
        Row { ts, ..text(&thread("t"), id, "a", "x") }
    }

    #[test]
    fn closed_by_rows_and_by_time() {
        let limits = Limits { rows: 2, span: 100 };
        let mut f = Filling::default();
        let places: Vec<Place> = [row(5, 1_000), row(6, 1_000), row(9, 1_001), row(12, 1_101), row(13, 1_101)]
            .iter()
            .map(|r| f.place(limits, r))
            .collect();
        assert_eq!(places, [Place::In(0), Place::In(0), Place::Opens(9), Place::Opens(12), Place::In(12)]);
        assert_eq!(f.place(limits, &row(12, 1_101)), Place::In(12), "a replay is not counted again");
        assert_eq!(f.place(limits, &row(6, 1_000)), Place::Earlier);
        assert_eq!(f, Filling { last: MsgId(13), bucket: 12, rows: 2, since: 1_101, at: 1_101 });
    }

    proptest! {
        /// Two writers that follow the log cut at the same ids, wherever their batches begin and whatever they repeat.
        #[test]
        fn every_writer_cuts_alike(
            gaps in prop::collection::vec((1u64..9, 0u64..60), 1..80),
            stops in prop::collection::vec(0usize..80, 0..6),
        ) {
            let limits = Limits { rows: 4, span: 100 };
            let mut at = (0, 0);
            let log: Vec<Row> = gaps.iter().map(|(id, ts)| { at = (at.0 + id, at.1 + ts); row(at.0, at.1) }).collect();
            let mut one = Filling::default();
            let opens = |place| if let Place::Opens(b) = place { Some(b) } else { None };
            let cuts: Vec<u64> = log.iter().filter_map(|r| opens(one.place(limits, r))).collect();
            // Takes over again and again, each time from a watermark somewhere below what was written.
            let (mut other, mut again) = (Filling::default(), Vec::new());
            let mut from = 0;
            for stop in stops.into_iter().chain([log.len()]) {
                let to = stop.clamp(from, log.len());
                for r in &log[from..to] {
                    match other.place(limits, r) {
                        Place::Opens(b) => again.push(b),
                        Place::In(b) => {
                            let cut = cuts.iter().rev().find(|c| **c <= r.id.0);
                            prop_assert_eq!(b, cut.copied().unwrap_or(0));
                        }
                        Place::Earlier => prop_assert!(r.id.0 < other.bucket),
                    }
                }
                from = to / 2;
            }
            prop_assert_eq!(cuts, again);
        }
    }
}
