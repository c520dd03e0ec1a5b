//! The loop of one shard: what is heard goes into the table; batches, pings and sweeps come of it.
//!
//! Everything that is said of a shard leaves from this one task, so an answer contains all that was published before
//! it. What the loop needs of the outside is [`ShardWorld`]; `nats_world` is the real one.

use std::{collections::VecDeque, future::Future, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use natterjack_protocol::{
    Token, UserId,
    client::presence::PresenceSettings,
    internal::presence::{PresenceAnswer, PresenceBatch, UserPresence},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use crate::{
    edges::EdgeRun,
    metrics::Metrics,
    moment::Moment,
    table::{ShardTable, UserSessions},
};

/// Changes wait at most so long for others.
const BATCH: Duration = Duration::from_millis(100);
/// Users of one batch: about 100 bytes each.
const BATCH_USERS: usize = 2_000;
/// Something is said at least so often; edges wait three times as long before they know nothing any more.
const BEAT: Duration = Duration::from_secs(1);
/// How often runs without a lease are looked for.
const LOOK: Duration = Duration::from_millis(500);
/// Sessions that are taken out of KV at once: a read and a write each, about a millisecond.
const SWEEPS: usize = 64;
/// Of those to be swept, how many are noted at once.
const SWEEP_QUEUE: usize = 4_096;
/// Before what is left is swept again: the watch brings what was written, a bucket without a leader needs a moment.
const SWEEP_AGAIN: Duration = Duration::from_millis(500);
/// What is heard of a shard.
#[derive(Debug)]
pub enum Heard {
    /// A user's key; none: it was deleted.
    Sessions {
        user: UserId,
        sessions: Option<UserSessions>,
        revision: u64,
    },
    Settings {
        user: UserId,
        settings: PresenceSettings,
        revision: u64,
    },
    /// An edge has written its lease. `in_bucket`: it has put its sessions into the bucket that is watched.
    Lease {
        run: EdgeRun,
        in_bucket: bool,
    },
    LeaseGone {
        edge: Token,
    },
    /// What stood at the start was heard.
    AllRead,
    /// The bucket is gone, or another one: nothing that was known counts any more.
    BucketLost,
    Asked(Asked),
}

/// An edge wants to know.
#[derive(Debug)]
pub struct Asked {
    pub users: Vec<UserId>,
    pub reply: oneshot::Sender<PresenceAnswer>,
}

/// What became of a session that was to be swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    Yes,
    /// It was not there any more.
    Gone,
    Failed,
}

/// What the loop hears, and what it has done.
pub trait ShardWorld {
    fn now(&self) -> Moment;

    /// Cancel-safe. Never ends.
    fn heard(&mut self) -> impl Future<Output = Heard> + Send;

    fn publish(&mut self, batch: &PresenceBatch) -> impl Future<Output = ()> + Send;

    /// Does this run of an edge answer in time?
    fn ping(&self, run: EdgeRun) -> impl Future<Output = bool> + Send + 'static;

    /// Takes the user's sessions of this run out of their key, as ended at `since`, if they are still there.
    fn sweep(&self, user: UserId, run: EdgeRun, since: u64) -> impl Future<Output = Swept> + Send + 'static;
}

/// The bucket that was watched is not there any more: begin anew with the one that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketLost;

pub struct Shard<W> {
    world: W,
    table: ShardTable,
    metrics: Metrics,
    /// Everything was read: from here on it is spoken of.
    begun: bool,
    shard: u32,
    epoch: u64,
    seq: u64,
    said_at: Instant,
    batched_at: Instant,
    looked_at: Instant,
    sweep_queue: VecDeque<(UserId, EdgeRun, u64)>,
    sweep_again: Instant,
}

impl<W: ShardWorld> Shard<W> {
    pub fn new(shard: u32, world: W, table: ShardTable) -> Self {
        let now = Instant::now();
        Self {
            world,
            table,
            metrics: Metrics::new(shard),
            begun: false,
            shard,
            epoch: rand::random(),
            seq: 0,
            said_at: now,
            batched_at: now,
            looked_at: now,
            sweep_queue: VecDeque::new(),
            sweep_again: now,
        }
    }

    /// Until the bucket is lost, or dropped. `on_begin` is called when the shard is spoken for.
    pub async fn run(mut self, on_begin: impl FnOnce()) -> BucketLost {
        let (mut pings, mut sweeps) = (FuturesUnordered::new(), FuturesUnordered::new());
        let mut on_begin = Some(on_begin);
        loop {
            let wake = self.next_wake();
            // In no order: while much is heard, sweeps go on, and the other way round.
            tokio::select! {
                heard = self.world.heard() => match heard {
                    Heard::BucketLost => return BucketLost,
                    Heard::AllRead => {
                        self.begin();
                        if let Some(on_begin) = on_begin.take() {
                            on_begin();
                        }
                    }
                    other => self.hear(other),
                },
                Some((run, answered)) = pings.next() => self.pinged(&run, answered),
                Some(swept) = sweeps.next() => self.swept(swept),
                () = sleep_until(wake) => {}
            }
            if !self.begun {
                continue;
            }
            let now = self.world.now();
            if self.looked_at.elapsed() >= LOOK {
                self.looked_at = Instant::now();
                self.table.look(now);
                self.metrics.users.set(self.table.users() as f64);
            }
            for run in self.table.ping_now(now) {
                let ping = self.world.ping(run.clone());
                pings.push(async move { (run, ping.await) });
            }
            self.fill_sweep_queue(sweeps.is_empty());
            while sweeps.len() < SWEEPS
                && let Some((user, run, since)) = self.sweep_queue.pop_front()
            {
                sweeps.push(self.world.sweep(user, run, since));
            }
            self.say(now).await;
        }
    }

    fn begin(&mut self) {
        self.begun = true;
        self.table.completes();
        self.table.begin(self.world.now());
        self.metrics.holder.set(1.0);
        self.said_at = Instant::now() - BEAT;
    }

    fn hear(&mut self, heard: Heard) {
        let now = self.world.now();
        match heard {
            Heard::Sessions { user, sessions, revision } => self.table.sessions(&user, sessions, revision, now),
            Heard::Settings { user, settings, revision } => self.table.settings(&user, settings, revision, now),
            Heard::Lease { run, in_bucket } => {
                self.table.lease(&run, in_bucket, now);
                if self.begun && self.table.completes() {
                    // What is said of everybody without a key changes: edges ask again.
                    tracing::debug!("every edge has put its sessions into the bucket; who is not in it is offline");
                    (self.epoch, self.seq) = (rand::random(), 0);
                    self.said_at = Instant::now() - BEAT;
                }
            }
            Heard::LeaseGone { edge } => self.table.lease_gone(&edge, now),
            Heard::Asked(Asked { users, reply }) => {
                self.metrics.asked.increment(users.len() as u64);
                // Before all was read nobody is answered: whoever asks takes that for unknown, and asks again.
                if self.begun {
                    let users = users.iter().map(|user| self.table.get(user, now)).collect();
                    // Whoever asked may have stopped waiting.
                    let _ = reply.send(PresenceAnswer { epoch: self.epoch, seq: self.seq, users });
                }
            }
            Heard::AllRead | Heard::BucketLost => {}
        }
    }

    fn pinged(&mut self, run: &EdgeRun, answered: bool) {
        if self.table.pinged(run, answered, self.world.now()) {
            tracing::warn!(edge = %run.edge, incarnation = %run.incarnation, "an edge has no lease and does not \
                answer; its sessions end");
            self.metrics.dead_edges.increment(1);
        } else if answered {
            tracing::warn!(edge = %run.edge, "an edge without a lease answers; its sessions stay");
            self.metrics.answered.increment(1);
        }
    }

    /// Takes the next ones when those before are done, and the watch had time to bring what was written.
    fn fill_sweep_queue(&mut self, idle: bool) {
        if idle && self.sweep_queue.is_empty() && Instant::now() >= self.sweep_again {
            let next = self.table.to_sweep().take(SWEEP_QUEUE);
            self.sweep_queue.extend(next.map(|(user, run, since)| (user.clone(), run.clone(), since)));
            self.sweep_again = Instant::now() + SWEEP_AGAIN;
        }
    }

    fn swept(&mut self, swept: Swept) {
        match swept {
            Swept::Yes => self.metrics.swept.increment(1),
            Swept::Gone => {}
            Swept::Failed => {
                self.metrics.sweeps_failed.increment(1);
                // The others would fail as well: they are found again.
                self.sweep_queue.clear();
                self.sweep_again = Instant::now() + SWEEP_AGAIN;
            }
        }
    }

    fn next_wake(&self) -> Instant {
        if !self.begun {
            return Instant::now() + BEAT;
        }
        let in_ms = |due: u64| Instant::now() + Duration::from_millis(due.saturating_sub(self.world.now().monotonic));
        let change = if self.table.has_changes() { Some(Instant::now()) } else { self.table.next_due().map(in_ms) };
        let batch = change.map(|at| at.max(self.batched_at + BATCH));
        batch.into_iter().fold((self.looked_at + LOOK).min(self.said_at + BEAT), Instant::min)
    }

    /// What has changed, or a beat, if it is time for either.
    async fn say(&mut self, now: Moment) {
        if self.batched_at.elapsed() >= BATCH {
            loop {
                let users = self.table.changes(now, BATCH_USERS);
                if users.is_empty() {
                    break;
                }
                self.seq += 1;
                self.metrics.batches.increment(1);
                self.metrics.published.increment(users.len() as u64);
                self.batched_at = Instant::now();
                self.publish(users).await;
            }
        }
        if self.said_at.elapsed() >= BEAT {
            self.publish(Vec::new()).await;
        }
    }

    async fn publish(&mut self, users: Vec<UserPresence>) {
        self.world.publish(&PresenceBatch { shard: self.shard, epoch: self.epoch, seq: self.seq, users }).await;
        self.said_at = Instant::now();
    }
}

impl<W> Drop for Shard<W> {
    fn drop(&mut self) {
        self.metrics.holder.set(0.0);
    }
}

#[cfg(test)]
mod tests;
