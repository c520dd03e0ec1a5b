//! How far the user has read: what the app says until the server has stored it, and what other devices have read. And
//! how far this device has got. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use natterjack_protocol::{MsgId, Thread, client::frame::Acknowledged, limits::CURSORS_PER_HELLO};

use crate::outbox::Change;

/// Said together, at most so often: the edge writes no more often either.
const EVERY: Duration = Duration::from_millis(500);

/// In one frame of what was got, and as many of what was read: with the longest names they fit into a frame.
const THREADS: usize = CURSORS_PER_HELLO / 2;

#[derive(Default)]
pub(crate) struct ReadState {
    /// As the server has it, as far as it was told.
    stored: BTreeMap<Thread, MsgId>,
    /// Further than that, by the app here.
    wanted: BTreeMap<Thread, MsgId>,
    /// Of both, what this connection's edge has not been told.
    unsaid: Acknowledged,
    /// When something was said last.
    said: Option<Instant>,
    changes: Vec<Change>,
}

impl ReadState {
    /// `wanted`: of a run before.
    pub fn new(wanted: impl IntoIterator<Item = (Thread, MsgId)>) -> Self {
        Self { wanted: wanted.into_iter().collect(), ..Self::default() }
    }

    /// The user has read up to here, on this device.
    pub fn read(&mut self, thread: Thread, id: MsgId) {
        if id > self.of(&thread) {
            self.changes.push(Change::Read(thread.clone(), id));
            self.unsaid.read.insert(thread.clone(), id);
            self.wanted.insert(thread, id);
        }
    }

    /// The app has everything up to here.
    pub fn got(&mut self, thread: &Thread, id: MsgId) {
        let got = self.unsaid.got.entry(thread.clone()).or_default();
        *got = id.max(*got);
    }

    /// As the server has it. None: nothing new. `newest`: the newest event of the thread that came here; beyond it
    /// nobody can have read, and the server has cut what said so.
    pub fn stored(&mut self, thread: &Thread, id: MsgId, newest: Option<MsgId>) -> Option<MsgId> {
        let cut = |wanted: MsgId| newest.is_some_and(|newest| newest <= id && newest < wanted);
        let said = !self.unsaid.read.contains_key(thread);
        if self.wanted.get(thread).is_some_and(|wanted| *wanted <= id || said && cut(*wanted)) {
            self.wanted.remove(thread);
            self.unsaid.read.remove(thread);
            self.changes.push(Change::ReadStored(thread.clone()));
        }
        let stored = self.stored.entry(thread.clone()).or_default();
        if id <= *stored {
            return None;
        }
        *stored = id;
        Some(id)
    }

    /// The server does not take it: not a member any more, for instance.
    pub fn refused(&mut self, thread: &Thread) {
        if self.wanted.remove(thread).is_some() {
            self.changes.push(Change::ReadStored(thread.clone()));
        }
    }

    pub fn of(&self, thread: &Thread) -> MsgId {
        let of = |ids: &BTreeMap<Thread, MsgId>| ids.get(thread).copied().unwrap_or_default();
        of(&self.stored).max(of(&self.wanted))
    }

    /// What was said may not have been stored. What was got, `hello` says.
    pub fn disconnected(&mut self) {
        self.unsaid = Acknowledged { got: BTreeMap::new(), read: self.wanted.clone() };
        self.said = None;
    }

    pub fn say_now(&mut self, now: Instant) -> Option<Acknowledged> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        self.said = Some(now);
        let part = |ids: &mut BTreeMap<Thread, MsgId>| match ids.keys().nth(THREADS).cloned() {
            Some(first) => {
                let rest = ids.split_off(&first);
                std::mem::replace(ids, rest)
            }
            None => std::mem::take(ids),
        };
        Some(Acknowledged { got: part(&mut self.unsaid.got), read: part(&mut self.unsaid.read) })
    }

    pub fn due(&self) -> Option<Instant> {
        let nothing = self.unsaid.got.is_empty() && self.unsaid.read.is_empty();
        // Nothing was said yet: at once.
        (!nothing).then(|| self.said.map_or_else(long_ago, |said| said + EVERY))
    }

    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }
}

fn long_ago() -> Instant {
    let now = Instant::now();
    now.checked_sub(EVERY).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(n: usize) -> Thread {
        format!("group.g{n:05}").parse().unwrap()
    }

    #[test]
    fn what_was_read_is_said_until_the_server_has_it() {
        let (mut state, now) = (ReadState::default(), Instant::now());
        let t = thread(1);
        assert_eq!((state.due(), state.say_now(now)), (None, None));
        state.read(t.clone(), MsgId(5));
        state.read(t.clone(), MsgId(4));
        state.got(&t, MsgId(7));
        state.got(&t, MsgId(6));
        let said = state.say_now(now).unwrap();
        assert_eq!((said.read[&t], said.got[&t]), (MsgId(5), MsgId(7)));
        assert_eq!(state.of(&t), MsgId(5));
        state.read(t.clone(), MsgId(6));
        assert_eq!((state.say_now(now), state.due()), (None, Some(now + EVERY)));
        assert_eq!(state.say_now(now + EVERY).unwrap().read[&t], MsgId(6));
        state.disconnected();
        let again = state.say_now(now).unwrap();
        assert_eq!((again.read[&t], again.got.len()), (MsgId(6), 0), "the edge may have died with it");
        assert_eq!(state.stored(&t, MsgId(5), Some(MsgId(6))), Some(MsgId(5)));
        state.disconnected();
        assert_eq!(state.say_now(now).unwrap().read[&t], MsgId(6), "only a part of it was stored");
        assert_eq!((state.stored(&t, MsgId(9), None), state.stored(&t, MsgId(8), None)), (Some(MsgId(9)), None));
        state.disconnected();
        assert_eq!((state.say_now(now), state.of(&t)), (None, MsgId(9)), "read further on another device");
        state.read(t.clone(), MsgId(9));
        assert_eq!(state.say_now(now), None);
        // Beyond the log: cut by the server, and what comes then can be read.
        state.read(t.clone(), MsgId(1 << 40));
        assert_eq!(state.stored(&t, MsgId(10), Some(MsgId(10))), Some(MsgId(10)), "not said yet");
        assert!(state.say_now(now + EVERY).unwrap().read.contains_key(&t));
        assert_eq!(state.stored(&t, MsgId(11), Some(MsgId(11))), Some(MsgId(11)));
        state.read(t.clone(), MsgId(12));
        assert_eq!(state.of(&t), MsgId(12));
        state.stored(&t, MsgId(12), Some(MsgId(12)));
        let changes = state.take_changes();
        assert_eq!(changes[0], Change::Read(t.clone(), MsgId(5)));
        assert_eq!(changes.last(), Some(&Change::ReadStored(t)));
    }

    #[test]
    fn a_frame_takes_as_many_as_it_may_and_a_run_begins_where_the_last_one_ended() {
        let many = THREADS + 3;
        let (mut state, now) = (ReadState::new((0..many).map(|n| (thread(n), MsgId(9)))), Instant::now());
        state.disconnected();
        assert_eq!(state.say_now(now).unwrap().read.len(), THREADS);
        let rest = state.say_now(now + EVERY).unwrap();
        assert_eq!((rest.read.len(), state.due()), (3, None));
        state.refused(&thread(1));
        state.disconnected();
        assert!(!state.say_now(now).unwrap().read.contains_key(&thread(1)));
    }
}
