//! What a WebSocket reads from and writes to. Counts what is written. Reads as much as there is into a buffer that all
//! sessions of a thread share, and hands it over frame by frame: between two frames the WebSocket holds nothing, and
//! its buffers may be given back.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
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
    /// What was read and is not handed over yet.
    ahead: Bytes,
    /// Of the frame that is being handed over.
    left: u64,
    /// A message in several frames is not over.
    fragmented: bool,
}

impl Transport {
    /// `rest`: what was read of it already.
    pub fn new(wire: Wire, rest: Bytes) -> Self {
        Self { wire, written: 0, ahead: rest, left: 0, fragmented: false }
    }

    /// Bytes that the other side has taken.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// All frames that were begun were handed over whole, and make whole messages.
    pub fn is_between_messages(&self) -> bool {
        self.left == 0 && !self.fragmented
    }

    pub fn with<'a, 'b>(&'a mut self, cx: &'a mut Context<'b>) -> WithContext<'a, 'b> {
        WithContext { transport: self, cx }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.left == 0
                && let Some(frame) = FrameSize::of(&self.ahead)
            {
                self.left = frame.bytes;
                if !frame.control {
                    self.fragmented = !frame.last;
                }
            }
            if self.left > 0 && !self.ahead.is_empty() {
                return Poll::Ready(Ok(self.hand_over(buf)));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                // Perhaps half a head, so that who reads sees where it ends.
                self.left = self.ahead.len() as u64;
                return Poll::Ready(Ok(self.hand_over(buf)));
            }
        }
    }

    fn hand_over(&mut self, buf: &mut [u8]) -> usize {
        let now = self.ahead.len().min(buf.len()).min(self.left.try_into().unwrap_or(usize::MAX));
        self.ahead.copy_to_slice(&mut buf[..now]);
        self.left -= now as u64;
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
        now
    }

    /// Returns how much was read; 0: the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SHARED.with_borrow_mut(|shared| {
            let mut read = ReadBuf::new(shared.as_mut_slice());
            ready!(Pin::new(&mut self.wire).poll_read(cx, &mut read))?;
            self.ahead = if self.ahead.is_empty() {
                Bytes::copy_from_slice(read.filled())
            } else {
                [&self.ahead, read.filled()].concat().into()
            };
            Poll::Ready(Ok(read.filled().len()))
        })
    }
}

/// As its head says it (RFC 6455, 5.2). Whether the head makes sense is for who reads the frame.
struct FrameSize {
    /// With the head.
    bytes: u64,
    control: bool,
    /// Of its message.
    last: bool,
}

impl FrameSize {
    /// None: half a head.
    fn of(bytes: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes else { return None };
        let (extra, payload) = match second & 0x7f {
            126 => (2, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
            127 => (8, u64::from_be_bytes(*rest.first_chunk()?)),
            short => (0, u64::from(short)),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let bytes = payload.saturating_add(2 + extra + mask);
        Some(Self { bytes, control: first & 0x08 != 0, last: first & 0x80 != 0 })
    }
}

/// Lets a WebSocket that waits for nobody use it: what cannot be done now wakes the context's task later.
pub(super) struct WithContext<'a, 'b> {
    transport: &'a mut Transport,
    cx: &'a mut Context<'b>,
}

fn now<T>(done: Poll<io::Result<T>>) -> io::Result<T> {
    match done {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for WithContext<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        now(self.transport.poll_read(self.cx, buf))
    }
}

impl Write for WithContext<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let wrote = now(Pin::new(&mut self.transport.wire).poll_write(self.cx, buf))?;
        self.transport.written += wrote as u64;
        Ok(wrote)
    }

    fn flush(&mut self) -> io::Result<()> {
        now(Pin::new(&mut self.transport.wire).poll_flush(self.cx))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio_tungstenite::tungstenite::protocol::frame::{
        FrameHeader,
        coding::{Control, Data, OpCode},
    };
    use tokio_util::either::Either;

    use super::*;

    /// A frame, masked as a client's or not.
    fn frame(len: usize, last: bool, masked: bool, control: bool) -> Vec<u8> {
        let opcode = if control { OpCode::Control(Control::Ping) } else { OpCode::Data(Data::Binary) };
        let mask = masked.then_some([1, 2, 3, 4]);
        let mut bytes = Vec::new();
        FrameHeader { is_final: last, opcode, mask, ..FrameHeader::default() }.format(len as u64, &mut bytes).unwrap();
        bytes.resize(bytes.len() + len, 7);
        bytes
    }

    fn frames() -> impl Strategy<Value = Vec<(Vec<u8>, bool, bool)>> {
        let sizes = prop_oneof![0usize..200, 65_500usize..65_600, 8_100usize..8_300];
        let one = (sizes, any::<bool>(), any::<bool>(), any::<bool>());
        let made = one.prop_map(|(len, last, masked, control)| (frame(len, last, masked, control), last, control));
        prop::collection::vec(made, 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        /// However they come and however little is asked for.
        #[test]
        fn no_piece_reaches_over_the_end_of_a_frame_and_nothing_is_missing(
            frames in frames(), sent in 1usize..9_000, asked in 1usize..300,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut client, server) = duplex(sent);
                let all: Vec<u8> = frames.iter().flat_map(|(bytes, ..)| bytes.clone()).collect();
                let sends = tokio::spawn({
                    let all = all.clone();
                    async move { client.write_all(&all).await.unwrap() }
                });
                let mut transport = Transport::new(Either::Right(Either::Right(server)), Bytes::new());
                let (mut got, mut buf, mut whole) = (Vec::<u8>::new(), vec![0; asked], true);
                for (bytes, last, control) in &frames {
                    let end = got.len() + bytes.len();
                    while got.len() < end {
                        let n = poll_fn(|cx| transport.poll_read(cx, &mut buf)).await.unwrap();
                        prop_assert!(n > 0);
                        got.extend(&buf[..n]);
                        prop_assert!(got.len() <= end);
                    }
                    whole = if *control { whole } else { *last };
                    prop_assert_eq!(transport.is_between_messages(), whole);
                }
                sends.await.unwrap();
                prop_assert!(got == all);
                prop_assert_eq!(poll_fn(|cx| transport.poll_read(cx, &mut buf)).await.unwrap(), 0);
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn half_a_head_at_the_end_is_handed_over_before_the_end() {
        let (mut client, server) = duplex(64);
        client.write_all(&[0x82, 0xfe, 1]).await.unwrap();
        drop(client);
        let mut transport = Transport::new(Either::Right(Either::Right(server)), Bytes::new());
        let mut buf = [0; 64];
        assert_eq!(poll_fn(|cx| transport.poll_read(cx, &mut buf)).await.unwrap(), 3);
        assert_eq!(poll_fn(|cx| transport.poll_read(cx, &mut buf)).await.unwrap(), 0);
    }
}
