//! What other parts of the edge may hold of a session: who it is, how it speaks, and its outbox.

use std::sync::{Arc, atomic::AtomicBool};

use natterjack_protocol::{DeviceId, UserId, codec::Codec, frame::ServerFrame};

use super::outbox::Outbox;
use crate::members::UserState;

/// Unique within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

pub struct SessionHandle {
    pub id: SessionId,
    pub user: UserId,
    pub device: DeviceId,
    pub codec: Codec,
    pub outbox: Outbox,
    /// Shared by all sessions of the user on this edge.
    pub state: Arc<UserState>,
    /// Its connection is over.
    pub gone: AtomicBool,
}

impl SessionHandle {
    pub fn new(id: SessionId, user: UserId, device: DeviceId, codec: Codec, state: Arc<UserState>) -> Arc<Self> {
        Arc::new(Self { id, user, device, codec, outbox: Outbox::default(), state, gone: AtomicBool::new(false) })
    }

    pub fn frame(&self, frame: &ServerFrame) {
        self.outbox.push(frame.encode(self.codec));
    }
}
