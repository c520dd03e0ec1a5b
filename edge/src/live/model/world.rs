//! The model's world: a log, live subjects that lose, double and delay, and the sessions of one edge with what they
//! have shown.

mod attaching;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use natterjack_protocol::{
    Body, Cid, Entry, Event, Kind, MsgId, Thread, UserId,
    client::frame::ServerFrame,
    codec::Codec,
    internal::live::{self, LiveMessage},
    limits,
};

use self::attaching::Attaching;
use super::{Fate, Step};
use crate::{
    live::{
        event::{Gap, LiveEvent, TopicKey},
        topics::{TopicEffect, Topics},
    },
    members::Members,
    sessions::handle::SessionHandle,
};

const PARTITIONS: u32 = 2;
const USERS: [&str; 3] = ["a", "b", "c"];

fn user(s: &str) -> UserId {
    UserId::parse(s).unwrap()
}

fn threads() -> Vec<Thread> {
    ["dm.a.b", "dm.a.a", "dm.b.c", "group.g", "group.h"].iter().map(|t| t.parse().unwrap()).collect()
}

fn in_it(thread: &Thread, who: &UserId) -> bool {
    match thread {
        Thread::Dm { .. } => thread.peer(who).is_some(),
        Thread::Group { .. } => true,
    }
}

struct Attached {
    handle: Arc<SessionHandle>,
    cursors: HashMap<Thread, MsgId>,
    /// How far its pages have come.
    reached: HashMap<Thread, MsgId>,
}

pub struct World {
    topics: Topics,
    members: Members,
    log: BTreeMap<Thread, Vec<Event>>,
    next_id: u64,
    fetches: Vec<(u32, u64, Gap)>,
    slots: HashMap<TopicKey, u32>,
    late: VecDeque<(TopicKey, bytes::Bytes)>,
    attaching: Vec<Attaching>,
    sessions: Vec<Attached>,
    gone: Vec<Attached>,
    born: u64,
}

impl World {
    pub fn new() -> Self {
        Self {
            topics: Topics::new(PARTITIONS, 1),
            members: Members::default(),
            log: threads().into_iter().map(|t| (t, Vec::new())).collect(),
            next_id: 1_000,
            fetches: Vec::new(),
            slots: HashMap::new(),
            late: VecDeque::new(),
            attaching: Vec::new(),
            sessions: Vec::new(),
            gone: Vec::new(),
            born: 0,
        }
    }

    fn settle(&mut self) {
        self.topics.grown.clear();
        for effect in std::mem::take(&mut self.topics.effects) {
            match effect {
                TopicEffect::Subscribe(slot, key) => drop(self.slots.insert(key, slot)),
                TopicEffect::Unsubscribe(slot) => self.slots.retain(|_, s| *s != slot),
                TopicEffect::Fetch { slot, generation, gap } => self.fetches.push((slot, generation, gap)),
                TopicEffect::Changed { .. }
                | TopicEffect::Expelled { .. }
                | TopicEffect::Contacts(_)
                | TopicEffect::Receipts { .. } => {
                    unreachable!("no control entries and no contacts here")
                }
            }
        }
    }

    fn topics_of(thread: &Thread) -> Vec<TopicKey> {
        match thread {
            Thread::Dm { .. } => thread.dm_users().map(|u| TopicKey::User(u.clone())).collect(),
            Thread::Group { gid } => vec![TopicKey::Group(gid.clone())],
        }
    }

    fn payload(event: &Event) -> bytes::Bytes {
        live::encode_event(event.clone(), false)
    }

    fn arrive(&mut self, key: &TopicKey, payload: &bytes::Bytes) {
        if let Some(slot) = self.slots.get(key) {
            self.topics.message(*slot, LiveMessage::parse(payload).unwrap(), payload);
        }
        self.settle();
    }

    fn send(&mut self, thread: &Thread, fate: Fate) {
        let log = self.log.get_mut(thread).unwrap();
        self.next_id += 1;
        let prev = log.last().map_or(MsgId::NONE, |e| e.id);
        let cid = Cid::mint(self.next_id, [0; 10]);
        let entry = Entry::new(user("a"), cid, Kind::Text, Body::text(format!("{}", self.next_id)));
        let event = Event::new(thread.clone(), MsgId(self.next_id), prev, self.next_id, entry);
        log.push(event.clone());
        let payload = Self::payload(&event);
        for (i, key) in Self::topics_of(thread).iter().enumerate() {
            // The two subjects of a DM do not share their fate.
            let fate = if i == 1 { Fate::Arrives } else { fate };
            match fate {
                Fate::Arrives => self.arrive(key, &payload),
                Fate::Lost => {}
                Fate::Doubled => (0..2).for_each(|_| self.arrive(key, &payload)),
                Fate::Delayed => self.late.push_back((key.clone(), payload.clone())),
            }
        }
    }

