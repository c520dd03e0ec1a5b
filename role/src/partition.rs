//! What a role is given of one partition: where it is, what to read it with, how to say how far it got and how it is.

use std::{fmt::Display, sync::Arc, time::Duration};

use natterjack_nats::{
    KvBuckets, Layout, LeaderReader, LogBatch, LogBounds, LogReader, Nats, Position, Positions, ReadError, ReadFrom,
    RoleLease,
};
use natterjack_protocol::{MsgId, Times};
use natterjack_runtime::health::Reader;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::PartitionError;

/// Between attempts at NATS; an election takes 4–9 s.
const RETRY: Duration = Duration::from_millis(200);
/// How long a stop waits for a role that has something to finish. Less than the 10 s that `up` gives.
const FINISH: Duration = Duration::from_secs(5);

/// One partition of one generation of the log, as one task of one role sees it.
#[derive(Clone)]
pub struct Partition {
    pub nats: Nats,
    pub layout: Layout,
    pub p: u32,
    pub times: Times,
    /// There is a later generation: this one has its end mark, or had it until it expired.
    pub closed: bool,
    /// The generation right before this one, if this process has just read it to its end.
    pub follows: Option<Layout>,
    pub health: Arc<Reader>,
    /// Where this role keeps how far it got, if it keeps that on NATS.
    pub positions: Positions,
    /// Asks the role to finish what it has begun and return.
    pub stop: CancellationToken,
}

impl Partition {
    pub fn buckets(&self) -> KvBuckets {
        KvBuckets::new(&self.nats, self.layout)
    }

    pub fn tail(&self) -> LeaderReader {
        LeaderReader::new(&self.nats, self.layout)
    }

    /// Does `read` while this instance has the lease: stands by until then, drops it wherever it is when another
    /// instance has the lease, and 5 s after a stop. So `read` must be cancel-safe: what follows it begins at the
    /// position.
    pub async fn while_held(
        &self,
        mut lease: RoleLease,
        read: impl Future<Output = Result<(), PartitionError>>,
    ) -> Result<(), PartitionError> {
        // A standby is ready: what it would read another instance reads.
        self.health.rest();
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(()),
            () = lease.acquire() => {}
        }
        self.health.begin();
        let mut held = lease.held();
        let late = async {
            self.stop.cancelled().await;
            sleep(FINISH).await;
        };
        let ended = tokio::select! {
            biased;
            _ = held.wait_for(|held| !held) => {
                tracing::info!(partition = self.p, "another instance has the lease of this partition; standing by");
                Ok(())
            }
            ended = read => ended,
            () = late => {
                tracing::warn!(
                    partition = self.p,
                    "stopped before everything was read; whoever starts next goes on from the position"
                );
                Ok(())
            }
        };
        lease.release().await;
        ended
    }

    /// A reader behind this role's position on NATS; from the oldest entry if it has none. Waits through every outage.
    pub async fn log(&self) -> Result<LogReader, PartitionError> {
        let (position, bounds) = self.resume().await?;
        let read = position.unwrap_or_default().id;
        self.health.at(read.max(MsgId(bounds.first.0.saturating_sub(1))).0);
        Ok(LogReader::new(&self.nats, self.layout, self.p, ReadFrom::After(read)))
    }

    /// This role's position on NATS, and what the log has, once it was asked whether it still has what was read of it.
    /// Waits through every outage.
    pub async fn resume(&self) -> Result<(Option<Position>, LogBounds), ReadError> {
        let (tail, p) = (self.tail(), self.p);
        let position = self.until_it_works("read the position", || self.positions.load(p)).await;
        let read = position.unwrap_or_default();
        if self.until_it_works("compare the end of the log", || tail.lost_its_end(p, read)).await {
            return Err(ReadError::LostEnd { p, read: read.id });
        }
        Ok((position, self.until_it_works("read the bounds of the log", || tail.bounds(p)).await))
    }

    /// The next entries, at most `max`, as soon as there are any; none: this role is asked to stop. Cancel-safe.
    pub async fn next(&self, log: &mut LogReader, max: usize) -> Result<Option<LogBatch>, PartitionError> {
        self.health.doing("reads the log");
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Ok(None),
            batch = log.next_batch(max) => Ok(Some(batch?)),
        }
    }

    /// Everything up to the end of this batch is dealt with. Waits through every outage.
    pub async fn done(&self, batch: &LogBatch) {
        let Some(last) = batch.records.last() else { return };
        let to = Position { id: last.id(), ts: last.ts() };
        self.health.doing("saves its position");
        self.until_it_works("save the position", || self.positions.advance(self.p, to)).await;
        self.health.at(to.id.0);
    }

    async fn until_it_works<T, E: Display, F: Future<Output = Result<T, E>>>(
        &self,
        what: &'static str,
        mut f: impl FnMut() -> F,
    ) -> T {
        let mut trouble = None;
        loop {
            match f().await {
                Ok(value) => return value,
                Err(e) => trouble.get_or_insert_with(|| self.health.trouble()).is(Some(format!("{what}: {e}"))),
            }
            sleep(RETRY).await;
        }
    }
}
