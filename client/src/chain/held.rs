//! What waits in a chain for what lies below it: pages of a backlog are counted, live events are held.

use natterjack_protocol::{Event, Most, size};

/// Live events held while something below them is fetched, of one thread. Beyond it they are dropped and fetched again
/// afterwards.
pub(super) const HELD: Most = Most { count: 1_000, bytes: 1 << 20 };

/// How much of a backlog is here, waiting for what is below it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Filled {
    pub count: usize,
    pub bytes: usize,
}

impl Filled {
    pub fn with(self, events: &[Event]) -> Self {
        Self { count: self.count + events.len(), bytes: self.bytes + events.iter().map(size::json).sum::<usize>() }
    }

    pub fn reaches(&self, most: Most) -> bool {
        self.count >= most.count || self.bytes >= most.bytes
    }
}

#[derive(Debug, Default)]
pub(super) struct Held {
    pub events: Vec<Event>,
    pub(super) size: Filled,
    /// So many of them were here when the page was asked for: the answer speaks for what lies below them, not for later
    /// ones.
    pub asked: usize,
    /// Since then events were dropped, or a page said that there is more: ask upwards before resting.
    pub again: bool,
}

impl Held {
    pub fn of(events: Vec<Event>) -> Self {
        Self { size: Filled::default().with(&events), events, ..Self::default() }
    }

    pub fn push(&mut self, event: Event) {
        if self.events.last().is_some_and(|last| event.id <= last.id) {
            return;
        }
        if self.size.reaches(HELD) {
            *self = Self { again: true, ..Self::default() };
        }
        self.size = self.size.with(std::slice::from_ref(&event));
        self.events.push(event);
    }
}
