//! Step 6: one WebSocket, read and written by one task without splitting it.
//!
//! Reading and flushing go on at the same time in one task, so a reader that has stopped holds up its own bytes only:
//! its session still notices acks, overflow and the end.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use natterjack_protocol::{
    client::close::{self, Close},
    codec::Codec,
    limits,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};

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

/// Counts what is written.
struct Progress<S> {
    stream: S,
    written: u64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Progress<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Progress<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = wrote {
            self.written += n as u64;
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

pub struct Socket<S> {
    ws: WebSocketStream<Progress<S>>,
    codec: Codec,
    /// Something is written and not flushed.
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// `rest`: bytes that came behind the upgrade's head.
    pub async fn new(stream: S, rest: Vec<u8>, codec: Codec) -> Self {
        let config = WebSocketConfig::default()
            // The default of 128 KiB is allocated at once, for every idle connection (docs/performance.md).
            .read_buffer_size(1_024)
            .write_buffer_size(16 * 1024)
            // What is taken per flush and one frame as large as any.
            .max_write_buffer_size(PER_FLUSH + 2 * limits::OUTBOX_BYTES)
            .max_message_size(Some(limits::FRAME_BYTES))
            .max_frame_size(Some(limits::FRAME_BYTES));
        let stream = Progress { stream, written: 0 };
        let ws = WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(config)).await;
        Self { ws, codec, unflushed: false }
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    pub fn is_flushed(&self) -> bool {
        !self.unflushed
    }

    /// Bytes that the other side has taken.
    pub fn written(&self) -> u64 {
        self.ws.get_ref().written
    }

    /// Lets out what was written.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.ws).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        flushed.map_err(|e| gone(&e))
    }

    /// The next message, or why there will be none any more.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Gone>> {
        Pin::new(&mut self.ws).poll_next(cx).map(|message| match message {
            Some(Ok(message)) => Ok(message),
            Some(Err(e)) => Err(gone(&e)),
            None => Err(Gone::Peer),
        })
    }

    /// Flushes and reads. Cancel-safe: nothing is taken before it is returned.
    pub async fn read(&mut self) -> Result<Message, Gone> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(gone)) = self.poll_flush(cx) {
                return Poll::Ready(Err(gone));
            }
            self.poll_read(cx)
        })
        .await
    }

    /// Puts frames into the write buffer; a flush lets them out, once for all.
    pub fn feed(&mut self, frames: impl IntoIterator<Item = Bytes>) -> Result<(), Gone> {
        // Already encoded and, if text, made by a JSON encoder: not checked again for each of its readers.
        let opcode = OpCode::Data(if self.codec == Codec::Json { Data::Text } else { Data::Binary });
        for frame in frames {
            Pin::new(&mut self.ws)
                .start_send(Message::Frame(Frame::message(frame, opcode, true)))
                .map_err(|e| gone(&e))?;
            self.unflushed = true;
        }
        Ok(())
    }

    /// Asks for a pong, which comes by itself also while a client's timers sleep: a browser's network stack sends it.
    pub fn ping(&mut self) -> Result<(), Gone> {
        Pin::new(&mut self.ws).start_send(Message::Ping(Bytes::new())).map_err(|e| gone(&e))?;
        self.unflushed = true;
        Ok(())
    }

    /// Says goodbye and waits for the answer for a moment: closing over unread bytes would reset the connection, and
    /// the reason be lost.
    pub async fn close(mut self, why: Close) {
        let frame = CloseFrame { code: why.code.into(), reason: why.reason.into() };
        if Pin::new(&mut self.ws).start_send(Message::Close(Some(frame))).is_err() {
            return;
        }
        self.unflushed = true;
        let _ = timeout(GOODBYE, async { while self.read().await.is_ok() {} }).await;
    }

    /// The other side has said goodbye: lets the answer out.
    pub async fn finish(mut self) {
        let _ = timeout(GOODBYE, poll_fn(|cx| Pin::new(&mut self.ws).poll_flush(cx))).await;
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
