//! How far this edge is on its way out, for its connections to see; and whether anybody still comes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use natterjack_protocol::Refusal;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::http::refused::Refused;

/// Who was connected by the kernel in the last moment has this long to say what they want.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// Clones share it.
#[derive(Clone)]
pub struct ShutdownPhases {
    /// No answer promises a further one on its connection.
    pub draining: CancellationToken,
    /// No connections are taken any more, and those that say nothing are let go.
    pub closing: CancellationToken,
    /// What is not done by now is answered all the same.
    pub hurry: CancellationToken,
    begun: Instant,
    /// Of the last request, in milliseconds from `begun`.
    last: Arc<AtomicU64>,
}

impl ShutdownPhases {
    /// At `end` all of it is so.
    pub fn new(end: &CancellationToken) -> Self {
        let (draining, closing, hurry) = (end.child_token(), end.child_token(), end.child_token());
        Self { draining, closing, hurry, begun: Instant::now(), last: Arc::default() }
    }

    /// Somebody wants something. Health checks want nothing.
    pub fn asked(&self) {
        self.last.store(self.begun.elapsed().as_millis() as u64, Relaxed);
    }

    /// Returns when nobody has asked for this long.
    pub async fn quiet(&self, long: Duration) {
        loop {
            let since = self.begun.elapsed().saturating_sub(Duration::from_millis(self.last.load(Relaxed)));
            match long.checked_sub(since) {
                Some(rest) if !rest.is_zero() => sleep(rest).await,
                _ => return,
            }
        }
    }

    /// Returns when the time for a first word is over.
    pub async fn last_word(&self) {
        self.closing.cancelled().await;
        sleep(FIRST_WORD).await;
    }
}

/// What everybody is told who asks an edge that leaves.
pub fn refused() -> Refused {
    Refusal::unavailable("this edge is leaving: connect to another, or ask again").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quiet_is_counted_from_the_last_request() {
        let leaving = ShutdownPhases::new(&CancellationToken::new());
        let long = Duration::from_millis(500);
        sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        leaving.quiet(long).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody has come at all");
        leaving.asked();
        let asks = async {
            sleep(Duration::from_millis(300)).await;
            leaving.asked();
        };
        tokio::join!(asks, leaving.quiet(long));
        assert_eq!(begun.elapsed(), Duration::from_millis(800));
    }
}
