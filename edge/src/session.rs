//! One connection's life after the upgrade: `handshake` waits for hello; then reading, requests, writing and heartbeat
//! in one task.
//!
//! Steps 2 (in: `commands`) and 6 (out: `outbox`, `socket`). Everybody else reaches the session through its handle
//! only.

pub mod commands;
pub mod frame_rate;
pub mod handshake;
pub mod socket;

use std::{
    cell::OnceCell,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use natterjack_protocol::{
    Code, MsgId, Refusal, Retry, Thread, Times, Token,
    client::{
        close::{self, Close},
        frame::{ClientFrame, Request, ServerFrame, TypingIn},
    },
    codec::Codec,
    limits,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep},
};
use tokio_tungstenite::tungstenite::Message;
use tracing::{Instrument, Span};

use crate::{
    admission::{Admission, OpenSession, limits::AdmissionLimits},
    attach::Attach,
    auth::TokenVerifier,
    clock::Clock,
    pages::Pages,
    sends::{connection::ConnectionSends, device::SendAnswer, send::Sends},
    sessions::{handle::SessionHandle, outbox::Call},
    status::StatusWatch,
    threads::ThreadLists,
};
use frame_rate::{FrameRate, FrameVerdict};
use socket::{Gone, PER_FLUSH, Socket};

/// What the sessions of an edge use.
pub struct Services {
    pub auth: TokenVerifier,
    pub admission: Arc<Admission>,
    pub limiter: AdmissionLimits,
    pub attach: Attach,
    pub clock: Clock,
    pub status: StatusWatch,
    pub sends: Arc<Sends>,
    pub pages: Pages,
    pub threads: ThreadLists,
    pub nats: natterjack_nats::Nats,
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
        let (frames_in, frames_out) = (metrics::counter!(crate::metrics::FRAMES_IN), metrics::counter!(crate::metrics::FRAMES_OUT));
        Self { frames_in, frames_out }
    }
}

/// What a request ends with.
enum Done {
    Answer(ServerFrame),
    Attached(Result<bool, Refusal>),
    Nothing,
}

/// Frames that are none, before the connection is given up.
const BAD_FRAMES: u32 = 10;
/// How often a reader that does not take its bytes is looked after.
const STALL: Duration = Duration::from_secs(1);

pub struct Session<S> {
    services: Arc<Services>,
    handle: Arc<SessionHandle>,
    /// None: its goodbye is being said.
    open: Option<OpenSession>,
    socket: Socket<S>,
    leaving: bool,
    attached: bool,
    /// Everything that this device lacked could be read when it attached; else its `synced` must not move.
    whole: bool,
    /// From the first message on: who sends nothing needs no queue.
    sends: Option<ConnectionSends>,
    /// Requests being answered, attach.
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Of `running`, those that count against `limits::INFLIGHT_REQUESTS`.
    requests: usize,
    rate: FrameRate,
    bad_frames: u32,
    heard: Instant,
    /// The newest acknowledged send: what history must reach ("read your acks").
    acked: Option<(Thread, MsgId)>,
    /// Made with the first request after attach: an idle session does without.
    span: OnceCell<Span>,
}

/// What is known of a socket that does not take what was written: a slow line takes some of it from time to time.
struct Stall {
    timer: Pin<Box<Sleep>>,
    /// How much it had taken, and since when no more.
    written: u64,
    since: Instant,
}

impl Stall {
    fn new(written: u64) -> Self {
        Self { timer: Box::pin(sleep(STALL)), written, since: Instant::now() }
    }

