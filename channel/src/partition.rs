//! Step 4, the loop of one partition: log → fold → chain → frame → live subjects → position.
//!
//! Everything that is said about a partition leaves from this one task through one connection, so program order is the
//! order on the wire: an answer to a heads request, or a beat, stands behind every frame it speaks of. Whatever takes
//! long (KV, the log's bounds, a round trip) runs as a future beside the loop and never holds it; what must not
//! overtake it waits in `unconfirmed`.
//!
//! `reading` fills `unconfirmed`, whoever publishes. An instance is a `Standby` until it has the lease, and then the
//! `Holder`, which empties it; when another instance has the lease, it is a `Standby` again. The generation ends with a
//! mark that `reading` finds.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use natterjack_nats::{Nats, Position, RoleLease, ServerTime};
use natterjack_role::{Partition as Assigned, PartitionError};
use natterjack_runtime::health::Trouble;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use self::{
    holder::{Holder, HolderEvent},
    reading::Reading,
    standby::{Standby, StandbyEvent},
};
use crate::{
    inherited::InheritedHeads,
    log_probe::LogProbe,
    metrics::Metrics,
    start::{self, LogState, StartPlan},
    unconfirmed::Unconfirmed,
};

mod chain;
mod holder;
mod maintenance;
mod reading;
mod standby;

/// Entries read, or published, before the loop looks at everything else: about 2 ms.
const TURN: usize = 1_024;
/// Maintenance: confirm, save the position, evict, measure.
const MAINTENANCE: Duration = Duration::from_millis(200);
/// How often the position is saved, or a standby looks at it.
const SAVE: Duration = Duration::from_millis(500);
/// How long a stopping holder tries to confirm and hand over.
const FINISH: Duration = Duration::from_secs(3);

/// What all partitions of an instance share. Frames, beats, answers and the lease go over the runner's connection, so a
/// holder that cannot publish loses the lease.
pub(crate) struct Channel {
    /// Carries the log and KV, so that what comes in does not queue behind what goes out.
    pub log: Nats,
    pub time: ServerTime,
    pub inherited: InheritedHeads,
}

struct Partition {
    at: Assigned,
    trouble: Trouble,
    inherited: InheritedHeads,
    time: ServerTime,
    reading: Reading,
    unconfirmed: Unconfirmed,
    leadership: Leadership,
    probe: LogProbe,
    metrics: Arc<Metrics>,
    /// What is known of the threads was left for the next generation.
    left_heads: bool,
    /// Nothing that was inherited is of use any more.
    passed_inherited: bool,
}

/// Does this instance publish?
enum Leadership {
    Standby(Box<Standby>),
    Holder(Box<Holder>),
    /// This task is about to end, or between the two.
    Ended,
}

enum LeadershipEvent {
    Standby(StandbyEvent),
    Holder(HolderEvent),
}

impl Leadership {
    /// Cancel-safe.
    async fn next(&mut self) -> LeadershipEvent {
        match self {
            Self::Standby(standby) => LeadershipEvent::Standby(standby.next().await),
            Self::Holder(holder) => LeadershipEvent::Holder(holder.next().await),
            Self::Ended => std::future::pending().await,
        }
    }

    fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Holder(holder) => Some(holder),
            Self::Standby(_) | Self::Ended => None,
        }
    }
}

/// Runs one partition until it is asked to stop, or until something ends it that waiting does not cure.
pub(crate) async fn run(channel: &Channel, at: Assigned, lease: RoleLease) -> Result<(), PartitionError> {
    let stop = at.stop.clone();
    let begin = Partition::begin(channel, at, lease);
    let Some(mut partition) = stop.run_until_cancelled(begin).await.transpose()? else { return Ok(()) };
    if let Some(ended) = stop.run_until_cancelled(partition.work()).await {
        return ended;
    }
    let p = partition.at.p;
    if timeout(FINISH, partition.finish()).await.is_err() {
        tracing::warn!(
            partition = p,
            "the last events were not confirmed in time; the next holder publishes some of them again"
        );
    }
    Ok(())
}

impl Partition {
    /// Asks where to begin until it is told.
    async fn begin(channel: &Channel, at: Assigned, lease: RoleLease) -> Result<Self, PartitionError> {
        at.health.doing("asks where to begin");
        let horizon_ms = at.times.horizon.as_millis() as u64;
        let (position, bounds) = at.resume().await?;
        // Over, or about to be: there may be no later layout yet.
        let closed = at.closed || bounds.over;
        let log = LogState {
            first: bounds.first,
            last: bounds.last,
            now_ms: bounds.ts_ms,
            created_ms: bounds.created_ms,
            closed,
        };
        let plan = start::choose(position, log, horizon_ms);
        if let Some(alarm) = plan.alarm {
            tracing::error!(partition = at.p, ?position, ?log, alarm);
        }
        let StartPlan { from, published, .. } = plan;
        tracing::debug!(partition = at.p, ?from, published = %published.id, "reading the log");
        let metrics = Arc::new(Metrics::new(at.p));
        let inherited = at.follows.and_then(|former| channel.inherited.of(former, at.layout, at.p));
        let reading = Reading::new(channel, &at, &plan, &bounds, inherited, &metrics);
        Ok(Self {
            trouble: at.health.trouble(),
            inherited: channel.inherited.clone(),
            time: channel.time.clone(),
            unconfirmed: Unconfirmed::new(published, plan.known()),
            leadership: Leadership::Standby(Box::new(Standby::new(&at, lease, false))),
            probe: LogProbe::new(&at, &bounds, start::set_back(published, bounds.ts_ms, &at.times)),
            reading,
            metrics,
            left_heads: false,
            passed_inherited: false,
            at,
        })
    }

