//! How far the clock of a partition's log has ever been, where that is more than it shows now: it was set back, or the generation before was
//! led by a server whose clock was ahead. Up to there the streams do not know everything that was stored (P2), and whoever says so in
//! beats may be another instance than the one that saw it.

use bytes::Bytes;
use natterjack_protocol::log::VERSION;
use serde::{Deserialize, Serialize};

use crate::{
    kv::{Kv, KvBuckets, KvError},
    subjects,
};

#[derive(Serialize, Deserialize)]
struct Value {
    v: u8,
    unix_ms: u64,
}

/// Of one generation; a key for each partition.
#[derive(Clone)]
pub struct ClockMarks {
    kv: Kv,
    generation: u32,
}

impl ClockMarks {
    pub fn new(buckets: &KvBuckets) -> Self {
        Self { kv: buckets.control(), generation: buckets.generation() }
    }

    /// Milliseconds since 1970; 0: the clock was never seen ahead of what it shows.
    pub async fn of(&self, p: u32) -> Result<u64, KvError> {
        let value = self.kv.get(&subjects::clock_key(self.generation, p)).await?;
        Ok(value.map_or(0, |(v, _)| parse(&v)))
    }

    /// Moves forward, never back.
    pub async fn note(&self, p: u32, unix_ms: u64) -> Result<(), KvError> {
        let key = subjects::clock_key(self.generation, p);
        self.kv.update(&key, |old| merge(old.map_or(0, parse), unix_ms)).await.map(drop)
    }
}

/// One that cannot be read is written again.
fn parse(value: &[u8]) -> u64 {
    serde_json::from_slice::<Value>(value).map_or(0, |v| v.unix_ms)
}

fn merge(old: u64, new: u64) -> Option<Bytes> {
    (old < new).then(|| serde_json::to_vec(&Value { v: VERSION, unix_ms: new }).expect("plain values").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_forward() {
        assert_eq!(merge(0, 5).map(|v| parse(&v)), Some(5));
        assert_eq!(merge(5, 5), None);
        assert_eq!(merge(6, 5), None);
        assert_eq!(parse(b"nonsense"), 0);
    }
}
