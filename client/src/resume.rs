//! All threads of this device: what `hello` says, which pages are asked for, and when the device is in sync.
//!
//! After a reconnect: `hello` with the newest cursors, `sync` for the rest, the edge's pages, fills downwards where a
//! page does not reach its cursor. `driver` carries the asks out; `chain` decides per thread. Pure.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use natterjack_protocol::{Event, Most, MsgId, Refusal, Retry, Thread, client::frame::Page, limits::CURSORS_PER_HELLO};

use crate::{
    backoff,
    chain::{Chain, Policy, Step, Want},
};

/// Threads whose pages are fetched at a time: 8 × the largest fill is what a reconnect may hold in memory, and as much
/// again of threads that wait for their turn.
const ASKS: usize = 8;
/// Before the same page is asked for again.
const AGAIN: Duration = Duration::from_millis(1_000);
/// The frontier behind `synced` is older than the moment it arrives; nothing is two minutes older. And the log's clock
/// may have been set back by hours since: what is new must not be taken for old.
const FLOOR_SLACK_MS: u64 = 120_000 + 3 * 3_600_000;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Out {
    Event(Box<Event>),
    /// The app will not get what lies in (from, to); `history` has it.
    Skipped {
        thread: Thread,
        from: MsgId,
        to: MsgId,
    },
    /// Everything up to this opaque point has been given out above.
    Synced(SyncPoint),
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct SyncPoint {
    pub mark: String,
    pub at_ms: u64,
}

/// How far a thread was given out: the newest event, and when the log stored it (milliseconds since 1970; 0: not
/// known).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub id: MsgId,
    pub ts: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Page { thread: Thread, want: Want },
    Sync(BTreeMap<Thread, MsgId>),
}

pub(crate) struct Resume {
    chains: HashMap<Thread, Chain>,
    policy: Policy,
    /// Bytes of pages that wait for what is below them, of all threads. What comes beyond is fetched again in its turn.
    most_waiting: usize,
    synced: Option<SyncPoint>,
    /// Arrived while something was still missing; adopted when nothing is.
    candidate: Option<SyncPoint>,
    /// Threads that are not whole.
    open: HashSet<Thread>,
    ready: VecDeque<Thread>,
    later: Vec<(Instant, Thread)>,
    asked: usize,
    /// Cursors that did not fit into `hello`.
    unsaid: VecDeque<BTreeMap<Thread, MsgId>>,
    syncing: Option<BTreeMap<Thread, MsgId>>,
    /// Not before.
    sync_at: Option<Instant>,
    out: VecDeque<Out>,
}

impl Resume {
    pub fn new(cursors: impl IntoIterator<Item = (Thread, Cursor)>, synced: Option<SyncPoint>, max_fill: Most) -> Self {
        Self {
            chains: cursors.into_iter().map(|(t, c)| (t, Chain::new(Some(c.id), c.ts))).collect(),
            policy: Policy { max_fill, floor: floor(synced.as_ref()) },
            most_waiting: max_fill.bytes.saturating_mul(ASKS),
            synced,
            candidate: None,
            open: HashSet::new(),
            ready: VecDeque::new(),
            later: Vec::new(),
            asked: 0,
            unsaid: VecDeque::new(),
            syncing: None,
            sync_at: None,
            out: VecDeque::new(),
        }
    }

    /// What the next `hello` says. A connection that is being replaced may go on delivering meanwhile: its events move
    /// the cursors, and what the new one repeats is old by then.
    pub fn hello(&self) -> (BTreeMap<Thread, MsgId>, Option<String>) {
        let said = self.latest_first().into_iter().take(CURSORS_PER_HELLO).collect();
        (said, self.synced.as_ref().map(|s| s.mark.clone()))
    }

    /// A new connection said `hello` and was welcomed: begin again from the cursors.
    pub fn connected(&mut self, said: &BTreeMap<Thread, MsgId>) {
        for thread in self.open.drain() {
            if let Some(chain) = self.chains.get_mut(&thread) {
                chain.reset();
            }
        }
        self.ready.clear();
        self.later.clear();
        (self.asked, self.syncing, self.sync_at, self.candidate) = (0, None, None, None);
        let rest: Vec<_> = self.latest_first().into_iter().filter(|(t, _)| !said.contains_key(t)).collect();
        self.unsaid = rest.chunks(CURSORS_PER_HELLO).map(|c| c.iter().cloned().collect()).collect();
    }

    /// The threads that were active last come first: by time, for ids of two threads say nothing about each other.
    fn latest_first(&self) -> Vec<(Thread, MsgId)> {
        let mut threads: Vec<(&Thread, &Chain, MsgId)> =
            self.chains.iter().filter_map(|(t, c)| Some((t, c, c.cursor()?))).collect();
        threads.sort_unstable_by(|a, b| b.1.active().cmp(&a.1.active()).then_with(|| a.0.cmp(b.0)));
        threads.into_iter().map(|(thread, _, cursor)| (thread.clone(), cursor)).collect()
    }

    pub fn live(&mut self, event: Event, now: Instant) {
        let thread = event.thread.clone();
        let step = self.chain(&thread).live(event);
        self.take(thread, step, now);
    }

