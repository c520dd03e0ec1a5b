//! Step 5, the rule: one live subject with the chain of each of its threads and the sessions that listen. Pure: no I/O, no clock.
//!
//! Every session gets a thread's events in the log's order without a hole: an event whose `prev` is beyond what was shown
//! waits until the gap was fetched; a session that is still reading its pages (`Filling`) collects what comes meanwhile.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use natterjack_protocol::{
    Event, Most, MsgId, Thread, UserId,
    client::{close, frame::ServerFrame},
    codec::Codec,
    limits,
    log::{
        chain::{self, Link},
        fold::{ThreadItem, ends_membership},
    },
    size::Size,
    thread::partition_of,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::sessions::{
    handle::{SessionHandle, SessionId},
    outbox::Outbox,
};

/// Whose live subject it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicKey {
    User(UserId),
    Group(natterjack_protocol::GroupId),
}

impl TopicKey {
    /// The topic on which `user` hears of `thread`.
    pub fn of(thread: &Thread, user: &UserId) -> Self {
        match thread {
            Thread::Dm { .. } => Self::User(user.clone()),
            Thread::Group { gid } => Self::Group(gid.clone()),
        }
    }
}

/// An event on its way to sessions: the frame in MessagePack, made once by `channel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveEvent {
    pub thread: Arc<str>,
    pub id: MsgId,
    pub prev: MsgId,
    pub control: bool,
    pub frame: Bytes,
}

impl LiveEvent {
    pub fn hash(&self) -> u64 {
        xxh3_64(self.thread.as_bytes())
    }

    /// An event that was fetched to fill a gap.
    pub fn fetched(event: Event) -> Self {
        let (thread, id, prev, control) = (event.thread.to_string().into(), event.id, event.prev, event.kind.is_control());
        Self { thread, id, prev, control, frame: ServerFrame::Event(Box::new(event)).encode(Codec::Msgpack) }
    }
}

/// What has to be fetched before the thread can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub thread: Arc<str>,
    pub after: MsgId,
    pub upto: MsgId,
}

struct Seen {
    thread: Arc<str>,
    last: MsgId,
}

struct Repair {
    held: Vec<LiveEvent>,
    upto: MsgId,
}

/// What a repair holds: as much as may wait for a session. Beyond it the fetch brings the rest.
const REPAIR: Most = Most { count: limits::OUTBOX_FRAMES, bytes: limits::OUTBOX_BYTES };

impl Size for LiveEvent {
    fn size(&self) -> usize {
        self.frame.len()
    }
}

/// What came for a session while it reads its pages, in its codec. All of it is counted in its outbox.
#[derive(Default)]
struct Held {
    events: Vec<(u64, MsgId, Bytes)>,
    /// There was too much: it is in the log, and has to be fetched from there.
    dropped: bool,
}

impl Held {
    fn add(&mut self, outbox: &Outbox, hash: u64, id: MsgId, frame: Bytes) {
        if !self.dropped && outbox.hold(frame.len()) {
            self.events.push((hash, id, frame));
        } else {
            self.drop_all(outbox);
            self.dropped = true;
        }
    }

    fn drop_all(&mut self, outbox: &Outbox) {
        let events = std::mem::take(&mut self.events);
        outbox.release(events.len(), events.iter().map(|(.., frame)| frame.len()).sum());
    }
}

/// What a session may hear on a topic, as far as was known when it sat down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Events below this are not for this session: it joined the group here.
    pub since: MsgId,
    /// The control entry this is known from: what it and those before it ended was begun again, or never concerned this place.
    pub v: MsgId,
    /// This and what follows is not for this session: it left the group here.
    pub until: Option<MsgId>,
}

impl Place {
    fn hears(&self, id: MsgId) -> bool {
        id >= self.since && self.until.is_none_or(|until| id < until)
    }
}

impl From<&ThreadItem> for Place {
    fn from(item: &ThreadItem) -> Self {
        let last = item.intervals.0.last();
        Self { since: last.map_or(MsgId::NONE, |i| i.since), v: item.v, until: last.and_then(|i| i.until) }
    }
}

struct Seat {
    session: Arc<SessionHandle>,
    place: Place,
    /// Some: the session reads its pages. Boxed: most seats are live.
    filling: Option<Box<Held>>,
    /// Threads whose pages went further than this topic has come: skip up to there.
    floors: Vec<(u64, MsgId)>,
}

pub struct Topic {
    pub key: TopicKey,
    seats: Vec<Seat>,
    /// Per partition the frontier at which the subject was attached; none until the barrier has come back.
    base: Vec<Option<MsgId>>,
    seen: HashMap<u64, Seen>,
    repairs: HashMap<u64, Repair>,
    /// Users whose sessions were cut off by a control entry since somebody looked: they may have joined again further on.
    pub cut: Vec<UserId>,
}

