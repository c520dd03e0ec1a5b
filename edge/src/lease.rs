//! That this edge lives, for the others to see; and which other edges live, for clients to go to.
//!
//! Clients find edges through these leases (`GET /v1/edges`, `draining`), so a lease says where (`address` makes of it what a client can
//! use), how full, leaving or not, and whether beats reach the edge. The own lease and the beats together make the `EdgeStatus`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::StreamExt;
use natterjack_nats::{Buckets, EdgeLease, KvError, LeaseState, Watching, subjects};
use natterjack_protocol::{
    Times, Token,
    client::{close, frame::ServerFrame},
    codec::Codec,
    internal::kv::EdgeInfo,
};
use natterjack_runtime::Health;
use parking_lot::RwLock;
use rand::seq::SliceRandom;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    address::{self, Came},
    admission::limits::AdmissionLimits,
    clock::Clock,
    sessions::Sessions,
    status::StatusWatch,
};

/// Beats come once a second; an election takes 4–9 s.
const START: Duration = Duration::from_secs(15);

struct Known {
    lease: EdgeInfo,
    at: Instant,
}

/// The edges whose leases live. Clones share it.
#[derive(Clone)]
pub struct Edges {
    all: Arc<RwLock<HashMap<String, Known>>>,
    own_key: String,
    own: Arc<EdgeInfo>,
    lifetime: Duration,
    watching: Watching,
    _watch: Arc<AbortOnDropHandle<()>>,
}

impl Edges {
    /// `own`: what stands in this edge's own lease of where it is.
    pub async fn start(buckets: &Buckets, id: &Token, own: EdgeInfo, times: &Times) -> Result<Self, KvError> {
        let all: Arc<RwLock<HashMap<String, Known>>> = Arc::default();
        let (mut changes, watching) = buckets.leases().watching(subjects::EDGE_KEYS).await?;
        let watched = all.clone();
        let watch = tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                match change.value.and_then(|v| Codec::Msgpack.decode::<EdgeInfo>(&v).ok()) {
                    Some(lease) => watched.write().insert(change.key, Known { lease, at: Instant::now() }),
                    None => watched.write().remove(&change.key),
                };
            }
        });
        let (own_key, lifetime) = (subjects::edge_key(id.as_str()), times.edge_lease);
        Ok(Self { all, own_key, own: Arc::new(own), lifetime, watching, _watch: Arc::new(AbortOnDropHandle::new(watch)) })
    }

    /// How far the watch is by which this edge knows the others; its own lease is among what it brings.
    pub fn watching(&self) -> (&'static str, Watching) {
        ("edges", self.watching.clone())
    }

    /// Where a client that came so may go from here, in no order, so that they spread. Several edges behind one address are one.
    pub fn others(&self, came: &Came) -> Vec<String> {
        let mut urls = self.living(|lease| address::other(lease, &self.own, came));
        urls.sort_unstable();
        urls.dedup();
        urls.shuffle(&mut rand::rng());
        urls
    }

    /// Likewise, with this edge.
    pub fn all(&self, came: &Came) -> Vec<String> {
        let mut urls = self.others(came);
        if let Some(own) = address::own(&self.own, came).filter(|own| !urls.contains(own)) {
            urls.insert(rand::random_range(..=urls.len()), own);
        }
        urls
    }

    /// Is there any other edge to go to, by whatever address?
    pub fn has_others(&self) -> bool {
        !self.living(|_| Some(())).is_empty()
    }

    fn living<T>(&self, what: impl Fn(&EdgeInfo) -> Option<T>) -> Vec<T> {
        // A watch that has stopped must not keep the dead alive.
        let good = |k: &Known| k.lease.healthy && !k.lease.draining && k.at.elapsed() < self.lifetime * 2;
        let all = self.all.read();
        all.iter().filter(|(key, k)| **key != self.own_key && good(k)).filter_map(|(_, k)| what(&k.lease)).collect()
    }
}

/// This edge's own lease, and what follows from it. Runs until dropped.
pub struct Keeper {
    pub lease: EdgeLease,
    pub value: EdgeInfo,
    pub status: StatusWatch,
    pub sessions: Sessions,
    pub limiter: AdmissionLimits,
    pub clock: Clock,
    pub health: Health,
    pub times: Times,
}

/// The machine, or the container of it, whose addresses this process has: those that share them have the same.
pub fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let network = std::fs::read_link("/proc/self/ns/net");
    match (boot, network) {
        (Ok(boot), Ok(network)) => format!("{} {}", boot.trim(), network.display()),
        // Not to be found out: nobody else's.
        _ => uuid::Uuid::now_v7().to_string(),
    }
}

impl Keeper {
    pub async fn keep(&mut self) {
        let (mut beats, mut lease, mut status) = (self.clock.watch(), self.lease.state(), self.status.watch());
        let mut lost_since: Option<Instant> = None;
        // A start is not well before the first beats: no news, unless it lasts.
        let (mut told, mut started, began) = (false, false, Instant::now());
        loop {
            let now = *lease.borrow_and_update();
            // Looked at here as well: who should notice a silence may itself be what stands still.
            beats.mark_unchanged();
            self.clock.look();
            self.status.change(|c| {
                c.beats = self.clock.all_alive();
                c.lease = now;
            });
            let condition = *status.borrow_and_update();
            self.lease_value(condition.draining, condition.beats);
            self.health.set("edge", condition.ready().map_err(str::to_owned));
            if condition.degraded() != told {
                told = condition.degraded();
                if told && started {
                    tracing::warn!(beats = condition.beats, lease = ?condition.lease, "this edge is cut off from the log, or the log stands still");
                } else if started {
                    tracing::info!("this edge is in touch with the log again");
                }
                metrics::gauge!(crate::metrics::DEGRADED).set(f64::from(u8::from(told)));
                self.sessions.tell(&ServerFrame::Degraded { on: told });
            }
            if told && !started && began.elapsed() >= START {
                tracing::warn!(beats = condition.beats, lease = ?condition.lease, "nothing is heard from the log yet: does a channel run?");
                started = true;
            }
            started |= !told;
            match (now, lost_since) {
                (LeaseState::Lost, None) => lost_since = Some(Instant::now()),
                (LeaseState::Lost, Some(since)) if since.elapsed() >= self.times.suspend => {
                    // Others may have given this edge up long ago: whoever is still here must resume elsewhere.
                    for session in self.sessions.all() {
                        session.outbox.close(close::UNAVAILABLE);
                    }
                }
                (LeaseState::Lost, Some(_)) => {}
                (LeaseState::Held | LeaseState::Suspect, _) => lost_since = None,
            }
            // The number of sessions goes out with this beat, too.
            let next = Instant::now() + self.times.edge_refresh.min(self.times.suspend);
            tokio::select! {
                Ok(()) = beats.changed() => {}
                Ok(()) = lease.changed() => {}
                Ok(()) = status.changed() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    fn lease_value(&mut self, draining: bool, healthy: bool) {
        let (sessions, unheeded) = (self.sessions.len() as u32, self.limiter.unheeded());
        self.value = EdgeInfo { sessions, draining, healthy, unheeded, ..self.value.clone() };
        self.lease.set(self.value.clone());
    }
}
