//! Step 5, the rule: one live subject, the chain of each of its threads, and the sessions that subscribe to it. Pure:
//! no I/O, no clock.
//!
//! Every session gets a thread's events in the log's order without a hole: an event whose `prev` is beyond what was
//! shown waits until the gap is fetched; a session that is catching up (it still reads its pages) collects what comes
//! meanwhile.

mod authors;
mod ephemeral;
mod subscriber;

use std::{collections::HashMap, sync::Arc};

use natterjack_protocol::{
    Most, MsgId, Thread, UserId,
    client::close,
    internal::rpc::HeardOf,
    limits,
    log::{
        chain::{self, ChainLink},
        fold::ends_membership,
    },
    thread::partition_of,
};
use xxhash_rust::xxh3::xxh3_64;

pub use self::subscriber::{Unwritten, VisibleRange};
use self::{
    authors::RecentAuthors,
    subscriber::{Rendered, Subscriber},
};
use super::event::{Gap, LiveEvent, TopicKey};
use crate::sessions::handle::{SessionHandle, SessionId};

/// The end of a thread's chain here.
struct LastShown {
    thread: Arc<str>,
    id: MsgId,
}

/// A gap that is being fetched, and what came after it.
struct Repair {
    held: Vec<LiveEvent>,
    upto: MsgId,
}

/// What a repair holds: as much as may wait for a session. The fetch brings whatever comes beyond it.
const REPAIR: Most = Most { count: limits::OUTBOX_FRAMES, bytes: limits::OUTBOX_BYTES };

pub struct Topic {
    pub key: TopicKey,
    /// By session: a group may have tens of thousands here, and each of them is looked for when it attaches.
    subscribers: Vec<Subscriber>,
    /// Per partition the frontier at which the subject was subscribed; none until the barrier has come back.
    base: Vec<Option<MsgId>>,
    shown: HashMap<u64, LastShown>,
    repairs: HashMap<u64, Repair>,
    /// Users whose sessions a control entry ended since this was taken last: they may have joined again further on.
    pub expelled: Vec<UserId>,
    /// Of a group: who wrote last. Boxed: most topics are a user's own.
    authors: Option<Box<RecentAuthors>>,
}

