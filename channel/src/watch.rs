//! Beside step 4: what a partition asks the log and `control` about once a second. Out: the log's clock and bounds for beats,
//! and how far the archive is behind.

use std::time::Duration;

use natterjack_nats::{Buckets, LogBounds, Positions, Tail};
use natterjack_protocol::MsgId;
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

#[derive(Clone)]
pub struct Watch {
    tail: Tail,
    archive: Positions,
    p: u32,
    timeout: Duration,
    /// There was a generation before: the archive may not have come to this one yet.
    follows: bool,
}

impl Watch {
    pub fn new(tail: Tail, buckets: &Buckets, p: u32, timeout: Duration, follows: bool) -> Self {
        Self { tail, archive: Positions::new(buckets, "persister"), p, timeout, follows }
    }

    /// None: the log does not answer; then no beat goes out, and the edges see for themselves.
    pub async fn bounds(self) -> Option<(LogBounds, Instant)> {
        let bounds = tokio::time::timeout(self.timeout, self.tail.bounds(self.p)).await;
        match bounds {
            Ok(Ok(b)) => Some((b, Instant::now())),
            Ok(Err(e)) => {
                tracing::debug!(partition = self.p, error = %e, "no bounds of the log");
                None
            }
            Err(_) => None,
        }
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
