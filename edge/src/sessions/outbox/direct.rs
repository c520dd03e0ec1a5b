//! Step 6 by the dispatcher: while a session's task sleeps, what came for it is written without waking it. A write
//! costs 4 µs of kernel, a wake nearly as much again in this process (ADR 14).
//!
//! Never waits: whatever the socket does not take at once is left to the task, as everything is that is no writing.

use bytes::Bytes;

use super::{LASTING, SessionOutbox, WriterState, wake};
use crate::sessions::socket::{PER_FLUSH, SocketWriter, WriteOutcome};

impl SessionOutbox {
    /// To be called once, before its task waits in `poll`.
    pub fn writes_to(&self, socket: SocketWriter) {
        let _ = self.socket.set(socket);
    }

    /// As `push`, and wakes nobody, so that all that comes in a moment is written together. True: who pushes has to
    /// call [`SessionOutbox::write`] or [`SessionOutbox::wake`] then.
    pub fn push_unwritten(&self, frame: Bytes) -> bool {
        self.add(LASTING, frame)
    }

    /// Writes what is queued if its task sleeps and the socket takes it; else the task is woken. Returns how many
    /// frames were taken from the queue.
    pub fn write(&self) -> usize {
        let mut taken = 0;
        let lend = || {
            let mut q = self.queue.lock();
            if q.closed.is_some() || q.frames.is_empty() {
                return None;
            }
            q.waiter.as_mut().filter(|w| w.writer == WriterState::Idle)?.writer = WriterState::Dispatcher;
            let mut frames = Vec::with_capacity(q.frames.len());
            self.take_from(&mut q, &mut frames, PER_FLUSH);
            taken = frames.len();
            Some(frames)
        };
        match self.socket.get().map_or(WriteOutcome::Nothing, |socket| socket.write(lend)) {
            WriteOutcome::Nothing => self.wake(),
            outcome => self.written(&outcome),
        }
        taken
    }

    /// Its task may have been awake meanwhile, and asleep again.
    fn written(&self, outcome: &WriteOutcome) {
        let mut q = self.queue.lock();
        let waiter = if *outcome == WriteOutcome::All {
            if let Some(waiter) = q.waiter.as_mut().filter(|w| w.writer == WriterState::Dispatcher) {
                waiter.writer = WriterState::Idle;
            }
            // For what came meanwhile.
            q.sleeper()
        } else {
            q.waiter.take()
        };
        drop(q);
        wake(waiter);
    }
}
