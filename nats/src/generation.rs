//! A new generation of the log, with another number of partitions, while everything runs (ADR 5).
//!
//! In this order, each step safe to repeat, so that whoever comes next finishes what somebody has begun:
//! 1. the layout says what is to come (`next`);
//! 2. every stream of the old generation is closed: its subjects are taken away, so a publish has no responder, and behind all that it
//!    still stores an end mark is written. A reader that meets the mark has read everything;
//! 3. the new streams are made, their first id above every id there ever was;
//! 4. the layout names the new generation, and the old one as `former`.
//!
//! Nothing is written to the new streams before step 4, nothing to the old ones after step 2.

use std::time::Duration;

use async_nats::{HeaderMap, jetstream::stream::Config};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use natterjack_protocol::Times;

use crate::{
    config::NatsConfig,
    connect::Nats,
    js::{self, Get, JsError},
    kv::{Buckets, KvError},
    layout::{Layout, LayoutError, Next},
    positions::Positions,
    provision::{self, ProvisionError, create_or_verify, first_seq, highest_id, log_stream},
    subjects,
    tail::Tail,
};

/// Below this a partition is of no use.
const LEAST_BYTES: i64 = 64 << 20;
/// A closed stream keeps this much room above what it holds, for its end mark; the rest of what it had reserved is free for the new ones.
const ROOM: i64 = 16 << 20;
/// An election takes 4–9 s.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(250);
/// The roles that read the log and keep a position.
const READERS: [&str; 2] = ["channel", "persister"];

/// Makes a log of `partitions` partitions, as a new generation if there is one with another number. Nothing happens if it has as many.
pub fn switch<'a>(nats: &'a Nats, cfg: &'a NatsConfig, times: &'a Times, partitions: u32) -> BoxFuture<'a, Result<Layout, ProvisionError>> {
    Box::pin(switch_to(nats, cfg, times, partitions))
}

async fn switch_to(nats: &Nats, cfg: &NatsConfig, times: &Times, partitions: u32) -> Result<Layout, ProvisionError> {
    // Where nothing is provisioned yet, this is the first generation. What there is may be as large as it is: it is about to end.
    let standing = Layout::find(nats).await?.is_some();
    let cfg = &NatsConfig { partitions, ..cfg.clone() };
    let verified = NatsConfig { max_bytes: cfg.max_bytes.filter(|_| !standing), ..cfg.clone() };
    let layout = provision::provision(nats, &verified, times).await?;
    if layout.partitions == partitions.max(1) {
        return Ok(layout);
    }
    if let Some(former) = layout.before() {
        is_read_to_its_end(nats, former).await?;
    }
    begin(nats, cfg, layout, partitions.max(1)).await?;
    provision::provision(nats, cfg, times).await
}

/// A layout names two generations, so the one before them must not be needed any more.
async fn is_read_to_its_end(nats: &Nats, former: Layout) -> Result<(), ProvisionError> {
    let (tail, buckets) = (Tail::new(nats, former), Buckets::new(nats, former));
    for p in 0..former.partitions {
        let unavailable =
            |e: crate::TailError| ProvisionError::Create { name: subjects::stream(former.generation, p), reason: e.to_string() };
        let bounds = tail.bounds(p).await.map_err(unavailable)?;
        for role in READERS {
            let position = Positions::new(&buckets, role).load(p).await?;
            if bounds.entries > 0 && position.is_none_or(|p| p.id < bounds.last) {
                return Err(ProvisionError::Unarchived(former.generation));
            }
        }
    }
    Ok(())
}

/// Step 1.
async fn begin(nats: &Nats, cfg: &NatsConfig, layout: Layout, partitions: u32) -> Result<(), ProvisionError> {
    let mut reserved = 0;
    for p in 0..layout.partitions {
        let info = js::stream_info(nats, &subjects::stream(layout.generation, p)).await?;
        reserved += info.map_or(0, |i| i.config.max_bytes.max(0));
    }
    let share = (reserved / i64::from(partitions)).max(LEAST_BYTES);
    let next = Next { partitions, max_bytes: cfg.max_bytes.unwrap_or(share) };
    let Some((found, revision)) = Layout::find(nats).await? else { return Err(LayoutError::NotProvisioned.into()) };
    // Somebody else has begun, or is through: theirs counts.
    if found != layout {
        return Ok(());
    }
    match (Layout { next: Some(next), ..layout }).store(nats, revision).await {
        Ok(_) | Err(KvError::Conflict) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Steps 2 to 4 of the switch that the layout speaks of.
pub(crate) async fn finish(nats: &Nats, cfg: &NatsConfig, times: &Times, now_ms: u64, next: Next) -> Result<Layout, ProvisionError> {
    let Some((old, revision)) = Layout::find(nats).await? else { return Err(LayoutError::NotProvisioned.into()) };
    if old.next != Some(next) {
        return Ok(old);
    }
    for p in 0..old.partitions {
        close(nats, old.generation, p).await?;
    }
    // Every old stream has given its last id.
    let above = highest_id(nats).await?;
    let new = old.after(next);
    let cfg = NatsConfig { max_bytes: Some(next.max_bytes), ..cfg.clone() };
    for p in 0..new.partitions {
        create_or_verify(nats, log_stream(new.generation, p, first_seq(now_ms, above), &cfg, times), true).await?;
    }
    match new.store(nats, revision).await {
        Ok(_) => {
            tracing::info!(generation = new.generation, partitions = new.partitions, "the log goes on with a new generation");
            Ok(new)
        }
        // Two at once did the same.
        Err(KvError::Conflict) => Ok(Layout::load(nats).await?),
        Err(e) => Err(e.into()),
    }
}

/// Step 2 for one partition. Not by sealing the stream: that also ends its max_age, for good.
async fn close(nats: &Nats, generation: u32, p: u32) -> Result<(), ProvisionError> {
    let (stream, end) = (subjects::stream(generation, p), subjects::end(generation, p));
    let mut last = None;
    for _ in 0..TRIES {
        match try_close(nats, &stream, &end).await {
            Ok(()) => return Ok(()),
            Err(e) => last = Some(e),
        }
        tokio::time::sleep(PAUSE).await;
    }
    let reason = last.map_or_else(String::new, |e| e.to_string());
    Err(ProvisionError::Create { name: format!("the end of {stream}"), reason })
}

async fn try_close(nats: &Nats, stream: &str, end: &str) -> Result<(), JsError> {
    let info = js::stream_info(nats, stream).await?.ok_or_else(|| JsError::Broken(format!("{stream} is not there")))?;
    // Also room for a stream that is full.
    let max_bytes = i64::try_from(info.state.bytes).unwrap_or(i64::MAX - ROOM) + ROOM;
    let closed = Config { subjects: vec![end.to_owned()], max_bytes, ..info.config };
    let _: serde_json::Value = js::api(nats, &format!("STREAM.UPDATE.{stream}"), &closed).await?;
    if js::leader_get(nats, stream, Get::LastBySubj(end)).await?.is_some() {
        return Ok(());
    }
    // Through the same leader, and behind everything it took before its subjects were taken away.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "end");
    js::publish(nats, end, Some(headers), Bytes::new(), js::API_TIMEOUT).await.map(|_| ())
}
