//! Step 5, the questions: requests for heads in batches, one request to the holder of each partition, shared by all who
//! wait, written behind the subscriptions they made before. The answer is the barrier of attach (ADR 8). Bookkeeping
//! only: the dispatcher does the I/O.

use std::collections::HashMap;

use natterjack_protocol::{MsgId, Thread, internal::rpc::HeadsAnswer, limits};

use super::{event::TopicKey, topics::TopicSlot};

/// What a barrier says of one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionHorizon {
    /// Everything up to here was published before the barrier.
    pub frontier: MsgId,
    /// Of what lies at or below it, the holder remembers no heads.
    pub horizon: MsgId,
}

/// The answer to one who waits.
#[derive(Debug, Clone, Default)]
pub struct Barrier {
    pub partitions: Vec<PartitionHorizon>,
    /// Threads with something above the horizon.
    pub heads: HashMap<Thread, MsgId>,
}

impl Barrier {
    /// Adds the heads of a later barrier. The frontiers stay those of the first, of before the threads were read.
    pub fn and(&mut self, later: Self) {
        for (partition, later) in self.partitions.iter_mut().zip(later.partitions) {
            partition.horizon = partition.horizon.max(later.horizon);
        }
        self.heads.extend(later.heads);
    }
}

pub struct HeadsWaiter<R> {
    /// Topics subscribed for this waiter: the barrier is their base.
    pub slots: Vec<TopicSlot>,
    pub threads: Vec<(TopicKey, Thread)>,
    /// Asks every partition, not those of its threads only.
    pub everywhere: bool,
    /// Where the barrier goes; none: the heads themselves are what was wanted (a sweep).
    pub reply: Option<R>,
}

/// One request: up to 1,024 threads of one partition.
pub struct HeadsRequest {
    pub p: u32,
    pub hashes: Vec<u64>,
    threads: Vec<(TopicKey, Thread)>,
}

/// What an answer means for the topics.
pub struct PartitionAnswer {
    pub p: u32,
    pub frontier: MsgId,
    /// Of what lies at or below it, the answer says nothing.
    pub horizon: MsgId,
    pub slots: Vec<TopicSlot>,
    pub heads: Vec<(TopicKey, Thread, MsgId)>,
}

struct HeadsBatch<R> {
    waiters: Vec<HeadsWaiter<R>>,
    slots: Vec<TopicSlot>,
    open: HashMap<u64, HeadsRequest>,
    barrier: Barrier,
}

/// One batch is under way at a time; whoever comes meanwhile waits for the next.
pub struct HeadsBatches<R> {
    partitions: u32,
    waiting: Vec<HeadsWaiter<R>>,
    batch: Option<HeadsBatch<R>>,
}

impl<R> HeadsBatches<R> {
    pub fn new(partitions: u32) -> Self {
        Self { partitions, waiting: Vec::new(), batch: None }
    }

    pub fn wait(&mut self, waiter: HeadsWaiter<R>) {
        self.waiting.push(waiter);
    }

    /// The requests of the next batch, if none is under way and somebody waits. Each is to be registered with
    /// [`HeadsBatches::sent`].
    pub fn begin(&mut self) -> Vec<HeadsRequest> {
        if self.batch.is_some() || self.waiting.is_empty() {
            return Vec::new();
        }
        let waiters = std::mem::take(&mut self.waiting);
        let requests = self.requests(&waiters);
        let slots = waiters.iter().flat_map(|w| w.slots.iter().copied()).collect();
        let partitions = vec![PartitionHorizon::default(); self.partitions as usize];
        let barrier = Barrier { partitions, heads: HashMap::new() };
        self.batch = Some(HeadsBatch { waiters, slots, open: HashMap::new(), barrier });
        requests
    }

    fn requests(&self, waiters: &[HeadsWaiter<R>]) -> Vec<HeadsRequest> {
        let mut by_partition: Vec<HashMap<Thread, TopicKey>> = vec![HashMap::new(); self.partitions as usize];
        // The same thread on two topics (a DM of two users who are both here) is asked for twice: each topic has its
        // own chain.
        let mut again: Vec<(TopicKey, Thread)> = Vec::new();
        for (key, thread) in waiters.iter().flat_map(|w| &w.threads) {
            let of = &mut by_partition[thread.partition(self.partitions) as usize];
            match of.insert(thread.clone(), key.clone()) {
                Some(other) if other != *key => again.push((other, thread.clone())),
                _ => {}
            }
        }
        let mut lists: Vec<Vec<(TopicKey, Thread)>> =
            by_partition.into_iter().map(|m| m.into_iter().map(|(t, k)| (k, t)).collect()).collect();
        for (key, thread) in again {
            lists[thread.partition(self.partitions) as usize].push((key, thread));
        }
        let everywhere = waiters.iter().any(|w| w.everywhere);
        let mut requests = Vec::new();
        for (p, list) in lists.into_iter().enumerate().filter(|(_, list)| everywhere || !list.is_empty()) {
            let mut rest = list.into_iter();
            loop {
                let threads: Vec<_> = rest.by_ref().take(limits::HEADS_PER_BATCH).collect();
                let last = threads.len() < limits::HEADS_PER_BATCH;
                let hashes = threads.iter().map(|(_, t)| t.hash64()).collect();
                requests.push(HeadsRequest { p: p as u32, hashes, threads });
                if last {
                    break;
                }
            }
        }
        requests
    }

    pub fn sent(&mut self, token: u64, request: HeadsRequest) {
        if let Some(batch) = &mut self.batch {
            batch.open.insert(token, request);
        }
    }

    /// The partition that was asked.
    pub fn partition(&self, token: u64) -> Option<u32> {
        self.batch.as_ref()?.open.get(&token).map(|request| request.p)
    }

