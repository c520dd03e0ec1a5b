//! What was read becomes a chain: each entry behind its predecessor in its thread, late copies left out. Records in log
//! order in, entries for `unconfirmed` out. No I/O: who reads the log, and who judges a late entry, is `reading`.

use std::{collections::VecDeque, sync::Arc};

use natterjack_nats::{LogBatch, LogRecord, Record};
use natterjack_protocol::{Cid, Entry, MsgId, Times, UserId};
use tokio::time::Instant;

use crate::{
    fold::ControlChange,
    late,
    metrics::Metrics,
    thread_heads::ThreadHeads,
    unconfirmed::{ControlEntry, PendingEntry, Unconfirmed},
};

pub(super) struct Chain {
    p: u32,
    times: Times,
    heads: ThreadHeads,
    /// The moments of `heads` count from here.
    began: Instant,
    /// Nothing has been read yet, and the reader began by time: the first entry tells where the horizon is.
    horizon_open: bool,
    /// What somebody had published when this partition began.
    published: MsgId,
    /// Read, and behind an entry that is being judged.
    waiting: VecDeque<Record>,
    judging_since: Option<Instant>,
    /// The end mark of the generation: everything was read.
    end: Option<MsgId>,
    metrics: Arc<Metrics>,
}

/// What has to happen before the next batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    ReadOn,
    /// Is this late entry a copy? See [`Chain::judged`].
    Judge(LogRecord, (UserId, Cid)),
    /// The log has to be read from behind this id instead; nothing was taken in.
    ReadBehind(MsgId),
}

impl Chain {
    /// `end`: that of a generation of which nothing has to be read.
    pub fn new(
        p: u32,
        times: &Times,
        heads: ThreadHeads,
        horizon_open: bool,
        published: MsgId,
        end: Option<MsgId>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            p,
            times: times.clone(),
            heads,
            began: Instant::now(),
            horizon_open,
            published,
            waiting: VecDeque::new(),
            judging_since: None,
            end,
            metrics,
        }
    }

    pub fn heads(&self) -> &ThreadHeads {
        &self.heads
    }

    pub fn end(&self) -> Option<MsgId> {
        self.end
    }

    pub fn judging_since(&self) -> Option<Instant> {
        self.judging_since
    }

    pub fn forget_up_to(&mut self, id: MsgId) {
        self.heads.forget_up_to(id);
    }

    pub fn evict(&mut self) {
        self.heads.evict(self.read_ms());
    }

    fn read_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub fn batch(&mut self, batch: LogBatch, out: &mut Unconfirmed) -> Then {
        self.metrics.lag.set(batch.pending as f64);
        if let Some((_, to)) = batch.hole {
            self.heads.forget_up_to(to);
        }
        if let (true, Some(first)) = (std::mem::take(&mut self.horizon_open), batch.records.first()) {
            let before = MsgId(first.id().0.saturating_sub(1));
            if before > self.published {
                // The time to begin at lies behind what is owed: the log's clock was set back since.
                tracing::info!(
                    partition = self.p, from = %self.published,
                    "reads the log from the position: its clock was set back"
                );
                self.heads.forget_up_to(self.published);
                return Then::ReadBehind(self.published);
            }
            self.heads.forget_up_to(before);
        }
        self.waiting.extend(batch.records);
        self.link_waiting(out)
    }

    /// Step by step through what was read: the chain is made here, once, in the log's order; it is published from
    /// `unconfirmed`. What is hidden is nobody's `prev`, so everything waits behind a late entry until it is known to
    /// be no copy.
    fn link_waiting(&mut self, out: &mut Unconfirmed) -> Then {
        let p = self.p;
        while let Some(record) = self.waiting.pop_front() {
            match record {
                Record::Entry(record) => match late::suspect(&record, &self.times) {
                    None => self.link(record, out),
                    Some(whose) => {
                        self.metrics.late.increment(1);
                        self.judging_since = Some(Instant::now());
                        return Then::Judge(record, whose);
                    }
                },
                Record::End { id, ts } => {
                    tracing::info!(partition = p, id = %id, "the generation is over");
                    self.end = Some(id);
                    out.read(id, ts, None);
                }
                Record::UnknownSubject { id, ts, subject, .. } => {
                    self.metrics.unknown_subjects.increment(1);
                    tracing::error!(
                        partition = p, id = %id, subject,
                        "an entry's subject names no thread; it is not published"
                    );
                    out.read(id, ts, None);
                }
            }
        }
        Then::ReadOn
    }

    fn link(&mut self, record: LogRecord, out: &mut Unconfirmed) {
        let (id, ts, hash) = (record.id, record.ts, record.thread.hash64());
        let prev = self.heads.advance(hash, id, self.read_ms());
        let control = if record.control { control(&record) } else { None };
        out.read(id, ts, Some(PendingEntry { record, hash, prev, control }));
    }

    pub fn judged(&mut self, record: LogRecord, copy: bool, out: &mut Unconfirmed) -> Then {
        self.judging_since = None;
        if copy {
            self.metrics.copies.increment(1);
            tracing::info!(
                partition = self.p, id = %record.id,
                "a copy of an earlier entry, stored late; it is not published"
            );
            out.read(record.id, record.ts, None);
        } else {
            self.link(record, out);
        }
        self.link_waiting(out)
    }
}

