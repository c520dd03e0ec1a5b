//! The edges that live, for clients to go to (`GET /v1/edges`, `draining`): by their leases, of which `address` makes
//! what a client can use. This edge's own lease is kept in `lease`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::StreamExt;
use natterjack_nats::{KvBuckets, KvError, WatchProgress};
use natterjack_protocol::{Times, Token, internal::kv::EdgeInfo};
use parking_lot::RwLock;
use rand::seq::SliceRandom;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::address::{self, Came};

struct Known {
    lease: EdgeInfo,
    at: Instant,
}

/// The edges whose leases live. Clones share it.
#[derive(Clone)]
pub struct KnownEdges {
    all: Arc<RwLock<HashMap<String, Known>>>,
    own_id: String,
    own: Arc<EdgeInfo>,
    lifetime: Duration,
    watching: WatchProgress,
    _watch: Arc<AbortOnDropHandle<()>>,
}

impl KnownEdges {
    /// `own`: what stands in this edge's own lease of where it is.
    pub async fn start(buckets: &KvBuckets, id: &Token, own: EdgeInfo, times: &Times) -> Result<Self, KvError> {
        let all: Arc<RwLock<HashMap<String, Known>>> = Arc::default();
        let (mut changes, watching) = buckets.edges().watch_with_progress().await?;
        let watched = all.clone();
        let watch = tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                match change.value {
                    Some(lease) => watched.write().insert(change.name, Known { lease, at: Instant::now() }),
                    None => watched.write().remove(&change.name),
                };
            }
        });
        let (own_id, lifetime) = (id.to_string(), times.edge_lease);
        Ok(Self {
            all,
            own_id,
            own: Arc::new(own),
            lifetime,
            watching,
            _watch: Arc::new(AbortOnDropHandle::new(watch)),
        })
    }

    /// How far the watch is by which this edge knows the others; its own lease is among what it brings.
    pub fn watching(&self) -> (&'static str, WatchProgress) {
        ("edges", self.watching.clone())
    }

    /// Where a client that came so may go from here, in no order, so that they spread. Several edges behind one
    /// address are one.
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

    /// Has this edge, with this incarnation, a lease? As of the last change that came.
    pub fn has(&self, id: &Token, incarnation: &str) -> bool {
        self.all.read().get(id.as_str()).is_some_and(|k| *k.lease.incarnation == *incarnation)
    }

    /// Is there any other edge to go to, by whatever address?
    pub fn has_others(&self) -> bool {
        !self.living(|_| Some(())).is_empty()
    }

    fn living<T>(&self, what: impl Fn(&EdgeInfo) -> Option<T>) -> Vec<T> {
        // A watch that has stopped must not keep the dead alive.
        let good = |k: &Known| k.lease.healthy && !k.lease.draining && k.at.elapsed() < self.lifetime * 2;
        let all = self.all.read();
        all.iter().filter(|(id, k)| **id != self.own_id && good(k)).filter_map(|(_, k)| what(&k.lease)).collect()
    }
}
