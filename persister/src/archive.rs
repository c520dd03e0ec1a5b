//! Step 7 of a message's life: from the log into the store, one loop per partition. Before it `nats::LogReader`, after
//! it `history` finds in the store what is at or below the watermark.
//!
//! A batch is written whole, thread by thread, a few at once; only then the watermark moves over it, so it always
//! stands behind a prefix without a gap. Whatever the store answers, nothing is skipped: it is tried again, with the
//! very same rows, until it is written.

use std::time::Duration;

use natterjack_nats::{
    IdFloor, Layout, LeaderReader, LogBounds, LogReader, LostEnds, Position, ReadFrom, Record, log_readers,
};
use natterjack_protocol::MsgId;
use natterjack_role::{ClosedPartition, LogRole, Partition, PartitionError, RoleLease};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    batch,
    history::History,
    store::{ArchiveStore, PartitionKey},
    write::Writer,
};

mod lost;

/// Of payload: an entry is at most 48 KiB, so 4 MiB is 85 of the largest and more than 1,000 of the usual.
const BATCH_BYTES: usize = 4 << 20;
/// So few are written within a millisecond or two: they are not worth waiting for more. A large transaction costs less
/// for each row and keeps a processor that it shares from the live path for longer.
const FEW: f64 = 256.0;
/// Between attempts to learn where a log ends.
const RETRY: Duration = Duration::from_millis(200);
/// The mirror of the watermark is for judging how far the archive is behind, against a margin of hours.
const MIRROR: Duration = Duration::from_secs(1);

/// The persister as a role that reads the log: its watermark is in the store, and NATS has a copy.
pub struct Archive<S> {
    pub history: History<S>,
    pub store: S,
}

/// The archive of one partition.
struct PartitionArchive<'a, S> {
    at: &'a Partition,
    key: PartitionKey,
    history: &'a History<S>,
    store: &'a S,
    writer: Writer<'a, S>,
}

impl<S: ArchiveStore> LogRole for Archive<S> {
    const NAME: &'static str = log_readers::PERSISTER;
    const PART: &'static str = "archive";

    async fn run(&self, partition: Partition, lease: RoleLease) -> Result<(), PartitionError> {
        let at = &partition;
        let (mirror, watermark) = watch::channel(Position::default());
        let archive = PartitionArchive {
            at,
            key: PartitionKey { generation: at.layout.generation, partition: at.p },
            history: &self.history,
            store: &self.store,
            writer: Writer { store: &self.store, reader: &at.health },
        };
        // The end of the reading drops `mirror`, which ends the copying too, behind the last position.
        let read = Box::pin(archive.read(mirror));
        tokio::join!(at.while_held(lease, read), copy_watermark(at, watermark)).0
    }

    async fn is_done(&self, at: &ClosedPartition) -> Result<bool, String> {
        let key = PartitionKey { generation: at.layout.generation, partition: at.p };
        let position = self.store.position(key).await.map_err(|e| e.to_string())?.unwrap_or_default();
        let noted = LostEnds::new(&at.nats, at.layout).of(at.p).await.map_err(|e| e.to_string())?;
        let end = if noted.is_some() || position.id > at.bounds.last {
            let next = lost::next_generation(&at.nats, at.layout).await;
            let origin = LeaderReader::new(&at.nats, next).bounds(0).await.map_err(|e| e.to_string())?.origin;
            MsgId(origin.0 - 1)
        } else {
            at.bounds.last
        };
        if position.id < end {
            return Ok(false);
        }
        // A switch looks at the copy, and nobody makes another one after this.
        at.positions.advance(at.p, position).await.map_err(|e| e.to_string())?;
        Ok(true)
    }

    async fn above(&self) -> Result<IdFloor, String> {
        let known = self.store.positions().await.map_err(|e| e.to_string())?;
        Ok(IdFloor {
            generation: known.iter().map(|(key, _)| key.generation).max().unwrap_or_default(),
            id: known.iter().map(|(_, at)| at.id).max().unwrap_or_default(),
        })
    }
}

