//! What the app gets: a bounded stream of typed events. A slow app slows its own socket, nothing else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use natterjack_protocol::{
    Cid, MsgId, Refusal, Thread, UserId,
    client::{
        frame::{Displaced, Receipt},
        presence::PresenceOf,
        thread_settings::ThreadSettings,
    },
    log::{Intervals, Role},
};
use tokio::sync::{Notify, mpsc};

use crate::{
    outbox::Local,
    resume::{Cursor, SyncPoint},
};

#[derive(Debug, Clone, PartialEq)]
pub enum ClientEvent {
    /// A session runs; what was missed comes as messages.
    Connected {
        edge: String,
    },
    /// Everything that was missed is on its way or here; from now on it is live.
    Attached,
    /// The connection is gone; the next attempt is made after `wait`.
    Reconnecting {
        wait: Duration,
    },
    /// One event of a thread, in the log's order, each once (see [`Events::next`]).
    Message(natterjack_protocol::Event),
    /// The log has it.
    Sent {
        local: Local,
        thread: Thread,
        cid: Cid,
        id: MsgId,
    },
    /// Refused for good; it stays in the outbox until it is discarded.
    Failed {
        local: Local,
        thread: Thread,
        refusal: Refusal,
    },
    Typing {
        thread: Thread,
        user: UserId,
    },
    /// Up to where this user has read, on whatever device: larger each time.
    Read {
        thread: Thread,
        id: MsgId,
    },
    /// What is set for a thread, on whatever device: the last one counts.
    Settings {
        thread: Thread,
        settings: ThreadSettings,
    },
    /// How far others have come in a thread in which this user wrote lately: larger ids count. Some may be lost;
    /// [`crate::Client::receipts`] has all of a message.
    Receipts {
        thread: Thread,
        receipts: Vec<Receipt>,
    },
    /// This user's own membership of a thread changed, now or while this device was away: each change once, newer ones
    /// only.
    Member {
        thread: Thread,
        id: MsgId,
        open: bool,
        role: Option<Role>,
        intervals: Intervals,
    },
    /// How users that are watched are shown now; the others are shown as before. What is known from before a connection
    /// is old: all of them come again after each.
    Presence {
        users: Vec<PresenceOf>,
    },
    /// Ask for the contacts again.
    Contacts,
    /// More was missed than the policy fetches: what lies between the two ids is left to `history`.
    Skipped {
        thread: Thread,
        from: MsgId,
        to: MsgId,
    },
    /// The edge is cut off from the log: sends wait while this is on.
    Degraded {
        on: bool,
    },
    /// Another device of the user has taken over. This one stays away until [`crate::Client::take_over`]; what is sent
    /// meanwhile waits in the outbox.
    Displaced(Displaced),
    /// The login has ended: somebody ended it, or it cannot be renewed. The last event.
    LoggedOut {
        refusal: Refusal,
    },
    /// The server closed for good, for instance because the same device connected elsewhere. The last event.
    Ended {
        code: u16,
        reason: String,
    },
}

pub(crate) enum Item {
    App(Box<ClientEvent>),
    Synced(SyncPoint),
}

/// What the app has seen and the store does not know yet.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pub cursors: HashMap<Thread, Cursor>,
    pub synced: Option<SyncPoint>,
}

impl Marks {
    pub fn is_empty(&self) -> bool {
        self.cursors.is_empty() && self.synced.is_none()
    }
}

#[derive(Debug, Default)]
pub(crate) struct SharedMarks {
    /// A memory store asks for none.
    kept: bool,
    marks: Mutex<Marks>,
    pub changed: Notify,
}

impl SharedMarks {
    pub fn new(kept: bool) -> Self {
        Self { kept, ..Self::default() }
    }

    fn with(&self, change: impl FnOnce(&mut Marks)) {
        if !self.kept {
            return;
        }
        change(&mut self.marks.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.changed.notify_one();
    }

    pub fn take(&self) -> Marks {
        std::mem::take(&mut *self.marks.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl SharedMarks {
    /// They could not be stored: keep them, below whatever came since.
    pub fn put_back(&self, old: Marks) {
        self.with(|m| {
            for (thread, cursor) in old.cursors {
                m.cursors.entry(thread).or_insert(cursor);
            }
            m.synced = m.synced.take().or(old.synced);
        });
    }
}

/// The stream of events. One reader.
pub struct Events {
    items: mpsc::Receiver<Item>,
    marks: Arc<SharedMarks>,
    /// Given to the app by the last `next`; counts as seen when the app comes back for more.
    last: Option<(Thread, Cursor)>,
}

impl Events {
    pub(crate) fn new(items: mpsc::Receiver<Item>, marks: Arc<SharedMarks>) -> Self {
        Self { items, marks, last: None }
    }

    /// The next event; none when the client is closed and everything was read. Safe to drop while it waits.
    ///
    /// A message counts as seen when the app asks for the next one, and a file store learns it within 0.2 s or at
    /// [`crate::Client::close`]: within a run each message comes once; after a crash the last moments may come again,
    /// none is missing.
    pub async fn next(&mut self) -> Option<ClientEvent> {
        self.seen();
        loop {
            match self.items.recv().await? {
                Item::Synced(synced) => self.marks.with(|m| m.synced = Some(synced)),
                Item::App(event) => {
                    if let ClientEvent::Message(e) = &*event {
                        self.last = Some((e.thread.clone(), Cursor { id: e.id, ts: e.ts }));
                    }
                    return Some(*event);
                }
            }
        }
    }

    /// Says that the event last read is dealt with, without waiting for another.
    pub fn seen(&mut self) {
        if let Some((thread, cursor)) = self.last.take() {
            self.marks.with(|m| {
                m.cursors.insert(thread, cursor);
            });
        }
    }
}

impl Drop for Events {
    /// The app had the last event; a panic while it worked on it does not count as done.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.seen();
        }
    }
}
