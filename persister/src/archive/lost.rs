//! What the log cannot give any more (beside step 7): entries that aged out before they were archived, and the end that
//! a log lost. It is written down before the watermark moves over it, so every reader is told, and it stays told.
//!
//! A generation that lost its end is over (ADR 11). What was stored in it afterwards, until that was found, may stand
//! under ids that the archive has for something else: then it is archived under ids that were never given, below the
//! first of the next generation.

use std::collections::HashMap;

use natterjack_nats::{Layout, LogBounds, LogReader, LostEnds, Nats, Position, ReadError, ReadFrom};
use natterjack_protocol::{MsgId, Thread};

use super::{BATCH_BYTES, PartitionArchive};
use crate::{
    batch,
    store::{ArchiveStore, LostRange, Order, PartitionKey, Row},
};

/// How the generation after ours begins.
#[derive(Debug, Clone, Copy)]
struct Next {
    origin: MsgId,
    made_ms: u64,
}

impl<S: ArchiveStore> PartitionArchive<'_, S> {
    /// An error: the log does not have what is archived from it, or the archive knows of more than this log ever had.
    pub(super) async fn compare(&self, position: Position) -> Result<(), ReadError> {
        let (tail, p, generation) = (self.at.tail(), self.at.p, self.at.layout.generation);
        let lost = self.writer.until_it_works("compare the end of the log", || tail.lost_its_end(p, position)).await;
        let log = self.bounds().await;
        let known = self.writer.until_it_works("read the watermarks", || self.store.positions()).await;
        let beyond = |(key, at): &(PartitionKey, Position)| {
            key.generation > generation || (key.generation < generation && at.id >= log.origin)
        };
        match known.iter().filter(|known| beyond(known)).map(|(_, at)| at.id).max() {
            // An older copy of the whole log, layout and all.
            Some(read) if !log.over => Err(ReadError::LostEnd { p, read }),
            _ if lost => Err(ReadError::LostEnd { p, read: position.id }),
            _ => Ok(()),
        }
    }

    /// For ever, and durably.
    pub(super) async fn lose(&self, (first, last): (MsgId, MsgId), (since, until): (u64, u64)) {
        let key = self.key;
        tracing::error!(
            partition = key.partition,
            generation = key.generation,
            %first,
            %last,
            "the log no longer has what was not archived: messages of any thread of this partition may be lost for \
             ever; readers are told"
        );
        metrics::counter!(crate::metrics::HOLES).increment(1);
        metrics::counter!(crate::metrics::LOST_IDS).increment(last.0 - first.0 + 1);
        let lost =
            LostRange { key, partitions: self.at.layout.partitions, first, last, since, until: until.max(since) };
        self.writer.until_it_works("write down what is lost", || self.store.lose(lost)).await;
    }

    /// What had aged out before this persister came. The watermark moves over it.
    pub(super) async fn skip_what_is_lost(&self, position: Position) -> Position {
        let log = self.bounds().await;
        // A stream that had to be made anew begins above what was archived of the one before it.
        let from = if position.id.is_none() { log.origin } else { position.id.next() };
        if from >= log.first {
            return position;
        }
        let until = if log.entries > 0 { log.first_ts_ms } else { log.ts_ms };
        let last = MsgId(log.first.0 - 1);
        self.lose((from, last), (position.ts, until)).await;
        let to = Position { id: last, ts: position.ts };
        self.writer.until_it_works("move the watermark", || self.store.advance(self.key, to)).await;
        to
    }

    /// Is the generation over, and was all of it read?
    pub(super) async fn is_over(&self, position: Position) -> bool {
        let log = self.bounds().await;
        log.over && position.id >= log.last
    }

    /// The generation is over and archived to its end mark. If it lost its end, what is left to do: what was stored
    /// afterwards under ids that the archive has for something else, and the mark for readers. Returns where the
    /// watermark stands.
    pub(super) async fn end(&self, position: Position) -> Result<Position, ReadError> {
        let (log, p) = (self.bounds().await, self.at.p);
        let notes = LostEnds::new(&self.at.nats, self.at.layout);
        let noted = self.writer.until_it_works("read whether the log lost its end", || notes.of(p)).await;
        if noted.is_none() && position.id <= log.last {
            return Ok(position);
        }
        let next = self.next().await;
        let whole = Position { id: MsgId(next.origin.0 - 1), ts: position.ts };
        if position.id >= whole.id {
            return Ok(position);
        }
        if position.id > log.last {
            self.archive_anew(position, log, next).await?;
        }
        // Ids from here on may have been taken by what was stored after the loss.
        let free = log.last.0.saturating_sub(log.first.0) + 2;
        let (first, last) = (position.id.max(log.last).next(), MsgId(next.origin.0.saturating_sub(free)));
        if first <= last {
            self.lose((first, last), (position.ts, next.made_ms)).await;
        }
        self.writer.until_it_works("move the watermark", || self.store.advance(self.key, whole)).await;
        Ok(whole)
    }

    async fn next(&self) -> Next {
        let bounds = self.bounds_of(next_generation(&self.at.nats, self.at.layout).await, 0).await;
        Next { origin: bounds.origin, made_ms: bounds.created_ms }
    }

    /// All that the log has, once more, up to its end mark. Repeated from the beginning it does the same.
    async fn archive_anew(&self, archived: Position, log: LogBounds, next: Next) -> Result<(), ReadError> {
        let before = MsgId(log.first.0.saturating_sub(1));
        let mut reader = LogReader::fetching(&self.at.nats, self.at.layout, self.at.p, ReadFrom::After(before));
        let mut moved = Moved { below: next.origin, end: log.last, ids: HashMap::new() };
        while reader.position() < log.last {
            let records = reader.fetch(BATCH_BYTES).await?.records;
            let hidden = self.writer.copies(&records, &self.history.current()).await;
            let sorted = batch::sort(self.key, Position { id: before, ts: archived.ts }, records, &hidden);
            for (thread, rows) in sorted.threads {
                let rows = self.not_archived(&thread, rows, &mut moved).await;
                if !rows.is_empty() {
                    self.writer.write_thread(thread, rows).await;
                }
            }
        }
        if !moved.ids.is_empty() {
            tracing::warn!(
                partition = self.at.p,
                entries = moved.ids.len(),
                "archived under new ids: their own were given before"
            );
        }
        Ok(())
    }

    /// Those that the archive does not have. From the first one that is not newer than what the thread has there, or
    /// stands under an id of something else, they get new ids, in the same order.
    async fn not_archived(&self, thread: &Thread, rows: Vec<Row>, moved: &mut Moved) -> Vec<Row> {
        let (Some(first), Some(last)) = (rows.first().map(|r| r.id), rows.last().map(|r| r.id)) else { return rows };
        let (store, writer) = (self.store, &self.writer);
        let all = natterjack_protocol::Most::count(usize::MAX);
        let read = || store.rows(thread, first, last.next(), Order::OldestFirst, all);
        let there: HashMap<MsgId, Row> =
            writer.until_it_works("read what is archived", read).await.into_iter().map(|r| (r.id, r)).collect();
        let newest =
            writer.until_it_works("read what is archived", || store.last_entries(std::slice::from_ref(thread))).await;
        let mut newest = newest.first().map_or(MsgId::NONE, |e| e.id);
        let mut kept = Vec::new();
        for row in rows {
            if there.get(&row.id).is_some_and(|other| (other.cid, &other.from) == (row.cid, &row.from)) {
                continue;
            }
            let row = if row.id <= newest { moved.row(row) } else { moved.targets(row) };
            newest = newest.max(row.id);
            kept.push(row);
        }
        kept
    }
}

