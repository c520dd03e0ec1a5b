//! Step 2: a message on its way into the log, exactly once. Before: `session/commands` in the order of the device's sends.
//! After: JetStream's ack (step 3), whose sequence is the message's id, goes back to the sender as `sent`.

use std::sync::Arc;

use bytes::Bytes;
use natterjack_nats::{Layout, PublishError, Publisher};
use natterjack_protocol::{
    Body, Cid, Code, Entry, Kind, MsgId, Refusal, Thread, Times, UserId,
    cid::Age,
    client::frame::SendMessage,
    internal::rpc::{HistoryAnswer, HistoryRequest},
    limits,
    log::fold::{self, ThreadItem},
};

use crate::{
    clock::Clock,
    control::{Change, Control, clock_ahead, refused},
    directory::unexpected,
    history::HistoryClient,
    live::batch_acks::BatchAcks,
    members::UserState,
    people::People,
    sends::references::References,
    status::StatusWatch,
};

/// What a send needs; one per edge.
pub struct Sends {
    pub publisher: Publisher,
    pub control: Control,
    pub people: People,
    pub history: HistoryClient,
    pub references: References,
    pub clock: Clock,
    pub batch_acks: BatchAcks,
    pub status: StatusWatch,
    pub layout: Layout,
    pub times: Times,
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
    /// Returns the id once the log has it, or had it already. Dropping the future leaves the outcome open: the same cid may come again.
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
        let p = self.layout.partition(&thread);
        let (now, since) = self.clock.now_ms(p).zip(self.clock.dedupe_since_ms(p)).ok_or_else(no_beats)?;
        let age = cid.age(now, since, &self.times);
        state.loaded(self.times.attach).await?;
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

        if let Err(refusal) = self.membership(state, &thread).await {
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
        self.may_publish(&thread, p)?;
        if refers && let Err(refusal) = self.references.check(&thread, state.item(&thread).as_ref(), &entry.body).await {
            // The same cid is the same message, whatever the body says now.
            let unknown = age != Age::Old && refusal.code == Code::Invalid;
            let stored = if unknown { self.find(&thread, &entry.from, cid).await?.0 } else { None };
            return stored.ok_or(refusal);
        }
        self.publish(&thread, &entry, encoded, p).await
    }

    /// Is the way into this partition of the log open?
    pub(crate) fn may_publish(&self, thread: &Thread, p: u32) -> Result<(), Refusal> {
        self.status.now().may_send(thread)?;
        if !self.clock.alive(p) {
            return Err(no_beats());
        }
        self.archive_keeps_up(p)
    }

    async fn publish(&self, thread: &Thread, entry: &Entry, encoded: Bytes, p: u32) -> Result<MsgId, Refusal> {
        let msg_id = entry.cid.dedupe_id(thread, &entry.from);
        let started = std::time::Instant::now();
        let stored = tokio::select! {
            // The clock first: what is published again behind it would be stored again.
            biased;
            () = self.clock.is_set_back() => {
                return Err(Refusal::unavailable("the log's clock was set back; send the same cid again"));
            }
            stored = self.publisher.message(thread, &msg_id, encoded) => stored,
        };
        let stored = stored.map_err(|e| match e {
            // No condition was set.
            PublishError::Conflict => Refusal::new(Code::Internal, "the log refused the entry"),
            e => refused(&e),
        })?;
        self.metrics.publish_seconds.record(started.elapsed().as_secs_f64());
        // An ack this late may be of a copy that the dedupe window no longer covered: readers hide it, so its id is not the message's.
        let on_time = self.clock.now_ms(p).is_some_and(|now| !entry.cid.is_late(now, entry.seen, &self.times));
        if on_time {
            return Ok(stored.id);
        }
        metrics::counter!(crate::metrics::LATE_ACKS).increment(1);
        match self.find(thread, &entry.from, entry.cid).await? {
            (Some(id), _) => Ok(id),
            (None, _) => Err(Refusal::unavailable("not known yet whether the message was stored; send the same cid again")),
        }
    }

