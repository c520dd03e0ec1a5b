//! A new generation of the log while everything runs: with another number of partitions (ADR 5), or because the log
//! lost its end (ADR 11).
//!
//! In this order, each step safe to repeat, so that whoever comes next finishes what somebody has begun:
//! 1. the layout says what is to come (`next`);
//! 2. every stream of the old generation is closed: its subjects are taken away, so a publish has no responder, and
//!    behind all that it still stores an end mark is written. A reader that meets the mark has read everything;
//! 3. the new streams are made, their first id above every id there ever was;
//! 4. the layout names the new generation, and the old one as `former`.
//!
//! Nothing is written to the new streams before step 4, nothing to the old ones after step 2.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use natterjack_protocol::MsgId;

use crate::{
    clock_mark::ClockMarks,
    keys::KvBuckets,
    kv::KvError,
    layout::{Layout, Next},
    layout_store::LayoutError,
    leader_read::{LeaderReader, LogError},
    log_readers::{self, LogReaders},
    lost_end::LostEnds,
    positions::Positions,
    streams::{FORGOTTEN, IdFloor, ProvisionError, create_or_verify, first_seq, highest_id, wall_clock},
    subjects,
    wire::{
        HeaderMap,
        client::Nats,
        jetstream::{self, Get, JsError, StreamConfig},
        rfc3339,
    },
};

/// Below this a partition is of no use.
const LEAST_BYTES: i64 = 64 << 20;
/// A closed stream keeps this much room above what it holds, for its end mark; the rest of what it had reserved is
/// free for the new ones.
const ROOM: i64 = 16 << 20;
/// Between attempts to begin the new generation.
const AGAIN: Duration = Duration::from_secs(1);
/// An election takes 4–9 s.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(250);
/// The log goes on in a new generation, with as many partitions as before, because generation `found` may have lost
/// its end, or is an older copy: no id of it is above what was given. Every id of the new one is above all that
/// streams, positions and `above` know, by more than can have been forgotten. Returns the newest layout; nothing
/// happens if that is later than `found` and above `above` already, so everybody who finds the loss may call it. Needs
/// no more than a connection. To be repeated after [`ProvisionError::Unread`].
pub fn renew(nats: &Nats, found: u32, above: IdFloor) -> BoxFuture<'_, Result<Layout, ProvisionError>> {
    Box::pin(renewed(nats, found, above))
}

async fn renewed(nats: &Nats, found: u32, above: IdFloor) -> Result<Layout, ProvisionError> {
    loop {
        let layout = Layout::load(nats).await?;
        if let Some(next) = layout.next {
            finish(nats, wall_clock(), next).await?;
            continue;
        }
        if layout.generation > found && is_above(nats, layout, above).await? {
            return Ok(layout);
        }
        if let Some(former) = layout.previous() {
            is_read_to_its_end(nats, former, layout).await?;
        }
        let (readers, mut highest) = (LogReaders::new(nats).all().await?, above.id);
        let (tail, buckets, notes) =
            (LeaderReader::new(nats, layout), KvBuckets::new(nats, layout), LostEnds::new(nats, layout));
        for p in 0..layout.partitions {
            let mut known = match tail.bounds(p).await {
                Ok(bounds) => bounds.last,
                // Its folder is gone.
                Err(LogError::NoStream(_)) => MsgId(1),
                Err(e) => return Err(unknown(layout.generation, p, &e)),
            };
            for role in &readers {
                known = known.max(Positions::new(&buckets, role).load(p).await?.map_or(MsgId::NONE, |read| read.id));
            }
            highest = highest.max(known);
            // Nobody can tell any more when its streams are closed, and positions are a moment old: any partition may
            // have lost something.
            notes.note(p, known).await?;
        }
        let highest = highest.0.max(highest_id(nats).await?);
        tracing::warn!(
            generation = layout.generation,
            highest,
            "beginning a new generation of the log, above all ids that are known"
        );
        let next = Next {
            above: highest + FORGOTTEN,
            generation: above.generation + 1,
            ..share(nats, layout, layout.partitions).await?
        };
        begin(nats, layout, next).await?;
    }
}

