//! Attach, the decision: which threads a device has to be told about. Pure.

use std::collections::BTreeMap;

use natterjack_protocol::{Code, MsgId, Refusal, Thread, internal::rpc::LastEntry, log::fold::ThreadItem};

use crate::live::heads_batch::Barrier;

/// Threads that a device without `synced` hears about at once beside those it has cursors for; the rest is in the
/// thread list.
pub const NEW_THREADS: usize = 100;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct CatchUpPlan {
    /// Pages to send: thread, what the device has, the newest id it should reach.
    pub pages: Vec<(Thread, MsgId, MsgId)>,
    /// Threads without a cursor, likewise: all of them for a device that was in sync once, else the [`most_recent`].
    pub new: Vec<(Thread, MsgId)>,
    /// Whether these have news is known only to the archive: thread and what the device has.
    pub ask: Vec<(Thread, MsgId)>,
    /// Cursors that make no sense.
    pub refused: Vec<Refusal>,
}

/// `synced`: per partition (of whatever generation: ids rise over all of them) the frontier up to which this device had
/// everything. `ends`: the last id of a partition's log, where it was asked.
pub fn plan(
    items: &[(Thread, ThreadItem)],
    cursors: &BTreeMap<Thread, MsgId>,
    synced: Option<&[MsgId]>,
    barrier: &Barrier,
    ends: &[Option<MsgId>],
) -> CatchUpPlan {
    let mut plan = CatchUpPlan::default();
    let partitions = barrier.partitions.len() as u32;
    for (thread, item) in items {
        let p = thread.partition(partitions) as usize;
        let partition = barrier.partitions[p];
        let in_sync_to = synced.and_then(|s| s.get(thread.partition(s.len() as u32) as usize).copied());
        let head = barrier.heads.get(thread).map(|head| match item.intervals.0.last().and_then(|i| i.until) {
            Some(until) => MsgId(until.0.saturating_sub(1)).min(*head),
            None => *head,
        });
        match (cursors.get(thread), head) {
            // Not by the frontier: a new holder of the partition begins further back than the last one had come.
            (Some(cursor), _) if ends.get(p).copied().flatten().is_some_and(|end| *cursor > end) => {
                plan.refused.push(
                    Refusal::new(Code::Invalid, format!("the cursor of {thread} is ahead of the log: forget it"))
                        .with_thread(thread),
                );
                plan.pages.push((thread.clone(), MsgId::NONE, head.unwrap_or_default()));
            }
            (Some(cursor), Some(head)) if head > *cursor => plan.pages.push((thread.clone(), *cursor, head)),
            (Some(_), Some(_)) => {}
            // Nothing since the horizon. The device has all of it if it was in sync then.
            (Some(cursor), None) if in_sync_to.is_none_or(|s| s < partition.horizon) => {
                plan.ask.push((thread.clone(), *cursor))
            }
            (Some(_), None) => {}
            (None, Some(head)) if in_sync_to.is_none_or(|s| head > s) => plan.new.push((thread.clone(), head)),
            (None, Some(_)) => {}
            (None, None) if in_sync_to.is_some_and(|s| item.v > s) || in_sync_to.is_none() => {
                plan.new.push((thread.clone(), item.v));
            }
            // In sync, but so long ago that channel has forgotten what came since.
            (None, None) => match in_sync_to {
                Some(s) if s < partition.horizon => plan.ask.push((thread.clone(), s)),
                _ => {}
            },
        }
    }
    for thread in cursors.keys().filter(|t| !items.iter().any(|(i, _)| i == *t)) {
        plan.refused.push(
            Refusal::new(Code::NotMember, format!("you are not in {thread}: forget its cursor")).with_thread(thread),
        );
    }
    plan
}

/// The threads that were active last, those first that the user is in. By time: each partition counts its own ids.
pub fn most_recent(
    new: Vec<(Thread, MsgId)>,
    last: &[LastEntry],
    is_in: impl Fn(&Thread) -> bool,
) -> Vec<(Thread, MsgId)> {
    let mut new: Vec<_> = new.into_iter().zip(last).collect();
    new.sort_by_cached_key(|((thread, _), last)| (!is_in(thread), std::cmp::Reverse(last.ts), thread.clone()));
    new.truncate(NEW_THREADS);
    new.into_iter().map(|(new, _)| new).collect()
}

/// How far a device is in sync: what is behind its opaque `synced`, `<generation>.<at_s>.<frontier>.<frontier>…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedMark {
    /// When it was, seconds since 1970: what its user had read by then it was told.
    pub at_s: u64,
    /// Of each partition.
    pub frontiers: Vec<MsgId>,
}

impl SyncedMark {
    pub fn encode(&self, generation: u32) -> String {
        let numbers = [u64::from(generation), self.at_s].into_iter().chain(self.frontiers.iter().map(|f| f.0));
        numbers.map(|n| n.to_string()).collect::<Vec<_>>().join(".")
    }

