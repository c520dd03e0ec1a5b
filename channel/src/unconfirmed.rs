//! Step 4, between read and confirmed: the entries that this partition has read and that are not known to have left.
//!
//! One structure for three needs. The holder publishes from it and drops what a round trip behind the frames has
//! confirmed; after a broken connection it goes back to the first unconfirmed entry; a standby fills it without
//! publishing and drops what the holder's position has passed, so that a takeover begins with the very next frame.
//! Pure.

use std::collections::VecDeque;

use natterjack_nats::{LogRecord, Position};
use natterjack_protocol::{MsgId, UserId};

use crate::fold::ControlChange;

/// Reading pauses at either bound: 65,536 small entries are about half a second of a busy partition.
const MAX_ENTRIES: usize = 1 << 16;
const MAX_BYTES: usize = 64 << 20;

/// An entry on its way.
#[derive(Debug)]
pub struct PendingEntry {
    pub record: LogRecord,
    /// 64-bit hash of its thread.
    pub hash: u64,
    pub prev: MsgId,
    pub control: Option<Box<ControlEntry>>,
}

/// A control entry that could be read.
#[derive(Debug)]
pub struct ControlEntry {
    pub change: ControlChange,
    /// Who gets a `member` signal; none: not folded yet, so not to be published yet.
    pub folded: Option<Vec<UserId>>,
}

impl PendingEntry {
    pub fn ready(&self) -> bool {
        self.control.as_ref().is_none_or(|c| c.folded.is_some())
    }
}

pub struct Unconfirmed {
    queue: VecDeque<PendingEntry>,
    /// How many of them have been handed to the connection.
    published: usize,
    bytes: usize,
    confirmed: Position,
    read: Position,
}

impl Unconfirmed {
    /// `confirmed`: everything up to here was published by somebody. `read`: nothing up to here has to be read.
    pub fn new(confirmed: Position, read: MsgId) -> Self {
        let read = Position { id: read, ts: confirmed.ts };
        Self { queue: VecDeque::new(), published: 0, bytes: 0, confirmed, read }
    }

    /// The log has been read up to `id` (an entry, or something that is none). Entries that are confirmed already are
    /// not kept.
    pub fn read(&mut self, id: MsgId, ts: u64, pending: Option<PendingEntry>) {
        self.read = Position { id, ts };
        if let Some(p) = pending
            && id > self.confirmed.id
        {
            self.bytes += p.record.payload.len();
            self.queue.push_back(p);
        }
    }

    pub fn full(&self) -> bool {
        self.queue.len() >= MAX_ENTRIES || self.bytes >= MAX_BYTES
    }

    /// Everything that somebody else published has been seen: the map knows every thread up to here.
    pub fn warm(&self) -> bool {
        self.read.id >= self.confirmed.id
    }

    /// The log no longer has anything up to `id`: there is nothing to wait for.
    pub fn skip_to(&mut self, id: MsgId) {
        self.read.id = self.read.id.max(id);
    }

    pub fn last_read(&self) -> Position {
        self.read
    }

    pub fn confirmed(&self) -> Position {
        self.confirmed
    }

    /// Everything up to here has been handed to the connection since the last break.
    pub fn frontier(&self) -> MsgId {
        match self.queue.get(self.published) {
            // Ids are dense.
            Some(next) => MsgId(next.record.id.0.saturating_sub(1)).max(self.confirmed.id),
            None => self.read.id.max(self.confirmed.id),
        }
    }

    pub fn next_unpublished(&self) -> Option<&PendingEntry> {
        self.queue.get(self.published)
    }

    pub fn advance(&mut self) {
        self.published = (self.published + 1).min(self.queue.len());
    }

    /// Handed to the connection, not confirmed.
    pub fn published(&self) -> usize {
        self.published
    }

