//! Step 6, a socket that does not take what was written: a slow line takes some of it from time to time, a reader that
//! is gone takes nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

/// How often it is looked after.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Stall {
    timer: Pin<Box<Sleep>>,
    /// How much it had taken, and since when no more.
    written: u64,
    since: Instant,
}

impl Stall {
    pub fn new(written: u64) -> Self {
        Self { timer: Box::pin(sleep(LOOK)), written, since: Instant::now() }
    }

    /// Ready when it is to be looked after again, with [`Stall::since`].
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll(cx)
    }

    /// How long it has taken nothing; is to be asked again in a moment.
    pub fn since(&mut self, written: u64) -> Duration {
        if self.written != written {
            (self.written, self.since) = (written, Instant::now());
        }
        self.timer.as_mut().reset(Instant::now() + LOOK);
        self.since.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_that_takes_some_bytes_is_slow_and_not_stalled() {
        let mut stall = Stall::new(10);
        for written in 11..100 {
            tokio::time::advance(Duration::from_secs(40)).await;
            assert_eq!(stall.since(written), Duration::ZERO, "a byte in 40 s");
        }
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(stall.since(99), Duration::from_secs(40));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(stall.since(99), Duration::from_secs(80), "not one more");
    }
}
