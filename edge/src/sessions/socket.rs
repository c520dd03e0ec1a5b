//! Step 6: one WebSocket, read and written without splitting it.
//!
//! Its session's task reads and flushes at the same time, so a reader that has stopped holds up its own bytes only: the
//! session still notices acks, overflow and the end. While that task sleeps the dispatcher may write instead
//! ([`SocketWriter`]). Whose turn it is, `sessions/outbox` says (`WriterState`); whoever writes, all bytes go through
//! the one buffer of `context`, control frames as well, so nothing can come between the halves of a frame.

mod transport;

use std::{
    future::poll_fn,
    io::ErrorKind::WouldBlock,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use natterjack_protocol::{
    client::close::{self, Close},
    codec::Codec,
    limits,
};
use parking_lot::Mutex;
use tokio::{task::unconstrained, time::timeout};
use tokio_tungstenite::tungstenite::{
    self, Message,
    protocol::{
        CloseFrame, Role, WebSocketConfig, WebSocketContext,
        frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

use self::transport::Transport;
use crate::wire::Wire;

#[derive(Debug)]
pub enum Gone {
    /// Closed or broken by the other side.
    Peer,
    TooLarge,
    /// Not WebSocket as RFC 6455 has it.
    Broken,
    /// Text that is not UTF-8.
    NotText,
}

impl Gone {
    /// How it is told; None: there is nobody to tell.
    pub fn close(&self) -> Option<Close> {
        match self {
            Self::Peer => None,
            Self::TooLarge => Some(close::TOO_LARGE),
            Self::Broken => Some(close::PROTOCOL),
            Self::NotText => Some(close::NOT_UTF8),
        }
    }
}

/// Bytes taken from an outbox per flush: several frames to a system call, and a bound on what waits twice.
pub const PER_FLUSH: usize = 64 * 1024;
/// After the close frame: time for it to be written, and for the other side to answer it.
const GOODBYE: Duration = Duration::from_secs(1);

struct SharedSocket {
    transport: Transport,
    /// The library's part: frames to messages and back. It waits for nobody.
    context: WebSocketContext,
    codec: Codec,
    /// Something is written and not flushed.
    unflushed: bool,
    /// Nothing can be read any more.
    ended: bool,
}

impl SharedSocket {
    fn send(&mut self, message: Message) -> Result<(), Gone> {
        // What the socket does not take is kept; `poll_flush` waits for it.
        let mut nobody = Context::from_waker(Waker::noop());
        match done(self.context.write(&mut self.transport.with(&mut nobody), message)) {
            Poll::Ready(Err(e)) => Err(gone(&e)),
            Poll::Ready(Ok(())) | Poll::Pending => {
                self.unflushed = true;
                Ok(())
            }
        }
    }

    fn feed(&mut self, frames: impl IntoIterator<Item = Bytes>) -> Result<(), Gone> {
        // Already encoded and, if text, made by a JSON encoder: not checked again for each of its readers.
        let opcode = OpCode::Data(if self.codec == Codec::Json { Data::Text } else { Data::Binary });
        frames.into_iter().try_for_each(|frame| self.send(Message::Frame(Frame::message(frame, opcode, true))))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let flushed = self.poll_flush_all(cx);
        self.unflushed = !matches!(flushed, Poll::Ready(Ok(())));
        flushed
    }

    /// Answers to pings as well.
    fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        done(self.context.flush(&mut self.transport.with(cx))).map(|flushed| match flushed {
            // The close frame is out.
            Ok(()) | Err(tungstenite::Error::ConnectionClosed) => Ok(()),
            Err(e) => Err(gone(&e)),
        })
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Gone>> {
        if self.ended {
            return Poll::Ready(Err(Gone::Peer));
        }
        done(self.context.read(&mut self.transport.with(cx))).map_err(|e| {
            self.ended = true;
            gone(&e)
        })
    }

    fn give_back_buffers(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = !self.unflushed && self.transport.is_between_messages() && self.context.can_write();
        let idle = idle && matches!(self.poll_flush_all(cx), Poll::Ready(Ok(())));
        if idle {
            self.context = context();
        }
        idle
    }
}

/// Small, and grows with what is read and written.
fn context() -> WebSocketContext {
    let config = WebSocketConfig::default()
        // The default of 128 KiB is allocated at once, for every idle connection (docs/performance.md). What is read
        // from the system at once does not depend on it (`transport`), and for a message there is as much as it needs.
        .read_buffer_size(64)
        .write_buffer_size(16 * 1024)
        // What is taken per flush and one frame as large as any.
        .max_write_buffer_size(PER_FLUSH + 2 * limits::OUTBOX_BYTES)
        .max_message_size(Some(limits::FRAME_BYTES))
        .max_frame_size(Some(limits::FRAME_BYTES));
    WebSocketContext::new(Role::Server, Some(config))
}

fn done<T>(result: tungstenite::Result<T>) -> Poll<tungstenite::Result<T>> {
    match result {
        Err(tungstenite::Error::Io(e)) if e.kind() == WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// The end of its session's task, which owns it: when this is dropped, the connection is closed.
pub struct Socket {
    shared: Arc<Mutex<SharedSocket>>,
    codec: Codec,
}

impl Socket {
    /// `rest`: bytes that came behind the upgrade's head.
    pub fn new(stream: Wire, rest: Bytes, codec: Codec) -> Self {
        let transport = Transport::new(stream, rest);
        let shared = SharedSocket { transport, context: context(), codec, unflushed: false, ended: false };
        Self { shared: Arc::new(Mutex::new(shared)), codec }
    }

    pub fn writer(&self) -> SocketWriter {
        SocketWriter(Arc::downgrade(&self.shared))
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    pub fn is_flushed(&self) -> bool {
        !self.shared.lock().unflushed
    }

    /// Bytes that the other side has taken.
    pub fn written(&self) -> u64 {
        self.shared.lock().transport.written()
    }

    /// Lets out what was written.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.shared.lock().poll_flush(cx)
    }

    /// The next message, or why there will be none any more.
    pub fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Result<Message, Gone>> {
        self.shared.lock().poll_read(cx)
    }

    /// Buffers grow with what comes and goes, and stay so. A session that has nothing to do needs none of them. False:
    /// they are in use.
    pub fn give_back_buffers(&self, cx: &mut Context<'_>) -> bool {
        self.shared.lock().give_back_buffers(cx)
    }

    /// Flushes and reads. Cancel-safe: nothing is taken before it is returned.
    pub async fn read(&self) -> Result<Message, Gone> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(gone)) = self.poll_flush(cx) {
                return Poll::Ready(Err(gone));
            }
            self.poll_read(cx)
        })
        .await
    }

    /// Puts frames into the write buffer; a flush lets them out, once for all.
    pub fn feed(&self, frames: impl IntoIterator<Item = Bytes>) -> Result<(), Gone> {
        self.shared.lock().feed(frames)
    }

    /// Asks for a pong, which comes by itself also while a client's timers sleep: a browser's network stack sends it.
    pub fn ping(&self) -> Result<(), Gone> {
        self.shared.lock().send(Message::Ping(Bytes::new()))
    }

    /// Says goodbye and waits for the answer for a moment: closing over unread bytes would reset the connection, and
    /// the reason be lost.
    pub async fn close(self, why: Close) {
        let frame = CloseFrame { code: why.code.into(), reason: why.reason.into() };
        if self.shared.lock().send(Message::Close(Some(frame))).is_err() {
            return;
        }
        let _ = timeout(GOODBYE, async { while self.read().await.is_ok() {} }).await;
    }

    /// The other side has said goodbye: lets the answer out.
    pub async fn finish(self) {
        let _ = timeout(GOODBYE, poll_fn(|cx| self.shared.lock().poll_flush_all(cx))).await;
    }
}

/// The dispatcher's end.
pub struct SocketWriter(Weak<Mutex<SharedSocket>>);

/// What became of a write that waits for nobody.
#[derive(Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Everything is on its way.
    All,
    /// Its task has to go on: the socket is full, or broken.
    Part,
    /// Nothing was taken: its task is at it, or there was nothing, or it is gone.
    Nothing,
}

