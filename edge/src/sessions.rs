//! The sessions of this edge. A device has one: a newer connection of the same device replaces the older.
//! Removing needs the session's own id, so that an old one's cleanup cannot remove the new one.

pub mod handle;
pub mod outbox;
pub mod socket;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use natterjack_protocol::{
    Code, DeviceId, Refusal, Token, UserId,
    client::{close, frame::ServerFrame},
    internal::rpc::Leaving,
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
struct Registry {
    by_device: HashMap<(UserId, DeviceId), Entry>,
    /// Sessions that are on their way in, and why one of them has to go already.
    expected: HashMap<Token, Option<Leaving>>,
}

#[derive(Default)]
struct Inner {
    registry: Mutex<Registry>,
    ids: AtomicU64,
}

/// Clones share it.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Inner>);

impl Sessions {
    pub fn next_id(&self) -> SessionId {
        SessionId(self.0.ids.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A session of this id is on its way in: from here on it may be told to go.
    pub fn expect(&self, session: &Token) {
        self.0.registry.lock().expected.insert(session.clone(), None);
    }

    /// Was one that is on its way in told to go?
    pub fn has_to_go(&self, session: &Token) -> bool {
        self.0.registry.lock().expected.get(session).is_some_and(Option::is_some)
    }

    /// It is on its way no more.
    pub fn forget(&self, session: &Token) {
        self.0.registry.lock().expected.remove(session);
    }

    /// The device's older session is closed. Refused: this one has to go already.
    pub fn enter(&self, handle: &Arc<SessionHandle>, family: Token) -> Result<(), Leaving> {
        let entry = Entry { handle: handle.clone(), family };
        let (old, count) = {
            let mut all = self.0.registry.lock();
            if let Some(Some(why)) = all.expected.remove(&handle.session) {
                return Err(why);
            }
            (all.by_device.insert(key(handle), entry), all.by_device.len())
        };
        gauge(count);
        if let Some(old) = old {
            metrics::counter!(crate::metrics::SESSIONS_REPLACED).increment(1);
            old.handle.outbox.close(close::REPLACED);
        }
        Ok(())
    }

    /// The session ends, and another one with its id is on its way in: from here on that may be told to go. False: it
    /// was closed or replaced, so there is no other.
    pub fn expect_again(&self, handle: &SessionHandle) -> bool {
        let all = &mut *self.0.registry.lock();
        let key = key(handle);
        let goes_on = all.by_device.get(&key).is_some_and(|e| e.handle.id == handle.id) && !handle.outbox.is_closed();
        if goes_on {
            all.by_device.remove(&key);
            all.expected.insert(handle.session.clone(), None);
            gauge(all.by_device.len());
        }
        goes_on
    }

    /// Closes this session, also one that is on its way in. When it returns, the session takes nothing more from its
    /// client.
    pub fn close(&self, user: &UserId, device: &DeviceId, session: &Token, why: &Leaving) {
        // Held to the end: a session that was found here is closed before it can be expected again.
        let mut all = self.0.registry.lock();
        if let Some(expected) = all.expected.get_mut(session) {
            *expected = Some(why.clone());
            return;
        }
        let entry = all.by_device.get(&(user.clone(), device.clone()));
        let Some(handle) = entry.filter(|e| e.handle.session == *session).map(|e| &e.handle) else { return };
        let (frame, code) = match why {
            Leaving::Displaced(by) => (Some(ServerFrame::Displaced(by.clone())), close::DISPLACED),
            Leaving::Replaced => (None, close::REPLACED),
            Leaving::Refused => {
                let refusal = Refusal::new(Code::DeviceLimit, "too many devices of this class are connected");
                (Some(ServerFrame::error(None, refusal)), close::DEVICE_LIMIT)
            }
            Leaving::Elsewhere => (None, close::RESYNC),
        };
        metrics::counter!(crate::metrics::SESSIONS_TAKEN_OVER, "code" => code.code.to_string()).increment(1);
        frame.iter().for_each(|frame| handle.frame(frame));
        handle.outbox.close(code);
        handle.outbox.leave();
    }

    pub fn has(&self, user: &UserId, device: &DeviceId) -> bool {
        self.0.registry.lock().by_device.contains_key(&(user.clone(), device.clone()))
    }

    /// Closes the session of a login that is over. It takes nothing more from its client, even if that does not read
    /// why.
    pub fn revoke(&self, user: UserId, device: DeviceId, family: &Token) {
        let entry = self.0.registry.lock().by_device.get(&(user, device)).filter(|e| e.family == *family).cloned();
        if let Some(entry) = entry {
            metrics::counter!(crate::metrics::SESSIONS_REVOKED).increment(1);
            entry.handle.frame(&ServerFrame::error(None, refuse(EdgeError::Revoked)));
            entry.handle.outbox.close(close::UNAUTHORIZED);
            entry.handle.outbox.leave();
        }
    }

    pub fn leave(&self, handle: &SessionHandle) {
        let all = &mut self.0.registry.lock().by_device;
        let key = key(handle);
        if all.get(&key).is_some_and(|e| e.handle.id == handle.id) {
            all.remove(&key);
            gauge(all.len());
        }
    }

    pub fn len(&self) -> usize {
        self.0.registry.lock().by_device.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.0.registry.lock().by_device.values().map(|e| e.handle.clone()).collect()
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
    use crate::{
        members::Members,
        sessions::outbox::{Call, WriterState},
    };

    fn session(all: &Sessions, device: &str) -> Arc<SessionHandle> {
        let user = UserId::parse("u").unwrap();
        let state = Members::default().enter(&user);
        let (id, session) = (all.next_id(), Token::mint('s', rand::random()));
        let device = DeviceId::parse(device).unwrap();
        SessionHandle::new(id, session, user, device, Codec::Json, state, crate::address::Came::default())
    }

    #[test]
    fn an_old_sessions_cleanup_does_not_remove_the_new_one() {
        let all = Sessions::default();
        let (old, new, other) = (session(&all, "d1"), session(&all, "d1"), session(&all, "d2"));
        for s in [&old, &other, &new] {
            all.enter(s, Token::parse("f1").unwrap()).unwrap();
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
        let left = |s: &SessionHandle| {
            s.outbox.poll(&mut Context::from_waker(Waker::noop()), WriterState::Blocked, false)
                == Poll::Ready(Call::Leave)
        };
        let (id, s) = (|s| Token::parse(s).unwrap(), session(&Sessions::default(), "d1"));
        all.enter(&s, id("f2")).unwrap();
        all.revoke(id("u"), id("d1"), &id("f1"));
        all.revoke(id("u"), id("d2"), &id("f2"));
        assert!(!s.outbox.is_closed() && !left(&s), "the device has logged in again since");
        all.revoke(id("u"), id("d1"), &id("f2"));
        assert!(s.outbox.is_closed() && left(&s));
    }

    #[test]
    fn a_session_that_has_to_go_before_it_is_in_does_not_come_in() {
        let (all, id) = (Sessions::default(), |s| Token::parse(s).unwrap());
        let (one, other) = (session(&all, "d1"), session(&all, "d1"));
        for s in [&one, &other] {
            all.expect(&s.session);
        }
        all.close(&id("u"), &id("d1"), &one.session, &Leaving::Replaced);
        assert_eq!(all.enter(&one, id("f")), Err(Leaving::Replaced));
        assert_eq!(all.enter(&other, id("f")), Ok(()));
        all.close(&id("u"), &id("d1"), &one.session, &Leaving::Replaced);
        assert!(!other.outbox.is_closed(), "of another session");
        all.close(&id("u"), &id("d1"), &other.session, &Leaving::Elsewhere);
        assert!(other.outbox.is_closed());
    }

    #[test]
    fn between_two_polls_a_session_may_be_told_to_go() {
        let (all, id) = (Sessions::default(), |s| Token::parse(s).unwrap());
        let poll = session(&all, "d1");
        all.enter(&poll, id("f")).unwrap();
        assert!(all.expect_again(&poll) && all.is_empty() && !all.expect_again(&poll));
        all.enter(&poll, id("f")).unwrap();
        assert!(all.expect_again(&poll));
        assert!(!all.has_to_go(&poll.session));
        all.close(&id("u"), &id("d1"), &poll.session, &Leaving::Replaced);
        assert!(all.has_to_go(&poll.session));
        assert_eq!(all.enter(&poll, id("f")), Err(Leaving::Replaced));
        // One that is closed during a poll has no place for the next one.
        let other = session(&all, "d1");
        all.enter(&other, id("f")).unwrap();
        all.close(&id("u"), &id("d1"), &other.session, &Leaving::Elsewhere);
        assert!(!all.expect_again(&other));
    }
}
