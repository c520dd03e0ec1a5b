//! Who publishes a partition: taking over from the last holder, standing by, and handing over. The window is what is handed over.

use natterjack_nats::RoleLease;
use tokio::sync::watch;

use super::{Partition, RETRY};

impl Partition {
    /// The last holder is gone, or there was none. Everything behind its position goes out now, from the warm window.
    pub(super) async fn take_over(&mut self, lease: RoleLease) {
        let position = loop {
            match self.positions.load(self.p).await {
                Ok(position) => break position,
                Err(e) => {
                    tracing::warn!(partition = self.p, error = %e, "cannot read the position of the last holder");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        if let Some(position) = position {
            self.window.confirm(position.id);
        }
        self.window.rewind();
        self.barrier = None;
        self.epoch = self.outlet.nats().epoch();
        self.held = Some(lease.held());
        self.lease = Some(lease);
        self.holder = true;
        self.metrics.holder.set(1.0);
        self.metrics.takeovers.increment(1);
        // At a start that goes well this is no news; a takeover is.
        if std::mem::take(&mut self.stood_by) {
            let (from, waiting) = (self.window.confirmed().id, self.window.unpublished());
            tracing::info!(partition = self.p, %from, waiting, "publishing this partition from now on");
        }
    }

    /// Somebody else has the lease: tail on without a word, until it is free.
    pub(super) fn stand_by(&mut self) {
        tracing::info!(partition = self.p, "another instance publishes this partition; standing by");
        (self.holder, self.stood_by) = (false, true);
        self.metrics.holder.set(0.0);
        (self.heads, self.barrier, self.held) = (None, None, None);
        self.quiet.clear();
        self.outlet.stand_by();
        self.window.rewind();
        if let Some(lease) = self.lease.take() {
            self.acquiring = Some(Box::pin(acquire(lease)));
        }
    }

    /// A planned stop: what was published is confirmed, the position says so, and the standby need not wait for the lease to expire.
    pub(super) async fn finish(&mut self) {
        if self.holder && self.may_publish() && self.window.frontier() > self.window.confirmed().id {
            let frontier = self.window.frontier();
            let left = self.outlet.nats().flush_barrier().await.is_ok();
            self.confirm(left.then_some(frontier));
        }
        let confirmed = self.window.confirmed();
        if self.holder
            && confirmed.id > self.saved.id
            && let Err(e) = self.positions.advance(self.p, confirmed).await
        {
            tracing::warn!(partition = self.p, error = %e, "the position was not saved; whoever goes on repeats some events");
        }
        self.heads = None;
        if let Some(lease) = self.lease.take() {
            lease.release().await;
        }
    }
}

pub(super) async fn acquire(mut lease: RoleLease) -> RoleLease {
    lease.acquire().await;
    lease
}

/// Returns when the lease has another holder. May be dropped at any time.
pub(super) async fn lost(held: &mut Option<watch::Receiver<bool>>) {
    match held {
        // An error: the lease is gone, and with it its refresher.
        Some(held) => drop(held.wait_for(|held| !held).await),
        None => std::future::pending().await,
    }
}
