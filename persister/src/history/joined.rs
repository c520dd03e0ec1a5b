//! One thread out of archive and log: the archive's rows at or below the watermark, the log's above it.
//!
//! The watermark is read first, the log's newest entry (by the leader) after it: whatever was acknowledged before the question was asked
//! is then in one of the two, or else in the hole, which is told and never hidden.

use std::time::Duration;

use natterjack_nats::{Layout, LogBounds};
use natterjack_protocol::{Most, MsgId, Thread};
use natterjack_runtime::clock::wall_ms;

use super::{HistoryError, View, tail::ThreadTail};
use crate::store::{Order, PartitionKey, Position, Row, Store, StoreError};

/// A follower, or a leader that has just been deposed, may be behind for a moment.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(40);

pub(super) struct Joined<'a, S> {
    pub history: &'a View<S>,
    pub thread: &'a Thread,
    /// The archive has everything up to here; none: it does not answer.
    pub archived: Option<MsgId>,
    pub tail: ThreadTail<'a, S>,
    /// Ids (first, last) that neither of the two can give.
    hole: Option<(MsgId, MsgId)>,
}

impl<'a, S: Store> Joined<'a, S> {
    /// `min_id`: an answer that does not reach it would be stale.
    pub async fn open(history: &'a View<S>, thread: &'a Thread, min_id: MsgId) -> Result<Self, HistoryError> {
        match history.watermark(thread).await {
            Ok((archived, hole)) => Self::above(history, thread, Some(archived), hole, min_id).await,
            Err(HistoryError::Store(StoreError::Unavailable(why))) => {
                tracing::debug!(why, "the archive does not answer; reading the log alone");
                Self::open_log_only(history, thread, min_id).await
            }
            Err(e) => Err(e),
        }
    }

    pub async fn open_log_only(history: &'a View<S>, thread: &'a Thread, min_id: MsgId) -> Result<Self, HistoryError> {
        metrics::counter!("natterjack_history_without_archive_total").increment(1);
        let first = history.bounds(thread).await?.first;
        let below = MsgId(first.0.saturating_sub(1));
        Self::above(history, thread, None, (!below.is_none()).then_some((MsgId(1), below)), min_id).await
    }

    async fn above(
        history: &'a View<S>,
        thread: &'a Thread,
        archived: Option<MsgId>,
        hole: Option<(MsgId, MsgId)>,
        min_id: MsgId,
    ) -> Result<Self, HistoryError> {
        let floor = hole.map_or(MsgId::NONE, |(_, last)| last).max(archived.unwrap_or_default());
        for attempt in 0.. {
            let tail = ThreadTail::open(history, thread, floor, archived.is_some()).await;
            match tail {
                Ok(tail) if min_id <= tail.reach() => return Ok(Self { history, thread, archived, tail, hole }),
                Ok(_) | Err(HistoryError::Stale) if attempt + 1 < ATTEMPTS => tokio::time::sleep(PAUSE).await,
                Ok(_) => break,
                Err(e) => return Err(e),
            }
        }
        Err(HistoryError::Stale)
    }

    pub fn hole(&self) -> Option<(MsgId, MsgId)> {
        self.hole
    }

    /// Rows with `lo <= id < hi`, at most `most`, in order, from the end that `order` names, as the newest operations left them, and whether
    /// there may be more. Those of which it cannot be told what operations left of them are marked.
    pub async fn rows(&self, lo: MsgId, hi: MsgId, order: Order, most: Most) -> Result<(Vec<Row>, bool), HistoryError> {
        let mut rows = match order {
            Order::OldestFirst => {
                let mut rows = self.archive_rows(lo, hi, order, most).await?;
                if !most.full(&rows) {
                    rows.extend(self.tail.rows(lo, hi, order, most.beside(&rows)).await?);
                }
                rows
            }
            Order::NewestFirst => {
                let mut rows = self.tail.rows(lo, hi, order, most).await?;
                if !most.full(&rows) {
                    rows.extend(self.archive_rows(lo, hi, order, most.beside(&rows)).await?);
                }
                rows
            }
        };
        // A record of the log is smaller than the JSON that it becomes.
        most.keep_first(&mut rows);
        // Before an operation makes one of them larger or smaller.
        let full = most.full(&rows);
        let cut = self.check(&mut rows, most.bytes).await?;
        Ok((rows, full || cut))
    }

    pub(super) async fn archive_rows(&self, lo: MsgId, hi: MsgId, order: Order, most: Most) -> Result<Vec<Row>, StoreError> {
        match self.archived {
            Some(w) if lo <= w => self.history.store.rows(self.thread, lo, hi.min(w.next()), order, most).await,
            _ => Ok(Vec::new()),
        }
    }

    /// The event with the earliest time at or after this one. Where the log's clock was never set back: the first one.
    pub async fn id_at(&self, ts: u64) -> Result<Option<MsgId>, HistoryError> {
        let archived = match self.archived {
            Some(w) => self.history.store.id_at(self.thread, ts, w.next()).await?,
            None => None,
        };
        let found = match archived {
            // As nearly always, and then nothing of the tail can be earlier.
            Some(exact) if exact.ts == ts => Some(exact),
            archived => archived.into_iter().chain(self.tail.id_at(ts).await?).min_by_key(|e| (e.ts, e.id)),
        };
        Ok(found.map(|e| e.id))
    }
}

impl<S: Store> View<S> {
    pub(super) async fn bounds(&self, thread: &Thread) -> Result<LogBounds, HistoryError> {
        Ok(self.log.extent(thread).await?)
    }

    /// The watermark of the thread's partition. That of the former generation, as long as the archive has not come to this one: it begins
    /// there when all of the former is written.
    async fn archived(&self, thread: &Thread) -> Result<Option<Position>, StoreError> {
        let key = |layout: Layout| PartitionKey { generation: layout.generation, partition: layout.partition(thread) };
        match (self.store.position(key(self.layout)).await?, self.layout.before()) {
            (None, Some(former)) => self.store.position(key(former)).await,
            (position, _) => Ok(position),
        }
    }

    /// The thread's watermark, and the hole above it if the log no longer reaches down to it.
    pub(super) async fn watermark(&self, thread: &Thread) -> Result<(MsgId, Option<(MsgId, MsgId)>), HistoryError> {
        let mut position = self.archived(thread).await?;
        // A young watermark cannot have been overtaken by what expires: the log keeps entries twice as long. It is the log's clock beside
        // this machine's, which may be half a day apart.
        let young = |p: &Position, now: u64| now.saturating_sub(p.ts) < self.times.log_max_age.as_millis() as u64 / 2;
        for _ in 0..2 {
            if let Some(p) = position
                && young(&p, wall_ms())
            {
                return Ok((p.id, None));
            }
            let first = self.bounds(thread).await?.first;
            // Never archived anything: all there ever was is in the log.
            let Some(p) = position else { return Ok((MsgId(first.0.saturating_sub(1)), None)) };
            if first <= p.id.next() {
                return Ok((p.id, None));
            }
            let again = self.archived(thread).await?;
            if again == position {
                return Ok((p.id, Some((p.id.next(), MsgId(first.0 - 1)))));
            }
            position = again;
        }
        Err(HistoryError::Stale)
    }
}
