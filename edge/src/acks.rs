//! What the sessions of a user here have acknowledged, until `cursors` has written it; one per user.

pub mod pending;

use std::{sync::Arc, time::Duration};

use natterjack_protocol::{DeviceId, Thread, client::frame::Acknowledged, internal::cursors::UserCursors};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use self::pending::{Given, PendingAcks, ReadyAcks};

/// Empty until somebody says something: most users are idle.
#[derive(Default)]
pub struct UserAcks(Mutex<Option<Box<Acks>>>);

#[derive(Default)]
struct Acks {
    pending: PendingAcks,
    /// What this edge wrote or read last, and its revision: the next write needs no read before it.
    known: Option<(UserCursors, u64)>,
    /// A task writes, until nothing is pending.
    writing: Option<Arc<Notify>>,
}

impl UserAcks {
    /// Some: nobody writes yet; whoever does is told of changes by this.
    pub fn add(&self, device: &DeviceId, acked: Acknowledged, now: Instant) -> Option<Arc<Notify>> {
        let mut all = self.0.lock();
        let acks = all.get_or_insert_default();
        acks.pending.add(device, acked, now);
        if let Some(changed) = &acks.writing {
            changed.notify_one();
            return None;
        }
        Some(acks.writing.insert(Arc::default()).clone())
    }

    /// A session of the user is over: what it said is written at once.
    pub fn hurry(&self) {
        if let Some(acks) = &mut *self.0.lock()
            && let Some(changed) = &acks.writing
        {
            acks.pending.hurry();
            changed.notify_one();
        }
    }

    /// When to write. None: nothing is pending, and nobody writes any more.
    pub fn due_or_done(&self, now: Instant) -> Option<Instant> {
        let mut all = self.0.lock();
        let acks = all.as_mut()?;
        let due = acks.pending.due(now);
        if due.is_none() {
            acks.writing = None;
        }
        due
    }

    pub fn take(&self, now: Instant, given: impl Fn(&Thread) -> Given) -> ReadyAcks {
        self.0.lock().as_mut().map(|acks| acks.pending.take(now, given)).unwrap_or_default()
    }

    pub fn written(&self, now: Instant) {
        if let Some(acks) = &mut *self.0.lock() {
            acks.pending.written(now);
        }
    }

    /// It could not be written.
    pub fn put_back(&self, ready: ReadyAcks, now: Instant, again: Duration) {
        self.0.lock().get_or_insert_default().pending.put_back(ready, now, again);
    }

    /// Nobody writes any more, and nothing is pending.
    pub fn give_up(&self) {
        *self.0.lock() = None;
    }

    pub fn take_known(&self) -> Option<(UserCursors, u64)> {
        self.0.lock().as_mut().and_then(|acks| acks.known.take())
    }

    pub fn remember(&self, value: UserCursors, revision: u64) {
        if let Some(acks) = &mut *self.0.lock() {
            acks.known = Some((value, revision));
        }
    }
}
