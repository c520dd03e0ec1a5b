//! Reading: the log in order, and the judgement of late entries. Whoever publishes, every instance reads, so a takeover
//! finds a map that knows every thread.

use std::sync::Arc;

use futures_util::future::pending;
use natterjack_nats::{LogBatch, LogBounds, LogReader, LogRecord, Nats, ReadError, ReadFrom};
use natterjack_role::Partition as Assigned;

use super::{
    Channel, TURN,
    chain::{Chain, Then},
};
use crate::{
    in_flight::InFlight, late, metrics::Metrics, start::StartPlan, thread_heads::ThreadHeads, unconfirmed::Unconfirmed,
};

pub(super) struct Reading {
    /// The connection that the log comes over.
    nats: Nats,
    at: Assigned,
    log: LogReader,
    chain: Chain,
    /// A late entry, and whether it is a copy.
    judging: InFlight<(LogRecord, bool)>,
}

pub(super) enum Read {
    Batch(LogBatch),
    /// A late entry, and whether it is a copy.
    Judged(LogRecord, bool),
}

impl Reading {
    /// `inherited`: what the generation before knows of this partition's threads.
    pub fn new(
        channel: &Channel,
        at: &Assigned,
        plan: &StartPlan,
        bounds: &LogBounds,
        inherited: Option<ThreadHeads>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let known = plan.known();
        let heads = match inherited {
            Some(heads) if known.next() == bounds.origin && bounds.first == bounds.origin => {
                heads.continue_at(bounds.first, 0)
            }
            _ => ThreadHeads::new(at.times.horizon.as_millis() as u64, known),
        };
        let horizon_open = known.is_none() && bounds.first.0 > 1;
        // The mark itself may have expired, or was read by somebody long ago.
        let end = ((at.closed || bounds.over) && known >= bounds.last).then_some(bounds.last);
        Self {
            nats: channel.log.clone(),
            log: LogReader::new(&channel.log, at.layout, at.p, plan.from),
            chain: Chain::new(at.p, &at.times, heads, horizon_open, plan.published.id, end, metrics.clone()),
            judging: InFlight::default(),
            at: at.clone(),
        }
    }

    pub fn nats(&self) -> &Nats {
        &self.nats
    }

    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    pub fn chain_mut(&mut self) -> &mut Chain {
        &mut self.chain
    }

    /// What comes next; nothing new is read without `room` for it. Cancel-safe.
    pub async fn next(&mut self, room: bool) -> Result<Read, ReadError> {
        if !self.judging.is_idle() {
            let (record, copy) = self.judging.finished().await;
            return Ok(Read::Judged(record, copy));
        }
        if !room {
            return pending().await;
        }
        self.log.next_batch(TURN).await.map(Read::Batch)
    }

    pub fn take(&mut self, read: Read, out: &mut Unconfirmed) {
        let then = match read {
            Read::Batch(batch) => self.chain.batch(batch, out),
            Read::Judged(record, copy) => self.chain.judged(record, copy, out),
        };
        match then {
            Then::ReadOn => {}
            Then::Judge(record, whose) => self.judging.start(late::is_copy(self.nats.clone(), record, whose)),
            Then::ReadBehind(id) => {
                self.log = LogReader::new(&self.nats, self.at.layout, self.at.p, ReadFrom::After(id))
            }
        }
    }
}
