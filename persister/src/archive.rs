//! Step 7 of a message's life: from the log into the store, one loop per partition. Before it `nats::LogReader`, after it `history`
//! finds in the store what is at or below the watermark.
//!
//! A batch is written whole, thread by thread, a few at once; only then the watermark moves over it, so it always stands behind a prefix
//! without a gap. Whatever the store answers, nothing is skipped: it is tried again, with the very same rows, until it is written.

use std::{collections::HashSet, fmt::Display, time::Duration};

use futures_util::{StreamExt, stream};
use natterjack_nats::{Buckets, Layout, LogBounds, LogReader, Nats, Positions, ReadError, Record, RoleLease, Start, Tail};
use natterjack_protocol::{MsgId, Thread, Times};
use natterjack_runtime::Health;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{self, Sorted},
    fold::fold_thread,
    history::History,
    store::{PartitionKey, Position, Row, Store},
};

/// Threads of a batch that are written at the same time.
const WRITES: usize = 64;
/// Of payload: an entry is at most 48 KiB, so 4 MiB is 85 of the largest and more than 1,000 of the usual.
const BATCH_BYTES: usize = 4 << 20;
/// So few are written within a millisecond or two: they are not worth waiting for more. A large transaction costs less for each row and
/// keeps a processor that it shares from the live path for longer.
const FEW: f64 = 256.0;
/// Pauses between attempts at a store that does not answer.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(2);
/// How often a generation looks whether the one before it is archived; and between attempts to learn where a log ends.
const LOOK: Duration = Duration::from_millis(200);
/// The mirror of the watermark is for judging how far the archive is behind, against a margin of hours.
const MIRROR: Duration = Duration::from_secs(1);

pub const ROLE: &str = "persister";

type Mirror = watch::Sender<Option<natterjack_nats::Position>>;

/// What one partition's archive needs.
#[derive(Clone)]
pub struct Archive<S> {
    pub nats: Nats,
    pub layout: Layout,
    pub buckets: Buckets,
    pub times: Times,
    pub instance: String,
    pub history: History<S>,
    pub store: S,
    pub health: Health,
}

impl<S: Store> Archive<S> {
    /// Reads partition `p` whenever its lease is ours, until `stop`. An error means that waiting is no use.
    pub async fn run(self, p: u32, stop: CancellationToken) -> Result<(), ReadError> {
        let (mirror, positions) = watch::channel(None);
        let (result, ()) = tokio::join!(self.hold(p, &stop, mirror), self.copy_positions(p, &stop, positions));
        result
    }

