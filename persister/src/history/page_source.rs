//! One thread out of archive and log: the archive's rows at or below the watermark, the log's above it.
//!
//! The watermark is read first, the log's newest entry (by the leader) after it: whatever was acknowledged before the
//! question was asked is then in one of the two, or else in the hole, which is told and never hidden.

use std::time::Duration;

use natterjack_nats::{Layout, LogBounds, Position};
use natterjack_protocol::{Most, MsgId, Thread};
use natterjack_runtime::clock::wall_ms;

use super::{HistoryError, View, unarchived::UnarchivedEntries};
use crate::store::{ArchiveError, ArchiveStore, Order, PartitionKey, Row};

/// A follower, or a leader that has just been deposed, may be behind for a moment.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(40);

pub(super) struct PageSource<'a, S> {
    pub history: &'a View<S>,
    pub thread: &'a Thread,
    /// The archive has everything up to here; none: it does not answer.
    pub archived: Option<MsgId>,
    pub tail: UnarchivedEntries<'a, S>,
    /// Ids (first, last) that neither of the two can give.
    hole: Option<(MsgId, MsgId)>,
    /// What nobody will ever be able to give, oldest first: rows of the archive that are made when it is read.
    lost: Vec<Row>,
}

impl<'a, S: ArchiveStore> PageSource<'a, S> {
    /// `min_id`: an answer that does not reach it would be stale.
    pub async fn open(history: &'a View<S>, thread: &'a Thread, min_id: MsgId) -> Result<Self, HistoryError> {
        let read = async {
            let (archived, hole) = history.watermark(thread).await?;
            // Behind the watermark: it has all that this has moved over.
            Ok(((archived, hole), history.lost(thread).await?))
        };
        match read.await {
            Ok(((archived, hole), lost)) => {
                Ok(Self { lost, ..Self::above(history, thread, Some(archived), hole, min_id).await? })
            }
            Err(HistoryError::Store(ArchiveError::Unavailable(why))) => {
                tracing::debug!(why, "the archive does not answer; reading the log alone");
                Self::open_log_only(history, thread, min_id).await
            }
            Err(e) => Err(e),
        }
    }

    /// For who looks for messages alone.
    pub async fn open_unmarked(history: &'a View<S>, thread: &'a Thread) -> Result<Self, HistoryError> {
        match history.watermark(thread).await {
            Ok((archived, hole)) => Self::above(history, thread, Some(archived), hole, MsgId::NONE).await,
            Err(HistoryError::Store(ArchiveError::Unavailable(_))) => {
                Self::open_log_only(history, thread, MsgId::NONE).await
            }
            Err(e) => Err(e),
        }
    }

