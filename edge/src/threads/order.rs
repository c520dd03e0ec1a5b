//! In which order the threads of a user stand in their list. Pure, but for a cache of the orders that were asked for a
//! moment ago: who turns the page does not have all threads looked up again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use natterjack_protocol::{
    Thread, UserId,
    internal::{cursors::UserCursors, rpc::LastEntry},
    log::fold::ThreadItem,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::attach::plan::SyncedMark;

/// Threads that were last active in the same millisecond are told apart by so many bits of their hash.
const TIE_BITS: u32 = 10;
/// Above time and hash: with it a key stays below 2^53 until 2109.
const PINNED: u64 = 1 << 52;
/// An order is kept for so long, and so many threads of all of them together: about 30 MB.
const KEPT: Duration = Duration::from_secs(60);
const KEPT_THREADS: usize = 200_000;

/// A thread before anything of it is read but when it was active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedThread {
    pub thread: Thread,
    pub item: ThreadItem,
    /// The newest entry that the user may see.
    pub newest: LastEntry,
}

impl OrderedThread {
    /// By which a list is ordered, larger first, and turned.
    pub fn key(&self, cursors: Option<&UserCursors>) -> u64 {
        let pinned = cursors.is_some_and(|c| c.settings(&self.thread).pinned);
        let tie = self.thread.hash64() & ((1 << TIE_BITS) - 1);
        (self.newest.ts << TIE_BITS) | tie | if pinned { PINNED } else { 0 }
    }
}

/// Which of the user's threads are in a list.
#[derive(Debug)]
pub enum Listed<'a> {
    All,
    /// Those in the archive, or those that are not.
    Archived(bool),
    ChangedSince(&'a SyncedMark),
}

impl Listed<'_> {
    /// Where it is not known what was read and set, nothing is in the archive, and everything may have changed.
    fn has(&self, row: &OrderedThread, cursors: Option<&UserCursors>) -> bool {
        let Some(cursors) = cursors else { return !matches!(self, Self::Archived(true)) };
        match self {
            Self::All => true,
            Self::Archived(archived) => cursors.settings(&row.thread).archived == *archived,
            Self::ChangedSince(mark) => {
                let p = row.thread.partition(mark.frontiers.len() as u32) as usize;
                let known = mark.frontiers.get(p).copied().unwrap_or_default();
                row.newest.id > known || row.item.v > known || cursors.changed_since(&row.thread, mark.at_s)
            }
        }
    }
}

/// A page of the list: where each row stands, and where the next page begins. Rows with the very same key stay on one
/// page, so that none falls between two.
pub fn page(
    rows: &[OrderedThread],
    cursors: Option<&UserCursors>,
    listed: &Listed<'_>,
    before: u64,
    limit: usize,
) -> (Vec<(u64, usize)>, Option<u64>) {
    let listed = rows.iter().enumerate().filter(|(_, row)| listed.has(row, cursors));
    let mut keys: Vec<(u64, usize)> =
        listed.map(|(at, row)| (row.key(cursors), at)).filter(|(key, _)| *key < before).collect();
    keys.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| rows[a.1].thread.cmp(&rows[b.1].thread)));
    let end = match keys.get(limit.saturating_sub(1)) {
        Some((last, _)) => keys.partition_point(|(key, _)| key >= last),
        None => keys.len(),
    };
    let next = keys[..end].last().filter(|_| end < keys.len()).map(|(key, _)| *key);
    keys.truncate(end);
    (keys, next)
}

/// What was asked for a moment ago. Clones share it.
#[derive(Clone, Default)]
pub struct KeptOrders(Arc<Mutex<HashMap<UserId, KeptOrder>>>);

type KeptOrder = (Instant, Arc<Vec<OrderedThread>>);

impl KeptOrders {
    pub fn get(&self, user: &UserId) -> Option<Arc<Vec<OrderedThread>>> {
        self.0.lock().get(user).filter(|(at, _)| at.elapsed() < KEPT).map(|(_, rows)| rows.clone())
    }

