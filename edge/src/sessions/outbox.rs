//! Step 6: what waits for one session's socket. Filled by the dispatcher and by the session itself, drained by the
//! session's task, or by the dispatcher while that sleeps.
//!
//! Bounded by frames and bytes, in two ways. What a client has asked for (the pages of attach, answers) waits until
//! there is room (`SessionHandle::room`), however slow the line is. What comes by itself cannot wait: overflow of live
//! frames drops the whole queue and closes the session with a resumable code: a slow reader costs nobody else anything,
//! and comes back with its cursors.

mod direct;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::OnceLock,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use natterjack_protocol::{
    client::close::{self, Close},
    limits,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::socket::SocketWriter;

#[derive(Default)]
struct Queue {
    frames: VecDeque<(u64, Bytes)>,
    /// Live frames and their bytes; with those that are held for this session while it attaches.
    live: u32,
    live_bytes: u32,
    closed: Option<Close>,
    leave: bool,
    waiter: Option<Waiter>,
}

/// The task that drains it.
struct Waiter {
    waker: Waker,
    writer: WriterState,
}

/// What becomes of a frame that is queued now. Changes under the queue's lock only, so one task at a time writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterState {
    /// The task sleeps and nothing is half written: the first frame wakes it, or the dispatcher writes.
    Idle,
    /// Likewise, but an answer is on its way to the task, which writes both together: it is woken.
    Expecting,
    /// The dispatcher has taken what was queued and looks at the queue once more when it has written that.
    Dispatcher,
    /// The task is at work and looks at the queue before it sleeps.
    Busy,
    /// The task sleeps until its socket takes something again.
    Blocked,
}

impl WriterState {
    /// Does the first frame have to be told to somebody?
    fn is_asleep(self) -> bool {
        matches!(self, Self::Idle | Self::Expecting)
    }
}

/// What a session is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// There are frames, or it is to close behind them.
    Write,
    /// It is to finish what it has begun and go.
    Leave,
}

impl Queue {
    /// Counts one more live frame. False: that is one too many of what may wait, of `1/part` of it.
    fn count(&mut self, bytes: usize, part: usize) -> bool {
        let (frames, bytes) = (self.live as usize + 1, self.live_bytes as usize + bytes);
        let fits = frames <= limits::OUTBOX_FRAMES / part && bytes <= limits::OUTBOX_BYTES / part;
        if fits {
            (self.live, self.live_bytes) = (frames as u32, bytes as u32);
        }
        fits
    }

    fn is_behind(&self) -> bool {
        self.frames.len() > limits::OUTBOX_FRAMES / 2 || self.live_bytes as usize > limits::OUTBOX_BYTES / 2
    }

    fn discount(&mut self, frames: usize, bytes: usize) {
        self.live = self.live.saturating_sub(frames as u32);
        self.live_bytes = self.live_bytes.saturating_sub(bytes as u32);
    }

    /// Its task, if that sleeps and there is something to do.
    fn sleeper(&mut self) -> Option<Waiter> {
        let work = !self.frames.is_empty() || self.closed.is_some();
        if work { self.waiter.take_if(|w| w.writer.is_asleep()) } else { None }
    }

    fn is_asleep(&self) -> bool {
        self.waiter.as_ref().is_some_and(|w| w.writer.is_asleep())
    }

    /// True: nobody writes it unless told to.
    fn enqueue(&mut self, key: u64, frame: Bytes) -> bool {
        let was_empty = self.frames.is_empty();
        self.frames.push_back((key, frame));
        was_empty && self.is_asleep()
    }
}

/// Key of a frame that nothing may replace, and of one that belongs to a snapshot; those of others are larger.
const LASTING: u64 = 0;
const SNAPSHOT: u64 = 1;
/// What may be held of live frames while a session attaches: the rest is room for what comes right behind them.
const HELD_PART: usize = 2;

pub struct SessionOutbox {
    queue: Mutex<Queue>,
    /// Bytes of a snapshot that may still be asked for. In order: a large piece waits no longer than the small ones
    /// before it.
    room: Semaphore,
    /// Of a session over a socket.
    socket: OnceLock<SocketWriter>,
}

impl Default for SessionOutbox {
    fn default() -> Self {
        let room = Semaphore::new(limits::SNAPSHOT_BYTES);
        Self { queue: Mutex::default(), room, socket: OnceLock::new() }
    }
}

impl SessionOutbox {
    /// Waits for room of a snapshot. False: the session is over. What is taken has to be given back by
    /// [`SessionOutbox::push_snapshot`] or [`SessionOutbox::give_back`]; dropping the future takes nothing.
    pub(super) async fn take_room(&self, bytes: usize) -> bool {
        self.room.acquire_many(bytes as u32).await.map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.room.add_permits(bytes);
    }

    /// Queues a frame for which [`limits::PAGE_BYTES`] of room were taken.
    pub(super) fn push_snapshot(&self, frame: Bytes) {
        self.give_back(limits::PAGE_BYTES - charge(&frame));
        let mut q = self.queue.lock();
        let unwritten = q.closed.is_none() && q.enqueue(SNAPSHOT, frame);
        drop(q);
        if unwritten {
            self.wake();
        }
    }

    /// Counts a live frame that somebody keeps until this session has its pages. False: too many of them are kept.
    pub fn hold(&self, bytes: usize) -> bool {
        let mut q = self.queue.lock();
        q.closed.is_some() || q.count(bytes, HELD_PART)
    }

