//! The log's time and signs of life, from the beats of `channel`. An edge never judges an age by its own clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use natterjack_nats::ServerTime;
use natterjack_protocol::{MsgId, Times, internal::live::Beat};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

#[derive(Clone, Copy)]
struct Partition {
    beat: Beat,
    at: Instant,
}

impl Partition {
    fn now_ms(&self) -> u64 {
        self.beat.ts + self.at.elapsed().as_millis() as u64
    }
}

struct Inner {
    partitions: Mutex<Vec<Option<Partition>>>,
    /// Of each partition the newest id that came here.
    newest: Box<[AtomicU64]>,
    silence: Duration,
    slack: Duration,
    alive: watch::Sender<bool>,
    /// How often a partition's clock was set back.
    set_back: watch::Sender<u64>,
    time: ServerTime,
}

/// One entry per partition. Clones share it.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

impl Clock {
    pub fn new(partitions: u32, times: &Times, time: ServerTime) -> Self {
        Self(Arc::new(Inner {
            partitions: Mutex::new(vec![None; partitions as usize]),
            newest: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            silence: times.beat_silence,
            slack: times.clock_slack,
            alive: watch::Sender::new(false),
            set_back: watch::Sender::new(0),
            time,
        }))
    }

    /// Takes a beat. True: the partition had been silent (or never heard of), so its heads have to be compared.
    pub fn beat(&self, beat: Beat) -> bool {
        let mut all = self.0.partitions.lock();
        let Some(slot) = all.get_mut(beat.p as usize) else { return false };
        // A paused holder of the lease may beat beside its successor: its clock is as good, its frontier may be behind.
        let frontier = slot.map_or(MsgId::NONE, |p| p.beat.frontier).max(beat.frontier);
        let gap = slot.is_none_or(|p| p.at.elapsed() > self.0.silence);
        if slot.is_some_and(|p| beat.ts + (self.0.slack.as_millis() as u64) < p.now_ms()) {
            self.0.set_back.send_modify(|n| *n += 1);
        }
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
        self.partition(p).map(|p| p.now_ms())
    }

    /// The earliest of all partitions, so that a cid that is made in it is ahead of none; the server's time before the
    /// first beat. For showing, never for judging.
    pub fn any_now_ms(&self) -> u64 {
        let known = self.0.partitions.lock().iter().flatten().map(Partition::now_ms).min();
        known.unwrap_or_else(|| self.0.time.now_ms())
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

    /// An event with this id came here, or somebody who knows has vouched for it.
    pub fn saw(&self, p: u32, id: MsgId) {
        if let Some(newest) = self.0.newest.get(p as usize)
            && newest.load(Relaxed) < id.0
        {
            newest.fetch_max(id.0, Relaxed);
        }
    }

    /// The newest id that is known here to be given. None: nothing was heard of the partition yet.
    pub fn newest(&self, p: u32) -> Option<MsgId> {
        let saw = self.0.newest.get(p as usize).map(|newest| MsgId(newest.load(Relaxed))).filter(|id| !id.is_none());
        saw.max(self.frontier(p))
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

    /// Returns when the clock of the log is set back. While it was ahead the streams forgot what they had stored, so
    /// nothing that was decided before may be published after it. Cancel-safe: what has been set back before the first
    /// poll is not seen.
    pub async fn is_set_back(&self) {
        let mut set_back = self.0.set_back.subscribe();
        // The sender lives as long as we do.
        let _ = set_back.changed().await;
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
        let clock = Clock::new(2, &times, ServerTime::fixed(1_900_000_000_000));
        assert!(clock.any_now_ms() >= 1_900_000_000_000);
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
        clock.saw(0, MsgId(12));
        clock.saw(0, MsgId(11));
        clock.saw(7, MsgId(11));
        assert_eq!((clock.newest(0), clock.newest(1)), (Some(MsgId(12)), Some(MsgId(5))), "ahead of the beats");
        tokio::time::sleep(Duration::from_millis(50)).await;
        clock.look();
        assert!(!*clock.watch().borrow());
        assert!(clock.silent(0).flatten().is_some_and(|silence| silence >= Duration::from_millis(50)));
        assert!(clock.now_ms(0).unwrap() >= 1_800_000_000_050);
        assert!(clock.beat(beat(0, 9)), "silence was noticed");
        assert!(!clock.beat(Beat { p: 9, ..beat(0, 1) }), "a partition of another layout");
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_is_noticed_and_the_earliest_is_shown() {
        let clock = Clock::new(2, &Times::default(), ServerTime::fixed(1_900_000_000_000));
        assert!(clock.any_now_ms() >= 1_900_000_000_000, "before the first beat");
        let beat = |p, ts| Beat { generation: 1, p, ts, dedupe_since: 1, frontier: MsgId(9), archive_lag_ms: None };
        let now = 1_800_000_000_000;
        let noticed = async |after: &[u64]| {
            let (set_back, beats) = (clock.is_set_back(), clock.clone());
            let beating = async {
                for ts in after {
                    tokio::task::yield_now().await;
                    beats.beat(beat(0, *ts));
                }
                tokio::task::yield_now().await;
            };
            tokio::select! {
                biased;
                () = set_back => true,
                () = beating => false,
            }
        };
        assert!(!noticed(&[now, now + 7_200_000, now + 7_199_000]).await, "ahead, and within the slack");
        assert!(noticed(&[now]).await && noticed(&[now + 3_600_000, now + 3_590_000]).await);
        clock.beat(beat(1, now - 60_000));
        assert!(clock.any_now_ms() < now, "the earliest of two leaders");
    }
}
