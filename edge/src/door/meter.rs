//! How often a key may do something: a bucket per key, kept as one moment, the one at which the bucket will be full again. A key whose
//! moment has passed is as good as one never seen, so it need not be kept. Pure: time is an argument.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Keys that are remembered: 65,536 × about 100 B = 7 MB per meter at the very most. Overflow: the least guilty half is forgiven.
const KEYS: usize = 65_536;

pub struct Meter<K> {
    /// For one; zero: no limit.
    interval: Duration,
    /// For as many as may come at once.
    burst: Duration,
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Hash + Eq> Meter<K> {
    /// `n` in each `per`, `at_once` of them without a pause. 0: no limit.
    pub fn new(n: u32, per: Duration, at_once: u32) -> Self {
        let interval = per.checked_div(n).unwrap_or_default();
        Self { interval, burst: interval * at_once.max(1), full_at: Mutex::default() }
    }

    /// An error: how long to wait.
    pub fn take<Q>(&self, key: &Q, now: Instant) -> Result<(), Duration>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if self.interval.is_zero() {
            return Ok(());
        }
        let mut all = self.full_at.lock();
        let after = |full_at: Instant| {
            let then = full_at.max(now) + self.interval;
            let over = then.saturating_duration_since(now).saturating_sub(self.burst);
            if over.is_zero() { Ok(then) } else { Err(over) }
        };
        match all.get_mut(key) {
            Some(full_at) => *full_at = after(*full_at)?,
            None => {
                let first = after(now)?;
                if all.len() >= KEYS {
                    make_room(&mut all, now);
                }
                all.insert(key.to_owned(), first);
            }
        }
        Ok(())
    }
}

fn make_room<K: Hash + Eq>(all: &mut HashMap<K, Instant>, now: Instant) {
    all.retain(|_, full_at| *full_at > now);
    if all.len() >= KEYS {
        let mut moments: Vec<Instant> = all.values().copied().collect();
        let (_, middle, _) = moments.select_nth_unstable(KEYS / 2);
        let middle = *middle;
        all.retain(|_, full_at| *full_at > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_then_the_rate_and_the_wait_is_exact() {
        let (meter, start) = (Meter::<String>::new(10, SECOND, 5), Instant::now());
        assert!((0..5).all(|_| meter.take("a", start).is_ok()));
        let wait = meter.take("a", start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(meter.take("a", start + wait - Duration::from_millis(1)).is_err(), "not a moment before");
        assert!(meter.take("a", start + wait).is_ok());
        assert!(meter.take("b", start).is_ok(), "each key has its own");
        let later = start + SECOND * 3600;
        assert_eq!((0..20).filter(|_| meter.take("a", later).is_ok()).count(), 5, "never more than the burst");
    }

    #[test]
    fn a_refusal_costs_nothing_and_a_clock_that_goes_back_does_no_harm() {
        let (meter, start) = (Meter::<String>::new(60, SECOND * 60, 1), Instant::now() + SECOND);
        assert!(meter.take("a", start).is_ok());
        assert!((0..100).all(|_| meter.take("a", start).is_err()));
        assert!(meter.take("a", start - SECOND).is_err());
        assert!(meter.take("a", start + SECOND).is_ok());
    }

    #[test]
    fn no_more_keys_than_there_is_room_for() {
        let (meter, start) = (Meter::<u32>::new(1, SECOND * 3600, 2), Instant::now());
        for key in 0..KEYS as u32 * 2 {
            assert!(meter.take(&key, start).is_ok());
        }
        assert!(meter.full_at.lock().len() <= KEYS);
    }

    #[test]
    fn zero_is_no_limit() {
        let meter = Meter::<u32>::new(0, SECOND, 0);
        assert!((0..1_000).all(|_| meter.take(&1, Instant::now()).is_ok()));
        assert!(meter.full_at.lock().is_empty());
    }
}
