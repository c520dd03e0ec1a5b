//! The ends of threads, for their lists: what a look at a thread found there is kept by the id of its newest entry, and
//! is what everybody finds as long as that is the newest one. An edge to which a thread's events come says how far it
//! has heard of it: what is as new as that is the answer. Of all other threads of a question the log is asked once what
//! stands last in each; most need nothing else.

use std::{collections::HashMap, mem, sync::Arc};

use natterjack_nats::NewestEntry;
use natterjack_protocol::{
    Event, MsgId, Thread, UserId,
    internal::rpc::{AskedThread, HeardOf, LastEntry, LatestOf},
    limits,
    log::Intervals,
    size,
};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::{View, unarchived::row};
use crate::store::{ArchiveStore, Row, overlay};

/// Rows of a thread's end that are read, most often and at most: who has more unread messages, or these among more than
/// that, is counted alone.
pub(super) const TAIL_ROWS: [usize; 2] = [2, 128];
/// What is said of a thread besides its last event.
pub(super) const ABOUT: usize = 128;
/// Ends that are kept: of some 4 kB at most, 80 MB together.
const KEPT: usize = 20_000;

/// The newest rows of a thread as everybody sees them.
#[derive(Debug, Clone)]
pub(super) struct ThreadTail {
    newest: LastEntry,
    /// The newest row that a list shows.
    last: Event,
    cut: bool,
    /// Newest first: its id, who wrote it, does it count as unread?
    rows: Vec<(MsgId, u64, bool)>,
    /// There is nothing below.
    complete: bool,
    /// Bytes of what is said of it.
    pub size: usize,
}

fn author(user: &UserId) -> u64 {
    xxh3_64(user.as_str().as_bytes())
}

pub(super) fn is_shown(row: &Row) -> bool {
    row.kind.is_message() || row.kind.is_control() || overlay::is_recalled(row)
}

/// For showing: no part of a chain.
pub(super) fn preview(row: Row) -> (Event, bool) {
    let mut last = row.into_event(MsgId::NONE);
    let cut = last.body.cut_for_preview();
    (last, cut)
}

impl ThreadTail {
    /// None: not everybody sees the same, something cannot be told now, or nothing of it is shown.
    pub fn of(rows: Vec<Row>, complete: bool) -> Option<Self> {
        if rows.iter().any(|r| r.unchecked || r.kind.only_for_its_author()) {
            return None;
        }
        let newest = rows.first().map(|r| LastEntry { id: r.id, ts: r.ts })?;
        let of = rows.iter().map(|r| (r.id, author(&r.from), r.kind.is_message())).collect();
        let (last, cut) = preview(rows.into_iter().find(is_shown)?);
        let size = ABOUT + size::json(&last);
        Some(Self { newest, last, cut, rows: of, complete, size })
    }

    /// For somebody who may read these parts and has read up to there. None: they see less of it, or it does not reach.
    pub fn latest_of(&self, reader: &UserId, parts: &Intervals, read: Option<MsgId>) -> Option<LatestOf> {
        let here = parts.0.last().filter(|part| part.until.is_none() && part.since <= self.last.id)?;
        let unread = match read {
            None => None,
            Some(read) if parts.0.len() > 1 && read < here.since => return None,
            Some(read) => Some(self.unread(&author(reader), read.next().max(here.since))?),
        };
        Some(LatestOf { last: Some(self.last.clone()), cut: self.cut, newest: self.newest, unread, control: None })
    }

    /// Messages of others with this id or a larger one.
    fn unread(&self, reader: &u64, from: MsgId) -> Option<u8> {
        let behind = self.rows.iter().take_while(|(id, ..)| *id >= from);
        let max = usize::from(limits::UNREAD_MAX);
        let count = behind.filter(|(_, author, counts)| *counts && author != reader).take(max).count();
        let reaches = self.complete || self.rows.last().is_some_and(|(id, ..)| *id <= from);
        (reaches || count == max).then(|| u8::try_from(count).unwrap_or(limits::UNREAD_MAX))
    }
}

/// A tail and how new it is.
#[derive(Debug, Clone)]
pub(super) struct KnownTail {
    pub tail: Arc<ThreadTail>,
    /// The log of its partition had nothing newer up to here.
    up_to: MsgId,
    /// The newest control entry, 0 if the log had none; none: nobody has looked.
    pub control: Option<MsgId>,
}

/// In two halves: when the younger one is full, the older one goes.
#[derive(Default)]
pub(super) struct KeptTails(Mutex<[HashMap<Thread, KnownTail>; 2]>);

impl KeptTails {
    /// What a look found. How new that is, a question to the log before it has told.
    pub fn keep(&self, thread: &Thread, tail: ThreadTail) {
        let newest = tail.newest.id;
        let before = self.get(thread).filter(|known| known.tail.newest.id == newest);
        let (up_to, control) = before.map_or((newest, None), |known| (known.up_to, known.control));
        self.put(thread, KnownTail { tail: Arc::new(tail), up_to, control });
    }

