//! What JetStream alone does on the same server, to put beside a figure of the whole system: entries with a `Nats-Msg-Id` into a stream
//! of its own, each heard by a core subscriber. Only the bench uses it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::stream::{Config, StorageType},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    connect::Nats,
    js::{self, JsError},
    subjects,
};

/// Like the log's.
const DEDUPE: Duration = Duration::from_secs(60);
const MAX_BYTES: i64 = 1 << 30;
const ACK: Duration = Duration::from_secs(5);
/// What is still on its way to the subscribers at the end.
const DRAIN: Duration = Duration::from_millis(500);

pub struct Load {
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
pub struct Outcome {
    pub heard: u64,
    /// From the intended moment of a publish to its acknowledgement, µs, one per publish.
    pub acks_us: Vec<u64>,
}

/// Runs it; the stream is there only for so long.
pub async fn run(nats: &Nats, load: &Load) -> Result<Outcome, JsError> {
    let wanted = Config {
        name: subjects::BASELINE.into(),
        subjects: vec![subjects::baseline(">")],
        storage: StorageType::File,
        max_bytes: MAX_BYTES,
        duplicate_window: DEDUPE,
        ..Config::default()
    };
    js::api::<_, serde_json::Value>(nats, &format!("STREAM.CREATE.{}", subjects::BASELINE), &wanted).await?;
    let outcome = publish_and_hear(nats, load).await;
    js::delete_stream(nats, subjects::BASELINE).await?;
    outcome
}

async fn publish_and_hear(nats: &Nats, load: &Load) -> Result<Outcome, JsError> {
    let mut subscribers = Vec::new();
    for pair in 0..load.pairs {
        let heard = nats.client.subscribe(subjects::baseline(&pair.to_string())).await;
        subscribers.push(heard.map_err(|e| JsError::Broken(e.to_string()))?);
    }
    nats.flush_barrier().await.map_err(|e| JsError::Broken(e.to_string()))?;
    let (heard, next) = (AtomicU64::new(0), AtomicU64::new(0));
    let body = Bytes::from(vec![b'x'; load.body]);
    let begun = Instant::now();
    let end = begun + load.time;
    let hearing: FuturesUnordered<_> = subscribers.iter_mut().map(|s| hear(s, end + DRAIN, &heard)).collect();
    let publishing: FuturesUnordered<_> =
        (0..load.pairs * load.window).map(|n| publish(nats, load, n % load.pairs, body.clone(), begun, &next)).collect();
    let ((), acks) = tokio::join!(hearing.collect::<()>(), publishing.collect::<Vec<_>>());
    let mut outcome = Outcome { heard: heard.load(Relaxed), acks_us: Vec::new() };
    for acked in acks {
        outcome.acks_us.extend(acked?);
    }
    Ok(outcome)
}

async fn hear(subscriber: &mut async_nats::Subscriber, end: Instant, heard: &AtomicU64) {
    while let Ok(Some(_)) = timeout(end.saturating_duration_since(Instant::now()), subscriber.next()).await {
        heard.fetch_add(1, Relaxed);
    }
}

/// One publish after the other, for one of the places of a pair's window.
async fn publish(nats: &Nats, load: &Load, pair: usize, body: Bytes, begun: Instant, next: &AtomicU64) -> Result<Vec<u64>, JsError> {
    let subject = subjects::baseline(&pair.to_string());
    let mut acks = Vec::new();
    loop {
        let n = next.fetch_add(1, Relaxed);
        // Open loop: the intended moment counts.
        let at = match load.rate {
            Some(rate) => begun + Duration::from_secs_f64(n as f64 / rate.max(1) as f64),
            None => Instant::now(),
        };
        if at >= begun + load.time {
            return Ok(acks);
        }
        if load.rate.is_some() {
            sleep_until(at).await;
        }
        let mut headers = HeaderMap::new();
        // As long as a real one.
        headers.insert("Nats-Msg-Id", format!("{n:032x}"));
        js::publish(nats, &subject, Some(headers), body.clone(), ACK).await?;
        acks.push(at.elapsed().as_micros() as u64);
    }
}