    /// May this user write here? A thread unknown to this edge is asked for at the leader; an unknown DM begins.
    pub async fn membership(&self, state: &Arc<UserState>, thread: &Thread) -> Result<(), Refusal> {
        let known = state.item(thread);
        if known.as_ref().is_some_and(|i| !i.not_begun && fold::may_send(i).is_ok()) {
            return Ok(());
        }
        // What this edge knows may lag behind what the sender has just been told over HTTP.
        if known.is_some() || matches!(thread, Thread::Group { .. }) {
            self.refresh(state, thread).await?;
        }
        match state.item(thread) {
            Some(item) if item.not_begun => {
                fold::may_send(&item)?;
                self.start_dm(state, thread).await
            }
            Some(item) => fold::may_send(&item),
            None if matches!(thread, Thread::Dm { .. }) => self.start_dm(state, thread).await,
            None => Err(not_member()),
        }
    }

    /// Takes the user's item from the leader.
    pub async fn refresh(&self, state: &Arc<UserState>, thread: &Thread) -> Result<(), Refusal> {
        if let Some(item) = self.people.threads(&state.user).await?.threads.remove(thread) {
            state.merge(thread, item);
        }
        Ok(())
    }

    /// The first message between two people: `dm_started` is in the log, acknowledged, before the message is published.
    async fn start_dm(&self, state: &Arc<UserState>, thread: &Thread) -> Result<(), Refusal> {
        let peer = thread.peer(&state.user).ok_or_else(not_member)?;
        self.may_publish(thread, self.layout.partition(thread))?;
        let theirs = self.people.threads(peer).await?;
        // They may have blocked, or begun, before this edge heard of it.
        if theirs.threads.get(thread).is_some_and(|i| i.blocks) {
            return Err(Refusal::new(Code::Blocked, "this person does not take messages from you"));
        }
        if !fold::has_room(&theirs, limits::STATE_BYTES_BY_OTHERS) {
            return Err(fold::full(peer));
        }
        let change = Change { thread: thread.clone(), actor: state.user.clone(), kind: Kind::DmStarted, body: Body::default(), cid: None };
        match self.control.append(&change).await {
            Ok(id) => {
                // A block that ended may have left an item.
                let known = state.item(thread).unwrap_or_default();
                let mut item = ThreadItem { v: id, not_begun: false, known: None, ..known };
                item.intervals.enter(id);
                state.merge(thread, item);
                Ok(())
            }
            Err(e) if e.code == Code::Conflict => {
                self.refresh(state, thread).await?;
                state.item(thread).map_or(Err(e), |item: ThreadItem| fold::may_send(&item))
            }
            Err(e) => Err(e),
        }
    }

    /// The id of this cid if it is stored, and the log's clock at the lookup.
    async fn find(&self, thread: &Thread, sender: &UserId, cid: Cid) -> Result<(Option<MsgId>, u64), Refusal> {
        metrics::counter!(crate::metrics::CID_LOOKUPS).increment(1);
        let request = HistoryRequest::FindCid { thread: thread.clone(), sender: sender.clone(), cid, below: None };
        match self.history.ask(request).await? {
            HistoryAnswer::FindCid { found, seen } => Ok((found, seen)),
            _ => Err(unexpected()),
        }
    }

    /// DiscardNew guards the log's bytes; nothing else guards its age.
    fn archive_keeps_up(&self, p: u32) -> Result<(), Refusal> {
        let allowed = self.times.log_max_age.saturating_sub(self.times.storage_margin);
        match self.clock.archive_lag_ms(p) {
            Some(lag) if u128::from(lag) >= allowed.as_millis() => Err(Refusal {
                retry_after_ms: Some(30_000),
                ..Refusal::new(Code::StorageBehind, "the archive is too far behind the log; nothing was stored")
            }),
            _ => Ok(()),
        }
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

fn no_beats() -> Refusal {
    Refusal::unavailable("this edge is cut off from the log; try again in a moment")
}

fn not_member() -> Refusal {
    Refusal::new(Code::NotMember, "you are not in this thread")
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
