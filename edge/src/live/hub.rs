//! All topics of this edge: which sessions sit where, which subject has which slot. Pure, owned by the dispatcher.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use natterjack_protocol::{
    GroupId, MsgId, Thread, UserId,
    client::frame::ServerFrame,
    internal::live::{Ephemeral, EventHeader, LiveMessage},
    thread::partition_of,
};
use xxhash_rust::xxh3::xxh3_64;

use super::topic::{Gap, LiveEvent, Place, Topic, TopicKey};
use crate::sessions::handle::{SessionHandle, SessionId};

/// Index of a topic; also the slot of its subscription.
pub type Slot = u32;

/// What the dispatcher has to do after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    Subscribe(Slot, TopicKey),
    Unsubscribe(Slot),
    /// Fetch the gap, then call [`Hub::repaired`]. `birth` tells this topic from a later one in the same slot.
    Fetch {
        slot: Slot,
        birth: u64,
        gap: Gap,
    },
    /// The user's own membership of a thread has changed by control entry `id`: read their key.
    Changed {
        user: UserId,
        thread: String,
        id: MsgId,
    },
    /// A control entry ended the user's part of the group, here and now in the log's order: see whether they are in it again.
    Cut {
        user: UserId,
        group: GroupId,
    },
}

struct Entry {
    topic: Topic,
    birth: u64,
}

pub struct Hub {
    partitions: u32,
    topics: Vec<Option<Entry>>,
    free: Vec<Slot>,
    by_key: HashMap<TopicKey, Slot>,
    seats: HashMap<SessionId, Vec<Slot>>,
    births: u64,
    /// Of each partition the newest event that came here, or that a barrier has vouched for.
    newest: Vec<MsgId>,
    /// In the order in which they have to be done.
    pub effects: Vec<Effect>,
}

impl Hub {
    /// Slots below `first_slot` are the dispatcher's own.
    pub fn new(partitions: u32, first_slot: Slot) -> Self {
        let topics = (0..first_slot).map(|_| None).collect();
        Self {
            partitions,
            topics,
            free: Vec::new(),
            by_key: HashMap::new(),
            seats: HashMap::new(),
            births: 0,
            newest: vec![MsgId::NONE; partitions as usize],
            effects: Vec::new(),
        }
    }

    /// Can an answer of heads with this frontier be a barrier? Not if it knows less than what is known here already, from another holder of
    /// the partition: between the answer's heads and what comes next lies what others here have got, and nobody would miss it.
    pub fn covered_by(&self, p: u32, frontier: MsgId) -> bool {
        self.newest.get(p as usize).is_none_or(|newest| *newest <= frontier)
    }

    fn saw(&mut self, p: u32, id: MsgId) {
        if let Some(newest) = self.newest.get_mut(p as usize) {
            *newest = id.max(*newest);
        }
    }

    pub fn topics(&self) -> usize {
        self.by_key.len()
    }

    /// Seats a session on a topic, subscribing it if it is new. The seat collects until [`Hub::go_live`].
    pub fn sit(&mut self, session: &Arc<SessionHandle>, key: &TopicKey, place: Place) -> Slot {
        let slot = match self.by_key.get(key) {
            Some(slot) => *slot,
            None => self.open(key),
        };
        let seats = self.seats.entry(session.id).or_default();
        if !seats.contains(&slot) {
            seats.push(slot);
        }
        if let Some(entry) = &mut self.topics[slot as usize] {
            entry.topic.sit(session, place);
        }
        slot
    }

