//! The log as one, over its generation and the one before: for history (its part above the archive) and for judging
//! control entries.
//!
//! Every id of the former generation is below every id of this one and no more are added, so a thread is its part of
//! the one followed by its part of the other.

use std::sync::Arc;

use natterjack_protocol::{Most, MsgId, Thread, internal::rpc::LastEntry};
use tokio::sync::OnceCell;

use crate::{
    layout::Layout,
    leader_read::{LeaderReader, LogBounds, LogError, LogRecord, NewestEntry},
    wire::client::Nats,
};

#[derive(Clone)]
pub struct ThreadLog {
    layout: Layout,
    now: LeaderReader,
    former: Option<Former>,
}

#[derive(Clone)]
struct Former {
    layout: Layout,
    tail: LeaderReader,
    /// The last id of each partition. It does not change any more.
    ends: Arc<Vec<OnceCell<MsgId>>>,
}

impl Former {
    async fn end(&self, thread: &Thread) -> Result<MsgId, LogError> {
        let p = self.layout.partition(thread);
        let Some(end) = self.ends.get(p as usize) else { return Err(LogError::NoStream(p)) };
        end.get_or_try_init(|| async { Ok(self.tail.bounds(p).await?.last) }).await.copied()
    }
}

impl ThreadLog {
    pub fn new(nats: &Nats, layout: Layout) -> Self {
        let former = layout.previous().map(|before| Former {
            layout: before,
            tail: LeaderReader::new(nats, before),
            ends: Arc::new((0..before.partitions).map(|_| OnceCell::new()).collect()),
        });
        Self { layout, now: LeaderReader::new(nats, layout), former }
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The former generation, if it may have something of the thread after this id; with its last id.
    async fn former_after(&self, thread: &Thread, after: MsgId) -> Result<Option<(&Former, MsgId)>, LogError> {
        let Some(former) = &self.former else { return Ok(None) };
        let end = former.end(thread).await?;
        Ok((after < end).then_some((former, end)))
    }

    /// The last id of the thread's partition in the former generation, if there is one.
    pub async fn former_end(&self, thread: &Thread) -> Result<Option<MsgId>, LogError> {
        match &self.former {
            Some(former) => former.end(thread).await.map(Some),
            None => Ok(None),
        }
    }

    /// Is this generation over? Then there may be a newer layout, which has to be asked for.
    pub async fn is_over(&self, thread: &Thread) -> Result<bool, LogError> {
        Ok(self.now.bounds(self.layout.partition(thread)).await?.over)
    }

    /// The thread's newest entry, message or control, by the leader.
    pub async fn last(&self, thread: &Thread) -> Result<Option<LogRecord>, LogError> {
        match (self.now.last(thread).await?, &self.former) {
            (None, Some(former)) => former.tail.last(thread).await,
            (last, _) => Ok(last),
        }
    }

    /// The thread's newest control entry, by the leader, and the id by which the next one is guarded: of the newest in
    /// the stream it will be stored in, 0 if that has none.
    pub async fn last_control(&self, thread: &Thread) -> Result<(Option<LogRecord>, MsgId), LogError> {
        match (self.now.last_control(thread).await?, &self.former) {
            (None, Some(former)) => Ok((former.tail.last_control(thread).await?, MsgId::NONE)),
            (last, _) => {
                let guard = last.as_ref().map_or(MsgId::NONE, |r| r.id);
                Ok((last, guard))
            }
        }
    }

    /// The thread's first control entry after this id.
    pub async fn next_control(&self, thread: &Thread, after: MsgId) -> Result<Option<LogRecord>, LogError> {
        if let Some((former, _)) = self.former_after(thread, after).await?
            && let Some(found) = former.tail.next_control(thread, after).await?
        {
            return Ok(Some(found));
        }
        self.now.next_control(thread, after).await
    }

    /// Entries with `after` < id <= `upto`, oldest first, at most `most`. Nothing that was acknowledged is missing.
    pub async fn after(
        &self,
        thread: &Thread,
        after: MsgId,
        upto: MsgId,
        most: Most,
    ) -> Result<Vec<LogRecord>, LogError> {
        let Some((former, end)) = self.former_after(thread, after).await? else {
            return self.now.after(thread, after, upto, most).await;
        };
        let mut got = former.tail.after(thread, after, upto.min(end), most).await?;
        if !most.full(&got) && upto > end {
            got.extend(self.now.after(thread, end, upto, most.beside(&got)).await?);
        }
        Ok(got)
    }

    /// The newest entries with id > `above`, at most `most`, oldest first. `now_ms` is the log's clock, or near it.
    pub async fn newest(
        &self,
        thread: &Thread,
        above: MsgId,
        most: Most,
        now_ms: u64,
    ) -> Result<Vec<LogRecord>, LogError> {
        let page = self.now.newest(thread, above, most, now_ms).await?;
        match self.former_after(thread, above).await? {
            Some((former, _)) if !most.full(&page) => {
                let mut all = former.tail.newest(thread, above, most.beside(&page), now_ms).await?;
                all.extend(page);
                Ok(all)
            }
            _ => Ok(page),
        }
    }

    /// The newest entry of each thread in the log. By Direct Get: may lag by a moment.
    pub async fn last_entries(&self, threads: &[Thread]) -> Result<Vec<LastEntry>, LogError> {
        let mut last = self.now.last_entries(threads).await?;
        if let Some(former) = &self.former {
            let idle: Vec<usize> = (0..last.len()).filter(|i| last[*i].id.is_none()).collect();
            let ask: Vec<Thread> = idle.iter().map(|i| threads[*i].clone()).collect();
            for (i, entry) in idle.into_iter().zip(former.tail.last_entries(&ask).await?) {
                last[i] = entry;
            }
        }
        Ok(last)
    }

    /// Likewise, with the entries, and whether they are the newest for sure.
    pub async fn newest_of(&self, threads: &[Thread]) -> Result<Vec<NewestEntry>, LogError> {
        let mut newest = self.now.newest_of(threads).await?;
        if self.former.is_some() {
            // What is not in this generation may be in the former one.
            newest.iter_mut().for_each(|n| n.certain &= n.last.is_some());
        }
        Ok(newest)
    }

    /// Of the thread's partition in this generation alone.
    pub async fn bounds(&self, thread: &Thread) -> Result<LogBounds, LogError> {
        self.now.bounds(self.layout.partition(thread)).await
    }

    /// Of the thread's partitions in both: everything from `first` on is there.
    pub async fn extent(&self, thread: &Thread) -> Result<LogBounds, LogError> {
        // The older one first: if by then the newer one has begun to expire, nothing of the older one is left.
        let before = match &self.former {
            Some(f) => Some(f.tail.bounds(f.layout.partition(thread)).await?),
            None => None,
        };
        let now = self.bounds(thread).await?;
        Ok(match before {
            Some(before) if now.first <= now.origin => join(before, now),
            _ => now,
        })
    }

    /// The first id, of `from..=to`, that was stored at or after `ts` in the thread's partition; one above `to` if
    /// none was. Ids are dense within a generation and times rise with them (but for the leaders' clocks: ask a little
    /// earlier), so it is found by halving.
    pub async fn first_at(&self, thread: &Thread, from: MsgId, to: MsgId, ts: u64) -> Result<MsgId, LogError> {
        if let Some((former, end)) = self.former_after(thread, MsgId(from.0.saturating_sub(1))).await? {
            let p = former.layout.partition(thread);
            let (first, to) = (former.tail.bounds(p).await?.first, to.min(end));
            let found = first_at(&former.tail, p, from.max(first), to, ts).await?;
            if found <= to {
                return Ok(found);
            }
        }
        let p = self.layout.partition(thread);
        let from = if self.former.is_some() { from.max(self.now.bounds(p).await?.first) } else { from };
        first_at(&self.now, p, from, to, ts).await
    }
}

/// Nothing of `now` has expired yet, so it goes on where `before` ends. Pure.
fn join(before: LogBounds, now: LogBounds) -> LogBounds {
    let first_ts_ms = if before.entries > 0 { before.first_ts_ms } else { now.first_ts_ms };
    LogBounds { first: before.first, origin: before.origin, entries: before.entries + now.entries, first_ts_ms, ..now }
}

async fn first_at(tail: &LeaderReader, p: u32, from: MsgId, to: MsgId, ts: u64) -> Result<MsgId, LogError> {
    let (mut lo, mut hi) = (from.0, (to.0 + 1).max(from.0));
    while lo < hi {
        let middle = lo + (hi - lo) / 2;
        // What cannot be read, or has expired meanwhile, counts as early: it is then looked at, not skipped.
        match tail.get(p, MsgId(middle)).await? {
            Some(r) if r.ts >= ts => hi = middle,
            _ => lo = middle + 1,
        }
    }
    Ok(MsgId(lo))
}
