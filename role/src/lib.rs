//! What every role that reads the log has in common, written once: which generation it reads, one task for each
//! partition, the lease, the position, what happens when the log lost its end, how it is (health), and that it begins
//! again after an error.
//!
//! A role is a name and an async function over one partition ([`LogRole`]); `runner` calls it, `restart` again after an
//! error, `partition` is what it is given. Channel and persister are roles; `tests/real/counter.rs` is the smallest
//! one.
//!
//! `shards` is the same for what is done by shard of the buckets ([`ShardWork`]): the lease, the health, and that it
//! begins again.

mod metrics;
mod partition;
mod restart;
mod runner;
mod shards;

use natterjack_nats::{IdFloor, Layout, LogBounds, Nats, Positions, ReadError};

pub use self::{
    partition::Partition,
    runner::{RoleSetup, run},
    shards::{ShardWork, run as run_shards},
};
pub use natterjack_nats::RoleLease;

/// A role that reads the log.
pub trait LogRole: Send + Sync + 'static {
    /// Names its leases and positions, and the role in the list of the log's readers, for which a generation switch
    /// waits.
    const NAME: &'static str;
    /// Names its parts of the health: `<PART>.<generation>-<partition>`.
    const PART: &'static str = Self::NAME;

    /// Reads one partition of one generation until `partition.stop`. It is called again when it returns earlier, fails
    /// or panics.
    ///
    /// The lease is free, or another instance has it; most roles do their work in [`Partition::while_held`].
    fn run(&self, partition: Partition, lease: RoleLease) -> impl Future<Output = Result<(), PartitionError>> + Send;

    /// Has everything of this partition been dealt with, by whichever instance, now that its generation is over? When
    /// that is so of every partition, this instance goes on with the next generation. By default the position on NATS
    /// tells, and what has expired is waited for by nobody.
    fn is_done(&self, at: &ClosedPartition) -> impl Future<Output = Result<bool, String>> + Send {
        async {
            let position = at.positions.load(at.p).await.map_err(|e| e.to_string())?;
            Ok(at.bounds.entries == 0 || position.is_some_and(|read| read.id >= at.bounds.last))
        }
    }

    /// What this role knows of ids and generations beside the log: when the log has lost its end, it goes on above
    /// that.
    fn above(&self) -> impl Future<Output = Result<IdFloor, String>> + Send {
        std::future::ready(Ok(IdFloor::default()))
    }
}

/// A partition whose generation is over.
pub struct ClosedPartition {
    pub nats: Nats,
    pub layout: Layout,
    pub p: u32,
    pub bounds: LogBounds,
    pub positions: Positions,
}

/// Why a partition's task ended before it was asked to. It begins again; meanwhile the process is not ready and says
/// why.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// If the log lost its end, it goes on in a new generation first.
    #[error("reading the log: {0}")]
    Log(#[from] ReadError),
    #[error("{0}")]
    Failed(String),
}
