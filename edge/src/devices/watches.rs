//! What is looked at again after a fault: the lease had run out, or a bucket was lost.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use natterjack_nats::KvError;
use natterjack_protocol::{
    UserId,
    internal::{
        devices::{DeviceClaim, DevicePolicy, UserDevices},
        rpc::Leaving,
    },
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{CLAIM, Devices, LATE, TOGETHER};

/// How often it is asked when the buckets were made: one may have been lost and made anew.
const LOOK: Duration = Duration::from_secs(5);

impl Devices {
    /// Whenever the lease had run out: looks who is still in, tells the others, and lets the lease stand again. Without
    /// end.
    pub async fn watch_lease(self: Arc<Self>) {
        let mut lapses = self.standing.lapses();
        loop {
            let lapse = *lapses.borrow_and_update();
            if lapse > 0 && !self.check_all(lapse).await {
                sleep(LATE).await;
                lapses.mark_changed();
            }
            if lapses.changed().await.is_err() {
                return;
            }
        }
    }

    /// False: not everything could be read.
    pub(super) async fn check_all(&self, lapse: u64) -> bool {
        let claims = self.claimed();
        let many = claims.len();
        let each = claims.into_iter().map(|(user, claim)| async move { self.check(&user, &claim).await });
        let read = stream::iter(each).buffer_unordered(TOGETHER).all(std::future::ready).await;
        if read {
            tracing::info!(
                sessions = many,
                "the lease had run out; the sessions that others have taken over are closed"
            );
            self.standing.confirm(lapse);
        }
        read
    }

    async fn check(&self, user: &UserId, claim: &DeviceClaim) -> bool {
        let value = match timeout(CLAIM, self.world.load(user)).await {
            Ok(Ok(value)) => value.map(|(value, _)| value),
            // Nobody has anything there; they are claimed again when it is back.
            Ok(Err(KvError::NoBucket(_))) => None,
            _ => return false,
        };
        // Without a value it is the bucket that was lost.
        let Some(value) = value.filter(|v| !v.has(&claim.device, &claim.place.session)) else { return true };
        self.end(user, claim, &taken_over(&value, claim, &self.policy));
        true
    }

    /// For this edge's lease: `presence` says of nobody that they are away before every edge's sessions are in the
    /// bucket.
    pub fn sessions_in(&self) -> watch::Receiver<Vec<u64>> {
        self.sessions_in.subscribe()
    }

    /// A bucket may be lost, and made anew: then it is empty, and every edge writes its sessions again. Without end.
    pub async fn watch_bucket(self: Arc<Self>) {
        loop {
            if let Ok(Ok(made)) = timeout(CLAIM, self.world.made()).await
                && *self.sessions_in.borrow() != made
            {
                // At the start there are none, or those that came in meanwhile.
                if self.write_again().await {
                    self.sessions_in.send_replace(made);
                }
            }
            sleep(LOOK.mul_f64(rand::random_range(0.8..1.2))).await;
        }
    }

    /// False: the bucket did not answer for some of them.
    async fn write_again(self: &Arc<Self>) -> bool {
        let mut claims = self.claimed();
        claims.sort_by_key(|(_, claim)| claim.at);
        if !claims.is_empty() {
            tracing::warn!(sessions = claims.len(), "the bucket of sessions is a new one; they are written again");
        }
        let each = claims.into_iter().map(|(user, claim)| {
            let devices = self.clone();
            async move { devices.claim_late(&user, &claim).await }
        });
        stream::iter(each).buffer_unordered(TOGETHER).all(async |written| written).await
    }

    fn claimed(&self) -> Vec<(UserId, Arc<DeviceClaim>)> {
        self.claims.lock().values().cloned().collect()
    }
}

/// Why a session that ran is not in the value any more.
fn taken_over(value: &UserDevices, claim: &DeviceClaim, policy: &DevicePolicy) -> Leaving {
    if value.device(&claim.device).is_some_and(|d| d.session.is_some()) {
        return Leaving::Replaced;
    }
    value.displaced_now(&claim.device, policy).map_or(Leaving::Elsewhere, Leaving::Displaced)
}
