//! The role: connects, and gives the runner what one partition does. Two instances share nothing but NATS; per
//! partition one publishes, the others stand by.

use futures_util::future::BoxFuture;
use natterjack_nats::{Layout, Nats, RoleConfig, RoleStartError, ServerTime, log_readers};
use natterjack_role::{ClosedPartition, LogRole, Partition, PartitionError, RoleLease, RoleSetup};
use natterjack_runtime::{Health, Resources, clock::wall_ms, health::Readers};
use tokio_util::sync::CancellationToken;

use crate::{
    inherited::InheritedHeads,
    metrics::describe,
    partition::{self, Channel},
};

impl LogRole for Channel {
    const NAME: &'static str = log_readers::CHANNEL;

    async fn run(&self, partition: Partition, lease: RoleLease) -> Result<(), PartitionError> {
        Box::pin(partition::run(self, partition, lease)).await
    }

    /// Published to its end, and known here what its threads' last ids are.
    async fn is_done(&self, at: &ClosedPartition) -> Result<bool, String> {
        Ok(self.inherited.has(at.layout.generation, at.p))
    }
}

/// Runs until `stop` is cancelled and what was published is confirmed, or until it cannot start. Connects, waits
/// through outages. Boxed here, so that the channel is compiled once, in this crate, and not again wherever it is run.
pub fn run(cfg: RoleConfig, health: Health, stop: CancellationToken) -> BoxFuture<'static, Result<(), RoleStartError>> {
    Box::pin(serve(cfg, health, stop))
}

async fn serve(cfg: RoleConfig, health: Health, stop: CancellationToken) -> Result<(), RoleStartError> {
    describe();
    health.set(Channel::PART, Err("connecting to NATS".into()));
    let nats = Nats::connect(&cfg.nats, "channel frames").await?;
    let log = Nats::connect(&cfg.nats, "channel log").await?;
    let Some(layout) = stop.run_until_cancelled(Layout::load_at_start(&log)).await.transpose()? else { return Ok(()) };
    let Some(time) = stop.run_until_cancelled(ServerTime::start(&log, wall_ms)).await else { return Ok(()) };
    tracing::info!("this channel takes any of {} partitions; it may have {}", layout.partitions, Resources::now());
    let channel = Channel { log, time, inherited: InheritedHeads::default() };
    let setup = RoleSetup { nats, layout, times: cfg.times, instance: cfg.instance, readers: Readers::new(&health) };
    natterjack_role::run(channel, setup, stop).await;
    health.remove(Channel::PART);
    Ok(())
}
