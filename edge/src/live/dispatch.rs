//! Step 5, the loop: NATS messages and commands in; frames into outboxes, subscriptions, requests for heads and jobs
//! out. The only task that touches the topics. What a batch has queued is written behind it (`writing`).

mod heads;
mod membership;
#[cfg(test)]
mod tests;
mod writing;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use natterjack_nats::{FanInEvent, LiveKind, SubscriptionSlot as FanInSlot, subjects};
use natterjack_protocol::{
    GroupId, Refusal, Thread, Times,
    internal::live::{Beat, LiveMessage},
    log::fold::ThreadItem,
};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::writing::BatchWriter;
use super::{
    Command, Flags, LiveInbox,
    batch_acks::BatchAcks,
    event::{Gap, LiveEvent, TopicKey},
    feed::Feed,
    heads_batch::{Barrier, HeadsBatches, HeadsWaiter},
    jobs::Jobs,
    partitions::PartitionDoubts,
    sweep::{FrontierSnapshots, Sweep},
    topics::{TopicEffect, TopicSlot, Topics},
};
use crate::{
    clock::Clock,
    members::{Members, Reading},
    presence::handle::PresenceHandle,
    receipt_push::ReceiptPushes,
};

/// The slots of `beat.*` and `presence.*`; topics come after them.
const BEATS: TopicSlot = 0;
const PRESENCE: TopicSlot = 1;
const TICK: Duration = Duration::from_millis(250);
/// A request for heads without an answer is sent again; attach waits 5 s in all.
const ASK_AGAIN: Duration = Duration::from_millis(1_000);

/// What a job of the dispatcher came back with.
enum JobResult {
    Fetched {
        slot: TopicSlot,
        generation: u64,
        gap: Gap,
        events: Result<Vec<LiveEvent>, Refusal>,
    },
    /// A user's key was read again; `expelled`: a control entry of this group ended their part meanwhile.
    Changed {
        reading: Reading,
        expelled: Option<GroupId>,
    },
    /// This request for heads is to be sent again. It stays open until then, and its batch with it.
    AskAgain(u64),
    Nothing,
}

/// What the dispatcher works with.
pub struct Dispatch<F, J> {
    pub feed: F,
    pub jobs: J,
    pub clock: Clock,
    pub members: Members,
    pub batch_acks: BatchAcks,
    pub presence: PresenceHandle,
    pub receipts: ReceiptPushes,
    /// Called for the beats of each partition.
    pub on_beat: Box<dyn Fn(u32) + Send>,
    /// Of the log's streams.
    pub generation: u32,
    pub partitions: u32,
    pub times: Times,
}

/// Runs until `stop` is cancelled.
pub async fn run<F: Feed, J: Jobs>(with: Dispatch<F, J>, inbox: LiveInbox, stop: CancellationToken) {
    let LiveInbox { mut commands, flags } = inbox;
    let mut d = Dispatcher {
        topics: Topics::new(with.partitions, PRESENCE + 1),
        heads: HeadsBatches::new(with.partitions),
        doubts: PartitionDoubts::new(with.partitions, with.times.role_lease),
        sweep: Sweep::new(with.times.sweep, TICK),
        snapshots: FrontierSnapshots::new(with.times.horizon + with.times.sweep),
        running: JoinSet::new(),
        asked_at: Instant::now(),
        fetches: 0,
        writing: BatchWriter::new(),
        flags,
        with,
    };
    d.with.feed.subscribe(subjects::BEATS, FanInSlot(BEATS));
    d.with.feed.subscribe(subjects::PRESENCE, FanInSlot(PRESENCE));
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    loop {
        d.settle();
        d.writing.write(&mut d.topics.unwritten);
        tokio::select! {
            // Commands first: a barrier must be written behind the subscriptions it is for, and both before we wait for
            // NATS.
            biased;
            () = stop.cancelled() => break,
            Some(command) = commands.recv() => {
                d.command(command);
                while let Ok(command) = commands.try_recv() {
                    d.command(command);
                }
            }
            Some(result) = d.running.join_next(), if !d.running.is_empty() => match result {
                Ok(result) => d.job_ended(result),
                Err(e) => tracing::error!(error = %e, "a job of the dispatcher panicked"),
            },
            _ = tick.tick() => d.tick(),
            () = d.with.feed.next_batch(&mut batch) => batch.drain(..).for_each(|event| d.event(event)),
            () = sleep_until(d.writing.due()), if !d.topics.unwritten.is_empty() => {}
        }
    }
    d.topics.unwritten.drain(..).for_each(|session| session.outbox.wake());
}

