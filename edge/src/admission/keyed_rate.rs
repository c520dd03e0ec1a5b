//! Keyed rate limiter: how often a key may do something: a bucket per key, kept as one moment, the one at which the
//! bucket will be full again. A key whose moment has passed is as good as one never seen, so it need not be kept.
//! Pure: time is an argument.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Keys that are remembered: 65,536 × 100 to 250 B = 7 to 16 MB per meter at the very most. Overflow: the half that is
/// furthest from its limit is forgotten.
const KEYS: usize = 65_536;

pub struct KeyedRateLimiter<K> {
    /// For one; zero: no limit.
    interval: Duration,
    /// For as many as may come at once.
    burst: Duration,
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Hash + Eq> KeyedRateLimiter<K> {
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
                insert(&mut all, key.to_owned(), first, now);
            }
        }
        Ok(())
    }

    /// As if one had not been taken.
    pub fn give_back<Q>(&self, key: &Q, now: Instant)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut all = self.full_at.lock();
        let Some(full_at) = all.get_mut(key) else { return };
        match full_at.checked_sub(self.interval).filter(|before| *before > now) {
            Some(before) => *full_at = before,
            None => drop(all.remove(key)),
        }
    }

    /// What `old` has taken counts for `new` too, which stands in its place from now on.
    pub fn hand_on(&self, old: &K, new: K, now: Instant) {
        let mut all = self.full_at.lock();
        let Some(taken) = all.get(old).copied().filter(|full_at| *full_at > now) else { return };
        match all.get_mut(&new) {
            Some(full_at) => *full_at = taken.max(*full_at),
            None => insert(&mut all, new, taken, now),
        }
    }
}

fn insert<K: Hash + Eq>(all: &mut HashMap<K, Instant>, key: K, full_at: Instant, now: Instant) {
    if all.len() >= KEYS {
        make_room(all, now);
    }
    all.insert(key, full_at);
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
        let (meter, start) = (KeyedRateLimiter::<String>::new(10, SECOND, 5), Instant::now());
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
        let (meter, start) = (KeyedRateLimiter::<String>::new(60, SECOND * 60, 1), Instant::now() + SECOND);
        assert!(meter.take("a", start).is_ok());
        assert!((0..100).all(|_| meter.take("a", start).is_err()));
        assert!(meter.take("a", start - SECOND).is_err());
        assert!(meter.take("a", start + SECOND).is_ok());
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_never_more() {
        let (meter, start) = (KeyedRateLimiter::<String>::new(10, SECOND, 2), Instant::now());
        assert!(meter.take("a", start).is_ok() && meter.take("a", start).is_ok() && meter.take("a", start).is_err());
        meter.give_back("a", start);
        assert!(meter.take("a", start).is_ok() && meter.take("a", start).is_err());
        (0..5).for_each(|_| meter.give_back("a", start));
        meter.give_back("nobody", start);
        assert!(meter.full_at.lock().is_empty());
        assert_eq!((0..5).filter(|_| meter.take("a", start).is_ok()).count(), 2);
        meter.give_back("a", start + SECOND * 60);
        assert_eq!(
            (0..5).filter(|_| meter.take("a", start + SECOND * 60).is_ok()).count(),
            2,
            "what has come back by itself is not there twice"
        );
    }

    #[test]
    fn what_stands_in_anothers_place_has_taken_what_it_took() {
        let (meter, start) = (KeyedRateLimiter::<u8>::new(3, SECOND * 60, 3), Instant::now());
        let mut taken = 0;
        for key in 0..10 {
            taken += usize::from(meter.take(&key, start).is_ok());
            meter.hand_on(&key, key + 1, start);
        }
        assert_eq!(taken, 3, "all of them are one");
        meter.hand_on(&10, 9, start);
        assert!(meter.take(&9, start).is_err() && meter.take(&99, start).is_ok());
        meter.hand_on(&98, 99, start);
        assert_eq!((0..5).filter(|_| meter.take(&99, start).is_ok()).count(), 2, "nothing was taken for that one");
    }

    #[test]
    fn no_more_keys_than_there_is_room_for() {
        let (meter, start) = (KeyedRateLimiter::<u32>::new(1, SECOND * 3600, 2), Instant::now());
        for key in 0..KEYS as u32 * 2 {
            assert!(meter.take(&key, start).is_ok());
        }
        assert!(meter.full_at.lock().len() <= KEYS);
    }

    #[test]
    fn zero_is_no_limit() {
        let meter = KeyedRateLimiter::<u32>::new(0, SECOND, 0);
        assert!((0..1_000).all(|_| meter.take(&1, Instant::now()).is_ok()));
        assert!(meter.full_at.lock().is_empty());
    }
}