    /// A page that the edge sent by itself.
    pub fn newest(&mut self, page: Page, now: Instant) {
        let Some(thread) = page.thread.clone().or_else(|| page.events.first().map(|e| e.thread.clone())) else {
            return;
        };
        let policy = self.policy;
        let chain = self.chain(&thread);
        let begins = chain.is_whole();
        let step = chain.newest(page, policy);
        if begins && chain.waiting() > 0 && self.waiting() > self.most_waiting {
            self.chain(&thread).let_go();
        }
        self.take(thread, step, now);
    }

    fn waiting(&self) -> usize {
        self.chains.values().map(Chain::waiting).sum()
    }

    /// The answer to [`Ask::Page`].
    pub fn page(&mut self, thread: Thread, page: Page, now: Instant) {
        self.asked = self.asked.saturating_sub(1);
        let policy = self.policy;
        let step = self.chain(&thread).page(page, policy);
        self.reopen(&thread, step.later, now);
        self.take(thread, step, now);
    }

    pub fn page_refused(&mut self, thread: Thread, refusal: &Refusal, now: Instant, random: f64) {
        self.asked = self.asked.saturating_sub(1);
        if refusal.code.retry() == Retry::Never {
            let policy = self.policy;
            let step = self.chain(&thread).refused(policy);
            self.reopen(&thread, false, now);
            self.take(thread, step, now);
        } else {
            self.later.push((now + again(refusal, random), thread));
        }
    }

    /// The edge could not read the newest page of this thread and says so before anything that lies behind it.
    pub fn page_missing(&mut self, refusal: &Refusal, now: Instant, random: f64) {
        let Some(thread) = refusal.thread.clone() else { return };
        if self.chain(&thread).missing() && self.open.insert(thread.clone()) {
            self.later.push((now + again(refusal, random), thread));
        }
    }

    pub fn sync_done(&mut self) {
        self.syncing = None;
        self.settle();
    }

    pub fn sync_refused(&mut self, refusal: &Refusal, now: Instant, random: f64) {
        self.unsaid.extend(self.syncing.take());
        self.sync_at = Some(now + again(refusal, random).max(AGAIN));
    }

    /// The edge could not read all that `hello` asked for: everything is asked for once more.
    pub fn incomplete(&mut self, now: Instant) {
        let all = self.latest_first();
        self.unsaid = all.chunks(CURSORS_PER_HELLO).map(|c| c.iter().cloned().collect()).collect();
        self.sync_at = Some(now + AGAIN);
    }

    /// `attached` and `pong` carry how far the edge has sent everything.
    pub fn synced(&mut self, mark: String, server_ms: u64) {
        self.candidate = Some(SyncPoint { mark, at_ms: server_ms });
        self.settle();
    }

    pub fn ask(&mut self, now: Instant) -> Option<Ask> {
        if self.syncing.is_none()
            && self.sync_at.is_none_or(|at| at <= now)
            && let Some(cursors) = self.unsaid.pop_front()
        {
            self.syncing = Some(cursors.clone());
            return Some(Ask::Sync(cursors));
        }
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        self.ready.extend(due.into_iter().map(|(_, t): (Instant, Thread)| t));
        while self.asked < ASKS {
            let thread = self.ready.pop_front()?;
            if let Some(want) = self.chains.get_mut(&thread).and_then(Chain::want) {
                self.asked += 1;
                return Some(Ask::Page { thread, want });
            }
        }
        None
    }

    /// The newest event of a thread that was given out.
    pub fn newest_of(&self, thread: &Thread) -> Option<MsgId> {
        self.chains.get(thread).and_then(Chain::cursor)
    }

    pub fn due(&self) -> Option<Instant> {
        let sync = self.sync_at.filter(|_| self.syncing.is_none() && !self.unsaid.is_empty());
        self.later.iter().map(|(at, _)| *at).chain(sync).min()
    }

    pub fn next_out(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// Nothing is missing and nothing is being asked.
    pub fn is_whole(&self) -> bool {
        self.open.is_empty() && self.unsaid.is_empty() && self.syncing.is_none()
    }

    fn chain(&mut self, thread: &Thread) -> &mut Chain {
        self.chains.entry(thread.clone()).or_default()
    }

    /// An answered thread that is still not whole asks again, now or later.
    fn reopen(&mut self, thread: &Thread, later: bool, now: Instant) {
        if !self.chain(thread).is_whole() {
            if later {
                self.later.push((now + AGAIN, thread.clone()));
            } else {
                self.ready.push_back(thread.clone());
            }
        }
    }

    fn take(&mut self, thread: Thread, step: Step, now: Instant) {
        if let Some((from, to)) = step.skipped {
            self.out.push_back(Out::Skipped { thread: thread.clone(), from, to });
        }
        self.out.extend(step.deliver.into_iter().map(|e| Out::Event(Box::new(e))));
        if self.chain(&thread).is_whole() {
            self.open.remove(&thread);
            self.settle();
        } else if self.open.insert(thread.clone()) {
            self.reopen(&thread, step.later, now);
        }
    }

    fn settle(&mut self) {
        if self.is_whole()
            && let Some(synced) = self.candidate.take()
        {
            self.policy.floor = floor(Some(&synced));
            self.synced = Some(synced.clone());
            self.out.push_back(Out::Synced(synced));
        }
    }
}

fn again(refusal: &Refusal, random: f64) -> Duration {
    refusal.retry_after_ms.map_or(AGAIN, |ms| backoff::told(ms, 0, random))
}

fn floor(synced: Option<&SyncPoint>) -> Option<u64> {
    synced.map(|s| s.at_ms.saturating_sub(FLOOR_SLACK_MS))
}

#[cfg(test)]
mod tests;
