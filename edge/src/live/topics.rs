//! Step 5, all topics of this edge: which sessions subscribe to which, and the slot of each subject's subscription.
//! Pure, owned by the dispatcher.

mod ephemeral;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use natterjack_protocol::{
    GroupId, MsgId, Thread, UserId,
    client::frame::Receipt,
    internal::live::{EventHeader, LiveMessage},
    thread::partition_of,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    event::{Gap, LiveEvent, TopicKey},
    topic::{Topic, Unwritten, VisibleRange},
};
use crate::sessions::handle::{SessionHandle, SessionId};

/// Index of a topic; also the slot of its subscription.
pub type TopicSlot = u32;

/// What the dispatcher has to do after a message.
pub enum TopicEffect {
    Subscribe(TopicSlot, TopicKey),
    Unsubscribe(TopicSlot),
    /// Fetch the gap, then call [`Topics::repaired`]. `generation` tells this topic from a later one in the same slot.
    Fetch {
        slot: TopicSlot,
        generation: u64,
        gap: Gap,
    },
    /// The user's own membership of a thread has changed by control entry `id`: read their key.
    Changed {
        user: UserId,
        thread: String,
        id: MsgId,
    },
    /// The user's contacts have changed.
    Contacts(UserId),
    /// For the sessions of those who wrote.
    Receipts {
        to: Vec<(Arc<SessionHandle>, MsgId)>,
        thread: Thread,
        receipts: Vec<Receipt>,
    },
    /// A control entry ended the user's part of the group, here and now in the log's order: see whether they are in it
    /// again.
    Expelled {
        user: UserId,
        group: GroupId,
    },
}

struct TopicEntry {
    topic: Topic,
    /// Counts the topics that were opened here.
    generation: u64,
}

pub struct Topics {
    partitions: u32,
    slots: Vec<Option<TopicEntry>>,
    free: Vec<TopicSlot>,
    by_key: HashMap<TopicKey, TopicSlot>,
    by_session: HashMap<SessionId, Vec<TopicSlot>>,
    last_generation: u64,
    /// Of each partition the newest event that came here, or that a barrier has vouched for.
    newest: Vec<MsgId>,
    /// What has grown in `newest` since somebody took it.
    pub grown: Vec<(u32, MsgId)>,
    /// In the order in which they have to be done.
    pub effects: Vec<TopicEffect>,
    /// Of all that was delivered since somebody wrote.
    pub unwritten: Unwritten,
}

impl Topics {
    /// Slots below `first_slot` are the dispatcher's own.
    pub fn new(partitions: u32, first_slot: TopicSlot) -> Self {
        Self {
            partitions,
            slots: (0..first_slot).map(|_| None).collect(),
            free: Vec::new(),
            by_key: HashMap::new(),
            by_session: HashMap::new(),
            last_generation: 0,
            newest: vec![MsgId::NONE; partitions as usize],
            grown: Vec::new(),
            effects: Vec::new(),
            unwritten: Unwritten::new(),
        }
    }

    /// Can an answer of heads with this frontier be a barrier? Not if it knows less than what is known here already,
    /// from another holder of the partition: between the answer's heads and what comes next lies what others here have
    /// got, and nobody would miss it.
    pub fn covered_by(&self, p: u32, frontier: MsgId) -> bool {
        self.newest.get(p as usize).is_none_or(|newest| *newest <= frontier)
    }