impl Topic {
    pub fn new(key: TopicKey, partitions: u32) -> Self {
        Self {
            key,
            subscribers: Vec::new(),
            base: vec![None; partitions as usize],
            shown: HashMap::new(),
            repairs: HashMap::new(),
            expelled: Vec::new(),
            authors: None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    pub fn sessions(&self) -> impl Iterator<Item = &Arc<SessionHandle>> {
        self.subscribers.iter().map(|s| &s.session)
    }

    /// Threads of which something was shown.
    pub fn threads(&self) -> impl Iterator<Item = &Arc<str>> {
        self.shown.values().map(|last| &last.thread)
    }

    /// A session that subscribes again has read its membership anew: it may have left and joined again while it caught
    /// up.
    pub fn subscribe(&mut self, session: &Arc<SessionHandle>, range: VisibleRange) {
        match self.place_of(session.id) {
            Ok(at) => self.subscribers[at].learn(range),
            Err(at) => {
                // Most topics are a user's own and have one subscriber.
                if self.subscribers.is_empty() {
                    self.subscribers.reserve_exact(1);
                }
                self.subscribers.insert(at, Subscriber::new(session, range));
            }
        }
    }

    /// Where it stands, or would stand.
    fn place_of(&self, session: SessionId) -> Result<usize, usize> {
        self.subscribers.binary_search_by_key(&session, |s| s.session.id)
    }

    fn subscriber(&self, session: SessionId) -> Option<&Subscriber> {
        self.place_of(session).ok().map(|at| &self.subscribers[at])
    }

    fn subscriber_mut(&mut self, session: SessionId) -> Option<&mut Subscriber> {
        self.place_of(session).ok().map(|at| &mut self.subscribers[at])
    }

    pub fn is_subscribed(&self, session: SessionId) -> bool {
        self.place_of(session).is_ok()
    }

    pub fn is_catching_up(&self, session: SessionId) -> bool {
        self.subscriber(session).is_some_and(Subscriber::is_catching_up)
    }

    /// More came while the session caught up than was held for it.
    pub fn has_overflowed(&self, session: SessionId) -> bool {
        self.subscriber(session).is_some_and(Subscriber::has_overflowed)
    }

    /// What was held is in the pages that the session reads next; holds what comes from here on.
    pub fn catch_up_again(&mut self, session: SessionId) {
        if let Some(subscriber) = self.subscriber_mut(session) {
            subscriber.catch_up_again();
        }
    }

    pub fn unsubscribe(&mut self, session: SessionId) {
        if let Ok(at) = self.place_of(session) {
            self.subscribers.remove(at).release_held();
        }
    }

    /// The session's part of `thread` ends at `until`, where the log says so; what comes before it may still be on its
    /// way.
    pub fn end(&mut self, session: SessionId, thread: u64, until: MsgId) {
        let over = self.shown_upto(thread).is_some_and(|s| s >= until);
        let Ok(at) = self.place_of(session) else { return };
        let subscriber = &mut self.subscribers[at];
        subscriber.range.until = Some(until);
        // A session that catches up is shown what lies before the end first.
        if over && !subscriber.is_catching_up() {
            self.subscribers.remove(at);
        }
    }

    /// The barrier came back: up to `frontier` this partition needs no chain.
    pub fn attached(&mut self, p: u32, frontier: MsgId) {
        if let Some(base) = self.base.get_mut(p as usize) {
            base.get_or_insert(frontier);
        }
    }

    /// Forgets threads that were quiet since `frontier`, under which nothing can be missing any more.
    pub fn forget_below(&mut self, frontier: &[MsgId]) {
        for (base, frontier) in self.base.iter_mut().zip(frontier) {
            if let Some(base) = base {
                *base = (*base).max(*frontier);
            }
        }
        let (base, repairs) = (&self.base, &self.repairs);
        let of = |hash: &u64| base[partition_of(*hash, base.len() as u32) as usize];
        self.shown.retain(|hash, last| of(hash).is_none_or(|base| last.id > base) || repairs.contains_key(hash));
        if self.shown.capacity() > 4 * self.shown.len() + 16 {
            self.shown.shrink_to_fit();
        }
    }

    fn base_of(&self, hash: u64) -> Option<MsgId> {
        self.base[partition_of(hash, self.base.len() as u32) as usize]
    }

    /// Up to where a thread was shown: the chain's end, or the frontier at which the subject was subscribed.
    fn shown_upto(&self, hash: u64) -> Option<MsgId> {
        self.shown.get(&hash).map(|last| last.id).or(self.base_of(hash))
    }

    /// What came of a thread here. None: the session is not subscribed, the barrier has not come back, or something is
    /// missing.
    pub fn heard(&self, session: SessionId, hash: u64) -> Option<HeardOf> {
        let whole = self.is_subscribed(session) && !self.repairs.contains_key(&hash);
        let since = self.base_of(hash).filter(|_| whole)?;
        let head = self.shown.get(&hash).map(|last| last.id).filter(|id| *id > since);
        Some(HeardOf { since, head: head.unwrap_or_default() })
    }

    /// An event from the live subject. Some: fetch this first.
    pub fn event(&mut self, event: LiveEvent, unwritten: &mut Unwritten) -> Option<Gap> {
        let hash = event.hash();
        if let Some(repair) = self.repairs.get_mut(&hash) {
            if !REPAIR.full(&repair.held) {
                repair.held.push(event);
            } else {
                // Cheaper than holding it: the fetch goes on until there.
                repair.upto = repair.upto.max(event.id);
            }
            return None;
        }
        let last = self.shown.get(&hash).map(|last| last.id);
        // Before the barrier came back every event is below it, and in the pages.
        let base = self.base_of(hash).unwrap_or(MsgId::MAX);
        if last.is_none() && base == MsgId::MAX {
            self.show(hash, &event, unwritten);
            return None;
        }
        match chain::link(last, base, event.prev, event.id) {
            ChainLink::Old => None,
            ChainLink::Next => {
                self.show(hash, &event, unwritten);
                None
            }
            ChainLink::Gap { after } => {
                let gap = Gap { thread: event.thread.clone(), after, upto: event.prev };
                self.repairs.insert(hash, Repair { upto: event.prev, held: vec![event] });
                Some(gap)
            }
        }
    }

    /// The newest id of a thread. Some: it was never shown, fetch up to it.
    pub fn head(&mut self, thread: &Arc<str>, head: MsgId) -> Option<Gap> {
        let hash = xxh3_64(thread.as_bytes());
        if let Some(repair) = self.repairs.get_mut(&hash) {
            repair.upto = repair.upto.max(head);
            return None;
        }
        let after = chain::missing(self.shown.get(&hash).map(|last| last.id), self.base_of(hash)?, head)?;
        self.repairs.insert(hash, Repair { upto: head, held: Vec::new() });
        Some(Gap { thread: thread.clone(), after, upto: head })
    }

    /// What a fetch brought, oldest first. Some: more is missing, fetch again.
    pub fn repaired(&mut self, thread: &Arc<str>, events: Vec<LiveEvent>, unwritten: &mut Unwritten) -> Option<Gap> {
        let hash = xxh3_64(thread.as_bytes());
        let mut repair = self.repairs.remove(&hash)?;
        for event in events {
            if self.shown_upto(hash).is_none_or(|s| event.id > s) {
                self.show(hash, &event, unwritten);
            }
        }
        let shown = self.shown_upto(hash).unwrap_or_default();
        if shown < repair.upto {
            let gap = Gap { thread: thread.clone(), after: shown, upto: repair.upto };
            self.repairs.insert(hash, repair);
            return Some(gap);
        }
        let mut held = std::mem::take(&mut repair.held).into_iter();
        while let Some(event) = held.next() {
            if let Some(gap) = self.event(event, unwritten) {
                // It has a repair of its own; what is left of the old one waits behind it.
                if let Some(next) = self.repairs.get_mut(&hash) {
                    next.held.extend(held);
                }
                return Some(gap);
            }
        }
        None
    }

    /// The gap cannot be filled in time: all sessions here resume from their cursors instead.
    pub fn give_up(&mut self) {
        for subscriber in self.subscribers.drain(..) {
            subscriber.session.outbox.close(close::RESYNC);
        }
        self.repairs.clear();
    }

    /// The pages of a session have gone out up to `skip_until`: what was held beyond them follows, then it is live.
    pub fn go_live(&mut self, session: SessionId, skip_until: &[(u64, MsgId)]) {
        let ahead = |(hash, until): &(u64, MsgId)| self.shown_upto(*hash).is_none_or(|shown| *until > shown);
        let ahead: Vec<(u64, MsgId)> = skip_until.iter().copied().filter(ahead).collect();
        let Some(subscriber) = self.subscriber_mut(session) else { return };
        if !subscriber.go_live(skip_until, ahead) {
            return;
        }
        if let (Some(until), TopicKey::Group(gid)) = (subscriber.range.until, &self.key) {
            let thread = Thread::group(gid).hash64();
            self.end(session, thread, until);
        }
    }

    fn show(&mut self, hash: u64, event: &LiveEvent, unwritten: &mut Unwritten) {
        let last =
            self.shown.entry(hash).or_insert_with(|| LastShown { thread: event.thread.clone(), id: MsgId::NONE });
        last.id = event.id;
        let mut rendered = Rendered::new(event);
        if !event.control {
            self.subscribers.iter_mut().for_each(|s| s.deliver(hash, &mut rendered, unwritten));
            return;
        }
        let Some(control) = rendered.decoded().cloned() else { return };
        // The audience ends at the id of the control entry, in the log's order.
        let expelled = &mut self.expelled;
        self.subscribers.retain_mut(|s| {
            let user = &s.session.user;
            let goes =
                control.id > s.range.known_at && ends_membership(control.kind, &control.from, &control.body, user);
            if goes && !expelled.contains(user) {
                expelled.push(user.clone());
            }
            if goes && s.is_catching_up() {
                // What it has collected lies before this and is to be shown first.
                s.range.until.get_or_insert(control.id);
                return true;
            }
            !goes
        });
        for subscriber in self.subscribers.iter_mut().filter(|s| control.shown_to(&s.session.user)) {
            subscriber.deliver(hash, &mut rendered, unwritten);
        }
    }
}

#[cfg(test)]
mod tests;
