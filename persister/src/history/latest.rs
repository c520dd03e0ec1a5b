//! The newest ids and the newest events of many threads: for attach, and for the thread list.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use natterjack_protocol::{
    Most, MsgId, Thread, UserId,
    internal::rpc::{AskedThread, LastEntry, LatestOf},
    limits,
    size::{self, Size},
};

use super::{
    HistoryError, View,
    page::{Rows, visible},
    page_source::PageSource,
    reader::Reader,
    tails::{ABOUT, TAIL_ROWS, ThreadTail, is_shown, preview},
};
use crate::store::{ArchiveError, ArchiveStore, Order, Row};

/// Threads looked at side by side.
const SIDE_BY_SIDE: usize = 16;
/// Reactions and edits that are passed over on the way to a message, and how many at a time: beyond so many the list
/// shows the newest of them.
const LOOK_BACK: usize = 1_000;
const LOOK_BACK_STEP: usize = 100;
/// Entries behind what was read that are looked at for messages of others: what lies below so many reactions, edits and
/// own messages is not counted.
const UNREAD_LOOK: usize = 1_000;
/// Of these entries, as much: a list of 200 threads may not read hundreds of megabytes to count.
const UNREAD_BYTES: usize = limits::PAGE_BYTES;

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

    /// The newest message or change of each thread that the reader may see, and what of it they have not read, of the
    /// first threads, as many as fit into an answer: at least of one. With the archive away: as far as the log knows.
    pub(super) async fn latest(
        &self,
        reader: UserId,
        threads: Vec<AskedThread>,
    ) -> Result<Vec<LatestOf>, HistoryError> {
        let tails = self.known_tails(&threads).await;
        let looks = threads.into_iter().zip(tails).map(|(AskedThread { thread, access, read, .. }, tail)| {
            let control = tail.as_ref().and_then(|known| known.control);
            let known = tail.and_then(|known| {
                let latest = known.tail.latest_of(&reader, &access.intervals, read)?;
                Some((latest, known.tail.size))
            });
            let mut reader = Reader { user: reader.clone(), intervals: access.intervals };
            async move {
                // Of control entries that the asker does not know one may have ended the membership.
                if let Some((latest, size)) = known
                    && (control.is_some_and(|id| id <= access.v) || !reader.ended(&self.log, &thread, access.v).await?)
                {
                    return Ok::<_, HistoryError>((LatestOf { control, ..latest }, size));
                }
                let _place = self.places.acquire().await;
                let mut latest = self.latest_of(&thread, &reader, read).await?;
                if reader.ended(&self.log, &thread, access.v).await? {
                    latest = self.latest_of(&thread, &reader, read).await?;
                }
                let size = ABOUT + size::json(&latest.last);
                Ok((LatestOf { control, ..latest }, size))
            }
        });
        let mut looks = stream::iter(looks).buffered(SIDE_BY_SIDE);
        let (mut found, mut bytes) = (Vec::new(), 0);
        while bytes < limits::ANSWER_BYTES
            && let Some(latest) = looks.next().await
        {
            let (latest, size) = latest?;
            bytes += size;
            found.push(latest);
        }
        Ok(found)
    }

    async fn latest_of(&self, thread: &Thread, reader: &Reader, read: Option<MsgId>) -> Result<LatestOf, HistoryError> {
        let source = PageSource::open_unmarked(self, thread).await?;
        match self.look(&source, reader, read).await {
            Err(HistoryError::Store(ArchiveError::Unavailable(_))) => {
                self.look(&PageSource::open_log_only(self, thread, MsgId::NONE).await?, reader, read).await
            }
            // One thread that cannot be checked now does not take the list from anybody.
            Err(HistoryError::OutOfReach) => Ok(LatestOf::default()),
            latest => latest,
        }
    }

    async fn look(
        &self,
        source: &PageSource<'_, S>,
        reader: &Reader,
        read: Option<MsgId>,
    ) -> Result<LatestOf, HistoryError> {
        if source.hole().is_none()
            && let Some(latest) = self.look_at_tail(source, reader, read).await?
        {
            return Ok(latest);
        }
        // What cannot be read now may have unread messages in it.
        let read = read.filter(|read| reader.hidden(source.hole(), read.next(), MsgId::MAX).is_none());
        let Some(Newest { row, newest }) = newest(source, reader).await? else {
            return Ok(LatestOf { unread: read.map(|_| 0), ..LatestOf::default() });
        };
        if row.unchecked {
            return Ok(LatestOf { newest, ..LatestOf::default() });
        }
        let unread = match read {
            // In most threads there is nothing that was not read.
            Some(read) if row.id <= read => Some(0),
            Some(read) => unread(source, reader, read).await?,
            None => None,
        };
        let (last, cut) = preview(row);
        Ok(LatestOf { last: Some(last), cut, newest, unread, control: None })
    }

    /// From the end of the thread, which others may ask for, too.
    async fn look_at_tail(
        &self,
        source: &PageSource<'_, S>,
        reader: &Reader,
        read: Option<MsgId>,
    ) -> Result<Option<LatestOf>, HistoryError> {
        for count in TAIL_ROWS {
            let most = Most { count, bytes: UNREAD_BYTES };
            let (rows, more) = source.rows(MsgId::NONE, MsgId::MAX, Order::NewestFirst, most).await?;
            let Some(tail) = ThreadTail::of(rows, !more) else { continue };
            let latest = tail.latest_of(&reader.user, &reader.intervals, read);
            self.tails.keep(source.thread, tail);
            if latest.is_some() {
                return Ok(latest);
            }
        }
        Ok(None)
    }
}

