//! An ephemeral consumer of ours: no acknowledgements, in memory, pulled. Below `reader` (the log) and `kv_watch` (buckets).
//!
//! Nothing is redelivered; whoever reads keeps its own position and makes a new consumer there when this one is dead. While a pull
//! waits, the server sends a heartbeat every 0.5 s, so a consumer that died with its node is noticed within 1.5 s.

use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    connect::Nats,
    js::{self, JsError},
    wire_time,
};

const HEARTBEAT: Duration = Duration::from_millis(500);
/// Two heartbeats and some slack for a busy machine.
const SILENCE: Duration = Duration::from_millis(1_500);
/// A pull without messages lives this long, then the next one is sent.
const EXPIRES: Duration = Duration::from_secs(20);
/// Messages asked for ahead of the reader: at ~1 KiB each this is 2 MiB in flight, at 50 KiB 100 MiB (bounded by `MAX_BYTES` per pull).
const AHEAD: usize = 2_000;
const PULL: usize = 1_000;
/// Bytes one pull may bring.
const MAX_BYTES: usize = 16 << 20;
/// A forgotten consumer is removed by the server after this long without a pull.
const INACTIVE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The newest value of each subject, then changes.
    LastPerSubject,
    Sequence(u64),
    Time(u64),
}

#[derive(Serialize)]
struct CreateRequest<'a> {
    stream_name: &'a str,
    config: ConsumerConfig<'a>,
}

#[derive(Serialize)]
struct ConsumerConfig<'a> {
    name: &'a str,
    deliver_policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    opt_start_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opt_start_time: Option<String>,
    ack_policy: &'static str,
    replay_policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_subject: Option<&'a str>,
    inactive_threshold: u64,
    num_replicas: u8,
    mem_storage: bool,
}

#[derive(Serialize)]
struct PullRequest {
    batch: usize,
    max_bytes: usize,
    expires: u64,
    idle_heartbeat: u64,
}

pub(crate) struct Delivered {
    pub subject: async_nats::Subject,
    pub headers: Option<HeaderMap>,
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
    answers: Subscriber,
    inbox: String,
    next_subject: String,
    delete_subject: String,
    /// Messages asked for and not yet here, by all pulls that live.
    asked: usize,
    pulls: u64,
    heard: Instant,
}

impl Pull {
    pub(crate) async fn open(nats: &Nats, stream: &str, filter: Option<&str>, from: From) -> Result<Self, JsError> {
        let name = format!("r{:016x}", rand::random::<u64>());
        let inbox = nats.client.new_inbox();
        let answers = nats.client.subscribe(format!("{inbox}.*")).await.map_err(|e| JsError::Broken(e.to_string()))?;
        let (deliver_policy, opt_start_seq, opt_start_time) = match from {
            From::LastPerSubject => ("last_per_subject", None, None),
            From::Sequence(seq) => ("by_start_sequence", Some(seq.max(1)), None),
            From::Time(ms) => ("by_start_time", None, Some(wire_time::format_ms(ms))),
        };
        let config = ConsumerConfig {
            name: &name,
            deliver_policy,
            opt_start_seq,
            opt_start_time,
            ack_policy: "none",
            replay_policy: "instant",
            filter_subject: filter,
            inactive_threshold: nanos(INACTIVE),
            num_replicas: 1,
            mem_storage: true,
        };
        let subject = match filter {
            Some(f) => format!("CONSUMER.CREATE.{stream}.{name}.{f}"),
            None => format!("CONSUMER.CREATE.{stream}.{name}"),
        };
        let _: serde_json::Value = js::api(nats, &subject, &CreateRequest { stream_name: stream, config }).await?;
        let mut pull = Self {
            nats: nats.clone(),
            answers,
            inbox,
            next_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
            delete_subject: format!("$JS.API.CONSUMER.DELETE.{stream}.{name}"),
            asked: 0,
            pulls: 0,
            heard: Instant::now(),
        };
        pull.ask().await?;
        Ok(pull)
    }

    /// Keeps `AHEAD` messages asked for.
    async fn ask(&mut self) -> Result<(), JsError> {
        while self.asked + PULL <= AHEAD {
            self.pulls += 1;
            let request = PullRequest { batch: PULL, max_bytes: MAX_BYTES, expires: nanos(EXPIRES), idle_heartbeat: nanos(HEARTBEAT) };
            // Counted before the await: dropped there, we would ask for less, never for more.
            self.asked += PULL;
            self.nats
                .client
                .publish_with_reply(self.next_subject.clone(), format!("{}.{}", self.inbox, self.pulls), js::json(&request))
                .await
                .map_err(|e| JsError::Broken(e.to_string()))?;
        }
        Ok(())
    }

    /// Waits for the next message. Cancel-safe: a message is taken out of the queue only when it is returned.
    pub(crate) async fn next(&mut self) -> Result<Delivered, Dead> {
        loop {
            if self.asked + PULL <= AHEAD {
                self.ask().await.map_err(|e| Dead::Gone(e.to_string()))?;
            }
            let message = match tokio::time::timeout_at(self.heard + SILENCE, self.answers.next()).await {
                Err(_) => return Err(Dead::Silent),
                Ok(None) => return Err(Dead::Gone("the subscription ended".into())),
                Ok(Some(m)) => m,
            };
            if let Some(delivered) = self.take(message)? {
                return Ok(delivered);
            }
        }
    }

    /// A message that is already here.
    pub(crate) fn try_next(&mut self) -> Result<Option<Delivered>, Dead> {
        use futures_util::FutureExt;
        while let Some(Some(message)) = self.answers.next().now_or_never() {
            if let Some(delivered) = self.take(message)? {
                return Ok(Some(delivered));
            }
        }
        Ok(None)
    }

    fn take(&mut self, message: Message) -> Result<Option<Delivered>, Dead> {
        self.heard = Instant::now();
        match message.status {
            None | Some(StatusCode::OK) => {}
            Some(StatusCode::IDLE_HEARTBEAT) => return Ok(None),
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                self.ended(&message);
                return Ok(None);
            }
            Some(status) => {
                let why = message.description.clone().unwrap_or_else(|| status.to_string());
                // These end one pull, the consumer lives.
                if status == StatusCode::REQUEST_TERMINATED
                    && (why.contains("Max") || why.contains("Exceeded") || why.contains("Batch Completed"))
                {
                    self.ended(&message);
                    return Ok(None);
                }
                return Err(Dead::Gone(why));
            }
        }
        self.asked = self.asked.saturating_sub(1);
        let (seq, ts, pending) =
            message.reply.as_deref().and_then(parse_ack_subject).ok_or_else(|| Dead::Gone("a message without its sequence".into()))?;
        Ok(Some(Delivered { subject: message.subject, headers: message.headers, payload: message.payload, seq, ts, pending }))
    }

    /// A pull ended before it was full.
    fn ended(&mut self, message: &Message) {
        let left = message.headers.as_ref().and_then(|h| h.get("Nats-Pending-Messages")).and_then(|v| v.as_str().parse().ok());
        self.asked = self.asked.saturating_sub(left.unwrap_or(PULL));
    }

    /// Does not wait: the server forgets it by itself after `INACTIVE`.
    pub(crate) async fn close(self) {
        let _ = tokio::time::timeout(Duration::from_millis(100), self.nats.client.publish(self.delete_subject.clone(), Bytes::new())).await;
    }
}

fn nanos(d: Duration) -> u64 {
    d.as_nanos() as u64
}

/// Stream sequence, time in milliseconds and pending count out of
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<nanos>.<pending>` or the newer form that has domain and account before the stream.
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
