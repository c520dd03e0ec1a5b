//! One connection's life after the upgrade: `handshake` waits for hello; then one task reads (`incoming`), answers
//! requests (`commands`), writes (`sessions/socket`) and watches the time (`heartbeat`, `stall`). What it asks of the
//! rest of the edge goes through `backend`.
//!
//! Steps 2 (in: `incoming`, `commands`) and 6 (out: `sessions/outbox`, `sessions/socket`). Everybody else reaches the
//! session through its handle only.

pub mod backend;
pub mod commands;
pub mod frame_rate;
pub mod handshake;
mod heartbeat;
mod incoming;
mod running;
mod stall;
#[cfg(test)]
mod tests;

use std::{
    cell::OnceCell,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use natterjack_protocol::{
    MsgId, Refusal, Retry, Thread, Times, Token,
    client::{
        close::{self, Close},
        frame::{Request, ServerFrame},
    },
    limits,
};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{Instrument, Span};

use crate::{
    admission::{Admission, OpenSession, limits::AdmissionLimits},
    clock::Clock,
    sends::{
        connection::ConnectionSends,
        device::{DeviceQueues, SendAnswer},
    },
    sessions::{
        handle::SessionHandle,
        outbox::{Call, WriterState},
        socket::{Gone, PER_FLUSH, Socket},
    },
    status::StatusWatch,
};
use backend::Backend;
use frame_rate::FrameRate;
use running::Running;
use stall::Stall;

/// What all sessions of an edge share.
pub struct Services<B: Backend> {
    pub backend: B,
    pub devices: Arc<DeviceQueues<B::Publisher>>,
    pub admission: Arc<Admission>,
    pub limiter: AdmissionLimits,
    pub clock: Clock,
    pub status: StatusWatch,
    pub times: Times,
    pub edge: Token,
    pub limits: limits::ClientLimits,
    pub counts: Counts,
}

/// Looked up once and not for each frame.
pub struct Counts {
    frames_in: metrics::Counter,
    frames_out: metrics::Counter,
}

impl Default for Counts {
    fn default() -> Self {
        let (frames_in, frames_out) =
            (metrics::counter!(crate::metrics::FRAMES_IN), metrics::counter!(crate::metrics::FRAMES_OUT));
        Self { frames_in, frames_out }
    }
}

/// What a request ends with.
enum Done {
    Answer(ServerFrame),
    Attached(Result<bool, Refusal>),
    Nothing,
}

pub struct Session<B: Backend> {
    services: Arc<Services<B>>,
    handle: Arc<SessionHandle>,
    /// None: it closes, and nobody can reach it any more.
    open: Option<OpenSession>,
    socket: Socket,
    leaving: bool,
    attached: bool,
    /// Everything that this device lacked could be read when it attached; else its `synced` must not move.
    whole: bool,
    /// From the first message on: who sends nothing needs no queue.
    sends: Option<ConnectionSends<B::Publisher>>,
    /// Requests being answered, attach.
    running: Running<Done>,
    /// Of `running`, those that count against `limits::INFLIGHT_REQUESTS`.
    requests: usize,
    rate: FrameRate,
    bad_frames: u32,
    /// Its buffers may have grown: they are given back as soon as nothing is under way.
    gives_back: bool,
    heard: Instant,
    /// The newest acknowledged send: what history must reach ("read your acks").
    acked: Option<(Thread, MsgId)>,
    /// Made with the first request after attach: an idle session does without.
    span: OnceCell<Span>,
}

/// Why a session ends.
enum End {
    /// We close it and say why.
    Close(Close),
    /// The other side has closed, or is gone.
    Peer,
}

impl From<Gone> for End {
    fn from(gone: Gone) -> Self {
        gone.close().map_or(Self::Peer, Self::Close)
    }
}

/// Is there more to do at once, or is everything waited for?
#[derive(PartialEq, Eq)]
enum Turn {
    Again,
    Wait,
}

impl<B: Backend> Session<B> {
    /// Runs until the connection ends; cleans up whatever way it ends, also when dropped. Boxed, with its goodbye in a
    /// box of its own: what this future holds, each idle connection holds.
    pub async fn run(mut self: Box<Self>) {
        let end = self.serve().await;
        // Before the goodbye, which may take a second.
        (self.open, self.sends) = (None, None);
        match end {
            End::Close(why) => {
                metrics::counter!(crate::metrics::CLOSES, "code" => why.code.to_string()).increment(1);
                self.handle.span().in_scope(|| tracing::debug!(code = why.code, "session closed"));
                Box::pin(self.socket.close(why)).await;
            }
            End::Peer => Box::pin(self.socket.finish()).await,
        }
    }

    async fn serve(&mut self) -> End {
        let mut deadline = std::pin::pin!(sleep_until(self.next_ping()));
        let mut stall = None;
        poll_fn(|cx| {
            // Before anything is read: of a login that is over nothing more is taken.
            self.leaving |= self.handle.outbox.awake();
            loop {
                match self.turn(cx, deadline.as_mut(), &mut stall) {
                    Ok(Turn::Again) => {}
                    Ok(Turn::Wait) => return Poll::Pending,
                    Err(end) => return Poll::Ready(end),
                }
            }
        })
        .await
    }

    /// Everything there is to do, once around: what the client says, what its requests came to, what goes out to it,
    /// the timers. By hand and not by `select!`, because an edge does this for each write to each socket. In this
    /// order, so that all that was read goes together, and all that is to be written. The rate limit and tokio's budget
    /// keep the first from starving the others.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Pin<&mut Sleep>,
        stall: &mut Option<Box<Stall>>,
    ) -> Result<Turn, End> {
        let flushed = self.flush(cx, stall)?;
        let full = self.read(cx)?;
        self.collect_answers(cx)?;
        // Or a message was refused: what has come by now must not overtake it.
        if (full || self.sends.as_ref().is_some_and(ConnectionSends::is_closed)) && self.reads() {
            return Ok(Turn::Again);
        }
        if self.leaving && self.under_way() == 0 {
            self.handle.outbox.close(close::DRAINING);
        }
        let Some(flushed) = self.write_queued(cx, flushed, stall)? else { return Ok(Turn::Again) };
        if !flushed && self.is_stalled(cx, stall)? {
            return Ok(Turn::Again);
        }
        if self.gives_back && flushed && self.under_way() == 0 {
            self.gives_back = !self.socket.give_back_buffers(cx);
        }
        self.check_silence(cx, deadline)
    }

    /// Reads on? Not while too much is under way.
    fn reads(&self) -> bool {
        !self.leaving && self.under_way() < limits::INFLIGHT_REQUESTS
    }

    /// Requests and messages without an answer.
    fn under_way(&self) -> usize {
        self.requests + self.sends.as_ref().map_or(0, ConnectionSends::unanswered)
    }

    fn collect_answers(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while let Poll::Ready(done) = self.running.poll_next(cx) {
            self.done(done)?;
        }
        let answers = self.sends.as_mut().map(|s| s.answers(cx)).unwrap_or_default();
        answers.into_iter().for_each(|answer| self.sent(answer));
        Ok(())
    }

    /// Is all that was written on its way? Then nothing has stalled.
    fn flush(&mut self, cx: &mut Context<'_>, stall: &mut Option<Box<Stall>>) -> Result<bool, End> {
        match self.socket.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                *stall = None;
                Ok(true)
            }
            Poll::Ready(Err(gone)) => Err(gone.into()),
            Poll::Pending => Ok(false),
        }
    }

    /// Writes what is queued as long as the socket takes it, and says whether that is all on its way. None: it was
    /// asked to leave meanwhile.
    fn write_queued(
        &mut self,
        cx: &mut Context<'_>,
        mut flushed: bool,
        stall: &mut Option<Box<Stall>>,
    ) -> Result<Option<bool>, End> {
        while let Poll::Ready(call) = self.handle.outbox.poll(cx, self.asleep(flushed), self.leaving) {
            if call == Call::Leave {
                self.leaving = true;
                return Ok(None);
            }
            self.write()?;
            flushed = self.flush(cx, stall)?;
        }
        Ok(Some(flushed))
    }

    /// Who writes while it sleeps.
    fn asleep(&self, flushed: bool) -> WriterState {
        match self.under_way() {
            _ if !flushed => WriterState::Blocked,
            0 => WriterState::Idle,
            _ => WriterState::Expecting,
        }
    }

    /// Step 6: moves what is queued into the socket's buffer; `flush` lets it out once.
    fn write(&mut self) -> Result<(), End> {
        let mut frames = Vec::new();
        let close = self.handle.outbox.take(&mut frames, PER_FLUSH);
        self.services.counts.frames_out.increment(frames.len() as u64);
        self.socket.feed(frames).map_err(|_| End::Peer)?;
        close.map_or(Ok(()), |why| Err(End::Close(why)))
    }

    /// What was written is not taken. True: look again; an error if there is no hope.
    fn is_stalled(&mut self, cx: &mut Context<'_>, stall: &mut Option<Box<Stall>>) -> Result<bool, End> {
        let written = self.socket.written();
        let look = stall.get_or_insert_with(|| Box::new(Stall::new(written)));
        if look.poll(cx).is_pending() {
            return Ok(false);
        }
        let hopeless = look.since(written) > self.services.times.heartbeat_timeout;
        // Overflow dropped the queue; or it takes nothing at all, not one byte.
        if hopeless || (self.handle.outbox.is_closed() && self.handle.outbox.take(&mut Vec::new(), 0).is_some()) {
            return Err(End::Close(close::SLOW_READER));
        }
        Ok(true)
    }

    /// Closes behind what is queued.
    fn last_words(&mut self, why: Close) -> Result<(), End> {
        self.handle.outbox.close(why);
        if self.socket.is_flushed() { self.write() } else { Ok(()) }
    }

    fn error(&self, r: Option<Request>, refusal: Refusal) {
        self.handle.frame(&ServerFrame::error(r, refusal));
    }

    fn done(&mut self, done: Done) -> Result<(), End> {
        match done {
            Done::Answer(frame) => {
                self.requests -= 1;
                self.handle.frame(&frame);
            }
            Done::Nothing => self.requests -= 1,
            Done::Attached(Ok(whole)) => {
                (self.attached, self.whole) = (true, whole);
                self.gives_back = true;
            }
            Done::Attached(Err(refusal)) => {
                self.handle.span().in_scope(|| tracing::debug!(code = ?refusal.code, "attach failed"));
                let why = if refusal.code.retry() == Retry::Later { close::UNAVAILABLE } else { close::BAD_FRAME };
                self.error(None, refusal);
                return self.last_words(why);
            }
        }
        Ok(())
    }

    fn sends(&mut self) -> &mut ConnectionSends<B::Publisher> {
        self.sends.get_or_insert_with(|| ConnectionSends::new(&self.services.devices, &self.handle))
    }

    fn sent(&mut self, SendAnswer { r, cid, thread, result }: SendAnswer) {
        match result {
            Ok(id) => {
                self.acked = Some((thread.clone(), id));
                self.handle.frame(&ServerFrame::Sent { r, cid, thread, id });
            }
            Err(refusal) => self.error(Some(r), refusal),
        }
    }

    fn request(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.requests += 1;
        let span = self.span.get_or_init(|| self.handle.span()).clone();
        self.running.push(work.instrument(span));
    }
}