    fn saw(&mut self, p: u32, id: MsgId) {
        if let Some(newest) = self.newest.get_mut(p as usize)
            && *newest < id
        {
            *newest = id;
            self.grown.push((p, id));
        }
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Subscribes a session to a topic, which is opened if it is new. The session catches up until [`Topics::go_live`].
    pub fn subscribe(&mut self, session: &Arc<SessionHandle>, key: &TopicKey, range: VisibleRange) {
        let slot = match self.by_key.get(key) {
            Some(slot) => *slot,
            None => self.open(key),
        };
        let slots = self.by_session.entry(session.id).or_default();
        if !slots.contains(&slot) {
            slots.push(slot);
        }
        if let Some((topic, _)) = self.topic(slot) {
            topic.subscribe(session, range);
        }
    }

    fn open(&mut self, key: &TopicKey) -> TopicSlot {
        self.last_generation += 1;
        let entry =
            Some(TopicEntry { topic: Topic::new(key.clone(), self.partitions), generation: self.last_generation });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                (self.slots.len() - 1) as TopicSlot
            }
        };
        self.by_key.insert(key.clone(), slot);
        self.effects.push(TopicEffect::Subscribe(slot, key.clone()));
        slot
    }

    /// The session has ended.
    pub fn remove_session(&mut self, session: SessionId) {
        for slot in self.by_session.remove(&session).unwrap_or_default() {
            self.remove_subscriber(session, slot);
        }
    }

    /// Sessions that have ended without a command.
    pub fn remove_gone(&mut self) {
        let all = self.slots.iter().flatten().flat_map(|e| e.topic.sessions());
        let gone: HashSet<SessionId> = all.filter(|s| s.gone.load(Relaxed)).map(|s| s.id).collect();
        gone.into_iter().for_each(|id| self.remove_session(id));
    }

    /// The topics to which a session subscribes.
    pub fn slots_of(&self, session: SessionId) -> Vec<TopicSlot> {
        self.by_session.get(&session).cloned().unwrap_or_default()
    }

    pub fn by_key(&self, key: &TopicKey) -> Option<&Topic> {
        self.by_key.get(key).and_then(|slot| self.slots[*slot as usize].as_ref()).map(|e| &e.topic)
    }

    pub fn is_subscribed(&self, session: SessionId, key: &TopicKey) -> bool {
        self.by_key(key).is_some_and(|topic| topic.is_subscribed(session))
    }

    pub fn is_catching_up(&self, session: SessionId, key: &TopicKey) -> bool {
        self.by_key(key).is_some_and(|topic| topic.is_catching_up(session))
    }

    pub fn sessions_of(&self, key: &TopicKey) -> Vec<Arc<SessionHandle>> {
        self.by_key(key).map(|topic| topic.sessions().cloned().collect()).unwrap_or_default()
    }

    /// The session's part of this group ends at `until`.
    pub fn end(&mut self, session: SessionId, group: &GroupId, until: MsgId) {
        let key = TopicKey::Group(group.clone());
        if let Some((topic, _)) = self.by_key.get(&key).copied().and_then(|slot| self.topic(slot)) {
            topic.end(session, Thread::group(group).hash64(), until);
            if !self.is_subscribed(session, &key) {
                self.unsubscribe(session, &key);
            }
        }
    }

    pub fn unsubscribe(&mut self, session: SessionId, key: &TopicKey) {
        if let Some(slot) = self.by_key.get(key).copied() {
            if let Some(slots) = self.by_session.get_mut(&session) {
                slots.retain(|s| *s != slot);
            }
            self.remove_subscriber(session, slot);
        }
    }

    fn remove_subscriber(&mut self, session: SessionId, slot: TopicSlot) {
        if let Some((topic, _)) = self.topic(slot) {
            topic.unsubscribe(session);
        }
        self.close_if_empty(slot);
    }

    fn close_if_empty(&mut self, slot: TopicSlot) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        if let Some(entry) = entry.take_if(|e| e.topic.is_empty()) {
            self.by_key.remove(&entry.topic.key);
            self.free.push(slot);
            self.effects.push(TopicEffect::Unsubscribe(slot));
        }
    }

    fn topic(&mut self, slot: TopicSlot) -> Option<(&mut Topic, u64)> {
        self.delivering(slot).map(|(topic, generation, _)| (topic, generation))
    }

    fn delivering(&mut self, slot: TopicSlot) -> Option<(&mut Topic, u64, &mut Unwritten)> {
        let entry = self.slots.get_mut(slot as usize)?.as_mut()?;
        Some((&mut entry.topic, entry.generation, &mut self.unwritten))
    }

    /// What a topic wants done after an event or a head.
    fn push_effects(&mut self, slot: TopicSlot, generation: u64, gap: Option<Gap>) {
        if let Some((topic, _)) = self.topic(slot)
            && !topic.expelled.is_empty()
            && let TopicKey::Group(group) = topic.key.clone()
        {
            let expelled = std::mem::take(&mut topic.expelled);
            self.effects.extend(expelled.into_iter().map(|user| TopicEffect::Expelled { user, group: group.clone() }));
        }
        if let Some(gap) = gap {
            self.effects.push(TopicEffect::Fetch { slot, generation, gap });
        }
    }

    /// A message on the `.e` subject of a topic. `payload` is what it was parsed from: sessions share its bytes.
    pub fn message(&mut self, slot: TopicSlot, message: LiveMessage, payload: &Bytes) {
        let Some((topic, generation, unwritten)) = self.delivering(slot) else { return };
        match message {
            LiveMessage::Event { header: EventHeader { id, prev, thread, author, control, .. }, frame } => {
                topic.wrote(author);
                let frame = payload.slice_ref(frame);
                let gap = topic.event(LiveEvent { thread: thread.into(), id, prev, control, frame }, unwritten);
                self.saw(partition_of(xxh3_64(thread.as_bytes()), self.partitions), id);
                self.push_effects(slot, generation, gap);
                // A control entry may have ended the part of the group's last session here.
                if control {
                    self.close_if_empty(slot);
                }
            }
            LiveMessage::Head { thread, id } => {
                let gap = topic.head(&thread.into(), id);
                self.push_effects(slot, generation, gap);
            }
            LiveMessage::Member { thread, id } => {
                if let TopicKey::User(user) = &topic.key {
                    let changed = TopicEffect::Changed { user: user.clone(), thread: thread.to_owned(), id };
                    self.effects.push(changed);
                }
            }
        }
    }

    /// The newest id of a thread, for the sessions of `user` (a DM) or of the group.
    pub fn head(&mut self, key: &TopicKey, thread: &Thread, head: MsgId) {
        let Some(slot) = self.by_key.get(key).copied() else { return };
        let Some((topic, generation)) = self.topic(slot) else { return };
        let gap = topic.head(&thread.to_string().into(), head);
        self.push_effects(slot, generation, gap);
    }

    pub fn repaired(&mut self, slot: TopicSlot, generation: u64, gap: &Gap, events: Vec<LiveEvent>) {
        let Some((topic, _, unwritten)) = self.delivering(slot).filter(|(_, g, _)| *g == generation) else { return };
        let gap = topic.repaired(&gap.thread, events, unwritten);
        self.push_effects(slot, generation, gap);
        self.close_if_empty(slot);
    }

    /// A gap could not be filled in time: the sessions of this topic resume from their cursors.
    pub fn give_up(&mut self, slot: TopicSlot, generation: u64) {
        if let Some((topic, _)) = self.topic(slot).filter(|(_, g)| *g == generation) {
            topic.give_up();
            self.close_if_empty(slot);
        }
    }

    /// Nobody can tell what was missed: all sessions resume from their cursors.
    pub fn give_up_all(&mut self) {
        for slot in 0..self.slots.len() as TopicSlot {
            if let Some((topic, _)) = self.topic(slot) {
                topic.give_up();
                self.close_if_empty(slot);
            }
        }
    }

    /// The barrier of partition `p` came back for these topics.
    pub fn attached(&mut self, slots: &[TopicSlot], p: u32, frontier: MsgId) {
        self.saw(p, frontier);
        for slot in slots {
            if let Some((topic, _)) = self.topic(*slot) {
                topic.attached(p, frontier);
            }
        }
    }

    /// The session has its pages up to `skip_until` of each topic. False: more came meanwhile than was held, it has to
    /// read the log again; what comes from here on is held.
    pub fn go_live(&mut self, session: SessionId, topics: &[(TopicKey, Vec<(u64, MsgId)>)]) -> bool {
        let overflowed = topics.iter().any(|(key, _)| self.by_key(key).is_some_and(|t| t.has_overflowed(session)));
        for (key, skip_until) in topics {
            let Some(slot) = self.by_key.get(key).copied() else { continue };
            match self.topic(slot) {
                Some((topic, _)) if overflowed => topic.catch_up_again(session),
                Some((topic, _)) => topic.go_live(session, skip_until),
                None => {}
            }
        }
        !overflowed
    }

    /// The threads that were active here lately, with the topic they came on.
    pub fn active(&self) -> Vec<(TopicKey, Thread)> {
        let topics = self.slots.iter().flatten().map(|e| &e.topic);
        topics.flat_map(|t| t.threads().filter_map(|thread| Some((t.key.clone(), thread.parse().ok()?)))).collect()
    }

    pub fn forget_below(&mut self, frontier: &[MsgId]) {
        self.slots.iter_mut().flatten().for_each(|e| e.topic.forget_below(frontier));
    }
}
