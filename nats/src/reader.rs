//! The log in order, for `channel` (step 4) and `persister` (step 7): one `LogReader` per role and partition.
//!
//! There is no redelivery and no state on the server: the reader knows its position and makes its consumer again there
//! when heartbeats stop or a sequence is not the next one. Nothing in the log is filtered or deleted, so a jump that
//! stays is lost data.

mod opening;
pub(crate) mod record;

use std::time::Duration;

use futures_util::future::BoxFuture;
use natterjack_protocol::MsgId;

use self::{
    opening::{Connection, Opening, Unopened},
    record::{LogBatch, Record},
};
use crate::{
    layout::Layout,
    leader_read::LogRecord,
    subjects,
    wire::{
        client::Nats,
        pull::{Delivered, Pull, PullMode, consumer::DeliverFrom},
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// The first entry behind this one; `MsgId::NONE`: the oldest there is.
    After(MsgId),
    /// The first entry stored at or after this time, milliseconds since 1970.
    Time(u64),
}

/// Of a fetch, before its size is looked at: bounds by how much it can pass its limit.
const BITE: usize = 64;

#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error("partition {0} of the log does not exist; run `natterjack provision`")]
    NoStream(u32),
    /// For `generation::renew_above`.
    #[error("partition {p} of the log ends before {read}, which was read of it: it lost its end, or is an older copy")]
    LostEnd { p: u32, read: MsgId },
}

pub struct LogReader {
    nats: Nats,
    layout: Layout,
    stream: String,
    end: String,
    p: u32,
    mode: PullMode,
    start: ReadFrom,
    position: MsgId,
    pull: Option<Pull>,
    /// A consumer made at the position jumps: the second time it is the log's hole, not the transport's.
    jumped: bool,
    /// Taken from the consumer but not handed out: what came behind a batch's end.
    held: Option<Delivered>,
    pause: Duration,
    /// The end mark was not there when we began to read, and has not come: it is owed.
    owed: bool,
    /// Of the pull, or of the one that comes next.
    connection: Connection,
    /// A consumer being made. Kept over calls: a caller that drops its wait five times a second would otherwise begin
    /// the pause anew each time, and never read again. And is the generation over?
    opening: Option<BoxFuture<'static, Result<(Pull, bool), Unopened>>>,
}

/// What one delivered sequence means at a position. Pure.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Next,
    Old,
    Jump,
}

fn step(position: MsgId, seq: u64) -> Step {
    // Position 0: nothing read yet and no place asked for, the first is wherever the log begins.
    if position.is_none() || seq == position.0 + 1 {
        Step::Next
    } else if seq <= position.0 {
        Step::Old
    } else {
        Step::Jump
    }
}

impl LogReader {
    /// Each entry as soon as it is stored.
    pub fn new(nats: &Nats, layout: Layout, p: u32, from: ReadFrom) -> Self {
        Self::at(PullMode::Ahead, Connection::Own, nats, layout, p, from)
    }

    /// For who reads to some end and goes: not worth a connection.
    pub fn briefly(nats: &Nats, layout: Layout, p: u32, from: ReadFrom) -> Self {
        Self::at(PullMode::Ahead, Connection::Shared, nats, layout, p, from)
    }

    /// For who reads with `fetch` and leaves time between two of them.
    pub fn fetching(nats: &Nats, layout: Layout, p: u32, from: ReadFrom) -> Self {
        Self::at(PullMode::Fetch, Connection::Own, nats, layout, p, from)
    }

    fn at(mode: PullMode, connection: Connection, nats: &Nats, layout: Layout, p: u32, from: ReadFrom) -> Self {
        Self {
            nats: nats.clone(),
            layout,
            stream: subjects::stream(layout.generation, p),
            end: subjects::end(layout.generation, p),
            p,
            mode,
            start: from,
            position: if let ReadFrom::After(id) = from { id } else { MsgId::NONE },
            pull: None,
            jumped: false,
            held: None,
            pause: Duration::ZERO,
            owed: false,
            connection,
            opening: None,
        }
    }

    /// The id of the last record handed out (or where it started).
    pub fn position(&self) -> MsgId {
        self.position
    }

    /// Waits for at least one record, returns what is ready, at most `max`; never waits to fill. Cancel-safe: the
    /// position moves only with what is returned. Waits through every outage; an error means that waiting is no use.
    pub async fn next_batch(&mut self, max: usize) -> Result<LogBatch, ReadError> {
        loop {
            let first = match self.held.take() {
                Some(d) => d,
                None => self.wait().await?,
            };
            let mut batch = LogBatch::default();
            match step(self.position, first.seq) {
                Step::Next => {}
                Step::Old => continue,
                Step::Jump if !self.jumped => {
                    tracing::warn!(stream = self.stream, position = %self.position, got = first.seq, "a jump in the \
                        log's sequence; reading again");
                    metrics::counter!(crate::metrics::READER_JUMPS).increment(1);
                    self.jumped = true;
                    self.pull = None;
                    continue;
                }
                Step::Jump => {
                    let hole = (self.position.next(), MsgId(first.seq - 1));
                    tracing::error!(stream = self.stream, from = %hole.0, to = %hole.1, "the log has a hole");
                    metrics::counter!(crate::metrics::READER_HOLES).increment(1);
                    batch.hole = Some(hole);
                }
            }
            self.jumped = false;
            self.push(&mut batch, first);
            self.fill(&mut batch, max);
            return Ok(batch);
        }
    }

