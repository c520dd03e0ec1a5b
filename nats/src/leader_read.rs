//! One thread's newest entries straight from one generation of the log. `thread_log` makes one of two generations.
//!
//! Batch Direct Get walks upwards only and on literal subjects is quick (0.2–0.35 ms; a wildcard 33–38 ms), but a
//! follower may answer it with what it had a moment ago; leader reads have everything that was acknowledged.

mod direct;
mod newest;

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;
use natterjack_protocol::{Most, MsgId, Thread, internal::rpc::LastEntry, size::Size};

pub use self::newest::NewestEntry;
use self::{direct::Begin, newest::LeaderEnds};
use crate::{
    layout::Layout,
    subjects,
    wire::{
        client::Nats,
        jetstream::{self, Get, JsError, StoredMessage},
        rfc3339,
    },
};

/// The first probe for the newest page, and by how much each next one reaches further back: 10 s, 1 min, 6 min, 36
/// min, 3.6 h, 21.6 h.
const PROBE_MS: u64 = 10_000;
const PROBE_FACTOR: u64 = 6;
const PROBES: u32 = 6;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    pub id: MsgId,
    /// When the log stored it, milliseconds since 1970.
    pub ts: u64,
    pub thread: Thread,
    pub control: bool,
    pub payload: Bytes,
}

/// What a record is besides its payload: subject, headers, this struct.
const RECORD_BYTES: usize = 200;

