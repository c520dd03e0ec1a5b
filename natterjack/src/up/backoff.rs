//! How long to wait before a child is started again. Pure.

use std::time::Duration;

/// The first restart comes at once, so that a killed edge is back before its clients give up on it.
const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(5);
/// A child that lived this long resets the pause.
const GOOD_LIFE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct RestartBackoff {
    failures: u32,
}

impl RestartBackoff {
    /// `lived`: from the start of the child to its end.
    pub fn after(&mut self, lived: Duration) -> Duration {
        if lived >= GOOD_LIFE {
            self.failures = 0;
        }
        let wait = FIRST.saturating_mul(1 << self.failures.min(10)).min(MOST);
        self.failures += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_bound_and_forgets_after_a_good_life() {
        let mut b = RestartBackoff::default();
        let short = Duration::from_millis(10);
        assert_eq!(b.after(short), FIRST);
        assert_eq!(b.after(short), FIRST * 2);
        for _ in 0..50 {
            b.after(short);
        }
        assert_eq!(b.after(short), MOST);
        assert_eq!(b.after(GOOD_LIFE), FIRST);
    }
}