/// None: unreadable; it will be published as what it is, and folded into nothing.
fn control(record: &LogRecord) -> Option<Box<ControlEntry>> {
    let entry = Entry::on(true, &record.payload).ok()?;
    let change = ControlChange { id: record.id, thread: record.thread.clone(), entry };
    Some(Box::new(ControlEntry { change, folded: None }))
}

#[cfg(test)]
mod tests {
    use natterjack_nats::Position;
    use natterjack_protocol::{Body, Kind};

    use super::*;

    const C: u64 = 1_800_000_000_000;

    /// Stored `late_ms` after its cid.
    fn entry(id: u64, late_ms: u64) -> Record {
        let entry = Entry::new("a".parse().unwrap(), Cid::mint(C, [id as u8; 10]), Kind::Text, Body::text("hi"));
        let thread = "dm.a.b".parse().unwrap();
        Record::Entry(LogRecord { id: MsgId(id), ts: C + late_ms, thread, control: false, payload: entry.encode() })
    }

    fn batch(records: Vec<Record>) -> LogBatch {
        LogBatch { records, ..LogBatch::default() }
    }

    fn new(horizon_open: bool, published: u64) -> (Chain, Unconfirmed) {
        let published = MsgId(published);
        let heads = ThreadHeads::new(120_000, MsgId::NONE);
        let chain = Chain::new(0, &Times::default(), heads, horizon_open, published, None, Arc::new(Metrics::new(0)));
        (chain, Unconfirmed::new(Position { id: published, ts: 0 }, MsgId::NONE))
    }

    /// Takes out (id, prev) of all that could be published.
    fn linked(out: &mut Unconfirmed) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        while let Some(pending) = out.next_unpublished() {
            all.push((pending.record.id.0, pending.prev.0));
            out.advance();
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn everything_waits_behind_a_late_entry_and_a_copy_is_nobodys_predecessor() {
        let (mut chain, mut out) = new(false, 9);
        let end = Record::End { id: MsgId(14), ts: C };
        let then =
            chain.batch(batch(vec![entry(10, 0), entry(11, 90_000), entry(12, 0), entry(13, 90_000), end]), &mut out);
        let Then::Judge(suspect, _) = then else { panic!("{then:?}") };
        assert_eq!((suspect.id, linked(&mut out)), (MsgId(11), vec![(10, 0)]));
        tokio::time::advance(std::time::Duration::from_secs(3)).await;
        assert_eq!(chain.judging_since().unwrap().elapsed().as_secs(), 3);
        let then = chain.judged(suspect, true, &mut out);
        let Then::Judge(suspect, _) = then else { panic!("{then:?}") };
        assert_eq!((suspect.id, linked(&mut out), chain.end()), (MsgId(13), vec![(12, 10)], None));
        assert_eq!(chain.judged(suspect, false, &mut out), Then::ReadOn);
        assert_eq!((linked(&mut out), chain.end(), out.frontier()), (vec![(13, 12)], Some(MsgId(14)), MsgId(14)));
        assert_eq!(chain.judging_since(), None);
    }

    #[test]
    fn a_start_by_time_that_lies_behind_what_is_owed_becomes_one_by_position() {
        let (mut chain, mut out) = new(true, 9);
        assert_eq!(chain.batch(batch(vec![entry(20, 0)]), &mut out), Then::ReadBehind(MsgId(9)));
        assert_eq!((linked(&mut out), chain.heads().horizon()), (vec![], MsgId(9)));
        assert_eq!(chain.batch(batch(vec![entry(10, 0), entry(11, 0)]), &mut out), Then::ReadOn);
        assert_eq!(linked(&mut out), [(10, 0), (11, 10)]);
        let (mut chain, mut out) = new(true, 9);
        assert_eq!(chain.batch(batch(vec![entry(5, 0)]), &mut out), Then::ReadOn);
        assert_eq!(
            (linked(&mut out), chain.heads().horizon()),
            (vec![], MsgId(4)),
            "published before; it only fills the map"
        );
    }

    #[test]
    fn what_the_log_no_longer_has_is_no_evidence_and_an_unknown_subject_is_passed_over() {
        let (mut chain, mut out) = new(false, 9);
        let unknown =
            Record::UnknownSubject { id: MsgId(13), ts: C, subject: "chat.1.0.x".into(), payload: "?".into() };
        let holed = LogBatch { hole: Some((MsgId(10), MsgId(11))), ..batch(vec![entry(12, 0), unknown]) };
        assert_eq!(chain.batch(holed, &mut out), Then::ReadOn);
        assert_eq!((chain.heads().horizon(), linked(&mut out), out.frontier()), (MsgId(11), vec![(12, 0)], MsgId(13)));
    }
}
