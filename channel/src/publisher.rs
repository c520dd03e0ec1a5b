//! Step 4, the end: everything a partition publishes, through one connection and in program order. In: frames, heads,
//! signals, beats and answers. Out: NATS. Nothing here waits for more than a place in the client's queue of commands
//! (2,048, which waits when it is full: a slow server slows the reading of the log, and drops nothing).

use std::collections::VecDeque;

use bytes::Bytes;
use metrics::{Counter, counter};
use natterjack_nats::{Nats, NatsSendError, NatsSubject, Subscription, subjects};
use natterjack_protocol::{
    MsgId, Refusal, Thread, Times,
    internal::{
        live::{self, Beat},
        rpc::{HeadsAnswer, Reply},
    },
};
use natterjack_role::PartitionError;
use tokio::time::Instant;

use crate::{
    fold,
    frame::{self, FrameBuffer},
    unconfirmed::{ControlEntry, PendingEntry},
};

/// Signals that wait to be sent again: 4,096 × (some users, 150 B). Beyond that the oldest are dropped: a signal that
/// is lost then is made good by the device's next attach.
const AGAIN: usize = 4_096;

pub struct LivePublisher {
    nats: Nats,
    generation: u32,
    p: u32,
    times: Times,
    buffer: FrameBuffer,
    /// A lost signal shows no gap, and no sweep knows a thread that the edge does not: so each is sent once more, as a
    /// head is.
    again: VecDeque<(Instant, Vec<NatsSubject>, Bytes)>,
    published: Counter,
    unreadable: Counter,
}

impl LivePublisher {
    pub fn new(nats: &Nats, generation: u32, p: u32, times: &Times) -> Self {
        let of = |name: &'static str| counter!(name, "partition" => p.to_string());
        Self {
            nats: nats.clone(),
            generation,
            p,
            times: times.clone(),
            buffer: FrameBuffer::default(),
            again: VecDeque::new(),
            published: of(crate::metrics::PUBLISHED_ENTRIES),
            unreadable: of(crate::metrics::UNREADABLE_ENTRIES),
        }
    }

    /// The event on its thread's live subjects; for a control entry then the `member` signals of those it affects.
    pub async fn entry(&mut self, pending: &PendingEntry) -> Result<(), PartitionError> {
        let PendingEntry { record, prev, control, .. } = pending;
        let readable = !record.control || control.is_some();
        let live = frame::live(&mut self.buffer, record, *prev, readable);
        if live.unreadable {
            self.unreadable.increment(1);
            tracing::error!(
                partition = self.p, id = %record.id, thread = %record.thread,
                "an entry cannot be read; published as kind unknown"
            );
        }
        if !self.to_all(subjects::live_subjects_of(&record.thread), live.payload).await? {
            tracing::error!(
                partition = self.p, id = %record.id, thread = %record.thread,
                "an entry is too large for a frame; published without its bytes"
            );
            let live = frame::placeholder(record, *prev);
            self.to_all(subjects::live_subjects_of(&record.thread), live.payload).await?;
        }
        self.published.increment(1);
        if let Some(c) = control {
            self.signals(c).await?;
        }
        Ok(())
    }

    async fn signals(&mut self, control: &ControlEntry) -> Result<(), PartitionError> {
        let users = fold::signals(&control.change, control.folded.as_ref());
        if users.is_empty() {
            return Ok(());
        }
        let payload = live::encode_member(&control.change.thread.to_string(), control.change.id);
        let subjects: Vec<String> = users.iter().map(subjects::live_user).collect();
        if self.again.len() >= AGAIN {
            self.again.pop_front();
        }
        let said = subjects.iter().map(|s| NatsSubject::from(s.as_str())).collect();
        self.again.push_back((Instant::now() + self.times.head_after, said, payload.clone()));
        self.to_all(subjects, payload).await.map(|_| ())
    }

    /// The signals of `times.head_after` ago, once more.
    pub async fn signals_again(&mut self) -> Result<(), PartitionError> {
        let now = Instant::now();
        while self.again.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, subjects, payload)) = self.again.pop_front() else { break };
            for subject in subjects {
                self.send(subject, payload.clone()).await?;
            }
        }
        Ok(())
    }

    /// The newest id of a thread that has become idle.
    pub async fn head(&self, thread: &Thread, id: MsgId) -> Result<(), PartitionError> {
        self.to_all(subjects::live_subjects_of(thread), live::encode_head(&thread.to_string(), id)).await.map(|_| ())
    }

    pub async fn beat(&self, beat: Beat) -> Result<(), PartitionError> {
        self.send(subjects::beat(self.p).into(), beat.encode()).await.map(|_| ())
    }

    pub async fn answer(&self, to: NatsSubject, answer: Result<HeadsAnswer, Refusal>) -> Result<(), PartitionError> {
        let bytes = rmp_serde::to_vec_named(&Reply::from(answer)).expect("an answer has string keys and plain values");
        self.send(to, bytes.into()).await.map(|_| ())
    }

    /// From here on requests for heads come to this instance.
    pub async fn listen(&self) -> Result<Subscription, PartitionError> {
        let subject = subjects::heads(self.generation, self.p);
        self.nats.subscribe(subject).await.map_err(|e| PartitionError::Failed(format!("publishing live events: {e}")))
    }

    async fn to_all(&self, subjects: Vec<String>, payload: Bytes) -> Result<bool, PartitionError> {
        for subject in subjects {
            if !self.send(subject.into(), payload.clone()).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// False: larger than the server takes, and not sent.
    async fn send(&self, subject: NatsSubject, payload: Bytes) -> Result<bool, PartitionError> {
        match self.nats.publish(subject, payload).await {
            Ok(()) => Ok(true),
            Err(NatsSendError::TooLarge) => Ok(false),
            Err(e) => Err(PartitionError::Failed(format!("publishing live events: {e}"))),
        }
    }
}
