//! The newest ids and the newest events of many threads: for attach, and for the thread list.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use natterjack_protocol::{
    Event, Most, MsgId, Thread, UserId,
    internal::rpc::{LastEntry, ReadAccess},
    limits, size,
};

use super::{
    HistoryError, View,
    page::{prev_of, visible},
    page_source::PageSource,
    reader::Reader,
};
use crate::store::{ArchiveError, ArchiveStore, Order, Row, overlay};

/// Threads looked at side by side.
const SIDE_BY_SIDE: usize = 16;
/// Reactions and edits that are passed over on the way to a message: beyond that many the list shows none.
const LOOK_BACK: usize = 100;

impl<S: ArchiveStore> View<S> {
    /// The newest entry of each thread. With the archive away a thread that is not in the log gets the last id the log
    /// has lost: an upper bound, so that whoever has less asks for a page, and is told of the hole.
    pub(super) async fn last_entries(&self, threads: Vec<Thread>) -> Result<Vec<LastEntry>, HistoryError> {
        let in_log = self.log.last_entries(&threads).await?;
        match self.store.last_entries(&threads).await {
            Ok(archived) => {
                let lost = self.store.lost().await?;
                let last = in_log.into_iter().zip(archived).map(|(a, b)| if a.id >= b.id { a } else { b });
                // Whoever has less is told; by time the thread is as old as it was.
                let told = |(entry, thread): (LastEntry, &Thread)| {
                    let mark = lost.iter().filter(|l| l.concerns(thread)).map(|l| l.last).max();
                    LastEntry { id: mark.map_or(entry.id, |mark| mark.max(entry.id)), ..entry }
                };
                Ok(last.zip(&threads).map(told).collect())
            }
            Err(ArchiveError::Unavailable(_)) => {
                let mut below: HashMap<(u32, Option<u32>), LastEntry> = HashMap::new();
                let mut last = Vec::with_capacity(threads.len());
                for (thread, entry) in threads.iter().zip(in_log) {
                    let p = (self.layout.partition(thread), self.layout.previous().map(|l| l.partition(thread)));
                    if entry.id.is_none() && !below.contains_key(&p) {
                        let bounds = self.bounds(thread).await?;
                        below.insert(
                            p,
                            LastEntry { id: MsgId(bounds.first.0.saturating_sub(1)), ts: bounds.first_ts_ms },
                        );
                    }
                    last.push(if entry.id.is_none() { below.get(&p).copied().unwrap_or_default() } else { entry });
                }
                Ok(last)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The newest message or change of each thread that the reader may see, of the first threads, as many as fit into
    /// an answer: at least of one. With the archive away: as far as the log knows.
    pub(super) async fn latest(
        &self,
        reader: UserId,
        threads: Vec<(Thread, ReadAccess)>,
    ) -> Result<Vec<Option<Event>>, HistoryError> {
        let looks = threads.into_iter().map(|(thread, access)| {
            let mut reader = Reader { user: reader.clone(), intervals: access.intervals };
            async move {
                let _place = self.places.acquire().await;
                let newest = self.latest_of(&thread, &reader).await?;
                if reader.ended(&self.log, &thread, access.v).await? {
                    self.latest_of(&thread, &reader).await
                } else {
                    Ok(newest)
                }
            }
        });
        let mut looks = stream::iter(looks).buffered(SIDE_BY_SIDE);
        let (mut found, mut bytes) = (Vec::new(), 0);
        while bytes < limits::ANSWER_BYTES
            && let Some(event) = looks.next().await
        {
            let event = event?;
            bytes += size::json(&event);
            found.push(event);
        }
        Ok(found)
    }

    async fn latest_of(&self, thread: &Thread, reader: &Reader) -> Result<Option<Event>, HistoryError> {
        let source = PageSource::open_unmarked(self, thread).await?;
        let found = match newest(&source, reader).await {
            Err(HistoryError::Store(ArchiveError::Unavailable(_))) => {
                newest(&PageSource::open_log_only(self, thread, MsgId::NONE).await?, reader).await?
            }
            // One thread that cannot be checked now does not take the list from anybody.
            Err(HistoryError::OutOfReach) => None,
            found => found?,
        };
        Ok(found.filter(|(r, _)| !r.unchecked).map(|(r, prev)| r.into_event(prev)))
    }
}

/// And its `prev`, as in a page that begins with it.
async fn newest<S: ArchiveStore>(
    source: &PageSource<'_, S>,
    reader: &Reader,
) -> Result<Option<(Row, MsgId)>, HistoryError> {
    let shown = |r: &Row| r.kind.is_message() || r.kind.is_control() || overlay::is_recalled(r);
    // Most often the newest entry is it, and the one below is its `prev`.
    let (mut hi, mut want, mut left) = (MsgId::MAX, 2, 1 + LOOK_BACK);
    while left > 0 {
        let most = Most { count: want, bytes: limits::PAGE_BYTES };
        let mut rows = visible(source, reader, (MsgId::NONE, hi), Order::NewestFirst, most).await?;
        let Some(oldest) = rows.last().map(|r| r.id) else { return Ok(None) };
        (hi, left) = (oldest, left - rows.len());
        want = left;
        if let Some(at) = rows.iter().position(shown) {
            let prev = prev_of(source, reader, rows[at].id, rows.get(at + 1).map(|r| r.id)).await?;
            return Ok(Some((rows.swap_remove(at), prev)));
        }
    }
    Ok(None)
}
