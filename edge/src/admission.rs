//! Who may come in: one step for a socket's `hello`, a long poll and a message over HTTP. Beside it the limits per
//! address and per user.
//!
//! `admit` comes behind the check of the token. A socket and a poll take a place among the user's devices, over all
//! edges (`devices`), which is given back when the slot is dropped. A message over HTTP takes none: it is allowed while
//! no other device has taken over from its own.

pub mod address_quota;
pub mod client_address;
pub mod forwarded;
pub mod keyed_rate;
pub mod limits;
pub mod logins;

use std::sync::Arc;

use natterjack_protocol::{Code, DeviceId, Refusal, client::close, codec::Codec};

use crate::{
    address::Came,
    auth::{Actor, revoked::RevokedLogins},
    devices::{DeviceHello, Devices, NotIn, SessionClaim},
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
    pub devices: Arc<Devices>,
}

impl Admission {
    /// `actor`: whose token is good. `device` and `hello`: what its client says that it is.
    pub async fn admit(
        self: &Arc<Self>,
        actor: Actor,
        device: &DeviceId,
        hello: DeviceHello,
    ) -> Result<SessionSlot, NotIn> {
        if actor.device != *device {
            return Err(Refusal::new(Code::Unauthorized, "the token is of another device than hello names").into());
        }
        let claim = self.devices.claim(&actor, hello).await?;
        Ok(SessionSlot { admission: self.clone(), actor, claim })
    }

    /// For messages over HTTP.
    pub async fn admit_sends(&self, actor: &Actor) -> Result<Arc<UserState>, Refusal> {
        self.devices.may_send(actor).await?;
        Ok(self.members.enter(&actor.user))
    }
}

/// A device that may be here.
pub struct SessionSlot {
    admission: Arc<Admission>,
    actor: Actor,
    claim: SessionClaim,
}

impl SessionSlot {
    /// Makes a session of it, which replaces the one that the device has here. Others can reach it until this is
    /// dropped.
    /// `greet` says what has to be the first that its client hears.
    pub fn open(self, codec: Codec, came: Came, greet: impl FnOnce(&SessionHandle)) -> Result<OpenSession, NotIn> {
        let Self { admission, actor: Actor { user, device, family }, claim } = self;
        let (id, session, state) =
            (admission.sessions.next_id(), claim.session().clone(), admission.members.enter(&user));
        let handle = SessionHandle::new(id, session, user, device, codec, state, came);
        handle.span().in_scope(|| tracing::debug!(session = %handle.session, "session opened"));
        greet(&handle);
        let open = OpenSession { handle, admission, claim };
        open.claim.enter(&open.handle, family.clone())?;
        // Its login may have been revoked between the check of the token and this; from here on the watch of
        // revocations finds it.
        if open.admission.revoked.contains(&family) { Err(refuse(EdgeError::Revoked).into()) } else { Ok(open) }
    }
}

/// A session that others can reach. Dropping it takes it out of every registry, however it ends.
pub struct OpenSession {
    handle: Arc<SessionHandle>,
    admission: Arc<Admission>,
    claim: SessionClaim,
}

impl OpenSession {
    pub fn handle(&self) -> &Arc<SessionHandle> {
        &self.handle
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        let Admission { live, sessions, presence, .. } = &*self.admission;
        live.detach(&self.handle);
        presence.leave(&self.handle);
        sessions.leave(&self.handle);
        // Whoever still holds the handle pushes into nothing.
        self.handle.outbox.close(close::BYE);
    }
}
