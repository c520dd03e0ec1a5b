//! Watching keys: the values that stand, then every change, across reconnects and lost consumers.
//!
//! One watcher per process and bucket at most; never one per user or connection.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    kv::{Kv, KvError, tombstone_headers},
    subjects,
    wire::{
        jetstream::{self, Get, JsError, code},
        pull::{
            Dead, Delivered, Pull, PullMode,
            consumer::{Consumer, DeliverFrom},
        },
        rfc3339,
    },
};

/// Between attempts to begin.
const AGAIN: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    pub key: String,
    /// None: deleted or expired.
    pub value: Option<Bytes>,
    pub revision: u64,
}

/// How far a watch is, and what there is: for seeing whether it moves.
#[derive(Clone)]
pub struct WatchProgress {
    kv: Kv,
    filter: String,
    seen: Arc<AtomicU64>,
    created: Arc<AtomicU64>,
}

impl WatchProgress {
    /// The revision of the newest key that the watch has brought.
    pub fn seen(&self) -> u64 {
        self.seen.load(Relaxed)
    }

    /// When the bucket was made that the watch is of, milliseconds since 1970: another one has other revisions.
    pub fn created_ms(&self) -> u64 {
        self.created.load(Relaxed)
    }

    /// That of the newest key there is, by the bucket's leader; 0: there is none.
    pub async fn newest(&self) -> Result<u64, KvError> {
        let newest = jetstream::leader_get(self.kv.nats(), self.kv.stream(), Get::LastBySubj(&self.filter)).await;
        Ok(newest.map_err(|e| self.kv.error(e))?.map_or(0, |m| m.seq))
    }
}

struct Watch {
    kv: Kv,
    filter: String,
    pull: Option<Pull>,
    /// Everything up to here has been reported.
    seen: u64,
    /// The same, for `WatchProgress`.
    told: Arc<AtomicU64>,
    /// When the bucket was made; 0: it was not opened yet.
    created: Arc<AtomicU64>,
    /// Keys reported with a value: when the bucket was lost, they are reported as gone. None: who watches sees by
    /// [`WatchProgress::created_ms`] that it was, and need not pay for a list of all keys.
    known: Option<BTreeSet<String>>,
    /// How changes come.
    pace: WatchPace,
    /// When they were asked for last.
    asked: Instant,
    waiting: VecDeque<WatchEvent>,
    pause: Duration,
}

/// Up to where a watcher knew a bucket before: it is told what has changed since, or everything if the bucket is
/// another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BucketRevision {
    /// When the bucket was made, milliseconds since 1970; 0: nothing was known.
    pub made_ms: u64,
    pub revision: u64,
}

/// How soon a watch brings a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchPace {
    /// When it is stored.
    AtOnce,
    /// With all others of so long: much cheaper for server and watcher when there are many. A bucket that was lost
    /// reports nothing as gone.
    Gathered(Duration),
}

impl Kv {
    /// `keys` may hold wildcards. The stream never ends; a bucket that is recreated empty reports what it had as gone.
    /// Waits until the bucket answers, as the stream does through every outage; an error means that waiting is no use.
    pub async fn watch(&self, keys: &str) -> Result<impl Stream<Item = WatchEvent> + Send + Unpin + use<>, KvError> {
        Ok(self.watch_with_progress(keys).await?.0)
    }

    /// Likewise, and by what one sees whether the stream moves.
    pub async fn watch_with_progress(
        &self,
        keys: &str,
    ) -> Result<(impl Stream<Item = WatchEvent> + Send + Unpin + use<>, WatchProgress), KvError> {
        self.watch_at_pace(keys, WatchPace::AtOnce, BucketRevision::default()).await
    }

    pub(crate) async fn watch_at_pace(
        &self,
        keys: &str,
        pace: WatchPace,
        from: BucketRevision,
    ) -> Result<(impl Stream<Item = WatchEvent> + Send + Unpin + use<>, WatchProgress), KvError> {
        let filter = subjects::bucket_key(self.bucket(), keys);
        let told = Arc::new(AtomicU64::new(from.revision));
        let created = Arc::new(AtomicU64::new(from.made_ms));
        let watching =
            WatchProgress { kv: self.clone(), filter: filter.clone(), seen: told.clone(), created: created.clone() };
        let mut watch = Watch {
            kv: self.clone(),
            filter,
            pull: None,
            seen: from.revision,
            told,
            created,
            known: (pace == WatchPace::AtOnce).then(BTreeSet::new),
            pace,
            asked: Instant::now(),
            waiting: VecDeque::new(),
            pause: Duration::ZERO,
        };
        loop {
            match watch.open().await.map_err(|e| self.error(e)) {
                Err(KvError::Unavailable { bucket, reason }) => {
                    tracing::warn!(bucket, reason, "the bucket cannot be watched yet");
                    sleep(AGAIN).await;
                }
                opened => break opened?,
            }
        }
        let changes = futures_util::stream::unfold(watch, |mut w| async move {
            let event = w.next().await;
            Some((event, w))
        });
        Ok((Box::pin(changes), watching))
    }
}

