//! What would be said again and again is said once a minute, with how often it happened meanwhile.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<Instant>,
    since: u64,
}

impl Seldom {
    /// It happened. Some: to be said now, as so many, this one included, since it was said last.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        if self.said.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_minute_with_how_often() {
        let (mut seldom, now) = (Seldom::default(), Instant::now());
        let at = |s| now + Duration::from_secs(s);
        assert_eq!(seldom.due(now), Some(1));
        for s in 0..59 {
            assert_eq!(seldom.due(at(s)), None);
        }
        assert_eq!(seldom.due(at(60)), Some(60));
        assert_eq!(seldom.due(at(61)), None);
        assert_eq!(seldom.due(at(200)), Some(2));
    }
}
