//! Step 2, first question: does this session send more than it may? A token bucket, pure: time is an argument.

use std::time::Instant;

use natterjack_protocol::limits;

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameVerdict {
    Take,
    /// Refuse it; the bucket has room again after this many milliseconds.
    Refuse {
        retry_after_ms: u64,
    },
    /// It goes on after a whole bucket of refusals: close.
    Flood,
}

#[derive(Debug)]
pub struct FrameRate {
    burst: f64,
    per_second: f64,
    tokens: f64,
    at: Instant,
    refused: u32,
}

impl FrameRate {
    /// Of one session: `limits::FRAMES_BURST`, refilled with `limits::FRAMES_PER_SECOND`.
    pub fn of_session(now: Instant) -> Self {
        Self::new(limits::FRAMES_BURST, limits::FRAMES_PER_SECOND, now)
    }

    pub fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        let (burst, per_second) = (f64::from(burst), f64::from(per_second));
        Self { burst, per_second, tokens: burst, at: now, refused: 0 }
    }

    pub fn frame(&mut self, now: Instant) -> FrameVerdict {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            // Half a bucket saved up again: whoever sent too fast has stopped.
            if self.tokens >= self.burst / 2.0 {
                self.refused = 0;
            }
            return FrameVerdict::Take;
        }
        self.refused += 1;
        if f64::from(self.refused) > self.burst {
            FrameVerdict::Flood
        } else {
            FrameVerdict::Refuse { retry_after_ms: ((self.burst / 4.0 / self.per_second) * 1_000.0).ceil() as u64 }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_the_rate_then_refusals_then_the_end() {
        let start = Instant::now();
        let mut b = FrameRate::new(10, 100, start);
        assert!((0..10).all(|_| b.frame(start) == FrameVerdict::Take));
        assert!(matches!(b.frame(start), FrameVerdict::Refuse { retry_after_ms: 25 }));
        let later = start + Duration::from_millis(50);
        let taken = (0..10).filter(|_| b.frame(later) == FrameVerdict::Take).count();
        assert_eq!(taken, 5, "100 a second for 50 ms");
        let verdicts: Vec<FrameVerdict> = (0..10).map(|_| b.frame(later)).collect();
        assert_eq!(verdicts.last(), Some(&FrameVerdict::Flood));
    }

    #[test]
    fn whoever_slows_down_is_forgiven() {
        let start = Instant::now();
        let mut b = FrameRate::new(10, 100, start);
        (0..19).for_each(|_| {
            b.frame(start);
        });
        let mut now = start + Duration::from_secs(1);
        assert_eq!(b.frame(now), FrameVerdict::Take);
        assert_eq!(b.refused, 0);
        now += Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| b.frame(now) == FrameVerdict::Take).count(), 10, "never more than the burst");
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_does_no_harm() {
        let start = Instant::now();
        let mut b = FrameRate::new(2, 1, start + Duration::from_secs(5));
        assert_eq!(b.frame(start), FrameVerdict::Take);
        assert_eq!(b.frame(start), FrameVerdict::Take);
        assert!(matches!(b.frame(start), FrameVerdict::Refuse { .. }));
    }
}
