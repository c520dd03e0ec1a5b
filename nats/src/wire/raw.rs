//! A connection of our own that speaks the few verbs we need: opened, kept, opened again. What is subscribed and said
//! over it is its owner's: the edge's `fanin`, and each reader of the log (`pull`).
//!
//! A subscription of a library costs 4.9 KB and drops silently when its reader is slow. Here it costs its owner's
//! table entry, and a reader that is too slow loses the connection, which is seen.

pub(crate) mod link;
pub(crate) mod parser;
pub(crate) mod stream;

use std::{future::Future, io, pin::Pin, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::Instant;

use self::{
    link::{Info, Link, LinkAccess, NatsAddress, READ_BUFFER},
    parser::{Op, Parsed, ProtocolError},
};
use crate::{config::NatsConfig, nats_role, wire::client::NatsConnectError};

const PING_EVERY: Duration = Duration::from_secs(5);
const PINGS_MISSED: u32 = 2;
/// What may wait to be written: 500,000 subscriptions after a reconnect are ~40 MB. More means that the server does
/// not read.
const MAX_OUT: usize = 128 << 20;
const BACKOFF_MOST: Duration = Duration::from_secs(2);

/// What the owner has to act on.
pub(crate) enum RawEvent {
    /// A new connection stands: the owner writes its subscriptions before it asks for the next event.
    Opened,
    /// Complete operations, as ranges of `bytes`. Those that are no message go to [`RawConnection::control`], in their
    /// order.
    Read { bytes: Bytes, ops: Vec<Op> },
    /// What was written and not read may be lost. The next event is of a new connection.
    Lost,
}

type Opening = Pin<Box<dyn Future<Output = Result<Link, NatsConnectError>> + Send>>;

/// Owned by one task.
pub(crate) struct RawConnection {
    access: LinkAccess,
    servers: Vec<NatsAddress>,
    /// Which of `servers` is tried next.
    turn: usize,
    attempts: u32,
    epoch: u64,
    state: State,
    output: BytesMut,
}

enum State {
    Up(Box<Up>),
    Down {
        until: Instant,
    },
    /// Kept across cancelled calls: otherwise a busy caller would never get a connection.
    Opening(Opening),
}

struct Up {
    link: Link,
    next_ping: Instant,
    unanswered: u32,
    pings: u64,
    pongs: u64,
    sync: Sync,
}

/// Has the server taken all subscriptions?
enum Sync {
    /// The PING that asks is written behind them, with the next event (so it covers those made right after the
    /// connection was opened).
    Due,
    /// The PONG with this number says so.
    Asked(u64),
    Done,
}

impl RawConnection {
    /// Tries until the deadline of the configuration. `name` shows in the server's list of connections.
    pub(crate) async fn connect(cfg: &NatsConfig, name: &str) -> Result<Self, NatsConnectError> {
        let mut raw = Self {
            access: LinkAccess::new(cfg, name)?,
            servers: link::servers(cfg)?,
            turn: 0,
            attempts: 0,
            epoch: 0,
            state: State::Down { until: Instant::now() },
            output: BytesMut::new(),
        };
        let deadline = Instant::now() + Duration::from_millis(cfg.connect_deadline_ms);
        loop {
            match raw.reopen().await {
                Ok(()) => return Ok(raw),
                Err(e @ (NatsConnectError::Refused { .. } | NatsConnectError::Config(_))) => return Err(e),
                Err(e) if Instant::now() >= deadline => return Err(e),
                Err(_) => {}
            }
        }
    }

    /// Counts connections; 0 before the first.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Buffered until the next event, like everything that is written here; without a connection it is dropped.
    pub(crate) fn subscribe(&mut self, subject: &str, sid: u64) {
        if self.is_up() {
            self.output.extend_from_slice(b"SUB ");
            self.output.extend_from_slice(subject.as_bytes());
            self.output.extend_from_slice(format!(" {sid}\r\n").as_bytes());
        }
    }

    pub(crate) fn unsubscribe(&mut self, sid: u64) {
        if self.is_up() {
            self.output.extend_from_slice(format!("UNSUB {sid}\r\n").as_bytes());
        }
    }

    /// `reply`: the subject for answers, or empty.
    pub(crate) fn publish(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        if !self.is_up() {
            return;
        }
        let out = &mut self.output;
        out.extend_from_slice(b"PUB ");
        out.extend_from_slice(subject.as_bytes());
        if !reply.is_empty() {
            out.extend_from_slice(b" ");
            out.extend_from_slice(reply.as_bytes());
        }
        out.extend_from_slice(format!(" {}\r\n", payload.len()).as_bytes());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    /// Writes what is buffered, as far as there is room; else `next` does. A broken connection is for `next` to find,
    /// too.
    pub(crate) fn write_now(&mut self) {
        if let State::Up(up) = &mut self.state {
            let _ = up.write(&mut self.output);
        }
    }

    /// Writes what is buffered and waits for the next event. Cancel-safe: what was read is returned or still in the
    /// buffer.
    pub(crate) async fn next(&mut self) -> RawEvent {
        loop {
            let State::Up(up) = &mut self.state else {
                match self.reopen().await {
                    Ok(()) => return RawEvent::Opened,
                    Err(e) => tracing::debug!(connection = self.access.name(), error = %e, "not connected to nats yet"),
                }
                continue;
            };
            let read = match up.turn(&mut self.output) {
                Ok(true) => up.take(),
                Ok(false) => {
                    up.wait(!self.output.is_empty() || up.link.stream.unsent()).await;
                    continue;
                }
                Err(e) => Err(e),
            };
            return match read {
                Ok((bytes, ops)) => RawEvent::Read { bytes, ops },
                Err(e) => self.lost(&e),
            };
        }
    }

    /// An operation that is no message. True: the server has taken every subscription that was written right after
    /// `Opened`. After an error the connection is of no use; see [`Self::lost`].
    pub(crate) fn control(&mut self, op: Op, bytes: &[u8]) -> io::Result<bool> {
        match op {
            Op::Ping => self.output.extend_from_slice(b"PONG\r\n"),
            Op::Pong => {
                if let State::Up(up) = &mut self.state {
                    up.pongs += 1;
                    if matches!(up.sync, Sync::Asked(n) if n == up.pongs) {
                        up.sync = Sync::Done;
                        return Ok(true);
                    }
                }
            }
            Op::Info(range) => {
                let info = Info::parse(&bytes[range]);
                link::learn(&mut self.servers, &info.connect_urls);
                if info.ldm && self.servers.len() > 1 {
                    return Err(io::Error::other("the server is leaving"));
                }
            }
            Op::Err(range) => {
                let said = String::from_utf8_lossy(&bytes[range]).trim().to_owned();
                // The connection lives on.
                if !nats_role::denied(&said) {
                    return Err(io::Error::other(said));
                }
            }
            Op::Ok | Op::Msg { .. } => {}
        }
        Ok(false)
    }

    /// Gives the connection up; the next event is of a new one.
    pub(crate) fn lost(&mut self, why: &io::Error) -> RawEvent {
        tracing::warn!(connection = self.access.name(), error = %why, "connection to nats lost; opening another");
        metrics::counter!(crate::metrics::FANIN_DISCONNECTS).increment(1);
        self.output = BytesMut::new();
        self.state = State::Down { until: Instant::now() };
        RawEvent::Lost
    }

    /// One step towards a connection: waits for the backoff, opens, or fails into the next backoff. Cancel-safe.
    async fn reopen(&mut self) -> Result<(), NatsConnectError> {
        if let State::Down { until } = self.state {
            tokio::time::sleep_until(until).await;
            let server = self.servers[self.turn % self.servers.len()].clone();
            let access = self.access.clone();
            self.turn += 1;
            // One of them may be frozen: the first round over all servers is quick.
            let limit = if (self.attempts as usize) < self.servers.len() { link::QUICK } else { link::PATIENT };
            self.state = State::Opening(Box::pin(link::open(server, access, limit)));
        }
        let State::Opening(opening) = &mut self.state else { return Ok(()) };
        match opening.await {
            Ok(link) => {
                link::learn(&mut self.servers, &link.info.connect_urls);
                self.attempts = 0;
                self.epoch += 1;
                self.output.clear();
                let next_ping = Instant::now() + PING_EVERY;
                self.state =
                    State::Up(Box::new(Up { link, next_ping, unanswered: 0, pings: 0, pongs: 0, sync: Sync::Due }));
                Ok(())
            }
            Err(e) => {
                self.attempts += 1;
                let most = BACKOFF_MOST.min(Duration::from_millis(25) * (1 << self.attempts.min(8)));
                // Later rounds wait, with full jitter.
                let pause = if (self.attempts as usize) < self.servers.len() {
                    0
                } else {
                    rand::random_range(10..=most.as_millis() as u64)
                };
                self.state = State::Down { until: Instant::now() + Duration::from_millis(pause) };
                Err(e)
            }
        }
    }
}

impl Up {
    /// Writes and reads once without waiting; true if something was read.
    fn turn(&mut self, output: &mut BytesMut) -> io::Result<bool> {
        if matches!(self.sync, Sync::Due) {
            self.ping(output);
            self.sync = Sync::Asked(self.pings);
        }
        if output.len() > MAX_OUT {
            return Err(io::Error::other("the server does not read"));
        }
        self.write(output)?;
        match self.link.stream.try_read(&mut self.link.input) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            Ok(_) => {
                self.unanswered = 0;
                return Ok(true);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        if Instant::now() >= self.next_ping {
            if self.unanswered >= PINGS_MISSED {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer pings"));
            }
            self.unanswered += 1;
            self.ping(output);
        }
        Ok(false)
    }

    /// Everything complete in the read buffer: found first, then frozen once, to be sliced.
    fn take(&mut self) -> io::Result<(Bytes, Vec<Op>)> {
        let bad = |e: ProtocolError| io::Error::new(io::ErrorKind::InvalidData, e);
        let input = &mut self.link.input;
        let (mut ops, mut at) = (Vec::new(), 0);
        let missing = loop {
            match parser::parse(input, at).map_err(bad)? {
                Parsed::Op(op, next) => {
                    ops.push(op);
                    at = next;
                }
                Parsed::More(n) => break n,
            }
        };
        let bytes = input.split_to(at).freeze();
        input.reserve(missing.max(READ_BUFFER / 4));
        Ok((bytes, ops))
    }

    /// Without waiting.
    fn write(&mut self, output: &mut BytesMut) -> io::Result<()> {
        while !output.is_empty() {
            match self.link.stream.try_write(output) {
                Ok(n) => output.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        self.link.stream.try_flush()?;
        if output.is_empty() && output.capacity() > READ_BUFFER {
            *output = BytesMut::new();
        }
        Ok(())
    }

    fn ping(&mut self, output: &mut BytesMut) {
        self.pings += 1;
        self.next_ping = Instant::now() + PING_EVERY;
        output.extend_from_slice(b"PING\r\n");
    }

    /// Until there is something to read, room to write, or a ping is due. Cancel-safe: nothing is taken.
    async fn wait(&self, writing: bool) {
        tokio::select! {
            _ = self.link.stream.readable() => {}
            _ = self.link.stream.writable(), if writing => {}
            () = tokio::time::sleep_until(self.next_ping) => {}
        }
    }
}
