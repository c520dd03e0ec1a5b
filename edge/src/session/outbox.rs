//! Step 6: what waits for one session's socket. Filled by the dispatcher and by the session itself, drained by the session's writer.
//!
//! Bounded by frames and bytes. Overflow drops the whole queue and closes the session with a resumable code:
//! a slow reader costs nobody else anything, and comes back with its cursors.

use std::collections::VecDeque;

use bytes::Bytes;
use natterjack_protocol::{
    close::{self, Close},
    limits,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Default)]
struct Queue {
    frames: VecDeque<(u64, Bytes)>,
    bytes: usize,
    closed: Option<Close>,
}

/// Key of a frame that nothing may replace.
const LASTING: u64 = 0;

pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbox {
    pub fn new() -> Self {
        Self { queue: Mutex::new(Queue::default()), filled: Notify::new() }
    }

    /// Queues a frame that is already in the session's codec.
    pub fn push(&self, frame: Bytes) {
        self.add(LASTING, frame);
    }

    /// Queues a frame of which only the last per `key` matters (typing); dropped when the reader is behind anyway.
    pub fn push_ephemeral(&self, key: u64, frame: Bytes) {
        let key = key.max(1);
        let mut q = self.queue.lock();
        if let Some(old) = q.frames.iter().position(|(k, _)| *k == key) {
            let (_, gone) = std::mem::replace(&mut q.frames[old], (key, frame.clone()));
            q.bytes = q.bytes - gone.len() + frame.len();
            return;
        }
        let behind = q.frames.len() > limits::OUTBOX_FRAMES / 2 || q.bytes > limits::OUTBOX_BYTES / 2;
        drop(q);
        if !behind {
            self.add(key, frame);
        }
    }

    fn add(&self, key: u64, frame: Bytes) {
        let mut q = self.queue.lock();
        if q.closed.is_some() {
            return;
        }
        let was_empty = q.frames.is_empty();
        q.bytes += frame.len();
        q.frames.push_back((key, frame));
        if q.frames.len() > limits::OUTBOX_FRAMES || q.bytes > limits::OUTBOX_BYTES {
            metrics::counter!("natterjack_edge_outbox_overflows_total").increment(1);
            *q = Queue { closed: Some(close::SLOW_READER), ..Queue::default() };
        } else if !was_empty {
            return;
        }
        drop(q);
        self.filled.notify_one();
    }

    /// Closes after what is queued has been written. The first reason stays.
    pub fn close(&self, why: Close) {
        self.queue.lock().closed.get_or_insert(why);
        self.filled.notify_one();
    }

    pub fn is_closed(&self) -> bool {
        self.queue.lock().closed.is_some()
    }

    /// Waits until there is something to write, or the session is to be closed. Cancel-safe: looks at the queue, takes nothing.
    pub async fn ready(&self) {
        loop {
            {
                let q = self.queue.lock();
                if !q.frames.is_empty() || q.closed.is_some() {
                    return;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Moves queued frames to `into`, stopping once `max_bytes` are exceeded. Returns why to close, once nothing is left to write.
    pub fn take(&self, into: &mut Vec<Bytes>, max_bytes: usize) -> Option<Close> {
        let mut q = self.queue.lock();
        let mut taken = 0;
        while taken < max_bytes {
            let Some((_, frame)) = q.frames.pop_front() else { break };
            taken += frame.len();
            into.push(frame);
        }
        q.bytes -= taken;
        if !q.frames.is_empty() {
            return None;
        }
        // An idle session keeps no queue: 100,000 of them would keep 100,000 buffers.
        if q.frames.capacity() > 4 {
            q.frames = VecDeque::new();
        }
        q.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: usize) -> Bytes {
        Bytes::from(vec![0; n])
    }

    #[test]
    fn overflow_by_frames_and_by_bytes_closes_with_a_resumable_code() {
        let by_frames = Outbox::new();
        (0..limits::OUTBOX_FRAMES).for_each(|_| by_frames.push(frame(1)));
        assert!(!by_frames.is_closed());
        by_frames.push(frame(1));
        let mut out = Vec::new();
        assert_eq!(by_frames.take(&mut out, usize::MAX), Some(close::SLOW_READER));
        assert!(out.is_empty(), "the queue is dropped as a whole");

        let by_bytes = Outbox::new();
        by_bytes.push(frame(limits::OUTBOX_BYTES));
        assert!(!by_bytes.is_closed());
        by_bytes.push(frame(1));
        assert_eq!(by_bytes.take(&mut out, usize::MAX), Some(close::SLOW_READER));
    }

    #[test]
    fn close_waits_for_what_is_queued() {
        let o = Outbox::new();
        o.push(frame(10));
        o.push(frame(10));
        o.close(close::DRAINING);
        o.push(frame(10));
        let mut out = Vec::new();
        assert_eq!(o.take(&mut out, 5), None);
        assert_eq!(out.len(), 1);
        assert_eq!(o.take(&mut out, 5), Some(close::DRAINING));
        assert_eq!(out.len(), 2, "nothing is queued behind a close");
    }

    #[test]
    fn the_last_value_of_an_ephemeral_wins() {
        let o = Outbox::new();
        o.push_ephemeral(7, frame(3));
        o.push(frame(1));
        o.push_ephemeral(7, frame(4));
        let mut out = Vec::new();
        o.take(&mut out, usize::MAX);
        assert_eq!(out.iter().map(Bytes::len).collect::<Vec<_>>(), [4, 1]);
    }
}
