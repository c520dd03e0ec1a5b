//! Where the values stand, and how another edge is asked: NATS, or what a test says.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use natterjack_nats::{KvBuckets, KvError, Nats, subjects};
use natterjack_protocol::{
    Token, UserId,
    internal::{
        devices::{SessionPlace, UserDevices},
        kv::EdgeInfo,
        rpc::{EdgeAnswer, EdgeRequest},
    },
};

use crate::edges::KnownEdges;

/// An edge that lives answers in a millisecond.
const ANSWER: Duration = Duration::from_secs(1);

/// Boxed futures: once per hello and goodbye.
pub trait DeviceWorld: Send + Sync {
    /// By the leader, with the revision.
    fn load<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Option<(UserDevices, u64)>, KvError>>;

    /// By any server, perhaps what was there a moment ago: for a decision that a compare-and-set follows.
    fn load_near<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Option<(UserDevices, u64)>, KvError>>;

    fn store<'a>(
        &'a self,
        user: &'a UserId,
        value: &'a UserDevices,
        revision: u64,
    ) -> BoxFuture<'a, Result<u64, KvError>>;

    /// None: no answer.
    fn ask<'a>(&'a self, edge: &'a Token, request: &'a EdgeRequest) -> BoxFuture<'a, Option<EdgeAnswer>>;

    /// By the leader.
    fn lease<'a>(&'a self, edge: &'a Token) -> BoxFuture<'a, Result<Option<EdgeInfo>, KvError>>;

    /// When each shard's bucket was made, milliseconds since 1970: one that was lost and made anew is empty.
    fn made(&self) -> BoxFuture<'_, Result<Vec<u64>, KvError>>;

    /// Is there, as far as is known, no edge with this incarnation?
    fn seems_gone(&self, place: &SessionPlace) -> bool;
}

pub struct NatsDevices {
    pub buckets: KvBuckets,
    pub nats: Nats,
    pub edges: KnownEdges,
    /// Of this edge: its own lease may not be in the list yet.
    pub incarnation: Arc<str>,
}

impl DeviceWorld for NatsDevices {
    fn load<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Option<(UserDevices, u64)>, KvError>> {
        Box::pin(async move { self.buckets.devices(user).load_with_revision().await })
    }

    fn load_near<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Option<(UserDevices, u64)>, KvError>> {
        Box::pin(async move { self.buckets.devices(user).load_near().await })
    }

    fn store<'a>(
        &'a self,
        user: &'a UserId,
        value: &'a UserDevices,
        revision: u64,
    ) -> BoxFuture<'a, Result<u64, KvError>> {
        Box::pin(async move { self.buckets.devices(user).compare_and_set(value, revision).await })
    }

    fn ask<'a>(&'a self, edge: &'a Token, request: &'a EdgeRequest) -> BoxFuture<'a, Option<EdgeAnswer>> {
        Box::pin(async move { ask(&self.nats, edge, request).await })
    }

    fn lease<'a>(&'a self, edge: &'a Token) -> BoxFuture<'a, Result<Option<EdgeInfo>, KvError>> {
        Box::pin(async move { self.buckets.edge(edge).load().await })
    }

    fn made(&self) -> BoxFuture<'_, Result<Vec<u64>, KvError>> {
        Box::pin(self.buckets.sessions_made_ms())
    }

    fn seems_gone(&self, place: &SessionPlace) -> bool {
        place.incarnation != self.incarnation && !self.edges.has(&place.edge, &place.incarnation)
    }
}

/// None: no edge with this id answers.
pub async fn ask(nats: &Nats, edge: &Token, request: &EdgeRequest) -> Option<EdgeAnswer> {
    nats.request(&subjects::edge_service(edge), request, ANSWER).await.ok()
}
