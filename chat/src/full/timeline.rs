//! One thread as this program has it (pure): what arrived live, the pages that were fetched, what is missing between
//! them, and the own messages that the log has not confirmed.
//!
//! Events of the SDK are contiguous from the first one on; what lies below comes as pages when somebody scrolls there.

mod ops;
mod walk;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use natterjack_client::{
    At, Local,
    protocol::{Event, Kind, MsgId, client::frame::Page},
};

pub use self::{
    ops::Ops,
    walk::{Key, TimelineItem},
};

/// Before the same page is asked for again, doubled up to the last.
const AGAIN: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];
/// What a thread keeps that nobody scrolls in: a few screens; older pages are a request away.
const KEEP: usize = 500;

#[derive(Debug, Default)]
pub struct Timeline {
    events: BTreeMap<MsgId, Event>,
    /// What is missing between events: its last id and its first (inclusive).
    gaps: BTreeMap<MsgId, MsgId>,
    pub older: Older,
    asked: Option<PageWanted>,
    pub trouble: Option<PageFailure>,
    pub pending: Vec<PendingMessage>,
    pub ops: Ops,
    /// The first message that came while nobody looked.
    pub new_from: Option<MsgId>,
}

/// What lies below the first event.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Older {
    #[default]
    Unknown,
    /// Nothing: the thread begins here, as far as this user may see.
    Beginning,
    /// It cannot be had, and asking again would not help.
    Refused(String),
}

/// A page that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageWanted {
    Newest,
    Older(MsgId),
    /// The part that ends with this id.
    Gap(MsgId),
}

/// Why the last page did not come, and when to ask again.
#[derive(Debug, PartialEq, Eq)]
pub struct PageFailure {
    pub why: String,
    again: Instant,
    tries: usize,
}

/// A message of ours on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingMessage {
    pub ticket: u64,
    /// The outbox's name for it, once it is stored there.
    pub local: Option<Local>,
    pub kind: Kind,
    pub text: String,
    pub state: Delivery,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    Waiting,
    /// The log has it under this id; the event itself is about to come.
    Sent(MsgId),
    Refused(String),
}

impl PageWanted {
    pub fn at(self) -> At {
        match self {
            Self::Newest => At::Newest,
            Self::Older(id) => At::Before(id),
            Self::Gap(last) => At::Before(last.next()),
        }
    }
}

