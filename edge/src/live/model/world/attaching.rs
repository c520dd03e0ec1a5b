//! Sessions of the model on their way in, one step at a time: subscribe, barrier, pages, live.

use std::{collections::HashMap, sync::Arc};

use natterjack_protocol::{
    Event, MsgId, Thread, UserId,
    client::frame::{Page, ServerFrame},
    codec::Codec,
    limits,
    log::{Intervals, fold::ThreadItem},
};

use super::{Attached, PARTITIONS, World, in_it, threads};
use crate::{
    live::{event::TopicKey, topic::VisibleRange},
    sessions::handle::{SessionHandle, SessionId},
};

/// A session between its first subscription and going live.
pub(super) struct Attaching {
    pub(super) session: Attached,
    cursor_back: usize,
    at: At,
}

/// How far it has come.
enum At {
    /// It subscribes to its user's topic.
    User,
    /// A barrier came back, it subscribes to its groups.
    Groups,
    /// The heads came back, the pages have gone out up to these.
    Pages(HashMap<TopicKey, Vec<(u64, MsgId)>>),
}

impl World {
    pub(super) fn attach(&mut self, who: &UserId, codec: Codec, cursor_back: usize) {
        self.born += 1;
        let state = self.members.enter(who);
        let handle = SessionHandle::new(
            SessionId(self.born),
            who.clone(),
            who.clone(),
            who.clone(),
            codec,
            state,
            crate::address::Came::default(),
        );
        for thread in threads().iter().filter(|t| in_it(t, who)) {
            handle
                .state
                .merge(thread, ThreadItem { v: MsgId(1), intervals: Intervals::all(), ..ThreadItem::default() });
        }
        self.topics.subscribe(&handle, &TopicKey::User(who.clone()), VisibleRange::default());
        self.settle();
        self.attaching.push(Attaching {
            session: Attached { handle, cursors: HashMap::new(), reached: HashMap::new() },
            cursor_back,
            at: At::User,
        });
    }

    pub(super) fn further(&mut self, which: usize, behind: u64) {
        if self.attaching.is_empty() {
            return;
        }
        let mut a = self.attaching.remove(which % self.attaching.len());
        let frontier = MsgId(self.next_id - behind.min(self.next_id));
        // Else it is asked again.
        let taken = (0..PARTITIONS).all(|p| self.topics.covered_by(p, frontier));
        match a.at {
            At::User if taken => {
                self.first_barrier(&a.session.handle, frontier);
                self.attaching.push(Attaching { at: At::Groups, ..a });
            }
            At::Groups if taken => {
                let skip_until = self.barrier(&mut a.session, a.cursor_back, frontier);
                self.attaching.push(Attaching { at: At::Pages(skip_until), ..a });
            }
            At::User | At::Groups => self.attaching.push(a),
            At::Pages(skip_until) => {
                let topics: Vec<_> = skip_until.into_iter().collect();
                let live = self.topics.go_live(a.session.handle.id, &topics);
                self.settle();
                if live {
                    self.sessions.push(a.session);
                } else {
                    a.session.handle.outbox.release(limits::OUTBOX_FRAMES, limits::OUTBOX_BYTES);
                    self.attaching.push(Attaching { at: At::Groups, ..a });
                }
            }
        }
    }

    fn first_barrier(&mut self, handle: &Arc<SessionHandle>, frontier: MsgId) {
        let own = TopicKey::User(handle.user.clone());
        (0..PARTITIONS).for_each(|p| self.topics.attached(&[self.slots[&own]], p, frontier));
        for thread in threads().iter().filter(|t| matches!(t, Thread::Group { .. }) && in_it(t, &handle.user)) {
            self.topics.subscribe(handle, &TopicKey::of(thread, &handle.user), VisibleRange::default());
        }
        self.settle();
    }

    /// What was published before the barrier has come by now, or is lost.
    fn barrier(
        &mut self,
        session: &mut Attached,
        cursor_back: usize,
        frontier: MsgId,
    ) -> HashMap<TopicKey, Vec<(u64, MsgId)>> {
        let handle = session.handle.clone();
        let who = &handle.user;
        let mut skip_until: HashMap<TopicKey, Vec<(u64, MsgId)>> =
            HashMap::from([(TopicKey::User(who.clone()), vec![])]);
        for thread in threads().iter().filter(|t| in_it(t, who)) {
            let key = TopicKey::of(thread, who);
            self.topics.attached(&[self.slots[&key]], thread.partition(PARTITIONS), frontier);
            let log: Vec<_> = self.log[thread].iter().filter(|e| e.id <= frontier).cloned().collect();
            let head = log.last().map_or(MsgId::NONE, |e| e.id);
            let cursor = log.len().checked_sub(cursor_back + 1).map_or(MsgId::NONE, |i| log[i].id);
            let cursor = match session.reached.get(thread) {
                Some(reached) => *reached,
                None => {
                    session.cursors.insert(thread.clone(), cursor);
                    cursor
                }
            };
            session.reached.insert(thread.clone(), head.max(cursor));
            skip_until.entry(key.clone()).or_default().push((thread.hash64(), head));
            let events: Vec<Event> = log.iter().filter(|e| e.id > cursor).cloned().collect();
            if !events.is_empty() {
                handle.frame(&ServerFrame::Page(Page { thread: Some(thread.clone()), events, ..Page::default() }));
            }
            if !head.is_none() {
                self.topics.head(&key, thread, head);
            }
            self.settle();
        }
        skip_until
    }
}