    /// Held frames are not kept any more, or are pushed now.
    pub fn release(&self, frames: usize, bytes: usize) {
        self.queue.lock().discount(frames, bytes);
    }

    /// Queues a live frame that is already in the session's codec.
    pub fn push(&self, frame: Bytes) {
        if self.add(LASTING, frame) {
            self.wake();
        }
    }

    /// Queues a frame of which only the last per `key` matters (typing); dropped when the reader is behind anyway.
    pub fn push_ephemeral(&self, key: u64, frame: Bytes) {
        let key = key.max(SNAPSHOT + 1);
        let mut q = self.queue.lock();
        if let Some(old) = q.frames.iter().position(|(k, _)| *k == key) {
            let (_, gone) = std::mem::replace(&mut q.frames[old], (key, frame.clone()));
            q.discount(0, gone.len());
            q.live_bytes += frame.len() as u32;
            return;
        }
        let behind = q.is_behind();
        drop(q);
        if !behind && self.add(key, frame) {
            self.wake();
        }
    }

    /// True: its task sleeps and has something to do now.
    fn add(&self, key: u64, frame: Bytes) -> bool {
        let mut q = self.queue.lock();
        if q.closed.is_some() {
            return false;
        }
        if q.count(frame.len(), 1) {
            return q.enqueue(key, frame);
        }
        metrics::counter!(crate::metrics::OUTBOX_OVERFLOWS).increment(1);
        *q = Queue { closed: Some(close::SLOW_READER), leave: q.leave, waiter: q.waiter.take(), ..Queue::default() };
        self.room.close();
        q.is_asleep()
    }

    /// Wakes its task, if that sleeps and there is something to do.
    pub fn wake(&self) {
        let sleeper = self.queue.lock().sleeper();
        wake(sleeper);
    }

    /// Closes after what is queued has been written. The first reason stays.
    pub fn close(&self, why: Close) {
        let mut q = self.queue.lock();
        if q.closed.is_some() {
            return;
        }
        q.closed = Some(why);
        self.room.close();
        let waiter = q.waiter.take();
        drop(q);
        wake(waiter);
    }

    /// Asks the session to finish what it has begun and to go.
    pub fn leave(&self) {
        let mut q = self.queue.lock();
        q.leave = true;
        let waiter = q.waiter.take();
        drop(q);
        wake(waiter);
    }

    /// So much waits that what may wait elsewhere should.
    pub fn is_behind(&self) -> bool {
        self.queue.lock().is_behind()
    }

    pub fn is_closed(&self) -> bool {
        self.queue.lock().closed.is_some()
    }

    /// Is there something to do? What was said before it was asked to leave goes first. `asleep`: what it is if not;
    /// blocked, it takes no frames now. `leaving`: it was asked before. One task may wait here.
    pub fn poll(&self, cx: &mut Context<'_>, asleep: WriterState, leaving: bool) -> Poll<Call> {
        let mut q = self.queue.lock();
        if asleep != WriterState::Blocked && (!q.frames.is_empty() || q.closed.is_some()) {
            return Poll::Ready(Call::Write);
        }
        if q.leave && !leaving {
            return Poll::Ready(Call::Leave);
        }
        match &mut q.waiter {
            Some(waiter) if waiter.waker.will_wake(cx.waker()) => waiter.writer = asleep,
            waiter => *waiter = Some(Waiter { waker: cx.waker().clone(), writer: asleep }),
        }
        Poll::Pending
    }

    /// Its task is awake and will `poll` before it sleeps: what it says itself need not wake it. True: it was asked to
    /// leave.
    pub fn awake(&self) -> bool {
        let mut q = self.queue.lock();
        if let Some(waiter) = &mut q.waiter {
            waiter.writer = WriterState::Busy;
        }
        q.leave
    }

    /// Waits for something to do. Cancel-safe: looks at the queue, takes nothing.
    pub async fn called(&self) -> Call {
        poll_fn(|cx| self.poll(cx, WriterState::Idle, false)).await
    }

    /// Moves queued frames to `into`, stopping once `max_bytes` are exceeded. Returns why to close, once nothing is
    /// left to write.
    pub fn take(&self, into: &mut Vec<Bytes>, max_bytes: usize) -> Option<Close> {
        let mut q = self.queue.lock();
        self.take_from(&mut q, into, max_bytes);
        if q.frames.is_empty() { q.closed } else { None }
    }

    fn take_from(&self, q: &mut Queue, into: &mut Vec<Bytes>, max_bytes: usize) {
        let (mut taken, mut room) = (0, 0);
        while taken < max_bytes {
            let Some((key, frame)) = q.frames.pop_front() else { break };
            taken += frame.len();
            match key {
                SNAPSHOT => room += charge(&frame),
                _ => q.discount(1, frame.len()),
            }
            into.push(frame);
        }
        if room > 0 {
            self.give_back(room);
        }
        // An idle session keeps no queue: 100,000 of them would keep 100,000 buffers. One is made within a hundredth of
        // the time that a write takes.
        if q.frames.is_empty() {
            q.frames = VecDeque::new();
        }
    }
}

/// What a frame of a snapshot counts: a single event may be larger than the room of a page.
fn charge(frame: &Bytes) -> usize {
    frame.len().min(limits::PAGE_BYTES)
}

fn wake(waiter: Option<Waiter>) {
    if let Some(waiter) = waiter {
        waiter.waker.wake();
    }
}
