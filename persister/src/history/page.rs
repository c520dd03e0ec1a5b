//! Cutting a page out of a thread as its reader may see it. Pure but for the reading, which is behind a seam: tests cut
//! from a list.

use natterjack_protocol::{Most, MsgId, client::frame::Page, internal::rpc::PageStart, limits};

use super::{HistoryError, chained, page_source::PageSource, reader::Reader};
use crate::store::{ArchiveStore, Order, Row};

/// A thread to cut pages from.
pub(super) trait Rows {
    /// Rows with `lo <= id < hi`, at most `most`, in order, from the end that `order` names, and whether there may be
    /// more.
    async fn rows(&self, lo: MsgId, hi: MsgId, order: Order, most: Most) -> Result<(Vec<Row>, bool), HistoryError>;
    async fn id_at(&self, ts: u64) -> Result<Option<MsgId>, HistoryError>;
    /// Ids (first, last) that cannot be read now.
    fn hole(&self) -> Option<(MsgId, MsgId)>;
}

impl<S: ArchiveStore> Rows for PageSource<'_, S> {
    async fn rows(&self, lo: MsgId, hi: MsgId, order: Order, most: Most) -> Result<(Vec<Row>, bool), HistoryError> {
        PageSource::rows(self, lo, hi, order, most).await
    }

    async fn id_at(&self, ts: u64) -> Result<Option<MsgId>, HistoryError> {
        PageSource::id_at(self, ts).await
    }

    fn hole(&self) -> Option<(MsgId, MsgId)> {
        PageSource::hole(self)
    }
}

/// Rows with `lo <= id < hi` that the reader may see, at most `most`, from the end that `order` names.
pub(super) async fn visible(
    rows: &impl Rows,
    reader: &Reader,
    (lo, hi): (MsgId, MsgId),
    order: Order,
    most: Most,
) -> Result<Vec<Row>, HistoryError> {
    let mut seen = Vec::new();
    for (mut from, mut to) in reader.parts(lo, hi, order) {
        while !most.full(&seen) && from < to {
            let (got, more) = rows.rows(from, to, order, most.beside(&seen)).await?;
            let Some(edge) = got.last().map(|r| r.id).filter(|_| more) else {
                from = to;
                seen.extend(got.into_iter().filter(|r| reader.sees(r)));
                continue;
            };
            seen.extend(got.into_iter().filter(|r| reader.sees(r)));
            match order {
                Order::OldestFirst => from = edge.next(),
                Order::NewestFirst => to = edge,
            }
        }
    }
    // An edit may have made one of them larger.
    most.keep_first(&mut seen);
    Ok(seen)
}

pub(super) async fn cut(rows: &impl Rows, reader: &Reader, at: PageStart, limit: usize) -> Result<Page, HistoryError> {
    let hole = rows.hole();
    let beyond_reach = |id: MsgId| reader.hidden(hole, id, id.next()).is_some();
    let most = Most { count: limit, bytes: limits::PAGE_BYTES };
    let down = async |hi: MsgId, most: Most| {
        let mut newest = visible(rows, reader, (MsgId::NONE, hi), Order::NewestFirst, most).await?;
        newest.reverse();
        Ok::<_, HistoryError>(newest)
    };
    let up = async |lo: MsgId, most: Most| visible(rows, reader, (lo, MsgId::MAX), Order::OldestFirst, most).await;

    // `lo..hi` is what the page speaks for where it has no event at its end.
    let (mut events, lo, hi) = match at {
        PageStart::Newest => (down(MsgId::MAX, most).await?, MsgId::NONE, MsgId::MAX),
        PageStart::Before(id) => (down(id, most).await?, MsgId::NONE, id),
        PageStart::After(id) => (up(id.next(), most).await?, id.next(), MsgId::MAX),
        PageStart::Around(id) => {
            if beyond_reach(id) {
                return Err(HistoryError::OutOfReach);
            }
            let newer = up(id.next(), Most { count: limit / 2, bytes: limits::PAGE_BYTES / 2 }).await?;
            // The event itself is among them, however large the newer ones are.
            let left = most.beside(&newer);
            let mut events = down(id.next(), Most { bytes: left.bytes.max(1), ..left }).await?;
            events.extend(newer);
            (events, MsgId::NONE, MsgId::MAX)
        }
        PageStart::Time(ts) => {
            let first = rows.id_at(ts).await?;
            let from = first.unwrap_or(MsgId::MAX);
            // With a hole below the first one found, an earlier one may be in it.
            if reader.hidden(hole, MsgId::NONE, from).is_some() && !below_is_known_older(rows, from, ts, hole).await? {
                return Err(HistoryError::OutOfReach);
            }
            (if first.is_some() { up(from, most).await? } else { Vec::new() }, from, MsgId::MAX)
        }
    };
    let upwards = matches!(at, PageStart::After(_) | PageStart::Time(_));
    let full = most.full(&events);
    let first = events.first().map(|r| r.id);
    let last = events.last().map(|r| r.id);

    // What is between the page's own bounds and was not readable.
    let speaks_from = if upwards || !full { lo.min(first.unwrap_or(lo)) } else { first.unwrap_or(lo) };
    let speaks_to = if upwards && !full { MsgId::MAX } else { last.map_or(hi, MsgId::next) };
    let inside = reader.hidden(hole, speaks_from, speaks_to);
    let mut holes: Vec<(MsgId, MsgId)> =
        events.iter().filter(|r| r.unchecked).map(|r| (r.id, r.id)).chain(inside).collect();
    holes.sort_unstable();
    events.retain(|r| !r.unchecked);
    if events.is_empty() && !holes.is_empty() && !upwards {
        return Err(HistoryError::OutOfReach);
    }

    let below = first.unwrap_or(match at {
        PageStart::Newest => MsgId::MAX,
        PageStart::Before(id) => id,
        PageStart::After(id) | PageStart::Around(id) => id.next(),
        PageStart::Time(_) => lo,
    });
    let prev = prev_of(rows, reader, below, None).await?;
    let above = last.unwrap_or(MsgId(below.0.saturating_sub(1)));
    let more = !matches!(at, PageStart::Newest) && !up(above.next(), Most::count(1)).await?.is_empty();
    Ok(Page { r: None, thread: None, events: chained(events, prev), prev, more, holes })
}

/// What comes before `below` for this reader; with a hole between them, the newest id that may be there. `known`: it
/// was read already.
pub(super) async fn prev_of(
    rows: &impl Rows,
    reader: &Reader,
    below: MsgId,
    known: Option<MsgId>,
) -> Result<MsgId, HistoryError> {
    let prev = match known {
        Some(prev) => prev,
        None => {
            let newest = visible(rows, reader, (MsgId::NONE, below), Order::NewestFirst, Most::count(1)).await?;
            newest.first().map_or(MsgId::NONE, |r| r.id)
        }
    };
    Ok(reader.hidden(rows.hole(), prev.next(), below).map_or(prev, |(_, to)| to))
}

/// Is there, at or above the hole, something older than `ts` before `from`? Then nothing in the hole can be the first
/// at or after it.
async fn below_is_known_older(
    rows: &impl Rows,
    from: MsgId,
    ts: u64,
    hole: Option<(MsgId, MsgId)>,
) -> Result<bool, HistoryError> {
    let Some((_, last)) = hole else { return Ok(true) };
    let (before, _) = rows.rows(last.next(), from, Order::NewestFirst, Most::count(1)).await?;
    Ok(before.first().is_some_and(|r| r.ts < ts))
}

#[cfg(test)]
mod tests;