    /// Those that are oldest go if they are too many together.
    pub fn keep(&self, user: &UserId, rows: Arc<Vec<OrderedThread>>) {
        let mut all = self.0.lock();
        all.retain(|_, (at, _)| at.elapsed() < KEPT);
        all.insert(user.clone(), (Instant::now(), rows));
        while all.values().map(|(_, rows)| rows.len()).sum::<usize>() > KEPT_THREADS {
            let oldest = all.iter().min_by_key(|(_, (at, _))| *at).map(|(user, _)| user.clone());
            oldest.iter().for_each(|user| drop(all.remove(user)));
        }
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{MsgId, client::thread_settings::SettingsChange};

    use super::*;

    fn row(name: &str, ts: u64) -> OrderedThread {
        OrderedThread {
            thread: format!("group.{name}").parse().unwrap(),
            item: ThreadItem::default(),
            newest: LastEntry { id: MsgId(ts), ts },
        }
    }

    fn names(rows: &[OrderedThread], page: &[(u64, usize)]) -> String {
        page.iter().map(|(_, at)| rows[*at].thread.to_string().replace("group.", "")).collect()
    }

    /// All pages, one after the other.
    fn turned(rows: &[OrderedThread], cursors: Option<&UserCursors>, limit: usize) -> Vec<String> {
        let (mut pages, mut before) = (Vec::new(), u64::MAX);
        loop {
            let (keys, next) = page(rows, cursors, &Listed::All, before, limit);
            pages.push(names(rows, &keys));
            match next {
                Some(next) => before = next,
                None => return pages,
            }
            assert!(pages.len() < 100);
        }
    }

    #[test]
    fn pages_cover_everything_once_also_when_times_are_equal_or_missing() {
        let all = [("f", 0), ("a", 50), ("b", 40), ("c", 40), ("d", 40), ("e", 10), ("g", 0)];
        let rows: Vec<_> = all.iter().map(|(name, ts)| row(name, *ts)).collect();
        for limit in 1..8 {
            let seen = turned(&rows, None, limit).concat();
            assert!(seen.starts_with('a') && seen.find('e') == Some(4), "limit {limit}: {seen}");
            let mut sorted: Vec<char> = seen.chars().collect();
            sorted.sort_unstable();
            assert_eq!(sorted.into_iter().collect::<String>(), "abcdefg", "limit {limit}");
        }
        let rows: Vec<_> = (0..5_000).map(|n| row(&format!("g{n}"), 1_800_000_000_000)).collect();
        let (keys, _) = page(&rows, None, &Listed::All, u64::MAX, 200);
        assert!((200..230).contains(&keys.len()), "of one millisecond: {}", keys.len());
        assert!(keys.iter().all(|(key, _)| *key < PINNED));
    }

    #[test]
    fn pinned_first_archived_apart_and_what_changed_since() {
        let rows = [row("a", 50), row("b", 40), row("c", 30), row("d", 20)];
        let mut cursors = UserCursors::default();
        let pin = SettingsChange { pinned: Some(true), ..SettingsChange::default() };
        let archive = SettingsChange { archived: Some(true), ..SettingsChange::default() };
        cursors.set(&rows[2].thread, &pin, 90_000);
        cursors.set(&rows[3].thread, &archive, 10_000);
        assert_eq!(turned(&rows, Some(&cursors), 2).concat(), "cabd");
        let list = |listed| names(&rows, &page(&rows, Some(&cursors), &listed, u64::MAX, 9).0);
        assert_eq!((list(Listed::Archived(false)), list(Listed::Archived(true))), ("cab".into(), "d".into()));
        let mark = SyncedMark { at_s: 80, frontiers: vec![MsgId(40)] };
        assert_eq!(list(Listed::ChangedSince(&mark)), "ca", "c was pinned, in a somebody wrote");
        let unknown = |listed| names(&rows, &page(&rows, None, &listed, u64::MAX, 9).0);
        assert_eq!(
            (unknown(Listed::Archived(false)), unknown(Listed::ChangedSince(&mark))),
            ("abcd".into(), "abcd".into())
        );
        let (keys, _) = page(&[row("z", 4_000_000_000_000)], Some(&cursors), &Listed::All, u64::MAX, 1);
        assert!(keys[0].0 < 1 << 53);
    }

    #[tokio::test(start_paused = true)]
    async fn orders_are_kept_for_a_minute_and_never_too_many() {
        let (kept, user) = (KeptOrders::default(), |n: usize| UserId::parse(&format!("u{n}")).unwrap());
        let rows = |n| Arc::new(vec![row("a", 1); n]);
        kept.keep(&user(1), rows(KEPT_THREADS / 2));
        tokio::time::advance(KEPT / 2).await;
        kept.keep(&user(2), rows(KEPT_THREADS / 2));
        assert!(kept.get(&user(1)).is_some());
        kept.keep(&user(3), rows(1));
        assert!(kept.get(&user(1)).is_none() && kept.get(&user(2)).is_some());
        tokio::time::advance(KEPT).await;
        assert!(kept.get(&user(3)).is_none());
    }
}
