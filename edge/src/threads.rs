//! The list of a user's threads: newest activity first, each with its last visible event. Asked over the socket and
//! over HTTP.

use futures_util::{StreamExt, stream};
use natterjack_nats::calls::history::latest;
use natterjack_protocol::{
    Event, Most, MsgId, Refusal, Thread, UserId,
    client::frame::ThreadSummary,
    internal::rpc::{LatestOf, ReadAccess},
    limits,
    log::fold::ThreadItem,
    size::{self, Size},
};

use crate::{
    cursors::CursorKeeper,
    history::{HistoryClient, invalid_reply},
    people::People,
};

/// Threads in one question to `history`: at most so many, and a request of at most this size (who has joined a group a
/// hundred times has 3 kB of intervals).
const QUESTION: Most = Most { count: 200, bytes: limits::ANSWER_BYTES };
/// Questions, and group names, asked at once.
const AT_ONCE: usize = 8;
/// Of a summary in JSON besides its last event: thread, role and a name of 100 characters.
const SUMMARY_BYTES: usize = 1_000;
/// Threads that were last active in the same millisecond are told apart by so many bits of their hash. With the time
/// they stay below 2^53 until 2109.
const TIE_BITS: u32 = 11;

#[derive(Clone)]
pub struct ThreadLists {
    history: HistoryClient,
    people: People,
    cursors: CursorKeeper,
}

/// What is known of a thread before its name.
struct Row {
    thread: Thread,
    item: ThreadItem,
    /// By which the list is ordered and turned: the time of the last event, then some bits of the thread's hash.
    key: u64,
    /// Of rows that may be on the page.
    last: Option<Event>,
    /// Up to here it was read; none: not known.
    read: Option<MsgId>,
    unread: Option<u8>,
    bytes: usize,
}

impl Row {
    fn new(Asked(thread, item, read): Asked, LatestOf { last, unread }: LatestOf) -> Self {
        let key = (last.as_ref().map_or(0, |e| e.ts) << TIE_BITS) | (thread.hash64() & ((1 << TIE_BITS) - 1));
        Self { bytes: SUMMARY_BYTES + last.as_ref().map_or(0, size::json), thread, item, key, last, read, unread }
    }
}

impl Size for Row {
    fn size(&self) -> usize {
        self.bytes
    }
}

/// A thread that is asked about, and up to where it was read.
struct Asked(Thread, ThreadItem, Option<MsgId>);

impl Size for Asked {
    fn size(&self) -> usize {
        self.0.to_string().len() + size::json(&self.1)
    }
}

impl ThreadLists {
    pub fn new(history: &HistoryClient, people: &People, cursors: &CursorKeeper) -> Self {
        Self { history: history.clone(), people: people.clone(), cursors: cursors.clone() }
    }

    /// One page, and where the next begins.
    pub async fn page(
        &self,
        reader: &UserId,
        threads: Vec<(Thread, ThreadItem)>,
        limit: Option<u16>,
        before: Option<MsgId>,
    ) -> Result<(Vec<ThreadSummary>, Option<MsgId>), Refusal> {
        // A list without what was read is better than none.
        let cursors = self.cursors.load(reader).await.ok();
        // A block by somebody else is no conversation.
        let threads = threads.into_iter().filter(|(_, item)| item.visible());
        let threads = threads.map(|(thread, item)| {
            let read = cursors.as_ref().map(|c| c.read(&thread));
            Asked(thread, item, read)
        });
        let threads = threads.collect();
        let most = Most { count: page_limit(limit)?, bytes: limits::PAGE_BYTES };
        let mut answers = stream::iter(questions(threads))
            .map(|asked| self.clone().latest(reader.clone(), asked))
            .buffer_unordered(AT_ONCE);
        let mut page = ListPage::new(most, before);
        while let Some(rows) = answers.next().await {
            page.add(rows?);
        }
        let (rows, next) = page.cut();
        let threads = stream::iter(rows).map(|row| self.clone().summary(row)).buffered(AT_ONCE).collect().await;
        Ok((threads, next))
    }

    /// An answer may be of the first threads only.
    async fn latest(self, reader: UserId, mut asked: Vec<Asked>) -> Result<Vec<Row>, Refusal> {
        let mut rows = Vec::with_capacity(asked.len());
        while !asked.is_empty() {
            let threads = asked.iter().map(|Asked(t, i, read)| (t.clone(), ReadAccess::from(i), *read)).collect();
            let latest = self.history.ask_in_turn(latest(reader.clone(), threads)).await?;
            if !(1..=asked.len()).contains(&latest.len()) {
                return Err(invalid_reply("nothing, or more than was asked for"));
            }
            rows.extend(asked.drain(..latest.len()).zip(latest).map(|(asked, latest)| Row::new(asked, latest)));
        }
        Ok(rows)
    }

    async fn summary(self, row: Row) -> ThreadSummary {
        let name = match &row.thread {
            // A list without a name is better than none.
            Thread::Group { gid } => self.people.group(gid).await.ok().flatten().map(|g| g.name),
            Thread::Dm { .. } => None,
        };
        // An ack may have gone further than the thread has: up to the newest id of its partition.
        let read = row.read.map(|read| row.last.as_ref().map_or(read, |last| read.min(last.id)));
        ThreadSummary {
            open: row.item.open(),
            role: row.item.role,
            thread: row.thread,
            name,
            last: row.last,
            read,
            unread: row.unread,
        }
    }
}

/// Within 1 and `limits::PAGE_MAX`.
pub fn page_limit(limit: Option<u16>) -> Result<usize, Refusal> {
    match limit.map_or(limits::PAGE_DEFAULT, usize::from) {
        n @ 1..=limits::PAGE_MAX => Ok(n),
        _ => Err(Refusal::invalid(format!("limit: may be 1 to {}", limits::PAGE_MAX))),
    }
}

