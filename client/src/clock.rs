//! The server's time as learnt from `welcome` and `pong` (step 1): cids are minted in it, never in the device's own.

use std::time::Instant;

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ServerClock {
    learnt: Option<(u64, Instant)>,
}

impl ServerClock {
    /// `now_ms` was the server's time a moment before `at`. The way here makes the estimate late, never early:
    /// a cid from it cannot be ahead.
    pub fn learn(&mut self, now_ms: u64, at: Instant) {
        self.learnt = Some((now_ms, at));
    }

    /// None before the first welcome.
    pub fn now_ms(&self, at: Instant) -> Option<u64> {
        self.learnt.map(|(ms, since)| ms + u64::try_from(at.saturating_duration_since(since).as_millis()).unwrap_or(0))
    }
}