impl Timeline {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.pending.is_empty()
    }

    /// `scrolled`: somebody reads what is older.
    pub fn live(&mut self, event: Event, scrolled: bool) {
        self.pending.retain(|p| p.state != Delivery::Sent(event.id));
        self.ops.learn(&event);
        self.ops.apply_live(&mut self.events, &event);
        self.events.insert(event.id, event);
        if !scrolled && self.events.len() > 2 * KEEP {
            self.trim();
        }
    }

    /// Forgets what is old; it is fetched again by who scrolls there.
    pub fn trim(&mut self) {
        let Some(first) = self.events.keys().rev().nth(KEEP - 1).copied() else { return };
        let kept = self.events.split_off(&first);
        if !self.events.is_empty() {
            self.older = Older::Unknown;
        }
        self.events = kept;
        self.gaps = self.gaps.split_off(&first);
        self.ops.forget_below(first);
    }

    /// More was missed than the SDK fetches: what lies between the two ids.
    pub fn skipped(&mut self, from: MsgId, to: MsgId) {
        if from.next() < to {
            self.gap(from.next(), MsgId(to.0 - 1));
        }
    }

    fn gap(&mut self, first: MsgId, last: MsgId) {
        // Below everything it is nothing but older.
        if self.events.range(..first).next().is_some() {
            self.gaps.insert(last, first);
        } else {
            self.older = Older::Unknown;
        }
    }

    /// What is missing between two events that stand beside each other: the last part of it.
    pub fn gap_between(&self, below: MsgId, above: MsgId) -> Option<PageWanted> {
        self.gaps.range(below..above).next_back().map(|(last, _)| PageWanted::Gap(*last))
    }

    /// May this page be asked for now? Then it counts as asked.
    pub fn ask(&mut self, want: PageWanted, now: Instant) -> bool {
        let wait = self.trouble.as_ref().is_some_and(|t| t.again > now);
        let may = self.asked.is_none() && !wait;
        if may {
            self.asked = Some(want);
        }
        may
    }

    /// When to ask again after trouble; None: it is being asked.
    pub fn again(&self) -> Option<Instant> {
        self.trouble.as_ref().filter(|_| self.asked.is_none()).map(|t| t.again)
    }

    /// There is a connection (again): no need to wait.
    pub fn forgive(&mut self) {
        self.trouble = None;
    }

    pub fn page(&mut self, want: PageWanted, page: Page, now: Instant) {
        self.asked = None;
        self.trouble = None;
        let old = self.events.first_key_value().map(|(id, _)| *id);
        if let PageWanted::Gap(last) = want
            && let Some(first) = self.gaps.remove(&last)
            && first <= page.prev
        {
            self.gaps.insert(page.prev, first);
        }
        let lowest = page.events.first().map(|e| e.id);
        for event in page.events {
            self.ops.learn(&event);
            // What is here already is not older: it was changed by what came live.
            let id = event.id;
            let event = self.events.entry(id).or_insert(event);
            self.ops.apply_known(event);
        }
        for (first, last) in &page.holes {
            self.gap(*first, *last);
            self.fail("a part cannot be read now".into(), now);
        }
        let oldest = match want {
            PageWanted::Gap(_) => false,
            // Live events may have come before the newest page.
            PageWanted::Newest | PageWanted::Older(_) => lowest.is_none_or(|l| old.is_none_or(|o| l <= o)),
        };
        if oldest {
            self.older = if page.prev.is_none() { Older::Beginning } else { Older::Unknown };
        }
    }

    /// `final`: asking again cannot help.
    pub fn page_failed(&mut self, want: PageWanted, why: String, is_final: bool, now: Instant) {
        self.asked = None;
        match want {
            _ if !is_final => self.fail(why, now),
            PageWanted::Gap(last) => {
                self.gaps.remove(&last);
            }
            // A thread that nobody wrote in yet does not exist.
            PageWanted::Newest if self.events.is_empty() => self.older = Older::Beginning,
            PageWanted::Newest | PageWanted::Older(_) => self.older = Older::Refused(why),
        }
    }

    fn fail(&mut self, why: String, now: Instant) {
        let tries = self.trouble.as_ref().map_or(0, |t| (t.tries + 1).min(AGAIN.len() - 1));
        self.trouble = Some(PageFailure { why, again: now + AGAIN[tries], tries });
    }

    /// The page to ask for when there is nothing yet.
    pub fn first_want(&self) -> Option<PageWanted> {
        (self.events.is_empty() && self.older == Older::Unknown).then_some(PageWanted::Newest)
    }

    pub fn sent(&mut self, local: Local, id: MsgId) {
        if self.events.contains_key(&id) {
            self.pending.retain(|p| p.local != Some(local));
        } else if let Some(p) = self.pending.iter_mut().find(|p| p.local == Some(local)) {
            p.state = Delivery::Sent(id);
        }
    }

    pub fn refused(&mut self, local: Local, why: String) {
        if let Some(p) = self.pending.iter_mut().find(|p| p.local == Some(local)) {
            p.state = Delivery::Refused(why);
        }
    }

    pub fn forget_refused(&mut self) {
        self.pending.retain(|p| !matches!(p.state, Delivery::Refused(_)));
    }

    /// The own last message, for `/edit` and `/recall`.
    pub fn last_of(&self, user: &natterjack_client::protocol::UserId) -> Option<MsgId> {
        self.events.values().rev().find(|e| &e.from == user && e.kind.is_message()).map(|e| e.id)
    }

    /// Own messages that the log has not confirmed.
    pub fn waiting(&self) -> usize {
        self.pending.iter().filter(|p| p.state == Delivery::Waiting).count()
    }
}

#[cfg(test)]
mod tests;
