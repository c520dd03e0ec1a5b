//! The role: connects, and keeps one task per partition. Two instances share nothing but NATS; per partition one publishes, the
//! others stand by.
//!
//! One generation of the log after the other (ADR 5): a later one begins when every partition of the one before was published to its end,
//! by whomever, so no thread's order breaks; it inherits what their maps know of each thread's last id.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use natterjack_nats::{Above, Layout, Nats, NatsConfig, ServerTime, lost_end};
use natterjack_protocol::{Times, thread::partition_of};
use natterjack_runtime::{
    Health, Resources,
    clock::wall_ms,
    health::{self, Reader, Readers, Trouble},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{error::Error, last::Last, metrics::describe, partition};

/// A partition whose task ended begins again after this pause.
const RESTART: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub nats: NatsConfig,
    pub times: Times,
    /// The name of this instance in the role leases: different for every process.
    pub instance: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { nats: NatsConfig::default(), times: Times::default(), instance: uuid::Uuid::now_v7().to_string() }
    }
}

/// What all partitions of an instance share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Carries frames, beats and answers, and the lease: who cannot publish loses it.
    pub frames: Nats,
    /// Carries the log and KV, so that what comes in does not stand in line with what goes out.
    pub log: Nats,
    pub layout: Layout,
    pub times: Times,
    pub time: ServerTime,
    pub instance: String,
    /// Each partition is a part of the process's health.
    pub readers: Readers,
    /// There is a later generation: this one has its end mark, or had it until it expired.
    pub closed: bool,
    /// Partitions that were published to the end of their generation.
    pub ended: Ended,
}

type Ended = Arc<watch::Sender<BTreeSet<u32>>>;

/// What a partition knows of its threads' last ids in the generation before. Empty once that is too old for anybody to need.
pub(crate) type Heir = Arc<Mutex<Option<Last>>>;

/// A partition's part of the process's health, over all the times that it begins again.
#[derive(Clone)]
pub(crate) struct Status {
    pub reader: Arc<Reader>,
    trouble: Arc<Trouble>,
}

impl Status {
    fn new(reader: Reader) -> Self {
        let trouble = Arc::new(reader.trouble());
        Self { reader: Arc::new(reader), trouble }
    }

    /// What the partition itself knows to be wrong with it.
    pub fn set(&self, state: Result<(), String>) {
        self.trouble.is(state.err());
    }
}

/// Each partition's part of the health; by itself: the process, before it knows of any.
const PART: &str = "channel";

/// Runs until `stop` is cancelled and what was published is confirmed, or until it cannot start. Connects, waits through outages.
/// Boxed here, so that the channel is compiled once, in this crate, and not again wherever it is run.
pub fn run(cfg: Config, health: Health, stop: CancellationToken) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(serve(cfg, health, stop))
}

async fn serve(cfg: Config, health: Health, stop: CancellationToken) -> Result<(), Error> {
    describe();
    health.set(PART, Err("connecting to NATS".into()));
    let frames = Nats::connect(&cfg.nats, "channel frames").await?;
    let log = Nats::connect(&cfg.nats, "channel log").await?;
    let Some(newest) = stop.run_until_cancelled(Layout::at_start(&log)).await.transpose()? else { return Ok(()) };
    let Some(time) = stop.run_until_cancelled(ServerTime::start(&log, wall_ms)).await else { return Ok(()) };
    tracing::info!("this channel takes any of {} partitions; it may have {}", newest.partitions, Resources::now());
    let readers = Readers::new(&health);
    let watching = readers.clone();
    let mut shared = Shared {
        frames,
        log,
        // What the last holder left of the former generation comes first.
        layout: newest.before().unwrap_or(newest),
        times: cfg.times.clone(),
        time,
        instance: cfg.instance.clone(),
        readers,
        closed: newest.former.is_some(),
        ended: Ended::default(),
    };
    let generations = generations(&mut shared, &health, &stop);
    let ended = tokio::select! {
        ended = generations => ended,
        () = watching.watch() => Ok(()),
    };
    health.remove(PART);
    ended
}

async fn generations(shared: &mut Shared, health: &Health, stop: &CancellationToken) -> Result<(), Error> {
    let mut inherited = Vec::new();
    loop {
        let Some((next, maps)) = generation(shared, health, inherited.clone(), stop).await? else { return Ok(()) };
        // A partition that failed in its last moment knows nothing to hand on: its generation is gone through again, from its position.
        if maps.len() == shared.layout.partitions as usize {
            let over = shared.layout.generation;
            // Two switches behind: the one between them comes first.
            shared.layout = next.before().filter(|before| before.generation > over).unwrap_or(next);
            let follows = shared.layout.generation == over + 1 || next.before().is_some_and(|before| before.generation == over);
            inherited = if follows { maps } else { Vec::new() };
            tracing::info!(over, next = shared.layout.generation, "a generation of the log was published to its end");
        }
        shared.closed = next.generation > shared.layout.generation;
        shared.ended = Ended::default();
    }
}

/// Until `stop` (none), or until the generation is over, published to its end, and there is a newer one: with what its maps know.
async fn generation(
    shared: &Shared,
    health: &Health,
    inherited: Vec<Last>,
    stop: &CancellationToken,
) -> Result<Option<(Layout, Vec<Last>)>, Error> {
    let (layout, over) = (shared.layout, stop.child_token());
    let mut tasks = JoinSet::new();
    for p in 0..layout.partitions {
        let reader = shared.readers.open(health::of_partition(PART, layout.generation, p));
        let heir = (!inherited.is_empty()).then(|| Last::heir(&inherited, |hash| partition_of(hash, layout.partitions) == p));
        tasks.spawn(keep(shared.clone(), p, Status::new(reader), Arc::new(Mutex::new(heir)), over.clone()));
    }
    health.remove(PART);
    drop(inherited);
    let mut ended = shared.ended.subscribe();
    let newer = async {
        // The sender lives in `shared`.
        let _ = ended.wait_for(|ended| ended.len() == layout.partitions as usize).await;
        layout.newer(&shared.log).await
    };
    tokio::pin!(newer);
    let (mut next, mut maps) = (None, Vec::new());
    loop {
        tokio::select! {
            task = tasks.join_next() => match task {
                Some(Ok(map)) => maps.extend(map),
                // A bug of ours. Whoever started this role starts it again, as a whole: a partition without a task would look well.
                Some(Err(e)) => return Err(Error::Panicked(e.to_string())),
                None => break,
            },
            layout = &mut newer, if next.is_none() => {
                next = Some(layout);
                over.cancel();
            }
        }
    }
    Ok(next.filter(|_| !stop.is_cancelled()).map(|next| (next, maps)))
}

/// One partition, again and again; what its map knows if it came to the end of its generation.
async fn keep(shared: Shared, p: u32, status: Status, heir: Heir, over: CancellationToken) -> Option<Last> {
    while !over.is_cancelled() {
        match partition::run(&shared, p, &status, &heir, &over).await {
            Ok(map) => return map,
            Err(e) => {
                shared.ended.send_if_modified(|ended| ended.remove(&p));
                status.set(Err(e.to_string()));
                if let Some(known) = e.lost_end() {
                    // Nothing is published, and no beat lets an edge send, until the log goes on where no id was ever given.
                    let go_on = lost_end::go_on_above(&shared.log, shared.layout, p, partition::ROLE, known, Above::default());
                    let _ = over.run_until_cancelled(go_on).await;
                } else {
                    tracing::error!(partition = p, error = %e, "the partition begins again");
                }
            }
        }
        let _ = over.run_until_cancelled(tokio::time::sleep(RESTART)).await;
    }
    None
}
