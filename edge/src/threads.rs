//! The list of a user's threads: pinned ones first, then by what happened last, each with its last visible event. Asked
//! over the socket and over HTTP.

pub mod heard;
pub mod marks;
mod names;
pub mod order;

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use natterjack_nats::calls::history::{last_entries, latest};
use natterjack_protocol::{
    Most, MsgId, Refusal, Thread, UserId,
    client::{frame::ThreadSummary, thread_settings::ThreadSettings},
    internal::{
        cursors::UserCursors,
        rpc::{AskedThread, LastEntry, LatestOf, ReadAccess},
    },
    limits,
    log::fold::ThreadItem,
    size::{self, Size},
};

use self::{
    heard::HeardThreads,
    marks::ListMarks,
    names::GroupNames,
    order::{KeptOrders, Listed, OrderedThread},
};
use crate::{
    cursors::CursorKeeper,
    history::{HistoryClient, invalid_reply},
    people::People,
    sessions::handle::SessionId,
    thread_settings::SettingsKeeper,
};

/// Threads in one question to `history`: at most so many, and a request of at most this size (who has joined a group a
/// hundred times has 3 kB of intervals).
const QUESTION: Most = Most { count: 200, bytes: limits::ANSWER_BYTES };
/// Questions, and group names, asked at once.
const AT_ONCE: usize = 8;
const NAMES_AT_ONCE: usize = 32;
/// Of a summary in JSON besides its last event and a draft: thread, role and a name of 100 characters.
const SUMMARY_BYTES: usize = 1_000;

/// Which part of the list.
#[derive(Debug, Default)]
pub struct ListQuery {
    pub limit: Option<u16>,
    pub before: Option<MsgId>,
    pub since: Option<String>,
    pub archived: bool,
    /// On which session it was asked for: what comes later comes there, too.
    pub session: Option<SessionId>,
}

pub struct ListedThreads {
    pub threads: Vec<ThreadSummary>,
    /// Where the next page begins.
    pub next: Option<MsgId>,
    pub synced: String,
}

#[derive(Clone)]
pub struct ThreadLists {
    history: HistoryClient,
    pub people: People,
    cursors: CursorKeeper,
    pub settings: SettingsKeeper,
    marks: ListMarks,
    heard: HeardThreads,
    names: GroupNames,
    orders: KeptOrders,
}

impl ThreadLists {
    pub fn new(
        history: &HistoryClient,
        people: &People,
        cursors: &CursorKeeper,
        settings: SettingsKeeper,
        (marks, heard): (ListMarks, HeardThreads),
    ) -> Self {
        let (history, people, cursors) = (history.clone(), people.clone(), cursors.clone());
        let names = GroupNames::new(&people);
        Self { history, people, cursors, settings, marks, heard, names, orders: KeptOrders::default() }
    }

    pub async fn page(
        &self,
        reader: &UserId,
        threads: Vec<(Thread, ThreadItem)>,
        query: ListQuery,
    ) -> Result<ListedThreads, Refusal> {
        let limit = page_limit(query.limit)?;
        let synced = self.marks.mark(self.cursors.now_s());
        // A list without what was read is better than none.
        let cursors = self.cursors.load(reader).await.ok();
        let mark = query.since.as_ref().map(|since| self.marks.parse(since));
        let listed = match &mark {
            Some(Some(mark)) => Listed::ChangedSince(mark),
            Some(None) => Listed::All,
            None => Listed::Archived(query.archived),
        };
        let (rows, mut known) = self.rows(reader, threads, cursors.as_ref(), &query, limit).await?;
        let before = query.before.map_or(u64::MAX, |MsgId(key)| key);
        let (keys, mut next) = order::page(&rows, cursors.as_ref(), &listed, before, limit);
        if known.is_empty() {
            let of_page = keys.iter().map(|(_, at)| self.asked(&rows[*at], cursors.as_ref())).collect();
            known = self.latest(reader, query.session, of_page).await?;
        } else {
            known = keys.iter().map(|(_, at)| std::mem::take(&mut known[*at])).collect();
        }
        let drafts = self.settings.drafts(reader, cursors.as_ref()).await;
        let found: Vec<_> = keys
            .iter()
            .zip(known)
            .map(|((_, at), latest)| {
                let row = rows[*at].clone();
                let read = cursors.as_ref().map(|c| c.read(&row.thread));
                let settings = cursors
                    .as_ref()
                    .map(|c| c.settings(&row.thread).shown(c.read(&row.thread), drafts.of(&row.thread)));
                FoundThread { row, latest, read, settings }
            })
            .collect();
        // A page ends with what reaches so many bytes, but not between two with the same key.
        let fitting = Most { count: limit, bytes: limits::PAGE_BYTES }.fitting(found.iter());
        let end = fitting.checked_sub(1).map_or(0, |last| keys.partition_point(|(key, _)| *key >= keys[last].0));
        if end < keys.len() {
            next = keys[..end].last().map(|(key, _)| *key);
        }
        let rows = found.into_iter().take(end).map(|found| found.summary(self.names.clone()));
        let threads = stream::iter(rows.collect::<Vec<_>>()).buffered(NAMES_AT_ONCE).collect().await;
        Ok(ListedThreads { threads, next: next.map(MsgId), synced })
    }

