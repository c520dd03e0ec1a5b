//! The list of a user's threads: newest activity first, each with its last visible event. Asked over the socket and over HTTP.

use futures_util::{StreamExt, TryStreamExt, stream};
use natterjack_protocol::{
    Event, MsgId, Refusal, Thread, UserId,
    fold::ThreadItem,
    frame::ThreadSummary,
    limits,
    rpc::{Access, HistoryAnswer, HistoryRequest},
};

use crate::{directory::unexpected, history::HistoryClient, people::People};

/// Threads in one question to `history`.
const PER_REQUEST: usize = 200;
/// Questions, and group names, asked at once.
const AT_ONCE: usize = 8;

#[derive(Clone)]
pub struct ThreadLists {
    history: HistoryClient,
    people: People,
}

/// What is known of a thread before its name.
struct Row {
    thread: Thread,
    item: ThreadItem,
    last: Option<Event>,
}

impl Row {
    fn activity(&self) -> u64 {
        self.last.as_ref().map_or(0, |e| e.ts)
    }
}

impl ThreadLists {
    pub fn new(history: &HistoryClient, people: &People) -> Self {
        Self { history: history.clone(), people: people.clone() }
    }

    /// One page, and where the next begins.
    pub async fn page(
        &self,
        reader: &UserId,
        threads: Vec<(Thread, ThreadItem)>,
        limit: Option<u16>,
        before: Option<MsgId>,
    ) -> Result<(Vec<ThreadSummary>, Option<MsgId>), Refusal> {
        let limit = page_limit(limit)?;
        // A block by somebody else is no conversation.
        let threads: Vec<_> = threads.into_iter().filter(|(_, item)| item.visible()).collect();
        let chunks: Vec<Vec<(Thread, ThreadItem)>> = threads.chunks(PER_REQUEST).map(<[_]>::to_vec).collect();
        let rows: Vec<Row> = stream::iter(chunks)
            .map(|chunk| self.clone().latest(reader.clone(), chunk))
            .buffer_unordered(AT_ONCE)
            .try_fold(Vec::new(), |mut all, mut rows| async move {
                all.append(&mut rows);
                Ok(all)
            })
            .await?;
        let (rows, next) = cut(rows, limit, before);
        let threads = stream::iter(rows).map(|row| self.clone().summary(row)).buffered(AT_ONCE).collect().await;
        Ok((threads, next))
    }

    async fn latest(self, reader: UserId, chunk: Vec<(Thread, ThreadItem)>) -> Result<Vec<Row>, Refusal> {
        let threads = chunk.iter().map(|(t, i)| (t.clone(), Access::from(i))).collect();
        match self.history.ask_in_turn(HistoryRequest::Latest { reader, threads }).await? {
            HistoryAnswer::Latest(last) if last.len() == chunk.len() => {
                Ok(chunk.into_iter().zip(last).map(|((thread, item), last)| Row { thread, item, last }).collect())
            }
            _ => Err(unexpected()),
        }
    }

    async fn summary(self, row: Row) -> ThreadSummary {
        let name = match &row.thread {
            // A list without a name is better than none.
            Thread::Group { gid } => self.people.group(gid).await.ok().flatten().map(|g| g.name),
            Thread::Dm { .. } => None,
        };
        ThreadSummary { open: row.item.open(), role: row.item.role, thread: row.thread, name, last: row.last }
    }
}

/// Within 1 and `limits::PAGE_MAX`.
pub fn page_limit(limit: Option<u16>) -> Result<usize, Refusal> {
    match limit.map_or(limits::PAGE_DEFAULT, usize::from) {
        n @ 1..=limits::PAGE_MAX => Ok(n),
        _ => Err(Refusal::invalid(format!("limit may be 1 to {}", limits::PAGE_MAX))),
    }
}

/// Newest first. A page is turned by time of activity: ids of different partitions do not compare. `next` is that time, opaque to clients;
/// threads with the very same time stay on one page, so that none falls between two.
fn cut(mut rows: Vec<Row>, limit: usize, before: Option<MsgId>) -> (Vec<Row>, Option<MsgId>) {
    if let Some(MsgId(before)) = before {
        rows.retain(|r| r.activity() < before);
    }
    rows.sort_by(|a, b| b.activity().cmp(&a.activity()).then_with(|| a.thread.cmp(&b.thread)));
    let Some(last) = rows.get(limit - 1).map(Row::activity) else { return (rows, None) };
    let end = rows.partition_point(|r| r.activity() >= last);
    let next = (end < rows.len()).then_some(MsgId(last));
    rows.truncate(end);
    (rows, next)
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
        Row { thread: event.thread.clone(), item: ThreadItem::default(), last: (ts > 0).then_some(event) }
    }

    #[test]
    fn pages_cover_everything_once_also_when_times_are_equal_or_missing() {
        let all = [("a", 50), ("b", 40), ("c", 40), ("d", 40), ("e", 10), ("f", 0), ("g", 0)];
        for limit in 1..8 {
            let (mut seen, mut before, mut pages) = (Vec::new(), None, 0);
            loop {
                let (rows, next) = cut(all.iter().rev().map(|(n, ts)| row(n, *ts)).collect(), limit, before);
                seen.extend(rows.iter().map(|r| r.thread.to_string().trim_start_matches("group.").to_owned()));
                pages += 1;
                match next {
                    Some(_) => before = next,
                    None => break,
                }
                assert!(pages < 10);
            }
            assert_eq!(seen.concat(), "abcdefg", "limit {limit}");
        }
        assert!(page_limit(Some(0)).is_err() && page_limit(Some(201)).is_err());
        assert_eq!(page_limit(None), Ok(limits::PAGE_DEFAULT));
    }
}
