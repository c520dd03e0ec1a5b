//! How the log is laid out: its generation, its partitions, the shards of the buckets. Written by `provision`, read by every role at start,
//! and again when the generation is over (ADR 5).

use std::time::Duration;

use futures_util::{StreamExt, future::join_all};
use natterjack_protocol::{Thread, thread::partition_of};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    kv::{Kv, KvError},
    subjects,
    wire::{client::Nats, jetstream},
};

/// The first generation.
pub(crate) const FIRST: u32 = 1;
/// After a watch that could not be opened, or a stream that has no leader.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a role that starts waits for three servers that have just started: an election takes 4–9 s, and may have to be repeated.
const ELECTIONS: Duration = Duration::from_secs(30);
/// A leader answers in well under a millisecond.
const ASKED: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub generation: u32,
    pub partitions: u32,
    pub kv_shards: u32,
    /// The generation before: nothing is written to it any more, but what is not archived yet is only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Former>,
    /// A switch that was begun. Whoever provisions next finishes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    /// Its first id is above this, and its number at least so large: what an archive, or a position, knows beside the log.
    #[serde(default)]
    pub above: u64,
    #[serde(default)]
    pub generation: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("nothing is provisioned here yet; run `natterjack provision`")]
    NotProvisioned,
    #[error("the layout in the control bucket cannot be read: {0}")]
    Corrupt(String),
    #[error("the layout: {0}")]
    Kv(#[from] KvError),
    #[error("no leader after {} s for: {}; do most of the nats-servers run?", waited.as_secs(), streams.join(", "))]
    NoLeader { streams: Vec<String>, waited: Duration },
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

    /// By the leader: whatever was written before is seen.
    pub async fn load(nats: &Nats) -> Result<Self, LayoutError> {
        Self::find(nats).await?.map(|(layout, _)| layout).ok_or(LayoutError::NotProvisioned)
    }

    /// Where a role begins: every stream has a leader. Waits while servers that have just started elect them; who asked earlier would
    /// be refused and end.
    pub async fn load_at_start(nats: &Nats) -> Result<Self, LayoutError> {
        let deadline = Instant::now() + ELECTIONS;
        let layout = loop {
            match Self::load(nats).await {
                Err(LayoutError::Kv(KvError::Unavailable { .. })) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                other => break other?,
            }
        };
        layout.wait_for_leaders(nats, deadline.saturating_duration_since(Instant::now())).await?;
        Ok(layout)
    }

    /// Waits until every stream of this layout has a leader.
    pub async fn wait_for_leaders(&self, nats: &Nats, limit: Duration) -> Result<(), LayoutError> {
        let (started, mut streams) = (Instant::now(), self.streams());
        loop {
            let led = join_all(streams.iter().map(|name| jetstream::has_leader(nats, name, ASKED))).await;
            let mut led = led.into_iter();
            streams.retain(|_| led.next() == Some(false));
            if streams.is_empty() {
                return Ok(());
            }
            if started.elapsed() >= limit {
                return Err(LayoutError::NoLeader { streams, waited: started.elapsed() });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What the log and the state beside it stand in, of this generation and the one before.
    fn streams(&self) -> Vec<String> {
        let log = |l: &Self| (0..l.partitions).map(|p| subjects::stream(l.generation, p)).collect::<Vec<_>>();
        let shards = (0..self.kv_shards).flat_map(|s| [subjects::groups_bucket(s), subjects::users_bucket(s)]);
        let buckets = [subjects::CONTROL, subjects::ROLES, subjects::LEASES].map(str::to_owned).into_iter().chain(shards);
        let former = self.previous().map(|previous| log(&previous)).unwrap_or_default();
        buckets.map(|b| subjects::bucket_stream(&b)).chain(log(self)).chain(former).collect()
    }

    /// With its revision.
    pub(crate) async fn find(nats: &Nats) -> Result<Option<(Self, u64)>, LayoutError> {
        match control(nats).get(subjects::LAYOUT_KEY).await {
            Ok(Some((value, revision))) => Ok(Some((Self::parse(&value)?, revision))),
            Ok(None) | Err(KvError::NoBucket(_)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes it if nobody was faster.
    pub(crate) async fn store(&self, nats: &Nats, revision: u64) -> Result<u64, KvError> {
        let bytes = serde_json::to_vec(self).expect("plain values");
        control(nats).cas(subjects::LAYOUT_KEY, bytes.into(), revision).await
    }

    /// Waits, through every outage, for a later generation than this one. Cancel-safe.
    pub async fn next_generation(&self, nats: &Nats) -> Self {
        loop {
            if let Ok(mut changes) = control(nats).watch(subjects::LAYOUT_KEY).await {
                while let Some(change) = changes.next().await {
                    if let Some(Ok(layout)) = change.value.map(|v| Self::parse(&v))
                        && layout.generation > self.generation
                    {
                        return layout;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn parse(value: &[u8]) -> Result<Self, LayoutError> {
        serde_json::from_slice(value).map_err(|e| LayoutError::Corrupt(e.to_string()))
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

fn control(nats: &Nats) -> Kv {
    Kv::new(nats, subjects::CONTROL.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_names_both_generations_and_the_first_layout_ever_written_is_read() {
        let old = Layout::parse(br#"{"generation":1,"partitions":2,"kv_shards":3}"#).unwrap();
        assert_eq!(old, Layout::new(1, 2, 3));
        let next = |partitions, generation| Next { partitions, max_bytes: 5, above: 0, generation };
        let new = old.after(next(4, 0));
        assert_eq!((new.generation, new.partitions, new.kv_shards, new.next), (2, 4, 3, None));
        assert_eq!(new.previous(), Some(old));
        assert_eq!(Layout::parse(&serde_json::to_vec(&new).unwrap()).unwrap(), new);
        assert_eq!(new.after(next(1, 2)).former, Some(Former { generation: 2, partitions: 4 }));
        let later = new.after(next(4, 7));
        assert_eq!((later.generation, later.former), (7, new.after(next(4, 0)).former), "an archive may know of later ones");
    }
}
