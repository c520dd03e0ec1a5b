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

    /// Takes over what the leader of the key says; returns the threads whose item changed.
    pub fn load(&self, value: UserThreads) -> Vec<(Thread, ThreadItem)> {
        let mut changed = value.threads;
        changed.retain(|thread, item| self.merge(thread, item.clone()));
        self.loaded.send_replace(true);
        changed.into_iter().collect()
    }
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
        drop((a, b));
        assert!(members.get(&user).is_none(), "nobody is kept after their last session");
    }
}
