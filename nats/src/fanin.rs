//! Step 5 of a message's life: live subjects into an edge. Before it `channel` published the frame; behind it the edge's dispatcher
//! hands the bytes to its sessions. The log is read through such a connection, too (`reader`): much comes there as well.
//!
//! A connection of our own speaks the few verbs of the protocol that this needs. A library's subscription costs 4.9 KB and drops silently
//! when its reader is slow; here one costs its table entry, and a reader that is too slow loses the connection, which is seen.

pub(crate) mod link;
pub(crate) mod parser;
pub(crate) mod stream;
mod table;

use std::{future::Future, io, pin::Pin, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::Instant;

use self::{
    link::{Access, Info, Link, READ_BUFFER, Server},
    parser::{Op, Parsed, ProtocolError},
    table::Table,
};
use crate::{config::NatsConfig, connect::ConnectError, permissions};

const PING_EVERY: Duration = Duration::from_secs(5);
const PINGS_MISSED: u32 = 2;
/// What may wait to be written: 500,000 subscriptions after a reconnect are ~40 MB. More means that the server does not read.
const MAX_OUT: usize = 128 << 20;
const BACKOFF_MOST: Duration = Duration::from_secs(2);
/// Answers of requests come here; the table never gives this sid.
const ANSWER_SID: u64 = 0;

/// Chosen by the caller, one per subscription; the table is as long as the largest, so reuse small numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// The last token of a live subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail8 {
    /// `.e`: events, heads and member signals of `channel`.
    Event,
    /// `.x`: ephemeral messages of edges.
    Ephemeral,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FanInEvent {
    /// All of it are slices of the read buffer (64 KiB): copy what is kept for long.
    Msg {
        slot: Slot,
        subject_tail: Tail8,
        payload: Bytes,
        subject: Bytes,
        /// Empty without one.
        reply: Bytes,
        /// As it came, `NATS/1.0 …` first; empty without one. And the status that it names, or 0.
        header: Bytes,
        status: u16,
    },
    Reply {
        token: u64,
        payload: Bytes,
        no_responders: bool,
    },
    /// The server has taken every subscription. What was published since `Disconnected` was missed.
    Connected {
        epoch: u64,
    },
    /// Also ends every open request: no `Reply` comes for it any more.
    Disconnected,
}

type Opening = Pin<Box<dyn Future<Output = Result<Link, ConnectError>> + Send>>;

/// Owned by one task.
pub struct FanIn {
    access: Access,
    servers: Vec<Server>,
    /// Which of `servers` is tried next.
    turn: usize,
    attempts: u32,
    table: Table,
    /// The role's prefix and something random; a request's answer comes to this and its token.
    inbox: String,
    next_token: u64,
    /// Answers to requests of earlier connections are no barrier for this one.
    first_token: u64,
    /// Requests made without a connection.
    unsent: Vec<u64>,
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
    /// The PING that asks is written behind them, with the next `next_batch` (so it covers those made right after `connect`).
    Due,
    /// The PONG with this number says so.
    Asked(u64),
    Done,
}

impl FanIn {
    /// Tries until the deadline of the configuration. `name` shows in the server's list of connections.
    pub async fn connect(cfg: &NatsConfig, name: &str) -> Result<Self, ConnectError> {
        let mut fanin = Self {
            access: Access::new(cfg, name)?,
            servers: link::servers(cfg)?,
            turn: 0,
            attempts: 0,
            table: Table::default(),
            inbox: format!("{}.{:016x}{:016x}.", permissions::inbox(cfg.role), rand::random::<u64>(), rand::random::<u64>()),
            next_token: 1,
            first_token: 1,
            unsent: Vec::new(),
            epoch: 0,
            state: State::Down { until: Instant::now() },
            output: BytesMut::new(),
        };
        let deadline = Instant::now() + Duration::from_millis(cfg.connect_deadline_ms);
        loop {
            match fanin.reopen().await {
                Ok(()) => return Ok(fanin),
                Err(e @ (ConnectError::Refused { .. } | ConnectError::Config(_))) => return Err(e),
                Err(e) if Instant::now() >= deadline => return Err(e),
                Err(_) => {}
            }
        }
    }

    /// Buffered until the next `next_batch`; remembered and sent again after a reconnect. A slot in use changes its subject.
    pub fn subscribe(&mut self, subject: &str, slot: Slot) {
        self.unsubscribe(slot);
        let sid = self.table.insert(slot, subject);
        if self.up() {
            write_sub(&mut self.output, subject, sid);
        }
    }

    pub fn unsubscribe(&mut self, slot: Slot) {
        if let Some(sid) = self.table.remove(slot)
            && self.up()
        {
            self.output.extend_from_slice(format!("UNSUB {sid}\r\n").as_bytes());
        }
    }

    pub fn subscriptions(&self) -> usize {
        self.table.len()
    }

    /// At most once: without a connection it is dropped. `reply`: the subject for answers, or empty.
    pub fn publish(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        if self.up() {
            write_pub(&mut self.output, subject, reply, payload);
        }
    }

    /// Writes what is buffered, as far as there is room; else `next_batch` does. A broken connection is its to find, too.
    pub(crate) fn write_now(&mut self) {
        if let State::Up(up) = &mut self.state {
            let _ = up.write(&mut self.output);
        }
    }

    /// The token under which the answer comes. Written behind every subscription made before: whoever answers does it with all of them
    /// in force, so the answer is the barrier of attach.
    pub fn request(&mut self, subject: &str, payload: &[u8]) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        if self.up() {
            let reply = format!("{}{token}", self.inbox);
            write_pub(&mut self.output, subject, &reply, payload);
        } else {
            self.unsent.push(token);
        }
        token
    }

    /// Counts connections; 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Writes what is buffered and waits until there is at least one event. Cancel-safe: what was read is in `out` or still in the buffer.
    pub async fn next_batch(&mut self, out: &mut Vec<FanInEvent>) {
        // Reads of a busy socket never wait; without this the other tasks of this thread would.
        tokio::task::consume_budget().await;
        let before = out.len();
        while out.len() == before {
            out.extend(self.unsent.drain(..).map(|token| FanInEvent::Reply { token, payload: Bytes::new(), no_responders: true }));
            let State::Up(up) = &mut self.state else {
                if let Err(e) = self.reopen().await {
                    tracing::debug!(error = %e, "fan-in: not connected yet");
                }
                continue;
            };
            match up.turn(&mut self.output) {
                Ok(true) => {}
                Ok(false) => {
                    up.wait(!self.output.is_empty() || up.link.stream.unsent()).await;
                    continue;
                }
                Err(e) => {
                    self.lost(&e, out);
                    continue;
                }
            }
            if let Err(e) = self.take(out) {
                self.lost(&e, out);
            }
        }
    }

    fn lost(&mut self, why: &io::Error, out: &mut Vec<FanInEvent>) {
        tracing::warn!(error = %why, "fan-in: connection lost");
        metrics::counter!("natterjack_fanin_disconnects_total").increment(1);
        self.output = BytesMut::new();
        self.first_token = self.next_token;
        self.state = State::Down { until: Instant::now() };
        out.push(FanInEvent::Disconnected);
    }

    /// One step towards a connection: waits for the backoff, opens, or fails into the next backoff. Cancel-safe.
    async fn reopen(&mut self) -> Result<(), ConnectError> {
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
                self.connected(link);
                Ok(())
            }
            Err(e) => {
                self.attempts += 1;
                let most = BACKOFF_MOST.min(Duration::from_millis(25) * (1 << self.attempts.min(8)));
                // Later rounds wait, with full jitter.
                let pause =
                    if (self.attempts as usize) < self.servers.len() { 0 } else { rand::random_range(10..=most.as_millis() as u64) };
                self.state = State::Down { until: Instant::now() + Duration::from_millis(pause) };
                Err(e)
            }
        }
    }

    fn connected(&mut self, link: Link) {
        link::learn(&mut self.servers, &link.info.connect_urls);
        self.attempts = 0;
        self.epoch += 1;
        self.output.clear();
        write_sub(&mut self.output, &format!("{}*", self.inbox), ANSWER_SID);
        for (sid, subject) in self.table.iter() {
            write_sub(&mut self.output, subject, sid);
        }
        let next_ping = Instant::now() + PING_EVERY;
        self.state = State::Up(Box::new(Up { link, next_ping, unanswered: 0, pings: 0, pongs: 0, sync: Sync::Due }));
    }

    /// Everything complete in the read buffer becomes events.
    fn take(&mut self, out: &mut Vec<FanInEvent>) -> io::Result<()> {
        let State::Up(up) = &mut self.state else { return Ok(()) };
        let bad = |e: ProtocolError| io::Error::new(io::ErrorKind::InvalidData, e);
        // First find where the last complete operation ends, then freeze that part once and slice it.
        let mut ops = Vec::new();
        let mut at = 0;
        let missing = loop {
            match parser::parse(&up.link.input, at).map_err(bad)? {
                Parsed::Op(op, next) => {
                    ops.push(op);
                    at = next;
                }
                Parsed::More(n) => break n,
            }
        };
        let chunk = up.link.input.split_to(at).freeze();
        up.link.input.reserve(missing.max(READ_BUFFER / 4));
        let mut messages = 0u64;
        for op in ops {
            match op {
                Op::Msg { sid: ANSWER_SID, subject, payload, status, .. } => {
                    let token = chunk[subject].strip_prefix(self.inbox.as_bytes()).and_then(|t| std::str::from_utf8(t).ok()?.parse().ok());
                    if let Some(token) = token.filter(|t| *t >= self.first_token) {
                        out.push(FanInEvent::Reply { token, payload: chunk.slice(payload), no_responders: status == 503 });
                    }
                }
                Op::Msg { sid, subject, reply, header, payload, status } => {
                    messages += 1;
                    if let Some(slot) = self.table.slot(sid) {
                        let subject_tail = tail(&chunk[subject.clone()]);
                        let of = |range: std::ops::Range<usize>| chunk.slice(range);
                        out.push(FanInEvent::Msg {
                            slot,
                            subject_tail,
                            payload: of(payload),
                            subject: of(subject),
                            reply: of(reply),
                            header: of(header),
                            status,
                        });
                    }
                }
                Op::Ping => self.output.extend_from_slice(b"PONG\r\n"),
                Op::Pong => {
                    up.pongs += 1;
                    if matches!(up.sync, Sync::Asked(n) if n == up.pongs) {
                        up.sync = Sync::Done;
                        out.push(FanInEvent::Connected { epoch: self.epoch });
                    }
                }
                Op::Ok => {}
                Op::Info(range) => {
                    let info = Info::parse(&chunk[range]);
                    link::learn(&mut self.servers, &info.connect_urls);
                    if info.ldm && self.servers.len() > 1 {
                        return Err(io::Error::other("the server is leaving"));
                    }
                }
                Op::Err(range) => {
                    let said = String::from_utf8_lossy(&chunk[range]).trim().to_owned();
                    // The connection lives on.
                    if !permissions::denied(&said) {
                        return Err(io::Error::other(said));
                    }
                }
            }
        }
        metrics::counter!("natterjack_fanin_messages_total").increment(messages);
        Ok(())
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

fn tail(subject: &[u8]) -> Tail8 {
    match subject {
        [.., b'.', b'e'] => Tail8::Event,
        [.., b'.', b'x'] => Tail8::Ephemeral,
        _ => Tail8::Other,
    }
}

fn write_sub(out: &mut BytesMut, subject: &str, sid: u64) {
    out.extend_from_slice(b"SUB ");
    out.extend_from_slice(subject.as_bytes());
    out.extend_from_slice(format!(" {sid}\r\n").as_bytes());
}

fn write_pub(out: &mut BytesMut, subject: &str, reply: &str, payload: &[u8]) {
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
