//! What the users of this edge may see and do: their threads, from the leader of `<uid>.threads`, kept fresh by `member` signals.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use natterjack_protocol::{
    Refusal, Thread, UserId,
    fold::{ThreadItem, UserThreads},
};
use parking_lot::Mutex;
use tokio::sync::watch;

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
        let state = Arc::new(UserState { user: user.clone(), threads: Mutex::default(), loaded: watch::Sender::new(false) });
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
    loaded: watch::Sender<bool>,
}

impl UserState {
    /// Waits until the threads are known, at most `limit`.
    pub async fn loaded(&self, limit: Duration) -> Result<(), Refusal> {
        let mut loaded = self.loaded.subscribe();
        match tokio::time::timeout(limit, loaded.wait_for(|l| *l)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refusal::unavailable("your threads are not known yet: try again in a moment")),
        }
    }

    pub fn item(&self, thread: &Thread) -> Option<ThreadItem> {
        self.threads.lock().get(thread).cloned()
    }

    pub fn snapshot(&self) -> Vec<(Thread, ThreadItem)> {
        self.threads.lock().iter().map(|(t, i)| (t.clone(), i.clone())).collect()
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

    /// Takes over what the leader of the key says; returns the threads whose item changed, as far as the user may know:
    /// a block is shown to who blocks, not to who is blocked.
    pub fn load(&self, value: UserThreads) -> Vec<(Thread, ThreadItem)> {
        let mut changed = value.threads;
        changed.retain(|thread, item| {
            let old = self.item(thread);
            self.merge(thread, item.clone()) && !old.is_some_and(|old| only_blocked_by(&old, item))
        });
        self.loaded.send_replace(true);
        changed.into_iter().collect()
    }
}

/// The other side's block came or went, and nothing else.
fn only_blocked_by(old: &ThreadItem, new: &ThreadItem) -> bool {
    old.blocked_by != new.blocked_by && ThreadItem { v: new.v, blocked_by: new.blocked_by, ..old.clone() } == *new
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::MsgId;

    use super::*;

    #[test]
    fn sessions_of_one_user_share_their_threads_and_the_newer_item_wins() {
        let members = Members::default();
        let user = UserId::parse("u").unwrap();
        let thread: Thread = "group.g".parse().unwrap();
        let item = |v| ThreadItem { v: MsgId(v), ..ThreadItem::default() };
        let (a, b) = (members.enter(&user), members.enter(&user));
        assert!(a.merge(&thread, item(5)));
        assert!(!b.merge(&thread, item(4)), "an older item never wins");
        assert_eq!(b.item(&thread), Some(item(5)));
        let value = |item| UserThreads { threads: [(thread.clone(), item)].into(), ..UserThreads::default() };
        let blocked = ThreadItem { blocked_by: true, ..item(6) };
        assert_eq!(a.load(value(blocked.clone())), [], "nobody is told that they are blocked");
        assert_eq!(a.item(&thread), Some(blocked));
        let blocking = ThreadItem { blocks: true, ..item(7) };
        assert_eq!(a.load(value(blocking.clone())), [(thread.clone(), blocking)], "one's own block is told");
        drop((a, b));
        assert!(members.get(&user).is_none(), "nobody is kept after their last session");
    }
}
