//! Core NATS over the connection that a process shares: at most once, in the order of one task's calls.

use std::{
    ops::Deref,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_nats::client::PublishErrorKind;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use crate::wire::client::Nats;

/// A round trip takes less than a millisecond.
const BARRIER: Duration = Duration::from_secs(5);

/// Where something is sent or was sent to. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsSubject(pub(crate) async_nats::Subject);

impl From<String> for NatsSubject {
    fn from(s: String) -> Self {
        Self(s.into())
    }
}

impl From<&str> for NatsSubject {
    fn from(s: &str) -> Self {
        Self(s.into())
    }
}

impl Deref for NatsSubject {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_str()
    }
}

#[derive(Debug, Clone)]
pub struct NatsMessage {
    pub subject: NatsSubject,
    /// Where an answer is awaited.
    pub reply: Option<NatsSubject>,
    pub payload: Bytes,
}

/// Why something was not sent, or not subscribed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NatsSendError {
    #[error("it is larger than max_payload of nats-server")]
    TooLarge,
    #[error("the connection to nats: {0}")]
    Connection(String),
}

/// Messages of one subject pattern. Ends with its connection's task.
pub struct Subscription(async_nats::Subscriber);

impl Stream for Subscription {
    type Item = NatsMessage;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<NatsMessage>> {
        let message = |m: async_nats::Message| NatsMessage {
            subject: NatsSubject(m.subject),
            reply: m.reply.map(NatsSubject),
            payload: m.payload,
        };
        self.0.poll_next_unpin(cx).map(|m| m.map(message))
    }
}

impl Subscription {
    pub(crate) async fn unsubscribe(&mut self) {
        let _ = self.0.unsubscribe().await;
    }
}

impl Nats {
    /// Waits only for a place in the client's queue of commands (2,048).
    pub async fn publish(&self, subject: impl Into<NatsSubject>, payload: Bytes) -> Result<(), NatsSendError> {
        self.client().publish(subject.into().0, payload).await.map_err(|e| send_error(&e))
    }

    pub async fn publish_with_reply(
        &self,
        subject: impl Into<NatsSubject>,
        reply: impl Into<NatsSubject>,
        payload: Bytes,
    ) -> Result<(), NatsSendError> {
        let (subject, reply) = (subject.into(), reply.into());
        self.client().publish_with_reply(subject.0, reply.0, payload).await.map_err(|e| send_error(&e))
    }

    /// A pattern: it may hold wildcards.
    pub async fn subscribe(&self, pattern: impl Into<NatsSubject>) -> Result<Subscription, NatsSendError> {
        let subscribed = self.client().subscribe(pattern.into().0).await;
        subscribed.map(Subscription).map_err(|e| NatsSendError::Connection(e.to_string()))
    }

    /// Each message comes to one of those who subscribe with the same `queue`.
    pub(crate) async fn queue_subscribe(&self, subject: &str, queue: &str) -> Result<Subscription, NatsSendError> {
        let subscribed = self.client().queue_subscribe(subject.to_owned(), queue.to_owned()).await;
        subscribed.map(Subscription).map_err(|e| NatsSendError::Connection(e.to_string()))
    }

    /// Everything published on this connection before has reached the server (`flush()` only empties a socket buffer).
    /// An error if the connection broke meanwhile; whoever published before calling this compares `epoch` from before
    /// the first publish to after this.
    pub async fn flush_barrier(&self) -> Result<(), NatsSendError> {
        let before = self.epoch();
        self.inbox().round_trip(BARRIER).await.map_err(|e| NatsSendError::Connection(e.to_string()))?;
        if self.epoch() == before { Ok(()) } else { Err(NatsSendError::Connection("it broke".into())) }
    }

    /// The largest message that the server takes, in bytes.
    pub fn max_payload(&self) -> usize {
        self.client().max_payload()
    }
}

fn send_error(e: &async_nats::PublishError) -> NatsSendError {
    match e.kind() {
        PublishErrorKind::MaxPayloadExceeded => NatsSendError::TooLarge,
        _ => NatsSendError::Connection(e.to_string()),
    }
}
