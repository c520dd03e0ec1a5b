//! The places of devices that poll, between two polls. A poll that brings the session of the one before goes on with
//! its place: nothing is read or written for it, and another device that wants the place asks this edge, as it does for
//! a socket. A device that does not poll again in time has left. Whose place was taken meanwhile hears it from the
//! user's devices when it polls again.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use natterjack_protocol::{DeviceId, UserId, limits};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    admission::OpenSession,
    auth::Actor,
    devices::{claim::SessionClaim, hello::DeviceHello},
};

/// Places that are kept at most: of every connection that an edge takes. One more is given back at once.
const KEPT: usize = limits::CONNECTIONS;
/// It is looked for places whose time is over, or that were taken, so often in the time for which one is kept.
const LOOKS: u32 = 10;

struct Kept {
    claim: SessionClaim,
    until: Instant,
}

/// One per device.
pub struct PollPlaces {
    kept: Mutex<HashMap<(UserId, DeviceId), Kept>>,
    grace: Duration,
    _looks: AbortOnDropHandle<()>,
}

impl PollPlaces {
    pub fn start(grace: Duration) -> Arc<Self> {
        Arc::new_cyclic(|places| Self {
            kept: Mutex::default(),
            grace,
            _looks: AbortOnDropHandle::new(tokio::spawn(give_back(places.clone(), grace / LOOKS))),
        })
    }

    /// The place with which this poll goes on. One that it does not go on with is given back.
    pub(super) fn take(&self, actor: &Actor, hello: &DeviceHello) -> Option<SessionClaim> {
        let kept = self.kept.lock().remove(&(actor.user.clone(), actor.device.clone()))?;
        Some(kept.claim).filter(|claim| claim.goes_on_with(actor, hello))
    }

    fn keep(&self, claim: SessionClaim) {
        let kept = Kept { until: Instant::now() + self.grace, claim };
        let mut all = self.kept.lock();
        if all.len() < KEPT {
            all.insert(kept.claim.owner(), kept);
            gauge(all.len());
        }
    }

    /// At the end of the edge: they are given back now.
    pub fn give_back_all(&self) {
        self.kept.lock().clear();
    }

    fn give_back_old(&self) {
        let (mut all, now) = (self.kept.lock(), Instant::now());
        all.retain(|_, kept| kept.until > now && !kept.claim.has_to_go());
        gauge(all.len());
    }
}

fn gauge(count: usize) {
    metrics::gauge!(crate::metrics::POLL_PLACES).set(count as f64);
}

async fn give_back(places: Weak<PollPlaces>, every: Duration) {
    loop {
        sleep(every).await;
        let Some(places) = places.upgrade() else { return };
        places.give_back_old();
    }
}

/// The session of one poll. However the poll ends, also when its connection breaks, the place is kept for the next one.
pub(super) struct PollSession<'a> {
    open: Option<OpenSession>,
    places: &'a PollPlaces,
}

impl<'a> PollSession<'a> {
    pub fn new(open: OpenSession, places: &'a PollPlaces) -> Self {
        Self { open: Some(open), places }
    }
}

impl Drop for PollSession<'_> {
    fn drop(&mut self) {
        if let Some(claim) = self.open.take().and_then(OpenSession::leave_place) {
            self.places.keep(claim);
        }
    }
}
