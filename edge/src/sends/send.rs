//! Step 2: a message on its way into the log, exactly once (P2). Before: `session/commands` in the order of the
//! device's sends. After: JetStream's ack (step 3), whose sequence is the message's id, goes back to the sender as
//! `sent`.

use std::sync::Arc;

use bytes::Bytes;
use natterjack_nats::{PublishError, Publisher, calls::history::find_cid};
use natterjack_protocol::{
    Cid, Code, Entry, MsgId, Refusal, Thread, UserId, cid::Age, client::frame::SendMessage, limits,
};

use crate::{
    control::clock_ahead,
    history::HistoryClient,
    live::batch_acks::BatchAcks,
    members::UserState,
    refusals::{EdgeError, refuse},
    sends::{log_condition::LogCondition, membership::Membership, references::References},
};

/// What a send needs; one per edge.
pub struct Sends {
    pub publisher: Publisher,
    pub membership: Membership,
    pub history: HistoryClient,
    pub references: References,
    pub batch_acks: BatchAcks,
    pub log: LogCondition,
    pub metrics: Metrics,
}

/// Of each message, so not looked up by name each time.
pub struct Metrics {
    sent: metrics::Counter,
    publish_seconds: metrics::Histogram,
    batched: metrics::Counter,
}

impl Metrics {
    /// A batch of so many was stored.
    pub(crate) fn batch(&self, many: usize, took: std::time::Duration) {
        self.sent.increment(many as u64);
        self.batched.increment(many as u64);
        self.publish_seconds.record(took.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sent: metrics::counter!(crate::metrics::SENDS, "result" => "sent"),
            publish_seconds: metrics::histogram!(crate::metrics::PUBLISH_SECONDS),
            batched: metrics::counter!(crate::metrics::SENDS_BATCHED),
        }
    }
}

impl Sends {
    /// Returns the id once the log has it, or had it already. Dropping the future leaves the outcome open: the same cid
    /// may come again.
    pub async fn send(&self, state: &Arc<UserState>, send: SendMessage) -> Result<MsgId, Refusal> {
        let cid = send.cid;
        let result = self.decide(state, send).await.map_err(|e| e.with_cid(cid));
        match &result {
            Ok(_) => self.metrics.sent.increment(1),
            Err(e) => metrics::counter!(crate::metrics::SENDS, "result" => code_name(e.code)).increment(1),
        }
        result
    }

    async fn decide(&self, state: &Arc<UserState>, send: SendMessage) -> Result<MsgId, Refusal> {
        let (cid, thread) = (send.cid, send.thread.clone());
        let (mut entry, mut encoded) = entry_of(&state.user, send)?;
        let p = self.log.layout.partition(&thread);
        let (now, since) = self.log.window(p).ok_or_else(|| refuse(EdgeError::NoBeats))?;
        let age = cid.age(now, since, &self.log.times);
        state.loaded(self.log.times.attach).await?;
        if age == Age::Ahead {
            // Stored, perhaps, while the log's clock was ahead.
            let sent = state.item(&thread).is_some();
            let found = if sent { self.find(&thread, &entry.from, cid).await?.0 } else { None };
            return found.ok_or_else(|| clock_ahead(now));
        }
        let refers = entry.body.references().next().is_some();
        if refers && state.item(&thread).is_none() && thread.peer(&state.user).is_some() {
            // Before a conversation begins with something that cannot be sent.
            self.references.check(&thread, None, &entry.body).await?;
        }

        if let Err(refusal) = self.membership.may_send(state, &thread).await {
            // It may be the resend of a message that was sent when it was still allowed (P2).
            let was_in_it = state.item(&thread).is_some();
            return match was_in_it {
                true => self.find(&thread, &entry.from, cid).await?.0.ok_or(refusal),
                false => Err(refusal),
            };
        }
        if age == Age::Old {
            match self.find(&thread, &entry.from, cid).await? {
                (Some(id), _) => return Ok(id),
                (None, seen) => {
                    entry.seen = Some(seen);
                    encoded = entry.encode();
                }
            }
        }
        self.log.may_publish(&thread, p)?;
        if refers && let Err(refusal) = self.references.check(&thread, state.item(&thread).as_ref(), &entry.body).await
        {
            // The same cid is the same message, whatever the body says now.
            let unknown = age != Age::Old && refusal.code == Code::Invalid;
            let stored = if unknown { self.find(&thread, &entry.from, cid).await?.0 } else { None };
            return stored.ok_or(refusal);
        }
        self.publish(&thread, &entry, encoded, p).await
    }

    async fn publish(&self, thread: &Thread, entry: &Entry, encoded: Bytes, p: u32) -> Result<MsgId, Refusal> {
        let msg_id = entry.cid.dedupe_id(thread, &entry.from);
        let started = std::time::Instant::now();
        let stored = tokio::select! {
            // The clock first: what is published again behind it would be stored again.
            biased;
            () = self.log.clock.is_set_back() => {
                return Err(Refusal::unavailable("the log's clock was set back; send the same cid again"));
            }
            stored = self.publisher.message(thread, &msg_id, encoded) => stored,
        };
        let stored = stored.map_err(|e| match e {
            // No condition was set.
            PublishError::Conflict => refuse(PublishError::Rejected("a condition that was not set".into())),
            e => refuse(e),
        })?;
        self.metrics.publish_seconds.record(started.elapsed().as_secs_f64());
        // An ack this late may be of a copy that the dedupe window no longer covered: readers hide it, so its id is not
        // the message's.
        let on_time = self.log.clock.now_ms(p).is_some_and(|now| !entry.cid.is_late(now, entry.seen, &self.log.times));
        if on_time {
            return Ok(stored.id);
        }
        metrics::counter!(crate::metrics::LATE_ACKS).increment(1);
        match self.find(thread, &entry.from, entry.cid).await? {
            (Some(id), _) => Ok(id),
            (None, _) => Err(refuse(EdgeError::OutcomeOpen)),
        }
    }

    /// The id of this cid if it is stored, and the log's clock at the lookup.
    async fn find(&self, thread: &Thread, sender: &UserId, cid: Cid) -> Result<(Option<MsgId>, u64), Refusal> {
        metrics::counter!(crate::metrics::CID_LOOKUPS).increment(1);
        self.history.ask(find_cid(thread.clone(), sender.clone(), cid, None)).await
    }
}

/// What goes into the log, and its bytes.
pub(crate) fn entry_of(user: &UserId, send: SendMessage) -> Result<(Entry, Bytes), Refusal> {
    send.body.check(send.kind)?;
    let entry = Entry::new(user.clone(), send.cid, send.kind, send.body);
    let encoded = entry.encode();
    if encoded.len() > limits::BODY_BYTES {
        let (size, most) = (encoded.len(), limits::BODY_BYTES);
        return Err(Refusal::invalid(format!("body: the message has {size} bytes, at most {most} are allowed")));
    }
    Ok((entry, encoded))
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Unavailable | Code::StorageBehind => "unavailable",
        Code::NotMember | Code::Blocked | Code::Forbidden => "refused",
        Code::ClockAhead => "clock_ahead",
        Code::ResendTooOld => "too_old",
        Code::Internal => "internal",
        _ => "invalid",
    }
}