impl<S: ArchiveStore> PartitionArchive<'_, S> {
    /// From the watermark on, until the role stops, and then to the end as it was. May be dropped anywhere, also in the
    /// middle of a write: who goes on starts at the watermark and writes the same rows again.
    async fn read(&self, mirror: watch::Sender<Position>) -> Result<(), PartitionError> {
        let (at, key, writer) = (self.at, self.key, &self.writer);
        at.health.doing("reads the watermark");
        let found = writer.until_it_works("read the watermark", || self.store.position(key)).await;
        let mut position = found.unwrap_or_default();
        // Whoever was here before may have ended between the two.
        mirror.send_replace(position);
        at.health.doing("compares the end of the log with the archive");
        self.compare(position).await?;
        position = self.skip_what_is_lost(position).await;
        if self.is_over(position).await {
            position = self.end(position).await?;
            mirror.send_replace(position);
            at.health.at(read_up_to(position, &self.bounds().await).0);
            at.health.doing("has archived all of a generation that is over");
            at.stop.cancelled().await;
            return Ok(());
        }
        let mut log = LogReader::fetching(&at.nats, at.layout, at.p, ReadFrom::After(position.id));
        at.health.at(read_up_to(position, &self.bounds().await).0);
        tracing::debug!(partition = at.p, position = %position.id, "archiving");
        let mut asked = Instant::now();
        // The log when we were asked to stop.
        let mut until: Option<LogBounds> = None;
        loop {
            if until.is_none() && at.stop.is_cancelled() {
                until = Some(self.bounds().await);
                log = LogReader::fetching(&at.nats, at.layout, at.p, ReadFrom::After(position.id));
            }
            if until.is_some_and(|log| read_up_to(position, &log) >= log.last) {
                return Ok(());
            }
            at.health.doing("reads the log");
            let batch = tokio::select! {
                biased;
                batch = log.fetch(BATCH_BYTES) => batch?,
                () = at.stop.cancelled(), if until.is_none() => continue,
            };
            let (read, behind) = (Instant::now(), batch.pending > 0);
            let rate = batch.records.len() as f64 / (read - asked).as_secs_f64();
            asked = read;
            metrics::gauge!(crate::metrics::LAG_ENTRIES, "partition" => at.p.to_string()).set(batch.pending as f64);
            if let (Some((first, last)), Some(next)) = (batch.hole, batch.records.first()) {
                self.lose((first, last), (position.ts, next.ts())).await;
            }
            let over = matches!(batch.records.last(), Some(Record::End { .. }));
            position = self.write(position, batch.records).await;
            mirror.send_replace(position);
            if over {
                position = self.end(position).await?;
                mirror.send_replace(position);
            }
            if !behind {
                let soon = at.times.batch / 5;
                let pause = if rate * soon.as_secs_f64() < FEW { soon } else { at.times.batch };
                let _ = at.stop.run_until_cancelled(sleep_until(read + pause)).await;
            }
        }
    }

    /// Everything of a batch, then the watermark over it.
    async fn write(&self, position: Position, records: Vec<Record>) -> Position {
        let (at, entries) = (self.at, records.len() as u64);
        at.health.doing("judges late entries");
        let hidden = self.writer.copies(&records, &self.history.current()).await;
        let sorted = batch::sort(self.key, position, records, &hidden);
        for id in batch::unreadable(&sorted) {
            tracing::error!(
                partition = at.p, %id,
                "an entry that cannot be read; archived as kind unknown with its bytes"
            );
            metrics::counter!(crate::metrics::UNREADABLE_ENTRIES).increment(1);
        }
        let end = sorted.end;
        at.health.doing("writes to the store");
        self.writer.write(self.key, sorted).await;
        at.health.at(end.id.0);
        metrics::counter!(crate::metrics::ARCHIVED_ENTRIES).increment(entries);
        end
    }

    async fn bounds(&self) -> LogBounds {
        self.bounds_of(self.at.layout, self.at.p).await
    }

    async fn bounds_of(&self, layout: Layout, p: u32) -> LogBounds {
        let tail = LeaderReader::new(&self.at.nats, layout);
        loop {
            match tail.bounds(p).await {
                Ok(bounds) => return bounds,
                Err(e) => tracing::debug!(partition = p, error = %e, "where the log ends is not known yet"),
            }
            sleep(RETRY).await;
        }
    }
}

/// Copies the watermark where `channel` can see it. Ends with its sender, after the last position.
async fn copy_watermark(at: &Partition, mut watermark: watch::Receiver<Position>) {
    while watermark.changed().await.is_ok() {
        let to = *watermark.borrow_and_update();
        if to.id.is_none() {
            continue;
        }
        if let Err(e) = at.positions.advance(at.p, to).await {
            tracing::debug!(
                partition = at.p, error = %e,
                "the copy of the watermark was not moved; the next one will be"
            );
        }
        let _ = at.stop.run_until_cancelled(sleep(MIRROR)).await;
    }
}

/// Below its first entry a log has nothing to read: one that is empty ends just before that.
fn read_up_to(position: Position, log: &LogBounds) -> MsgId {
    position.id.max(MsgId(log.first.0.saturating_sub(1)))
}
