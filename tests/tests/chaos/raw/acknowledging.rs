//! What a device says its user has read, again until it is told that it is stored.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use natterjack_protocol::{
    MsgId, Thread,
    client::frame::{Acknowledged, ClientFrame, Receipt},
};

use super::Raw;

/// Percent per tick: what is read in some thread every 300 ms or so.
const READS: u64 = 7;
/// Percent of these in which a device says something older, as one that comes late does.
const LATE: u64 = 20;
/// In a thousand of these, of a device that lies: an id that nobody will ever give.
const LIES: u64 = 30;
const LIE: MsgId = MsgId(1 << 50);
/// Longer than an edge waits for an id that it does not know.
const AGAIN: Duration = Duration::from_secs(7);

/// Not told of yet.
pub(super) struct Unstored {
    id: MsgId,
    said: Option<Instant>,
}

impl Raw {
    /// Up to what this device has shown, or a part of it.
    pub(super) fn reads(&mut self) -> Option<ClientFrame> {
        if !self.rng.chance(READS) || self.lines.is_empty() {
            return None;
        }
        let at = self.rng.index(self.lines.len());
        let (thread, cursor) = self.lines.iter().nth(at).map(|(t, l)| (t.clone(), l.cursor))?;
        if cursor.is_none() {
            return None;
        }
        if self.habit.lies && self.rng.range(0, 1_000) < LIES {
            return Some(self.once(thread, LIE));
        }
        if self.rng.chance(LATE) {
            let older = MsgId(cursor.0.saturating_sub(self.rng.range(1, 100)).max(1));
            return Some(self.once(thread, older));
        }
        let unstored = self.unstored.entry(thread).or_insert(Unstored { id: MsgId::NONE, said: None });
        if unstored.id < cursor {
            *unstored = Unstored { id: cursor, said: None };
        }
        None
    }

    fn once(&self, thread: Thread, id: MsgId) -> ClientFrame {
        self.record.says_read(self.user.id().as_str(), &thread.to_string(), id.0, false);
        ClientFrame::Ack(Acknowledged { got: BTreeMap::new(), read: [(thread, id)].into() })
    }

    pub(super) fn acknowledges(&mut self) -> Option<ClientFrame> {
        let now = Instant::now();
        let due = |u: &Unstored| u.said.is_none_or(|said| now.duration_since(said) > AGAIN);
        let mut read = BTreeMap::new();
        for (thread, unstored) in self.unstored.iter_mut().filter(|(_, u)| due(u)) {
            unstored.said = Some(now);
            self.record.says_read(self.user.id().as_str(), &thread.to_string(), unstored.id.0, true);
            read.insert(thread.clone(), unstored.id);
        }
        (!read.is_empty()).then(|| ClientFrame::Ack(Acknowledged { got: BTreeMap::new(), read }))
    }

    pub(super) fn stored(&mut self, threads: BTreeMap<Thread, MsgId>) {
        for (thread, id) in threads {
            self.record.told_stored(None, self.user.id().as_str(), &thread.to_string(), id.0);
            if self.unstored.get(&thread).is_some_and(|u| u.id <= id) {
                self.unstored.remove(&thread);
            }
        }
    }

    /// Whoever is out of a group has read nothing there.
    pub(super) fn not_theirs(&mut self, thread: &Thread) {
        self.unstored.remove(thread);
    }

    pub(super) fn says_all_again(&mut self) {
        self.unstored.values_mut().for_each(|u| u.said = None);
    }

    pub(super) fn told_receipts(&self, thread: &Thread, receipts: &[Receipt]) {
        for r in receipts {
            self.record.told_receipt(self.user.id().as_str(), r.user.as_str(), &thread.to_string(), r.read.0);
        }
    }
}