/// A layout of the archive's own newest generation needs no comparison: that is where the archive has its highest id
/// from.
async fn is_above(nats: &Nats, layout: Layout, above: IdFloor) -> Result<bool, ProvisionError> {
    if layout.generation <= above.generation {
        return Ok(layout.generation == above.generation);
    }
    for p in 0..layout.partitions {
        if LeaderReader::new(nats, layout).bounds(p).await.map_err(|e| unknown(layout.generation, p, &e))?.origin
            <= above.id
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unknown(generation: u32, p: u32, e: &LogError) -> ProvisionError {
    ProvisionError::Create { name: subjects::stream(generation, p), reason: e.to_string() }
}

/// Has the log go on in a new generation, because partition `p` of this one lost what `role` has read of it up to
/// `known`. Through every outage; returns when the newest layout is a later one. Cancel-safe.
pub async fn renew_above(nats: &Nats, layout: Layout, p: u32, role: &'static str, known: MsgId, above: IdFloor) {
    tracing::error!(
        role,
        partition = p,
        generation = layout.generation,
        %known,
        "the log ends before what was read of it: it lost its end, or is an older copy; it goes on in a new generation"
    );
    metrics::counter!(crate::metrics::LOG_LOST_ENDS, "role" => role).increment(1);
    let above = IdFloor { generation: above.generation.max(layout.generation), id: above.id.max(known) };
    let begun = async || {
        LostEnds::new(nats, layout).note(p, known).await?;
        renew(nats, layout.generation, above).await
    };
    while let Err(e) = begun().await {
        match e {
            ProvisionError::Unread { .. } => tracing::info!(partition = p, error = %e, "the new generation waits"),
            e => tracing::warn!(partition = p, error = %e, "the new generation was not begun; trying again"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// A layout names two generations, so the one before them must not be needed any more.
pub(crate) async fn is_read_to_its_end(nats: &Nats, former: Layout, now: Layout) -> Result<(), ProvisionError> {
    let (tail, buckets, notes) =
        (LeaderReader::new(nats, former), KvBuckets::new(nats, former), LostEnds::new(nats, former));
    let readers = LogReaders::new(nats).all().await?;
    for p in 0..former.partitions {
        let noted = notes.of(p).await?.is_some();
        let bounds = tail.bounds(p).await.map_err(|e| unknown(former.generation, p, &e))?;
        for role in &readers {
            let read = Positions::new(&buckets, role).load(p).await?.unwrap_or_default();
            // What a lost end leaves to be done is done when the archive stands right below what follows.
            let whole = if role == log_readers::PERSISTER && (noted || read.id > bounds.last) {
                let origin =
                    LeaderReader::new(nats, now).bounds(0).await.map_err(|e| unknown(now.generation, 0, &e))?.origin;
                MsgId(origin.0 - 1)
            } else {
                bounds.last
            };
            if bounds.entries > 0 && read.id < whole {
                return Err(ProvisionError::Unread { generation: former.generation, reader: role.clone() });
            }
        }
    }
    Ok(())
}

/// As many bytes as the log has reserved now, for another number of partitions.
pub(crate) async fn share(nats: &Nats, layout: Layout, partitions: u32) -> Result<Next, ProvisionError> {
    let mut reserved = 0;
    for p in 0..layout.partitions {
        let info = jetstream::stream_info(nats, &subjects::stream(layout.generation, p)).await?;
        reserved += info.map_or(0, |i| i.config.max_bytes.max(0));
    }
    let max_bytes = (reserved / i64::from(partitions)).max(LEAST_BYTES);
    Ok(Next { partitions, max_bytes, above: 0, generation: 0 })
}

/// Step 1.
pub(crate) async fn begin(nats: &Nats, layout: Layout, next: Next) -> Result<(), ProvisionError> {
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

/// Steps 2 to 4 of the switch that the layout speaks of. New streams are as the old ones are, but for what differs by
/// generation.
pub(crate) async fn finish(nats: &Nats, now_ms: u64, next: Next) -> Result<Layout, ProvisionError> {
    let Some((old, revision)) = Layout::find(nats).await? else { return Err(LayoutError::NotProvisioned.into()) };
    if old.next != Some(next) {
        return Ok(old);
    }
    let model = model(nats, old).await?;
    let made = |generation, p, first, max_bytes| StreamConfig {
        name: subjects::stream(generation, p),
        subjects: subjects::stream_subjects(generation, p),
        first_sequence: Some(first),
        max_bytes,
        ..model.clone()
    };
    let first = |above| first_seq(now_ms, above);
    let clocks = ClockMarks::new(&KvBuckets::new(nats, old));
    // What the old streams know nobody asks the new ones' dedupe maps for.
    let mut clock_ms = 0;
    for p in 0..old.partitions {
        // One whose folder is gone: its readers need an end all the same.
        let info = jetstream::stream_info(nats, &subjects::stream(old.generation, p)).await?;
        let stored = info.as_ref().and_then(|i| rfc3339::parse_ms(&i.state.last_ts));
        clock_ms = clocks.of(p).await?.max(stored.unwrap_or(0)).max(clock_ms);
        if info.is_none() {
            let above = highest_id(nats).await?.max(next.above);
            create_or_verify(nats, made(old.generation, p, first(above), ROOM), false).await?;
        }
        close(nats, old.generation, p).await?;
    }
    // Every old stream has given its last id.
    let above = highest_id(nats).await?.max(next.above);
    let new = old.after(next);
    for p in 0..new.partitions {
        create_or_verify(nats, made(new.generation, p, first(above), next.max_bytes), true).await?;
    }
    let clocks = ClockMarks::new(&KvBuckets::new(nats, new));
    for p in 0..new.partitions {
        clocks.note(p, clock_ms).await?;
    }
    match new.store(nats, revision).await {
        Ok(_) => {
            tracing::info!(
                generation = new.generation,
                partitions = new.partitions,
                "the log goes on with a new generation"
            );
            Ok(new)
        }
        // Two at once did the same.
        Err(KvError::Conflict) => Ok(Layout::load(nats).await?),
        Err(e) => Err(e.into()),
    }
}

/// The settings of a stream of this generation; whichever is there.
async fn model(nats: &Nats, layout: Layout) -> Result<StreamConfig, ProvisionError> {
    for p in 0..layout.partitions {
        if let Some(info) = jetstream::stream_info(nats, &subjects::stream(layout.generation, p)).await? {
            return Ok(info.config);
        }
    }
    Err(ProvisionError::Create {
        name: format!("generation {}", layout.generation),
        reason: "none of its streams is there".into(),
    })
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
    let info =
        jetstream::stream_info(nats, stream).await?.ok_or_else(|| JsError::Broken(format!("{stream} is not there")))?;
    // Also room for a stream that is full.
    let max_bytes = i64::try_from(info.state.bytes).unwrap_or(i64::MAX - ROOM) + ROOM;
    let closed = StreamConfig { subjects: vec![end.to_owned()], max_bytes, ..info.config };
    let _: serde_json::Value = jetstream::api(nats, &format!("STREAM.UPDATE.{stream}"), &closed).await?;
    if jetstream::leader_get(nats, stream, Get::LastBySubj(end)).await?.is_some() {
        return Ok(());
    }
    // Through the same leader, and behind everything it took before its subjects were taken away.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "end");
    jetstream::publish(nats, end, Some(headers), Bytes::new(), jetstream::API_TIMEOUT).await.map(|_| ())
}
