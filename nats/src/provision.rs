//! Makes what everything else stands on, or verifies it: streams of the log, buckets, the layout. Runs before any
//! role; roles may not.
//!
//! Idempotent. What differs from the configuration is refused by name, never changed silently. The number of
//! partitions is the layout's once there is one; `generation` changes it. A switch that was begun and not finished is
//! finished here.

use futures_util::future::BoxFuture;
use natterjack_protocol::{MsgId, Times};

use crate::{
    config::NatsConfig,
    generation,
    kv::KvError,
    layout::{self, Layout, Next},
    streams::{
        EPOCH_MS, FORGOTTEN, IdFloor, ProvisionError, buckets, create_or_verify, differ, first_seq, highest_id,
        log_stream, wall_clock,
    },
    wire::client::Nats,
};

pub fn provision<'a>(
    nats: &'a Nats,
    cfg: &'a NatsConfig,
    times: &'a Times,
) -> BoxFuture<'a, Result<Layout, ProvisionError>> {
    Box::pin(provision_at(nats, cfg, times, wall_clock()))
}

/// Of an empty installation, whose archive is a restored one: the first generation has a higher number than any there
/// was, and its ids are above those that the archive knows, by more than can have been given since. For nothing was
/// kept that would say how many were.
pub fn provision_above<'a>(
    nats: &'a Nats,
    cfg: &'a NatsConfig,
    times: &'a Times,
    above: IdFloor,
) -> BoxFuture<'a, Result<Layout, ProvisionError>> {
    Box::pin(make(
        nats,
        cfg,
        times,
        wall_clock(),
        IdFloor { generation: above.generation + 1, id: MsgId(above.id.0 + FORGOTTEN) },
    ))
}

/// With the clock as an argument, for tests.
pub async fn provision_at(nats: &Nats, cfg: &NatsConfig, times: &Times, now_ms: u64) -> Result<Layout, ProvisionError> {
    make(nats, cfg, times, now_ms, IdFloor { generation: layout::FIRST, id: MsgId::NONE }).await
}

/// `first`: where an empty installation begins.
async fn make(
    nats: &Nats,
    cfg: &NatsConfig,
    times: &Times,
    now_ms: u64,
    first: IdFloor,
) -> Result<Layout, ProvisionError> {
    if now_ms < EPOCH_MS {
        return Err(ProvisionError::Clock(now_ms));
    }
    if !nats.is_server_compatible() {
        return Err(ProvisionError::ServerTooOld(nats.server_version()));
    }
    nats.carries_all().map_err(ProvisionError::Payload)?;
    for wanted in buckets(cfg, times) {
        create_or_verify(nats, wanted, true).await?;
    }
    loop {
        let mut layout = agree_on_layout(nats, cfg, first.generation).await?;
        while let Some(next) = layout.next {
            layout = generation::finish(nats, now_ms, next).await?;
        }
        match make_log(nats, layout, cfg, times, now_ms, first.id).await {
            Ok(()) => return Ok(layout),
            // Somebody switches in this moment.
            Err(ProvisionError::Drift { .. }) if Layout::load(nats).await? != layout => {}
            Err(e) => return Err(e),
        }
    }
}

/// Makes a log of `partitions` partitions, as a new generation if there is one with another number. Nothing happens if
/// it has as many.
pub fn switch<'a>(
    nats: &'a Nats,
    cfg: &'a NatsConfig,
    times: &'a Times,
    partitions: u32,
) -> BoxFuture<'a, Result<Layout, ProvisionError>> {
    Box::pin(switch_to(nats, cfg, times, partitions))
}

async fn switch_to(nats: &Nats, cfg: &NatsConfig, times: &Times, partitions: u32) -> Result<Layout, ProvisionError> {
    // Where nothing is provisioned yet, this is the first generation. What there is may be as large as it is: it is
    // about to end.
    let standing = Layout::find(nats).await?.is_some();
    let cfg = &NatsConfig { partitions, ..cfg.clone() };
    let verified = NatsConfig { max_bytes: cfg.max_bytes.filter(|_| !standing), ..cfg.clone() };
    let layout = provision(nats, &verified, times).await?;
    if layout.partitions == partitions.max(1) {
        return Ok(layout);
    }
    if let Some(former) = layout.previous() {
        generation::is_read_to_its_end(nats, former, layout).await?;
    }
    let share = generation::share(nats, layout, partitions.max(1)).await?;
    generation::begin(nats, layout, Next { max_bytes: cfg.max_bytes.unwrap_or(share.max_bytes), ..share }).await?;
    provision(nats, cfg, times).await
}

async fn make_log(
    nats: &Nats,
    layout: Layout,
    cfg: &NatsConfig,
    times: &Times,
    now_ms: u64,
    first: MsgId,
) -> Result<(), ProvisionError> {
    let above = highest_id(nats).await?.max(first.0);
    for p in 0..layout.partitions {
        let wanted = log_stream(layout.generation, p, first_seq(now_ms, above), cfg, times);
        create_or_verify(nats, wanted, cfg.max_bytes.is_some()).await?;
    }
    Ok(())
}

async fn agree_on_layout(nats: &Nats, cfg: &NatsConfig, first: u32) -> Result<Layout, ProvisionError> {
    let wanted = Layout::new(first, cfg.partitions.max(1), cfg.kv_shards.max(1));
    match wanted.store(nats, 0).await {
        Ok(_) => return Ok(wanted),
        Err(KvError::Conflict) => {}
        Err(e) => return Err(e.into()),
    }
    let found = Layout::load(nats).await?;
    if found.partitions != wanted.partitions {
        let (there, configured) = (found.partitions, wanted.partitions);
        tracing::info!(
            there,
            configured,
            "the log keeps its partitions; `natterjack provision --partitions` changes them"
        );
    }
    let mut differences = Vec::new();
    differ(&mut differences, "kv_shards", &found.kv_shards, &wanted.kv_shards);
    if differences.is_empty() {
        Ok(found)
    } else {
        Err(ProvisionError::Drift { name: "the layout".into(), differences })
    }
}
