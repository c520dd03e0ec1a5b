//! Keeps a role running: one generation of the log after the other (ADR 5), in each a task for every partition.
//!
//! A generation begins when every partition of the one before was read to its end, by whichever instance, so no
//! thread's order breaks. In a generation each partition has two tasks: the role's own, begun again when it ends, and
//! one that asks the log where it ends, because a reader that is stuck cannot say so.

use std::{sync::Arc, time::Duration};

use natterjack_nats::{
    KvBuckets, Layout, LeaderReader, LogBounds, LogReaders, Nats, Positions, RoleLease, renew_above,
};
use natterjack_protocol::{MsgId, Times};
use natterjack_runtime::health::{self, Reader, Readers, Trouble};
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    ClosedPartition, LogRole, Partition,
    restart::{self, Of},
};

/// How often the log is asked where it ends.
const PROBE: Duration = Duration::from_secs(1);
/// The same when the next generation waits for this one; and between attempts to write down that this role reads the
/// log.
const SOON: Duration = Duration::from_millis(200);

/// What a role runs with.
#[derive(Clone)]
pub struct RoleSetup {
    /// Carries positions, leases and questions about the log's end: who cannot use it loses its leases.
    pub nats: Nats,
    /// The newest one.
    pub layout: Layout,
    pub times: Times,
    /// The name of this instance in the leases: different for every process.
    pub instance: String,
    /// Each partition is a part of the process's health.
    pub readers: Readers,
}

/// One generation.
#[derive(Clone)]
struct Generation {
    layout: Layout,
    follows: Option<Layout>,
    /// There is a later one.
    closed: watch::Receiver<bool>,
    /// How many partitions are done.
    done: Arc<watch::Sender<u32>>,
    stop: CancellationToken,
}

/// Until `stop` is cancelled and every partition has finished. Waits through every outage.
pub async fn run<R: LogRole>(role: R, setup: RoleSetup, stop: CancellationToken) {
    crate::metrics::describe();
    let (role, setup) = (Arc::new(role), Arc::new(setup));
    if stop.run_until_cancelled(add_to_readers(R::NAME, &setup.nats)).await.is_none() {
        return;
    }
    tokio::select! {
        () = generations(&role, &setup, &stop) => {}
        () = setup.readers.watch() => {}
    }
}

/// Before anything is read: from here on no switch passes this role by.
async fn add_to_readers(name: &str, nats: &Nats) {
    while let Err(e) = LogReaders::new(nats).add(name).await {
        tracing::warn!(role = name, error = %e, "cannot add this role to the readers of the log; trying again");
        sleep(SOON).await;
    }
}

async fn generations<R: LogRole>(role: &Arc<R>, setup: &Arc<RoleSetup>, stop: &CancellationToken) {
    let mut newest = setup.layout;
    // What the last holder left of the former generation comes first.
    let mut layout = match newest.previous() {
        Some(before) => match stop.run_until_cancelled(is_done(role, setup, before)).await {
            Some(done) => {
                if done {
                    newest
                } else {
                    before
                }
            }
            None => return,
        },
        None => newest,
    };
    let mut follows = None;
    loop {
        let closed = newest.generation > layout.generation;
        let Some(next) = read_generation(role, setup, (layout, closed), follows, stop).await else { return };
        let over = layout;
        // Two switches behind: the one between them comes first.
        layout = next.previous().filter(|before| before.generation > over.generation).unwrap_or(next);
        let directly = layout.generation == over.generation + 1
            || next.previous().is_some_and(|b| b.generation == over.generation);
        follows = directly.then_some(over);
        newest = next;
        tracing::info!(
            role = R::NAME,
            over = over.generation,
            next = layout.generation,
            "a generation of the log was read to its end"
        );
    }
}

/// For who starts long after a switch: is nothing left of the generation before?
async fn is_done<R: LogRole>(role: &Arc<R>, setup: &RoleSetup, layout: Layout) -> bool {
    let tail = LeaderReader::new(&setup.nats, layout);
    for p in 0..layout.partitions {
        let Ok(bounds) = tail.bounds(p).await else { return false };
        if !bounds.over || role.is_done(&setup.closed::<R>(layout, p, bounds)).await != Ok(true) {
            return false;
        }
    }
    true
}

