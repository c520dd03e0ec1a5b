//! Rounds of heads requests: one request to the holder of each partition, shared by all who wait, written behind the
//! subscriptions they made before. The answer is the barrier of attach (DESIGN §5). Bookkeeping only: the dispatcher does the I/O.

use std::collections::HashMap;

use natterjack_protocol::{MsgId, Thread, internal::rpc::HeadsAnswer, limits};

use super::{hub::Slot, topic::TopicKey};

/// What the barrier told about one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Horizon {
    pub frontier: MsgId,
    pub horizon: MsgId,
}

/// The answer to one who waits.
#[derive(Debug, Clone, Default)]
pub struct Barrier {
    pub partitions: Vec<Horizon>,
    /// Threads with something within the horizon.
    pub heads: HashMap<Thread, MsgId>,
}

impl Barrier {
    /// Adds the heads of a later barrier. The frontiers stay those of the first, of before the threads were read.
    pub fn and(&mut self, later: Self) {
        for (place, later) in self.partitions.iter_mut().zip(later.partitions) {
            place.horizon = place.horizon.max(later.horizon);
        }
        self.heads.extend(later.heads);
    }
}

pub struct Waiter<R> {
    /// Topics subscribed for this waiter: the barrier is their base.
    pub slots: Vec<Slot>,
    pub threads: Vec<(TopicKey, Thread)>,
    /// Asks every partition, not those of its threads only.
    pub everywhere: bool,
    /// Whom to answer; none: the heads themselves are what was wanted (a sweep).
    pub reply: Option<R>,
}

/// One request: up to 1,024 threads of one partition.
pub struct Ask {
    pub p: u32,
    pub hashes: Vec<u64>,
    threads: Vec<(TopicKey, Thread)>,
}

/// What an answer means for the hub.
pub struct Learnt {
    pub p: u32,
    pub frontier: MsgId,
    /// Up to here the answer knows nothing.
    pub horizon: MsgId,
    pub slots: Vec<Slot>,
    pub heads: Vec<(TopicKey, Thread, MsgId)>,
}

struct Round<R> {
    waiters: Vec<Waiter<R>>,
    slots: Vec<Slot>,
    open: HashMap<u64, Ask>,
    barrier: Barrier,
}

pub struct Rounds<R> {
    partitions: u32,
    waiting: Vec<Waiter<R>>,
    round: Option<Round<R>>,
}

impl<R> Rounds<R> {
    pub fn new(partitions: u32) -> Self {
        Self { partitions, waiting: Vec::new(), round: None }
    }

    pub fn wait(&mut self, waiter: Waiter<R>) {
        self.waiting.push(waiter);
    }

    /// The requests of the next round, if none is under way and somebody waits. Each is to be registered with [`Rounds::asked`].
    pub fn begin(&mut self) -> Vec<Ask> {
        if self.round.is_some() || self.waiting.is_empty() {
            return Vec::new();
        }
        let waiters = std::mem::take(&mut self.waiting);
        let mut by_partition: Vec<HashMap<Thread, TopicKey>> = vec![HashMap::new(); self.partitions as usize];
        // The same thread on two topics (a DM of two users who are both here) is asked for twice: each topic has its own chain.
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
        let mut asks = Vec::new();
        for (p, list) in lists.into_iter().enumerate().filter(|(_, list)| everywhere || !list.is_empty()) {
            let mut rest = list.into_iter();
            loop {
                let threads: Vec<_> = rest.by_ref().take(limits::HEADS_PER_BATCH).collect();
                let last = threads.len() < limits::HEADS_PER_BATCH;
                asks.push(Ask { p: p as u32, hashes: threads.iter().map(|(_, t)| t.hash64()).collect(), threads });
                if last {
                    break;
                }
            }
        }
        let slots = waiters.iter().flat_map(|w| w.slots.iter().copied()).collect();
        let barrier = Barrier { partitions: vec![Horizon::default(); self.partitions as usize], heads: HashMap::new() };
        self.round = Some(Round { waiters, slots, open: HashMap::new(), barrier });
        asks
    }

    pub fn asked(&mut self, token: u64, ask: Ask) {
        if let Some(round) = &mut self.round {
            round.open.insert(token, ask);
        }
    }

    /// The partition that was asked.
    pub fn partition(&self, token: u64) -> Option<u32> {
        self.round.as_ref()?.open.get(&token).map(|ask| ask.p)
    }

    /// Takes the request out in order to ask it again, at once: a round with nothing open is complete.
    pub fn unanswered(&mut self, token: u64) -> Option<Ask> {
        self.round.as_mut()?.open.remove(&token)
    }

    /// All requests that nobody has answered, to be asked again.
    pub fn overdue(&mut self) -> Vec<Ask> {
        self.round.as_mut().map(|r| r.open.drain().map(|(_, ask)| ask).collect()).unwrap_or_default()
    }