/// Messages of others behind `read`, counted from the newest one down. None: what became of one of them is not known.
async fn unread(rows: &impl Rows, reader: &Reader, read: MsgId) -> Result<Option<u8>, HistoryError> {
    let (mut hi, mut left, mut bytes, mut count) = (MsgId::MAX, UNREAD_LOOK, UNREAD_BYTES, 0);
    while left > 0 && bytes > 0 {
        let most = Most { count: left.min(usize::from(limits::UNREAD_MAX)), bytes };
        let seen = visible(rows, reader, (read.next(), hi), Order::NewestFirst, most).await?;
        let Some(oldest) = seen.last() else { break };
        if seen.iter().any(|r| r.unchecked) {
            return Ok(None);
        }
        let read = seen.iter().map(Size::size).sum();
        (hi, left, bytes) = (oldest.id, left.saturating_sub(seen.len()), bytes.saturating_sub(read));
        let of_others = seen.iter().filter(|r| r.kind.is_message() && r.from != reader.user).count();
        count = usize::from(limits::UNREAD_MAX).min(count + of_others);
        if count == usize::from(limits::UNREAD_MAX) {
            break;
        }
    }
    Ok(Some(u8::try_from(count).unwrap_or(limits::UNREAD_MAX)))
}

/// What the list shows of a thread.
struct Newest {
    row: Row,
    /// Of what the reader may see, whatever it is.
    newest: LastEntry,
}

async fn newest<S: ArchiveStore>(source: &PageSource<'_, S>, reader: &Reader) -> Result<Option<Newest>, HistoryError> {
    let (mut hi, mut left, mut first) = (MsgId::MAX, LOOK_BACK, None);
    while left > 0 {
        let most = Most { count: LOOK_BACK_STEP, bytes: limits::PAGE_BYTES };
        let mut rows = visible(source, reader, (MsgId::NONE, hi), Order::NewestFirst, most).await?;
        let Some(oldest) = rows.last().map(|r| r.id) else { break };
        (hi, left) = (oldest, left.saturating_sub(rows.len()));
        let newest = first.as_ref().map_or(LastEntry { id: rows[0].id, ts: rows[0].ts }, |first: &Newest| first.newest);
        if let Some(at) = rows.iter().position(is_shown) {
            return Ok(Some(Newest { row: rows.swap_remove(at), newest }));
        }
        if first.is_none() {
            first = Some(Newest { row: rows.swap_remove(0), newest });
        }
    }
    Ok(first)
}