    /// Takes `mirror` along, so that its end ends the copying too, behind the last position.
    async fn hold(&self, p: u32, stop: &CancellationToken, mirror: Mirror) -> Result<(), ReadError> {
        while !stop.is_cancelled() {
            // A standby is ready: it serves history all the same, and only the holder's store can fail.
            self.health.set("archive", Ok(()));
            let mut lease = RoleLease::new(&self.buckets, ROLE, p, &self.instance, &self.times);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = lease.acquire() => {}
            }
            let mut held = lease.held();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                // Dropped in the middle of a write: the new holder starts at the watermark and writes the same rows again.
                _ = held.wait_for(|h| !h) => tracing::info!(p, "another persister reads this partition now"),
                failed = self.read(p, &mirror) => return failed,
            }
            lease.release().await;
        }
        Ok(())
    }

    /// From the watermark on, for ever. May be dropped anywhere: the watermark knows.
    async fn read(&self, p: u32, mirror: &Mirror) -> Result<(), ReadError> {
        let key = PartitionKey { generation: self.layout.generation, partition: p };
        let store = &self.store;
        let before = self.former_is_archived().await;
        let found = self.until_it_works("read the watermark", || store.position(key)).await;
        if let Some(found) = found {
            // A predecessor may have died between the two; and of a generation that is over nothing more will come.
            mirror.send_replace(Some(natterjack_nats::Position { id: found.id, ts: found.ts }));
        }
        let mut position = found.unwrap_or(Position { id: MsgId::NONE, ts: before });
        let log = self.bounds(Tail::new(&self.nats, self.layout), p).await;
        if position.id > log.last {
            // It gives these ids once more, and behind the watermark nobody would look for them. Not complete: see docs/guarantees.md, P1.
            tracing::error!(p, archived = %position.id, last = %log.last, "the log ends before what is archived: it lost its end");
            metrics::counter!("natterjack_persister_lost_ends_total").increment(1);
            position = Position { id: MsgId(log.first.0.saturating_sub(1)), ts: before };
        }
        let mut reader = LogReader::fetching(&self.nats, self.layout, p, Start::After(position.id));
        tracing::info!(p, position = %position.id, "archiving");
        let mut asked = Instant::now();
        loop {
            let batch = reader.fetch(BATCH_BYTES).await?;
            let (read, behind) = (Instant::now(), batch.pending > 0);
            let rate = batch.records.len() as f64 / (read - asked).as_secs_f64();
            asked = read;
            metrics::gauge!("natterjack_persister_lag_entries", "partition" => p.to_string()).set(batch.pending as f64);
            if let Some((from, to)) = batch.hole {
                tracing::error!(p, %from, %to, "entries are gone from the log before they were archived");
                metrics::counter!("natterjack_persister_holes_total").increment(1);
            }
            let entries = batch.records.len() as u64;
            let hidden = self.copies(&batch.records).await;
            let sorted = batch::sort(key, position, batch.records, &hidden);
            for id in batch::poison(&sorted) {
                tracing::error!(p, %id, "an entry that cannot be read; archived as kind unknown with its bytes");
                metrics::counter!("natterjack_persister_poison_entries_total").increment(1);
            }
            let (end, end_ts) = (sorted.end, sorted.end_ts);
            self.write(sorted).await;
            self.until_it_works("move the watermark", || store.advance(key, end)).await;
            position = end;
            mirror.send_replace(Some(natterjack_nats::Position { id: end.id, ts: end_ts }));
            metrics::counter!("natterjack_persister_archived_entries_total").increment(entries);
            if !behind {
                let soon = self.times.batch / 5;
                let pause = if rate * soon.as_secs_f64() < FEW { soon } else { self.times.batch };
                sleep_until(read + pause).await;
            }
        }
    }

    /// Waits until the generation before is archived to its end, so that a thread is folded in its order. Says when that ended: archived
    /// times do not fall behind it.
    async fn former_is_archived(&self) -> u64 {
        let Some(former) = self.layout.before() else { return 0 };
        let store = &self.store;
        let mut end_ts = 0;
        for partition in 0..former.partitions {
            let key = PartitionKey { generation: former.generation, partition };
            loop {
                let bounds = self.bounds(Tail::new(&self.nats, former), partition).await;
                let position = self.until_it_works("read the watermark", || store.position(key)).await.unwrap_or_default();
                // What has expired was archived, or else is lost by now.
                if position.id >= bounds.last || bounds.entries == 0 {
                    end_ts = end_ts.max(position.ts);
                    break;
                }
                sleep(LOOK).await;
            }
        }
        end_ts
    }

    async fn bounds(&self, log: Tail, partition: u32) -> LogBounds {
        loop {
            match log.bounds(partition).await {
                Ok(bounds) => return bounds,
                Err(e) => tracing::debug!(partition, error = %e, "where the log ends is not known yet"),
            }
            sleep(LOOK).await;
        }
    }

    /// What the late rule hides. While that cannot be told, the watermark waits.
    async fn copies(&self, records: &[Record]) -> HashSet<MsgId> {
        let history = self.history.current();
        let mut hidden = HashSet::new();
        for record in records {
            let Record::Entry(entry) = record else { continue };
            if self.until_it_works("judge a late entry", || history.is_copy(entry)).await {
                tracing::info!(id = %entry.id, "a copy of an earlier entry, stored late; shown to nobody");
                hidden.insert(entry.id);
            }
        }
        hidden
    }

    async fn write(&self, sorted: Sorted) {
        let Sorted { threads, strays, .. } = sorted;
        let writes = threads.into_iter().map(|(thread, rows)| self.write_thread(thread, rows));
        stream::iter(writes).buffer_unordered(WRITES).collect::<()>().await;
        let store = &self.store;
        for stray in &strays {
            self.until_it_works("keep a stray entry", || store.keep_stray(stray.clone())).await;
        }
    }

    async fn write_thread(&self, thread: Thread, rows: Vec<Row>) {
        let (store, thread, rows) = (&self.store, &thread, &rows);
        // Folded anew at each attempt: the state may be what could not be read.
        let write = || async move { store.append(fold_thread(store, thread.clone(), rows.clone()).await?).await };
        self.until_it_works("write messages", write).await;
    }

    /// Never gives up: to skip is to lose what was acknowledged.
    async fn until_it_works<T, E: Display, F: Future<Output = Result<T, E>>>(&self, what: &'static str, mut f: impl FnMut() -> F) -> T {
        let mut pause = *PAUSE.start();
        loop {
            match f().await {
                Ok(t) => {
                    self.health.set("archive", Ok(()));
                    return t;
                }
                Err(e) => {
                    metrics::counter!("natterjack_persister_store_errors_total").increment(1);
                    tracing::warn!(what, error = %e, "the store failed; trying again, the log keeps what is not archived");
                    self.health.set("archive", Err(e.to_string()));
                }
            }
            sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
            pause = (pause * 2).min(*PAUSE.end());
        }
    }

    /// Mirrors the watermark where `channel` can see it. Ends with its sender, after the last position.
    async fn copy_positions(&self, p: u32, stop: &CancellationToken, mut positions: watch::Receiver<Option<natterjack_nats::Position>>) {
        let mirror = Positions::new(&self.buckets, ROLE);
        while positions.changed().await.is_ok() {
            let to = *positions.borrow_and_update();
            let Some(to) = to else { continue };
            if let Err(e) = mirror.advance(p, to).await {
                tracing::debug!(p, error = %e, "the watermark's mirror was not moved; the next one will be");
            }
            tokio::select! {
                () = sleep(MIRROR) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}