    fn between(&self, gap: &Gap) -> Vec<LiveEvent> {
        let thread: Thread = gap.thread.parse().unwrap();
        // One page at a time, so that longer gaps need several.
        let of = self.log[&thread].iter().filter(|e| e.id > gap.after && e.id <= gap.upto).take(3);
        of.cloned().map(LiveEvent::fetched).collect()
    }

    fn fetched(&mut self, which: usize) {
        if !self.fetches.is_empty() {
            let (slot, generation, gap) = self.fetches.remove(which % self.fetches.len());
            let events = self.between(&gap);
            self.topics.repaired(slot, generation, &gap, events);
            self.settle();
        }
    }

    pub fn step(&mut self, step: &Step) {
        let threads = threads();
        match step {
            Step::Send { thread, fate } => self.send(&threads[*thread], *fate),
            Step::PublishAgain { thread, back } => {
                let events = &self.log[&threads[*thread]];
                let again: Vec<_> = events[events.len().saturating_sub(*back)..].iter().map(Self::payload).collect();
                for payload in again {
                    Self::topics_of(&threads[*thread]).iter().for_each(|key| self.arrive(key, &payload));
                }
            }
            Step::Head { thread, lost } => {
                let thread = &threads[*thread];
                if let Some(head) = self.log[thread].last().map(|e| e.id).filter(|_| !lost) {
                    let payload = live::encode_head(&thread.to_string(), head);
                    Self::topics_of(thread).iter().for_each(|key| self.arrive(key, &payload));
                }
            }
            Step::Attach { user: who, json, cursor_back } => {
                self.attach(&user(USERS[*who]), if *json { Codec::Json } else { Codec::Msgpack }, *cursor_back);
            }
            Step::Further { which, behind } => self.further(*which, *behind),
            Step::Crowded { which } => {
                if !self.attaching.is_empty() {
                    let outbox = &self.attaching[which % self.attaching.len()].session.handle.outbox;
                    while outbox.hold(limits::OUTBOX_BYTES / 64) {}
                }
            }
            Step::Leave { session } => {
                if !self.sessions.is_empty() {
                    let gone = self.sessions.remove(session % self.sessions.len());
                    self.topics.remove_session(gone.handle.id);
                    self.gone.push(gone);
                    self.settle();
                }
            }
            Step::Fetched { which } => self.fetched(*which),
            Step::Delayed => {
                if let Some((key, payload)) = self.late.pop_front() {
                    self.arrive(&key, &payload);
                }
            }
            Step::Forget => self.topics.forget_below(&[MsgId(1_000); PARTITIONS as usize]),
        }
    }

    /// A sweep of heads, and every fetch comes back.
    pub fn quiesce(&mut self) {
        while !self.late.is_empty() {
            self.step(&Step::Delayed);
        }
        while !self.attaching.is_empty() {
            self.further(0, 0);
        }
        for thread in threads() {
            if let Some(head) = self.log[&thread].last().map(|e| e.id) {
                Self::topics_of(&thread).iter().for_each(|key| self.topics.head(key, &thread, head));
                self.settle();
            }
        }
        while !self.fetches.is_empty() {
            self.fetched(0);
        }
    }

    fn shown(attached: &Attached) -> HashMap<Thread, Vec<MsgId>> {
        let mut frames = Vec::new();
        assert_eq!(attached.handle.outbox.take(&mut frames, usize::MAX), None, "nobody was thrown out");
        let mut shown: HashMap<Thread, Vec<MsgId>> = HashMap::new();
        for frame in frames {
            match ServerFrame::decode(attached.handle.codec, &frame).unwrap().unwrap() {
                ServerFrame::Event(e) => shown.entry(e.thread.clone()).or_default().push(e.id),
                ServerFrame::Page(page) => {
                    page.events.iter().for_each(|e| shown.entry(e.thread.clone()).or_default().push(e.id))
                }
                other => panic!("{other:?}"),
            }
        }
        shown
    }

    pub fn check(&self) {
        for (attached, here) in self.sessions.iter().map(|s| (s, true)).chain(self.gone.iter().map(|s| (s, false))) {
            let shown = Self::shown(attached);
            for (thread, cursor) in &attached.cursors {
                let expected: Vec<MsgId> = self.log[thread].iter().map(|e| e.id).filter(|id| id > cursor).collect();
                let shown = shown.get(thread).cloned().unwrap_or_default();
                if here {
                    assert_eq!(shown, expected, "{thread} for {}", attached.handle.user);
                } else {
                    assert_eq!(
                        shown,
                        expected[..shown.len()],
                        "{thread} for {}, who left: a prefix of the log's order",
                        attached.handle.user
                    );
                }
            }
        }
    }
}