    /// None: of a generation that this edge does not know yet, or not ours; then everything is looked up. That of an
    /// earlier generation has a frontier for each of *its* partitions.
    pub fn parse(mark: &str, generation: u32, partitions: u32) -> Option<Self> {
        let numbers: Vec<u64> = mark.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let [of, at_s, frontiers @ ..] = numbers.as_slice() else { return None };
        let fits = match of.cmp(&u64::from(generation)) {
            std::cmp::Ordering::Less => !frontiers.is_empty(),
            std::cmp::Ordering::Equal => frontiers.len() == partitions as usize,
            std::cmp::Ordering::Greater => false,
        };
        fits.then(|| Self { at_s: *at_s, frontiers: frontiers.iter().copied().map(MsgId).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use natterjack_protocol::log::Intervals;

    use super::*;
    use crate::live::heads_batch::PartitionHorizon;

    fn thread(n: u32) -> Thread {
        format!("group.g{n}").parse().unwrap()
    }

    fn item(v: u64) -> ThreadItem {
        let mut intervals = Intervals::default();
        intervals.enter(MsgId(v));
        ThreadItem { v: MsgId(v), intervals, ..ThreadItem::default() }
    }

    fn barrier(heads: &[(u32, u64)]) -> Barrier {
        let heads: HashMap<_, _> = heads.iter().map(|(t, h)| (thread(*t), MsgId(*h))).collect();
        Barrier { partitions: vec![PartitionHorizon { frontier: MsgId(1_000), horizon: MsgId(500) }], heads }
    }

    #[test]
    fn what_a_device_is_told() {
        let items: Vec<_> = (1..=6).map(|n| (thread(n), item(n.into()))).collect();
        let cursors: BTreeMap<_, _> =
            [(1, 600), (2, 700), (3, 400), (5, 2_000), (9, 1)].map(|(t, c)| (thread(t), MsgId(c))).into();
        let heads = barrier(&[(1, 700), (2, 700), (6, 900)]);
        let p = plan(&items, &cursors, Some(&[MsgId(550)]), &heads, &[Some(MsgId(1_500))]);
        assert_eq!(p.pages[0], (thread(1), MsgId(600), MsgId(700)), "news since the cursor");
        assert_eq!(p.new, [(thread(6), MsgId(900))], "began while the device was away");
        assert!(p.ask.is_empty(), "3 is quiet since the horizon and the device was in sync then");
        assert!(!p.pages.iter().any(|(t, ..)| *t == thread(4)), "4 has no cursor and nothing new");
        assert_eq!(p.refused.iter().map(|r| r.code).collect::<Vec<_>>(), [Code::Invalid, Code::NotMember]);
        let longer_away = plan(&items, &cursors, Some(&[MsgId(450)]), &heads, &[Some(MsgId(1_500))]);
        let both = [(thread(3), MsgId(400)), (thread(4), MsgId(450))];
        assert_eq!(
            longer_away.ask, both,
            "away since before the horizon: ask, with a cursor or from where it was in sync"
        );
        assert_eq!(plan(&items, &cursors, None, &heads, &[Some(MsgId(1_500))]).ask, [(thread(3), MsgId(400))]);
    }

    /// One partition has been in use for years, the other since a moment ago.
    #[test]
    fn the_most_recently_active_by_time_whatever_the_ids() {
        let busy = |n: u32| n.is_multiple_of(2);
        let new: Vec<_> = (1..=300).map(|n| (thread(n), MsgId(if busy(n) { 1 << 50 } else { 5 }))).collect();
        let last: Vec<_> =
            (1..=300).map(|n| LastEntry { id: MsgId(if busy(n) { 1 << 50 } else { 5 }), ts: u64::from(n) }).collect();
        let left = thread(299);
        let got = most_recent(new, &last, |t| *t != left);
        let want: Vec<_> = (200..=300).rev().filter(|n| *n != 299).map(thread).collect();
        assert_eq!(got.into_iter().map(|(t, _)| t).collect::<Vec<_>>(), want);
    }

    #[test]
    fn a_device_that_was_in_sync_hears_of_every_new_thread() {
        let items: Vec<_> = (1..=250).map(|n| (thread(n), item(600))).collect();
        let p = plan(&items, &BTreeMap::new(), Some(&[MsgId(550)]), &barrier(&[]), &[]);
        assert_eq!((p.new.len(), p.pages.len()), (250, 0));
    }

    #[test]
    fn who_left_hears_nothing_from_after() {
        let mut left = item(1);
        left.intervals.leave(MsgId(600));
        let at = |cursor| {
            plan(&[(thread(1), left.clone())], &[(thread(1), MsgId(cursor))].into(), None, &barrier(&[(1, 900)]), &[])
        };
        assert_eq!(at(598).pages, [(thread(1), MsgId(598), MsgId(599))]);
        assert!(at(599).pages.is_empty());
    }

    #[test]
    fn synced_of_an_earlier_generation_still_says_something() {
        let mark = SyncedMark { at_s: 1_900_000_000, frontiers: vec![MsgId(5), MsgId(7)] };
        let s = mark.encode(3);
        assert_eq!(SyncedMark::parse(&s, 3, 2), Some(mark.clone()));
        assert_eq!(SyncedMark::parse(&s, 4, 16), Some(mark));
        for (s, generation, partitions) in
            [(s.as_str(), 2, 2), (s.as_str(), 3, 3), ("", 3, 2), ("x.9.1.2", 3, 2), ("3", 4, 2), ("3.9", 4, 2)]
        {
            assert_eq!(SyncedMark::parse(s, generation, partitions), None);
        }
    }
}