impl Kv {
    /// The keys that stand now, with their values.
    pub async fn list(&self, keys: &str) -> Result<BTreeMap<String, Bytes>, KvError> {
        let (mut changes, watching) = self.watch_with_progress(keys).await?;
        let (newest, mut all) = (watching.newest().await?, BTreeMap::new());
        while watching.seen() < newest
            && let Some(WatchEvent { key, value, .. }) = changes.next().await
        {
            match value {
                Some(value) => all.insert(key, value),
                None => all.remove(&key),
            };
        }
        Ok(all)
    }
}

impl Watch {
    async fn open(&mut self) -> Result<(), JsError> {
        let nats = self.kv.nats().clone();
        let info = jetstream::stream_info(&nats, self.kv.stream()).await?;
        let Some(info) = info else {
            return Err(JsError::Api {
                code: 404,
                err_code: code::STREAM_NOT_FOUND,
                description: "bucket not found".into(),
            });
        };
        let made =
            rfc3339::parse_ms(&info.created).ok_or_else(|| JsError::Broken(format!("time `{}`", info.created)))?;
        let before = self.created.swap(made, Relaxed);
        if info.state.last_seq < self.seen || (before != 0 && before != made) {
            // A bucket that was made again counts from 1 again, and may have come further by now.
            self.seen = 0;
            self.told.store(0, Relaxed);
            let gone = self.known.as_mut().map(std::mem::take);
            let gone = gone.into_iter().flatten().map(|key| WatchEvent { key, value: None, revision: 0 });
            self.waiting.extend(gone);
        }
        // One value per key is stored, so "everything after what was seen" is the newest of each, without those that
        // did not change.
        let from = if self.seen == 0 { DeliverFrom::LastPerSubject } else { DeliverFrom::Sequence(self.seen + 1) };
        let consumer = Consumer::make(&nats, self.kv.stream(), Some(&self.filter), from).await?;
        let mode = if self.pace == WatchPace::AtOnce { PullMode::Ahead } else { PullMode::Fetch };
        self.asked = Instant::now();
        self.pull = Some(Pull::shared(&nats, consumer, mode).await?);
        Ok(())
    }

    /// Cancel-safe.
    async fn pulled(pull: &mut Pull, pace: WatchPace, asked: &mut Instant) -> Result<Delivered, Dead> {
        if let WatchPace::Gathered(every) = pace {
            if let Some(delivered) = pull.rest().await? {
                return Ok(delivered);
            }
            if !pull.is_asking() {
                sleep_until(*asked + every).await;
                *asked = Instant::now();
            }
        }
        pull.next().await
    }

    async fn next(&mut self) -> WatchEvent {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return event;
            }
            let Some(pull) = &mut self.pull else {
                sleep(self.pause).await;
                // Watchers without a backoff have been seen to pile up hundreds of consumers on a sick stream.
                self.pause = (self.pause * 2).clamp(Duration::from_millis(50), Duration::from_secs(2));
                if let Err(e) = self.open().await {
                    tracing::debug!(bucket = self.kv.bucket(), error = %e, "watch not reopened yet");
                }
                continue;
            };
            match Self::pulled(pull, self.pace, &mut self.asked).await {
                Ok(delivered) => {
                    self.pause = Duration::ZERO;
                    if let Some(event) = self.event(delivered) {
                        return event;
                    }
                }
                Err(why) => {
                    tracing::debug!(bucket = self.kv.bucket(), ?why, "watch is opened again");
                    if let Some(dead) = self.pull.take() {
                        dead.close().await;
                    }
                }
            }
        }
    }

    fn event(&mut self, d: Delivered) -> Option<WatchEvent> {
        self.seen = self.seen.max(d.seq);
        self.told.store(self.seen, Relaxed);
        let key = subjects::parse_bucket_key(self.kv.bucket(), std::str::from_utf8(&d.subject).ok()?)?.to_owned();
        let gone = tombstone_headers(d.headers.get("KV-Operation"), d.headers.get("Nats-Marker-Reason"));
        match &mut self.known {
            Some(known) if gone => drop(known.remove(&key)),
            Some(known) => drop(known.insert(key.clone())),
            None => {}
        }
        Some(WatchEvent { key, value: (!gone).then_some(d.payload), revision: d.seq })
    }
}
