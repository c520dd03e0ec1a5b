//! Leases: who reads a partition (economy, never safety), and that an edge lives.
//!
//! A lease is a key under its bucket's max_age, refreshed by writing it again. A holder that cannot refresh goes on
//! until it sees a newer one: two readers make duplicates, which ids, upserts and Msg-Ids absorb; nobody reading is
//! what users notice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

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
        Self {
            key,
            instance: LeaseHolder(instance.to_owned()),
            refresh: times.role_refresh,
            held: watch::Sender::new(false),
            task: None,
        }
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
        let refresher =
            refresh_role(self.key.clone(), self.instance.clone(), revision, self.refresh, self.held.clone());
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

async fn refresh_role(
    key: TypedKey<LeaseHolder>,
    instance: LeaseHolder,
    mut revision: u64,
    every: Duration,
    held: watch::Sender<bool>,
) {
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
                let key = key.name();
                tracing::warn!(key, error = %e, "lease not refreshed; going on until there is another holder");
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

/// Whether an edge's lease stands, by its own monotonic clock: while it does, nobody else has given its sessions up.
/// An edge that was frozen sees that it does not before it hears anything. Clones share it.
///
/// After it has run out it does not stand again before somebody has [`confirmed`](Self::confirm) that the sessions are
/// still this edge's: others may have taken them over meanwhile.
#[derive(Debug, Clone)]
pub struct LeaseStanding(Arc<Standing>);

#[derive(Debug)]
struct Standing {
    began: Instant,
    /// Milliseconds since `began`; 0: never written.
    until_ms: AtomicU64,
    lapses: watch::Sender<u64>,
    lapsed: AtomicU64,
    confirmed: AtomicU64,
}

impl Default for LeaseStanding {
    fn default() -> Self {
        let (zero, lapses) = (|| AtomicU64::new(0), watch::Sender::new(0));
        Self(Arc::new(Standing { began: Instant::now(), until_ms: zero(), lapses, lapsed: zero(), confirmed: zero() }))
    }
}

impl LeaseStanding {
    /// One that always stands, for tests without NATS.
    pub fn forever() -> Self {
        let standing = Self::default();
        standing.0.until_ms.store(u64::MAX, SeqCst);
        standing
    }

    pub fn stands(&self) -> bool {
        self.now_ms() < self.0.until_ms.load(SeqCst) && self.0.lapsed.load(SeqCst) == self.0.confirmed.load(SeqCst)
    }

    /// How often it has run out and was written again: whoever sees a new number looks at the sessions, and then
    /// confirms that number.
    pub fn lapses(&self) -> watch::Receiver<u64> {
        self.0.lapses.subscribe()
    }

    pub fn confirm(&self, lapse: u64) {
        self.0.confirmed.fetch_max(lapse, SeqCst);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// It was written. The server counts its lifetime from a moment between `started` and now.
    fn written(&self, started: Instant, lifetime: Duration) {
        let until = self.0.until_ms.load(SeqCst);
        if until > 0 && self.now_ms() >= until {
            let lapse = self.0.lapsed.fetch_add(1, SeqCst) + 1;
            self.0.lapses.send_replace(lapse);
        }
        let ends = started.saturating_duration_since(self.0.began) + lifetime;
        self.0.until_ms.store(u64::try_from(ends.as_millis()).unwrap_or(u64::MAX), SeqCst);
    }
}

/// That this edge lives.
pub struct EdgeLease {
    key: TypedKey<EdgeInfo>,
    value: watch::Sender<EdgeInfo>,
    state: watch::Receiver<LeaseState>,
    _task: AbortOnDropHandle<()>,
}

impl EdgeLease {
    /// Starts `Suspect` and is `Held` with the first write, which replaces that of an edge that was here before.
    pub fn start(buckets: &KvBuckets, id: &Token, value: EdgeInfo, standing: LeaseStanding, times: &Times) -> Self {
        let key = buckets.edge(id);
        let (value, seen) = watch::channel(value);
        let (state_tx, state) = watch::channel(LeaseState::Suspect);
        let refresher = EdgeRefresher { key: key.clone(), revision: None, standing, times: times.clone() };
        let task = refresher.run(seen, state_tx);
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

    /// Deletes it, unless it is another edge's of the same id.
    pub async fn release(self) {
        let Self { key, _task, value, .. } = self;
        drop(_task);
        if let Ok(Some((found, revision))) = key.load_with_revision().await
            && found.incarnation == value.borrow().incarnation
        {
            let _ = key.delete_revision(revision).await;
        }
    }
}

/// Retried this often after a failure: leader kills stop refreshes for 2.8–7.5 s, a lease of 10 s survives them only
/// with quick retries.
const EDGE_RETRY: Duration = Duration::from_millis(500);

struct EdgeRefresher {
    key: TypedKey<EdgeInfo>,
    /// What was written last; none: nothing yet.
    revision: Option<u64>,
    standing: LeaseStanding,
    times: Times,
}

impl EdgeRefresher {
    async fn run(mut self, mut value: watch::Receiver<EdgeInfo>, state: watch::Sender<LeaseState>) {
        let mut refreshed = Instant::now();
        loop {
            let info = value.borrow_and_update().clone();
            let started = Instant::now();
            let pause = match tokio::time::timeout(Duration::from_secs(1), self.write(&info)).await {
                Ok(Ok(())) => {
                    // The lifetime counts from the write on the server, which is later than this.
                    refreshed = started;
                    self.standing.written(started, self.times.edge_lease);
                    state.send_if_modified(|s| std::mem::replace(s, LeaseState::Held) != LeaseState::Held);
                    self.times.edge_refresh
                }
                failed => {
                    let lost = refreshed.elapsed() >= self.times.edge_lease;
                    let now = if lost { LeaseState::Lost } else { LeaseState::Suspect };
                    if state.send_if_modified(|s| std::mem::replace(s, now) != now) {
                        let why = failed
                            .map_or("no answer".to_owned(), |r| r.err().map(|e| e.to_string()).unwrap_or_default());
                        tracing::warn!(key = self.key.name(), state = ?now, why, "edge lease not refreshed");
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

    /// Over its own last value, or where there is none. Not over that of another edge, which came later.
    async fn write(&mut self, info: &EdgeInfo) -> Result<(), KvError> {
        let Some(revision) = self.revision else {
            if let Some(other) = self.key.load().await?
                && (&other.machine, other.listen) != (&info.machine, info.listen)
            {
                tracing::warn!(
                    key = self.key.name(), machine = other.machine, listen = %other.listen,
                    "this edge takes the lease of another one with the same edge.id, which does not answer; if that \
                     still runs, give each its own and restart them"
                );
            }
            self.revision = Some(self.key.put(info).await?);
            return Ok(());
        };
        let conflict = match self.key.compare_and_set(info, revision).await {
            Ok(revision) => {
                self.revision = Some(revision);
                return Ok(());
            }
            Err(e @ KvError::Conflict) => e,
            Err(e) => return Err(e),
        };
        match self.key.load_with_revision().await? {
            // The answer to an earlier refresh was lost.
            Some((found, revision)) if found.incarnation == info.incarnation => self.revision = Some(revision),
            Some((found, _)) => {
                tracing::error!(
                    key = self.key.name(), machine = found.machine, listen = %found.listen,
                    "another edge has the same edge.id; give each its own and restart them"
                );
                return Err(conflict);
            }
            // It has expired.
            None => self.revision = Some(0),
        }
        self.revision = Some(self.key.compare_and_set(info, self.revision.unwrap_or(0)).await?);
        Ok(())
    }
}
