//! Leases: who reads a partition (economy, never safety), and that an edge lives.
//!
//! A lease is a key under its bucket's max_age, refreshed by writing it again. A holder that cannot refresh goes on
//! until it sees a newer one: two readers make duplicates, which ids, upserts and Msg-Ids absorb; nobody reading is
//! what users notice.

use std::time::Duration;

use natterjack_protocol::{Times, Token, internal::kv::EdgeInfo};
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    keys::{KvBuckets, values::LeaseHolder},
    kv::KvError,
    typed_key::TypedKey,
};

/// Who reads partition `p` for `role`.
pub struct RoleLease {
    key: TypedKey<LeaseHolder>,
    instance: LeaseHolder,
    refresh: Duration,
    held: watch::Sender<bool>,
    task: Option<AbortOnDropHandle<()>>,
}

impl RoleLease {
    pub fn new(buckets: &KvBuckets, role: &str, p: u32, instance: &str, times: &Times) -> Self {
        Self::of(buckets.role_lease(role, p), instance, times)
    }

    /// Who takes care of a shard of the buckets for `role`, in every generation of the log.
    pub fn of_shard(buckets: &KvBuckets, role: &str, shard: u32, instance: &str, times: &Times) -> Self {
        Self::of(buckets.shard_lease(role, shard), instance, times)
    }

    fn of(key: TypedKey<LeaseHolder>, instance: &str, times: &Times) -> Self {
        Self { key, instance: LeaseHolder(instance.to_owned()), refresh: times.role_refresh, held: watch::Sender::new(false), task: None }
    }

    /// Waits until the lease is ours; from then on it is refreshed until it is released, dropped or lost (see `held`).
    pub async fn acquire(&mut self) {
        if *self.held.borrow() {
            return;
        }
        self.task = None;
        let revision = loop {
            match self.key.create(&self.instance).await {
                Ok(revision) => break revision,
                Err(KvError::Conflict) => {
                    // Ours from before (a restart within the lease, a lost answer): go on with it.
                    if let Ok(Some((who, revision))) = self.key.load_with_revision().await
                        && who == self.instance
                    {
                        break revision;
                    }
                }
                Err(e) => tracing::debug!(key = self.key.name(), error = %e, "lease not to be had now"),
            }
            // Jitter, so that standbys do not race in step.
            let slack = self.refresh.as_millis() as u64 / 4;
            tokio::time::sleep(self.refresh - Duration::from_millis(rand::random_range(0..=slack))).await;
        };
        self.held.send_replace(true);
        let refresher = refresh_role(self.key.clone(), self.instance.clone(), revision, self.refresh, self.held.clone());
        self.task = Some(AbortOnDropHandle::new(tokio::spawn(refresher)));
    }

    /// False from the moment another holder is seen.
    pub fn held(&self) -> watch::Receiver<bool> {
        self.held.subscribe()
    }

    /// Gives it up at once, so that a standby need not wait for it to expire.
    pub async fn release(mut self) {
        self.task = None;
        if self.held.send_replace(false)
            && let Ok(Some((who, revision))) = self.key.load_with_revision().await
            && who == self.instance
        {
            let _ = self.key.delete_revision(revision).await;
        }
    }
}

async fn refresh_role(key: TypedKey<LeaseHolder>, instance: LeaseHolder, mut revision: u64, every: Duration, held: watch::Sender<bool>) {
    loop {
        tokio::time::sleep(every).await;
        match key.compare_and_set(&instance, revision).await {
            Ok(r) => revision = r,
            Err(KvError::Conflict) => match key.load_with_revision().await {
                // The answer to an earlier refresh was lost.
                Ok(Some((who, r))) if who == instance => revision = r,
                Ok(Some(_)) => {
                    tracing::info!(key = key.name(), "the lease has another holder");
                    held.send_replace(false);
                    return;
                }
                // It expired while nobody wanted it.
                Ok(None) => revision = 0,
                Err(e) => tracing::debug!(key = key.name(), error = %e, "lease not read"),
            },
            Err(e) => {
                tracing::warn!(key = key.name(), error = %e, "lease not refreshed; going on until there is another holder");
            }
        }
    }
}

/// How an edge's lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    Held,
    /// The last refresh failed, the lease still stands.
    Suspect,
    /// Not refreshed for its whole lifetime: others may have given this edge up.
    Lost,
}

/// That this edge lives.
pub struct EdgeLease {
    key: TypedKey<EdgeInfo>,
    value: watch::Sender<EdgeInfo>,
    state: watch::Receiver<LeaseState>,
    _task: AbortOnDropHandle<()>,
}

impl EdgeLease {
    /// Starts `Suspect` and is `Held` with the first write.
    pub fn start(buckets: &KvBuckets, id: &Token, value: EdgeInfo, times: &Times) -> Self {
        let key = buckets.edge(id);
        let (value, seen) = watch::channel(value);
        let (state_tx, state) = watch::channel(LeaseState::Suspect);
        let task = refresh_edge(key.clone(), seen, state_tx, times.edge_refresh, times.edge_lease);
        Self { key, value, state, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }

    /// Written at once.
    pub fn set(&self, value: EdgeInfo) {
        self.value.send_if_modified(|v| {
            let changed = *v != value;
            *v = value;
            changed
        });
    }

    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }

    pub async fn release(self) {
        let Self { key, _task, .. } = self;
        drop(_task);
        let _ = key.delete().await;
    }
}

/// Retried this often after a failure: leader kills stop refreshes for 2.8–7.5 s, a lease of 10 s survives them only
/// with quick retries.
const EDGE_RETRY: Duration = Duration::from_millis(500);

async fn refresh_edge(
    key: TypedKey<EdgeInfo>,
    mut value: watch::Receiver<EdgeInfo>,
    state: watch::Sender<LeaseState>,
    every: Duration,
    lifetime: Duration,
) {
    let mut refreshed = Instant::now();
    loop {
        let info = value.borrow_and_update().clone();
        let started = Instant::now();
        let pause = match tokio::time::timeout(Duration::from_secs(1), key.put(&info)).await {
            Ok(Ok(_)) => {
                // The lifetime counts from the write on the server, which is later than this.
                refreshed = started;
                state.send_if_modified(|s| std::mem::replace(s, LeaseState::Held) != LeaseState::Held);
                every
            }
            failed => {
                let now = if refreshed.elapsed() >= lifetime { LeaseState::Lost } else { LeaseState::Suspect };
                if state.send_if_modified(|s| std::mem::replace(s, now) != now) {
                    let why = failed.map_or("no answer".to_owned(), |r| r.err().map(|e| e.to_string()).unwrap_or_default());
                    tracing::warn!(key = key.name(), state = ?now, why, "edge lease not refreshed");
                }
                EDGE_RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A changed value (draining!) is not kept waiting. The sender lives as long as this task.
            changed = value.changed() => if changed.is_err() { return },
        }
    }
}