    /// Takes the request out in order to send it again, at once: a batch with nothing open is complete.
    pub fn unanswered(&mut self, token: u64) -> Option<HeadsRequest> {
        self.batch.as_mut()?.open.remove(&token)
    }

    /// All requests without an answer, to be sent again.
    pub fn overdue(&mut self) -> Vec<HeadsRequest> {
        self.batch.as_mut().map(|b| b.open.drain().map(|(_, request)| request).collect()).unwrap_or_default()
    }

    pub fn answered(&mut self, token: u64, answer: &HeadsAnswer) -> Option<PartitionAnswer> {
        let batch = self.batch.as_mut()?;
        let request = batch.open.remove(&token)?;
        let partition = &mut batch.barrier.partitions[request.p as usize];
        // The first answer of a partition is the base, the strictest horizon counts.
        if partition.frontier.is_none() {
            partition.frontier = answer.frontier;
        }
        partition.horizon = partition.horizon.max(answer.horizon);
        let known = request.threads.into_iter().zip(&answer.heads).filter(|(_, head)| !head.is_none());
        let heads: Vec<_> = known.map(|((key, thread), head)| (key, thread, *head)).collect();
        for (_, thread, head) in &heads {
            batch.barrier.heads.insert(thread.clone(), *head);
        }
        let (frontier, horizon) = (answer.frontier, answer.horizon);
        Some(PartitionAnswer { p: request.p, frontier, horizon, slots: batch.slots.clone(), heads })
    }

    /// The batch is complete: where its barriers go.
    pub fn finished(&mut self) -> Vec<(R, Barrier)> {
        if self.batch.as_ref().is_none_or(|b| !b.open.is_empty()) {
            return Vec::new();
        }
        let Some(batch) = self.batch.take() else { return Vec::new() };
        let barrier = batch.barrier;
        let answer = |w: HeadsWaiter<R>| {
            let heads = w.threads.iter().filter_map(|(_, t)| Some((t.clone(), *barrier.heads.get(t)?))).collect();
            w.reply.map(|r| (r, Barrier { partitions: barrier.partitions.clone(), heads }))
        };
        batch.waiters.into_iter().filter_map(answer).collect()
    }

    /// The connection was lost: everybody who waits goes into the next batch.
    pub fn restart(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.waiting.splice(0..0, batch.waiters);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_wait_share_a_batch_and_each_gets_its_own_heads() {
        let mut batches = HeadsBatches::new(2);
        let user = |s: &str| natterjack_protocol::UserId::parse(s).unwrap();
        let (a, b) = (user("a"), user("b"));
        let dm = Thread::dm(&a, &b);
        for (name, who) in [("first", &a), ("second", &b)] {
            batches.wait(HeadsWaiter {
                slots: vec![],
                threads: vec![(TopicKey::User(who.clone()), dm.clone())],
                everywhere: name == "first",
                reply: Some(name),
            });
        }
        let requests = batches.begin();
        assert_eq!(requests.len(), 2, "every partition is asked");
        assert!(batches.begin().is_empty(), "one batch at a time");
        for (token, request) in requests.into_iter().enumerate() {
            batches.sent(token as u64, request);
        }
        let mut heads = Vec::new();
        for token in 0..2 {
            let n = batches.batch.as_ref().unwrap().open[&token].hashes.len();
            let answer = HeadsAnswer { frontier: MsgId(9), horizon: MsgId(1), ts: 0, heads: vec![MsgId(7); n] };
            assert!(batches.finished().is_empty());
            heads.extend(batches.answered(token, &answer).unwrap().heads);
        }
        assert_eq!(heads.len(), 2, "one per topic");
        assert!(batches.overdue().is_empty(), "both were answered");
        let done = batches.finished();
        assert_eq!(
            done.iter().map(|(n, b)| (*n, b.heads[&dm])).collect::<Vec<_>>(),
            [("first", MsgId(7)), ("second", MsgId(7))]
        );
    }

    #[test]
    fn who_asks_for_threads_asks_their_partitions_only() {
        let mut batches = HeadsBatches::new(64);
        let user = natterjack_protocol::UserId::parse("a").unwrap();
        let dm = Thread::dm(&user, &user);
        batches.wait(HeadsWaiter {
            slots: vec![],
            threads: vec![(TopicKey::User(user), dm.clone())],
            everywhere: false,
            reply: Some(()),
        });
        assert_eq!(
            batches.begin().iter().map(|r| (r.p, r.hashes.clone())).collect::<Vec<_>>(),
            [(dm.partition(64), vec![dm.hash64()])]
        );
    }

    /// Both holders are gone, and one successor answers earlier than the other.
    #[test]
    fn a_partition_that_nobody_answers_for_keeps_the_batch_open() {
        let mut batches = HeadsBatches::new(2);
        batches.wait(HeadsWaiter { slots: vec![], threads: vec![], everywhere: true, reply: Some(()) });
        let requests = batches.begin();
        requests.into_iter().enumerate().for_each(|(token, request)| batches.sent(token as u64, request));
        let answer = HeadsAnswer { frontier: MsgId(9), horizon: MsgId(1), ts: 0, heads: vec![] };
        batches.answered(0, &answer).unwrap();
        assert!(batches.finished().is_empty());
        let request = batches.unanswered(1).unwrap();
        batches.sent(2, request);
        assert!(batches.unanswered(1).is_none(), "asked again already");
        assert!(batches.finished().is_empty());
        batches.answered(2, &answer).unwrap();
        let done = batches.finished();
        assert!(done[0].1.partitions.iter().all(|p| p.frontier == MsgId(9)));
    }
}
