//! Direct Get: quick, in batches, and answered by whichever server has a copy, perhaps with what it had a moment ago.
//! What a page lacks for that the leader adds.

use natterjack_protocol::{Most, Thread};
use serde::Serialize;

use super::{LeaderReader, LogError, LogRecord, PROBE_FACTOR, merge, record};
use crate::{
    subjects,
    wire::{
        jetstream::{self, DirectChunk},
        rfc3339,
    },
};

/// Messages per batch request (the server's own bound for multi_last is 1,024), and their bytes: a thousand of 48 KiB
/// would be 48 MB.
const BATCH: Most = Most { count: 1_000, bytes: 1 << 20 };

/// Where a batch begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begin {
    Seq(u64),
    Time(u64),
}

#[derive(Serialize)]
struct BatchGet<'a> {
    batch: usize,
    max_bytes: usize,
    next_by_subj: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
}

#[derive(Serialize)]
struct MultiLast<'a> {
    multi_last: &'a [String],
    batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    up_to_seq: Option<u64>,
}

/// One answer of a batch request.
struct Chunk {
    records: Vec<LogRecord>,
    /// Matching messages that did not fit.
    pending: u64,
    up_to: Option<u64>,
}

impl LeaderReader {
    /// The first entries from `begin` on, of both subjects in one order, at most `most`, and how many match beyond
    /// them. By Direct Get.
    pub(super) async fn upwards(
        &self,
        thread: &Thread,
        mut begin: Begin,
        most: Most,
    ) -> Result<(Vec<LogRecord>, u64), LogError> {
        let [chat, ctl] = self.subjects(thread);
        let p = self.layout.partition(thread);
        let mut got: Vec<LogRecord> = Vec::new();
        loop {
            let left = most.beside(&got);
            let ((a, more_a), (b, more_b)) = futures_util::try_join!(
                self.upwards_one(p, &chat, begin, left),
                self.upwards_one(p, &ctl, begin, left)
            )?;
            // Where one of them ends early, nothing is known of what lies behind its last entry.
            let known = [(&a, more_a), (&b, more_b)]
                .into_iter()
                .filter(|(_, more)| *more > 0)
                .filter_map(|(r, _)| r.last())
                .map(|r| r.id)
                .min();
            let found = a.len() + b.len();
            let mut part = merge(a, b);
            part.retain(|r| known.is_none_or(|end| r.id <= end));
            left.keep_first(&mut part);
            let beyond = more_a + more_b + (found - part.len()) as u64;
            let last = part.last().map(|r| r.id);
            got.extend(part);
            match last {
                Some(last) if beyond > 0 && !most.full(&got) => begin = Begin::Seq(last.0 + 1),
                _ => return Ok((got, beyond)),
            }
        }
    }

    async fn upwards_one(
        &self,
        p: u32,
        subject: &str,
        mut begin: Begin,
        most: Most,
    ) -> Result<(Vec<LogRecord>, u64), LogError> {
        let mut got: Vec<LogRecord> = Vec::new();
        loop {
            let left = most.beside(&got);
            let batch = left.count.min(BATCH.count);
            if batch == 0 || left.bytes == 0 {
                return Ok((got, 0));
            }
            let (seq, start_time) = match begin {
                Begin::Seq(s) => (Some(s), None),
                Begin::Time(ms) => (None, Some(rfc3339::format_ms(ms))),
            };
            let max_bytes = left.bytes.min(BATCH.bytes);
            let request = BatchGet { batch, max_bytes, next_by_subj: subject, seq, start_time };
            let chunk = self.direct(p, &request, batch).await?;
            let progressed = chunk.records.last().map(|r| r.id);
            got.extend(chunk.records);
            match progressed {
                // A batch may end early by bytes.
                Some(last) if chunk.pending > 0 && !most.full(&got) => begin = Begin::Seq(last.0 + 1),
                _ => return Ok((got, chunk.pending)),
            }
        }
    }

    /// The last entries, at most `most`, of a window of time that ends now. A busy thread may have far more in it than
    /// a page: then smaller windows are tried as long as they hold a page, and only the rest is walked over.
    pub(super) async fn last_of_window(
        &self,
        thread: &Thread,
        now_ms: u64,
        mut window: u64,
        most: Most,
    ) -> Result<Vec<LogRecord>, LogError> {
        let within = |window| Begin::Time(now_ms.saturating_sub(window));
        let mut found = self.upwards(thread, within(window), most).await?;
        while found.1 > BATCH.count as u64 && window > PROBE_FACTOR {
            window /= PROBE_FACTOR;
            let smaller = self.upwards(thread, within(window), most).await?;
            if !most.full(&smaller.0) {
                break;
            }
            found = smaller;
        }
        self.walk_to_the_end(thread, found, most).await
    }

    /// Goes on behind the last entry of `page`; keeps the last ones.
    pub(super) async fn walk_to_the_end(
        &self,
        thread: &Thread,
        found: (Vec<LogRecord>, u64),
        most: Most,
    ) -> Result<Vec<LogRecord>, LogError> {
        let (mut page, mut beyond) = found;
        while beyond > 0 {
            let Some(last) = page.last().map(|r| r.id) else { break };
            let (more, left) = self.upwards(thread, Begin::Seq(last.0 + 1), BATCH).await?;
            if more.is_empty() {
                break;
            }
            page.extend(more);
            most.keep_last(&mut page);
            beyond = left;
        }
        Ok(page)
    }

    pub(super) async fn multi_last(
        &self,
        p: u32,
        subjects: &[String],
    ) -> Result<(Vec<LogRecord>, Option<u64>), LogError> {
        let mut got = Vec::new();
        let (mut seq, mut up_to_seq) = (None, None);
        loop {
            let request = MultiLast { multi_last: subjects, batch: 1_024, seq, up_to_seq };
            let chunk = self.direct(p, &request, 1_024).await?;
            let progressed = chunk.records.last().map(|r| r.id.0);
            got.extend(chunk.records);
            up_to_seq = up_to_seq.or(chunk.up_to);
            match progressed {
                Some(last) if chunk.pending > 0 => seq = Some(last + 1),
                _ => return Ok((got, up_to_seq)),
            }
        }
    }

    async fn direct<Q: Serialize>(&self, p: u32, request: &Q, capacity: usize) -> Result<Chunk, LogError> {
        let stream = subjects::stream(self.layout.generation, p);
        let DirectChunk { messages, pending, up_to } =
            jetstream::direct_get(&self.nats, &stream, request, capacity).await?;
        Ok(Chunk { records: messages.into_iter().map(record).collect::<Result<_, _>>()?, pending, up_to })
    }
}
