//! The role: connects, and keeps one task per partition. Two instances share nothing but NATS; per partition one publishes, the
//! others stand by.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use natterjack_nats::{Layout, Nats, NatsConfig};
use natterjack_protocol::Times;
use natterjack_runtime::Health;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{error::Error, metrics::describe, partition};

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
    pub instance: String,
    pub status: Status,
}

/// One part of the process's health, made from all partitions.
#[derive(Clone)]
pub(crate) struct Status {
    health: Health,
    partitions: Arc<Mutex<BTreeMap<u32, Result<(), String>>>>,
}

impl Status {
    pub fn set(&self, p: u32, state: Result<(), String>) {
        let mut all = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(p, state);
        let bad: Vec<String> = all.iter().filter_map(|(p, s)| s.as_ref().err().map(|e| format!("partition {p}: {e}"))).collect();
        self.health.set(PART, if bad.is_empty() { Ok(()) } else { Err(bad.join("; ")) });
    }
}

const PART: &str = "channel";

/// Runs until `stop` is cancelled and what was published is confirmed, or until it cannot start. Connects, waits through outages.
pub async fn run(cfg: Config, health: Health, stop: CancellationToken) -> Result<(), Error> {
    describe();
    health.set(PART, Err("connecting to NATS".into()));
    let frames = Nats::connect(&cfg.nats, "channel frames").await?;
    let log = Nats::connect(&cfg.nats, "channel log").await?;
    let layout = Layout::load(&log).await?;
    let status = Status { health: health.clone(), partitions: Arc::default() };
    let mut tasks = JoinSet::new();
    for p in 0..layout.partitions {
        status.set(p, Err("starting".into()));
        let shared = Shared {
            frames: frames.clone(),
            log: log.clone(),
            layout,
            times: cfg.times.clone(),
            instance: cfg.instance.clone(),
            status: status.clone(),
        };
        tasks.spawn(keep(shared, p, stop.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(e) = ended {
            // A bug of ours. Whoever started this role starts it again, as a whole: a partition without a task would look well.
            return Err(Error::Panicked(e.to_string()));
        }
    }
    health.remove(PART);
    Ok(())
}

/// One partition, again and again.
async fn keep(shared: Shared, p: u32, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match partition::run(&shared, p, &stop).await {
            Ok(()) => return,
            Err(e) => {
                tracing::error!(partition = p, error = %e, "the partition begins again");
                shared.status.set(p, Err(e.to_string()));
            }
        }
        let _ = stop.run_until_cancelled(tokio::time::sleep(RESTART)).await;
    }
}
