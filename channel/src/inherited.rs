//! Between two generations of the log: what the partitions of the one that is over know of their threads' newest ids,
//! for those of the next, so that a thread's first event there names its last one here as `prev`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use natterjack_nats::Layout;
use natterjack_protocol::thread::partition_of;

use crate::thread_heads::ThreadHeads;

/// Of one process; clones share it.
#[derive(Clone, Default)]
pub struct InheritedHeads(Arc<Mutex<Left>>);

#[derive(Default)]
struct Left {
    /// By generation and partition.
    heads: BTreeMap<(u32, u32), ThreadHeads>,
    /// Partitions of the generation after, whose horizon has passed everything inherited.
    passed: BTreeSet<u32>,
}

impl InheritedHeads {
    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partition was published to the end of its generation: nothing will be added.
    pub fn leave(&self, generation: u32, p: u32, heads: ThreadHeads) {
        let mut left = self.left();
        left.passed.clear();
        left.heads.insert((generation, p), heads);
    }

    pub fn has(&self, generation: u32, p: u32) -> bool {
        self.left().heads.contains_key(&(generation, p))
    }

    /// For partition `p` of `layout`, which follows `former`. None: they are not known here, or no longer of use.
    pub fn of(&self, former: Layout, layout: Layout, p: u32) -> Option<ThreadHeads> {
        let left = self.left();
        let all: Vec<_> = (0..former.partitions).filter_map(|p| left.heads.get(&(former.generation, p))).collect();
        (all.len() == former.partitions as usize)
            .then(|| ThreadHeads::inherit(all, |hash| partition_of(hash, layout.partitions) == p))
    }

    /// Partition `p` of `layout` needs nothing of the generations before, also if it begins again. When that is so of
    /// all, they are dropped.
    pub fn pass(&self, layout: Layout, p: u32) {
        let mut left = self.left();
        if left.heads.keys().next().is_some_and(|(generation, _)| *generation < layout.generation) {
            left.passed.insert(p);
            if left.passed.len() == layout.partitions as usize {
                left.heads.retain(|(generation, _), _| *generation >= layout.generation);
                left.passed.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::MsgId;

    use super::*;

    #[test]
    fn heads_are_kept_until_every_partition_of_the_next_generation_has_passed_them() {
        let (former, next) = (Layout::new(1, 2, 1), Layout::new(2, 3, 1));
        let inherited = InheritedHeads::default();
        let heads = || ThreadHeads::new(1_000, MsgId(1));
        inherited.leave(1, 0, heads());
        assert!(inherited.has(1, 0) && !inherited.has(1, 1));
        assert!(inherited.of(former, next, 0).is_none(), "one is missing");
        inherited.leave(1, 1, heads());
        for p in [0, 1, 1] {
            inherited.pass(next, p);
            assert!(inherited.of(former, next, 2).is_some());
        }
        inherited.pass(next, 2);
        assert!(inherited.of(former, next, 2).is_none());
        inherited.leave(2, 0, heads());
        inherited.pass(next, 0);
        assert!(inherited.has(2, 0), "its own are for the one after it");
    }
}
