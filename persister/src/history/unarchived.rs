//! One thread's entries in the log above a floor (the archive's watermark, or where the log begins). Usually a handful,
//! read whole; with the archive away for long, or far behind, too many for that: then each question reads its own part,
//! and the operations are kept.

use std::ops::Deref;

use natterjack_nats::{LogError, LogRecord, ThreadLog};
use natterjack_protocol::{Kind, Most, MsgId, Thread, internal::rpc::LastEntry, size::Size};

use super::{
    HistoryError, View,
    long_tails::Held,
    operations::{Operations, Roles},
};
use crate::{
    fold,
    store::{ArchiveError, ArchiveStore, Order, Row},
};

/// Entries read whole: half a megabyte, and 128 requests at once. A [`part`] of it is read at a time behind a page for
/// its operations; where there are more, the operations of the whole tail are read once and kept.
pub(super) const WHOLE: Most = Most { count: 2_000, bytes: 512 << 10 };
/// The first window for the newest entries below an id, in ids, and by how much each next one is wider.
const WINDOW: u64 = 1_024;
const WIDER: u64 = 8;

pub(super) struct UnarchivedEntries<'a, S> {
    history: &'a View<S>,
    log: &'a ThreadLog,
    thread: &'a Thread,
    /// Exclusive.
    floor: MsgId,
    /// The thread's newest entry when it was opened, by the leader; none above the floor.
    last: Option<LogRecord>,
    /// The archive answers, and has what lies below.
    archived: bool,
    /// All of it, oldest first, and what is an operation among it; none: too much.
    whole: Option<(Vec<Row>, Operations)>,
}

/// Operations of the tail, wherever they are.
pub(super) enum Found<'a> {
    Whole(&'a Operations),
    Read(Operations),
    Kept(Held),
}

impl Deref for Found<'_> {
    type Target = Operations;

    fn deref(&self) -> &Operations {
        match self {
            Self::Whole(operations) => operations,
            Self::Read(operations) => operations,
            Self::Kept(operations) => operations,
        }
    }
}

/// What is read at a time for its operations.
pub(super) fn part(whole: Most) -> Most {
    Most { count: whole.count / 2, ..whole }
}

pub(super) fn row(r: LogRecord) -> Row {
    Row::from_log(&r.thread, r.id, r.ts, r.control, &r.payload)
}

fn first<'r>(rows: impl Iterator<Item = &'r Row>, most: Most) -> Vec<Row> {
    let mut bytes = 0;
    let fits = |r: &&Row| {
        let room = bytes < most.bytes;
        bytes += r.size();
        room
    };
    rows.take(most.count).take_while(fits).cloned().collect()
}

impl<'a, S: ArchiveStore> UnarchivedEntries<'a, S> {
    /// Fails with `Stale` when a follower answered that has not got the leader's newest entry yet.
    pub async fn open(
        history: &'a View<S>,
        thread: &'a Thread,
        floor: MsgId,
        archived: bool,
    ) -> Result<Self, HistoryError> {
        let log = &history.log;
        let last = log.last(thread).await?.filter(|r| r.id > floor);
        let rows = match &last {
            None => Some(Vec::new()),
            Some(last) => {
                let records = log.after(thread, floor, last.id, history.whole).await?;
                if history.whole.full(&records) {
                    None
                } else if records.last().map(|r| r.id) == Some(last.id) {
                    Some(history.without_copies(records).await?.into_iter().map(row).collect())
                } else {
                    return Err(HistoryError::Stale);
                }
            }
        };
        let mut tail = Self { history, log, thread, floor, last, archived, whole: None };
        if let Some(rows) = rows {
            let mut operations = Operations::new(floor, tail.roles_before(&rows).await?);
            operations.take(&rows);
            tail.whole = Some((rows, operations));
        }
        Ok(tail)
    }

    /// Of who is in the thread before these rows, as far as they have to be judged by it.
    async fn roles_before(&self, rows: &[Row]) -> Result<Roles, HistoryError> {
        let first = rows.first().filter(|_| self.archived && rows.iter().any(|r| r.kind == Kind::Recall));
        Ok(match (self.thread, first) {
            (Thread::Dm { .. }, _) => Roles::Exact(None),
            (Thread::Group { .. }, None) => Roles::unknown(),
            (Thread::Group { .. }, Some(first)) => {
                match fold::group_before(&self.history.store, self.thread, first.id).await {
                    Ok(group) => Roles::Exact(group),
                    Err(ArchiveError::Unavailable(_)) => Roles::unknown(),
                    Err(e) => return Err(e.into()),
                }
            }
        })
    }

    /// What is at or below this is not looked for here.
    pub fn floor(&self) -> MsgId {
        self.floor
    }

    /// What is at or below this was looked at.
    pub fn reach(&self) -> MsgId {
        self.last.as_ref().map_or(self.floor, |r| r.id)
    }