    async fn work(&mut self) -> Result<(), PartitionError> {
        let mut beats = interval(self.at.times.beat);
        let mut maintenance = interval(MAINTENANCE);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        maintenance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.publish().await?;
            let more = self.leadership.holder().is_some_and(|holder| holder.has_more(&self.unconfirmed));
            let idle_due = self.leadership.holder().and_then(Holder::next_idle);
            let room = !self.unconfirmed.full();
            tokio::select! {
                // In this order, because: who publishes is decided before anything is said; what has finished makes
                // room; requests and beats are few and must not starve under load; reading comes last, since there is
                // nearly always something.
                biased;
                event = self.leadership.next() => self.lead(event).await?,
                answer = self.probe.next() => self.probed(answer).await?,
                _ = beats.tick() => self.ask_the_log(),
                _ = maintenance.tick() => self.maintain().await?,
                () = sleep_until(idle_due.unwrap_or_else(Instant::now)), if idle_due.is_some() => {
                    self.idle_heads().await?;
                }
                () = std::future::ready(()), if more => {}
                read = self.reading.next(room) => self.reading.take(read?, &mut self.unconfirmed),
            }
        }
    }

    /// One turn of publishing, if this instance publishes.
    async fn publish(&mut self) -> Result<(), PartitionError> {
        let Leadership::Holder(holder) = &mut self.leadership else { return Ok(()) };
        if !holder.may_publish(&self.unconfirmed) {
            return Ok(());
        }
        if holder.reconnected(&mut self.unconfirmed) {
            self.probe.ask_again(self.unconfirmed.last_read().id, self.at.nats.epoch());
        }
        holder.publish(&mut self.unconfirmed).await
    }

    async fn lead(&mut self, event: LeadershipEvent) -> Result<(), PartitionError> {
        let (unconfirmed, leadership) = (&mut self.unconfirmed, &mut self.leadership);
        match (event, leadership) {
            (LeadershipEvent::Standby(StandbyEvent::HolderAt(position)), _) => {
                if let Some(position) = position {
                    unconfirmed.confirm(position.id);
                }
            }
            (LeadershipEvent::Standby(StandbyEvent::Acquired(lease, position)), Leadership::Standby(standby)) => {
                let news = standby.stood_by();
                self.take_over(lease, position, news);
            }
            (LeadershipEvent::Holder(HolderEvent::LeaseLost), _) => self.stand_by(),
            (LeadershipEvent::Holder(HolderEvent::Confirmed(frontier)), Leadership::Holder(holder)) => {
                holder.confirm(frontier, unconfirmed)
            }
            (LeadershipEvent::Holder(HolderEvent::Folded(folded)), _) => unconfirmed.folded(folded),
            (LeadershipEvent::Holder(HolderEvent::Saved(saved)), Leadership::Holder(holder)) => holder.saved(saved),
            (LeadershipEvent::Holder(HolderEvent::Request(request)), Leadership::Holder(holder)) => {
                if holder.answer(request, self.reading.chain().heads(), unconfirmed, self.probe.clock().now()).await? {
                    // Requests come before reading in the loop: now and then it reads all the same, so that no flood of
                    // them stops the events.
                    let room = !unconfirmed.full();
                    if let Some(read) = self.reading.next(room).now_or_never() {
                        self.reading.take(read?, unconfirmed);
                    }
                }
            }
            // An event comes from the state that it is handled in.
            (LeadershipEvent::Standby(StandbyEvent::Acquired(..)) | LeadershipEvent::Holder(_), _) => {}
        }
        Ok(())
    }

    /// The last holder is gone, or there was none. Everything behind its position goes out now, from what was read
    /// meanwhile.
    fn take_over(&mut self, lease: RoleLease, position: Option<Position>, news: bool) {
        if let Some(position) = position {
            self.unconfirmed.confirm(position.id);
        }
        self.unconfirmed.rewind();
        let saved = position.unwrap_or_else(|| self.unconfirmed.confirmed());
        self.leadership =
            Leadership::Holder(Box::new(Holder::new(&self.at, self.reading.nats(), lease, saved, &self.metrics)));
        // At a start that goes well this is no news; a takeover is.
        if news {
            let (from, waiting) = (self.unconfirmed.confirmed().id, self.unconfirmed.unpublished());
            tracing::info!(partition = self.at.p, %from, waiting, "publishing this partition from now on");
        }
    }

    /// Another instance has the lease: reads on and publishes nothing until it is free.
    fn stand_by(&mut self) {
        tracing::info!(partition = self.at.p, "another instance publishes this partition; standing by");
        self.unconfirmed.rewind();
        if let Leadership::Holder(holder) = std::mem::replace(&mut self.leadership, Leadership::Ended) {
            self.leadership = Leadership::Standby(Box::new(Standby::new(&self.at, holder.into_lease(), true)));
        }
    }
}
