//! Publishing: what the instance with the lease does. Everything in `unconfirmed` goes out in order, a round trip
//! behind it confirms it, and the position follows.

use std::sync::Arc;

use futures_util::{StreamExt, future::pending};
use natterjack_nats::{KvError, Nats, NatsMessage, Position, RoleLease, Subscription};
use natterjack_protocol::{MsgId, UserId, internal::live::Beat};
use natterjack_role::{Partition as Assigned, PartitionError};
use tokio::{sync::watch, time::Instant};

use super::{SAVE, TURN};
use crate::{
    heads,
    idle_heads::IdleHeads,
    in_flight::InFlight,
    kv_folder::KvFolder,
    metrics::Metrics,
    publisher::LivePublisher,
    thread_heads::ThreadHeads,
    unconfirmed::{PendingEntry, Unconfirmed},
};

/// Control entries folded in one go.
const FOLD: usize = 1_024;
/// A round trip begins when this much is unconfirmed, at the latest with the next maintenance: three quarters of the
/// room stay free meanwhile.
const BARRIER_ENTRIES: usize = 1 << 14;
/// After this many requests in a row the log is read all the same.
const REQUESTS: u32 = 16;

pub(super) struct Holder {
    at: Assigned,
    lease: RoleLease,
    held: watch::Receiver<bool>,
    /// The connection's epoch under which everything published since the last confirmation was written.
    epoch: u64,
    publisher: LivePublisher,
    idle: IdleHeads,
    folder: KvFolder,
    barrier: InFlight<Option<MsgId>>,
    folding: InFlight<Vec<(MsgId, Vec<UserId>)>>,
    folding_since: Option<Instant>,
    saving: InFlight<Result<Position, KvError>>,
    saved: Position,
    saved_at: Instant,
    /// Requests for heads.
    heads: Option<Subscription>,
    requests: u32,
    metrics: Arc<Metrics>,
}

pub(super) enum HolderEvent {
    LeaseLost,
    /// Everything up to here has left; none: the round trip failed.
    Confirmed(Option<MsgId>),
    /// Who gets a signal for which control entry.
    Folded(Vec<(MsgId, Vec<UserId>)>),
    Saved(Result<Position, KvError>),
    /// None: the subscription has ended.
    Request(Option<NatsMessage>),
}

impl Holder {
    /// `log`: the connection for KV. `saved`: the position as the last holder left it.
    pub fn new(at: &Assigned, log: &Nats, lease: RoleLease, saved: Position, metrics: &Arc<Metrics>) -> Self {
        metrics.holder.set(1.0);
        metrics.takeovers.increment(1);
        Self {
            held: lease.held(),
            lease,
            epoch: at.nats.epoch(),
            publisher: LivePublisher::new(&at.nats, at.layout.generation, at.p, &at.times),
            idle: IdleHeads::new(at.times.head_after),
            folder: KvFolder::new(log, natterjack_nats::KvBuckets::new(log, at.layout), at.p),
            barrier: InFlight::default(),
            folding: InFlight::default(),
            folding_since: None,
            saving: InFlight::default(),
            saved,
            saved_at: Instant::now(),
            heads: None,
            requests: 0,
            metrics: metrics.clone(),
            at: at.clone(),
        }
    }

    /// Cancel-safe. Who publishes is decided first; what has finished makes room.
    pub async fn next(&mut self) -> HolderEvent {
        tokio::select! {
            biased;
            // An error: the lease is gone, and with it its refresher.
            _ = self.held.wait_for(|held| !held) => HolderEvent::LeaseLost,
            confirmed = self.barrier.finished() => HolderEvent::Confirmed(confirmed),
            folded = self.folding.finished() => {
                self.folding_since = None;
                HolderEvent::Folded(folded)
            }
            saved = self.saving.finished() => HolderEvent::Saved(saved),
            request = next_request(&mut self.heads) => HolderEvent::Request(request),
        }
    }

    pub fn into_lease(self: Box<Self>) -> RoleLease {
        self.metrics.holder.set(0.0);
        self.lease
    }

    pub fn saved_position(&self) -> Position {
        self.saved
    }

    pub fn idle_len(&self) -> usize {
        self.idle.len()
    }

    /// Since when entries wait for KV.
    pub fn folding_since(&self) -> Option<Instant> {
        self.folding_since
    }

    pub fn may_publish(&self, unconfirmed: &Unconfirmed) -> bool {
        unconfirmed.warm() && self.at.nats.connected()
    }

    /// Something could be published at once.
    pub fn has_more(&self, unconfirmed: &Unconfirmed) -> bool {
        self.may_publish(unconfirmed) && unconfirmed.next_unpublished().is_some_and(PendingEntry::ready)
    }

    /// Was the connection made anew? Then what was written may be lost: all that is unconfirmed goes out again. Edges
    /// drop what they have, by id.
    pub fn reconnected(&mut self, unconfirmed: &mut Unconfirmed) -> bool {
        let epoch = self.at.nats.epoch();
        if epoch == self.epoch {
            return false;
        }
        self.epoch = epoch;
        self.barrier.cancel();
        let again = unconfirmed.rewind();
        self.metrics.republished.increment(again as u64);
        tracing::info!(
            partition = self.at.p,
            entries = again,
            "the connection broke; publishing again from the last confirmed entry"
        );
        true
    }

