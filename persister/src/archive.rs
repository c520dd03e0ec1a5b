//! Step 7 of a message's life: from the log into the store, one loop per partition. Before it `nats::LogReader`, after it `history`
//! finds in the store what is at or below the watermark.
//!
//! A batch is written whole, thread by thread, a few at once; only then the watermark moves over it, so it always stands behind a prefix
//! without a gap. Whatever the store answers, nothing is skipped: it is tried again, with the very same rows, until it is written.

use std::time::Duration;

use natterjack_nats::{Buckets, Layout, LogBounds, LogReader, Nats, Positions, ReadError, Record, RoleLease, Start, Tail};
use natterjack_protocol::{MsgId, Times};
use natterjack_runtime::health::{self, Reader, Readers};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    batch,
    history::History,
    store::{PartitionKey, Position, Store},
    write::Writer,
};

/// Of payload: an entry is at most 48 KiB, so 4 MiB is 85 of the largest and more than 1,000 of the usual.
const BATCH_BYTES: usize = 4 << 20;
/// So few are written within a millisecond or two: they are not worth waiting for more. A large transaction costs less for each row and
/// keeps a processor that it shares from the live path for longer.
const FEW: f64 = 256.0;
/// How often a generation looks whether the one before it is archived; and between attempts to learn where a log ends.
const LOOK: Duration = Duration::from_millis(200);
/// How often the log is asked where it ends, to see whether the reader moves; and how long for.
const PROBE: Duration = Duration::from_secs(1);
/// The mirror of the watermark is for judging how far the archive is behind, against a margin of hours.
const MIRROR: Duration = Duration::from_secs(1);
/// So long a stop waits until what the log had by then is archived. Less than the 10 s that `up` gives.
const FINISH: Duration = Duration::from_secs(5);

pub const ROLE: &str = "persister";
/// Each partition is a part of the process's health.
const PART: &str = "archive";

mod lost;

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
    pub readers: Readers,
}

impl<S: Store> Archive<S> {
    /// The part of the health that partition `p` is; not ready before it runs.
    pub fn reader(&self, p: u32) -> Reader {
        self.readers.open(health::of_partition(PART, self.layout.generation, p))
    }

    /// Reads partition `p` whenever its lease is ours, until `stop` and then to the end as it was. An error means that waiting is no use.
    pub async fn run(self, p: u32, reader: Reader, stop: CancellationToken) -> Result<(), ReadError> {
        let (mirror, positions) = watch::channel(None);
        let work = async { tokio::join!(self.hold(p, &reader, &stop, mirror), self.copy_positions(p, &stop, positions)).0 };
        tokio::select! {
            result = work => result,
            () = self.probe(p, &reader) => Ok(()),
        }
    }

