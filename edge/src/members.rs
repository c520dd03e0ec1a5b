//! What the users of this edge may see and do: their threads, from the leader of `<uid>.threads`, kept fresh by
//! `member` signals.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering::AcqRel, Ordering::Acquire, Ordering::Release},
    },
    time::Duration,
};

use natterjack_protocol::{
    MsgId, Refusal, Thread, UserId,
    client::{frame::ServerFrame, presence::PresenceSettings},
    log::fold::{ThreadItem, UserThreads},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::acks::UserAcks;

/// Registry of the users that have a session here. Clones share it.
#[derive(Clone, Default)]
pub struct Members {
    users: Arc<Mutex<HashMap<UserId, Weak<UserState>>>>,
}

impl Members {
    /// The state of this user, shared with their other sessions here; empty until attach has read it.
    pub fn enter(&self, user: &UserId) -> Arc<UserState> {
        let mut users = self.users.lock();
        if let Some(state) = users.get(user).and_then(Weak::upgrade) {
            return state;
        }
        // The dead are swept out when the map would grow.
        if users.len() == users.capacity() {
            users.retain(|_, s| s.strong_count() > 0);
        }
        let state = Arc::new(UserState {
            user: user.clone(),
            threads: Mutex::default(),
            told: Mutex::default(),
            loaded: AtomicBool::default(),
            signals: AtomicU32::default(),
            readings: AtomicU32::default(),
            loads: Notify::new(),
            chosen: Mutex::default(),
            acks: UserAcks::default(),
        });
        users.insert(user.clone(), Arc::downgrade(&state));
        state
    }

    pub fn get(&self, user: &UserId) -> Option<Arc<UserState>> {
        self.users.lock().get(user).and_then(Weak::upgrade)
    }

    pub fn all(&self) -> Vec<Arc<UserState>> {
        self.users.lock().values().filter_map(Weak::upgrade).collect()
    }
}

pub struct UserState {
    pub user: UserId,
    threads: Mutex<HashMap<Thread, ThreadItem>>,
    /// Up to which item the sessions here have been told, and their seats put right. An item may be known before: a
    /// send that was refused reads it too.
    told: Mutex<HashMap<Thread, Told>>,
    loaded: AtomicBool,
    signals: AtomicU32,
    /// How often the key is being read now because of a signal.
    readings: AtomicU32,
    loads: Notify,
    /// What the user chose of their presence, read when they typed.
    pub chosen: Mutex<Option<Box<ChosenPresence>>>,
    /// How far the user has read, and the devices of their sessions here have got, as far as it is not written yet.
    pub acks: UserAcks,
}

/// What a user chose of their presence, as it was read.
#[derive(Clone)]
pub struct ChosenPresence {
    pub at: Instant,
    pub settings: PresenceSettings,
    /// Only of those who show themselves to contacts alone.
    pub contacts: Option<Arc<HashSet<UserId>>>,
}

/// The key of this user is being read; ends when its sessions have been told.
pub struct Reading(Arc<UserState>);

impl Reading {
    pub fn of(state: Arc<UserState>) -> Self {
        state.readings.fetch_add(1, AcqRel);
        Self(state)
    }
}

impl std::ops::Deref for Reading {
    type Target = Arc<UserState>;

    fn deref(&self) -> &Arc<UserState> {
        &self.0
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.readings.fetch_sub(1, AcqRel);
    }
}

#[derive(Default, Clone)]
struct Told {
    v: MsgId,
    /// The newest control entry that the user may know of.
    known: MsgId,
}

impl UserState {
    /// Waits until the threads are known, at most `limit`.
    pub async fn loaded(&self, limit: Duration) -> Result<(), Refusal> {
        let known = async {
            loop {
                // Told of every load from here on.
                let load = self.loads.notified();
                if self.loaded.load(Acquire) {
                    return;
                }
                load.await;
            }
        };
        let late = |_| Refusal::unavailable("your threads are not known yet: try again in a moment");
        tokio::time::timeout(limit, known).await.map_err(late)
    }

    /// Something changed in this user's threads, or may have. To be said before anything is done about it.
    pub fn signalled(&self) {
        self.signals.fetch_add(1, Release);
    }

    /// How often that was said: whoever reads the same number before and after has missed nothing.
    pub fn signals(&self) -> u32 {
        self.signals.load(Acquire)
    }

    /// Was something signalled that the sessions here have not been told of yet?
    pub fn is_reading(&self) -> bool {
        self.readings.load(Acquire) > 0
    }

    pub fn item(&self, thread: &Thread) -> Option<ThreadItem> {
        self.threads.lock().get(thread).cloned()
    }

    /// Does either block the other?
    pub fn blocked_with(&self, other: &UserId) -> bool {
        self.item(&Thread::dm(&self.user, other)).is_some_and(|item| item.blocks || item.blocked_by)
    }

    pub fn snapshot(&self) -> Vec<(Thread, ThreadItem)> {
        self.select(|_, _| true)
    }

    /// Those of the user's threads that are wanted.
    pub fn select(&self, mut wanted: impl FnMut(&Thread, &ThreadItem) -> bool) -> Vec<(Thread, ThreadItem)> {
        let threads = self.threads.lock();
        threads.iter().filter(|(t, i)| wanted(t, i)).map(|(t, i)| (t.clone(), i.clone())).collect()
    }

    /// Keeps the newer item; says whether it changed anything.
    pub fn merge(&self, thread: &Thread, item: ThreadItem) -> bool {
        let mut threads = self.threads.lock();
        match threads.get(thread) {
            Some(old) if old.v >= item.v => false,
            _ => {
                threads.insert(thread.clone(), item);
                true
            }
        }
    }

    /// Takes over what the leader of the key says. The first time there is nobody yet who would have to be told.
    pub fn load(&self, value: UserThreads) {
        let first = !self.loaded.load(Acquire);
        for (thread, item) in value.threads {
            self.merge(&thread, item);
        }
        if first {
            self.untold();
        }
        if !self.loaded.swap(true, AcqRel) {
            self.loads.notify_waiters();
        }
    }

    /// Have the sessions here been told of this control entry?
    pub fn knows(&self, thread: &Thread, id: MsgId) -> bool {
        self.told.lock().get(thread).is_some_and(|t| t.v >= id)
    }

    /// Threads whose item is newer than what the sessions were told, each given out once; and whether the user may
    /// hear of it: a block is shown to who blocks, not to who is blocked.
    pub fn untold(&self) -> Vec<(Thread, ThreadItem, bool)> {
        let (threads, mut told) = (self.threads.lock(), self.told.lock());
        let mut news = Vec::new();
        for (thread, item) in threads.iter() {
            let old = told.get(thread);
            if old.is_some_and(|o| o.v >= item.v) {
                continue;
            }
            let known = item.known_to();
            news.push((thread.clone(), item.clone(), known > old.map_or(MsgId::NONE, |o| o.known)));
            told.insert(thread.clone(), Told { v: item.v, known });
        }
        news
    }
}

/// How this user stands in a thread, as far as they may know.
pub fn member_frame(thread: &Thread, item: &ThreadItem) -> ServerFrame {
    ServerFrame::Member {
        thread: thread.clone(),
        id: item.known_to(),
        open: item.open(),
        role: item.role,
        intervals: item.intervals.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_one_user_share_their_threads_and_the_newer_item_wins() {
        let members = Members::default();
        let user = UserId::parse("u").unwrap();
        let thread: Thread = "dm.a.u".parse().unwrap();
        let item = |v| ThreadItem { v: MsgId(v), ..ThreadItem::default() };
        let (a, b) = (members.enter(&user), members.enter(&user));
        assert!(a.merge(&thread, item(5)));
        assert!(!b.merge(&thread, item(4)), "an older item never wins");
        assert_eq!(b.item(&thread), Some(item(5)));
        let value = |item| UserThreads::from_iter([(thread.clone(), item)]);
        let blocked = ThreadItem { blocked_by: true, known: Some(MsgId(5)), ..item(6) };
        a.load(value(item(5)));
        assert_eq!(a.untold(), [], "at the first load there is nobody to tell");
        a.load(value(blocked.clone()));
        assert_eq!(b.untold(), [(thread.clone(), blocked.clone(), false)], "nobody is told that they are blocked");
        assert_eq!(a.item(&thread), Some(blocked));
        let blocking = ThreadItem { blocks: true, ..item(7) };
        a.merge(&thread, blocking.clone());
        assert!(!a.knows(&thread, MsgId(7)), "known to the edge, but the devices were not told");
        assert_eq!(a.untold(), [(thread.clone(), blocking, true)], "one's own block is told, once");
        assert!(a.untold().is_empty() && a.knows(&thread, MsgId(7)));
        let readings = [Reading::of(a.clone()), Reading::of(b.clone())];
        drop(readings.into_iter().next());
        assert!(!b.is_reading(), "both are dropped with the array");
        drop((a, b));
        assert!(members.get(&user).is_none(), "nobody is kept after their last session");
    }
}
