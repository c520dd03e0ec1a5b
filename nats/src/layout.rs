//! How the log is laid out: its generation, its partitions, the shards of the buckets. Written by `provision`, read by every role at start.

use natterjack_protocol::{Thread, thread::partition_of};
use serde::{Deserialize, Serialize};

use crate::{
    connect::Nats,
    kv::{Kv, KvError},
    subjects,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub generation: u32,
    pub partitions: u32,
    pub kv_shards: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("nothing is provisioned here yet; run `natterjack provision`")]
    NotProvisioned,
    #[error("the layout in the control bucket cannot be read: {0}")]
    Corrupt(String),
    #[error("the layout: {0}")]
    Kv(#[from] KvError),
}

impl Layout {
    pub async fn load(nats: &Nats) -> Result<Self, LayoutError> {
        Self::find(nats).await?.ok_or(LayoutError::NotProvisioned)
    }

    pub(crate) async fn find(nats: &Nats) -> Result<Option<Self>, LayoutError> {
        match Kv::new(nats, subjects::CONTROL.into()).get(subjects::LAYOUT_KEY).await {
            Ok(Some((value, _))) => serde_json::from_slice(&value).map(Some).map_err(|e| LayoutError::Corrupt(e.to_string())),
            Ok(None) | Err(KvError::NoBucket(_)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    pub fn partition(&self, thread: &Thread) -> u32 {
        thread.partition(self.partitions)
    }

    /// The shard of a key of `groups` (a group id) or `users` (a user id).
    pub fn shard(&self, key: &str) -> u32 {
        partition_of(xxhash_rust::xxh3::xxh3_64(key.as_bytes()), self.kv_shards)
    }

    /// The log's stream of a thread.
    pub fn stream(&self, thread: &Thread) -> String {
        subjects::stream(self.generation, self.partition(thread))
    }
}