    pub async fn rows(&self, lo: MsgId, hi: MsgId, order: Order, most: Most) -> Result<Vec<Row>, HistoryError> {
        let lo = lo.max(self.floor.next());
        if lo >= hi || lo > self.reach() {
            return Ok(Vec::new());
        }
        if let Some((rows, _)) = &self.whole {
            let within = rows.iter().filter(|r| lo <= r.id && r.id < hi);
            return Ok(match order {
                Order::OldestFirst => first(within, most),
                Order::NewestFirst => first(within.rev(), most),
            });
        }
        let (mut lo, mut hi, mut rows) = (lo, hi, Vec::new());
        loop {
            let asked = most.beside(&rows);
            let records = self.records(lo, hi, order, asked).await?;
            let full = asked.full(&records);
            let edge = records.last().map(|r| r.id);
            rows.extend(self.history.without_copies(records).await?.into_iter().map(row));
            // What is hidden makes room: what is not full has to be all.
            match edge.filter(|_| full && !most.full(&rows)) {
                Some(id) if order == Order::OldestFirst => lo = id.next(),
                Some(id) => hi = id,
                None => return Ok(rows),
            }
        }
    }

    async fn records(&self, lo: MsgId, hi: MsgId, order: Order, most: Most) -> Result<Vec<LogRecord>, LogError> {
        if lo >= hi {
            return Ok(Vec::new());
        }
        let (after, upto) = (MsgId(lo.0 - 1), MsgId(hi.0 - 1));
        let mut records = match order {
            Order::OldestFirst => self.log.after(self.thread, after, upto, most).await?,
            Order::NewestFirst if hi > self.reach() => {
                self.log.newest(self.thread, after, most, self.last.as_ref().map_or(0, |r| r.ts)).await?
            }
            Order::NewestFirst => self.newest_below(lo, hi, most).await?,
        };
        if order == Order::NewestFirst {
            records.reverse();
        }
        Ok(records)
    }

    /// The log is read upwards only: windows of ids, each wider than the one before, until one holds enough. Oldest
    /// first.
    async fn newest_below(&self, lo: MsgId, hi: MsgId, most: Most) -> Result<Vec<LogRecord>, LogError> {
        let mut width = WINDOW;
        loop {
            let from = lo.max(MsgId(hi.0.saturating_sub(width)));
            let mut kept: Vec<LogRecord> = Vec::new();
            let mut after = MsgId(from.0 - 1);
            loop {
                let more = self.log.after(self.thread, after, MsgId(hi.0 - 1), self.history.whole).await?;
                let Some(last) = more.last().map(|r| r.id) else { break };
                let all = !self.history.whole.full(&more);
                kept.extend(more);
                most.keep_last(&mut kept);
                if all {
                    break;
                }
                after = last;
            }
            if most.full(&kept) || from == lo {
                return Ok(kept);
            }
            width = width.saturating_mul(WIDER);
        }
    }

    /// The operations of the tail with an id above `above`, and perhaps more. `exact`: it has to be known who may
    /// recall, as far as it can.
    pub async fn operations(&self, above: MsgId, exact: bool) -> Result<Found<'_>, HistoryError> {
        if let Some((_, operations)) = &self.whole {
            return Ok(Found::Whole(operations));
        }
        let (after, kept) = (self.floor.max(above), &self.history.long_tails);
        if !exact && !kept.knows(self.thread) {
            let part = part(self.history.whole);
            let records = self.log.after(self.thread, after, self.reach(), part).await?;
            if !part.full(&records) {
                let rows: Vec<Row> = self.history.without_copies(records).await?.into_iter().map(row).collect();
                let roles =
                    if matches!(self.thread, Thread::Dm { .. }) { Roles::Exact(None) } else { Roles::unknown() };
                let mut operations = Operations::new(after, roles);
                operations.take(&rows);
                return Ok(Found::Read(operations));
            }
        }
        Ok(Found::Kept(kept.operations(self.history, self.thread, (self.floor, self.reach()), self.archived).await?))
    }

    /// One entry of the tail.
    pub async fn row(&self, id: MsgId) -> Result<Option<Row>, HistoryError> {
        if let Some((rows, _)) = &self.whole {
            return Ok(rows.iter().find(|r| r.id == id).cloned());
        }
        Ok(self.log.after(self.thread, MsgId(id.0 - 1), id, Most::count(1)).await?.pop().map(row))
    }

    /// The entry of the tail with the earliest time at or after this one; of one that is too long to be read whole,
    /// about that one.
    pub async fn id_at(&self, ts: u64) -> Result<Option<LastEntry>, HistoryError> {
        if let Some((rows, _)) = &self.whole {
            let found = rows.iter().filter(|r| r.ts >= ts).min_by_key(|r| (r.ts, r.id));
            return Ok(found.map(|r| LastEntry { id: r.id, ts: r.ts }));
        }
        let at = self.log.first_at(self.thread, self.floor.next(), self.reach(), ts).await?;
        let found = self.log.after(self.thread, MsgId(at.0 - 1), self.reach(), Most::count(1)).await?;
        Ok(found.first().map(|r| LastEntry { id: r.id, ts: r.ts }))
    }
}
