//! Step 4, the chain: which event came before this one in its thread? Entries come from the log reader in order; what
//! this answers goes into the event as `prev`, and into the answers to heads requests. Pure: the moment of reading is
//! an argument, by the monotonic clock and not by the log's: one that steps must not make a thread forgotten whose
//! event was a moment ago.

use std::collections::{HashMap, VecDeque};

use natterjack_protocol::MsgId;

/// What is read is marked this many times per horizon, so what is kept is at most an eighth older than it must be, and
/// a thread map of a million entries (a few milliseconds to walk) is swept every 15 s, not every second.
const MARKS: u64 = 8;

/// Thread (64-bit hash of its spelling) → its newest id. Evicted by age only, never by count: a map that forgot a busy
/// partition's threads early would say `prev` = 0 ("nothing within the horizon") where that is not true.
#[derive(Debug, Clone)]
pub struct ThreadHeads {
    ids: HashMap<u64, MsgId>,
    /// (moment, id): everything before this id was read at this moment or earlier, so it was stored then or earlier.
    /// Rising in both.
    marks: VecDeque<(u64, MsgId)>,
    horizon: MsgId,
    keep_ms: u64,
}

impl ThreadHeads {
    /// `keep_ms`: the horizon. `from`: everything up to this id is unknown here.
    pub fn new(keep_ms: u64, from: MsgId) -> Self {
        Self { ids: HashMap::new(), marks: VecDeque::new(), horizon: from, keep_ms }
    }

