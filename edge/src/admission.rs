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
    devices::{
        Devices,
        claim::SessionClaim,
        hello::{DeviceHello, NotIn},
    },
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
        let state = self.members.enter(&actor.user);
        Ok(SessionSlot { admission: self.clone(), actor, claim, state })
    }

    /// For the next poll of a device whose place was kept.
    pub fn admit_again(self: &Arc<Self>, actor: Actor, claim: SessionClaim) -> SessionSlot {
        let state = self.members.enter(&actor.user);
        SessionSlot { admission: self.clone(), actor, claim, state }
    }

    /// For messages over HTTP.
    pub async fn admit_sends(&self, actor: &Actor) -> Result<Arc<UserState>, Refusal> {
        self.devices.may_send(actor).await?;
        Ok(self.members.enter(&actor.user))
    }

    /// Takes the session out of every registry.
    fn end(&self, handle: &Arc<SessionHandle>) {
        self.live.detach(handle);
        self.presence.leave(handle);
        self.sessions.leave(handle);
        handle.state.acks.hurry();
        // Whoever still holds the handle pushes into nothing.
        handle.outbox.close(close::BYE);
    }
}

/// A device that may be here.
pub struct SessionSlot {
    admission: Arc<Admission>,
    actor: Actor,
    claim: SessionClaim,
    state: Arc<UserState>,
}

impl SessionSlot {
    /// Makes a session of it, which replaces the one that the device has here. Others can reach it until this is
    /// dropped.
    /// `greet` says what has to be the first that its client hears.
    pub fn open(self, codec: Codec, came: Came, greet: impl FnOnce(&SessionHandle)) -> Result<OpenSession, NotIn> {
        let Self { admission, actor, claim, state } = self;
        let (id, session) = (admission.sessions.next_id(), claim.session().clone());
        let handle = SessionHandle::new(id, session, actor.user, actor.device, codec, state, came);
        handle.span().in_scope(|| tracing::debug!(session = %handle.session, "session opened"));
        greet(&handle);
        let entered = claim.enter(&handle, actor.family.clone());
        let open = OpenSession { handle, place: Some((admission.clone(), claim)) };
        entered?;
        // Its login may have been revoked between the check of the token and this; from here on the watch of
        // revocations finds it.
        if admission.revoked.contains(&actor.family) { Err(refuse(EdgeError::Revoked).into()) } else { Ok(open) }
    }
}

/// A session that others can reach. Dropping it takes it out of every registry, however it ends.
pub struct OpenSession {
    handle: Arc<SessionHandle>,
    /// Until it ends.
    place: Option<(Arc<Admission>, SessionClaim)>,
}

impl OpenSession {
    pub fn handle(&self) -> &Arc<SessionHandle> {
        &self.handle
    }

    /// Ends the session and keeps its place. None: it was closed, and has none.
    pub fn leave_place(mut self) -> Option<SessionClaim> {
        let (admission, claim) = self.place.take()?;
        let kept = claim.step_out(&self.handle);
        admission.end(&self.handle);
        kept.then_some(claim)
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        if let Some((admission, _)) = &self.place {
            admission.end(&self.handle);
        }
    }
}
