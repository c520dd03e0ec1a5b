//! Step 6: what waits for one session's socket. Filled by the dispatcher and by the session itself, drained by the session's writer.
//!
//! Bounded by frames and bytes. Overflow drops the whole queue and closes the session with a resumable code:
//! a slow reader costs nobody else anything, and comes back with its cursors.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use natterjack_protocol::{
    close::{self, Close},
    limits,
};
use parking_lot::Mutex;

#[derive(Default)]
struct Queue {
    frames: VecDeque<(u64, Bytes)>,
    bytes: usize,
    closed: Option<Close>,
    leave: bool,
    waiter: Option<Waiter>,
}

/// The task that drains it.
struct Waiter {
    waker: Waker,
    /// Not while its socket takes nothing, nor while it is at work.
    wants_frames: bool,
}

/// What a session is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// There are frames, or it is to close behind them.
    Write,
    /// It is to finish what it has begun and go.
    Leave,
}

/// Key of a frame that nothing may replace.
const LASTING: u64 = 0;

#[derive(Default)]
pub struct Outbox(Mutex<Queue>);

impl Outbox {
    /// Queues a frame that is already in the session's codec.
    pub fn push(&self, frame: Bytes) {
        self.add(LASTING, frame);
    }

    /// Queues a frame of which only the last per `key` matters (typing); dropped when the reader is behind anyway.
    pub fn push_ephemeral(&self, key: u64, frame: Bytes) {
        let key = key.max(1);
        let mut q = self.0.lock();
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
        let mut q = self.0.lock();
        if q.closed.is_some() {
            return;
        }
        let was_empty = q.frames.is_empty();
        q.bytes += frame.len();
        q.frames.push_back((key, frame));
        if q.frames.len() > limits::OUTBOX_FRAMES || q.bytes > limits::OUTBOX_BYTES {
            metrics::counter!("natterjack_edge_outbox_overflows_total").increment(1);
            q.frames = VecDeque::new();
            (q.bytes, q.closed) = (0, Some(close::SLOW_READER));
        } else if !was_empty {
            return;
        }
        let waiter = q.waiter.take_if(|w| w.wants_frames);
        drop(q);
        wake(waiter);
    }

    /// Closes after what is queued has been written. The first reason stays.
    pub fn close(&self, why: Close) {
        let mut q = self.0.lock();
        if q.closed.is_some() {
            return;
        }
        q.closed = Some(why);
        let waiter = q.waiter.take();
        drop(q);
        wake(waiter);
    }

    /// Asks the session to finish what it has begun and to go.
    pub fn leave(&self) {
        let mut q = self.0.lock();
        q.leave = true;
        let waiter = q.waiter.take();
        drop(q);
        wake(waiter);
    }

    pub fn is_closed(&self) -> bool {
        self.0.lock().closed.is_some()
    }

    /// Is there something to do? What was said before it was asked to leave goes first. `frames`: can they be written now? `leaving`: it
    /// was asked before. One task may wait here.
    pub fn poll(&self, cx: &mut Context<'_>, frames: bool, leaving: bool) -> Poll<Call> {
        let mut q = self.0.lock();
        if frames && (!q.frames.is_empty() || q.closed.is_some()) {
            return Poll::Ready(Call::Write);
        }
        if q.leave && !leaving {
            return Poll::Ready(Call::Leave);
        }
        match &mut q.waiter {
            Some(waiter) if waiter.waker.will_wake(cx.waker()) => waiter.wants_frames = frames,
            waiter => *waiter = Some(Waiter { waker: cx.waker().clone(), wants_frames: frames }),
        }
        Poll::Pending
    }

    /// Its task is awake and will `poll` before it sleeps: what it says itself need not wake it.
    pub fn awake(&self) {
        if let Some(waiter) = &mut self.0.lock().waiter {
            waiter.wants_frames = false;
        }
    }

    /// Waits for something to do. Cancel-safe: looks at the queue, takes nothing.
    pub async fn called(&self) -> Call {
        poll_fn(|cx| self.poll(cx, true, false)).await
    }

    /// Moves queued frames to `into`, stopping once `max_bytes` are exceeded. Returns why to close, once nothing is left to write.
    pub fn take(&self, into: &mut Vec<Bytes>, max_bytes: usize) -> Option<Close> {
        let mut q = self.0.lock();
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

fn wake(waiter: Option<Waiter>) {
    if let Some(waiter) = waiter {
        waiter.waker.wake();
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
        let by_frames = Outbox::default();
        (0..limits::OUTBOX_FRAMES).for_each(|_| by_frames.push(frame(1)));
        assert!(!by_frames.is_closed());
        by_frames.push(frame(1));
        let mut out = Vec::new();
        assert_eq!(by_frames.take(&mut out, usize::MAX), Some(close::SLOW_READER));
        assert!(out.is_empty(), "the queue is dropped as a whole");

        let by_bytes = Outbox::default();
        by_bytes.push(frame(limits::OUTBOX_BYTES));
        assert!(!by_bytes.is_closed());
        by_bytes.push(frame(1));
        assert_eq!(by_bytes.take(&mut out, usize::MAX), Some(close::SLOW_READER));
    }

    #[test]
    fn close_waits_for_what_is_queued() {
        let o = Outbox::default();
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

    /// Counts its wakes.
    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicUsize);

    impl futures_util::task::ArcWake for Woken {
        fn wake_by_ref(this: &std::sync::Arc<Self>) {
            this.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn a_session_is_woken_for_what_it_can_do_and_once() {
        let (o, woken) = (Outbox::default(), std::sync::Arc::new(Woken::default()));
        let waker = futures_util::task::waker(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let wakes = || woken.0.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(o.poll(&mut cx, true, false), Poll::Pending);
        o.push(frame(1));
        o.push(frame(1));
        assert_eq!((wakes(), o.poll(&mut cx, true, false)), (1, Poll::Ready(Call::Write)));
        o.take(&mut Vec::new(), usize::MAX);
        assert_eq!(o.poll(&mut cx, true, false), Poll::Pending);
        o.awake();
        o.push(frame(1));
        assert_eq!((wakes(), o.poll(&mut cx, true, false)), (1, Poll::Ready(Call::Write)), "what it says itself");
        assert_eq!(o.poll(&mut cx, false, false), Poll::Pending, "its socket takes nothing");
        o.push(frame(1));
        assert_eq!(wakes(), 1);
        o.leave();
        assert_eq!((wakes(), o.poll(&mut cx, false, false)), (2, Poll::Ready(Call::Leave)));
        assert_eq!(o.poll(&mut cx, true, false), Poll::Ready(Call::Write), "what was said before");
        assert_eq!(o.poll(&mut cx, false, true), Poll::Pending, "it knows");
        o.close(close::DRAINING);
        assert_eq!(o.poll(&mut cx, false, true), Poll::Pending);
        o.close(close::BYE);
        assert_eq!((wakes(), o.poll(&mut cx, true, true)), (3, Poll::Ready(Call::Write)), "not for what it knows");
        assert_eq!(o.take(&mut Vec::new(), usize::MAX), Some(close::DRAINING));
    }

    #[test]
    fn the_last_value_of_an_ephemeral_wins() {
        let o = Outbox::default();
        o.push_ephemeral(7, frame(3));
        o.push(frame(1));
        o.push_ephemeral(7, frame(4));
        let mut out = Vec::new();
        o.take(&mut out, usize::MAX);
        assert_eq!(out.iter().map(Bytes::len).collect::<Vec<_>>(), [4, 1]);
    }
}
