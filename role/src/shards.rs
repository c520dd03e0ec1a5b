//! Keeps what a role does with each shard of the buckets running: a task for each shard takes its lease, works while it
//! has it, and begins again after a failure. Shards have no generations and no positions; for partitions of the log
//! there is `runner`.

use std::{convert::Infallible, fmt::Display, sync::Arc, time::Duration};

use natterjack_nats::{KvBuckets, RoleLease};
use natterjack_runtime::health::Reader;
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::RoleSetup;

/// Before a shard is begun again after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// How often whoever stands by says that it is there: a reader that hears of no end for 15 s is not well.
const STANDS_BY: Duration = Duration::from_secs(5);

/// What a role does with a shard of the buckets.
pub trait ShardWork: Send + Sync + 'static {
    /// Names the role in its leases and in the log lines.
    const NAME: &'static str;
    /// Names its parts of the health: `<PART>.<shard>`.
    const PART: &'static str = Self::NAME;
    type Error: Display + Send;

    /// While this instance has the shard's lease, until that is not possible any more. Dropped when another instance
    /// has the lease. It tells `reader` when it begins, how far it is, and where the end is.
    fn work(&self, shard: u32, reader: &Reader) -> impl Future<Output = Result<Infallible, Self::Error>> + Send;

    /// Says in the log why a shard is begun again. It runs in the shard's span.
    fn failed(&self, why: &Self::Error);

    /// Another instance has the lease.
    fn passed_on(&self) {}
}

/// Takes every shard whose lease it gets, until `stop` is cancelled and the leases are given up. The health has a part
/// for each shard; who calls this has `setup.readers` watched.
pub async fn run<W: ShardWork>(work: W, setup: RoleSetup, stop: CancellationToken) {
    let (work, buckets) = (Arc::new(work), KvBuckets::new(&setup.nats, setup.layout));
    let mut shards = JoinSet::new();
    for shard in 0..setup.layout.kv_shards {
        let lease = RoleLease::of_shard(&buckets, W::NAME, shard, &setup.instance, &setup.times);
        let reader = setup.readers.open(format!("{}.{shard}", W::PART).into());
        let span = tracing::info_span!("shard", role = W::NAME, shard);
        shards.spawn(keep(work.clone(), shard, lease, reader, stop.clone()).instrument(span));
    }
    setup.readers.opened(W::PART);
    while shards.join_next().await.is_some() {}
}

async fn keep<W: ShardWork>(work: Arc<W>, shard: u32, mut lease: RoleLease, reader: Reader, stop: CancellationToken) {
    let trouble = reader.trouble();
    while !stop.is_cancelled() {
        reader.rest();
        tokio::select! {
            () = stop.cancelled() => break,
            () = lease.acquire() => {}
            // Whoever stands by knows no end, and needs none.
            never = stands_by(&reader) => match never {},
        }
        let mut held = lease.held();
        let ended = tokio::select! {
            () = stop.cancelled() => break,
            _ = held.wait_for(|held| !held) => {
                work.passed_on();
                continue;
            }
            ended = work.work(shard, &reader) => ended,
        };
        let Err(why) = ended;
        work.failed(&why);
        trouble.is(Some(format!("begins again after: {why}")));
        let _ = stop.run_until_cancelled(sleep(AGAIN)).await;
        trouble.is(None);
    }
    lease.release().await;
}

async fn stands_by(reader: &Reader) -> Infallible {
    let mut tick = interval(STANDS_BY);
    loop {
        tick.tick().await;
        reader.end(0);
    }
}
