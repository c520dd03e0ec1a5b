//! Step 3 of a message's life: into the log, until it is acknowledged or nobody can know. Before it the edge has
//! judged; behind it the sequence is the message's id and every reader takes it from there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use natterjack_protocol::{MsgId, Thread, Times};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    fence::Fence,
    layout::Layout,
    lease::LeaseStanding,
    subjects,
    wire::{
        HeaderMap,
        client::Nats,
        inbox::NatsRequestError,
        jetstream::{self, JsError, code},
    },
};

/// Acknowledgements in flight per process: latency = window / rate, 10 ms at 100 k/s.
const IN_FLIGHT: usize = 1_000;
/// Between looks at a fence.
const FENCED: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishAck {
    pub id: MsgId,
    /// The log had this Msg-Id already; `id` is the first one's.
    pub duplicate: bool,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// Another control entry came first, or an earlier attempt of this very one was stored, and others behind it: the
    /// server compares what is expected before it looks for the Msg-Id. Look for the `op` behind `expected`.
    #[error("the thread has a newer control entry than expected")]
    Conflict,
    /// Nothing was stored; it may be tried again when there is room.
    #[error("the log is full; raise max_bytes or wait until old entries expire")]
    StreamFull,
    /// Not known whether it was stored; the same Msg-Id is safe to publish again.
    #[error("the log did not acknowledge in time: {0}")]
    Deadline(String),
    /// Nothing was stored.
    #[error("the lease of this edge has run out, and others may have taken over its sessions")]
    NoLease,
    #[error("publishing has been shut down")]
    Closed,
    #[error("the log refuses the entry: {0}")]
    Rejected(String),
}

/// One per process; clones share the window.
#[derive(Clone)]
pub struct Publisher {
    nats: Nats,
    layout: Layout,
    times: Times,
    window: Arc<Semaphore>,
    /// The log takes no batches: its streams, or its servers, are older than those.
    one_by_one: Arc<AtomicBool>,
    fence: Fence,
    /// None: not of an edge.
    lease: Option<LeaseStanding>,
}

impl Publisher {
    pub fn new(nats: &Nats, layout: Layout, times: Times) -> Self {
        let one_by_one = Arc::new(AtomicBool::new(!nats.is_server_compatible()));
        let fence = Fence::new(nats, layout);
        Self {
            nats: nats.clone(),
            layout,
            times,
            window: Arc::new(Semaphore::new(IN_FLIGHT)),
            one_by_one,
            fence,
            lease: None,
        }
    }

    /// Waits where this one is closed.
    #[must_use]
    pub fn behind(self, fence: Fence) -> Self {
        Self { fence, ..self }
    }

    /// Publishes only while this lease stands: who was frozen writes nothing for sessions that others have.
    #[must_use]
    pub fn while_stands(self, lease: LeaseStanding) -> Self {
        Self { lease: Some(lease), ..self }
    }

    fn may(&self) -> bool {
        self.lease.as_ref().is_none_or(LeaseStanding::stands)
    }

    /// A message or an operation. `msg_id`: `Cid::dedupe_id`.
    pub async fn message(&self, thread: &Thread, msg_id: &str, payload: Bytes) -> Result<PublishAck, PublishError> {
        let p = self.layout.partition(thread);
        self.until_known(p, &subjects::chat(self.layout.generation, p, thread), msg_id, None, payload).await
    }

    /// Several of one sender, (`Cid::dedupe_id`, payload), in this order: each is stored only if the log has all
    /// before it (ADR 7). Tried once. False: the first few may be stored, the same Msg-Ids are safe to publish again,
    /// one after the other.
    pub async fn batch(&self, thread: &Thread, messages: Vec<(String, Bytes)>) -> bool {
        let p = self.layout.partition(thread);
        if self.one_by_one.load(Relaxed) || !self.fence.is_open(p) {
            return false;
        }
        let many = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let permits = tokio::time::timeout(self.times.ack_timeout, self.window.acquire_many(many)).await;
        let Ok(Ok(_permits)) = permits else { return false };
        let subject = subjects::chat(self.layout.generation, p, thread);
        let with_headers = |(msg_id, payload): (String, Bytes)| {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", msg_id);
            (headers, payload)
        };
        let messages = messages.into_iter().map(with_headers).collect();
        if !self.may() {
            return false;
        }
        match jetstream::publish_batch(&self.nats, &subject, messages, self.times.ack_timeout).await {
            Ok(()) => true,
            Err(e) => {
                if e.err_code() == code::NO_BATCHES {
                    tracing::warn!(
                        "the log takes no batches of messages, so pipelined ones are slower; run `natterjack provision`"
                    );
                    self.one_by_one.store(true, Relaxed);
                }
                tracing::debug!(error = %e, "a batch was not acknowledged");
                metrics::counter!(crate::metrics::PUBLISH_BATCHES_GIVEN_UP).increment(1);
                false
            }
        }
    }

    /// A control entry; `expected` is the thread's last control entry in this stream, `MsgId::NONE` if it has none.
    pub async fn control(
        &self,
        thread: &Thread,
        op_id: &str,
        payload: Bytes,
        expected: MsgId,
    ) -> Result<PublishAck, PublishError> {
        let p = self.layout.partition(thread);
        self.until_known(p, &subjects::ctl(self.layout.generation, p, thread), op_id, Some(expected), payload).await
    }

