//! The log in order, for `channel` (step 4) and `persister` (step 7): one `LogReader` per role and partition.
//!
//! There is no redelivery and no state on the server: the reader knows its position and makes its consumer again there
//! when heartbeats stop or a sequence is not the next one. Nothing in the log is filtered or deleted, so a jump that
//! stays is lost data.

pub(crate) mod record;

use std::time::Duration;

use futures_util::future::BoxFuture;
use natterjack_protocol::MsgId;

use self::record::{LogBatch, Record};
use crate::{
    layout::Layout,
    leader_read::{LeaderReader, LogError, LogRecord},
    subjects,
    wire::{
        client::Nats,
        jetstream::{JsError, code},
        pull::{
            Delivered, Pull, PullMode,
            consumer::{Consumer, DeliverFrom},
        },
        raw::RawConnection,
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// The first entry behind this one; `MsgId::NONE`: the oldest there is.
    After(MsgId),
    /// The first entry stored at or after this time, milliseconds since 1970.
    Time(u64),
}

/// For a connection of its own. The consumer waits for 5 s.
const CONNECT: Duration = Duration::from_millis(2_500);
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

/// Why there is no consumer.
enum Unopened {
    NotNow(String),
    No(ReadError),
}

/// What the log comes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// A connection for this reader alone, made with each consumer.
    Own,
    /// The process's client.
    Shared,
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
            let (nats, stream, pause) = (&self.nats, &self.stream, &mut self.pause);
            let (mode, connection, layout, p, read, owed) =
                (self.mode, self.connection, self.layout, self.p, self.position, self.owed);
            let opening = self.opening.get_or_insert_with(|| {
                let (nats, stream, wait) = (nats.clone(), stream.clone(), *pause);
                *pause = (wait * 2).clamp(Duration::from_millis(50), Duration::from_millis(500));
                Box::pin(async move {
                    tokio::time::sleep(wait).await;
                    let not_now = |e: &dyn std::fmt::Display| Unopened::NotNow(e.to_string());
                    // Consumers die with the server that loses its end, so this is asked before anything is read of
                    // what it became.
                    let tail = LeaderReader::new(&nats, layout);
                    let over = match tail.ends_before(p, read, owed).await {
                        Ok(end) if end.lost => return Err(Unopened::No(ReadError::LostEnd { p, read })),
                        Ok(end) => end.over,
                        // Without a layout there would be no reader; in a restarting cluster a stream is found late.
                        Err(LogError::NoStream(p)) => return Err(Unopened::No(ReadError::NoStream(p))),
                        Err(e) => return Err(not_now(&e)),
                    };
                    let pull = open(&nats, &stream, from, mode, connection).await.map_err(|e| match e.err_code() {
                        code::STREAM_NOT_FOUND => Unopened::No(ReadError::NoStream(p)),
                        _ => not_now(&e),
                    })?;
                    Ok((pull, over))
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

async fn open(
    nats: &Nats,
    stream: &str,
    from: DeliverFrom,
    mode: PullMode,
    connection: Connection,
) -> Result<Pull, JsError> {
    if connection == Connection::Shared {
        return Pull::shared(nats, Consumer::make(nats, stream, None, from).await?, mode).await;
    }
    // At the same time: after the death of a node either may have to wait for its own timeout.
    let (consumer, link) = tokio::join!(Consumer::make(nats, stream, None, from), own_connection(nats, stream));
    let consumer = consumer?;
    match link {
        Ok(link) => Pull::own(nats, consumer, link, mode).await,
        Err(why) => {
            tracing::warn!(
                stream,
                why,
                "no connection of its own for a reader of the log; it reads over the shared one"
            );
            Pull::shared(nats, consumer, mode).await
        }
    }
}

/// Error: there is none to be had, so the shared one has to do until the next consumer.
async fn own_connection(nats: &Nats, stream: &str) -> Result<Box<RawConnection>, String> {
    match tokio::time::timeout(CONNECT, RawConnection::connect(nats.config(), &format!("reads {stream}"))).await {
        Ok(Ok(link)) => Ok(Box::new(link)),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
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
