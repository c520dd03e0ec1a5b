//! Beside step 4: what a partition asks the log and `control` about once a second. Out: the log's clock and bounds for beats,
//! and how far the archive is behind.

use std::time::Duration;

use natterjack_nats::{Beginning, Buckets, LogBounds, Positions, Tail};
use natterjack_protocol::{MsgId, Times};
use tokio::time::Instant;

/// The log's clock, as of a moment of ours.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub ts: u64,
    pub at: Instant,
}

impl Clock {
    pub fn now(&self) -> u64 {
        self.ts + self.at.elapsed().as_millis() as u64
    }
}

/// Before `ms` (0: never) the stream made at `created_ms` may not know what was stored.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    pub created_ms: u64,
    pub ms: u64,
}

/// What the log said, and when.
pub struct Seen {
    pub bounds: LogBounds,
    pub at: Instant,
    pub since: Since,
}

#[derive(Clone)]
pub struct Watch {
    tail: Tail,
    archive: Positions,
    p: u32,
    timeout: Duration,
    buckets: Buckets,
    times: Times,
    /// There was a generation before: the archive may not have come to this one yet.
    follows: bool,
}

impl Watch {
    pub fn new(tail: Tail, buckets: &Buckets, p: u32, times: &Times, follows: bool) -> Self {
        let (archive, buckets) = (Positions::new(buckets, "persister"), buckets.clone());
        Self { tail, archive, p, timeout: times.beat_silence, buckets, times: times.clone(), follows }
    }

    /// None: the log does not answer; then no beat goes out, and the edges see for themselves.
    pub async fn bounds(self, known: Option<Since>) -> Option<Seen> {
        let bounds = tokio::time::timeout(self.timeout, self.tail.bounds(self.p)).await;
        match bounds {
            Ok(Ok(bounds)) => {
                let at = Instant::now();
                Some(Seen { bounds, at, since: self.dedupe_since(&bounds, known).await })
            }
            Ok(Err(e)) => {
                tracing::debug!(partition = self.p, error = %e, "no bounds of the log");
                None
            }
            Err(_) => None,
        }
    }

    /// As long as it makes a difference, the persister may still say that nothing was stored before this stream.
    async fn dedupe_since(&self, bounds: &LogBounds, known: Option<Since>) -> Since {
        let young = bounds.ts_ms.saturating_sub(bounds.created_ms) <= self.times.young_stream().as_millis() as u64;
        match known.filter(|since| since.created_ms == bounds.created_ms) {
            Some(since) if since.ms == 0 || !young => return since,
            _ => {}
        }
        let found = if self.follows { Ok(None) } else { Beginning::load(&self.buckets).await };
        let first = found.is_ok_and(|found| found.is_some_and(|b| b.is_of(self.p, bounds.created_ms)));
        Since { created_ms: bounds.created_ms, ms: if first { 0 } else { bounds.created_ms } }
    }

    /// How old the first entry is that the archive does not have. None: not known.
    pub async fn archive_lag(self, first: MsgId, last: MsgId, now_ms: u64) -> Option<u64> {
        let position = self.archive.load(self.p).await.ok()?.map(|p| p.id);
        let archived = position.or(self.follows.then(|| MsgId(first.0.saturating_sub(1))))?;
        if archived >= last {
            return Some(0);
        }
        // The next id may have aged out of the log, or be none of ours: then it is not known how long that took.
        let next = self.tail.get(self.p, archived.next()).await.ok()??;
        Some(now_ms.saturating_sub(next.ts))
    }
}
