//! How far a role has got in a partition of a generation, for those roles that keep it on NATS (the persister keeps its
//! watermark in the store).

use crate::{
    keys::{KvBuckets, values::Position},
    kv::KvError,
};

#[derive(Clone)]
pub struct Positions {
    buckets: KvBuckets,
    role: String,
}

impl Positions {
    pub fn new(buckets: &KvBuckets, role: &str) -> Self {
        Self { buckets: buckets.clone(), role: role.to_owned() }
    }

    /// None: this role has never been here.
    pub async fn load(&self, p: u32) -> Result<Option<Position>, KvError> {
        self.buckets.position(&self.role, p).load().await
    }

    /// Moves forward, never back: of two readers the one that is behind changes nothing.
    pub async fn advance(&self, p: u32, to: Position) -> Result<(), KvError> {
        self.buckets.position(&self.role, p).merge_max(&to).await
    }
}