    /// From the maps of the former generation's partitions: the threads that are in one partition of this one. The
    /// strictest horizon counts.
    pub fn inherit<'a>(former: impl IntoIterator<Item = &'a Self>, mine: impl Fn(u64) -> bool) -> Self {
        let mut heads = Self::new(0, MsgId::NONE);
        for map in former {
            heads.keep_ms = map.keep_ms;
            heads.horizon = heads.horizon.max(map.horizon);
            heads.ids.extend(map.ids.iter().filter(|(hash, _)| mine(**hash)));
        }
        let horizon = heads.horizon;
        heads.ids.retain(|_, id| *id > horizon);
        heads
    }

    /// Continues with the first entry of a new generation, at this moment: all that was inherited is older.
    pub fn continue_at(mut self, first: MsgId, at_ms: u64) -> Self {
        self.marks = VecDeque::from([(at_ms, first)]);
        self
    }

    /// Puts the next entry of the log at the end of its thread's chain; returns the id before it, or 0 if there is none
    /// within the horizon.
    pub fn advance(&mut self, thread: u64, id: MsgId, read_ms: u64) -> MsgId {
        if self.marks.back().is_none_or(|(t, _)| read_ms >= t + self.keep_ms / MARKS) {
            self.marks.push_back((read_ms, id));
        }
        self.ids.insert(thread, id).unwrap_or(MsgId::NONE)
    }

    pub fn of(&self, thread: u64) -> MsgId {
        self.ids.get(&thread).copied().unwrap_or(MsgId::NONE)
    }

    /// Ids at or below this are not known here.
    pub fn horizon(&self) -> MsgId {
        self.horizon
    }

    /// Entries up to `id` are lost or were never read: nothing may be concluded from their absence.
    pub fn forget_up_to(&mut self, id: MsgId) {
        self.horizon = self.horizon.max(id);
    }

    /// Forgets what was read longer ago than the horizon. Whoever catches up on an hour of log keeps all of it for so
    /// long.
    pub fn evict(&mut self, now_ms: u64) {
        let Some(cutoff) = now_ms.checked_sub(self.keep_ms) else { return };
        let mut edge = None;
        while let Some((at, id)) = self.marks.front()
            && *at <= cutoff
        {
            edge = Some(MsgId(id.0.saturating_sub(1)));
            self.marks.pop_front();
        }
        if let Some(edge) = edge {
            self.forget_up_to(edge);
            let horizon = self.horizon;
            self.ids.retain(|_, id| *id > horizon);
        }
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_the_predecessor_in_the_same_thread() {
        let mut l = ThreadHeads::new(120_000, MsgId(9));
        let prevs = [(1, 10), (2, 11), (1, 12), (1, 13)].map(|(t, id)| l.advance(t, MsgId(id), 1_000).0);
        assert_eq!(prevs, [0, 0, 10, 12]);
        assert_eq!([l.of(1).0, l.of(2).0, l.of(3).0], [13, 11, 0]);
        assert_eq!(l.horizon(), MsgId(9));
    }

    #[test]
    fn an_idle_thread_is_forgotten_and_the_horizon_says_so() {
        let mut l = ThreadHeads::new(80_000, MsgId(0));
        l.advance(1, MsgId(1), 0);
        l.advance(2, MsgId(2), 20_000);
        l.evict(100_000);
        assert_eq!(l.of(1), MsgId(0));
        assert!(l.of(2) > l.horizon() || l.of(2).is_none());
        l.evict(500_000);
        assert_eq!(l.len(), 1, "without a newer mark the last stretch stays: older than it must be, never younger");
    }

    /// Three partitions become two.
    #[test]
    fn a_new_generation_goes_on_where_the_former_ones_ended() {
        let map = |from, entries: &[(u64, u64)]| {
            let mut l = ThreadHeads::new(120_000, MsgId(from));
            for (thread, id) in entries {
                l.advance(*thread, MsgId(*id), 1_000);
            }
            l
        };
        // Thread t was in partition t % 3.
        let former = [map(3, &[(0, 10), (3, 11), (6, 12)]), map(7, &[(1, 8), (4, 9)]), map(5, &[(2, 6), (5, 7)])];
        let mut even = ThreadHeads::inherit(&former, |hash| hash % 2 == 0).continue_at(MsgId(100), 1_000);
        assert_eq!(even.horizon(), MsgId(7), "the strictest");
        assert_eq!(
            [0, 6, 4, 2, 3].map(|t| even.of(t).0),
            [10, 12, 9, 0, 0],
            "2 is below that horizon, 3 is not of this partition"
        );
        assert_eq!(even.advance(6, MsgId(100), 2_000), MsgId(12), "the chain goes on");
        let mut at_once = ThreadHeads::inherit(&former, |_| true).continue_at(MsgId(100), 0);
        at_once.evict(119_999);
        assert_eq!(at_once.of(6), MsgId(12), "moments count from zero");
        even.evict(120_999);
        assert_eq!(even.of(0), MsgId(10));
        even.evict(121_000);
        assert_eq!(
            (even.of(0), even.of(6), even.horizon()),
            (MsgId(0), MsgId(100), MsgId(99)),
            "everything inherited is too old now"
        );
    }

    proptest! {
        /// Whatever the traffic: a thread's answer is its true newest id, or 0 and then nothing newer than the horizon
        /// exists, and the horizon never reaches into the time that was promised.
        #[test]
        fn never_a_wrong_predecessor(
            log in prop::collection::vec((0u64..6, 0u64..4_000), 1..200),
            keep in 1_000u64..20_000,
        ) {
            let mut l = ThreadHeads::new(keep, MsgId(0));
            let (mut truth, mut ts) = (HashMap::<u64, u64>::new(), 0);
            let mut times = vec![0];
            for (i, (thread, gap)) in log.iter().enumerate() {
                ts += gap;
                times.push(ts);
                let id = i as u64 + 1;
                let prev = l.advance(*thread, MsgId(id), ts).0;
                let real = truth.insert(*thread, id).unwrap_or(0);
                prop_assert!(prev == real || (prev == 0 && times[real as usize] + keep <= ts), "{prev} {real}");
                l.evict(ts);
                let h = l.horizon().0 as usize;
                prop_assert!(h == 0 || times[h] + keep <= ts);
                for (t, id) in &truth {
                    prop_assert!(l.of(*t).0 == *id || (l.of(*t).is_none() && *id <= l.horizon().0));
                }
            }
        }
    }
}