    /// All that has been written until now is read. Returns when that is stored, in how many threads something was not.
    pub async fn read_all(&self, reader: &UserId, threads: Vec<(Thread, ThreadItem)>) -> Result<usize, Refusal> {
        let rows = self.order(reader, threads).await?;
        let newest: Vec<(Thread, MsgId)> = rows.into_iter().map(|row| (row.thread, row.newest.id)).collect();
        // The marks first: where nothing is newer, reading does not take them away.
        self.settings.all_read(reader, &newest).await?;
        self.cursors.read_all(reader, newest).await
    }

    /// All threads of the user, and what is to be said of each if all of them are on the page: then nothing else has to
    /// be asked.
    async fn rows(
        &self,
        reader: &UserId,
        threads: Vec<(Thread, ThreadItem)>,
        cursors: Option<&UserCursors>,
        query: &ListQuery,
        limit: usize,
    ) -> Result<(Arc<Vec<OrderedThread>>, Vec<LatestOf>), Refusal> {
        if let Some(kept) = query.before.and_then(|_| self.orders.get(reader)) {
            return Ok((kept, Vec::new()));
        }
        // A block by somebody else is no conversation.
        let threads: Vec<_> = threads.into_iter().filter(|(_, item)| item.visible()).collect();
        if threads.len() <= limit && query.since.is_none() {
            let mut rows: Vec<_> = threads.into_iter().map(|(thread, item)| row(thread, item)).collect();
            let asked = rows.iter().map(|row| self.asked(row, cursors)).collect();
            let latest = self.latest(reader, query.session, asked).await?;
            rows.iter_mut().zip(&latest).for_each(|(row, latest)| row.newest = latest.newest);
            return Ok((Arc::new(rows), latest));
        }
        let rows = Arc::new(self.order(reader, threads).await?);
        if rows.len() > limit {
            self.orders.keep(reader, rows.clone());
        }
        Ok((rows, Vec::new()))
    }

    /// When each was active last.
    async fn order(&self, reader: &UserId, threads: Vec<(Thread, ThreadItem)>) -> Result<Vec<OrderedThread>, Refusal> {
        let mut rows: Vec<_> =
            threads.into_iter().filter(|(_, i)| i.visible()).map(|(thread, item)| row(thread, item)).collect();
        let names: Vec<Thread> = rows.iter().map(|row| row.thread.clone()).collect();
        let parts: Vec<_> = names.chunks(limits::HEADS_PER_BATCH).map(<[Thread]>::to_vec).collect();
        let ask = |part: Vec<Thread>| async move {
            let count = part.len();
            let last = self.history.ask_in_turn(last_entries(part)).await?;
            if last.len() == count { Ok(last) } else { Err(invalid_reply("not one entry for each thread")) }
        };
        let last: Vec<_> = stream::iter(parts).map(ask).buffered(AT_ONCE).try_collect().await?;
        rows.iter_mut().zip(last.into_iter().flatten()).for_each(|(row, last)| row.newest = last);
        // What stands there last may be no business of the user's, or later than what they may read.
        let hidden = |row: &OrderedThread| {
            let others = row.newest.id == row.item.v && row.item.known_to() != row.item.v;
            !row.newest.id.is_none() && (others || !row.item.intervals.covers(row.newest.id))
        };
        let hidden: Vec<usize> = (0..rows.len()).filter(|at| hidden(&rows[*at])).collect();
        let asked = hidden.iter().map(|at| self.asked(&rows[*at], None)).collect();
        for (at, latest) in hidden.iter().zip(self.latest(reader, None, asked).await?) {
            rows[*at].newest = latest.newest;
        }
        Ok(rows)
    }