/// Until `stop` (none), or until this generation was read to its end and there is a later one.
async fn read_generation<R: LogRole>(
    role: &Arc<R>,
    setup: &Arc<RoleSetup>,
    (layout, closed): (Layout, bool),
    follows: Option<Layout>,
    stop: &CancellationToken,
) -> Option<Layout> {
    let closed = watch::Sender::new(closed);
    let now =
        Generation { layout, follows, closed: closed.subscribe(), done: Arc::default(), stop: stop.child_token() };
    let (mut tasks, mut done) = (JoinSet::new(), now.done.subscribe());
    for p in 0..layout.partitions {
        let reader = Arc::new(setup.readers.open(health::of_partition(R::PART, layout.generation, p)));
        let (role, setup, now) = (role.clone(), setup.clone(), now.clone());
        let span = tracing::info_span!("partition", role = R::NAME, generation = layout.generation, partition = p);
        let work = async move {
            tokio::select! {
                () = keep(&role, &setup, &now, p, &reader) => {}
                () = watch_the_end(&*role, &setup, &now, p, &reader) => {}
            }
        };
        tasks.spawn(work.instrument(span));
    }
    setup.readers.opened(R::PART);
    let newer = async {
        let next = Box::pin(layout.next_generation(&setup.nats)).await;
        closed.send_replace(true);
        next
    };
    let all_done = async { done.wait_for(|done| *done == layout.partitions).await.is_ok() };
    let next = stop.run_until_cancelled(async { tokio::join!(newer, all_done).0 }).await;
    now.stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        if let Err(e) = ended {
            tracing::error!(
                role = R::NAME, generation = layout.generation, error = %e,
                "the runner of a partition panicked"
            );
        }
    }
    next
}

/// The role's task of one partition, again and again.
async fn keep<R: LogRole>(role: &Arc<R>, setup: &Arc<RoleSetup>, now: &Generation, p: u32, reader: &Arc<Reader>) {
    let attempt = || {
        let (role, (partition, lease)) = (role.clone(), setup.partition::<R>(now, p, reader));
        async move { role.run(partition, lease).await }
    };
    let lost_end = |read, trouble| go_on_above(role.clone(), setup.clone(), (now.layout, p), read, trouble);
    let of = Of { role: R::NAME, generation: now.layout.generation, p };
    restart::keep(of, reader, &now.stop, attempt, lost_end).await;
}

/// Through every outage, until there is a later generation. Cancel-safe.
async fn go_on_above<R: LogRole>(
    role: Arc<R>,
    setup: Arc<RoleSetup>,
    (layout, p): (Layout, u32),
    read: MsgId,
    trouble: Arc<Trouble>,
) {
    let above = loop {
        match role.above().await {
            Ok(above) => break above,
            Err(e) => {
                trouble.is(Some(format!("the log lost its end, and what is known beside it cannot be read: {e}")))
            }
        }
        sleep(SOON).await;
    };
    trouble.is(Some("the log lost its end; a new generation of it is being made".into()));
    renew_above(&setup.nats, layout, p, R::NAME, read, above).await;
}

/// Tells the health where the log ends; and, once there is a later generation, the runner when this partition is done.
/// Never ends.
async fn watch_the_end<R: LogRole>(role: &R, setup: &RoleSetup, now: &Generation, p: u32, reader: &Reader) {
    let (tail, mut closed, mut done) = (LeaderReader::new(&setup.nats, now.layout), now.closed.clone(), false);
    loop {
        let found = tail.bounds(p).await;
        let waits = *closed.borrow_and_update() && !done;
        match found {
            Ok(bounds) => {
                reader.end(bounds.last.0);
                if waits && bounds.over {
                    match role.is_done(&setup.closed::<R>(now.layout, p, bounds)).await {
                        Ok(is) => done = is,
                        Err(e) => tracing::debug!(
                            role = R::NAME,
                            partition = p,
                            error = e,
                            "whether a partition is done is not known now"
                        ),
                    }
                    if done {
                        now.done.send_modify(|done| *done += 1);
                    }
                }
            }
            Err(e) => tracing::debug!(role = R::NAME, partition = p, error = %e, "where the log ends is not known now"),
        }
        tokio::select! {
            () = sleep(if waits { SOON } else { PROBE }) => {}
            Ok(()) = closed.changed() => {}
        }
    }
}

impl RoleSetup {
    fn positions<R: LogRole>(&self, layout: Layout) -> Positions {
        Positions::new(&KvBuckets::new(&self.nats, layout), R::NAME)
    }

    fn closed<R: LogRole>(&self, layout: Layout, p: u32, bounds: LogBounds) -> ClosedPartition {
        ClosedPartition { nats: self.nats.clone(), layout, p, bounds, positions: self.positions::<R>(layout) }
    }

    fn partition<R: LogRole>(&self, now: &Generation, p: u32, reader: &Arc<Reader>) -> (Partition, RoleLease) {
        let partition = Partition {
            nats: self.nats.clone(),
            layout: now.layout,
            p,
            times: self.times.clone(),
            closed: *now.closed.borrow(),
            follows: now.follows,
            health: reader.clone(),
            positions: self.positions::<R>(now.layout),
            stop: now.stop.clone(),
        };
        let lease = RoleLease::new(&partition.buckets(), R::NAME, p, &self.instance, &self.times);
        (partition, lease)
    }
}