    fn put(&self, thread: &Thread, known: KnownTail) {
        let mut halves = self.0.lock();
        if halves[0].len() >= KEPT / 2 {
            halves[1] = mem::take(&mut halves[0]);
        }
        halves[0].insert(thread.clone(), known);
    }

    fn get(&self, thread: &Thread) -> Option<KnownTail> {
        let mut halves = self.0.lock();
        if let Some(known) = halves[0].get(thread) {
            return Some(known.clone());
        }
        let known = halves[1].get(thread)?.clone();
        halves[0].insert(thread.clone(), known.clone());
        Some(known)
    }

    /// As new as somebody has heard.
    fn as_heard(&self, thread: &Thread, heard: HeardOf) -> Option<KnownTail> {
        let as_new = |known: &KnownTail| match heard.head {
            MsgId::NONE => known.up_to >= heard.since,
            head => known.tail.newest.id >= head,
        };
        self.get(thread).filter(|known| known.control.is_some() && as_new(known))
    }
}

impl<S: ArchiveStore> View<S> {
    /// Of these threads; none where a look is needed.
    pub(super) async fn known_tails(&self, threads: &[AskedThread]) -> Vec<Option<KnownTail>> {
        let mut known = vec![None; threads.len()];
        let Ok(lost) = self.store.lost().await else { return known };
        let whole = |thread: &Thread| !lost.iter().any(|l| l.concerns(thread));
        let mut ask = Vec::new();
        for (at, of) in threads.iter().enumerate().filter(|(_, of)| whole(&of.thread)) {
            known[at] = of.heard.and_then(|heard| self.tails.as_heard(&of.thread, heard));
            if known[at].is_none() {
                ask.push(at);
            }
        }
        let names: Vec<Thread> = ask.iter().map(|at| threads[*at].thread.clone()).collect();
        let newest = if ask.is_empty() { Ok(Vec::new()) } else { self.log.newest_of(&names).await };
        let Ok(newest) = newest else { return known };
        let mut ids = self.archived_ids(&names, &newest).await;
        for ((at, thread), newest) in ask.into_iter().zip(&names).zip(newest) {
            known[at] = self.tail_of(thread, newest, ids.remove(thread)).await;
        }
        known
    }

    /// `archived`: the newest one of a thread that the log does not have any more.
    async fn tail_of(&self, thread: &Thread, newest: NewestEntry, archived: Option<MsgId>) -> Option<KnownTail> {
        let NewestEntry { last, control, certain, up_to } = newest;
        let id = last.as_ref().map(|last| last.id).or(archived).filter(|_| certain)?;
        let kept = self.tails.get(thread).map(|known| known.tail).filter(|tail| tail.newest.id == id);
        let tail = match (kept, last) {
            (Some(tail), _) => tail,
            (None, Some(last)) => {
                // Nothing came later that could have changed it; a copy of an earlier one is no row.
                let rows = self.without_copies(vec![last]).await.unwrap_or_default();
                Arc::new(ThreadTail::of(rows.into_iter().map(row).collect(), false)?)
            }
            (None, None) => return None,
        };
        let known = KnownTail { tail, up_to, control: Some(control) };
        self.tails.put(thread, known.clone());
        Some(known)
    }

