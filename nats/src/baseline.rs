//! What JetStream alone does on the same server, to put beside a figure of the whole system: entries with a
//! `Nats-Msg-Id` into a stream of its own, each heard by a core subscriber. Only the bench uses it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::timeout;

use crate::{
    subjects,
    wire::{
        HeaderMap,
        client::Nats,
        core::Subscription,
        jetstream::{self, JsError, StorageType, StreamConfig},
    },
};

/// Like the log's.
const DEDUPE: Duration = Duration::from_secs(60);
const MAX_BYTES: i64 = 1 << 30;
const ACK: Duration = Duration::from_secs(5);
/// What is still on its way to the subscribers at the end.
const DRAIN: Duration = Duration::from_millis(500);

pub struct BaselineLoad {
    /// Pairs of a publisher and a subscriber, each with its subject.
    pub pairs: usize,
    /// Unacknowledged publishes of each pair.
    pub window: usize,
    /// Publishes per second of all pairs together; else as fast as the window lets them.
    pub rate: Option<u64>,
    pub body: usize,
    pub time: Duration,
}

#[derive(Debug, Default)]
pub struct BaselineOutcome {
    pub heard: u64,
    /// From the intended moment of a publish to its acknowledgement, µs, one per publish.
    pub acks_us: Vec<u64>,
}

/// Waits until a moment, more exactly than a sleep of tokio's.
pub type Until<'a> = dyn Fn(Instant) -> BoxFuture<'a, ()> + Sync + 'a;

/// Runs it; the stream is there only for so long.
pub async fn run(nats: &Nats, load: &BaselineLoad, until: &Until<'_>) -> Result<BaselineOutcome, JsError> {
    let wanted = StreamConfig {
        name: subjects::BASELINE.into(),
        subjects: vec![subjects::baseline(">")],
        storage: StorageType::File,
        max_bytes: MAX_BYTES,
        duplicate_window: DEDUPE,
        ..StreamConfig::default()
    };
    jetstream::api::<_, serde_json::Value>(nats, &format!("STREAM.CREATE.{}", subjects::BASELINE), &wanted).await?;
    let outcome = publish_and_hear(nats, load, until).await;
    jetstream::delete_stream(nats, subjects::BASELINE).await?;
    outcome
}

async fn publish_and_hear(nats: &Nats, load: &BaselineLoad, until: &Until<'_>) -> Result<BaselineOutcome, JsError> {
    let mut subscribers = Vec::new();
    for pair in 0..load.pairs {
        let heard = nats.subscribe(subjects::baseline(&pair.to_string())).await;
        subscribers.push(heard.map_err(|e| JsError::Broken(e.to_string()))?);
    }
    nats.flush_barrier().await.map_err(|e| JsError::Broken(e.to_string()))?;
    let heard = AtomicU64::new(0);
    let end = Instant::now() + load.time;
    let hearing: FuturesUnordered<_> = subscribers.iter_mut().map(|s| hear(s, end + DRAIN, &heard)).collect();
    let publishing = async {
        match load.rate {
            Some(rate) => at_a_rate(nats, load, rate, until).await,
            None => as_fast_as_they_are_acknowledged(nats, load, end).await,
        }
    };
    let ((), acks) = tokio::join!(hearing.collect::<()>(), publishing);
    Ok(BaselineOutcome { heard: heard.load(Relaxed), acks_us: acks? })
}

async fn hear(subscriber: &mut Subscription, end: Instant, heard: &AtomicU64) {
    while let Ok(Some(_)) = timeout(end.saturating_duration_since(Instant::now()), subscriber.next()).await {
        heard.fetch_add(1, Relaxed);
    }
}

/// Each place of each pair's window: one publish after the other.
async fn as_fast_as_they_are_acknowledged(nats: &Nats, load: &BaselineLoad, end: Instant) -> Result<Vec<u64>, JsError> {
    let next = AtomicU64::new(0);
    let place = async |pair| {
        let mut acks = Vec::new();
        while Instant::now() < end {
            acks.push(publish(nats, load, pair, next.fetch_add(1, Relaxed), Instant::now()).await?);
        }
        Ok::<_, JsError>(acks)
    };
    let places: FuturesUnordered<_> = (0..load.pairs * load.window).map(|n| place(n % load.pairs)).collect();
    Ok(places.try_collect::<Vec<_>>().await?.concat())
}

/// Open loop: the intended moment counts.
async fn at_a_rate(nats: &Nats, load: &BaselineLoad, rate: u64, until: &Until<'_>) -> Result<Vec<u64>, JsError> {
    let begun = Instant::now();
    let (mut under_way, mut acks) = (FuturesUnordered::new(), Vec::new());
    for n in 0.. {
        let at = begun + Duration::from_secs_f64(n as f64 / rate.max(1) as f64);
        if at >= begun + load.time {
            break;
        }
        let mut moment = until(at);
        loop {
            tokio::select! {
                () = &mut moment => break,
                Some(acked) = under_way.next() => acks.push(acked?),
            }
        }
        under_way.push(publish(nats, load, n as usize % load.pairs, n, at));
    }
    while let Some(acked) = under_way.next().await {
        acks.push(acked?);
    }
    Ok(acks)
}

/// From `at` to the acknowledgement, µs.
async fn publish(nats: &Nats, load: &BaselineLoad, pair: usize, n: u64, at: Instant) -> Result<u64, JsError> {
    let mut headers = HeaderMap::new();
    // As long as a real one.
    headers.insert("Nats-Msg-Id", format!("{n:032x}"));
    let body = Bytes::from(vec![b'x'; load.body]);
    jetstream::publish(nats, &subjects::baseline(&pair.to_string()), Some(headers), body, ACK).await?;
    Ok(at.elapsed().as_micros() as u64)
}
