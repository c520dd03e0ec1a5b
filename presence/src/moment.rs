//! A moment by two clocks: what was written down is compared with the server's, what is waited for goes by the
//! monotonic one, so that a step of a clock makes nobody stay or leave.

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970, by the server.
    pub server: u64,
    /// Milliseconds since the start of this process.
    pub monotonic: u64,
}

impl Moment {
    /// When `wait` has passed since `ms` of the server's time, by the monotonic clock: not before now, and not later
    /// than `wait` from now, whatever the clock said then.
    pub fn due(&self, ms: u64, wait: Duration) -> u64 {
        let wait = wait.as_millis() as u64;
        self.monotonic + ms.saturating_add(wait).saturating_sub(self.server).min(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_bounded_whatever_the_clocks_say() {
        let now = Moment { server: 1_000_000, monotonic: 500 };
        let wait = Duration::from_secs(10);
        assert_eq!(now.due(1_000_000, wait), 10_500);
        assert_eq!(now.due(996_000, wait), 6_500);
        assert_eq!(now.due(400_000, wait), 500, "10 minutes ago");
        assert_eq!(now.due(1_600_000, wait), 10_500, "in 10 minutes");
    }
}
