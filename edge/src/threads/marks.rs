//! How far a list of threads is in sync: what a client brings along to ask for what has changed since.

use std::{sync::Arc, time::Duration};

use natterjack_nats::Layout;
use natterjack_protocol::MsgId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{attach::plan::SyncedMark, clock::Clock};

/// The newest ids of threads are read by Direct Get, which may be a moment behind what was published: a list is in sync
/// as far as the log was this long ago.
const BEHIND: Duration = Duration::from_secs(5);

/// Clones share it.
#[derive(Clone)]
pub struct ListMarks {
    clock: Clock,
    layout: Layout,
    /// The frontiers of partitions at two times: the older ones are old enough as soon as the newer ones are.
    past: Arc<Mutex<Past>>,
}

#[derive(Default)]
struct Past {
    old: Vec<MsgId>,
    newer: Option<(Instant, Vec<MsgId>)>,
}

impl Past {
    /// Those of at least [`BEHIND`] ago; none known yet: everything counts as changed next time.
    fn at(&mut self, now: Instant, frontiers: impl Fn() -> Vec<MsgId>) -> Vec<MsgId> {
        match &mut self.newer {
            Some((at, newer)) if now.duration_since(*at) >= BEHIND => {
                self.old = std::mem::replace(newer, frontiers());
                *at = now;
            }
            Some(_) => {}
            None => self.newer = Some((now, frontiers())),
        }
        self.old.clone()
    }
}

impl ListMarks {
    pub fn new(clock: &Clock, layout: Layout) -> Self {
        Self { clock: clock.clone(), layout, past: Arc::default() }
    }

    /// For a list that is read from now on. `now_s`: seconds since 1970, from which on what was read and set is told.
    pub fn mark(&self, now_s: u64) -> String {
        let partitions = 0..self.layout.partitions;
        let frontiers = || partitions.clone().map(|p| self.clock.frontier(p).unwrap_or_default()).collect();
        let mut old = self.past.lock().at(Instant::now(), frontiers);
        old.resize(self.layout.partitions as usize, MsgId::NONE);
        SyncedMark { at_s: now_s, frontiers: old }.encode(self.layout.generation)
    }

    /// None: it says nothing here, so everything has changed.
    pub fn parse(&self, mark: &str) -> Option<SyncedMark> {
        SyncedMark::parse(mark, self.layout.generation, self.layout.partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_mark_is_of_a_moment_ago() {
        let (mut past, begun) = (Past::default(), Instant::now());
        let at = |id| move || vec![MsgId(id)];
        assert!(past.at(begun, at(1)).is_empty(), "nothing is known of the past yet");
        assert!(past.at(begun + BEHIND / 2, at(2)).is_empty());
        assert_eq!(past.at(begun + BEHIND, at(3)), [MsgId(1)]);
        assert_eq!(past.at(begun + BEHIND * 3 / 2, at(4)), [MsgId(1)]);
        assert_eq!(past.at(begun + BEHIND * 9, at(5)), [MsgId(3)], "nobody asked for long: older is right, too");
    }
}