    /// One turn: from the first entry that has not left, up to one that waits for its fold.
    pub async fn publish(&mut self, unconfirmed: &mut Unconfirmed) -> Result<(), PartitionError> {
        let now = Instant::now();
        for _ in 0..TURN {
            let Some(pending) = unconfirmed.next_unpublished() else { break };
            if !pending.ready() {
                if self.folding.is_idle() {
                    self.folding_since = Some(now);
                    self.folding.start(self.folder.clone().fold(unconfirmed.unfolded(FOLD)));
                }
                break;
            }
            self.publisher.entry(pending).await?;
            if self.idle.published(now, pending.record.thread.clone(), pending.hash, pending.record.id) {
                self.metrics.heads_dropped.increment(1);
            }
            unconfirmed.advance();
        }
        if unconfirmed.published() >= BARRIER_ENTRIES {
            self.begin_barrier(unconfirmed);
        }
        Ok(())
    }

    fn owes_confirmation(&self, unconfirmed: &Unconfirmed) -> bool {
        self.may_publish(unconfirmed) && unconfirmed.frontier() > unconfirmed.confirmed().id
    }

    fn begin_barrier(&mut self, unconfirmed: &Unconfirmed) {
        if self.barrier.is_idle() && self.owes_confirmation(unconfirmed) {
            let (nats, frontier) = (self.at.nats.clone(), unconfirmed.frontier());
            self.barrier.start(async move { nats.flush_barrier().await.ok().map(|()| frontier) });
        }
    }

    pub fn confirm(&self, frontier: Option<MsgId>, unconfirmed: &mut Unconfirmed) {
        // Compared with the epoch from before the first of these frames was written, not just with that of the round
        // trip.
        if let Some(frontier) = frontier
            && self.at.nats.epoch() == self.epoch
        {
            unconfirmed.confirm(frontier);
        }
    }

    pub fn saved(&mut self, saved: Result<Position, KvError>) {
        match saved {
            Ok(position) => self.saved = position,
            Err(e) => tracing::warn!(partition = self.at.p, error = %e, "the position was not saved; trying again"),
        }
    }

    /// Answers a request for heads. True: after so many in a row something else has to be done, too.
    pub async fn answer(
        &mut self,
        request: Option<NatsMessage>,
        known: &ThreadHeads,
        unconfirmed: &Unconfirmed,
        now_ms: u64,
    ) -> Result<bool, PartitionError> {
        match request {
            // The subscription ended with its connection task; the next maintenance asks for another.
            None => self.heads = None,
            Some(NatsMessage { reply: Some(reply), payload, .. }) => {
                self.metrics.requests.increment(1);
                self.publisher.answer(reply, heads::answer(&payload, known, unconfirmed.frontier(), now_ms)).await?;
                self.requests += 1;
                return Ok(self.requests.is_multiple_of(REQUESTS));
            }
            Some(_) => {}
        }
        Ok(false)
    }

    pub async fn beat(&mut self, beat: Beat) -> Result<(), PartitionError> {
        self.publisher.beat(beat).await
    }

    /// Confirms, saves the position, listens for requests, repeats signals.
    pub async fn maintain(&mut self, unconfirmed: &Unconfirmed) -> Result<(), PartitionError> {
        self.begin_barrier(unconfirmed);
        if self.saved_at.elapsed() >= SAVE {
            self.saved_at = Instant::now();
            let confirmed = unconfirmed.confirmed();
            if self.saving.is_idle() && confirmed.id > self.saved.id {
                let (positions, p) = (self.at.positions.clone(), self.at.p);
                self.saving.start(async move { positions.advance(p, confirmed).await.map(|()| confirmed) });
            }
        }
        // Only a map that knows every thread may say "nothing new".
        if self.heads.is_none() && unconfirmed.warm() {
            self.heads = Some(self.publisher.listen().await?);
        }
        if self.may_publish(unconfirmed) {
            self.publisher.signals_again().await?;
        }
        Ok(())
    }

    pub fn next_idle(&self) -> Option<Instant> {
        self.idle.next_due()
    }

    /// The heads of threads that have become idle.
    pub async fn idle_heads(&mut self, known: &ThreadHeads, unconfirmed: &Unconfirmed) -> Result<(), PartitionError> {
        let now = Instant::now();
        while let Some((thread, id)) = self.idle.pop(now, known) {
            // Without a connection it would arrive late and say nothing new; the events themselves go out again then.
            if self.may_publish(unconfirmed) {
                self.publisher.head(&thread, id).await?;
            }
        }
        Ok(())
    }

    /// A planned stop: what was published is confirmed, the position says so, and the standby need not wait for the
    /// lease to expire.
    pub async fn finish(mut self: Box<Self>, unconfirmed: &mut Unconfirmed) {
        if self.owes_confirmation(unconfirmed) {
            let frontier = unconfirmed.frontier();
            let left = self.at.nats.flush_barrier().await.is_ok();
            self.confirm(left.then_some(frontier), unconfirmed);
        }
        let confirmed = unconfirmed.confirmed();
        if confirmed.id > self.saved.id
            && let Err(e) = self.at.positions.advance(self.at.p, confirmed).await
        {
            tracing::warn!(
                partition = self.at.p, error = %e,
                "the position was not saved; the next holder publishes some events again"
            );
        }
        self.heads = None;
        self.into_lease().release().await;
    }
}

async fn next_request(heads: &mut Option<Subscription>) -> Option<NatsMessage> {
    match heads {
        Some(requests) => requests.next().await,
        None => pending().await,
    }
}
