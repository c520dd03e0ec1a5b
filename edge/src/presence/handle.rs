//! How the rest of the edge reaches the desk.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use natterjack_protocol::{Refusal, UserId, client::frame::Request};
use tokio::sync::mpsc;

use crate::sessions::handle::{SessionHandle, SessionId};

/// Batches and commands that may wait. A batch beyond that is dropped, and everybody asked for anew.
const COMMANDS: usize = 4_096;

pub(super) enum Command {
    /// Instead of whom it watched before. `r` is answered with what is known.
    Watch {
        session: Arc<SessionHandle>,
        users: Vec<UserId>,
        contacts: Result<HashSet<UserId>, Refusal>,
        r: Request,
    },
    Leave(SessionId),
    /// What came on `presence.*`.
    Batch(Bytes),
    /// The user's contacts have changed, or may have.
    ContactsChanged(UserId),
    /// The user has blocked somebody, or was blocked.
    BlocksChanged(UserId),
}

#[derive(Default)]
pub(super) struct Flags {
    /// A batch found no room.
    pub missed_batch: AtomicBool,
    /// A `Leave` found none.
    pub missed_leave: AtomicBool,
}

/// Commands for the desk. Clones share it.
#[derive(Clone)]
pub struct PresenceHandle {
    commands: mpsc::Sender<Command>,
    flags: Arc<Flags>,
}

/// The desk's end of them.
pub struct PresenceInbox {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) flags: Arc<Flags>,
}

pub fn channel() -> (PresenceHandle, PresenceInbox) {
    let (sender, commands) = mpsc::channel(COMMANDS);
    let flags = Arc::<Flags>::default();
    (PresenceHandle { commands: sender, flags: flags.clone() }, PresenceInbox { commands, flags })
}

impl PresenceHandle {
    /// The session watches these users from here on, and no others.
    pub async fn watch(
        &self,
        session: Arc<SessionHandle>,
        users: Vec<UserId>,
        contacts: Result<HashSet<UserId>, Refusal>,
        r: Request,
    ) -> Result<(), Refusal> {
        let watch = Command::Watch { session, users, contacts, r };
        self.commands.send(watch).await.map_err(|_| Refusal::unavailable("this edge is stopping; connect to another"))
    }

    /// Idempotent, waits for nothing. Who never watched costs nothing.
    pub fn leave(&self, session: &SessionHandle) {
        if self.commands.try_send(Command::Leave(session.id)).is_err() {
            self.flags.missed_leave.store(true, Relaxed);
        }
    }

    pub fn batch(&self, payload: Bytes) {
        if self.commands.try_send(Command::Batch(payload)).is_err() {
            self.flags.missed_batch.store(true, Relaxed);
        }
    }

    /// Lost when there is no room: the next change, or the next watch, sets it right.
    pub fn contacts_changed(&self, user: &UserId) {
        let _ = self.commands.try_send(Command::ContactsChanged(user.clone()));
    }

    pub fn blocks_changed(&self, user: &UserId) {
        let _ = self.commands.try_send(Command::BlocksChanged(user.clone()));
    }
}