/// The one right behind `layout`. Waits until there is one.
pub(super) async fn next_generation(nats: &Nats, layout: Layout) -> Layout {
    let newest = layout.next_generation(nats).await;
    newest.previous().filter(|before| before.generation > layout.generation).unwrap_or(newest)
}

/// New ids: as far below the next generation's first as the old ones are below the end mark.
struct Moved {
    below: MsgId,
    end: MsgId,
    ids: HashMap<(Thread, MsgId), MsgId>,
}

impl Moved {
    fn id(&self, id: MsgId) -> MsgId {
        MsgId(self.below.0 - 1 - (self.end.0 - id.0))
    }

    fn row(&mut self, row: Row) -> Row {
        let id = self.id(row.id);
        let row = self.targets(row);
        self.ids.insert((row.thread.clone(), row.id), id);
        Row { id, ..row }
    }

    /// What was written about a message that has a new id.
    fn targets(&self, mut row: Row) -> Row {
        for id in [&mut row.body.target, &mut row.body.reply_to].into_iter().flatten() {
            if let Some(new) = self.ids.get(&(row.thread.clone(), *id)) {
                *id = *new;
            }
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{edit, text, thread};

    #[test]
    fn new_ids_keep_the_order_and_stay_below_the_next_generation() {
        let t = thread("t");
        let mut moved = Moved { below: MsgId(1_000), end: MsgId(20), ids: HashMap::new() };
        let ids = [17, 18, 19].map(|id| moved.row(text(&t, id, "a", "x")).id.0);
        assert_eq!(ids, [996, 997, 998], "999 is the end mark's");
        assert_eq!(moved.row(edit(&t, 19, "a", 18, "y")).body.target, Some(MsgId(997)), "an edit follows its message");
        assert_eq!(moved.targets(edit(&thread("u"), 19, "a", 18, "y")).body.target, Some(MsgId(18)));
    }
}
