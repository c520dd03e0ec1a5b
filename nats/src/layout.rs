//! How the log is laid out: its generation, its partitions, the shards of the buckets. Data; `layout_store` reads and
//! writes it.

use natterjack_protocol::{Thread, thread::partition_of};
use serde::{Deserialize, Serialize};

use crate::subjects;

/// The first generation.
pub(crate) const FIRST: u32 = 1;
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub generation: u32,
    pub partitions: u32,
    pub kv_shards: u32,
    /// The generation before: nothing is written to it any more, but what is not archived yet is only there.
    #[serde(default)]
    pub former: Option<Former>,
    /// A switch that was begun. Whoever provisions next finishes it.
    #[serde(default)]
    pub next: Option<Next>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    pub generation: u32,
    pub partitions: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    pub partitions: u32,
    /// Of each partition.
    pub max_bytes: i64,
    /// Its first id is above this, and its number at least so large: what an archive, or a position, knows beside the
    /// log.
    #[serde(default)]
    pub above: u64,
    #[serde(default)]
    pub generation: u32,
}

impl Layout {
    /// One generation alone.
    pub fn new(generation: u32, partitions: u32, kv_shards: u32) -> Self {
        Self { generation, partitions, kv_shards, former: None, next: None }
    }

    /// No other generation was there before, and none is being made.
    pub fn is_the_first(&self) -> bool {
        self.generation == FIRST && self.former.is_none() && self.next.is_none()
    }

    /// What the log and the state beside it stand in, of this generation and the one before.
    pub(crate) fn streams(&self) -> Vec<String> {
        let log = |l: &Self| (0..l.partitions).map(|p| subjects::stream(l.generation, p)).collect::<Vec<_>>();
        let shards = subjects::shard_buckets(self.kv_shards);
        let buckets =
            [subjects::CONTROL, subjects::ROLES, subjects::LEASES].map(str::to_owned).into_iter().chain(shards);
        let former = self.previous().map(|previous| log(&previous)).unwrap_or_default();
        buckets.map(|b| subjects::bucket_stream(&b)).chain(log(self)).chain(former).collect()
    }

    /// The generation before, as a layout of its own.
    pub fn previous(&self) -> Option<Self> {
        self.former.map(|f| Self::new(f.generation, f.partitions, self.kv_shards))
    }

    /// What comes after a switch.
    pub(crate) fn after(&self, next: Next) -> Self {
        let former = Some(Former { generation: self.generation, partitions: self.partitions });
        Self { former, ..Self::new(next.generation.max(self.generation + 1), next.partitions, self.kv_shards) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_names_both_generations() {
        let old = Layout::new(1, 2, 3);
        let next = |partitions, generation| Next { partitions, max_bytes: 5, above: 0, generation };
        let new = old.after(next(4, 0));
        assert_eq!((new.generation, new.partitions, new.kv_shards, new.next), (2, 4, 3, None));
        assert_eq!(new.previous(), Some(old));
        assert_eq!(new.after(next(1, 2)).former, Some(Former { generation: 2, partitions: 4 }));
        let later = new.after(next(4, 7));
        assert_eq!(
            (later.generation, later.former),
            (7, new.after(next(4, 0)).former),
            "an archive may know of later ones"
        );
    }
}
