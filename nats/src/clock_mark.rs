//! How far the clock of a partition's log has ever been, where that is more than it shows now: it was set back, or the
//! generation before was led by a server whose clock was ahead. Up to there the streams do not know everything that was
//! stored (P2), and whoever says so in beats may be another instance than the one that saw it.

use crate::{
    keys::{KvBuckets, values::ClockMark},
    kv::KvError,
};

/// Of one generation; a key for each partition.
#[derive(Clone)]
pub struct ClockMarks(KvBuckets);

impl ClockMarks {
    pub fn new(buckets: &KvBuckets) -> Self {
        Self(buckets.clone())
    }

    /// Milliseconds since 1970; 0: the clock was never seen ahead of what it shows.
    pub async fn of(&self, p: u32) -> Result<u64, KvError> {
        Ok(self.0.clock_mark(p).load().await?.map_or(0, |mark| mark.0))
    }

    /// Moves forward, never back.
    pub async fn note(&self, p: u32, unix_ms: u64) -> Result<(), KvError> {
        if unix_ms == 0 {
            return Ok(());
        }
        self.0.clock_mark(p).merge_max(&ClockMark(unix_ms)).await
    }
}
