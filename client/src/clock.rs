//! The server's time as learnt from `welcome`, `pong` and each answer over HTTP (step 1): cids are minted and tokens
//! renewed in it, never in the device's own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// By the clock that wakes us.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Clones are one clock.
#[derive(Debug, Default, Clone)]
pub(crate) struct ServerClock {
    learnt: Arc<Mutex<Option<(u64, Instant)>>>,
}

impl ServerClock {
    /// `now_ms` was the server's time a moment before `at`. The way here makes the estimate late, never early:
    /// a cid from it cannot be ahead.
    pub fn learn(&self, now_ms: u64, at: Instant) {
        *self.learnt.lock().unwrap_or_else(PoisonError::into_inner) = Some((now_ms, at));
    }

    /// None before the first answer. Late by as long as the device slept since.
    pub fn now_ms(&self, at: Instant) -> Option<u64> {
        let learnt = *self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        learnt.map(|(ms, since)| ms + u64::try_from(at.saturating_duration_since(since).as_millis()).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn clones_learn_together() {
        let (clock, at) = (ServerClock::default(), Instant::now());
        assert_eq!(clock.now_ms(at), None);
        clock.clone().learn(1_000, at);
        assert_eq!(clock.now_ms(at + Duration::from_millis(5)), Some(1_005));
        assert_eq!(clock.now_ms(at - Duration::from_millis(5)), Some(1_000));
    }
}
