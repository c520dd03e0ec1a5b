//! An ephemeral consumer of ours: no acknowledgements, in memory, pulled. Below `reader` (the log) and `kv_watch`
//! (buckets). What it brings comes in by a `source`.
//!
//! Nothing is redelivered; whoever reads keeps its own position and makes a new consumer there when this one is dead.
//! While a pull waits, the server sends a heartbeat every 0.5 s, so a consumer that died with its node is noticed
//! within 1.5 s.

pub(crate) mod consumer;
pub(crate) mod source;

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use self::{
    consumer::Consumer,
    source::{PullReply, ReplyHeaders, ReplySource},
};
use crate::wire::{
    client::Nats,
    jetstream::{self, JsError},
    raw::RawConnection,
};

const HEARTBEAT: Duration = Duration::from_millis(500);
/// Two heartbeats and some slack for a busy machine.
const SILENCE: Duration = Duration::from_millis(1_500);
/// A pull without messages lives this long, then the next one is sent.
const EXPIRES: Duration = Duration::from_secs(20);
/// Messages asked for ahead of the reader: at ~1 KiB each this is 2 MiB in flight, at 50 KiB 100 MiB (bounded by
/// `MAX_BYTES` per pull).
const AHEAD: usize = 2_000;
const PULL: usize = 1_000;
const FETCH: usize = 4_000;
/// Bytes one pull may bring.
const MAX_BYTES: usize = 16 << 20;

/// When messages are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullMode {
    /// Ahead of the reader: each comes when it is stored.
    Ahead,
    /// When the reader comes for them: all that there are then, at least one, at most `FETCH`. Handing over a hundred
    /// at a time costs the server, and the reader, less for each than being woken a hundred times.
    Fetch,
}

#[derive(Serialize)]
struct PullRequest {
    batch: usize,
    max_bytes: usize,
    expires: u64,
    idle_heartbeat: u64,
    /// Beside `expires`: waits for the first message, and ends with the last one there is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_wait: bool,
}

pub(crate) struct Delivered {
    pub subject: Bytes,
    pub headers: ReplyHeaders,
    pub payload: Bytes,
    pub seq: u64,
    /// Milliseconds since 1970.
    pub ts: u64,
    /// Messages of the stream still behind this one.
    pub pending: u64,
}

/// Why a consumer has to be made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dead {
    Silent,
    Gone(String),
}

pub(crate) struct Pull {
    nats: Nats,
    source: ReplySource,
    inbox: String,
    next_subject: String,
    delete_subject: String,
    mode: PullMode,
    /// Messages asked for and not yet here, by all pulls that live.
    asked: usize,
    /// Behind the last one that came.
    pending: u64,
    pulls: u64,
    heard: Instant,
    /// The consumer has said something: a message, a heartbeat, that a pull was over.
    spoke: bool,
}

impl Pull {
    /// Over the client that the process shares.
    pub(crate) async fn shared(nats: &Nats, consumer: Consumer, mode: PullMode) -> Result<Self, JsError> {
        let inbox = nats.client().new_inbox();
        let source = ReplySource::shared(nats, &format!("{inbox}.*")).await?;
        Self::begin(nats, consumer, source, inbox, mode).await
    }

    /// Over a connection of the reader's own.
    pub(crate) async fn own(
        nats: &Nats,
        consumer: Consumer,
        connection: Box<RawConnection>,
        mode: PullMode,
    ) -> Result<Self, JsError> {
        let inbox = nats.client().new_inbox();
        let source = ReplySource::own(connection, &format!("{inbox}.*"));
        Self::begin(nats, consumer, source, inbox, mode).await
    }

    async fn begin(
        nats: &Nats,
        consumer: Consumer,
        source: ReplySource,
        inbox: String,
        mode: PullMode,
    ) -> Result<Self, JsError> {
        let Consumer { stream, name } = consumer;
        let mut pull = Self {
            nats: nats.clone(),
            source,
            inbox,
            next_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
            delete_subject: format!("$JS.API.CONSUMER.DELETE.{stream}.{name}"),
            mode,
            asked: 0,
            pending: 0,
            pulls: 0,
            heard: Instant::now(),
            spoke: false,
        };
        pull.ask().await?;
        Ok(pull)
    }

    pub(crate) fn spoke(&self) -> bool {
        self.spoke
    }

    /// Something that was asked for is not here yet.
    pub(crate) fn is_asking(&self) -> bool {
        self.asked > 0
    }

    fn may_ask(&self) -> bool {
        match self.mode {
            PullMode::Fetch => self.asked == 0,
            PullMode::Ahead => self.asked + PULL <= AHEAD,
        }
    }

    /// Keeps `AHEAD` messages asked for, or one fetch.
    async fn ask(&mut self) -> Result<(), JsError> {
        while self.may_ask() {
            self.pulls += 1;
            if self.asked == 0 {
                // Nobody was to say anything meanwhile.
                self.heard = Instant::now();
            }
            let batch = if self.mode == PullMode::Fetch { FETCH } else { PULL };
            let request = PullRequest {
                batch,
                max_bytes: MAX_BYTES,
                expires: nanos(EXPIRES),
                idle_heartbeat: nanos(HEARTBEAT),
                no_wait: self.mode == PullMode::Fetch,
            };
            // Counted before the await: dropped there, we would ask for less, never for more.
            self.asked += batch;
            self.source
                .ask(&self.next_subject, format!("{}.{}", self.inbox, self.pulls), jetstream::json(&request))
                .await?;
        }
        Ok(())
    }

