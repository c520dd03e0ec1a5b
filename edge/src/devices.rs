//! Which devices of a user may be in, over all edges (ADR 13, P9): the I/O around `UserDevices`, which decides.
//!
//! A hello claims: one read from the leader and one compare-and-set. Whoever it displaces is closed at its edge before
//! the newcomer is greeted. The end of a session releases its claim in the background, by the session's own id, so that
//! it cannot remove a newer one.
//!
//! Does the bucket not answer, people are let in all the same, and are claimed as soon as it does.

pub mod claim;
pub mod hello;
mod release;
mod watches;
pub mod world;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use natterjack_nats::{KvError, LeaseStanding, ServerTime};
use natterjack_protocol::{
    Refusal, Times, Token, UserId,
    client::frame::Displaced,
    internal::{
        devices::{Claimed, DeviceClaim, DevicePolicy, SessionPlace, UnsettledSession, UserDevices},
        rpc::{EdgeAnswer, EdgeRequest, Leaving},
    },
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{auth::Actor, sessions::Sessions};
use claim::SessionClaim;
use hello::{DeviceHello, NotIn, not_in};
use release::{Release, Releases};
use world::DeviceWorld;

/// Read and write of a claim. An election takes 4–9 s; nobody is kept out for that.
const CLAIM: Duration = Duration::from_secs(2);
/// Of a compare-and-set that others were faster than. Two edges that alternate need two.
const ATTEMPTS: u32 = 20;
/// Between looks at an edge that does not answer.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Beyond the lifetime of a lease, for the last question.
const SLACK: Duration = Duration::from_secs(2);
/// A client that moves to another edge closes its old connection when it has heard `welcome`, and is told after this
/// long if it does not: sooner, the close could come first.
const REPLACED: Duration = Duration::from_secs(1);
/// Between attempts to claim for somebody who was let in while the bucket was away.
const LATE: Duration = Duration::from_secs(1);
/// Claims that are looked at together after a fault.
const TOGETHER: usize = 64;

pub struct Devices {
    world: Box<dyn DeviceWorld>,
    /// Of this edge.
    edge: Token,
    incarnation: Arc<str>,
    policy: DevicePolicy,
    sessions: Sessions,
    standing: LeaseStanding,
    time: ServerTime,
    lease: Duration,
    releases: Releases,
    /// By the id of the session; at most as many as there are sessions and hellos.
    claims: Mutex<HashMap<Token, (UserId, Arc<DeviceClaim>)>>,
    /// When the buckets were made that have all of these sessions; empty: not known yet.
    sessions_in: watch::Sender<Vec<u64>>,
}

impl Devices {
    pub fn new(
        world: Box<dyn DeviceWorld>,
        (edge, incarnation): (Token, Arc<str>),
        policy: DevicePolicy,
        sessions: Sessions,
        standing: LeaseStanding,
        time: ServerTime,
        times: &Times,
    ) -> Arc<Self> {
        Arc::new_cyclic(|devices| Self {
            world,
            edge,
            incarnation,
            policy,
            sessions,
            standing,
            time,
            lease: times.edge_lease,
            releases: Releases::start(devices.clone()),
            claims: Mutex::default(),
            sessions_in: watch::Sender::default(),
        })
    }

    /// Takes a place for the device. Whoever has to leave for it has left when this returns.
    pub async fn claim(self: &Arc<Self>, actor: &Actor, hello: DeviceHello) -> Result<SessionClaim, NotIn> {
        let DeviceHello { class, name, app, session: had } = hello;
        let session = Token::mint('s', rand::random());
        let place = SessionPlace { session, edge: self.edge.clone(), incarnation: self.incarnation.clone() };
        let (device, family, at) = (actor.device.clone(), actor.family.clone(), self.time.now_ms());
        let claim = Arc::new(DeviceClaim { device, class, name, app, family, place, had, at, late: false });
        // Before it is written: from then on another edge may ask for it to be closed.
        let mut guard = SessionClaim::new(self, actor.user.clone(), claim.clone());
        let stands = timeout(CLAIM, self.until_stands()).await.is_ok();
        let written = match timeout(CLAIM, self.write(&actor.user, &claim)).await {
            Ok(written) if stands => written,
            Ok(_) => Err(self.unavailable("this edge has no lease")),
            Err(_) => Err(self.unavailable("no answer in time")),
        };
        match written {
            Ok(Claimed::Yes { settle, replaced }) => {
                guard.settled = self.settle_all(&actor.user, &claim, settle).await?;
                self.tell_replaced(&actor.user, replaced);
                Ok(guard)
            }
            Ok(other) => Err(not_in(other, &claim)),
            Err(why) => {
                metrics::counter!(crate::metrics::SESSIONS_UNCLAIMED).increment(1);
                tracing::debug!(user = %actor.user, error = %why, "a session is not claimed yet");
                guard.late = Some(self.claim_later(actor.user.clone(), &claim));
                Ok(guard)
            }
        }
    }

    fn unavailable(&self, reason: &str) -> KvError {
        KvError::Unavailable { bucket: "sessions".into(), reason: reason.into() }
    }

    async fn until_stands(&self) {
        while !self.standing.stands() {
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn write(&self, user: &UserId, claim: &DeviceClaim) -> Result<Claimed, KvError> {
        self.change(user, |value| value.claim(claim, &self.policy, |place| self.world.seems_gone(place))).await
    }

    async fn release(&self, Release { user, device, session, settled }: &Release) -> Result<(), KvError> {
        let at = self.time.now_ms();
        self.change(user, |value| value.leave(device, session, at, settled)).await.map(drop)
    }

    /// Changes a user's value by compare-and-set, and returns what the change came to; `change` is asked again when
    /// somebody else was faster.
    async fn change<T>(&self, user: &UserId, mut change: impl FnMut(&mut UserDevices) -> T) -> Result<T, KvError> {
        for attempt in 0..ATTEMPTS {
            // Before a write, what is near will do at first: the compare-and-set says whether it was the newest. Not to
            // write needs the leader.
            let near = if attempt == 0 { self.world.load_near(user).await.ok() } else { None };
            let by_leader = near.is_none();
            let stands = match near {
                Some(near) => near,
                None => self.world.load(user).await?,
            };
            let (before, revision) = stands.unwrap_or_default();
            let mut value = before.clone();
            let came_to = change(&mut value);
            if value == before {
                if by_leader {
                    return Ok(came_to);
                }
                continue;
            }
            match self.world.store(user, &value, revision).await {
                Ok(_) => return Ok(came_to),
                Err(KvError::Conflict) => {
                    sleep(Duration::from_millis(rand::random_range(0..=2 << attempt.min(5)))).await
                }
                Err(e) => return Err(e),
            }
        }
        Err(KvError::Conflict)
    }

    /// Waits until none of these can write any more.
    async fn settle_all(
        &self,
        user: &UserId,
        claim: &DeviceClaim,
        all: Vec<UnsettledSession>,
    ) -> Result<Vec<Token>, Refusal> {
        let by = Displaced { by: claim.as_other(), since: claim.at };
        let deadline = Instant::now() + self.lease + SLACK;
        let each = all.into_iter().map(|u| {
            let why = Leaving::Displaced(by.clone());
            async move { (timeout_at(deadline, self.settle(user, &u, why)).await.is_ok(), u.place) }
        });
        let mut settled = Vec::new();
        for (done, place) in stream::iter(each).buffer_unordered(TOGETHER).collect::<Vec<_>>().await {
            if !done {
                tracing::error!(edge = %place.edge, "an edge refreshes its lease and does not close a session that \
                    was displaced");
                return Err(Refusal::unavailable("the device that is in could not be reached; try again in a moment"));
            }
            settled.push(place.session);
        }
        Ok(settled)
    }

    /// Until its edge has closed it, or cannot write for it any more.
    async fn settle(&self, user: &UserId, unsettled: &UnsettledSession, why: Leaving) {
        let UnsettledSession { device, place, .. } = unsettled;
        if self.is_here(place) {
            return self.sessions.close(user, device, &place.session, &why);
        }
        let request =
            EdgeRequest::Close { user: user.clone(), device: device.clone(), session: place.session.clone(), why };
        loop {
            if self.world.ask(&place.edge, &request).await.is_some_and(|a| a.incarnation == place.incarnation) {
                return;
            }
            if self.is_over(place).await {
                return;
            }
            sleep(ASK_AGAIN).await;
        }
    }

    fn is_here(&self, place: &SessionPlace) -> bool {
        place.edge == self.edge && place.incarnation == self.incarnation
    }

    /// Has the edge's lease run out, by the leader? An incarnation whose key has been taken by another one may have
    /// been frozen then: its lease stands in its own eyes for one lifetime at most.
    async fn is_over(&self, place: &SessionPlace) -> bool {
        match self.world.lease(&place.edge).await {
            Ok(None) => true,
            Ok(Some(lease)) if lease.incarnation == place.incarnation => false,
            Ok(Some(other)) => self.time.earliest_ms() >= other.started + self.lease.as_millis() as u64,
            Err(_) => false,
        }
    }

    /// The older connections of a device that has come again. Nobody waits for that.
    fn tell_replaced(self: &Arc<Self>, user: &UserId, replaced: Vec<UnsettledSession>) {
        // One at this edge is replaced when the new one enters.
        for unsettled in replaced.into_iter().filter(|u| !self.is_here(&u.place)) {
            let (devices, user, deadline) = (self.clone(), user.clone(), self.lease);
            self.releases.spawn(async move {
                sleep(REPLACED).await;
                let _ = timeout(deadline, devices.settle(&user, &unsettled, Leaving::Replaced)).await;
            });
        }
    }

    /// For somebody who was let in without: until the bucket answers.
    fn claim_later(self: &Arc<Self>, user: UserId, claim: &Arc<DeviceClaim>) -> AbortOnDropHandle<()> {
        let (devices, claim) = (self.clone(), claim.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                sleep(LATE.mul_f64(rand::random_range(0.5..1.5))).await;
                if devices.claim_late(&user, &claim).await {
                    return;
                }
            }
        }))
    }

    /// Claims for a session that runs. False: the bucket does not answer. It is closed if it has lost.
    async fn claim_late(self: &Arc<Self>, user: &UserId, claim: &DeviceClaim) -> bool {
        let late = DeviceClaim { late: true, ..claim.clone() };
        let Ok(Ok(claimed)) = timeout(CLAIM, self.write(user, &late)).await else { return false };
        match claimed {
            Claimed::Yes { settle, replaced } => {
                self.tell_replaced(user, replaced);
                let _ = self.settle_all(user, claim, settle).await;
            }
            Claimed::Displaced(by) => self.end(user, claim, &Leaving::Displaced(by)),
            Claimed::Full { .. } | Claimed::NoRoom => self.end(user, claim, &Leaving::Refused),
        }
        true
    }

    fn end(&self, user: &UserId, claim: &DeviceClaim, why: &Leaving) {
        self.sessions.close(user, &claim.device, &claim.place.session, why);
    }

    /// What another edge asks.
    pub fn answer(&self, request: &EdgeRequest) -> EdgeAnswer {
        if let EdgeRequest::Close { user, device, session, why } = request {
            self.sessions.close(user, device, session, why);
        }
        EdgeAnswer { incarnation: self.incarnation.clone() }
    }

    /// A message over HTTP takes no place: a device that has a session here, or never had one, or whose class has room,
    /// may send. One that was displaced may not. With the bucket away everybody may.
    pub async fn may_send(&self, actor: &Actor) -> Result<(), Refusal> {
        if self.sessions.has(&actor.user, &actor.device) {
            return Ok(());
        }
        match timeout(CLAIM, self.world.load(&actor.user)).await {
            Ok(Ok(Some((value, _)))) => match value.displaced_now(&actor.device, &self.policy) {
                Some(by) => Err(NotIn::Displaced(by).into()),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Waits until the claims of those that have left are released.
    pub async fn released(&self) {
        self.releases.finished().await;
    }
}

#[cfg(test)]
pub mod tests;
