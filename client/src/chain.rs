//! One thread's order on this device (before the app sees step 5's events): what follows, what is old, what is missing.
//!
//! `resume` hands pages and live events in; what comes out is contiguous, in the log's order, each event once. Pure.
//! The edge repairs live gaps before it shows what comes after, so a gap here is mostly made of entries that this user
//! may not see.

mod held;

use natterjack_protocol::{
    Event, Most, MsgId,
    client::frame::Page,
    log::chain::{ChainLink, link},
};

use self::held::{Filled, Held};

/// How much of a backlog is fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// Of one thread, bytes as in JSON; what lies below is reported as skipped.
    pub max_fill: Most,
    /// For a thread without a cursor: nothing older than this time (ms since 1970) can be news to this device.
    /// None: this device was never in sync, the newest page is all it gets.
    pub floor: Option<u64>,
}

/// A page that the chain needs before it can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Newest,
    Before(MsgId),
    After(MsgId),
}

#[derive(Debug, Default)]
enum Work {
    #[default]
    None,
    /// A run of the newest events whose predecessors are fetched downwards; pages newest first.
    Fill { pages: Vec<Vec<Event>>, filled: Filled, below: MsgId, held: Held },
    /// Everything above the cursor is fetched upwards.
    Catch { held: Held },
}

/// What the app gets next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub skipped: Option<(MsgId, MsgId)>,
    pub deliver: Vec<Event>,
    /// The part that is needed could not be read now: ask again, but not at once.
    pub later: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// Everything up to here was delivered; none: nothing of this thread yet.
    cursor: Option<MsgId>,
    /// The time of the newest event delivered, milliseconds since 1970: which threads were active last.
    active: u64,
    work: Work,
}

impl Chain {
    pub fn new(cursor: Option<MsgId>, active: u64) -> Self {
        Self { cursor, active, work: Work::None }
    }

    pub fn active(&self) -> u64 {
        self.active
    }

    pub fn cursor(&self) -> Option<MsgId> {
        self.cursor
    }

    pub fn is_whole(&self) -> bool {
        matches!(self.work, Work::None)
    }

    /// The connection is gone; the next one starts from the cursor.
    pub fn reset(&mut self) {
        self.work = Work::None;
    }

    /// The page to ask for now.
    pub fn want(&mut self) -> Option<Want> {
        match &mut self.work {
            Work::None => None,
            Work::Fill { pages, below, held, .. } => {
                held.asked = 0;
                Some(if pages.is_empty() { Want::Newest } else { Want::Before(*below) })
            }
            Work::Catch { held } => {
                held.asked = held.events.len();
                held.again = false;
                Some(self.cursor.map_or(Want::Newest, Want::After))
            }
        }
    }

    /// Bytes that wait here for what is below them.
    pub fn waiting(&self) -> usize {
        match &self.work {
            Work::Fill { filled, .. } => filled.bytes,
            Work::None | Work::Catch { .. } => 0,
        }
    }

    /// Lets them go, before anything was asked for: the run is fetched from its top when its turn comes.
    pub fn let_go(&mut self) {
        if let Work::Fill { pages, filled, below, .. } = &mut self.work {
            pages.clear();
            (*filled, *below) = (Filled::default(), MsgId::MAX);
        }
    }

    pub fn live(&mut self, event: Event) -> Step {
        let mut step = Step::default();
        match &mut self.work {
            Work::Fill { held, .. } | Work::Catch { held } => held.push(event),
            // For a thread never seen, the edge's attach vouches for what came before.
            Work::None => {
                match self.cursor.map_or(ChainLink::Next, |c| link(Some(c), MsgId::NONE, event.prev, event.id)) {
                    ChainLink::Next => self.deliver(&mut step, event),
                    ChainLink::Old => {}
                    ChainLink::Gap { .. } => self.work = Work::Catch { held: Held::of(vec![event]) },
                }
            }
        }
        step
    }

    /// A page that the edge sent by itself after `hello` or `sync`: the newest of the thread.
    pub fn newest(&mut self, page: Page, policy: Policy) -> Step {
        let more = page.more;
        let (events, prev, holed) = above_holes(page);
        let mut step = Step::default();
        match &mut self.work {
            Work::Fill { held, .. } | Work::Catch { held } => {
                held.again |= more || holed;
                events.into_iter().for_each(|e| held.push(e));
            }
            Work::None => {
                let events: Vec<Event> = events.into_iter().filter(|e| self.is_new(e.id)).collect();
                let Some(first) = events.first() else {
                    if more || holed {
                        self.work = Work::Catch { held: Held::default() };
                        step.later = holed;
                    }
                    return step;
                };
                let held = Held { again: more, ..Held::default() };
                if !holed && self.joins(prev, first.ts, policy) {
                    self.join(&mut step, vec![events], held, policy);
                } else {
                    step.later = holed;
                    self.work = Work::Fill {
                        filled: Filled::default().with(&events),
                        below: first.id,
                        pages: vec![events],
                        held,
                    };
                }
            }
        }
        step
    }