struct Dispatcher<F, J> {
    with: Dispatch<F, J>,
    flags: Arc<Flags>,
    topics: Topics,
    heads: HeadsBatches<oneshot::Sender<Barrier>>,
    doubts: PartitionDoubts,
    sweep: Sweep,
    snapshots: FrontierSnapshots,
    running: JoinSet<JobResult>,
    /// When the requests of the batch under way were sent last.
    asked_at: Instant,
    /// Gaps that are being fetched.
    fetches: usize,
    writing: BatchWriter,
}

impl<F: Feed, J: Jobs> Dispatcher<F, J> {
    fn event(&mut self, event: FanInEvent) {
        match event {
            FanInEvent::Msg { slot: FanInSlot(BEATS), payload, .. } => self.beat(&payload),
            FanInEvent::Msg { slot: FanInSlot(PRESENCE), payload, .. } => self.with.presence.batch(payload),
            FanInEvent::Msg { slot: FanInSlot(slot), kind: LiveKind::Ephemeral, payload, .. } => {
                self.topics.ephemeral(slot, &payload);
            }
            FanInEvent::Msg { slot: FanInSlot(slot), payload, .. } => self.message(slot, &payload),
            FanInEvent::Reply { token, payload, no_responders } => self.heads_answer(token, &payload, no_responders),
            FanInEvent::Disconnected => {
                tracing::warn!("the fan-in connection to NATS is lost");
                metrics::counter!(crate::metrics::FANIN_DISCONNECTS).increment(1);
            }
            FanInEvent::Connected { epoch } => {
                if epoch > 1 {
                    tracing::info!(epoch, "the fan-in connection to NATS is up again");
                }
                self.heads.restart();
                self.reload_everybody();
            }
        }
    }

    /// The one place where a live message is parsed.
    fn message(&mut self, slot: TopicSlot, payload: &Bytes) {
        match LiveMessage::parse(payload) {
            Ok(message) => {
                if let LiveMessage::Event { header, .. } = &message {
                    self.with.batch_acks.on_event(header);
                }
                self.topics.message(slot, message, payload);
                self.settle();
            }
            Err(e) => {
                let bytes = payload.len();
                tracing::error!(error = %e, bytes, "a live message is dropped: does every channel run this version?");
            }
        }
    }

    fn beat(&mut self, payload: &[u8]) {
        match Beat::decode(payload) {
            // Of the partitions of a generation before or after.
            Ok(beat) if beat.generation != self.with.generation => {}
            Ok(beat) => {
                let whole = self.with.clock.frontier(beat.p);
                (self.with.on_beat)(beat.p);
                // A holder that was silent may have published what never came here, in threads that never did, too.
                if self.with.clock.beat(beat) {
                    self.doubts.suspect(beat.p, whole);
                    self.compare_everything();
                }
            }
            Err(e) => tracing::warn!(error = %e, "a beat is dropped: does every channel run this version?"),
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            // A job may still subscribe a session that has gone.
            Command::Subscribe { session, .. } if session.gone.load(Relaxed) => {}
            Command::Subscribe { session, topics } => {
                for (key, range) in topics {
                    self.topics.subscribe(&session, &key, range);
                }
            }
            Command::Heads { session, threads, reply } => {
                let slots = self.topics.slots_of(session);
                let everywhere = threads.is_empty();
                self.heads.wait(HeadsWaiter { slots, threads, everywhere, reply: Some(reply) });
            }
            Command::Heard { session, threads, reply } => {
                let of = |(key, thread): &(TopicKey, Thread)| self.topics.by_key(key)?.heard(session, thread.hash64());
                // Who asked may have gone.
                let _ = reply.send(threads.iter().map(of).collect());
            }
            Command::GoLive { session, topics, then, reply } => {
                // Membership may have changed while the pages went out.
                for (thread, item) in session.state.select(|_, item| !item.intervals.open()) {
                    self.follow_membership(&session, &thread, &item);
                }
                let live = self.topics.go_live(session.id, &topics);
                if let Some(frame) = then.filter(|_| live) {
                    session.outbox.push(frame);
                    let is_followed = |thread: &Thread, item: &ThreadItem| {
                        let key = TopicKey::of(thread, &session.user);
                        item.intervals.open() && self.topics.is_subscribed(session.id, &key)
                    };
                    for (thread, item) in session.state.select(|thread, item| !is_followed(thread, item)) {
                        self.follow_membership(&session, &thread, &item);
                    }
                }
                // A session that has ended does not wait for it any more.
                let _ = reply.send(live);
            }
            Command::Unsubscribe { session, topics } => {
                topics.iter().for_each(|key| self.topics.unsubscribe(session, key))
            }
            Command::Detach { session } => self.topics.remove_session(session),
        }
    }

