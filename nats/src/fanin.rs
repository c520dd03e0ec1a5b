//! Step 5 of a message's life: live subjects into an edge. Before it `channel` published the frame; behind it the
//! edge's dispatcher hands the bytes to its sessions.
//!
//! Over a raw connection (`wire::raw`): a subscription costs its table entry, a message no allocation, a request its
//! token.

mod table;

use std::io;

use bytes::Bytes;

use self::table::Table;
use crate::{
    config::NatsConfig,
    nats_role,
    wire::{
        client::NatsConnectError,
        raw::{RawConnection, RawEvent, parser::Op},
    },
};

/// Answers of requests come here; the table never gives this sid.
const ANSWER_SID: u64 = 0;

/// Chosen by the caller, one per subscription; the table is as long as the largest, so reuse small numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionSlot(pub u32);

/// What a live subject carries, by its last token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveKind {
    /// `.e`: events, heads and member signals of `channel`.
    Event,
    /// `.x`: ephemeral messages of edges.
    Ephemeral,
    Other,
}

impl LiveKind {
    fn of(subject: &[u8]) -> Self {
        match subject {
            [.., b'.', b'e'] => Self::Event,
            [.., b'.', b'x'] => Self::Ephemeral,
            _ => Self::Other,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FanInEvent {
    Msg {
        slot: SubscriptionSlot,
        kind: LiveKind,
        /// A slice of the read buffer (64 KiB): copy what is kept for long.
        payload: Bytes,
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

/// Owned by one task.
pub struct FanIn {
    raw: RawConnection,
    table: Table,
    /// The role's prefix and something random; a request's answer comes to this and its token.
    inbox: String,
    next_token: u64,
    /// Answers to requests of earlier connections are no barrier for this one.
    first_token: u64,
    /// Requests made without a connection.
    unsent: Vec<u64>,
}

impl FanIn {
    /// Tries until the deadline of the configuration. `name` shows in the server's list of connections.
    pub async fn connect(cfg: &NatsConfig, name: &str) -> Result<Self, NatsConnectError> {
        let mut fanin = Self {
            raw: RawConnection::connect(cfg, name).await?,
            table: Table::default(),
            inbox: format!(
                "{}.{:016x}{:016x}.",
                nats_role::inbox(cfg.role),
                rand::random::<u64>(),
                rand::random::<u64>()
            ),
            next_token: 1,
            first_token: 1,
            unsent: Vec::new(),
        };
        fanin.subscribe_all();
        Ok(fanin)
    }

    /// Buffered until the next `next_batch`; remembered and sent again after a reconnect. A slot in use changes its
    /// subject.
    pub fn subscribe(&mut self, subject: &str, slot: SubscriptionSlot) {
        self.unsubscribe(slot);
        let sid = self.table.insert(slot, subject);
        self.raw.subscribe(subject, sid);
    }

    pub fn unsubscribe(&mut self, slot: SubscriptionSlot) {
        if let Some(sid) = self.table.remove(slot) {
            self.raw.unsubscribe(sid);
        }
    }

    pub fn subscriptions(&self) -> usize {
        self.table.len()
    }

    /// At most once: without a connection it is dropped.
    pub fn publish(&mut self, subject: &str, payload: &[u8]) {
        self.raw.publish(subject, "", payload);
    }

    /// The token under which the answer comes. Written behind every subscription made before: whoever answers does it
    /// with all of them in force, so the answer is the barrier of attach.
    pub fn request(&mut self, subject: &str, payload: &[u8]) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        if self.raw.is_up() {
            self.raw.publish(subject, &format!("{}{token}", self.inbox), payload);
        } else {
            self.unsent.push(token);
        }
        token
    }

    /// Counts connections; 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.raw.epoch()
    }

    /// Writes what is buffered and waits until there is at least one event. Cancel-safe: what was read is in `out` or
    /// still in the buffer.
    pub async fn next_batch(&mut self, out: &mut Vec<FanInEvent>) {
        // Reads of a busy socket never wait; without this the other tasks of this thread would.
        tokio::task::consume_budget().await;
        let before = out.len();
        while out.len() == before {
            if !self.unsent.is_empty() {
                out.extend(self.unsent.drain(..).map(|token| FanInEvent::Reply {
                    token,
                    payload: Bytes::new(),
                    no_responders: true,
                }));
                return;
            }
            match self.raw.next().await {
                RawEvent::Opened => self.subscribe_all(),
                RawEvent::Read { bytes, ops } => {
                    if let Err(e) = self.take(&bytes, ops, out) {
                        self.raw.lost(&e);
                        self.disconnected(out);
                    }
                }
                RawEvent::Lost => self.disconnected(out),
            }
        }
    }

    fn disconnected(&mut self, out: &mut Vec<FanInEvent>) {
        self.first_token = self.next_token;
        out.push(FanInEvent::Disconnected);
    }

    fn subscribe_all(&mut self) {
        self.raw.subscribe(&format!("{}*", self.inbox), ANSWER_SID);
        for (sid, subject) in self.table.iter() {
            self.raw.subscribe(subject, sid);
        }
    }

    fn take(&mut self, bytes: &Bytes, ops: Vec<Op>, out: &mut Vec<FanInEvent>) -> io::Result<()> {
        let mut messages = 0u64;
        for op in ops {
            match op {
                Op::Msg { sid: ANSWER_SID, subject, payload, status, .. } => {
                    let token = bytes[subject]
                        .strip_prefix(self.inbox.as_bytes())
                        .and_then(|t| std::str::from_utf8(t).ok()?.parse().ok());
                    if let Some(token) = token.filter(|t| *t >= self.first_token) {
                        out.push(FanInEvent::Reply {
                            token,
                            payload: bytes.slice(payload),
                            no_responders: status == 503,
                        });
                    }
                }
                Op::Msg { sid, subject, payload, .. } => {
                    messages += 1;
                    if let Some(slot) = self.table.slot(sid) {
                        out.push(FanInEvent::Msg {
                            slot,
                            kind: LiveKind::of(&bytes[subject]),
                            payload: bytes.slice(payload),
                        });
                    }
                }
                other => {
                    if self.raw.control(other, bytes)? {
                        out.push(FanInEvent::Connected { epoch: self.raw.epoch() });
                    }
                }
            }
        }
        metrics::counter!(crate::metrics::FANIN_MESSAGES).increment(messages);
        Ok(())
    }
}