    /// Takes `mirror` along, so that its end ends the copying too, behind the last position.
    async fn hold(&self, p: u32, reader: &Reader, stop: &CancellationToken, mirror: Mirror) -> Result<(), ReadError> {
        while !stop.is_cancelled() {
            // A standby is ready: it serves history all the same, and only the holder's store can fail.
            reader.rest();
            let mut lease = RoleLease::new(&self.buckets, ROLE, p, &self.instance, &self.times);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = lease.acquire() => {}
            }
            reader.begin();
            let mut held = lease.held();
            let late = async {
                stop.cancelled().await;
                sleep(FINISH).await;
            };
            let lost = tokio::select! {
                biased;
                // Dropped in the middle of a write: the new holder starts at the watermark and writes the same rows again.
                _ = held.wait_for(|h| !h) => {
                    tracing::info!(p, "another persister reads this partition now");
                    None
                }
                done = Box::pin(self.read(p, reader, stop, &mirror)) => match done {
                    Err(ReadError::LostEnd { read, .. }) => Some(read),
                    done => {
                        done?;
                        None
                    }
                },
                () = late => {
                    tracing::warn!(p, "stopped before all of the log was archived; the log keeps the rest");
                    None
                }
            };
            if let Some(read) = lost {
                let writer = Writer { store: &self.store, reader };
                let _ = stop.run_until_cancelled(self.go_on_above(&writer, p, read)).await;
            }
            lease.release().await;
        }
        Ok(())
    }

    /// From the watermark on, until `stop` and then to the end. May be dropped anywhere: the watermark knows.
    async fn read(&self, p: u32, reader: &Reader, stop: &CancellationToken, mirror: &Mirror) -> Result<(), ReadError> {
        let key = PartitionKey { generation: self.layout.generation, partition: p };
        let (store, writer) = (&self.store, Writer { store: &self.store, reader });
        reader.doing("waits until the generation before is archived");
        let Some(()) = stop.run_until_cancelled(self.former_is_archived(&writer)).await else { return Ok(()) };
        reader.doing("reads the watermark");
        let found = writer.until_it_works("read the watermark", || store.position(key)).await;
        if let Some(found) = found {
            // A predecessor may have died between the two; and of a generation that is over nothing more will come.
            mirror.send_replace(Some(natterjack_nats::Position { id: found.id, ts: found.ts }));
        }
        let mut position = found.unwrap_or_default();
        reader.doing("compares the end of the log with the archive");
        self.compare(&writer, p, position).await?;
        position = self.skip_what_is_lost(&writer, key, position).await;
        if self.is_over(p, position).await {
            position = self.end(&writer, key, position).await?;
            mirror.send_replace(Some(natterjack_nats::Position { id: position.id, ts: position.ts }));
            reader.at(read_up_to(position, &self.bounds(Tail::new(&self.nats, self.layout), p).await).0);
            reader.doing("has archived all of a generation that is over");
            stop.cancelled().await;
            return Ok(());
        }
        let bounds = self.bounds(Tail::new(&self.nats, self.layout), p).await;
        let mut log = LogReader::fetching(&self.nats, self.layout, p, Start::After(position.id));
        reader.at(read_up_to(position, &bounds).0);
        tracing::debug!(p, position = %position.id, "archiving");
        let mut asked = Instant::now();
        // The log when we were asked to stop.
        let mut until: Option<LogBounds> = None;
        loop {
            if until.is_none() && stop.is_cancelled() {
                until = Some(self.bounds(Tail::new(&self.nats, self.layout), p).await);
                log = LogReader::fetching(&self.nats, self.layout, p, Start::After(position.id));
            }
            if until.is_some_and(|log| read_up_to(position, &log) >= log.last) {
                return Ok(());
            }
            reader.doing("reads the log");
            let batch = tokio::select! {
                biased;
                batch = log.fetch(BATCH_BYTES) => batch?,
                () = stop.cancelled(), if until.is_none() => continue,
            };
            let (read, behind) = (Instant::now(), batch.pending > 0);
            let rate = batch.records.len() as f64 / (read - asked).as_secs_f64();
            asked = read;
            metrics::gauge!("natterjack_persister_lag_entries", "partition" => p.to_string()).set(batch.pending as f64);
            if let (Some((first, last)), Some(next)) = (batch.hole, batch.records.first()) {
                self.lose(&writer, key, (first, last), (position.ts, next.ts())).await;
            }
            let over = matches!(batch.records.last(), Some(Record::End { .. }));
            let entries = batch.records.len() as u64;
            let history = self.history.current();
            reader.doing("judges late entries");
            let hidden = writer.copies(&batch.records, &history).await;
            let sorted = batch::sort(key, position, batch.records, &hidden);
            for id in batch::poison(&sorted) {
                tracing::error!(p, %id, "an entry that cannot be read; archived as kind unknown with its bytes");
                metrics::counter!("natterjack_persister_poison_entries_total").increment(1);
            }
            let end = sorted.end;
            reader.doing("writes to the store");
            writer.write(key, sorted).await;
            position = end;
            reader.at(position.id.0);
            mirror.send_replace(Some(natterjack_nats::Position { id: end.id, ts: end.ts }));
            metrics::counter!("natterjack_persister_archived_entries_total").increment(entries);
            if over {
                position = self.end(&writer, key, position).await?;
                mirror.send_replace(Some(natterjack_nats::Position { id: position.id, ts: position.ts }));
            }
            if !behind {
                let soon = self.times.batch / 5;
                let pause = if rate * soon.as_secs_f64() < FEW { soon } else { self.times.batch };
                let _ = stop.run_until_cancelled(sleep_until(read + pause)).await;
            }
        }
    }

    /// Waits until the generation before is archived to its end, so that a thread is folded in its order.
    async fn former_is_archived(&self, writer: &Writer<'_, S>) {
        let Some(former) = self.layout.before() else { return };
        let store = &self.store;
        for partition in 0..former.partitions {
            let key = PartitionKey { generation: former.generation, partition };
            loop {
                let bounds = self.bounds(Tail::new(&self.nats, former), partition).await;
                let position = writer.until_it_works("read the watermark", || store.position(key)).await.unwrap_or_default();
                let whole = self.whole(writer, former, partition, position, bounds).await;
                // What has expired was archived, or else is lost by now.
                if position.id >= whole || bounds.entries == 0 {
                    break;
                }
                sleep(LOOK).await;
            }
        }
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

    /// Tells the health where the log ends, apart from whoever reads it: who is stuck cannot say so. Never ends.
    async fn probe(&self, p: u32, reader: &Reader) {
        let tail = Tail::new(&self.nats, self.layout);
        loop {
            match tail.bounds(p).await {
                Ok(bounds) => reader.end(bounds.last.0),
                Err(e) => tracing::debug!(p, error = %e, "where the log ends is not known now"),
            }
            sleep(PROBE).await;
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

/// Below its first entry a log has nothing to read: one that is empty ends just before that.
fn read_up_to(position: Position, log: &LogBounds) -> MsgId {
    position.id.max(MsgId(log.first.0.saturating_sub(1)))
}