fn questions(mut rest: Vec<Asked>) -> Vec<Vec<Asked>> {
    let mut questions = Vec::new();
    while !rest.is_empty() {
        let mut question = std::mem::take(&mut rest);
        rest = question.split_off(QUESTION.fitting(question.iter()));
        questions.push(question);
    }
    questions
}

/// A page of the list while its threads come in. Newest first, and turned by `Row::key`: ids of different partitions
/// do not compare. Holds the last events of those only that may be on it.
struct ListPage {
    most: Most,
    before: u64,
    rows: Vec<Row>,
}

impl ListPage {
    fn new(most: Most, before: Option<MsgId>) -> Self {
        Self { most, before: before.map_or(u64::MAX, |MsgId(key)| key), rows: Vec::new() }
    }

    fn add(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows.into_iter().filter(|r| r.key < self.before));
        self.rows.sort_by(|a, b| b.key.cmp(&a.key).then_with(|| a.thread.cmp(&b.thread)));
        let end = self.end();
        self.rows[end..].iter_mut().for_each(|r| r.last = None);
    }

    /// Rows with the very same key stay on one page, so that none falls between two.
    fn end(&self) -> usize {
        match self.most.fitting(self.rows.iter()).checked_sub(1) {
            Some(last) => self.rows.partition_point(|r| r.key >= self.rows[last].key),
            None => 0,
        }
    }

    /// The page, and where the next one begins; opaque to clients.
    fn cut(mut self) -> (Vec<Row>, Option<MsgId>) {
        let end = self.end();
        let next = self.rows[..end].last().filter(|_| end < self.rows.len()).map(|r| MsgId(r.key));
        self.rows.truncate(end);
        (self.rows, next)
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{Body, Cid, Kind};

    use super::*;

    fn row(name: &str, ts: u64) -> Row {
        let from = UserId::parse("u").unwrap();
        let event = Event {
            thread: format!("group.{name}").parse().unwrap(),
            id: MsgId(1),
            prev: MsgId::NONE,
            ts,
            from,
            cid: Cid::mint(1, [0; 10]),
            kind: Kind::Text,
            body: Body::text("x"),
        };
        let asked = Asked(event.thread.clone(), ThreadItem::default(), None);
        Row::new(asked, LatestOf { last: (ts > 0).then_some(event), unread: None })
    }

    fn page(mut rows: Vec<Row>, most: Most, before: Option<MsgId>) -> (Vec<Row>, Option<MsgId>) {
        let mut page = ListPage::new(most, before);
        // As their answers come.
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().div_ceil(3));
            page.add(std::mem::replace(&mut rows, rest));
        }
        page.cut()
    }

    /// All pages, one after the other.
    fn turned(all: impl Fn() -> Vec<Row>, most: Most) -> Vec<Vec<Row>> {
        let (mut pages, mut before) = (Vec::new(), None);
        loop {
            let (rows, next) = page(all(), most, before);
            pages.push(rows);
            match next {
                Some(_) => before = next,
                None => return pages,
            }
            assert!(pages.len() < 100);
        }
    }

    #[test]
    fn pages_cover_everything_once_also_when_times_are_equal_or_missing() {
        let all = [("a", 50), ("b", 40), ("c", 40), ("d", 40), ("e", 10), ("f", 0), ("g", 0)];
        let rows = || all.iter().rev().map(|(n, ts)| row(n, *ts)).collect();
        for limit in 1..8 {
            let seen = turned(rows, Most::count(limit)).into_iter().flatten();
            let seen: Vec<(String, u64)> = seen.map(|r| (r.thread.to_string(), r.last.map_or(0, |e| e.ts))).collect();
            let mut names: Vec<&str> = seen.iter().map(|(t, _)| t.trim_start_matches("group.")).collect();
            assert!(seen.is_sorted_by(|a, b| a.1 >= b.1), "limit {limit}: {seen:?}");
            names.sort_unstable();
            assert_eq!(names.concat(), "abcdefg", "limit {limit}");
        }
        assert!(page_limit(Some(0)).is_err() && page_limit(Some(201)).is_err());
        assert_eq!(page_limit(None), Ok(limits::PAGE_DEFAULT));
    }

    /// 5,000 threads that nobody has written in yet, and 200 with the longest texts, all of one millisecond.
    #[test]
    fn a_page_is_bounded_by_bytes_also_among_equals() {
        let most = Most { count: limits::PAGE_MAX, bytes: limits::PAGE_BYTES };
        let mut pages = turned(|| (0..5_000).map(|n| row(&format!("g{n}"), 0)).collect(), most);
        pages.iter().for_each(|p| assert!(p.len() < limits::PAGE_MAX + 20, "{}", p.len()));
        let long = |n: usize| {
            let mut last = row(&format!("g{n}"), 1_800_000_000_000).last.unwrap();
            last.body = Body::text("\0".repeat(limits::TEXT_CHARS));
            let asked = Asked(last.thread.clone(), ThreadItem::default(), None);
            Row::new(asked, LatestOf { last: Some(last), unread: None })
        };
        pages = turned(|| (0..60).map(long).collect(), most);
        pages.iter().for_each(|p| assert!(p.iter().map(Size::size).sum::<usize>() < limits::PAGE_BYTES + 2 * 62_000));
        assert!(pages.iter().flatten().all(|r| r.last.is_some()));
        assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), 60);
        assert!(page(vec![long(1), long(2)], most, None).0.iter().all(|r| r.key < 1 << 53));
    }
}