impl Size for LogRecord {
    fn size(&self) -> usize {
        RECORD_BYTES + self.payload.len()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// The oldest entry that is still there; last + 1 if there is none.
    pub first: MsgId,
    pub last: MsgId,
    /// How many entries there are, and when the oldest was stored (0 if there is none).
    pub entries: u64,
    pub first_ts_ms: u64,
    /// When the stream was made, milliseconds since 1970.
    pub created_ms: u64,
    /// The leader's clock: the log's now.
    pub ts_ms: u64,
    pub max_age: Duration,
    /// Of the stream.
    pub replicas: usize,
    /// The first id there could ever be: if `first` is above it, something has expired.
    pub origin: MsgId,
    /// The generation is over, nothing is stored here any more.
    pub over: bool,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    #[error("the log does not answer: {0}")]
    Unavailable(String),
    #[error("partition {0} of the log does not exist; run `natterjack provision`")]
    NoStream(u32),
    #[error("the log answered what we do not understand: {0}")]
    Broken(String),
}

impl From<JsError> for LogError {
    fn from(e: JsError) -> Self {
        match e {
            JsError::Broken(s) => Self::Broken(s),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

#[derive(Clone)]
pub struct LeaderReader {
    nats: Nats,
    layout: Layout,
    ends: LeaderEnds,
}

impl LeaderReader {
    pub fn new(nats: &Nats, layout: Layout) -> Self {
        Self { nats: nats.clone(), layout, ends: LeaderEnds::new(layout.partitions) }
    }

    fn subjects(&self, thread: &Thread) -> [String; 2] {
        let p = self.layout.partition(thread);
        [subjects::chat(self.layout.generation, p, thread), subjects::ctl(self.layout.generation, p, thread)]
    }

    /// The thread's newest entry, message or control, by the leader.
    pub async fn last(&self, thread: &Thread) -> Result<Option<LogRecord>, LogError> {
        let stream = self.layout.stream(thread);
        let [chat, ctl] = self.subjects(thread);
        let (a, b) = futures_util::try_join!(
            jetstream::leader_get(&self.nats, &stream, Get::LastBySubj(&chat)),
            jetstream::leader_get(&self.nats, &stream, Get::LastBySubj(&ctl))
        )?;
        a.into_iter().chain(b).max_by_key(|m| m.seq).map(record).transpose()
    }

    /// The thread's newest control entry, by the leader.
    pub async fn last_control(&self, thread: &Thread) -> Result<Option<LogRecord>, LogError> {
        let [_, ctl] = self.subjects(thread);
        jetstream::leader_get(&self.nats, &self.layout.stream(thread), Get::LastBySubj(&ctl))
            .await?
            .map(record)
            .transpose()
    }

    /// The thread's first control entry after this id.
    pub async fn next_control(&self, thread: &Thread, after: MsgId) -> Result<Option<LogRecord>, LogError> {
        let [_, ctl] = self.subjects(thread);
        jetstream::leader_next(&self.nats, &self.layout.stream(thread), &ctl, after.0 + 1)
            .await?
            .map(record)
            .transpose()
    }

    /// One entry by id, by the leader. What is not of a thread (poison, the end) counts as absent.
    pub async fn get(&self, p: u32, id: MsgId) -> Result<Option<LogRecord>, LogError> {
        let stored =
            jetstream::leader_get(&self.nats, &subjects::stream(self.layout.generation, p), Get::Seq(id.0)).await?;
        Ok(stored.and_then(|m| record(m).ok()))
    }

    /// Entries with `after` < id <= `upto`, oldest first, at most `most`. Nothing that was acknowledged is missing.
    pub async fn after(
        &self,
        thread: &Thread,
        after: MsgId,
        upto: MsgId,
        most: Most,
    ) -> Result<Vec<LogRecord>, LogError> {
        let (mut got, beyond) = self.upwards(thread, Begin::Seq(after.0 + 1), most).await?;
        // What lies behind this is not asked for, or comes with the next page.
        let end = if beyond > 0 { got.last().map_or(upto, |r| r.id.min(upto)) } else { upto };
        got.retain(|r| r.id <= end);
        if got.last().map(|r| r.id) != Some(upto) || beyond > 0 {
            self.complete_by_leader(thread, &mut got, after, end, most).await?;
        }
        most.keep_first(&mut got);
        Ok(got)
    }

    /// The newest entries with id > `above`, at most `most`, oldest first. `now_ms` is the log's clock, or near it.
    ///
    /// Probes windows of time, each six times the one before, until one holds enough or reaches `above`; then asks the
    /// leader what is behind.
    pub async fn newest(
        &self,
        thread: &Thread,
        above: MsgId,
        most: Most,
        now_ms: u64,
    ) -> Result<Vec<LogRecord>, LogError> {
        if most.count == 0 || most.bytes == 0 {
            return Ok(Vec::new());
        }
        let mut window = PROBE_MS;
        let mut page = Vec::new();
        for probe in 0..=PROBES {
            page = if probe == PROBES {
                let everything = self.upwards(thread, Begin::Seq(above.0 + 1), most).await?;
                self.walk_to_the_end(thread, everything, most).await?
            } else {
                self.last_of_window(thread, now_ms, window, most).await?
            };
            let reached = page.first().is_some_and(|r: &LogRecord| r.id <= above);
            page.retain(|r| r.id > above);
            if most.full(&page) || reached {
                break;
            }
            window *= PROBE_FACTOR;
        }
        // In a full page nothing before its first entry matters.
        let floor = if most.full(&page) { page.first().map_or(above, |r| r.id) } else { above };
        self.complete_by_leader(thread, &mut page, floor, MsgId::MAX, Most::count(usize::MAX)).await?;
        most.keep_last(&mut page);
        Ok(page)
    }

    /// The newest entry of each thread in the log. By Direct Get: may lag by a moment.
    pub async fn last_entries(&self, threads: &[Thread]) -> Result<Vec<LastEntry>, LogError> {
        let mut last = vec![LastEntry::default(); threads.len()];
        let read = self.by_partition(threads).into_iter().map(|(p, part)| async move {
            let subjects: Vec<String> = part.iter().flat_map(|at| self.subjects(&threads[*at])).collect();
            Ok::<_, LogError>((part, self.multi_last(p, &subjects).await?.0))
        });
        for (part, records) in try_join_all(read).await? {
            let mut of: HashMap<&Thread, LastEntry> = HashMap::with_capacity(part.len());
            for r in &records {
                let entry = of.entry(&r.thread).or_default();
                if entry.id < r.id {
                    *entry = LastEntry { id: r.id, ts: r.ts };
                }
            }
            for at in part {
                last[at] = of.get(&threads[at]).copied().unwrap_or_default();
            }
        }
        Ok(last)
    }

    pub async fn bounds(&self, p: u32) -> Result<LogBounds, LogError> {
        let stream = subjects::stream(self.layout.generation, p);
        let info = jetstream::stream_info(&self.nats, &stream).await?.ok_or(LogError::NoStream(p))?;
        let time = |s: &str| rfc3339::parse_ms(s).ok_or_else(|| LogError::Broken(format!("time `{s}`")));
        Ok(LogBounds {
            first: MsgId(info.state.first_seq),
            last: MsgId(info.state.last_seq),
            entries: info.state.messages,
            first_ts_ms: rfc3339::parse_ms(&info.state.first_ts).unwrap_or(0),
            created_ms: time(&info.created)?,
            ts_ms: time(&info.ts)?,
            max_age: info.config.max_age,
            replicas: info.config.num_replicas,
            origin: MsgId(info.config.first_sequence.unwrap_or(1)),
            over: info.config.subjects == [subjects::end(self.layout.generation, p)],
        })
    }

    /// When what stands under this id was stored, whatever it is. By the leader.
    pub async fn stored_at(&self, p: u32, id: MsgId) -> Result<Option<u64>, LogError> {
        let stream = subjects::stream(self.layout.generation, p);
        Ok(jetstream::leader_get(&self.nats, &stream, Get::Seq(id.0)).await?.map(|m| m.ts))
    }

    /// Adds what Direct Get has left out: a follower may lag, and the two subjects may have been answered by two
    /// followers, so each is continued behind its own last entry (`after` if it has none), one by one by the leader.
    async fn complete_by_leader(
        &self,
        thread: &Thread,
        page: &mut Vec<LogRecord>,
        after: MsgId,
        upto: MsgId,
        most: Most,
    ) -> Result<(), LogError> {
        let stream = self.layout.stream(thread);
        let shown = [false, true].map(|control| page.iter().rfind(|r| r.control == control).map_or(after, |r| r.id));
        let [chat, ctl] = self.subjects(thread);
        let (a, b) = futures_util::try_join!(
            self.leader_after(&stream, &chat, shown[0], upto, most),
            self.leader_after(&stream, &ctl, shown[1], upto, most)
        )?;
        if !a.is_empty() || !b.is_empty() {
            metrics::counter!(crate::metrics::TAIL_STALE).increment(1);
            let known = [&a, &b].into_iter().filter(|r| most.full(r)).filter_map(|r| r.last()).map(|r| r.id).min();
            *page = merge(std::mem::take(page), merge(a, b));
            page.retain(|r| known.is_none_or(|end| r.id <= end));
        }
        Ok(())
    }

    async fn leader_after(
        &self,
        stream: &str,
        subject: &str,
        after: MsgId,
        upto: MsgId,
        most: Most,
    ) -> Result<Vec<LogRecord>, LogError> {
        let mut found = Vec::new();
        let mut seq = after.0 + 1;
        while seq <= upto.0
            && !most.full(&found)
            && let Some(m) = jetstream::leader_next(&self.nats, stream, subject, seq).await?
            && m.seq <= upto.0
        {
            seq = m.seq + 1;
            found.push(record(m)?);
        }
        Ok(found)
    }
}

/// Both ascending, ids never equal.
fn merge(a: Vec<LogRecord>, b: Vec<LogRecord>) -> Vec<LogRecord> {
    let mut all = a;
    all.extend(b);
    all.sort_by_key(|r| r.id);
    all
}

fn record(m: StoredMessage) -> Result<LogRecord, LogError> {
    let s = subjects::parse_entry(&m.subject).ok_or_else(|| LogError::Broken(format!("subject `{}`", m.subject)))?;
    Ok(LogRecord { id: MsgId(m.seq), ts: m.ts, thread: s.thread, control: s.control, payload: m.payload })
}
