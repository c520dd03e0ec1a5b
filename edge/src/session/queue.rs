//! Step 2: the order of one device's sends. One publish in flight per thread, of one message or of a batch, the others wait behind it, so
//! that neither a retry nor a leader election can swap two messages of a sender. Pure.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use natterjack_protocol::{Cid, Refusal, Thread, frame::Send};

/// How long what follows a refused message is refused too, unless that message comes first: a client that pipelines has sent it before
/// it could hear of the refusal. Longer than the way there and back and the usual `retry_after_ms`; bounded, because it may give up.
const HOLD: Duration = Duration::from_secs(2);
/// Threads that are held; beyond it only those whose time is over make room. More are never in flight at once.
const HELD: usize = 1_024;

struct Held {
    cid: Cid,
    until: Instant,
    why: Refusal,
}

/// What waits behind a send in flight.
#[derive(Default)]
struct Waiting {
    sends: VecDeque<Send>,
    /// So many of the first of them go alone.
    alone: usize,
}

/// A key is there while a send of that thread is in flight. Bounded by the session's in-flight requests.
#[derive(Default)]
pub struct SendQueue {
    threads: HashMap<Thread, Waiting>,
    waiting: usize,
    held: HashMap<Thread, Held>,
}

impl SendQueue {
    /// Returns the send if nothing of its thread is in flight: publish it now. An error: an earlier message of the thread was refused for
    /// a moment and has to come again first.
    pub fn push(&mut self, send: Send, now: Instant) -> Result<Option<Send>, Refusal> {
        if let Some(held) = self.held.get(&send.thread) {
            if held.cid != send.cid && now < held.until {
                return Err(held.why.clone());
            }
            self.held.remove(&send.thread);
        }
        Ok(self.push_in_order(send))
    }

    /// This message was refused before it could wait here; what follows it in its thread must not overtake it. The first one refused counts.
    pub fn hold(&mut self, thread: &Thread, cid: Cid, why: &Refusal, now: Instant) {
        if self.held.len() >= HELD {
            self.held.retain(|_, h| now < h.until);
        }
        if self.held.len() < HELD && self.held.get(thread).is_none_or(|h| h.until <= now) {
            self.held.insert(thread.clone(), Held { cid, until: now + HOLD, why: why.clone() });
        }
    }

    fn push_in_order(&mut self, send: Send) -> Option<Send> {
        if let Some(waiting) = self.threads.get_mut(&send.thread) {
            waiting.sends.push_back(send);
            self.waiting += 1;
            return None;
        }
        self.threads.insert(send.thread.clone(), Waiting::default());
        Some(send)
    }

    /// The send in flight was decided: the next one of its thread, to publish now.
    pub fn done(&mut self, thread: &Thread) -> Option<Send> {
        let next = self.threads.get_mut(thread)?.sends.pop_front();
        match next {
            Some(_) => self.waiting -= 1,
            None => {
                self.threads.remove(thread);
            }
        }
        next
    }

    /// What waits behind the send that is about to be published, to go with it.
    pub fn behind(&mut self, thread: &Thread) -> VecDeque<Send> {
        let Some(waiting) = self.threads.get_mut(thread) else { return VecDeque::new() };
        if waiting.alone > 0 {
            waiting.alone -= 1;
            return VecDeque::new();
        }
        self.waiting -= waiting.sends.len();
        std::mem::take(&mut waiting.sends)
    }

    /// They were to go with the send in flight and could not: each of them goes alone, before what came later.
    pub fn put_back(&mut self, thread: &Thread, rest: Vec<Send>) {
        let Some(waiting) = self.threads.get_mut(thread) else { return };
        self.waiting += rest.len();
        waiting.alone += rest.len();
        for send in rest.into_iter().rev() {
            waiting.sends.push_front(send);
        }
    }

    /// The send in flight failed and will come again: what waits behind it must come again too, behind it.
    pub fn fail(&mut self, thread: &Thread, cid: Cid, why: &Refusal, now: Instant) -> VecDeque<Send> {
        let behind = self.threads.remove(thread).unwrap_or_default().sends;
        self.waiting -= behind.len();
        // Whatever is held already came after it.
        self.held.remove(thread);
        self.hold(thread, cid, why, now);
        behind
    }