    /// Stops taking new entries. Those in flight finish with the attempt they are in.
    pub fn close(&self) {
        self.window.close();
    }

    /// How many more entries may be in flight.
    pub fn room(&self) -> usize {
        self.window.available_permits()
    }

    async fn until_known(
        &self,
        p: u32,
        subject: &str,
        msg_id: &str,
        expected: Option<MsgId>,
        payload: Bytes,
    ) -> Result<PublishAck, PublishError> {
        let deadline = Instant::now() + self.times.publish_deadline;
        let permit = tokio::time::timeout_at(deadline, self.window.acquire()).await;
        let _permit = permit
            .map_err(|_| PublishError::Deadline("too many are in flight".into()))?
            .map_err(|_| PublishError::Closed)?;
        let (mut pause, mut tried) = (Duration::from_millis(20), false);
        while !self.fence.is_open(p) {
            if Instant::now() + FENCED >= deadline || self.window.is_closed() {
                return Err(PublishError::Deadline(
                    "the server has come anew, and nobody has looked yet whether its log is whole".into(),
                ));
            }
            tokio::time::sleep(FENCED).await;
        }
        loop {
            let timeout = self.times.ack_timeout.min(deadline.saturating_duration_since(Instant::now()));
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", msg_id);
            if let Some(expected) = expected {
                headers.insert("Nats-Expected-Last-Subject-Sequence", expected.0.to_string());
            }
            // Right before each attempt: between this and the socket there is no wait.
            if !self.may() {
                return Err(if tried {
                    PublishError::Deadline(PublishError::NoLease.to_string())
                } else {
                    PublishError::NoLease
                });
            }
            tried = true;
            let error = match jetstream::publish(&self.nats, subject, Some(headers), payload.clone(), timeout).await {
                Ok(ack) => return Ok(PublishAck { id: MsgId(ack.seq), duplicate: ack.duplicate }),
                Err(e) => e,
            };
            match verdict(&error) {
                Verdict::Fail(e) => return Err(e),
                Verdict::Again => {}
            }
            metrics::counter!(crate::metrics::PUBLISH_RETRIES).increment(1);
            // A publish without a responder: the generation is over, and whoever resends asks `history` first.
            if Instant::now() + pause >= deadline || self.window.is_closed() {
                return Err(PublishError::Deadline(error.to_string()));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
            while !self.fence.is_open(p) && Instant::now() + FENCED < deadline {
                tokio::time::sleep(FENCED).await;
            }
        }
    }
}

enum Verdict {
    Again,
    Fail(PublishError),
}

/// Pure: what an answer other than an acknowledgement means.
fn verdict(e: &JsError) -> Verdict {
    match e {
        JsError::Request(NatsRequestError::Timeout | NatsRequestError::NoResponders) | JsError::NoLeader(_) => {
            Verdict::Again
        }
        JsError::Request(NatsRequestError::NotSent(why) | NatsRequestError::TooLarge(why)) => {
            Verdict::Fail(PublishError::Rejected(why.clone()))
        }
        JsError::Broken(why) => Verdict::Fail(PublishError::Rejected(why.clone())),
        JsError::Api { code: http, err_code, description } => match *err_code {
            code::WRONG_LAST_SEQUENCE | code::WRONG_LAST_SEQUENCE_CONSTANT => Verdict::Fail(PublishError::Conflict),
            code::STORE_FAILED | code::STORAGE_EXCEEDED | code::INSUFFICIENT_RESOURCES => {
                Verdict::Fail(PublishError::StreamFull)
            }
            _ if description.starts_with("maximum ") => Verdict::Fail(PublishError::StreamFull),
            code::DUPLICATE_IN_PROCESS => Verdict::Again,
            code::MESSAGE_TOO_LARGE | code::HEADER_TOO_LARGE | code::SEALED => {
                Verdict::Fail(PublishError::Rejected(description.clone()))
            }
            // No leader, too many requests, not ready: they pass.
            _ if *http >= 429 => Verdict::Again,
            _ => Verdict::Fail(PublishError::Rejected(description.clone())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u64, err_code: u64, description: &str) -> Verdict {
        verdict(&JsError::Api { code, err_code, description: description.into() })
    }

    #[test]
    fn what_is_tried_again_and_what_is_told() {
        assert!(matches!(of(409, 10158, "duplicate message id is in process"), Verdict::Again));
        assert!(matches!(of(503, 10008, "JetStream system temporarily unavailable"), Verdict::Again));
        assert!(matches!(of(429, 10167, "too many requests"), Verdict::Again));
        assert!(matches!(verdict(&JsError::Request(NatsRequestError::NoResponders)), Verdict::Again));
        assert!(matches!(of(400, 10071, "wrong last sequence: 5"), Verdict::Fail(PublishError::Conflict)));
        assert!(matches!(of(400, 10164, "wrong last sequence"), Verdict::Fail(PublishError::Conflict)));
        assert!(matches!(of(503, 10077, "maximum bytes exceeded"), Verdict::Fail(PublishError::StreamFull)));
        assert!(matches!(
            of(400, 10109, "invalid operation on sealed stream"),
            Verdict::Fail(PublishError::Rejected(_))
        ));
    }
}