    /// Carries out what the topics asked for, then begins a batch of heads if somebody waits.
    fn settle(&mut self) {
        for (p, newest) in self.topics.grown.drain(..) {
            self.with.clock.saw(p, newest);
        }
        for effect in std::mem::take(&mut self.topics.effects) {
            match effect {
                TopicEffect::Subscribe(slot, key) => {
                    let subject = match key {
                        TopicKey::User(user) => subjects::live_user_all(&user),
                        TopicKey::Group(gid) => subjects::live_group_all(&gid),
                    };
                    self.with.feed.subscribe(&subject, FanInSlot(slot));
                }
                TopicEffect::Unsubscribe(slot) => self.with.feed.unsubscribe(FanInSlot(slot)),
                TopicEffect::Fetch { slot, generation, gap } => self.fetch(slot, generation, gap),
                TopicEffect::Changed { user, thread, id } => self.membership_changed(user, thread, id),
                TopicEffect::Contacts(user) => self.with.presence.contacts_changed(&user),
                TopicEffect::Receipts { to, thread, receipts } => self.with.receipts.push(to, thread, receipts),
                TopicEffect::Expelled { user, group } => self.reload(user, None, Some(group)),
            }
        }
        for request in self.heads.begin() {
            self.asked_at = Instant::now();
            self.ask(request);
        }
    }

    fn fetch(&mut self, slot: TopicSlot, generation: u64, gap: Gap) {
        metrics::counter!(crate::metrics::GAPS).increment(1);
        self.fetches += 1;
        self.flags.repairing.store(true, Relaxed);
        let jobs = self.with.jobs.clone();
        self.running.spawn(async move {
            let events = jobs.fetch(&gap).await;
            JobResult::Fetched { slot, generation, gap, events }
        });
    }

    fn job_ended(&mut self, result: JobResult) {
        match result {
            JobResult::Fetched { slot, generation, gap, events } => {
                self.fetches -= 1;
                self.flags.repairing.store(self.fetches > 0, Relaxed);
                match events {
                    Ok(events) => self.topics.repaired(slot, generation, &gap, events),
                    Err(why) => {
                        let Gap { thread, after, upto } = gap;
                        tracing::warn!(%thread, %after, %upto, %why, "a gap cannot be filled; its sessions resume \
                            from their cursors");
                        metrics::counter!(crate::metrics::GAPS_UNFILLED).increment(1);
                        self.topics.give_up(slot, generation);
                    }
                }
            }
            JobResult::Changed { reading, expelled } => self.user_reloaded(&reading, expelled),
            JobResult::AskAgain(token) => {
                if let Some(request) = self.heads.unanswered(token) {
                    self.ask(request);
                }
            }
            JobResult::Nothing => {}
        }
    }

    fn tick(&mut self) {
        self.with.clock.look();
        if self.flags.missed_detach.swap(false, Relaxed) {
            self.topics.remove_gone();
        }
        let now = Instant::now();
        // A holder that is frozen or has just died took the question with it; its successor answers the next.
        if now.duration_since(self.asked_at) >= ASK_AGAIN {
            self.asked_at = now;
            for request in self.heads.overdue() {
                self.ask(request);
            }
        }
        let members = &self.with.members;
        if self.sweep.begin(now, || members.all().iter().map(|s| s.user.clone()).collect()) {
            self.compare_heads(Vec::new(), self.topics.active());
        }
        let users = self.sweep.take();
        self.compare_heads(users.iter().filter_map(|u| self.with.members.get(u)).collect(), Vec::new());
        if self.snapshots.is_due(now) {
            let frontiers =
                (0..self.with.partitions).map(|p| self.with.clock.frontier(p).unwrap_or_default()).collect();
            if let Some(old) = self.snapshots.add(now, frontiers) {
                self.topics.forget_below(old);
            }
            metrics::gauge!(crate::metrics::TOPICS).set(self.topics.len() as f64);
        }
    }
}