    /// Nothing in flight, and nothing has to come again first.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.threads.is_empty() && self.held.values().all(|h| h.until <= now)
    }

    /// Sends that wait, without those in flight.
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{Body, Cid, Kind};

    use super::*;

    fn send(thread: &str, n: u8) -> Send {
        Send { r: u32::from(n), cid: Cid::mint(1, [n; 10]), thread: thread.parse().unwrap(), kind: Kind::Text, body: Body::text("x") }
    }

    fn push(q: &mut SendQueue, send: Send) -> Option<Send> {
        q.push(send, Instant::now()).unwrap()
    }

    #[test]
    fn what_was_pipelined_behind_a_refusal_waits_for_it() {
        let (mut q, now) = (SendQueue::default(), Instant::now());
        let why = Refusal::unavailable("an election");
        let a: Thread = "dm.a.b".parse().unwrap();
        let cid = |n| send("dm.a.b", n).cid;
        let at = |q: &mut SendQueue, n: u8, ms: u64| q.push(send("dm.a.b", n), now + Duration::from_millis(ms)).map(|s| s.is_some());
        assert_eq!(at(&mut q, 1, 0), Ok(true));
        q.hold(&a, cid(3), &why, now);
        q.hold(&a, cid(4), &why, now);
        assert_eq!(at(&mut q, 5, 1), Err(why.clone()), "behind one that the rate limit has refused");
        q.fail(&a, cid(1), &why, now);
        assert_eq!(at(&mut q, 2, 1), Err(why.clone()), "was on its way before the refusal was heard");
        assert_eq!(at(&mut q, 3, 1), Err(why.clone()), "the one in flight came first");
        assert_eq!((at(&mut q, 1, 1_000), at(&mut q, 2, 1_001)), (Ok(true), Ok(false)), "in the old order again");
        q.fail(&a, cid(1), &why, now);
        assert!(q.push(send("group.g", 3), now).unwrap().is_some(), "other threads do not wait");
        assert!(q.push(send("dm.a.b", 4), now + HOLD).unwrap().is_some(), "the client has given up on the first");
    }

    #[test]
    fn one_in_flight_per_thread_in_order_and_threads_do_not_wait_for_each_other() {
        let mut q = SendQueue::default();
        let (a, b): (Thread, Thread) = ("dm.a.b".parse().unwrap(), "group.g".parse().unwrap());
        assert_eq!(push(&mut q, send("dm.a.b", 1)).unwrap().r, 1);
        assert!(push(&mut q, send("dm.a.b", 2)).is_none() && push(&mut q, send("dm.a.b", 3)).is_none());
        assert_eq!(push(&mut q, send("group.g", 4)).unwrap().r, 4);
        assert_eq!(q.waiting(), 2);
        assert!(q.done(&b).is_none());
        assert_eq!(q.done(&a).unwrap().r, 2);
        assert_eq!(q.done(&a).unwrap().r, 3);
        assert!(q.done(&a).is_none());
        assert_eq!((q.waiting(), q.threads.len()), (0, 0));
        assert!(push(&mut q, send("dm.a.b", 5)).is_some());
    }

    #[test]
    fn what_waits_behind_a_failure_fails_with_it() {
        let mut q = SendQueue::default();
        let a: Thread = "dm.a.b".parse().unwrap();
        for n in 1..=3 {
            push(&mut q, send("dm.a.b", n));
        }
        assert_eq!(
            q.fail(&a, send("dm.a.b", 1).cid, &Refusal::unavailable("x"), Instant::now()).iter().map(|s| s.r).collect::<Vec<_>>(),
            [2, 3]
        );
        assert_eq!(q.waiting(), 0);
        assert!(push(&mut q, send("dm.a.b", 1)).is_some(), "the resends begin anew");
        assert!(q.done(&"dm.x.y".parse().unwrap()).is_none());
    }

    #[test]
    fn what_has_come_meanwhile_goes_together() {
        let mut q = SendQueue::default();
        let a: Thread = "dm.a.b".parse().unwrap();
        for n in 1..=4 {
            push(&mut q, send("dm.a.b", n));
        }
        assert_eq!(q.done(&a).unwrap().r, 2);
        assert_eq!(q.behind(&a).iter().map(|s| s.r).collect::<Vec<_>>(), [3, 4]);
        assert!(push(&mut q, send("dm.a.b", 5)).is_none(), "the batch is in flight");
        assert_eq!(q.waiting(), 1);
        // One more comes while 3 and 4 turn out to have to go alone.
        q.put_back(&a, vec![send("dm.a.b", 3), send("dm.a.b", 4)]);
        assert_eq!(q.waiting(), 3);
        for n in [3, 4] {
            assert_eq!(q.done(&a).unwrap().r, n);
            assert!(q.behind(&a).is_empty(), "{n} goes alone");
        }
        push(&mut q, send("dm.a.b", 6));
        assert_eq!(q.done(&a).unwrap().r, 5);
        assert_eq!(q.behind(&a).iter().map(|s| s.r).collect::<Vec<_>>(), [6]);
        push(&mut q, send("dm.a.b", 5));
        let again = q.fail(&a, send("dm.a.b", 3).cid, &Refusal::unavailable("x"), Instant::now());
        assert_eq!(again.iter().map(|s| s.r).collect::<Vec<_>>(), [5]);
        assert!(q.push(send("dm.a.b", 4), Instant::now()).is_err(), "only behind the one that failed");
        assert!(push(&mut q, send("dm.a.b", 3)).is_some());
    }
}
