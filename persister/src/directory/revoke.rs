//! Telling every edge that a login is over, and taking its device out of the user's devices. The control bucket carries
//! it to the edges, also to those that are cut off now or not started yet: they read it when they are back. Kept until
//! the login's last access token has expired.
//!
//! An edge gives the device's place back when it closes the socket. The directory takes it out as well, for the edge
//! may be frozen or dead.

use std::{collections::VecDeque, time::Duration};

use natterjack_nats::{KvBuckets, KvError, ServerTime};
use natterjack_protocol::internal::{devices::UserDevices, kv::RevokedLogin};
use parking_lot::Mutex;
use tokio::time::{interval, timeout};

use super::expired::Expired;
use crate::{
    store::accounts::Family,
    tokens::{KeyTimes, STEP},
};

const CLEAR: Duration = Duration::from_secs(600);
/// Attempts, each of 2 s at most: an election takes 4 to 9 s.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// Who ends a login waits so long until its device is out of the list. After that it is done in the background.
const FORGET: Duration = Duration::from_secs(2);

/// Revocations that could not be published and wait for a bucket to be back; beyond it the oldest are given up, with an
/// error in the log.
const PENDING: usize = 10_000;
const RETRY: Duration = Duration::from_secs(1);

/// The end of a login that is not done yet.
struct PendingEnd {
    family: Family,
    /// The edges know; its device is still in the list.
    told: bool,
}

pub struct Revocations {
    buckets: KvBuckets,
    times: KeyTimes,
    time: ServerTime,
    pending: Mutex<VecDeque<PendingEnd>>,
}

impl Revocations {
    pub fn new(buckets: &KvBuckets, times: KeyTimes, time: ServerTime) -> Self {
        Self { buckets: buckets.clone(), times, time, pending: Mutex::default() }
    }

    /// Returns when it stands in the control bucket, for from then on the login is over. An error: not yet; it is tried
    /// on, but the caller had better know.
    pub async fn publish(&self, family: &Family) -> Result<(), KvError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.tell(family).await {
                Err(e) if attempt >= ATTEMPTS => {
                    self.later(family.clone(), false);
                    return Err(e);
                }
                Err(e) => {
                    tracing::debug!(error = %e, "a revocation could not be published; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(()) => break,
            }
        }
        if let Err(e) = self.forget(family).await {
            tracing::warn!(user = %family.user, error = %e, "an ended login's device is not out of the list yet");
            self.later(family.clone(), true);
        }
        Ok(())
    }

    async fn tell(&self, family: &Family) -> Result<(), KvError> {
        // From now on nobody signs for this family; what was signed a moment ago lives this long, and edges may be
        // lenient as long again.
        let until = self.time.now_ms() + self.times.access + self.times.grace.max(self.times.access) + STEP;
        let value = RevokedLogin { user: family.user.clone(), device: family.device.clone(), until };
        self.buckets.revoked_login(&family.id).put(&value).await?;
        metrics::counter!(crate::metrics::DIRECTORY_REVOKED).increment(1);
        Ok(())
    }

    /// Only if the device came with this login last.
    async fn forget(&self, family: &Family) -> Result<(), KvError> {
        let (key, at) = (self.buckets.devices(&family.user), self.time.now_ms());
        let forget = key.merge(|found: Option<UserDevices>| {
            let mut devices = found?;
            devices.forget(&family.device, &family.id, at).then_some(devices)
        });
        match timeout(FORGET, forget).await {
            // A bucket that is lost has nobody's device.
            Ok(Ok(()) | Err(KvError::NoBucket(_))) => Ok(()),
            Ok(Err(e @ KvError::Corrupt { .. })) => {
                tracing::error!(user = %family.user, error = %e, "an ended login's device stays in the list");
                Ok(())
            }
            Ok(Err(e)) => Err(e),
            Err(_) => Err(KvError::Unavailable { bucket: "sessions".into(), reason: "no answer in time".into() }),
        }
    }

    fn later(&self, family: Family, told: bool) {
        let mut pending = self.pending.lock();
        if pending.len() >= PENDING
            && let Some(lost) = pending.pop_front()
        {
            let PendingEnd { family, told } = lost;
            tracing::error!(family = %family.id, told, "a login's end is given up: too many wait for a bucket");
        }
        pending.push_back(PendingEnd { family, told });
        count(&pending);
    }

    /// The list of devices may be away while edges can be told: nobody's end waits for another one's device.
    async fn catch_up(&self) {
        let all: Vec<_> = self.pending.lock().iter().map(|p| (p.family.clone(), p.told)).collect();
        let mut list_answers = true;
        for (family, told) in all {
            // Told twice is as good as once.
            if !told {
                if self.tell(&family).await.is_err() {
                    return;
                }
                let mut pending = self.pending.lock();
                pending.iter_mut().filter(|p| p.family.id == family.id).for_each(|p| p.told = true);
            }
            list_answers = list_answers && self.forget(&family).await.is_ok();
            if list_answers {
                let mut pending = self.pending.lock();
                pending.retain(|p| p.family.id != family.id);
                count(&pending);
            }
        }
    }

    /// Tells what could not be told, and clears away what has expired, until it is dropped; never returns.
    pub async fn run(&self) {
        let mut old = Expired::new(self.buckets.revoked_logins());
        let (mut clear, mut retry) = (interval(CLEAR), interval(RETRY));
        loop {
            // Neither is urgent, neither takes long.
            tokio::select! {
                _ = retry.tick() => self.catch_up().await,
                _ = clear.tick() => {
                    if let Err(e) = old.clear(self.time.earliest_ms()).await {
                        tracing::warn!(error = %e, "expired revocations could not be cleared away; trying again");
                    }
                }
            }
        }
    }
}

fn count(pending: &VecDeque<PendingEnd>) {
    metrics::gauge!(crate::metrics::DIRECTORY_REVOCATIONS_PENDING).set(pending.len() as f64);
}
