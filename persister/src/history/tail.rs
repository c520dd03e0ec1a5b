//! One thread's entries in the log above a floor (the archive's watermark, or where the log begins). Usually a handful, read whole;
//! with the archive away for long, or far behind, too many for that: then each question reads its own part.

use natterjack_nats::{Log, LogRecord, TailError};
use natterjack_protocol::{Kind, MsgId, Thread};

use super::{HistoryError, View};
use crate::store::{Order, Row, Store};

/// Entries read whole: at a hundred bytes to a few hundred each half a megabyte, and 128 requests at once.
const WHOLE: usize = 2_000;
/// How far operations are looked for behind a page when the tail is too long to be read whole. What lies further ahead the client
/// meets as events of their own.
const OPERATIONS: usize = 1_000;
/// The first window for the newest entries below an id, in ids, and by how much each next one is wider.
const WINDOW: u64 = 1_024;
const WIDER: u64 = 8;

pub(super) struct ThreadTail<'a, S> {
    history: &'a View<S>,
    log: &'a Log,
    thread: &'a Thread,
    /// Exclusive.
    floor: MsgId,
    /// The thread's newest entry when it was opened, by the leader; none above the floor.
    last: Option<LogRecord>,
    /// All of it, oldest first; none: too much.
    whole: Option<Vec<Row>>,
}

fn row(r: LogRecord) -> Row {
    Row::from_log(&r.thread, r.id, r.ts, r.control, &r.payload)
}

impl<'a, S: Store> ThreadTail<'a, S> {
    /// Fails with `Stale` when a follower answered that has not got the leader's newest entry yet.
    pub async fn open(history: &'a View<S>, thread: &'a Thread, floor: MsgId) -> Result<Self, HistoryError> {
        let log = &history.log;
        let last = log.last(thread).await?.filter(|r| r.id > floor);
        let whole = match &last {
            None => Some(Vec::new()),
            Some(last) => {
                let records = log.after(thread, floor, last.id, WHOLE).await?;
                if records.len() == WHOLE {
                    None
                } else if records.last().map(|r| r.id) == Some(last.id) {
                    Some(history.without_copies(records).await?.into_iter().map(row).collect())
                } else {
                    return Err(HistoryError::Stale);
                }
            }
        };
        Ok(Self { history, log, thread, floor, last, whole })
    }

    /// What is at or below this was looked at.
    pub fn reach(&self) -> MsgId {
        self.last.as_ref().map_or(self.floor, |r| r.id)
    }

    /// The id before which the group's state is needed, if a recall has to be judged.
    pub fn first_to_judge(&self) -> Option<MsgId> {
        let rows = self.whole.as_deref()?;
        rows.iter().any(|r| r.kind == Kind::Recall).then(|| rows.first().map(|r| r.id))?
    }

    pub fn loaded_mut(&mut self) -> &mut [Row] {
        self.whole.as_deref_mut().unwrap_or_default()
    }

    pub async fn rows(&self, lo: MsgId, hi: MsgId, order: Order, limit: usize) -> Result<Vec<Row>, HistoryError> {
        let lo = lo.max(self.floor.next());
        if lo >= hi || lo > self.reach() {
            return Ok(Vec::new());
        }
        if let Some(rows) = &self.whole {
            let within = rows.iter().filter(|r| lo <= r.id && r.id < hi);
            return Ok(match order {
                Order::OldestFirst => within.take(limit).cloned().collect(),
                Order::NewestFirst => within.rev().take(limit).cloned().collect(),
            });
        }
        let (mut lo, mut hi, mut rows) = (lo, hi, Vec::new());
        loop {
            let asked = limit - rows.len();
            let records = self.records(lo, hi, order, asked).await?;
            let full = records.len() >= asked;
            let edge = records.last().map(|r| r.id);
            rows.extend(self.history.without_copies(records).await?.into_iter().map(row));
            // What is hidden makes room: "fewer than asked for" has to mean that there are no more.
            match edge.filter(|_| full && rows.len() < limit) {
                Some(id) if order == Order::OldestFirst => lo = id.next(),
                Some(id) => hi = id,
                None => return Ok(rows),
            }
        }
    }

    async fn records(&self, lo: MsgId, hi: MsgId, order: Order, limit: usize) -> Result<Vec<LogRecord>, TailError> {
        if lo >= hi {
            return Ok(Vec::new());
        }
        let (after, upto) = (MsgId(lo.0 - 1), MsgId(hi.0 - 1));
        let mut records = match order {
            Order::OldestFirst => self.log.after(self.thread, after, upto, limit).await?,
            Order::NewestFirst if hi > self.reach() => {
                self.log.newest(self.thread, after, limit, self.last.as_ref().map_or(0, |r| r.ts)).await?
            }
            Order::NewestFirst => self.newest_below(lo, hi, limit).await?,
        };
        if order == Order::NewestFirst {
            records.reverse();
        }
        Ok(records)
    }

    /// The log is read upwards only: windows of ids, each wider than the one before, until one holds enough. Oldest first.
    async fn newest_below(&self, lo: MsgId, hi: MsgId, limit: usize) -> Result<Vec<LogRecord>, TailError> {
        let mut width = WINDOW;
        loop {
            let from = lo.max(MsgId(hi.0.saturating_sub(width)));
            let mut kept: Vec<LogRecord> = Vec::new();
            let mut after = MsgId(from.0 - 1);
            loop {
                let more = self.log.after(self.thread, after, MsgId(hi.0 - 1), WHOLE).await?;
                let Some(last) = more.last().map(|r| r.id) else { break };
                let all = more.len() < WHOLE;
                kept.extend(more);
                kept.drain(..kept.len().saturating_sub(limit));
                if all {
                    break;
                }
                after = last;
            }
            if kept.len() >= limit || from == lo {
                return Ok(kept);
            }
            width = width.saturating_mul(WIDER);
        }
    }

    /// The operations of the tail that may be about something at or above `oldest`.
    pub async fn operations_after(&self, oldest: MsgId) -> Result<Vec<Row>, HistoryError> {
        let operations = |rows: &mut dyn Iterator<Item = Row>| rows.filter(|r| matches!(r.kind, Kind::Edit | Kind::Recall)).collect();
        if let Some(rows) = &self.whole {
            return Ok(operations(&mut rows.iter().filter(|r| r.id > oldest).cloned()));
        }
        let records = self.log.after(self.thread, self.floor.max(oldest), self.reach(), OPERATIONS).await?;
        Ok(operations(&mut self.history.without_copies(records).await?.into_iter().map(row)))
    }

    /// The first id of the tail at or after this time.
    pub async fn id_at(&self, ts: u64) -> Result<Option<MsgId>, HistoryError> {
        if let Some(rows) = &self.whole {
            return Ok(rows.iter().find(|r| r.ts >= ts).map(|r| r.id));
        }
        let at = self.log.first_at(self.thread, self.floor.next(), self.reach(), ts).await?;
        Ok(self.log.after(self.thread, MsgId(at.0 - 1), self.reach(), 1).await?.first().map(|r| r.id))
    }
}
