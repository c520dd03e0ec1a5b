//! Step 2: the order of one device's sends. One publish in flight per thread, the others wait behind it, so that neither a retry nor a
//! leader election can swap two messages of a sender. Pure.

use std::collections::{HashMap, VecDeque};

use natterjack_protocol::{Thread, frame::Send};

/// A key is there while a send of that thread is in flight. Bounded by the session's in-flight requests.
#[derive(Default)]
pub struct SendQueue {
    threads: HashMap<Thread, VecDeque<Send>>,
    waiting: usize,
}

impl SendQueue {
    /// Returns the send if nothing of its thread is in flight: publish it now.
    pub fn push(&mut self, send: Send) -> Option<Send> {
        if let Some(queue) = self.threads.get_mut(&send.thread) {
            queue.push_back(send);
            self.waiting += 1;
            return None;
        }
        self.threads.insert(send.thread.clone(), VecDeque::new());
        Some(send)
    }

    /// The send in flight was decided: the next one of its thread, to publish now.
    pub fn done(&mut self, thread: &Thread) -> Option<Send> {
        let next = self.threads.get_mut(thread)?.pop_front();
        match next {
            Some(_) => self.waiting -= 1,
            None => {
                self.threads.remove(thread);
            }
        }
        next
    }

    /// The send in flight failed and will come again: what waits behind it must come again too, behind it.
    pub fn fail(&mut self, thread: &Thread) -> VecDeque<Send> {
        let behind = self.threads.remove(thread).unwrap_or_default();
        self.waiting -= behind.len();
        behind
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

    #[test]
    fn one_in_flight_per_thread_in_order_and_threads_do_not_wait_for_each_other() {
        let mut q = SendQueue::default();
        let (a, b): (Thread, Thread) = ("dm.a.b".parse().unwrap(), "group.g".parse().unwrap());
        assert_eq!(q.push(send("dm.a.b", 1)).unwrap().r, 1);
        assert!(q.push(send("dm.a.b", 2)).is_none() && q.push(send("dm.a.b", 3)).is_none());
        assert_eq!(q.push(send("group.g", 4)).unwrap().r, 4);
        assert_eq!(q.waiting(), 2);
        assert!(q.done(&b).is_none());
        assert_eq!(q.done(&a).unwrap().r, 2);
        assert_eq!(q.done(&a).unwrap().r, 3);
        assert!(q.done(&a).is_none());
        assert_eq!((q.waiting(), q.threads.len()), (0, 0));
        assert!(q.push(send("dm.a.b", 5)).is_some());
    }

    #[test]
    fn what_waits_behind_a_failure_fails_with_it() {
        let mut q = SendQueue::default();
        let a: Thread = "dm.a.b".parse().unwrap();
        for n in 1..=3 {
            q.push(send("dm.a.b", n));
        }
        assert_eq!(q.fail(&a).iter().map(|s| s.r).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(q.waiting(), 0);
        assert!(q.push(send("dm.a.b", 1)).is_some(), "the resends begin anew");
        assert!(q.done(&"dm.x.y".parse().unwrap()).is_none());
    }
}