    pub fn answered(&mut self, token: u64, answer: &HeadsAnswer) -> Option<Learnt> {
        let round = self.round.as_mut()?;
        let ask = round.open.remove(&token)?;
        let place = &mut round.barrier.partitions[ask.p as usize];
        // The first answer of a partition is the base, the strictest horizon counts.
        if place.frontier.is_none() {
            place.frontier = answer.frontier;
        }
        place.horizon = place.horizon.max(answer.horizon);
        let known = ask.threads.into_iter().zip(&answer.heads).filter(|(_, head)| !head.is_none());
        let heads: Vec<_> = known.map(|((key, thread), head)| (key, thread, *head)).collect();
        for (_, thread, head) in &heads {
            round.barrier.heads.insert(thread.clone(), *head);
        }
        Some(Learnt { p: ask.p, frontier: answer.frontier, horizon: answer.horizon, slots: round.slots.clone(), heads })
    }

    /// The round is complete: whom to answer, with what.
    pub fn finished(&mut self) -> Vec<(R, Barrier)> {
        if self.round.as_ref().is_none_or(|r| !r.open.is_empty()) {
            return Vec::new();
        }
        let Some(round) = self.round.take() else { return Vec::new() };
        let barrier = round.barrier;
        let answer = |w: Waiter<R>| {
            let heads = w.threads.iter().filter_map(|(_, t)| Some((t.clone(), *barrier.heads.get(t)?))).collect();
            w.reply.map(|r| (r, Barrier { partitions: barrier.partitions.clone(), heads }))
        };
        round.waiters.into_iter().filter_map(answer).collect()
    }

    /// The connection was lost: everybody who waits goes into the next round.
    pub fn restart(&mut self) {
        if let Some(round) = self.round.take() {
            self.waiting.splice(0..0, round.waiters);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_wait_share_a_round_and_each_gets_its_own_heads() {
        let mut rounds = Rounds::new(2);
        let user = |s: &str| natterjack_protocol::UserId::parse(s).unwrap();
        let (a, b) = (user("a"), user("b"));
        let dm = Thread::dm(&a, &b);
        for (name, who) in [("first", &a), ("second", &b)] {
            rounds.wait(Waiter {
                slots: vec![],
                threads: vec![(TopicKey::User(who.clone()), dm.clone())],
                everywhere: name == "first",
                reply: Some(name),
            });
        }
        let asks = rounds.begin();
        assert_eq!(asks.len(), 2, "every partition is asked");
        assert!(rounds.begin().is_empty(), "one round at a time");
        for (token, ask) in asks.into_iter().enumerate() {
            rounds.asked(token as u64, ask);
        }
        let mut learnt = Vec::new();
        for token in 0..2 {
            let n = rounds.round.as_ref().unwrap().open[&token].hashes.len();
            let answer = HeadsAnswer { frontier: MsgId(9), horizon: MsgId(1), ts: 0, heads: vec![MsgId(7); n] };
            assert!(rounds.finished().is_empty());
            learnt.extend(rounds.answered(token, &answer).unwrap().heads);
        }
        assert_eq!(learnt.len(), 2, "one per topic");
        assert!(rounds.overdue().is_empty(), "both were answered");
        let done = rounds.finished();
        assert_eq!(done.iter().map(|(n, b)| (*n, b.heads[&dm])).collect::<Vec<_>>(), [("first", MsgId(7)), ("second", MsgId(7))]);
    }

    #[test]
    fn who_asks_for_threads_asks_their_partitions_only() {
        let mut rounds = Rounds::new(64);
        let user = natterjack_protocol::UserId::parse("a").unwrap();
        let dm = Thread::dm(&user, &user);
        rounds.wait(Waiter { slots: vec![], threads: vec![(TopicKey::User(user), dm.clone())], everywhere: false, reply: Some(()) });
        assert_eq!(
            rounds.begin().iter().map(|ask| (ask.p, ask.hashes.clone())).collect::<Vec<_>>(),
            [(dm.partition(64), vec![dm.hash64()])]
        );
    }

    /// Both holders are gone, and one successor answers earlier than the other.
    #[test]
    fn a_partition_that_nobody_answers_for_keeps_the_round_open() {
        let mut rounds = Rounds::new(2);
        rounds.wait(Waiter { slots: vec![], threads: vec![], everywhere: true, reply: Some(()) });
        let asks = rounds.begin();
        asks.into_iter().enumerate().for_each(|(token, ask)| rounds.asked(token as u64, ask));
        let answer = HeadsAnswer { frontier: MsgId(9), horizon: MsgId(1), ts: 0, heads: vec![] };
        rounds.answered(0, &answer).unwrap();
        assert!(rounds.finished().is_empty());
        let ask = rounds.unanswered(1).unwrap();
        rounds.asked(2, ask);
        assert!(rounds.unanswered(1).is_none(), "asked again already");
        assert!(rounds.finished().is_empty());
        rounds.answered(2, &answer).unwrap();
        let done = rounds.finished();
        assert!(done[0].1.partitions.iter().all(|p| p.frontier == MsgId(9)));
    }
}
