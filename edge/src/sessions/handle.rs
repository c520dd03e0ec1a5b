//! What other parts of the edge may hold of a session: who it is, how it speaks, and its outbox.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering::Relaxed},
    },
    time::Duration,
};

use natterjack_protocol::{DeviceId, Refusal, Token, UserId, client::frame::ServerFrame, codec::Codec, limits};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::Span;

use super::outbox::SessionOutbox;
use crate::{address::Came, members::UserState};

/// Unique within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

pub struct SessionHandle {
    pub id: SessionId,
    /// As its client, and other edges, name it.
    pub session: Token,
    pub user: UserId,
    pub device: DeviceId,
    pub codec: Codec,
    pub outbox: SessionOutbox,
    /// Shared by all sessions of the user on this edge.
    pub state: Arc<UserState>,
    /// By which address it came: where else to go it is told accordingly.
    pub came: Came,
    /// Is anybody in front of it? For the notifier alone.
    pub activity: Activity,
    /// Its connection is over.
    pub gone: AtomicBool,
    /// Groups it joins whose pages have not gone out yet: until then not everything below the frontier was shown.
    joining: AtomicU16,
}

/// What a device reports of its user, who sees it nowhere. Forgotten when it is not repeated.
#[derive(Default)]
pub struct Activity(Mutex<Option<Instant>>);

/// A report counts for so long.
const ACTIVE: Duration = Duration::from_secs(60);

impl Activity {
    pub fn report(&self, active: bool) {
        *self.0.lock() = active.then(Instant::now);
    }

    pub fn is_active(&self) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() < ACTIVE)
    }
}

/// Room for one page or answer in the outbox of a session, given back with it.
pub struct OutboxRoom(Option<Arc<SessionHandle>>);

impl OutboxRoom {
    pub fn frame(mut self, frame: &ServerFrame) {
        if let Some(session) = self.0.take() {
            session.outbox.push_snapshot(frame.encode(session.codec));
        }
    }
}

impl Drop for OutboxRoom {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.outbox.give_back(limits::PAGE_BYTES);
        }
    }
}

/// A session joins a group.
pub struct Joining(Arc<SessionHandle>);

impl Drop for Joining {
    fn drop(&mut self) {
        self.0.joining.fetch_sub(1, Relaxed);
    }
}

impl SessionHandle {
    pub fn new(
        id: SessionId,
        session: Token,
        user: UserId,
        device: DeviceId,
        codec: Codec,
        state: Arc<UserState>,
        came: Came,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            session,
            user,
            device,
            codec,
            outbox: SessionOutbox::default(),
            state,
            came,
            activity: Activity::default(),
            gone: AtomicBool::new(false),
            joining: AtomicU16::new(0),
        })
    }

    /// Waits until a page may be asked for: what was asked for before is on its way to the client.
    pub async fn room(self: &Arc<Self>) -> Result<OutboxRoom, Refusal> {
        if self.outbox.take_room(limits::PAGE_BYTES).await { Ok(OutboxRoom(Some(self.clone()))) } else { Err(over()) }
    }

    /// Waits until all pages that were asked for before are on their way.
    pub async fn drained(&self) -> Result<(), Refusal> {
        if !self.outbox.take_room(limits::SNAPSHOT_BYTES).await {
            return Err(over());
        }
        self.outbox.give_back(limits::SNAPSHOT_BYTES);
        Ok(())
    }

    pub fn joins(self: &Arc<Self>) -> Joining {
        self.joining.fetch_add(1, Relaxed);
        Joining(self.clone())
    }

    pub fn is_joining(&self) -> bool {
        self.joining.load(Relaxed) > 0
    }

    /// For log lines of this session. A span is 0.5 KB and about 1 µs, so one is made for many messages, not for each.
    pub fn span(&self) -> Span {
        tracing::info_span!("session", id = self.id.0, user = %self.user, device = %self.device)
    }

    /// Something that comes by itself, or a short answer.
    pub fn frame(&self, frame: &ServerFrame) {
        self.outbox.push(frame.encode(self.codec));
    }
}

fn over() -> Refusal {
    Refusal::unavailable("this session is over")
}