    /// Waits for the next message. Cancel-safe: a message is taken out of the queue only when it is returned.
    pub(crate) async fn next(&mut self) -> Result<Delivered, Dead> {
        loop {
            self.ask().await.map_err(|e| Dead::Gone(e.to_string()))?;
            if let Some(delivered) = self.hear().await? {
                return Ok(delivered);
            }
        }
    }

    /// The next one of this fetch, or none: it is over. If there is more already, the next fetch is on its way then.
    /// Cancel-safe.
    pub(crate) async fn rest(&mut self) -> Result<Option<Delivered>, Dead> {
        while self.asked > 0 {
            if let Some(delivered) = self.hear().await? {
                return Ok(Some(delivered));
            }
        }
        if self.pending > 0 {
            self.ask().await.map_err(|e| Dead::Gone(e.to_string()))?;
        }
        Ok(None)
    }

    /// Waits for something; none if it was not a message.
    async fn hear(&mut self) -> Result<Option<Delivered>, Dead> {
        let answer = match tokio::time::timeout_at(self.heard + SILENCE, self.source.next()).await {
            Err(_) => return Err(Dead::Silent),
            Ok(None) => return Err(over()),
            Ok(Some(answer)) => answer,
        };
        self.take(answer)
    }

    /// A message that is already here.
    pub(crate) fn try_next(&mut self) -> Result<Option<Delivered>, Dead> {
        use futures_util::FutureExt;
        while let Some(answer) = self.source.next().now_or_never() {
            if let Some(delivered) = self.take(answer.ok_or_else(over)?)? {
                return Ok(Some(delivered));
            }
        }
        Ok(None)
    }

    fn take(&mut self, answer: PullReply) -> Result<Option<Delivered>, Dead> {
        self.heard = Instant::now();
        self.spoke |= matches!(answer.status, 0 | 100 | 200 | 404 | 408);
        match answer.status {
            0 | 200 => {}
            // A heartbeat.
            100 => return Ok(None),
            // The pull is over, or there was nothing.
            404 | 408 => {
                self.ended(&answer);
                return Ok(None);
            }
            status => {
                let why = answer.headers.description();
                // These end one pull, the consumer lives.
                if status == 409 && (why.contains("Max") || why.contains("Exceeded") || why.contains("Batch Completed"))
                {
                    self.ended(&answer);
                    return Ok(None);
                }
                return Err(Dead::Gone(format!("{status} {why}")));
            }
        }
        self.asked = self.asked.saturating_sub(1);
        let place = std::str::from_utf8(&answer.reply).ok().and_then(parse_ack_subject);
        let (seq, ts, pending) = place.ok_or_else(|| Dead::Gone("a message without its sequence".into()))?;
        self.pending = pending;
        Ok(Some(Delivered {
            subject: answer.subject,
            headers: answer.headers,
            payload: answer.payload,
            seq,
            ts,
            pending,
        }))
    }

    /// A pull ended before it was full.
    fn ended(&mut self, answer: &PullReply) {
        if self.mode == PullMode::Fetch {
            // A pull that was filled is told of as well, when the next one is under way.
            let pull =
                answer.subject.rsplit(|b| *b == b'.').next().and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
            if pull == Some(self.pulls) {
                self.asked = 0;
            }
            return;
        }
        let left = answer.headers.get("Nats-Pending-Messages").and_then(|v| v.parse().ok());
        self.asked = self.asked.saturating_sub(left.unwrap_or(PULL));
    }

    /// Does not wait: the server forgets it by itself after `INACTIVE`.
    pub(crate) async fn close(self) {
        let _ = tokio::time::timeout(
            Duration::from_millis(100),
            self.nats.publish(self.delete_subject.as_str(), Bytes::new()),
        )
        .await;
    }
}

fn over() -> Dead {
    Dead::Gone("nothing more comes on its connection".into())
}

fn nanos(d: Duration) -> u64 {
    d.as_nanos() as u64
}

/// Stream sequence, time in milliseconds and pending count out of
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<nanos>.<pending>` or the newer form that has domain and
/// account before the stream.
fn parse_ack_subject(reply: &str) -> Option<(u64, u64, u64)> {
    let rest = reply.strip_prefix("$JS.ACK.")?;
    let tokens = rest.split('.').count();
    let mut t = rest.split('.').skip(if tokens >= 9 { 5 } else { 3 });
    let seq = t.next()?.parse().ok()?;
    let _consumer_seq = t.next()?;
    let nanos: u64 = t.next()?.parse().ok()?;
    let pending = t.next()?.parse().ok()?;
    Some((seq, nanos / 1_000_000, pending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_ack_subject() {
        let expected = Some((77, 1_700_000_000_123, 4));
        assert_eq!(parse_ack_subject("$JS.ACK.CHAT-1-0.c.1.77.9.1700000000123456789.4"), expected);
        assert_eq!(parse_ack_subject("$JS.ACK._.acc.CHAT-1-0.c.1.77.9.1700000000123456789.4"), expected);
        assert_eq!(parse_ack_subject("$JS.ACK.hub.acc.CHAT-1-0.c.1.77.9.1700000000123456789.4.rnd"), expected);
        for bad in ["", "$JS.ACK.", "$JS.ACK.a.b.c.d.e.f.g", "_INBOX.x"] {
            assert_eq!(parse_ack_subject(bad), None, "{bad}");
        }
    }
}
