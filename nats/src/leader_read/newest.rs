//! The newest entries of many threads at once: by Direct Get, a request per partition, and whether they are the newest
//! ones for sure. The server that answered says how far it had the log; the leader says how far that is.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use natterjack_protocol::{MsgId, Thread};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

use super::{LeaderReader, LogError, LogRecord};

/// Threads in a request: two subjects each, 1,024 subjects a request.
const THREADS: usize = 512;
/// The leader is asked at most so often, however many wait for its answer.
const PACE: Duration = Duration::from_millis(5);

/// What stands last in a thread.
#[derive(Debug, Clone, Default)]
pub struct NewestEntry {
    pub last: Option<LogRecord>,
    /// Of its control entries; 0: the log has none.
    pub control: MsgId,
    /// Whatever was acknowledged before the question was asked is in this answer.
    pub certain: bool,
    /// Its partition's log was read up to here.
    pub up_to: MsgId,
}

/// How far each partition's log was, by its leader, and when that was asked.
#[derive(Clone)]
pub(super) struct LeaderEnds(Arc<[Mutex<AskedEnd>]>);

type AskedEnd = Option<(Instant, MsgId)>;

impl LeaderEnds {
    pub fn new(partitions: u32) -> Self {
        Self((0..partitions).map(|_| Mutex::default()).collect())
    }
}

impl LeaderReader {
    /// In the order of the question.
    pub async fn newest_of(&self, threads: &[Thread]) -> Result<Vec<NewestEntry>, LogError> {
        let mut newest = vec![NewestEntry::default(); threads.len()];
        let read = self.by_partition(threads).into_iter().map(|(p, part)| self.newest_in(p, part, threads));
        for (part, found, certain, up_to) in try_join_all(read).await? {
            for at in part {
                let of = found.get(&threads[at]).cloned().unwrap_or_default();
                newest[at] = NewestEntry { certain, up_to, ..of };
            }
        }
        Ok(newest)
    }

    /// The places of these threads in the question, at most as many as a request takes.
    pub(super) fn by_partition(&self, threads: &[Thread]) -> Vec<(u32, Vec<usize>)> {
        let mut parts = std::collections::BTreeMap::<u32, Vec<usize>>::new();
        for (at, thread) in threads.iter().enumerate() {
            parts.entry(self.layout.partition(thread)).or_default().push(at);
        }
        let cut = |(p, all): (u32, Vec<usize>)| all.chunks(THREADS).map(|part| (p, part.to_vec())).collect::<Vec<_>>();
        parts.into_iter().flat_map(cut).collect()
    }

    async fn newest_in(
        &self,
        p: u32,
        part: Vec<usize>,
        threads: &[Thread],
    ) -> Result<(Vec<usize>, HashMap<Thread, NewestEntry>, bool, MsgId), LogError> {
        let subjects: Vec<String> = part.iter().flat_map(|at| self.subjects(&threads[*at])).collect();
        // One after the other: while others write, an end that was asked later would be beyond any answer.
        let end = self.end_since(p, Instant::now()).await?;
        let (records, up_to) = self.multi_last(p, &subjects).await?;
        let mut found: HashMap<Thread, NewestEntry> = HashMap::with_capacity(part.len());
        for record in records {
            let of = found.entry(record.thread.clone()).or_default();
            if record.control {
                of.control = record.id;
            }
            if of.last.as_ref().is_none_or(|last| last.id < record.id) {
                of.last = Some(record);
            }
        }
        let up_to = up_to.map_or(MsgId::NONE, MsgId);
        Ok((part, found, up_to >= end, up_to))
    }

    /// How far the log is by its leader, asked at or after this moment. All who wait share an answer.
    async fn end_since(&self, p: u32, since: Instant) -> Result<MsgId, LogError> {
        let Some(end) = self.ends.0.get(p as usize) else { return Err(LogError::NoStream(p)) };
        let mut end = end.lock().await;
        if let Some((asked, last)) = *end {
            if asked >= since {
                return Ok(last);
            }
            sleep_until(asked + PACE).await;
        }
        let asked = Instant::now();
        let last = self.bounds(p).await?.last;
        *end = Some((asked, last));
        Ok(last)
    }
}
