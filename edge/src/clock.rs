//! The log's time and signs of life, from the beats of `channel`. An edge never judges an age by its own clock.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use natterjack_protocol::{MsgId, Times, live::Beat};
use parking_lot::Mutex;
use tokio::sync::watch;

#[derive(Clone, Copy)]
struct Partition {
    beat: Beat,
    at: Instant,
}

struct Inner {
    partitions: Mutex<Vec<Option<Partition>>>,
    silence: Duration,
    alive: watch::Sender<bool>,
}

/// One entry per partition. Clones share it.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

impl Clock {
    pub fn new(partitions: u32, times: &Times) -> Self {
        Self(Arc::new(Inner {
            partitions: Mutex::new(vec![None; partitions as usize]),
            silence: times.beat_silence,
            alive: watch::Sender::new(false),
        }))
    }

    /// Takes a beat. True: the partition had been silent (or never heard of), so its heads have to be compared.
    pub fn beat(&self, beat: Beat) -> bool {
        let mut all = self.0.partitions.lock();
        let Some(slot) = all.get_mut(beat.p as usize) else { return false };
        // A paused holder of the lease may beat beside its successor: its clock is as good, its frontier may be behind.
        let frontier = slot.map_or(MsgId::NONE, |p| p.beat.frontier).max(beat.frontier);
        let gap = slot.is_none_or(|p| p.at.elapsed() > self.0.silence);
        *slot = Some(Partition { beat: Beat { frontier, ..beat }, at: Instant::now() });
        drop(all);
        self.look();
        gap
    }

    /// To be called a few times a second: notices silence.
    pub fn look(&self) {
        let alive = self.all_alive();
        self.0.alive.send_if_modified(|was| std::mem::replace(was, alive) != alive);
    }

    /// The log's clock, milliseconds since 1970: the last beat's, carried on by the local monotone clock.
    pub fn now_ms(&self, p: u32) -> Option<u64> {
        self.partition(p).map(|p| p.beat.ts + p.at.elapsed().as_millis() as u64)
    }

    /// Any partition's; the machine's own before the first beat. For showing, never for judging.
    pub fn any_now_ms(&self) -> u64 {
        let known = self.0.partitions.lock().iter().flatten().map(|p| p.beat.ts + p.at.elapsed().as_millis() as u64).max();
        known.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64))
    }

    /// See [`Beat::dedupe_since`].
    pub fn dedupe_since_ms(&self, p: u32) -> Option<u64> {
        self.partition(p).map(|p| p.beat.dedupe_since)
    }

    pub fn archive_lag_ms(&self, p: u32) -> Option<u64> {
        self.partition(p).and_then(|p| p.beat.archive_lag_ms)
    }

    pub fn frontier(&self, p: u32) -> Option<MsgId> {
        self.partition(p).map(|p| p.beat.frontier)
    }

    pub fn alive(&self, p: u32) -> bool {
        self.partition(p).is_some_and(|p| p.at.elapsed() <= self.0.silence)
    }

    /// None: it beats. Otherwise for how long it has been silent, if it was ever heard.
    pub fn silent(&self, p: u32) -> Option<Option<Duration>> {
        match self.partition(p) {
            Some(_) if self.alive(p) => None,
            heard => Some(heard.map(|p| p.at.elapsed())),
        }
    }

    pub fn all_alive(&self) -> bool {
        self.0.partitions.lock().iter().all(|p| p.is_some_and(|p| p.at.elapsed() <= self.0.silence))
    }

    /// Changes of `all_alive`.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.alive.subscribe()
    }

    fn partition(&self, p: u32) -> Option<Partition> {
        self.0.partitions.lock().get(p as usize).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn alive_only_when_every_partition_beats() {
        let times = Times { beat_silence: Duration::from_millis(30), ..Times::default() };
        let clock = Clock::new(2, &times);
        let beat = |p, frontier| Beat {
            generation: 1,
            p,
            ts: 1_800_000_000_000,
            dedupe_since: 1,
            frontier: MsgId(frontier),
            archive_lag_ms: None,
        };
        assert!(clock.beat(beat(0, 9)), "the first beat ends a silence");
        assert!(!clock.all_alive());
        assert_eq!((clock.silent(0), clock.silent(1)), (None, Some(None)));
        clock.beat(beat(1, 5));
        assert!(clock.all_alive() && *clock.watch().borrow());
        assert!(!clock.beat(beat(0, 7)));
        assert_eq!(clock.frontier(0), Some(MsgId(9)), "a frontier never goes back");
        tokio::time::sleep(Duration::from_millis(50)).await;
        clock.look();
        assert!(!*clock.watch().borrow());
        assert!(clock.silent(0).flatten().is_some_and(|silence| silence >= Duration::from_millis(50)));
        assert!(clock.now_ms(0).unwrap() >= 1_800_000_000_050);
        assert!(clock.beat(beat(0, 9)), "silence was noticed");
        assert!(!clock.beat(Beat { p: 9, ..beat(0, 1) }), "a partition of another layout");
    }
}
