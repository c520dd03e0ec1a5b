//! Who may come in: one step for a socket's `hello`, a long poll and a message over HTTP. Beside it the limits per
//! address and per user.
//!
//! `admit` comes behind the check of the token. It is asynchronous, because a policy over all of a user's devices has
//! to be asked where all edges ask. What it gives is a slot, released when it is dropped.

pub mod address_quota;
pub mod client_address;
pub mod forwarded;
pub mod keyed_rate;
pub mod limits;
pub mod logins;

use std::sync::Arc;

use natterjack_protocol::{
    Code, DeviceId, Refusal,
    client::{close, frame::DeviceClass},
    codec::Codec,
};

use crate::{
    address::Came,
    auth::{Actor, revoked::RevokedLogins},
    live::LiveHandle,
    members::{Members, UserState},
    presence::handle::PresenceHandle,
    refusals::{EdgeError, refuse},
    sessions::{Sessions, handle::SessionHandle},
};

pub struct Admission {
    pub revoked: RevokedLogins,
    pub sessions: Sessions,
    pub members: Members,
    pub live: LiveHandle,
    pub presence: PresenceHandle,
}

impl Admission {
    /// `actor`: whose token is good. `device` and `class`: what its client says that it is.
    pub async fn admit(self: &Arc<Self>, actor: Actor, device: &DeviceId, class: DeviceClass) -> Result<SessionSlot, Refusal> {
        if actor.device != *device {
            return Err(Refusal::new(Code::Unauthorized, "the token is of another device than hello names"));
        }
        let state = self.members.enter(&actor.user);
        Ok(SessionSlot { admission: self.clone(), actor, class, state })
    }
}

/// A device that may be here.
pub struct SessionSlot {
    admission: Arc<Admission>,
    actor: Actor,
    class: DeviceClass,
    state: Arc<UserState>,
}

impl SessionSlot {
    /// Shared by all that the user has on this edge.
    pub fn state(&self) -> &Arc<UserState> {
        &self.state
    }

    /// Makes a session of it, which replaces the one that the device has here. Others can reach it until this is
    /// dropped.
    /// `greet` says what has to be the first that its client hears.
    pub fn open(self, codec: Codec, came: Came, greet: impl FnOnce(&SessionHandle)) -> Result<OpenSession, Refusal> {
        let (admission, actor) = (self.admission.clone(), self.actor.clone());
        let id = admission.sessions.next_id();
        let handle = SessionHandle::new(id, actor.user, actor.device, codec, self.state.clone(), came);
        handle.span().in_scope(|| tracing::debug!(class = ?self.class, "session opened"));
        greet(&handle);
        admission.sessions.enter(&handle, actor.family.clone());
        let open = OpenSession { handle, slot: self };
        // Its login may have been revoked between the check of the token and this; from here on the watch of
        // revocations finds it.
        if admission.revoked.contains(&actor.family) { Err(refuse(EdgeError::Revoked)) } else { Ok(open) }
    }
}

/// A session that others can reach. Dropping it takes it out of every registry, however it ends.
pub struct OpenSession {
    handle: Arc<SessionHandle>,
    slot: SessionSlot,
}

impl OpenSession {
    pub fn handle(&self) -> &Arc<SessionHandle> {
        &self.handle
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        let Admission { live, sessions, presence, .. } = &*self.slot.admission;
        live.detach(&self.handle);
        presence.leave(&self.handle);
        sessions.leave(&self.handle);
        // Whoever still holds the handle pushes into nothing.
        self.handle.outbox.close(close::BYE);
    }
}