impl SocketWriter {
    /// Writes what `take` gives, in one piece. `take` is asked while nobody else can write.
    pub fn write(&self, take: impl FnOnce() -> Option<Vec<Bytes>>) -> WriteOutcome {
        let Some(shared) = self.0.upgrade() else { return WriteOutcome::Nothing };
        let Some(mut socket) = shared.try_lock() else { return WriteOutcome::Nothing };
        let Some(frames) = Some(()).filter(|()| !socket.unflushed).and_then(|()| take()) else {
            return WriteOutcome::Nothing;
        };
        if socket.feed(frames).is_err() {
            return WriteOutcome::Part;
        }
        // Unconstrained: what the sockets take is no part of the dispatcher's own budget. Without a waker that matters:
        // if it does not take everything, its task is woken and registers itself.
        match unconstrained(poll_fn(|cx| socket.poll_flush(cx))).now_or_never() {
            Some(Ok(())) => WriteOutcome::All,
            _ => WriteOutcome::Part,
        }
    }
}

fn gone(e: &tungstenite::Error) -> Gone {
    use tungstenite::Error;
    match e {
        Error::Capacity(_) => Gone::TooLarge,
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => Gone::Peer,
        Error::Protocol(_) | Error::AttackAttempt => Gone::Broken,
        Error::Utf8(_) => Gone::NotText,
        _ => Gone::Peer,
    }
}
