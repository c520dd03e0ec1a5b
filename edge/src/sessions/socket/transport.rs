//! What a WebSocket reads from and writes to. Counts what is written, and reads as much as there is into a buffer that
//! all sessions of a thread share, so that a WebSocket of an idle client needs next to none of its own.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::Wire;

/// Read at once.
const AT_ONCE: usize = 8 * 1024;

thread_local! {
    static SHARED: RefCell<Box<[u8; AT_ONCE]>> = RefCell::new(Box::new([0; AT_ONCE]));
}

pub(super) struct Transport {
    wire: Wire,
    written: u64,
    /// What was read and had no room yet.
    ahead: Bytes,
}

impl Transport {
    pub fn new(wire: Wire) -> Self {
        Self { wire, written: 0, ahead: Bytes::new() }
    }

    /// Bytes that the other side has taken.
    pub fn written(&self) -> u64 {
        self.written
    }

    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) {
        let now = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..now]);
        self.ahead.advance(now);
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            self.hand_over(buf);
            return Poll::Ready(Ok(()));
        }
        SHARED.with_borrow_mut(|shared| {
            let mut read = ReadBuf::new(shared.as_mut_slice());
            ready!(Pin::new(&mut self.wire).poll_read(cx, &mut read))?;
            let (now, later) = read.filled().split_at(read.filled().len().min(buf.remaining()));
            buf.put_slice(now);
            self.ahead = Bytes::copy_from_slice(later);
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.wire).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = wrote {
            self.written += n as u64;
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_util::either::Either;

    use super::*;

    #[tokio::test]
    async fn whatever_the_pieces_all_bytes_come_in_order_and_then_the_end() {
        let (mut client, server) = duplex(100_000);
        let mut transport = Transport::new(Either::Right(Either::Right(server)));
        let sent: Vec<u8> = (0..3 * AT_ONCE + 7).map(|n| (n % 251) as u8).collect();
        client.write_all(&sent).await.unwrap();
        drop(client);
        let (mut got, mut piece) = (Vec::<u8>::new(), 1);
        loop {
            let mut some = vec![0; piece];
            match transport.read(&mut some).await.unwrap() {
                0 => break,
                n => got.extend(&some[..n]),
            }
            // Smaller and larger than what is read at once.
            piece = piece * 3 % 20_011;
        }
        assert!(got == sent, "{} of {} bytes, or others", got.len(), sent.len());
        assert!(transport.ahead.is_empty());
    }
}
