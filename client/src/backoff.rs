//! When to connect again (pure): full jitter, so that ten thousand clients of a dead edge do not come back as one wave.

use std::time::Duration;

use natterjack_protocol::client::close::Back;

const FIRST: Duration = Duration::from_millis(500);
const MAX: Duration = Duration::from_secs(30);
/// After "come back now": enough to spread a drained edge's clients, too short for people to notice.
const NOW: Duration = Duration::from_millis(250);
/// A connection that lived this long was a good one: start from the beginning.
const STABLE: Duration = Duration::from_secs(60);

/// min(30 s, 0.5 s × 2ⁿ) × `random`, which lies in 0..1.
pub(crate) fn full_jitter(n: u32, random: f64) -> Duration {
    FIRST.saturating_mul(1 << n.min(16)).min(MAX).mul_f64(random.clamp(0.0, 1.0))
}

/// No wait that a server, a proxy or a damaged clock tells is longer: whoever waits for ever is lost.
const TOLD_MAX: Duration = Duration::from_secs(3_600);

pub(crate) fn capped(ms: u64) -> Duration {
    Duration::from_millis(ms).min(TOLD_MAX)
}

/// Told to wait `ms`: never earlier, and spread behind it, for many were told the same.
pub(crate) fn told(ms: u64, n: u32, random: f64) -> Duration {
    let told = capped(ms);
    told + full_jitter(n, random).max((told / 4).mul_f64(random.clamp(0.0, 1.0)))
}

/// After the device woke up or its network changed: those of a whole building do that together.
pub(crate) fn woken(random: f64) -> Duration {
    NOW.mul_f64(random.clamp(0.0, 1.0))
}

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A connection was lost, or could not be made (`lived` zero): how long to wait. `edges` is how many there are to
    /// try: the wait grows once per round through them, for one dead edge says nothing about the next. None: do not
    /// come back.
    pub fn lost(&mut self, back: Back, lived: Duration, edges: usize, random: f64) -> Option<Duration> {
        if lived >= STABLE {
            self.failures = 0;
        }
        let n = self.failures / u32::try_from(edges.max(1)).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        match back {
            Back::Never => None,
            // Told to come at once by everybody in turn: something is wrong, so even that backs off.
            Back::Now if n == 0 => Some(NOW.mul_f64(random.clamp(0.0, 1.0))),
            // A bye of our own is nobody's loss, so this one was not ours.
            Back::Now | Back::Backoff | Back::AfterLogin | Back::AfterBye => Some(full_jitter(n, random)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn grows_to_its_limit_and_starts_again_after_a_stable_minute() {
        let mut b = Backoff::default();
        let mut waits = |lived| b.lost(Back::Backoff, lived, 1, 1.0).unwrap().as_millis();
        let zero = Duration::ZERO;
        assert_eq!([waits(zero), waits(zero), waits(zero)], [500, 1_000, 2_000]);
        for _ in 0..100 {
            assert!(waits(zero) <= 30_000);
        }
        assert_eq!(waits(zero), 30_000);
        assert_eq!(waits(Duration::from_secs(59)), 30_000);
        assert_eq!(waits(STABLE), 500);
        assert_eq!(b.lost(Back::Never, zero, 1, 1.0), None);
    }

    #[test]
    fn other_edges_are_tried_before_the_wait_grows() {
        let mut b = Backoff::default();
        let waits: Vec<u128> =
            (0..5).map(|_| b.lost(Back::Backoff, Duration::ZERO, 2, 1.0).unwrap().as_millis()).collect();
        assert_eq!(waits, [500, 500, 1_000, 1_000, 2_000]);
    }

    /// An edge with 10,000 clients dies and the one that is left admits 500 a second: nobody is refused more often than
    /// a few times, no 100 ms see more than a fraction of the crowd, and the last is in long before a minute is over.
    #[test]
    fn ten_thousand_clients_do_not_stampede() {
        const CLIENTS: usize = 10_000;
        const ADMITTED_PER_SLICE: usize = 50;
        let mut rng = StdRng::seed_from_u64(7);
        let mut clients: Vec<(Backoff, u128)> = (0..CLIENTS)
            .map(|_| {
                let mut b = Backoff::default();
                let at = b.lost(Back::Backoff, STABLE, 2, rng.random()).unwrap().as_millis();
                (b, at)
            })
            .collect();
        let (mut busiest_later, mut slice, mut attempts) = (0, 0u128, 0usize);
        while !clients.is_empty() {
            let (mut due, rest): (Vec<_>, Vec<_>) = clients.into_iter().partition(|(_, at)| *at < (slice + 1) * 100);
            attempts += due.len();
            if slice >= 20 {
                busiest_later = busiest_later.max(due.len());
            }
            clients = rest;
            let refused = due.split_off(due.len().min(ADMITTED_PER_SLICE));
            clients.extend(refused.into_iter().map(|(mut b, at)| {
                let wait = b.lost(Back::Backoff, Duration::ZERO, 2, rng.random()).unwrap().as_millis();
                (b, at.max(slice * 100) + wait.max(1))
            }));
            slice += 1;
            assert!(slice < 900, "not all in after 90 s");
        }
        assert!(busiest_later < CLIENTS / 10, "{busiest_later} in one slice");
        assert!(attempts < CLIENTS * 12, "{attempts} attempts");
    }
}