    /// The newest ids of those threads that are not in the log any more, where the archive reaches up to it.
    async fn archived_ids(&self, names: &[Thread], newest: &[NewestEntry]) -> HashMap<Thread, MsgId> {
        let (mut whole, mut ask) = (HashMap::<u32, bool>::new(), Vec::new());
        for thread in names.iter().zip(newest).filter(|(_, n)| n.certain && n.last.is_none()).map(|(thread, _)| thread)
        {
            let p = self.layout.partition(thread);
            let is_whole = match whole.get(&p) {
                Some(is_whole) => *is_whole,
                None => matches!(self.watermark(thread).await, Ok((_, None))),
            };
            whole.insert(p, is_whole);
            if is_whole {
                ask.push(thread.clone());
            }
        }
        if ask.is_empty() {
            return HashMap::new();
        }
        let last = self.store.last_entries(&ask).await.unwrap_or_default();
        ask.into_iter()
            .zip(last)
            .filter(|(_, last)| !last.id.is_none())
            .map(|(thread, last)| (thread, last.id))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{Body, Kind};

    use super::*;
    use crate::store::conformance::{text, thread};

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    /// Newest first: 9 by a, a reaction 8, 7 by b, 6 by a.
    fn rows() -> Vec<Row> {
        let t = thread("t");
        let reaction = Row {
            kind: Kind::Reaction,
            body: Body { emoji: Some("+".into()), target: Some(MsgId(7)), ..Body::default() },
            ..text(&t, 8, "b", "")
        };
        vec![text(&t, 9, "a", "nine"), reaction, text(&t, 7, "b", "seven"), text(&t, 6, "a", "six")]
    }

    fn since(id: u64) -> Intervals {
        let mut parts = Intervals::default();
        parts.enter(MsgId(id));
        parts
    }

    #[test]
    fn unread_is_what_others_wrote_behind_what_was_read_as_far_as_the_rows_reach() {
        let tail = ThreadTail::of(rows(), false).unwrap();
        let unread = |who: &str, read| tail.latest_of(&user(who), &since(1), Some(MsgId(read))).map(|l| l.unread);
        assert_eq!((unread("c", 9), unread("c", 8), unread("c", 6)), (Some(Some(0)), Some(Some(1)), Some(Some(2))));
        assert_eq!((unread("a", 6), unread("b", 5)), (Some(Some(1)), Some(Some(2))), "not their own");
        assert_eq!(unread("c", 4), None, "what is below is not known");
        let whole = ThreadTail::of(rows(), true).unwrap();
        assert_eq!(whole.latest_of(&user("c"), &since(1), Some(MsgId::NONE)).unwrap().unread, Some(3));
        assert_eq!(whole.latest_of(&user("c"), &since(1), None).unwrap().unread, None);
        assert_eq!(whole.latest_of(&user("c"), &since(7), Some(MsgId::NONE)).unwrap().unread, Some(2), "joined then");
        let many = (1..=200).rev().map(|id| text(&thread("t"), id + 1_000, "b", "x")).collect();
        let many = ThreadTail::of(many, false).unwrap();
        assert_eq!(many.latest_of(&user("c"), &since(1), Some(MsgId(5))).unwrap().unread, Some(limits::UNREAD_MAX));
    }

    #[test]
    fn who_sees_less_than_others_is_looked_at_alone() {
        let tail = ThreadTail::of(rows(), true).unwrap();
        let latest = |parts: &Intervals, read| tail.latest_of(&user("c"), parts, Some(MsgId(read)));
        assert!(latest(&since(10), 0).is_none(), "joined after the last message");
        let mut left = since(1);
        left.leave(MsgId(8));
        assert!(latest(&left, 0).is_none());
        left.enter(MsgId(9));
        assert!(latest(&left, 3).is_none() && latest(&left, 9).is_some(), "back again, with something unread before");
        let mut blocked = rows();
        blocked[1].kind = Kind::Blocked;
        assert!(ThreadTail::of(blocked, true).is_none());
        let mut unknown = rows();
        unknown[2].unchecked = true;
        assert!(ThreadTail::of(unknown, true).is_none());
        assert!(ThreadTail::of(rows().drain(1..2).collect(), true).is_none(), "nothing of it is shown");
    }

    #[test]
    fn what_is_kept_answers_whoever_has_heard_no_more_and_the_oldest_half_goes() {
        let (kept, t) = (KeptTails::default(), thread("t"));
        let heard = |since, head| {
            kept.as_heard(&t, HeardOf { since: MsgId(since), head: MsgId(head) }).map(|known| known.tail.rows.len())
        };
        kept.keep(&t, ThreadTail::of(rows()[..1].to_vec(), false).unwrap());
        assert_eq!((heard(5, 0), heard(5, 9)), (None, None), "of its control entries nothing is known");
        let tail = kept.get(&t).unwrap().tail;
        kept.put(&t, KnownTail { tail, up_to: MsgId(20), control: Some(MsgId(3)) });
        assert_eq!((heard(20, 0), heard(21, 0)), (Some(1), None), "nothing since then, or later");
        assert_eq!((heard(5, 9), heard(5, 10)), (Some(1), None), "somebody has heard of a newer one");
        kept.keep(&t, ThreadTail::of(rows(), true).unwrap());
        assert_eq!(heard(20, 0), Some(4), "a longer look at the same end");
        let mut newer = rows();
        newer.insert(0, text(&t, 30, "a", "thirty"));
        kept.keep(&t, ThreadTail::of(newer, true).unwrap());
        assert_eq!(heard(5, 0), None);
        for n in 0..KEPT / 2 {
            kept.keep(&thread(&format!("t{n}")), ThreadTail::of(rows(), true).unwrap());
        }
        assert!(kept.get(&t).is_some(), "asked for again, it is young again");
        for n in 0..KEPT {
            kept.keep(&thread(&format!("u{n}")), ThreadTail::of(rows(), true).unwrap());
        }
        assert!(kept.get(&t).is_none());
        assert!(kept.0.lock().iter().map(HashMap::len).sum::<usize>() <= KEPT);
    }
}
