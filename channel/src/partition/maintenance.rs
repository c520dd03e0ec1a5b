//! What a partition does beside reading and publishing: it asks the log, beats, evicts, leaves what it knows for the
//! next generation, and says how it is.

use std::time::Duration;

use natterjack_protocol::{MsgId, internal::live::Beat};
use natterjack_role::PartitionError;

use super::{Leadership, Partition};
use crate::log_probe::{ProbeAnswer, ProbedLog};

/// Beyond this a fold, or a late entry that is being judged, is reported in the health of the role.
const SLOW: Duration = Duration::from_secs(2);

impl Partition {
    pub(super) fn ask_the_log(&mut self) {
        let holds = self.leadership.holder().is_some();
        self.probe.ask(self.unconfirmed.last_read().id, self.at.nats.epoch(), holds);
    }

    /// Takes in what the log said; the holder's beat goes out with it.
    pub(super) async fn probed(&mut self, answer: ProbeAnswer) -> Result<(), PartitionError> {
        let probed = match answer {
            ProbeAnswer::ArchiveLag => return Ok(()),
            ProbeAnswer::Bounds(Some(probed)) => probed,
            ProbeAnswer::Bounds(None) => {
                self.trouble.is(Some("the log does not answer".into()));
                return Ok(());
            }
        };
        if !self.probe.take(self.at.p, &probed, self.reading.chain().end().is_some())? {
            return Ok(());
        }
        let first = probed.bounds.first;
        if !self.unconfirmed.warm() && first > self.unconfirmed.confirmed().id {
            // The position's own entry aged out between the question and the first read: nothing older will come.
            let gone = MsgId(first.0.saturating_sub(1));
            self.reading.chain_mut().forget_up_to(gone);
            self.unconfirmed.skip_to(gone);
        }
        self.beat(&probed).await
    }

    async fn beat(&mut self, probed: &ProbedLog) -> Result<(), PartitionError> {
        let Leadership::Holder(holder) = &mut self.leadership else { return Ok(()) };
        self.probe.compare_clocks(self.time.now_ms());
        // A beat that waited (for a place in the client's queue, or for a connection) would set the edges' clocks back.
        let now = self.at.nats.connected() && self.probe.asked_over(self.at.nats.epoch());
        if !now || probed.at.elapsed() >= self.at.times.beat {
            return Ok(());
        }
        let beat = Beat {
            generation: self.at.layout.generation,
            p: self.at.p,
            ts: probed.bounds.ts_ms,
            dedupe_since: self.probe.dedupe_since(probed),
            // Not what was handed to the connection but what is known to have left: a beat must not vouch for frames
            // that a break, not yet noticed, has swallowed.
            frontier: self.unconfirmed.confirmed().id,
            archive_lag_ms: self.probe.archive_lag(),
        };
        holder.beat(beat).await
    }

    pub(super) async fn maintain(&mut self) -> Result<(), PartitionError> {
        self.reading.chain_mut().evict();
        match &mut self.leadership {
            Leadership::Holder(holder) => holder.maintain(&self.unconfirmed).await?,
            Leadership::Standby(standby) => standby.look(),
            Leadership::Ended => {}
        }
        self.hand_over();
        self.measure();
        Ok(())
    }

    /// The next generation may begin where it is known, and told to the others, that everything of this one has left.
    fn hand_over(&mut self) {
        let (generation, p) = (self.at.layout.generation, self.at.p);
        let left =
            self.leadership.holder().map_or(self.unconfirmed.confirmed().id, |holder| holder.saved_position().id);
        if !self.left_heads && self.reading.chain().end().is_some_and(|end| left >= end) {
            self.left_heads = true;
            self.inherited.leave(generation, p, self.reading.chain().heads().clone());
        }
        if !self.passed_inherited && self.reading.chain().heads().horizon().next() >= self.probe.first() {
            self.passed_inherited = true;
            self.inherited.pass(self.at.layout, p);
        }
    }

    fn measure(&self) {
        let holder = self.leadership.holder();
        self.metrics.unconfirmed.set(self.unconfirmed.len() as f64);
        self.metrics.unconfirmed_bytes.set(self.unconfirmed.bytes() as f64);
        self.metrics.threads.set(self.reading.chain().heads().len() as f64);
        self.metrics.idle_heads.set(holder.map_or(0, |h| h.idle_len()) as f64);
        let slow = |since: Option<tokio::time::Instant>| since.is_some_and(|t| t.elapsed() > SLOW);
        let why = if !self.at.nats.connected() {
            Some("not connected to NATS")
        } else if slow(holder.and_then(|h| h.folding_since())) {
            Some("folding a control entry waits for KV; its partition waits with it")
        } else if slow(self.reading.chain().judging_since()) {
            Some("a late entry waits for history to tell whether it is a copy; its partition waits with it")
        } else if self.probe.clock().at.elapsed() > self.at.times.beat_silence {
            Some("the log does not answer")
        } else {
            None
        };
        self.trouble.is(why.map(str::to_owned));
        // Who fills its map moves by reading, who publishes by what is known to have left: a publisher that only reads
        // is stuck.
        let publishes = holder.is_some() && self.unconfirmed.warm();
        self.at.health.doing(if publishes { "publishes" } else { "reads the log" });
        self.at.health.at(if publishes {
            self.unconfirmed.confirmed().id.0
        } else {
            self.unconfirmed.last_read().id.0
        });
    }

    pub(super) async fn idle_heads(&mut self) -> Result<(), PartitionError> {
        match &mut self.leadership {
            Leadership::Holder(holder) => holder.idle_heads(self.reading.chain().heads(), &self.unconfirmed).await,
            Leadership::Standby(_) | Leadership::Ended => Ok(()),
        }
    }

    /// A planned stop.
    pub(super) async fn finish(&mut self) {
        if let Leadership::Holder(holder) = std::mem::replace(&mut self.leadership, Leadership::Ended) {
            holder.finish(&mut self.unconfirmed).await;
        }
    }
}
