//! Who reads: which parts of a thread are theirs, as the asker knows it and as the log may already say otherwise.

use natterjack_nats::ThreadLog;
use natterjack_protocol::{
    Entry, MsgId, Thread, UserId,
    log::{Intervals, fold::ends_membership},
};

use super::HistoryError;
use crate::store::{Order, Row};

/// Who asks, and which parts of the thread are theirs.
pub(super) struct Reader {
    pub user: UserId,
    pub intervals: Intervals,
}

impl Reader {
    pub fn sees(&self, row: &Row) -> bool {
        (!row.kind.only_for_its_author() || row.from == self.user) && self.intervals.covers(row.id)
    }

    /// The parts of `lo..hi` that are theirs, in order. Nobody reads rows of others to throw them away.
    pub fn parts(&self, lo: MsgId, hi: MsgId, order: Order) -> Vec<(MsgId, MsgId)> {
        let cut = self.intervals.0.iter().map(|i| (i.since.max(lo), i.until.unwrap_or(MsgId::MAX).min(hi)));
        let mut parts: Vec<_> = cut.filter(|(from, to)| from < to).collect();
        if order == Order::NewestFirst {
            parts.reverse();
        }
        parts
    }

    /// The part of the hole that could hold something for them within `lo..hi`: its bounds, inclusive.
    pub fn hidden(&self, hole: Option<(MsgId, MsgId)>, lo: MsgId, hi: MsgId) -> Option<(MsgId, MsgId)> {
        let (first, last) = hole?;
        let parts = self.parts(lo.max(first), hi.min(last.next()), Order::OldestFirst);
        Some((parts.first()?.0, MsgId(parts.last()?.1.0 - 1)))
    }

    /// Was the reader's part of a group ended by a control entry after `v` that the fold had not come to when it was
    /// asked about? To be called when the rows were read: every such entry below them is in the log by now. What
    /// follows when they are in it again is theirs as soon as it is folded.
    pub async fn ended(&mut self, log: &ThreadLog, thread: &Thread, v: MsgId) -> Result<bool, HistoryError> {
        if !matches!(thread, Thread::Group { .. }) || !self.intervals.open() {
            return Ok(false);
        }
        let mut after = v;
        while let Some(record) = log.next_control(thread, after).await? {
            if Entry::on(true, &record.payload).is_ok_and(|e| ends_membership(e.kind, &e.from, &e.body, &self.user)) {
                self.intervals.leave(record.id);
                return Ok(true);
            }
            after = record.id;
        }
        Ok(false)
    }
}
