//! Where the answers to pulls come in: the client that a process shares, or a connection of the reader's own.
//!
//! A library's message costs a map of its headers and two hops between tasks, for each entry and each reader of the log; buckets are
//! read too rarely to need more.

use std::collections::VecDeque;

use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;

use crate::{
    connect::Nats,
    fanin::{FanIn, FanInEvent, Slot},
    js::JsError,
};

/// The only subscription of a connection of a reader's own.
const ANSWERS: Slot = Slot(0);

pub(crate) enum Source {
    Shared { nats: Nats, answers: Subscriber },
    Own { link: Box<FanIn>, come: VecDeque<FanInEvent>, read: Vec<FanInEvent> },
}

/// What came for a pull: a message of the stream, or something that the server says.
pub(crate) struct Answer {
    pub subject: Bytes,
    pub reply: Bytes,
    pub payload: Bytes,
    /// 0 or 200: a message.
    pub status: u16,
    pub headers: Headers,
}

pub(crate) enum Headers {
    /// Read by the library, and what it found behind the status.
    Map(Option<HeaderMap>, Option<String>),
    /// As they came, the line with the status first.
    Raw(Bytes),
}

impl Headers {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        match self {
            Self::Map(map, _) => map.as_ref()?.get(name).map(|v| v.as_str()),
            Self::Raw(bytes) => {
                let lines = std::str::from_utf8(bytes).ok()?.split("\r\n").skip(1);
                lines.filter_map(|l| l.split_once(':')).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
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

impl Source {
    pub(crate) async fn shared(nats: &Nats, subject: &str) -> Result<Self, JsError> {
        let answers = nats.client.subscribe(subject.to_owned()).await.map_err(|e| JsError::Broken(e.to_string()))?;
        Ok(Self::Shared { nats: nats.clone(), answers })
    }

    pub(crate) fn own(mut link: Box<FanIn>, subject: &str) -> Self {
        link.subscribe(subject, ANSWERS);
        Self::Own { link, come: VecDeque::new(), read: Vec::new() }
    }

    pub(crate) async fn ask(&mut self, subject: &str, reply: String, payload: Bytes) -> Result<(), JsError> {
        match self {
            Self::Shared { nats, .. } => {
                let asked = nats.client.publish_with_reply(subject.to_owned(), reply, payload).await;
                asked.map_err(|e| JsError::Broken(e.to_string()))
            }
            Self::Own { link, .. } => {
                link.publish(subject, &reply, &payload);
                link.write_now();
                Ok(())
            }
        }
    }

    /// The next answer, or none: nothing more will come. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Answer> {
        match self {
            Self::Shared { answers, .. } => answers.next().await.map(Answer::from),
            Self::Own { link, come, read } => loop {
                match come.pop_front() {
                    Some(FanInEvent::Msg { payload, subject, reply, header, status, .. }) => {
                        return Some(Answer { subject, reply, payload, status, headers: Headers::Raw(header) });
                    }
                    // What was asked for on the connection before will not come on the next.
                    Some(FanInEvent::Disconnected) => return None,
                    Some(FanInEvent::Connected { .. } | FanInEvent::Reply { .. }) => {}
                    None => {
                        link.next_batch(read).await;
                        come.extend(read.drain(..));
                    }
                }
            },
        }
    }
}

impl From<Message> for Answer {
    fn from(m: Message) -> Self {
        Self {
            subject: Bytes::copy_from_slice(m.subject.as_bytes()),
            reply: m.reply.map(|r| Bytes::copy_from_slice(r.as_bytes())).unwrap_or_default(),
            payload: m.payload,
            status: m.status.map_or(0, |s| s.as_u16()),
            headers: Headers::Map(m.headers, m.description),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_as_they_came() {
        let raw = |s: &'static str| Headers::Raw(Bytes::from_static(s.as_bytes()));
        let ended = raw("NATS/1.0 409 Message Size Exceeds MaxBytes\r\nNats-Pending-Messages: 7\r\nNats-Pending-Bytes: 0\r\n\r\n");
        assert_eq!(ended.description(), "Message Size Exceeds MaxBytes");
        assert_eq!(ended.get("nats-pending-messages"), Some("7"));
        assert_eq!(ended.get("Pending"), None);
        for none in [
            raw(""),
            raw("NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n"),
            raw("NATS/1.0 100\r\n\r\n"),
            Headers::Raw(Bytes::from_static(&[255, 13, 10])),
        ] {
            assert_eq!((none.description(), none.get("Nats-Pending-Messages")), ("", None));
        }
    }
}