    fn open(&mut self, key: &TopicKey) -> Slot {
        self.births += 1;
        let entry = Some(Entry { topic: Topic::new(key.clone(), self.partitions), birth: self.births });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.topics[slot as usize] = entry;
                slot
            }
            None => {
                self.topics.push(entry);
                (self.topics.len() - 1) as Slot
            }
        };
        self.by_key.insert(key.clone(), slot);
        self.effects.push(Effect::Subscribe(slot, key.clone()));
        slot
    }

    pub fn leave(&mut self, session: SessionId) {
        for slot in self.seats.remove(&session).unwrap_or_default() {
            self.stand_up(session, slot);
        }
    }

    /// Sessions that have ended without saying so.
    pub fn leave_gone(&mut self) {
        let all = self.topics.iter().flatten().flat_map(|e| e.topic.sessions());
        let gone: HashSet<SessionId> = all.filter(|s| s.gone.load(Relaxed)).map(|s| s.id).collect();
        gone.into_iter().for_each(|id| self.leave(id));
    }

    /// The topics on which a session sits.
    pub fn slots_of(&self, session: SessionId) -> Vec<Slot> {
        self.seats.get(&session).cloned().unwrap_or_default()
    }

    pub fn sits(&self, session: SessionId, key: &TopicKey) -> bool {
        self.sessions_of(key).iter().any(|s| s.id == session)
    }

    /// Does it sit there, still reading its pages?
    pub fn filling(&self, session: SessionId, key: &TopicKey) -> bool {
        let entry = self.by_key.get(key).and_then(|slot| self.topics[*slot as usize].as_ref());
        entry.is_some_and(|e| e.topic.filling(session))
    }

    pub fn sessions_of(&self, key: &TopicKey) -> Vec<Arc<SessionHandle>> {
        let entry = self.by_key.get(key).and_then(|slot| self.topics[*slot as usize].as_ref());
        entry.map(|e| e.topic.sessions().cloned().collect()).unwrap_or_default()
    }

    /// The session's part of this group ends at `until`.
    pub fn end(&mut self, session: SessionId, group: &GroupId, until: MsgId) {
        let key = TopicKey::Group(group.clone());
        if let Some((topic, _)) = self.by_key.get(&key).copied().and_then(|slot| self.topic(slot)) {
            topic.end(session, Thread::group(group).hash64(), until);
            if !self.sits(session, &key) {
                self.leave_topic(session, &key);
            }
        }
    }

    /// The session is not in this topic any more.
    pub fn leave_topic(&mut self, session: SessionId, key: &TopicKey) {
        if let Some(slot) = self.by_key.get(key).copied() {
            if let Some(seats) = self.seats.get_mut(&session) {
                seats.retain(|s| *s != slot);
            }
            self.stand_up(session, slot);
        }
    }

    fn stand_up(&mut self, session: SessionId, slot: Slot) {
        if let Some(Some(entry)) = self.topics.get_mut(slot as usize) {
            entry.topic.leave(session);
        }
        self.close_if_empty(slot);
    }

    fn close_if_empty(&mut self, slot: Slot) {
        let Some(place) = self.topics.get_mut(slot as usize) else { return };
        if let Some(entry) = place.take_if(|e| e.topic.is_empty()) {
            self.by_key.remove(&entry.topic.key);
            self.free.push(slot);
            self.effects.push(Effect::Unsubscribe(slot));
        }
    }

    fn topic(&mut self, slot: Slot) -> Option<(&mut Topic, u64)> {
        self.topics.get_mut(slot as usize)?.as_mut().map(|e| (&mut e.topic, e.birth))
    }

    fn fetch(&mut self, slot: Slot, birth: u64, gap: Option<Gap>) {
        if let Some((topic, _)) = self.topic(slot)
            && let TopicKey::Group(group) = topic.key.clone()
        {
            let cut = std::mem::take(&mut topic.cut);
            self.effects.extend(cut.into_iter().map(|user| Effect::Cut { user, group: group.clone() }));
        }
        if let Some(gap) = gap {
            self.effects.push(Effect::Fetch { slot, birth, gap });
        }
    }

    /// A message on the `.e` subject of a topic.
    /// `payload` is what it was parsed from: sessions share its bytes.
    pub fn live(&mut self, slot: Slot, message: LiveMessage, payload: &Bytes) {
        let Some((topic, birth)) = self.topic(slot) else { return };
        let gap = match message {
            LiveMessage::Event { header: EventHeader { id, prev, thread, control, .. }, frame } => {
                let gap = topic.event(LiveEvent { thread: thread.into(), id, prev, control, frame: payload.slice_ref(frame) });
                self.saw(partition_of(xxh3_64(thread.as_bytes()), self.partitions), id);
                gap
            }
            LiveMessage::Head { thread, id } => topic.head(&thread.into(), id),
            LiveMessage::Member { thread, id } => {
                if let TopicKey::User(user) = &topic.key {
                    let changed = Effect::Changed { user: user.clone(), thread: thread.to_owned(), id };
                    self.effects.push(changed);
                }
                return;
            }
        };
        self.fetch(slot, birth, gap);
        // A control entry may have cut the last session of a group.
        if matches!(message, LiveMessage::Event { header: EventHeader { control: true, .. }, .. }) {
            self.close_if_empty(slot);
        }
    }

    /// A message on the `.x` subject of a topic.
    pub fn ephemeral(&mut self, slot: Slot, payload: &[u8]) {
        let Some((topic, _)) = self.topic(slot) else { return };
        match Ephemeral::decode(payload) {
            Ok(Ephemeral::Typing { thread, user }) => {
                let key = xxh3_64(format!("{thread}{user}").as_bytes());
                topic.ephemeral(key, &user, &thread, &ServerFrame::Typing { thread: thread.clone(), user: user.clone() });
            }
            Ok(Ephemeral::Contacts) => topic.sessions().for_each(|s| s.frame(&ServerFrame::Contacts)),
            Err(_) => tracing::debug!(slot, "an ephemeral message of another version"),
        }
    }

    /// The newest id of a thread, for the sessions of `user` (a DM) or of the group.
    pub fn head(&mut self, key: &TopicKey, thread: &Thread, head: MsgId) {
        let Some(slot) = self.by_key.get(key).copied() else { return };
        let Some((topic, birth)) = self.topic(slot) else { return };
        let gap = topic.head(&thread.to_string().into(), head);
        self.fetch(slot, birth, gap);
    }

    pub fn repaired(&mut self, slot: Slot, birth: u64, thread: &Arc<str>, events: Vec<LiveEvent>) {
        let Some((topic, _)) = self.topic(slot).filter(|(_, b)| *b == birth) else { return };
        let gap = topic.repaired(thread, events);
        self.fetch(slot, birth, gap);
        self.close_if_empty(slot);
    }

    /// A gap could not be filled in time: the sessions of this topic resume from their cursors.
    pub fn give_up(&mut self, slot: Slot, birth: u64) {
        if let Some((topic, _)) = self.topic(slot).filter(|(_, b)| *b == birth) {
            topic.give_up();
            self.close_if_empty(slot);
        }
    }

    /// Nobody can tell what was missed: all sessions resume from their cursors.
    pub fn give_up_all(&mut self) {
        for slot in 0..self.topics.len() as Slot {
            if let Some((topic, _)) = self.topic(slot) {
                topic.give_up();
                self.close_if_empty(slot);
            }
        }
    }

    /// The barrier of partition `p` came back for these topics.
    pub fn attached(&mut self, slots: &[Slot], p: u32, frontier: MsgId) {
        self.saw(p, frontier);
        for slot in slots {
            if let Some((topic, _)) = self.topic(*slot) {
                topic.attached(p, frontier);
            }
        }
    }

    /// The session has its pages up to these floors. False: more came meanwhile than was held, it has to read the log again; what comes
    /// from here on is held.
    pub fn go_live(&mut self, session: SessionId, topics: &[(TopicKey, Vec<(u64, MsgId)>)]) -> bool {
        let slots: Vec<Slot> = topics.iter().filter_map(|(key, _)| self.by_key.get(key).copied()).collect();
        let dropped = slots.iter().any(|slot| self.topics[*slot as usize].as_ref().is_some_and(|e| e.topic.has_dropped(session)));
        if dropped {
            for slot in slots {
                if let Some((topic, _)) = self.topic(slot) {
                    topic.fill_again(session);
                }
            }
            return false;
        }
        topics.iter().for_each(|(key, floors)| self.topic_goes_live(session, key, floors));
        true
    }

    fn topic_goes_live(&mut self, session: SessionId, key: &TopicKey, floors: &[(u64, MsgId)]) {
        if let Some(slot) = self.by_key.get(key).copied()
            && let Some((topic, _)) = self.topic(slot)
        {
            topic.go_live(session, floors);
        }
    }

    /// The threads that were active here lately, with the topic they came on.
    pub fn active(&self) -> Vec<(TopicKey, Thread)> {
        let entries = self.topics.iter().flatten();
        entries.flat_map(|e| e.topic.threads().filter_map(|(_, t)| Some((e.topic.key.clone(), t.parse().ok()?)))).collect()
    }

    pub fn forget_below(&mut self, frontier: &[MsgId]) {
        self.topics.iter_mut().flatten().for_each(|e| e.topic.forget_below(frontier));
    }
}