    pub fn unpublished(&self) -> usize {
        self.queue.len() - self.published
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Everything up to `id` has left, by a round trip of our own or by the holder's position.
    pub fn confirm(&mut self, id: MsgId) {
        self.confirmed.id = self.confirmed.id.max(id);
        while self.queue.front().is_some_and(|p| p.record.id <= id) {
            let Some(p) = self.queue.pop_front() else { break };
            self.bytes -= p.record.payload.len();
            self.published = self.published.saturating_sub(1);
            // Of an id that is no entry the time is that of the entry before it: earlier, so a start from it reads a
            // little more.
            self.confirmed.ts = self.confirmed.ts.max(p.record.ts);
        }
    }

    /// What was handed to the connection may be lost: all that is unconfirmed will be published again. Says how many.
    pub fn rewind(&mut self) -> usize {
        std::mem::take(&mut self.published)
    }

    /// Control entries that wait to be folded, of the next `max` entries, in log order.
    pub fn unfolded(&self, max: usize) -> Vec<ControlChange> {
        let open = self
            .queue
            .iter()
            .skip(self.published)
            .take(max)
            .filter_map(|p| p.control.as_ref())
            .filter(|c| c.folded.is_none());
        open.map(|c| c.change.clone()).collect()
    }

    /// Takes what `kv_folder` answers for them.
    pub fn folded(&mut self, done: Vec<(MsgId, Vec<UserId>)>) {
        for (id, users) in done {
            if let Ok(at) = self.queue.binary_search_by_key(&id, |p| p.record.id)
                && let Some(control) = &mut self.queue[at].control
            {
                control.folded = Some(users);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use natterjack_protocol::{Body, Cid, Entry, Kind};

    use super::*;

    fn pending(id: u64, control: bool) -> PendingEntry {
        let thread: natterjack_protocol::Thread = "dm.a.b".parse().unwrap();
        let entry = Entry::new("a".parse().unwrap(), Cid::mint(1, [0; 10]), Kind::DmStarted, Body::default());
        let change = ControlChange { id: MsgId(id), thread: thread.clone(), entry };
        PendingEntry {
            record: LogRecord { id: MsgId(id), ts: 0, thread, control, payload: Bytes::from_static(b"0123456789") },
            hash: 0,
            prev: MsgId::NONE,
            control: control.then(|| Box::new(ControlEntry { change, folded: None })),
        }
    }

    fn filled(confirmed: u64, ids: std::ops::RangeInclusive<u64>) -> Unconfirmed {
        let mut w = Unconfirmed::new(Position { id: MsgId(confirmed), ts: 0 }, MsgId::NONE);
        ids.for_each(|id| read(&mut w, id, false));
        w
    }

    fn read(w: &mut Unconfirmed, id: u64, control: bool) {
        w.read(MsgId(id), 0, Some(pending(id, control)));
    }

    #[test]
    fn what_was_published_before_is_not_published_again() {
        let mut w = filled(12, 10..=11);
        assert!(!w.warm());
        assert_eq!((w.len(), w.frontier()), (0, MsgId(12)));
        read(&mut w, 12, false);
        assert!(w.warm());
        read(&mut w, 13, false);
        assert_eq!((w.next_unpublished().unwrap().record.id, w.frontier()), (MsgId(13), MsgId(12)));
    }

    #[test]
    fn the_frontier_follows_what_was_published_and_passes_over_what_is_no_entry() {
        let mut w = filled(9, 10..=11);
        w.advance();
        assert_eq!(w.frontier(), MsgId(10));
        w.advance();
        w.read(MsgId(12), 0, None);
        assert_eq!(w.frontier(), MsgId(12));
        w.confirm(MsgId(12));
        assert_eq!((w.len(), w.bytes(), w.confirmed().id, w.frontier()), (0, 0, MsgId(12), MsgId(12)));
    }

    #[test]
    fn a_broken_connection_goes_back_to_the_first_unconfirmed_entry() {
        let mut w = filled(9, 10..=14);
        (0..4).for_each(|_| w.advance());
        w.confirm(MsgId(11));
        assert_eq!(w.published(), 2);
        assert_eq!(w.rewind(), 2);
        assert_eq!((w.next_unpublished().unwrap().record.id, w.frontier()), (MsgId(12), MsgId(11)));
    }

    #[test]
    fn a_control_entry_waits_for_its_fold() {
        let mut w = filled(9, 10..=10);
        read(&mut w, 11, true);
        read(&mut w, 12, true);
        assert!(w.next_unpublished().unwrap().ready());
        w.advance();
        assert!(!w.next_unpublished().unwrap().ready());
        assert_eq!(w.unfolded(1).len(), 1);
        w.folded(vec![(MsgId(11), vec![]), (MsgId(12), vec![])]);
        assert!(w.next_unpublished().unwrap().ready() && w.unfolded(9).is_empty());
        w.rewind();
        assert!(w.unfolded(9).is_empty(), "publishing again folds nothing again");
    }

    #[test]
    fn reading_pauses_when_nothing_leaves() {
        let mut w = filled(0, 1..=MAX_ENTRIES as u64);
        assert!(w.full());
        w.confirm(MsgId(5));
        assert!(!w.full());
    }
}