    fn asked(&self, row: &OrderedThread, cursors: Option<&UserCursors>) -> AskedThread {
        let read = cursors.map(|c| c.read(&row.thread));
        AskedThread { thread: row.thread.clone(), access: ReadAccess::from(&row.item), read, heard: None }
    }

    /// In the order of the question.
    async fn latest(
        &self,
        reader: &UserId,
        session: Option<SessionId>,
        asked: Vec<AskedThread>,
    ) -> Result<Vec<LatestOf>, Refusal> {
        let asks = questions(asked).into_iter().map(|asked| self.clone().answered(reader.clone(), session, asked));
        let parts: Vec<_> = stream::iter(asks.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// An answer may be of the first threads only.
    async fn answered(
        self,
        reader: UserId,
        session: Option<SessionId>,
        mut asked: Vec<AskedThread>,
    ) -> Result<Vec<LatestOf>, Refusal> {
        let mut rows = Vec::with_capacity(asked.len());
        while !asked.is_empty() {
            if let Some(session) = session {
                self.heard.tell(session, &reader, &mut asked).await;
            }
            let latest = self.history.ask_in_turn(latest(reader.clone(), asked.clone())).await?;
            if !(1..=asked.len()).contains(&latest.len()) {
                return Err(invalid_reply("nothing, or more than was asked for"));
            }
            asked.drain(..latest.len());
            rows.extend(latest);
        }
        Ok(rows)
    }
}

fn row(thread: Thread, item: ThreadItem) -> OrderedThread {
    OrderedThread { thread, item, newest: LastEntry::default() }
}

/// What is known of a thread before its name.
struct FoundThread {
    row: OrderedThread,
    latest: LatestOf,
    read: Option<MsgId>,
    settings: Option<ThreadSettings>,
}

impl Size for FoundThread {
    fn size(&self) -> usize {
        SUMMARY_BYTES + size::json(&self.latest.last) + size::json(&self.settings)
    }
}

impl FoundThread {
    async fn summary(self, names: GroupNames) -> ThreadSummary {
        let OrderedThread { thread, item, .. } = self.row;
        let LatestOf { last, cut, newest, unread, control } = self.latest;
        let name = match &thread {
            // A list without a name is better than none.
            Thread::Group { gid } => names.name(gid, control).await,
            Thread::Dm { .. } => None,
        };
        // An ack may have gone further than the thread has: up to the newest id of its partition.
        let read = self.read.map(|read| last.as_ref().map_or(read, |last| read.min(last.id)));
        let (open, role) = (item.open(), item.role);
        ThreadSummary { thread, name, role, open, last, cut, active: newest.ts, read, unread, settings: self.settings }
    }
}

/// Within 1 and `limits::PAGE_MAX`.
pub fn page_limit(limit: Option<u16>) -> Result<usize, Refusal> {
    match limit.map_or(limits::PAGE_DEFAULT, usize::from) {
        n @ 1..=limits::PAGE_MAX => Ok(n),
        _ => Err(Refusal::invalid(format!("limit: may be 1 to {}", limits::PAGE_MAX))),
    }
}

fn questions(mut rest: Vec<AskedThread>) -> Vec<Vec<AskedThread>> {
    let mut questions = Vec::new();
    while !rest.is_empty() {
        let mut question = std::mem::take(&mut rest);
        rest = question.split_off(QUESTION.fitting(question.iter()));
        questions.push(question);
    }
    questions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_1_to_200_threads() {
        assert!(page_limit(Some(0)).is_err() && page_limit(Some(201)).is_err());
        assert_eq!((page_limit(None), page_limit(Some(200))), (Ok(limits::PAGE_DEFAULT), Ok(limits::PAGE_MAX)));
    }
}
