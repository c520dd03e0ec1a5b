//! Beside step 4: what a partition asks the log and `control` about once a second. Out: the log's clock and bounds for beats,
//! and how far the archive is behind.

use std::time::Duration;

use natterjack_nats::{Beginning, Buckets, ClockMarks, KvError, LogBounds, Positions, Tail};
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

/// Up to when a stream may not know what was stored.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    created_ms: u64,
    /// Something may have been stored before it was made.
    follows: bool,
    /// Where the log's clock was, of which it was set back or which was another's.
    set_back: u64,
}

impl Since {
    /// 0: it knows everything.
    pub fn ms(&self) -> u64 {
        if self.follows { self.set_back.max(self.created_ms) } else { self.set_back }
    }
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
    clocks: ClockMarks,
    p: u32,
    timeout: Duration,
    buckets: Buckets,
    times: Times,
    /// There was a generation before: the archive may not have come to this one yet.
    follows: bool,
}

impl Watch {
    pub fn new(tail: Tail, buckets: &Buckets, p: u32, times: &Times, follows: bool) -> Self {
        let (archive, clocks, buckets) = (Positions::new(buckets, "persister"), ClockMarks::new(buckets), buckets.clone());
        Self { tail, archive, clocks, p, timeout: times.beat_silence, buckets, times: times.clone(), follows }
    }

    /// None: the log does not answer; then no beat goes out, and the edges see for themselves.
    /// `set_back`: where the log's clock stood when it was set back.
    pub async fn bounds(self, known: Option<Since>, set_back: u64) -> Option<Seen> {
        let bounds = tokio::time::timeout(self.timeout, self.tail.bounds(self.p)).await;
        match bounds {
            Ok(Ok(bounds)) => {
                let at = Instant::now();
                match self.dedupe_since(&bounds, known, set_back).await {
                    Ok(since) => Some(Seen { bounds, at, since }),
                    Err(e) => {
                        tracing::debug!(partition = self.p, error = %e, "not known how far the log's clock has been");
                        None
                    }
                }
            }
            Ok(Err(e)) => {
                tracing::debug!(partition = self.p, error = %e, "no bounds of the log");
                None
            }
            Err(_) => None,
        }
    }

    async fn dedupe_since(&self, bounds: &LogBounds, known: Option<Since>, set_back: u64) -> Result<Since, KvError> {
        let known = known.filter(|since| since.created_ms == bounds.created_ms);
        let mut noted = match known {
            Some(since) => since.set_back,
            None => self.clocks.of(self.p).await?,
        };
        // For whoever beats after us.
        if set_back > noted {
            self.clocks.note(self.p, set_back).await?;
            noted = set_back;
        }
        // As long as it makes a difference, the persister may still say that nothing was stored before this stream.
        let young = bounds.ts_ms.saturating_sub(bounds.created_ms) <= self.times.young_stream().as_millis() as u64;
        let follows = match known {
            Some(since) if !since.follows || !young => since.follows,
            _ if self.follows => true,
            _ => !Beginning::load(&self.buckets).await.is_ok_and(|found| found.is_some_and(|b| b.is_of(self.p, bounds.created_ms))),
        };
        Ok(Since { created_ms: bounds.created_ms, follows, set_back: noted })
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