    pub async fn open_log_only(history: &'a View<S>, thread: &'a Thread, min_id: MsgId) -> Result<Self, HistoryError> {
        metrics::counter!(crate::metrics::HISTORY_WITHOUT_ARCHIVE).increment(1);
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
            let tail = UnarchivedEntries::open(history, thread, floor, archived.is_some()).await;
            match tail {
                Ok(tail) if min_id <= tail.reach() || history.is_before(thread, min_id).await? => {
                    return Ok(Self { history, thread, archived, tail, hole, lost: Vec::new() });
                }
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

    /// Rows with `lo <= id < hi`, at most `most`, in order, from the end that `order` names, as the newest operations
    /// left them, and whether there may be more. Those of which it cannot be told what operations left of them are
    /// marked.
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

    pub(super) async fn archive_rows(
        &self,
        lo: MsgId,
        hi: MsgId,
        order: Order,
        most: Most,
    ) -> Result<Vec<Row>, ArchiveError> {
        match self.archived {
            Some(w) if lo <= w => {
                let rows = self.history.store.rows(self.thread, lo, hi.min(w.next()), order, most).await?;
                Ok(with_lost(rows, &self.lost, (lo, hi), order, most))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The part of what is lost that this is about; its last id is where it stands.
    pub fn lost_at(&self, id: MsgId) -> Option<MsgId> {
        self.lost.iter().find(|l| l.body.target.is_some_and(|first| first <= id) && id <= l.id).map(|l| l.id)
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

/// Puts what is lost between the rows of a thread, as many as there may be.
fn with_lost(mut rows: Vec<Row>, lost: &[Row], (lo, hi): (MsgId, MsgId), order: Order, most: Most) -> Vec<Row> {
    if lost.is_empty() {
        return rows;
    }
    // Beyond a full page there may be rows that were not read.
    let edge = rows.last().map(|r| r.id).filter(|_| most.full(&rows));
    let reaches = |id: MsgId| match (edge, order) {
        (None, _) => true,
        (Some(edge), Order::OldestFirst) => id < edge,
        (Some(edge), Order::NewestFirst) => id > edge,
    };
    rows.extend(lost.iter().filter(|l| lo <= l.id && l.id < hi && reaches(l.id)).cloned());
    rows.sort_unstable_by_key(|r| r.id);
    if order == Order::NewestFirst {
        rows.reverse();
    }
    most.keep_first(&mut rows);
    rows
}

impl<S: ArchiveStore> View<S> {
    /// Of this thread, oldest first.
    pub(super) async fn lost(&self, thread: &Thread) -> Result<Vec<Row>, ArchiveError> {
        let lost = self.store.lost().await?;
        Ok(lost.iter().filter(|l| l.concerns(thread)).map(|l| l.row(thread)).collect())
    }

    /// Is it of a former generation? Nothing is added to those, so all that there is of them was looked at.
    async fn is_before(&self, thread: &Thread, id: MsgId) -> Result<bool, HistoryError> {
        Ok(self.layout.former.is_some() && id < self.log.bounds(thread).await?.origin)
    }

    /// The former generation lost its end, and what was stored in it afterwards may have to be archived under other
    /// ids: until that is done (its watermark stands below what follows it) nobody knows what is in it.
    async fn unsettled(&self, thread: &Thread, archived: Position) -> Result<Option<(MsgId, MsgId)>, HistoryError> {
        match self.log.former_end(thread).await? {
            Some(end) if archived.id > end && self.is_before(thread, archived.id.next()).await? => {
                Ok(Some((self.bounds(thread).await?.first.min(archived.id), archived.id)))
            }
            _ => Ok(None),
        }
    }

    pub(super) async fn bounds(&self, thread: &Thread) -> Result<LogBounds, HistoryError> {
        Ok(self.log.extent(thread).await?)
    }

    /// The watermark of the thread's partition. That of the former generation, as long as the archive has not come to
    /// this one: it begins there when all of the former is written.
    async fn archived(&self, thread: &Thread) -> Result<(Option<Position>, Of), ArchiveError> {
        let key = |layout: Layout| PartitionKey { generation: layout.generation, partition: layout.partition(thread) };
        match (self.store.position(key(self.layout)).await?, self.layout.previous()) {
            (None, Some(former)) => Ok((self.store.position(key(former)).await?, Of::Former)),
            (position, _) => Ok((position, Of::This)),
        }
    }

    /// The thread's watermark, and the hole above it if the log no longer reaches down to it.
    pub(super) async fn watermark(&self, thread: &Thread) -> Result<(MsgId, Option<(MsgId, MsgId)>), HistoryError> {
        let (mut position, of) = self.archived(thread).await?;
        if let (Some(p), Of::Former) = (position, of)
            && let Some(hole) = self.unsettled(thread, p).await?
        {
            return Ok((p.id, Some(hole)));
        }
        // A young watermark cannot have been overtaken by what expires: the log keeps entries twice as long. It is the
        // log's clock beside this machine's, which may be half a day apart.
        let young = |p: &Position, now: u64| now.saturating_sub(p.ts) < self.times.log_max_age.as_millis() as u64 / 2;
        for _ in 0..2 {
            if let Some(p) = position
                && young(&p, wall_ms())
            {
                return Ok((p.id, None));
            }
            let LogBounds { first, origin, .. } = self.bounds(thread).await?;
            let before_first = MsgId(first.0.saturating_sub(1));
            // Never archived anything: all there ever was is in the log, if nothing has expired.
            let Some(p) = position else {
                return Ok((before_first, (origin < first).then_some((origin, before_first))));
            };
            if first <= p.id.next() {
                return Ok((p.id, None));
            }
            let (again, _) = self.archived(thread).await?;
            if again == position {
                return Ok((p.id, Some((p.id.next(), MsgId(first.0 - 1)))));
            }
            position = again;
        }
        Err(HistoryError::Stale)
    }
}

/// Whose watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    This,
    Former,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        LostRange,
        conformance::{text, thread},
    };

    /// As the store reads it: at most so many, from the end that the order names.
    fn page(ids: &[u64], (lo, hi): (u64, u64), order: Order, count: usize) -> Vec<u64> {
        let t = thread("t");
        let range = |first, last| LostRange {
            key: crate::store::PartitionKey { generation: 1, partition: t.partition(1) },
            partitions: 1,
            first: MsgId(first),
            last: MsgId(last),
            since: 1,
            until: 2,
        };
        let lost = [range(11, 19), range(31, 39)].map(|l| l.row(&t));
        let mut rows: Vec<Row> =
            ids.iter().filter(|id| (lo..hi).contains(*id)).map(|id| text(&t, *id, "a", "x")).collect();
        if order == Order::NewestFirst {
            rows.reverse();
        }
        rows.truncate(count);
        with_lost(rows, &lost, (MsgId(lo), MsgId(hi)), order, Most::count(count)).iter().map(|r| r.id.0).collect()
    }

    #[test]
    fn a_page_never_joins_over_what_is_lost() {
        use Order::{NewestFirst, OldestFirst};
        let ids = [9, 10, 20, 21, 40];
        assert_eq!(page(&ids, (0, 100), OldestFirst, 10), [9, 10, 19, 20, 21, 39, 40]);
        assert_eq!(page(&ids, (0, 100), NewestFirst, 10), [40, 39, 21, 20, 19, 10, 9]);
        assert_eq!(page(&ids, (0, 100), OldestFirst, 3), [9, 10, 19], "it counts as a row");
        assert_eq!(page(&ids, (0, 100), NewestFirst, 2), [40, 39]);
        assert_eq!(page(&ids, (0, 100), OldestFirst, 2), [9, 10], "the next page begins with it");
        assert_eq!(page(&ids, (11, 100), OldestFirst, 2), [19, 20]);
        assert_eq!(page(&ids, (0, 40), NewestFirst, 2), [39, 21]);
        assert_eq!(page(&[], (0, 100), OldestFirst, 10), [19, 39], "nothing else is left of the thread");
        assert_eq!(page(&ids, (20, 39), OldestFirst, 10), [20, 21]);
    }
}
