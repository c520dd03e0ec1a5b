//! Step 4, the last message of a thread: a lost *last* event shows no gap, so a thread that stays idle for
//! `times.head_after` gets its newest id once more. Events that were published come in, heads to be published come out.
//! Pure: time is an argument.

use std::{collections::VecDeque, time::Duration};

use natterjack_protocol::{MsgId, Thread};
use tokio::time::Instant;

use crate::thread_heads::ThreadHeads;

/// One item per event of the last second: at 100,000/s about 7 MB. Beyond that the oldest are dropped: their threads
/// get no head, and the edges' sweep of heads (45 s) finds what may be missing.
const MAX: usize = 1 << 20;

struct IdleThread {
    due: Instant,
    hash: u64,
    id: MsgId,
    thread: Thread,
}

pub struct IdleHeads {
    after: Duration,
    max: usize,
    queue: VecDeque<IdleThread>,
}

impl IdleHeads {
    pub fn new(after: Duration) -> Self {
        Self { after, max: MAX, queue: VecDeque::new() }
    }

    /// An event was published. Says whether another one had to make room.
    pub fn published(&mut self, now: Instant, thread: Thread, hash: u64, id: MsgId) -> bool {
        let full = self.queue.len() >= self.max;
        if full {
            self.queue.pop_front();
        }
        // One constant delay, so the queue is in order of time as it stands.
        self.queue.push_back(IdleThread { due: now + self.after, hash, id, thread });
        full
    }

    /// When to look again.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.front().map(|w| w.due)
    }

    /// The next thread that has had no event since; those that had one are passed over.
    pub fn pop(&mut self, now: Instant, heads: &ThreadHeads) -> Option<(Thread, MsgId)> {
        while self.queue.front().is_some_and(|w| w.due <= now) {
            let w = self.queue.pop_front()?;
            if heads.of(w.hash) == w.id {
                return Some((w.thread, w.id));
            }
        }
        None
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(s: &str) -> Thread {
        s.parse().unwrap()
    }

    #[test]
    fn an_idle_thread_gets_one_head_and_a_busy_one_none() {
        let (t0, s) = (Instant::now(), Duration::from_secs(1));
        let (a, b) = (thread("dm.a.b"), thread("group.g"));
        let mut heads = ThreadHeads::new(120_000, MsgId(0));
        let mut q = IdleHeads::new(s);
        for (thread, id, at) in [(&a, 1, t0), (&b, 2, t0), (&a, 3, t0 + s / 2)] {
            heads.advance(thread.hash64(), MsgId(id), 0);
            q.published(at, thread.clone(), thread.hash64(), MsgId(id));
        }
        assert_eq!(q.pop(t0 + s / 2, &heads), None);
        assert_eq!(q.pop(t0 + s, &heads), Some((b, MsgId(2))), "a went on");
        assert_eq!(q.pop(t0 + s, &heads), None);
        assert_eq!(q.next_due(), Some(t0 + s / 2 + s));
        assert_eq!(q.pop(t0 + s * 2, &heads), Some((a, MsgId(3))));
        assert_eq!((q.pop(t0 + s * 9, &heads), q.next_due()), (None, None));
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_says_so() {
        let mut q = IdleHeads { max: 2, ..IdleHeads::new(Duration::ZERO) };
        let now = Instant::now();
        let dropped = [1, 2, 3].map(|id| q.published(now, thread("dm.a.b"), 1, MsgId(id)));
        assert_eq!(dropped, [false, false, true]);
        assert_eq!(q.len(), 2);
    }
}