    /// How long it has taken nothing; is to be asked again in a moment.
    fn since(&mut self, written: u64) -> Duration {
        if self.written != written {
            (self.written, self.since) = (written, Instant::now());
        }
        self.timer.as_mut().reset(Instant::now() + STALL);
        self.since.elapsed()
    }
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

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
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
        let silence = self.services.times.heartbeat_timeout;
        // Jitter, so that a thousand sessions that came together are not looked at together.
        // One timer, moved only when it fires: a frame that arrives costs no timer.
        let mut deadline = std::pin::pin!(sleep(silence + silence.mul_f64(rand::random_range(0.0..0.1))));
        let mut stall = None;
        poll_fn(|cx| self.turn(cx, deadline.as_mut(), &mut stall)).await
    }

    /// Everything there is to do, once around: what the client says, what its requests came to, what goes out to it,
    /// the timers. By hand and not by `select!`, because an edge does this for each write to each socket. In this
    /// order, so that all that was read goes together, and all that is to be written. The rate limit and tokio's budget
    /// keep the first from starving the others.
    fn turn(&mut self, cx: &mut Context<'_>, mut deadline: Pin<&mut Sleep>, stall: &mut Option<Box<Stall>>) -> Poll<End> {
        let silence = self.services.times.heartbeat_timeout;
        self.handle.outbox.awake();
        loop {
            let mut flushed = match self.flush(cx, stall) {
                Ok(flushed) => flushed,
                Err(end) => return Poll::Ready(end),
            };
            // In. Backpressure instead of refusals: what a client pipelines beyond its limit waits in its socket, in
            // order.
            while self.reads() {
                match self.socket.poll_read(cx) {
                    Poll::Ready(Ok(message)) => {
                        self.heard = Instant::now();
                        if let Some(end) = self.message(message) {
                            return Poll::Ready(end);
                        }
                    }
                    Poll::Ready(Err(gone)) => return Poll::Ready(gone.into()),
                    Poll::Pending => {
                        self.sends.iter().for_each(ConnectionSends::received_all);
                        break;
                    }
                }
            }
            self.sends.iter_mut().for_each(ConnectionSends::publish);
            let full = !self.reads();
            while !self.running.is_empty()
                && let Poll::Ready(Some(done)) = self.running.poll_next_unpin(cx)
            {
                if let Some(end) = self.done(done) {
                    return Poll::Ready(end);
                }
            }
            let answers = self.sends.as_mut().map(|s| s.answers(cx)).unwrap_or_default();
            answers.into_iter().for_each(|answer| self.sent(answer));
            // Or a message was refused: what has come by now must not overtake it.
            if (full || self.sends.as_ref().is_some_and(ConnectionSends::is_closed)) && self.reads() {
                continue;
            }
            if self.leaving && self.under_way() == 0 {
                self.handle.outbox.close(close::DRAINING);
            }
            // Out.
            let asked = self.leaving;
            while let Poll::Ready(call) = self.handle.outbox.poll(cx, flushed, self.leaving) {
                if call == Call::Leave {
                    self.leaving = true;
                    break;
                }
                if let Some(end) = self.write() {
                    return Poll::Ready(end);
                }
                flushed = match self.flush(cx, stall) {
                    Ok(flushed) => flushed,
                    Err(end) => return Poll::Ready(end),
                };
            }
            if self.leaving != asked {
                continue;
            }
            if !flushed {
                let written = self.socket.written();
                let look = stall.get_or_insert_with(|| Box::new(Stall::new(written)));
                if look.timer.as_mut().poll(cx).is_ready() {
                    let hopeless = look.since(written) > silence;
                    // Overflow dropped the queue; or it takes nothing at all, not one byte.
                    if hopeless || (self.handle.outbox.is_closed() && self.handle.outbox.take(&mut Vec::new(), 0).is_some()) {
                        return Poll::Ready(End::Close(close::SLOW_READER));
                    }
                    continue;
                }
            }
            if deadline.as_mut().poll(cx).is_ready() {
                // Reads are paused, so the heartbeat timer does not apply.
                if self.reads() && self.heard.elapsed() >= silence {
                    return Poll::Ready(End::Close(close::HEARTBEAT));
                }
                deadline.as_mut().reset(if self.reads() { self.heard } else { Instant::now() } + silence);
                continue;
            }
            return Poll::Pending;
        }
    }

    /// Reads on? Not while too much is under way.
    fn reads(&self) -> bool {
        !self.leaving && self.under_way() < limits::INFLIGHT_REQUESTS
    }

    /// Requests and messages without an answer.
    fn under_way(&self) -> usize {
        self.requests + self.sends.as_ref().map_or(0, ConnectionSends::unanswered)
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

    /// Step 6: moves what is queued into the socket's buffer; `flush` lets it out once.
    fn write(&mut self) -> Option<End> {
        let mut frames = Vec::new();
        let close = self.handle.outbox.take(&mut frames, PER_FLUSH);
        self.services.counts.frames_out.increment(frames.len() as u64);
        match (self.socket.feed(frames), close) {
            (Err(_), _) => Some(End::Peer),
            (Ok(()), Some(why)) => Some(End::Close(why)),
            (Ok(()), None) => None,
        }
    }

    fn message(&mut self, message: Message) -> Option<End> {
        let bytes = match (message, self.handle.codec) {
            (Message::Binary(bytes), Codec::Msgpack) => bytes,
            (Message::Text(text), Codec::Json) => text.into(),
            (Message::Ping(_) | Message::Pong(_), _) => return None,
            (Message::Close(_), _) => return Some(End::Peer),
            _ => {
                self.error(None, Refusal::new(Code::BadFrame, "text frames are for JSON, binary frames for MessagePack"));
                return self.last_words(close::BAD_FRAME);
            }
        };
        self.services.counts.frames_in.increment(1);
        let frame = ClientFrame::decode(self.handle.codec, &bytes);
        match self.rate.frame(std::time::Instant::now()) {
            FrameVerdict::Take => {}
            FrameVerdict::Refuse { retry_after_ms } => {
                let r = frame.as_ref().map_or_else(|bad| bad.r, commands::request);
                let cid = if let Ok(ClientFrame::Send(s)) = &frame { Some(s.cid) } else { None };
                let refusal = Refusal::new(Code::RateLimited, "too many frames; slow down");
                let thread = if let Ok(ClientFrame::Typing(TypingIn { thread })) = &frame { Some(thread.clone()) } else { None };
                let refusal = Refusal { retry_after_ms: Some(retry_after_ms), cid, thread, ..refusal };
                if let Ok(ClientFrame::Send(s)) = &frame {
                    self.sends().refused(s, &refusal);
                }
                self.error(r, refusal);
                return None;
            }
            FrameVerdict::Flood => return self.last_words(close::FLOOD),
        }
        match frame {
            Ok(frame) => self.command(frame),
            Err(bad) => {
                let no_frame = bad.r.is_none() && bad.refusal.code == Code::BadFrame;
                self.error(bad.r, bad.refusal);
                self.bad_frames += u32::from(no_frame);
                if self.bad_frames > BAD_FRAMES { self.last_words(close::BAD_FRAME) } else { None }
            }
        }
    }

    /// Closes behind what is queued.
    fn last_words(&mut self, why: Close) -> Option<End> {
        self.handle.outbox.close(why);
        if self.socket.is_flushed() { self.write() } else { None }
    }

    fn error(&self, r: Option<Request>, refusal: Refusal) {
        self.handle.frame(&ServerFrame::error(r, refusal));
    }

    fn done(&mut self, done: Done) -> Option<End> {
        match done {
            Done::Answer(frame) => {
                self.requests -= 1;
                self.handle.frame(&frame);
            }
            Done::Nothing => self.requests -= 1,
            Done::Attached(Ok(whole)) => (self.attached, self.whole) = (true, whole),
            Done::Attached(Err(refusal)) => {
                self.handle.span().in_scope(|| tracing::debug!(code = ?refusal.code, "attach failed"));
                let why = if refusal.code.retry() == Retry::Later { close::UNAVAILABLE } else { close::BAD_FRAME };
                self.error(None, refusal);
                return self.last_words(why);
            }
        }
        None
    }

    fn sends(&mut self) -> &mut ConnectionSends {
        self.sends.get_or_insert_with(|| ConnectionSends::new(&self.services.sends, &self.handle))
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

    fn request(&mut self, work: impl Future<Output = Done> + std::marker::Send + 'static) {
        self.requests += 1;
        let span = self.span.get_or_init(|| self.handle.span()).clone();
        self.running.push(Box::pin(work.instrument(span)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_that_takes_some_bytes_is_slow_and_not_stalled() {
        let mut stall = Stall::new(10);
        for written in 11..100 {
            tokio::time::advance(Duration::from_secs(40)).await;
            assert_eq!(stall.since(written), Duration::ZERO, "a byte in 40 s");
        }
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(stall.since(99), Duration::from_secs(40));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(stall.since(99), Duration::from_secs(80), "not one more");
    }
}