    /// The answer to [`Chain::want`].
    pub fn page(&mut self, page: Page, policy: Policy) -> Step {
        match std::mem::take(&mut self.work) {
            Work::None => Step::default(),
            Work::Fill { pages, filled, below, held } => self.filled(page, policy, pages, filled, below, held),
            Work::Catch { held } if self.cursor.is_none() => {
                let mut step = self.newest(page, policy);
                match &mut self.work {
                    Work::Fill { held: h, .. } | Work::Catch { held: h } => {
                        held.events.into_iter().for_each(|e| h.push(e))
                    }
                    Work::None => self.settle(&mut step, held),
                }
                step
            }
            Work::Catch { held } => self.caught(page, held),
        }
    }

    /// Something above the cursor is known to exist and could not be read. False: it is being fetched already.
    pub fn missing(&mut self) -> bool {
        let rests = self.is_whole();
        if rests {
            self.work = Work::Catch { held: Held::default() };
        }
        rests
    }

    /// The page cannot be had at all (no longer a member, for instance): go on with what is here.
    pub fn refused(&mut self, policy: Policy) -> Step {
        let mut step = Step::default();
        match std::mem::take(&mut self.work) {
            Work::None => {}
            Work::Fill { pages, held, .. } if pages.is_empty() => self.settle(&mut step, Held { again: false, ..held }),
            Work::Fill { pages, below, held, .. } => {
                step.skipped = Some((self.cursor.unwrap_or_default(), below));
                self.join(&mut step, pages, held, policy);
            }
            Work::Catch { held } => self.settle(&mut step, Held { again: false, ..held }),
        }
        step
    }

    fn filled(
        &mut self,
        page: Page,
        policy: Policy,
        mut pages: Vec<Vec<Event>>,
        filled: Filled,
        below: MsgId,
        held: Held,
    ) -> Step {
        let mut step = Step::default();
        let (events, prev, holed) = above_holes(page);
        let oldest = events.first().map(|e| (e.id, e.ts));
        let events: Vec<Event> = events.into_iter().filter(|e| self.is_new(e.id) && e.id < below).collect();
        let joined = !holed && oldest.is_none_or(|(_, ts)| self.joins(prev, ts, policy));
        let filled = filled.with(&events);
        let below = oldest.map_or(below, |(id, _)| id.min(below));
        if !events.is_empty() {
            pages.push(events);
        }
        if joined || filled.reaches(policy.max_fill) {
            if !joined {
                step.skipped = Some((self.cursor.unwrap_or_default(), below));
            }
            self.join(&mut step, pages, held, policy);
        } else {
            step.later = holed;
            self.work = Work::Fill { pages, filled, below, held };
        }
        step
    }

    fn caught(&mut self, page: Page, held: Held) -> Step {
        let mut step = Step::default();
        let hole = page.holes.iter().map(|(from, _)| *from).min();
        let empty = page.events.is_empty();
        for event in page.events {
            if self.is_new(event.id) && hole.is_none_or(|h| event.id < h) {
                self.deliver(&mut step, event);
            }
        }
        if hole.is_some() || page.more {
            // "More" without anything would turn in a circle: give the server time.
            step.later = hole.is_some() || empty;
            self.work = Work::Catch { held };
        } else {
            self.settle(&mut step, held);
        }
        step
    }

    fn is_new(&self, id: MsgId) -> bool {
        self.cursor.is_none_or(|c| id > c)
    }

    /// Does a run whose predecessor is `prev` follow what was delivered?
    fn joins(&self, prev: MsgId, oldest_ts: u64, policy: Policy) -> bool {
        prev.is_none()
            || match self.cursor {
                Some(c) => prev <= c,
                None => policy.floor.is_none_or(|floor| oldest_ts < floor),
            }
    }

    fn join(&mut self, step: &mut Step, pages: Vec<Vec<Event>>, held: Held, policy: Policy) {
        let floor = if self.cursor.is_none() { policy.floor.unwrap_or(0) } else { 0 };
        for event in pages.into_iter().rev().flatten() {
            if event.ts >= floor {
                self.deliver(step, event);
            } else {
                self.cursor = Some(event.id);
            }
        }
        self.settle(step, held);
    }

    /// Delivers what was held as far as it follows; the first `asked` ones need no predecessor, the answer has spoken
    /// for them.
    fn settle(&mut self, step: &mut Step, held: Held) {
        let mut rest = Vec::new();
        for (i, event) in held.events.into_iter().enumerate() {
            let verdict = self.cursor.map_or(ChainLink::Next, |c| link(Some(c), MsgId::NONE, event.prev, event.id));
            match verdict {
                _ if !rest.is_empty() => rest.push(event),
                ChainLink::Old => {}
                ChainLink::Gap { .. } if i >= held.asked => rest.push(event),
                ChainLink::Next | ChainLink::Gap { .. } => self.deliver(step, event),
            }
        }
        if !rest.is_empty() || held.again {
            self.work = Work::Catch { held: Held::of(rest) };
        }
    }

    fn deliver(&mut self, step: &mut Step, event: Event) {
        self.cursor = Some(event.id);
        self.active = self.active.max(event.ts);
        step.deliver.push(event);
    }
}

/// The part of a page above its last hole, the `prev` of that part, and whether there was a hole.
fn above_holes(page: Page) -> (Vec<Event>, MsgId, bool) {
    match page.holes.iter().map(|(_, to)| *to).max() {
        None => (page.events, page.prev, false),
        Some(hole) => (page.events.into_iter().filter(|e| e.id > hole).collect(), MsgId::MAX, true),
    }
}

#[cfg(test)]
pub(crate) mod tests;
