//! Where the replies to pulls come in: the client that a process shares, or a connection of the reader's own.
//!
//! A library's message costs a map of its headers and two hops between tasks, for each entry and each reader of the
//! log; buckets are read too rarely to need more.

use std::{collections::VecDeque, io};

use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;

use crate::wire::{
    client::Nats,
    jetstream::JsError,
    raw::{RawConnection, RawEvent, parser::Op},
};

/// The only subscription of a connection of a reader's own.
const ANSWERS: u64 = 1;

pub(crate) enum ReplySource {
    Shared { nats: Nats, replies: Subscriber },
    Own { connection: Box<RawConnection>, read: VecDeque<PullReply> },
}

/// What came for a pull: a message of the stream, or something that the server says.
pub(crate) struct PullReply {
    pub subject: Bytes,
    pub reply: Bytes,
    pub payload: Bytes,
    /// 0 or 200: a message.
    pub status: u16,
    pub headers: ReplyHeaders,
}

pub(crate) enum ReplyHeaders {
    /// Read by the library, and what it found behind the status.
    Map(Option<HeaderMap>, Option<String>),
    /// As they came, the line with the status first.
    Raw(Bytes),
}

impl ReplyHeaders {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        match self {
            Self::Map(map, _) => map.as_ref()?.get(name).map(|v| v.as_str()),
            Self::Raw(bytes) => {
                let lines = std::str::from_utf8(bytes).ok()?.split("\r\n").skip(1);
                lines
                    .filter_map(|l| l.split_once(':'))
                    .find(|(n, _)| n.eq_ignore_ascii_case(name))
                    .map(|(_, v)| v.trim())
            }
        }
    }

    /// The words behind the status.
    pub(crate) fn description(&self) -> &str {
        match self {
            Self::Map(_, said) => said.as_deref().unwrap_or_default(),
            Self::Raw(bytes) => {
                let line = bytes.split(|b| *b == b'\r').next().and_then(|l| std::str::from_utf8(l).ok());
                line.and_then(|l| l.splitn(3, ' ').nth(2)).unwrap_or_default()
            }
        }
    }
}

impl ReplySource {
    pub(crate) async fn shared(nats: &Nats, subject: &str) -> Result<Self, JsError> {
        let replies = nats.client().subscribe(subject.to_owned()).await.map_err(|e| JsError::Broken(e.to_string()))?;
        Ok(Self::Shared { nats: nats.clone(), replies })
    }

    pub(crate) fn own(mut connection: Box<RawConnection>, subject: &str) -> Self {
        connection.subscribe(subject, ANSWERS);
        Self::Own { connection, read: VecDeque::new() }
    }

    pub(crate) async fn ask(&mut self, subject: &str, reply: String, payload: Bytes) -> Result<(), JsError> {
        match self {
            Self::Shared { nats, .. } => {
                let asked = nats.client().publish_with_reply(subject.to_owned(), reply, payload).await;
                asked.map_err(|e| JsError::Broken(e.to_string()))
            }
            Self::Own { connection, .. } => {
                connection.publish(subject, &reply, &payload);
                connection.write_now();
                Ok(())
            }
        }
    }

    /// The next reply, or none: nothing more will come, for what was asked on one connection does not come on the
    /// next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<PullReply> {
        match self {
            Self::Shared { replies, .. } => replies.next().await.map(PullReply::from),
            Self::Own { connection, read } => loop {
                if let Some(reply) = read.pop_front() {
                    return Some(reply);
                }
                // Reads of a busy socket never wait; without this the other tasks of this thread would.
                tokio::task::consume_budget().await;
                match connection.next().await {
                    RawEvent::Read { bytes, ops } => {
                        if let Err(e) = take(connection, &bytes, ops, read) {
                            connection.lost(&e);
                            return None;
                        }
                    }
                    RawEvent::Opened | RawEvent::Lost => return None,
                }
            },
        }
    }
}

fn take(connection: &mut RawConnection, bytes: &Bytes, ops: Vec<Op>, read: &mut VecDeque<PullReply>) -> io::Result<()> {
    for op in ops {
        match op {
            Op::Msg { subject, reply, header, payload, status, .. } => {
                let of = |range| bytes.slice(range);
                let (subject, reply, payload, headers) =
                    (of(subject), of(reply), of(payload), ReplyHeaders::Raw(of(header)));
                read.push_back(PullReply { subject, reply, payload, status, headers });
            }
            other => drop(connection.control(other, bytes)?),
        }
    }
    Ok(())
}

impl From<Message> for PullReply {
    fn from(m: Message) -> Self {
        Self {
            subject: Bytes::copy_from_slice(m.subject.as_bytes()),
            reply: m.reply.map(|r| Bytes::copy_from_slice(r.as_bytes())).unwrap_or_default(),
            payload: m.payload,
            status: m.status.map_or(0, |s| s.as_u16()),
            headers: ReplyHeaders::Map(m.headers, m.description),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_as_they_came() {
        let raw = |s: &'static str| ReplyHeaders::Raw(Bytes::from_static(s.as_bytes()));
        let ended = raw(
            "NATS/1.0 409 Message Size Exceeds MaxBytes\r\nNats-Pending-Messages: 7\r\nNats-Pending-Bytes: 0\r\n\r\n",
        );
        assert_eq!(ended.description(), "Message Size Exceeds MaxBytes");
        assert_eq!(ended.get("nats-pending-messages"), Some("7"));
        assert_eq!(ended.get("Pending"), None);
        for none in [
            raw(""),
            raw("NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n"),
            raw("NATS/1.0 100\r\n\r\n"),
            ReplyHeaders::Raw(Bytes::from_static(&[255, 13, 10])),
        ] {
            assert_eq!((none.description(), none.get("Nats-Pending-Messages")), ("", None));
        }
    }
}
