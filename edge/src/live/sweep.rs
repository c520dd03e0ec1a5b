//! Step 5, the sweep: whose heads are compared when, and which threads may be forgotten. Pure but for its jitter.
//!
//! Whoever lost an event and its head may never have heard of the thread, so a sweep goes through all threads of
//! everybody here, a few users per tick: 18,000 users with 50 threads are seven requests in each.

use std::{collections::VecDeque, time::Duration};

use natterjack_protocol::{MsgId, UserId};
use rand::Rng;
use tokio::time::Instant;

pub struct Sweep {
    every: Duration,
    tick: Duration,
    next: Instant,
    /// Users whose threads this sweep has not looked at yet, and how many are looked at per tick.
    left: Vec<UserId>,
    per_tick: usize,
}

impl Sweep {
    pub fn new(every: Duration, tick: Duration) -> Self {
        Self { every, tick, next: Instant::now() + every, left: Vec::new(), per_tick: 1 }
    }

    /// Begins the next sweep if it is due. What is left of the one before is dropped.
    pub fn begin(&mut self, now: Instant, users: impl FnOnce() -> Vec<UserId>) -> bool {
        if now < self.next {
            return false;
        }
        // Jittered by a quarter, so that edges that started together do not ask together.
        self.next = now + self.every.mul_f64(rand::rng().random_range(0.75..1.25));
        self.left = users();
        // In the same order each time, so that nobody waits for nearly two sweeps.
        self.left.sort_unstable();
        let ticks = self.every.mul_f64(0.75).div_duration_f64(self.tick).max(1.0);
        self.per_tick = ((self.left.len() as f64 / ticks).ceil() as usize).max(1);
        true
    }

    /// The users of this tick.
    pub fn take(&mut self) -> Vec<UserId> {
        self.left.split_off(self.left.len().saturating_sub(self.per_tick))
    }
}

/// How often the frontiers are remembered.
const SNAPSHOT: Duration = Duration::from_secs(30);

/// The frontiers of the partitions over the last minutes: what lies below those of long ago needs no chain any more.
pub struct FrontierSnapshots {
    /// How old frontiers must be: the horizon of `channel` and a sweep.
    age: Duration,
    snapshots: VecDeque<(Instant, Vec<MsgId>)>,
}

impl FrontierSnapshots {
    pub fn new(age: Duration) -> Self {
        Self { age, snapshots: VecDeque::new() }
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.snapshots.back().is_none_or(|(at, _)| now.duration_since(*at) >= SNAPSHOT)
    }

    /// Remembers these; returns the newest that are old enough.
    pub fn add(&mut self, now: Instant, frontiers: Vec<MsgId>) -> Option<&[MsgId]> {
        self.snapshots.push_back((now, frontiers));
        let old = |(at, _): &(Instant, Vec<MsgId>)| now.duration_since(*at) >= self.age;
        while self.snapshots.get(1).is_some_and(old) {
            self.snapshots.pop_front();
        }
        self.snapshots.front().filter(|s| old(s)).map(|(_, frontiers)| frontiers.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn everybody_is_looked_at_once_per_sweep() {
        let mut sweep = Sweep::new(Duration::from_secs(4), Duration::from_secs(1));
        let users = || (0..7).map(|n| UserId::parse(&format!("u{n}")).unwrap()).collect::<Vec<_>>();
        let now = Instant::now();
        assert!(!sweep.begin(now, users) && sweep.take().is_empty());
        assert!(sweep.begin(now + Duration::from_secs(4), users));
        assert!(!sweep.begin(now + Duration::from_secs(4), users), "jittered, but not to nothing");
        // In three ticks, before the earliest next one.
        let mut seen: Vec<_> = (0..3).flat_map(|_| sweep.take()).collect();
        seen.sort_unstable();
        assert_eq!(seen, users());
        assert!(sweep.take().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn frontiers_are_given_out_when_they_are_old_enough() {
        let (age, start) = (Duration::from_secs(90), Instant::now());
        let mut snapshots = FrontierSnapshots::new(age);
        let mut given = Vec::new();
        for n in 0..6u64 {
            let now = start + SNAPSHOT * n as u32;
            assert!(snapshots.is_due(now));
            given.push(snapshots.add(now, vec![MsgId(n)]).map(|f| f[0].0));
            assert!(!snapshots.is_due(now));
        }
        assert_eq!(given, [None, None, None, Some(0), Some(1), Some(2)]);
    }
}
