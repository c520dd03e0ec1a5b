//! The sessions of this edge. A device has one: a newer connection of the same device replaces the older.
//! Removing needs the session's own id, so that an old one's cleanup cannot remove the new one.

pub mod handle;
pub mod outbox;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use natterjack_protocol::{
    DeviceId, Token, UserId,
    client::{close, frame::ServerFrame},
};
use parking_lot::Mutex;

use self::handle::{SessionHandle, SessionId};
use crate::refusals::{EdgeError, refuse};

#[derive(Clone)]
struct Entry {
    handle: Arc<SessionHandle>,
    /// Of the login it came with.
    family: Token,
}

#[derive(Default)]
struct Inner {
    by_device: Mutex<HashMap<(UserId, DeviceId), Entry>>,
    ids: AtomicU64,
}

/// Clones share it.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Inner>);

impl Sessions {
    pub fn next_id(&self) -> SessionId {
        SessionId(self.0.ids.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The device's older session is closed.
    pub fn enter(&self, handle: &Arc<SessionHandle>, family: Token) {
        let entry = Entry { handle: handle.clone(), family };
        let (old, count) = {
            let mut all = self.0.by_device.lock();
            (all.insert(key(handle), entry), all.len())
        };
        gauge(count);
        if let Some(old) = old {
            metrics::counter!(crate::metrics::SESSIONS_REPLACED).increment(1);
            old.handle.outbox.close(close::REPLACED);
        }
    }

    /// Closes the session of a login that is over. It takes nothing more from its client, even if that does not read
    /// why.
    pub fn revoke(&self, user: UserId, device: DeviceId, family: &Token) {
        let entry = self.0.by_device.lock().get(&(user, device)).filter(|e| e.family == *family).cloned();
        if let Some(entry) = entry {
            metrics::counter!(crate::metrics::SESSIONS_REVOKED).increment(1);
            entry.handle.frame(&ServerFrame::error(None, refuse(EdgeError::Revoked)));
            entry.handle.outbox.close(close::UNAUTHORIZED);
            entry.handle.outbox.leave();
        }
    }

    pub fn leave(&self, handle: &SessionHandle) {
        let mut all = self.0.by_device.lock();
        let key = key(handle);
        if all.get(&key).is_some_and(|e| e.handle.id == handle.id) {
            all.remove(&key);
            gauge(all.len());
        }
    }

    pub fn len(&self) -> usize {
        self.0.by_device.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.0.by_device.lock().values().map(|e| e.handle.clone()).collect()
    }

    /// Tells everybody; encoded once per codec.
    pub fn tell(&self, frame: &ServerFrame) {
        let (mut msgpack, mut json) = (None, None);
        for handle in self.all() {
            let slot = match handle.codec {
                natterjack_protocol::codec::Codec::Msgpack => &mut msgpack,
                natterjack_protocol::codec::Codec::Json => &mut json,
            };
            handle.outbox.push(slot.get_or_insert_with(|| frame.encode(handle.codec)).clone());
        }
    }
}

fn key(handle: &SessionHandle) -> (UserId, DeviceId) {
    (handle.user.clone(), handle.device.clone())
}

fn gauge(count: usize) {
    metrics::gauge!(crate::metrics::SESSIONS).set(count as f64);
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use natterjack_protocol::codec::Codec;

    use super::*;
    use crate::{members::Members, sessions::outbox::Call};

    fn session(all: &Sessions, device: &str) -> Arc<SessionHandle> {
        let user = UserId::parse("u").unwrap();
        let state = Members::default().enter(&user);
        SessionHandle::new(all.next_id(), user, DeviceId::parse(device).unwrap(), Codec::Json, state, crate::address::Came::default())
    }

    #[test]
    fn an_old_sessions_cleanup_does_not_remove_the_new_one() {
        let all = Sessions::default();
        let (old, new, other) = (session(&all, "d1"), session(&all, "d1"), session(&all, "d2"));
        for s in [&old, &other, &new] {
            all.enter(s, Token::parse("f1").unwrap());
        }
        assert_eq!(all.len(), 2);
        assert!(old.outbox.is_closed() && !new.outbox.is_closed() && !other.outbox.is_closed());
        all.leave(&old);
        assert_eq!(all.len(), 2);
        all.leave(&new);
        all.leave(&new);
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn only_the_login_that_was_revoked_is_closed() {
        let all = Sessions::default();
        let left = |s: &SessionHandle| s.outbox.poll(&mut Context::from_waker(Waker::noop()), false, false) == Poll::Ready(Call::Leave);
        let (id, s) = (|s| Token::parse(s).unwrap(), session(&Sessions::default(), "d1"));
        all.enter(&s, id("f2"));
        all.revoke(id("u"), id("d1"), &id("f1"));
        all.revoke(id("u"), id("d2"), &id("f2"));
        assert!(!s.outbox.is_closed() && !left(&s), "the device has logged in again since");
        all.revoke(id("u"), id("d1"), &id("f2"));
        assert!(s.outbox.is_closed() && left(&s));
    }
}