impl Topic {
    pub fn new(key: TopicKey, partitions: u32) -> Self {
        Self {
            key,
            seats: Vec::new(),
            base: vec![None; partitions as usize],
            seen: HashMap::new(),
            repairs: HashMap::new(),
            cut: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    pub fn sessions(&self) -> impl Iterator<Item = &Arc<SessionHandle>> {
        self.seats.iter().map(|s| &s.session)
    }

    /// Threads with their newest shown id.
    pub fn threads(&self) -> impl Iterator<Item = (u64, &Arc<str>)> {
        self.seen.iter().map(|(hash, s)| (*hash, &s.thread))
    }

    /// Who sits here already and collects may have left and joined again meanwhile.
    pub fn sit(&mut self, session: &Arc<SessionHandle>, place: Place) {
        match self.seats.iter_mut().find(|s| s.session.id == session.id) {
            Some(seat) if place.v > seat.place.v => seat.place = place,
            Some(_) => {}
            None => {
                // Most topics are a user's own and have one seat.
                if self.seats.is_empty() {
                    self.seats.reserve_exact(1);
                }
                self.seats.push(Seat { session: session.clone(), place, filling: Some(Box::default()), floors: Vec::new() });
            }
        }
    }

    /// Still reading its pages?
    pub fn filling(&self, session: SessionId) -> bool {
        self.seats.iter().any(|s| s.session.id == session && s.filling.is_some())
    }

    /// Was something dropped that came while it reads its pages?
    pub fn has_dropped(&self, session: SessionId) -> bool {
        self.seats.iter().any(|s| s.session.id == session && s.filling.as_ref().is_some_and(|held| held.dropped))
    }

    /// What was held is in the pages that it reads next; holds what comes from here on.
    pub fn fill_again(&mut self, session: SessionId) {
        for seat in self.seats.iter_mut().filter(|s| s.session.id == session) {
            if let Some(mut held) = seat.filling.take() {
                held.drop_all(&seat.session.outbox);
                seat.filling = Some(Box::default());
            }
        }
    }

    pub fn leave(&mut self, session: SessionId) {
        self.seats.retain_mut(|s| {
            let goes = s.session.id == session;
            if let Some(held) = s.filling.as_mut().filter(|_| goes) {
                held.drop_all(&s.session.outbox);
            }
            !goes
        });
    }

    /// The session's part of `thread` ends at `until`, where the log says so; what comes before it may still be on its way.
    pub fn end(&mut self, session: SessionId, thread: u64, until: MsgId) {
        let over = self.shown(thread).is_some_and(|s| s >= until);
        self.seats.retain_mut(|s| {
            if s.session.id == session {
                s.place.until = Some(until);
            }
            // Who collects has to get what lies before it first.
            s.session.id != session || s.filling.is_some() || !over
        });
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
        let (seen, base, repairs) = (&mut self.seen, &self.base, &self.repairs);
        let partitions = base.len() as u32;
        seen.retain(|hash, s| base[partition_of(*hash, partitions) as usize].is_none_or(|b| s.last > b) || repairs.contains_key(hash));
        if seen.capacity() > 4 * seen.len() + 16 {
            seen.shrink_to_fit();
        }
    }

    fn base_of(&self, hash: u64) -> Option<MsgId> {
        self.base[partition_of(hash, self.base.len() as u32) as usize]
    }

    /// What was shown of a thread: the chain's end, or the point of attachment.
    fn shown(&self, hash: u64) -> Option<MsgId> {
        self.seen.get(&hash).map(|s| s.last).or(self.base_of(hash))
    }

    /// An event from the live subject. Some: fetch this first.
    pub fn event(&mut self, event: LiveEvent) -> Option<Gap> {
        let hash = event.hash();
        if let Some(repair) = self.repairs.get_mut(&hash) {
            if !REPAIR.full(&repair.held) {
                repair.held.push(event);
            } else {
                // Cheaper than holding on: the fetch will bring it.
                repair.upto = repair.upto.max(event.id);
            }
            return None;
        }
        let last = self.seen.get(&hash).map(|s| s.last);
        // Before the barrier came back every event is below it, and in the pages.
        let base = self.base_of(hash).unwrap_or(MsgId::MAX);
        if last.is_none() && base == MsgId::MAX {
            self.show(hash, &event);
            return None;
        }
        match chain::link(last, base, event.prev, event.id) {
            Link::Old => None,
            Link::Next => {
                self.show(hash, &event);
                None
            }
            Link::Gap { after } => {
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
        let after = chain::missing(self.seen.get(&hash).map(|s| s.last), self.base_of(hash)?, head)?;
        self.repairs.insert(hash, Repair { upto: head, held: Vec::new() });
        Some(Gap { thread: thread.clone(), after, upto: head })
    }

    /// What a fetch brought, oldest first. Some: more is missing, fetch again.
    pub fn repaired(&mut self, thread: &Arc<str>, events: Vec<LiveEvent>) -> Option<Gap> {
        let hash = xxh3_64(thread.as_bytes());
        let mut repair = self.repairs.remove(&hash)?;
        for event in events {
            if self.shown(hash).is_none_or(|s| event.id > s) {
                self.show(hash, &event);
            }
        }
        let shown = self.shown(hash).unwrap_or_default();
        if shown < repair.upto {
            let gap = Gap { thread: thread.clone(), after: shown, upto: repair.upto };
            self.repairs.insert(hash, repair);
            return Some(gap);
        }
        let mut held = std::mem::take(&mut repair.held).into_iter();
        while let Some(event) = held.next() {
            if let Some(gap) = self.event(event) {
                // Its own repair has begun; what is left of the old one waits behind it.
                if let Some(next) = self.repairs.get_mut(&hash) {
                    next.held.extend(held);
                }
                return Some(gap);
            }
        }
        None
    }

    /// The gap cannot be filled in time: everybody here resumes from their cursors instead.
    pub fn give_up(&mut self) {
        for seat in self.seats.drain(..) {
            seat.session.outbox.close(close::RESYNC);
        }
        self.repairs.clear();
    }

    /// The pages of a session have gone out up to `floors`: what was collected beyond them follows, then it is live.
    pub fn go_live(&mut self, session: SessionId, floors: &[(u64, MsgId)]) {
        let ahead: Vec<(u64, MsgId)> =
            floors.iter().copied().filter(|(hash, floor)| self.shown(*hash).is_none_or(|s| *floor > s)).collect();
        let Some(seat) = self.seats.iter_mut().find(|s| s.session.id == session) else { return };
        let Some(held) = seat.filling.take() else { return };
        for (hash, id, frame) in held.events {
            seat.session.outbox.release(1, frame.len());
            // Its part may have ended meanwhile, or begun again.
            if seat.place.hears(id) && !floors.iter().any(|(h, floor)| *h == hash && id <= *floor) {
                seat.session.outbox.push(frame);
            }
        }
        seat.floors = ahead;
        if let (Some(until), TopicKey::Group(gid)) = (seat.place.until, &self.key) {
            let thread = Thread::group(gid).hash64();
            self.end(session, thread, until);
        }
    }

    fn show(&mut self, hash: u64, event: &LiveEvent) {
        self.seen.entry(hash).or_insert_with(|| Seen { thread: event.thread.clone(), last: MsgId::NONE }).last = event.id;
        let (mut json, mut decoded) = (None, None);
        if event.control {
            let Some(control) = decode(event, &mut decoded).clone() else { return };
            // The audience is cut at the id of the control entry, in order.
            let cut = &mut self.cut;
            self.seats.retain_mut(|s| {
                let user = &s.session.user;
                let goes = control.id > s.place.v && ends_membership(control.kind, &control.from, &control.body, user);
                if goes && !cut.contains(user) {
                    cut.push(user.clone());
                }
                if goes && s.filling.is_some() {
                    // What it has collected lies before this and is to be shown first.
                    s.place.until.get_or_insert(control.id);
                    return true;
                }
                !goes
            });
            for seat in self.seats.iter_mut().filter(|s| control.shown_to(&s.session.user)) {
                deliver(seat, hash, event, &mut json, &mut decoded);
            }
        } else {
            for seat in &mut self.seats {
                deliver(seat, hash, event, &mut json, &mut decoded);
            }
        }
    }

    /// Something that may be lost, for all live sessions here but the user's own.
    pub fn ephemeral(&self, key: u64, from: &UserId, thread: &Thread, frame: &ServerFrame) {
        for seat in self.seats.iter().filter(|s| s.filling.is_none() && s.session.user != *from) {
            if !seat.session.state.item(thread).is_some_and(|i| i.blocks || i.blocked_by) {
                seat.session.outbox.push_ephemeral(key, frame.encode(seat.session.codec));
            }
        }
    }
}

fn decode<'a>(event: &LiveEvent, decoded: &'a mut Option<Option<Event>>) -> &'a Option<Event> {
    decoded.get_or_insert_with(|| match ServerFrame::decode(Codec::Msgpack, &event.frame) {
        Ok(Some(ServerFrame::Event(e))) => Some(*e),
        _ => {
            tracing::error!(thread = %event.thread, id = %event.id, "an event on a live subject cannot be decoded");
            None
        }
    })
}

/// One event to one session: the shared bytes, or their JSON made at most once per event.
fn deliver(seat: &mut Seat, hash: u64, event: &LiveEvent, json: &mut Option<Bytes>, decoded: &mut Option<Option<Event>>) {
    if !seat.place.hears(event.id) || seat.filling.as_ref().is_some_and(|held| held.dropped) {
        return;
    }
    if !seat.floors.is_empty() {
        if seat.floors.iter().any(|(h, floor)| *h == hash && event.id <= *floor) {
            return;
        }
        seat.floors.retain(|(h, _)| *h != hash);
    }
    let frame = match seat.session.codec {
        Codec::Msgpack => event.frame.clone(),
        Codec::Json => match json {
            Some(json) => json.clone(),
            None => {
                let Some(event) = decode(event, decoded) else { return };
                let bytes = ServerFrame::Event(Box::new(event.clone())).encode(Codec::Json);
                json.insert(bytes).clone()
            }
        },
    };
    match &mut seat.filling {
        Some(held) => held.add(&seat.session.outbox, hash, event.id, frame),
        None => seat.session.outbox.push(frame),
    }
}

#[cfg(test)]
mod tests;
