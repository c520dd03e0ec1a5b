//! The role: connects, and speaks of every shard whose lease it gets. Two instances share nothing but NATS; two that
//! hold one shard for a moment do no harm.

use std::{convert::Infallible, time::Duration};

use futures_util::future::BoxFuture;
use natterjack_nats::{
    KvBuckets, KvError, Layout, Nats, RoleConfig, RoleStartError, ServeError, ServerTime, serve, subjects,
};
use natterjack_protocol::{
    Code, Refusal,
    internal::presence::{PresenceAnswer, PresenceRequest},
    limits,
};
use natterjack_role::{RoleSetup, ShardWork};
use natterjack_runtime::{
    Health, Resources,
    clock::wall_ms,
    health::{Reader, Readers},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    nats_world::NatsWorld,
    shard::{Asked, BucketLost, Shard},
    table::ShardTable,
};

/// Names the role in its leases.
const NAME: &str = "presence";
/// Requests of edges that are answered at once, and that wait for the loop.
const ASKS: usize = 256;
/// How often the bucket is asked for its newest revision.
const PROBE: Duration = Duration::from_secs(1);

/// Why a shard is begun again.
#[derive(Debug, thiserror::Error)]
enum ShardError {
    #[error("{0}")]
    Kv(#[from] KvError),
    #[error("{0}")]
    Serve(#[from] ServeError),
    #[error("its bucket is gone, or another one: nothing that was known of it counts")]
    BucketLost,
}

/// Runs until `stop` is cancelled, or until it cannot start. Connects, waits through outages. Boxed here, so that the
/// role is compiled once, in this crate, and not again wherever it is run.
pub fn run(cfg: RoleConfig, health: Health, stop: CancellationToken) -> BoxFuture<'static, Result<(), RoleStartError>> {
    Box::pin(start(cfg, health, stop))
}

async fn start(cfg: RoleConfig, health: Health, stop: CancellationToken) -> Result<(), RoleStartError> {
    metrics::describe();
    health.set(NAME, Err("connecting to NATS".into()));
    let nats = Nats::connect(&cfg.nats, "presence").await?;
    let Some(layout) = stop.run_until_cancelled(Layout::load_at_start(&nats)).await.transpose()? else { return Ok(()) };
    let Some(time) = stop.run_until_cancelled(ServerTime::start(&nats, wall_ms)).await else { return Ok(()) };
    tracing::info!("this presence takes any of {} shards; it may have {}", layout.kv_shards, Resources::now());
    let readers = Readers::new(&health);
    let setup =
        RoleSetup { nats: nats.clone(), layout, times: cfg.times, instance: cfg.instance, readers: readers.clone() };
    let edge_refresh = setup.times.edge_refresh;
    let role = Presence { buckets: KvBuckets::new(&nats, layout), nats, time, edge_refresh };
    tokio::select! {
        () = readers.watch() => {}
        () = natterjack_role::run_shards(role, setup, stop) => {}
    }
    health.remove(NAME);
    Ok(())
}

struct Presence {
    nats: Nats,
    buckets: KvBuckets,
    time: ServerTime,
    edge_refresh: Duration,
}

impl ShardWork for Presence {
    const NAME: &'static str = NAME;
    type Error = ShardError;

    /// Reads the shard and speaks of it, until that is not possible any more.
    async fn work(&self, shard: u32, reader: &Reader) -> Result<Infallible, ShardError> {
        reader.begin();
        reader.doing("reads the shard");
        let (began, (asked, asks)) = (Instant::now(), mpsc::channel(ASKS));
        let world = NatsWorld::open(&self.nats, &self.buckets, &self.time, shard, asks).await?;
        let answer = move |request: PresenceRequest| answer(asked.clone(), request);
        let _service = serve(&self.nats, subjects::presence_service(shard), None, ASKS, answer).await?;
        let (progress, table) = (world.progress(), ShardTable::new(world.floor(), self.edge_refresh));
        let shard = Shard::new(shard, world, table).run(|| {
            ::metrics::histogram!(metrics::LOAD_SECONDS).record(began.elapsed());
            tracing::debug!(ms = began.elapsed().as_millis() as u64, "the shard was read; this instance speaks of it");
            reader.doing("watches the shard");
        });
        let probe = async {
            let mut tick = interval(PROBE);
            loop {
                tick.tick().await;
                reader.at(progress.seen());
                match progress.newest().await {
                    Ok(newest) => reader.end(newest),
                    Err(e) => tracing::debug!(error = %e, "where the bucket ends is not known now"),
                }
                reader.at(progress.seen());
            }
        };
        tokio::select! {
            BucketLost = shard => Err(ShardError::BucketLost),
            never = probe => never,
        }
    }

    fn failed(&self, why: &ShardError) {
        match why {
            ShardError::BucketLost => {
                ::metrics::counter!(metrics::BUCKETS_LOST).increment(1);
                tracing::error!(
                    "the bucket of sessions is another one; everybody is unknown until the edges have put their \
                     sessions again"
                );
            }
            e => tracing::error!(error = %e, "a shard's loop failed; it begins again"),
        }
    }

    fn passed_on(&self) {
        tracing::info!("another instance speaks of this shard");
    }
}

async fn answer(asked: mpsc::Sender<Asked>, request: PresenceRequest) -> Result<PresenceAnswer, Refusal> {
    let count = request.users.len();
    if count > limits::WATCHED_USERS {
        return Err(Refusal::new(
            Code::Invalid,
            format!("{count} users; at most {} may be asked for at once", limits::WATCHED_USERS),
        ));
    }
    let (reply, answer) = oneshot::channel();
    let away = || Refusal::unavailable("presence is not known now; try again");
    asked.send(Asked { users: request.users, reply }).await.map_err(|_| away())?;
    answer.await.map_err(|_| away())
}
