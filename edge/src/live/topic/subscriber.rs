//! Step 5, one session on one topic: what of it this session may see, what is held for it while it catches up, and in
//! which codec it gets it.

use std::sync::Arc;

use bytes::Bytes;
use natterjack_protocol::{Event, MsgId, client::frame::ServerFrame, codec::Codec, log::fold::ThreadItem};

use crate::{live::event::LiveEvent, sessions::handle::SessionHandle, sessions::outbox::SessionOutbox};

/// What a session may see on a topic, as far as was known when it subscribed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VisibleRange {
    /// Events below this are not for this session: it joined the group here.
    pub since: MsgId,
    /// The control entry this is known from: what it and those before it ended was begun again, or never concerned this
    /// session.
    pub known_at: MsgId,
    /// This and what follows is not for this session: it left the group here.
    pub until: Option<MsgId>,
}

impl VisibleRange {
    fn contains(&self, id: MsgId) -> bool {
        id >= self.since && self.until.is_none_or(|until| id < until)
    }
}

impl From<&ThreadItem> for VisibleRange {
    fn from(item: &ThreadItem) -> Self {
        let last = item.intervals.0.last();
        Self { since: last.map_or(MsgId::NONE, |i| i.since), known_at: item.v, until: last.and_then(|i| i.until) }
    }
}

/// What came for a session while it catches up, in its codec. All of it is counted in its outbox.
#[derive(Default)]
struct HeldEvents {
    events: Vec<(u64, MsgId, Bytes)>,
    /// There was too much: it is in the log, and has to be fetched from there.
    overflowed: bool,
}

impl HeldEvents {
    fn add(&mut self, outbox: &SessionOutbox, hash: u64, id: MsgId, frame: Bytes) {
        if !self.overflowed && outbox.hold(frame.len()) {
            self.events.push((hash, id, frame));
        } else {
            self.release(outbox);
            self.overflowed = true;
        }
    }

    fn release(&mut self, outbox: &SessionOutbox) {
        let events = std::mem::take(&mut self.events);
        outbox.release(events.len(), events.iter().map(|(.., frame)| frame.len()).sum());
    }
}

/// Sessions for which something is queued that nobody writes unless told to.
pub type Unwritten = Vec<Arc<SessionHandle>>;

pub struct Subscriber {
    pub session: Arc<SessionHandle>,
    pub range: VisibleRange,
    /// Some: the session is catching up. Boxed: most subscribers are live.
    held: Option<Box<HeldEvents>>,
    /// Threads whose pages went further than this topic has come.
    skip_until: Vec<(u64, MsgId)>,
}

impl Subscriber {
    pub fn new(session: &Arc<SessionHandle>, range: VisibleRange) -> Self {
        Self { session: session.clone(), range, held: Some(Box::default()), skip_until: Vec::new() }
    }

    /// The newer knowledge of its membership wins.
    pub fn learn(&mut self, range: VisibleRange) {
        if range.known_at > self.range.known_at {
            self.range = range;
        }
    }

    pub fn is_catching_up(&self) -> bool {
        self.held.is_some()
    }

    pub fn has_overflowed(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.overflowed)
    }

    pub fn release_held(&mut self) {
        if let Some(held) = &mut self.held {
            held.release(&self.session.outbox);
        }
    }

    pub fn catch_up_again(&mut self) {
        if self.held.is_some() {
            self.release_held();
            self.held = Some(Box::default());
        }
    }

    /// What was held beyond `skip_until` is queued. False: it was live already.
    pub fn go_live(&mut self, skip_until: &[(u64, MsgId)], ahead: Vec<(u64, MsgId)>) -> bool {
        let Some(held) = self.held.take() else { return false };
        for (hash, id, frame) in held.events {
            self.session.outbox.release(1, frame.len());
            // Its part may have ended meanwhile, or begun again.
            if self.range.contains(id) && !skip_until.iter().any(|(h, until)| *h == hash && id <= *until) {
                self.session.outbox.push(frame);
            }
        }
        self.skip_until = ahead;
        true
    }

    /// The next event of its chain: the shared bytes, or their JSON.
    pub fn deliver(&mut self, hash: u64, event: &mut Rendered, unwritten: &mut Unwritten) {
        let id = event.event.id;
        if !self.range.contains(id) || self.has_overflowed() {
            return;
        }
        if !self.skip_until.is_empty() {
            if self.skip_until.iter().any(|(h, until)| *h == hash && id <= *until) {
                return;
            }
            self.skip_until.retain(|(h, _)| *h != hash);
        }
        let Some(frame) = event.frame(self.session.codec) else { return };
        if let Some(held) = &mut self.held {
            held.add(&self.session.outbox, hash, id, frame);
        } else if self.session.outbox.push_unwritten(frame) {
            unwritten.push(self.session.clone());
        }
    }
}

/// An event with what is made of it at most once, however many sessions get it.
pub struct Rendered<'a> {
    event: &'a LiveEvent,
    json: Option<Bytes>,
    decoded: Option<Option<Event>>,
}

impl<'a> Rendered<'a> {
    pub fn new(event: &'a LiveEvent) -> Self {
        Self { event, json: None, decoded: None }
    }

    pub fn decoded(&mut self) -> Option<&Event> {
        let event = self.event;
        let decode = || match ServerFrame::decode(Codec::Msgpack, &event.frame) {
            Ok(Some(ServerFrame::Event(e))) => Some(*e),
            _ => {
                let LiveEvent { thread, id, .. } = event;
                tracing::error!(%thread, %id, "an event on a live subject cannot be decoded; it is not shown");
                None
            }
        };
        self.decoded.get_or_insert_with(decode).as_ref()
    }

    fn frame(&mut self, codec: Codec) -> Option<Bytes> {
        match (codec, &self.json) {
            (Codec::Msgpack, _) => Some(self.event.frame.clone()),
            (Codec::Json, Some(json)) => Some(json.clone()),
            (Codec::Json, None) => {
                let event = Box::new(self.decoded()?.clone());
                let json = ServerFrame::Event(event).encode(Codec::Json);
                Some(self.json.insert(json).clone())
            }
        }
    }
}