    /// Waits for at least one record, returns all that the log has then: up to four thousand, or up to the one with
    /// which their payload reaches `bytes`. Not cancel-safe: what was read goes with it.
    pub async fn fetch(&mut self, bytes: usize) -> Result<LogBatch, ReadError> {
        let mut batch = self.next_batch(BITE).await?;
        let mut size: usize = batch.records.iter().map(Record::size).sum();
        while size < bytes
            && self.held.is_none()
            && let Some(pull) = &mut self.pull
        {
            let read = batch.records.len();
            match pull.rest().await {
                Ok(Some(d)) => match step(self.position, d.seq) {
                    Step::Next => self.push(&mut batch, d),
                    Step::Old => {}
                    Step::Jump => self.held = Some(d),
                },
                Ok(None) => break,
                Err(_) => drop(self.died()),
            }
            size += batch.records[read..].iter().map(Record::size).sum::<usize>();
        }
        Ok(batch)
    }

    /// Takes what is already here and follows.
    fn fill(&mut self, batch: &mut LogBatch, max: usize) {
        while batch.records.len() < max
            && let Some(pull) = &mut self.pull
        {
            match pull.try_next() {
                Ok(Some(d)) => match step(self.position, d.seq) {
                    Step::Next => self.push(batch, d),
                    Step::Old => {}
                    Step::Jump => {
                        self.held = Some(d);
                        return;
                    }
                },
                Ok(None) => return,
                Err(_) => {
                    self.died();
                    return;
                }
            }
        }
    }

    fn push(&mut self, batch: &mut LogBatch, d: Delivered) {
        self.position = MsgId(d.seq);
        batch.pending = d.pending;
        let entry = std::str::from_utf8(&d.subject).ok().and_then(subjects::parse_entry);
        batch.records.push(match entry {
            Some(s) => Record::Entry(LogRecord {
                id: MsgId(d.seq),
                ts: d.ts,
                thread: s.thread,
                control: s.control,
                payload: d.payload,
            }),
            None if d.subject == self.end.as_bytes() => {
                self.owed = false;
                Record::End { id: MsgId(d.seq), ts: d.ts }
            }
            None => {
                let subject = String::from_utf8_lossy(&d.subject).into_owned();
                Record::UnknownSubject { id: MsgId(d.seq), ts: d.ts, subject, payload: d.payload }
            }
        });
    }

    /// The pull is dead. If nothing was heard over a connection of its own, its server may be cut off from the others.
    fn died(&mut self) -> Option<Pull> {
        self.held = None;
        let dead = self.pull.take()?;
        self.connection =
            if self.connection == Connection::Own && !dead.spoke() { Connection::Shared } else { Connection::Own };
        Some(dead)
    }

    /// The next delivery, through as many consumers as it takes. Cancel-safe.
    async fn wait(&mut self) -> Result<Delivered, ReadError> {
        loop {
            if let Some(pull) = &mut self.pull {
                match pull.next().await {
                    Ok(d) => {
                        self.pause = Duration::ZERO;
                        return Ok(d);
                    }
                    Err(why) => {
                        tracing::info!(stream = self.stream, ?why, position = %self.position, "the reader makes its \
                            consumer again");
                        metrics::counter!(crate::metrics::READER_RECREATED).increment(1);
                        if let Some(dead) = self.died() {
                            dead.close().await;
                        }
                    }
                }
            }
            let from = match self.start {
                ReadFrom::Time(ms) if self.position.is_none() => DeliverFrom::Time(ms),
                _ => DeliverFrom::Sequence(self.position.0 + 1),
            };
            let opening = self.opening.get_or_insert_with(|| {
                let wait = self.pause;
                self.pause = (wait * 2).clamp(Duration::from_millis(50), Duration::from_millis(500));
                let opening = Opening {
                    nats: self.nats.clone(),
                    layout: self.layout,
                    p: self.p,
                    stream: self.stream.clone(),
                    from,
                    mode: self.mode,
                    connection: self.connection,
                    read: self.position,
                    owed: self.owed,
                };
                Box::pin(async move {
                    tokio::time::sleep(wait).await;
                    opening.run().await
                })
            });
            let opened = opening.await;
            self.opening = None;
            match opened {
                Ok((pull, over)) => {
                    self.owed |= !over;
                    self.pull = Some(pull);
                }
                Err(Unopened::No(e)) => return Err(e),
                Err(Unopened::NotNow(why)) => tracing::debug!(stream = self.stream, why, "no consumer yet"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_sequence_is_next() {
        assert_eq!(step(MsgId(10), 11), Step::Next);
        assert_eq!(step(MsgId(10), 10), Step::Old);
        assert_eq!(step(MsgId(10), 12), Step::Jump);
        assert_eq!(step(MsgId::NONE, 1 << 40), Step::Next, "an id begins far above zero");
    }
}
