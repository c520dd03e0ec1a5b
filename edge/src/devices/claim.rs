//! A place among a user's devices, from the claim to its release.

use std::sync::Arc;

use natterjack_protocol::{DeviceId, Refusal, Token, UserId, internal::devices::DeviceClaim, internal::rpc::Leaving};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Devices,
    hello::{DeviceHello, NotIn, replaced},
    release::Release,
};
use crate::{auth::Actor, sessions::handle::SessionHandle};

/// A place that is held until this is dropped, also before it has become a session, and between two polls.
pub struct SessionClaim {
    devices: Arc<Devices>,
    user: UserId,
    claim: Arc<DeviceClaim>,
    pub(super) settled: Vec<Token>,
    /// Claims as soon as the bucket answers.
    pub(super) late: Option<AbortOnDropHandle<()>>,
}

impl SessionClaim {
    pub(super) fn new(devices: &Arc<Devices>, user: UserId, claim: Arc<DeviceClaim>) -> Self {
        let session = claim.place.session.clone();
        devices.sessions.expect(&session);
        devices.claims.lock().insert(session, (user.clone(), claim.clone()));
        Self { devices: devices.clone(), user, claim, settled: Vec::new(), late: None }
    }

    pub fn session(&self) -> &Token {
        &self.claim.place.session
    }

    /// Makes it a session that others find, unless it was displaced since.
    pub fn enter(&self, handle: &Arc<SessionHandle>, family: Token) -> Result<(), NotIn> {
        self.devices.sessions.enter(handle, family).map_err(|why| match why {
            Leaving::Displaced(by) => NotIn::Displaced(by),
            Leaving::Replaced => NotIn::Refused(replaced()),
            Leaving::Refused | Leaving::Elsewhere => {
                NotIn::Refused(Refusal::unavailable("this device's place is not known any more; try again"))
            }
        })?;
        // The lease ran out since the claim was written: others may have taken the place over.
        if self.late.is_none() && !self.devices.standing.stands() {
            return Err(NotIn::Refused(Refusal::unavailable(
                "this edge was cut off from the cluster; try again in a moment",
            )));
        }
        Ok(())
    }

    /// The session of a poll ends, and the place stays. False: it was told to go.
    pub fn step_out(&self, handle: &SessionHandle) -> bool {
        self.devices.sessions.expect_again(handle)
    }

    /// Is it the place of the session that this poll brings, of the same login, and is the device as it was?
    pub fn goes_on_with(&self, actor: &Actor, hello: &DeviceHello) -> bool {
        let DeviceClaim { class, name, app, family, place, .. } = &*self.claim;
        let same = (class, name, app) == (&hello.class, &hello.name, &hello.app);
        hello.session.as_ref() == Some(&place.session) && *family == actor.family && same
    }

    /// It was told to go, and waits for whoever would be told.
    pub fn has_to_go(&self) -> bool {
        self.devices.sessions.has_to_go(self.session())
    }

    pub fn owner(&self) -> (UserId, DeviceId) {
        (self.user.clone(), self.claim.device.clone())
    }
}

impl Drop for SessionClaim {
    fn drop(&mut self) {
        let session = self.claim.place.session.clone();
        self.devices.sessions.forget(&session);
        self.devices.claims.lock().remove(&session);
        let settled = std::mem::take(&mut self.settled);
        let device = self.claim.device.clone();
        self.devices.releases.push(Release { user: self.user.clone(), device, session, settled });
    }
}
