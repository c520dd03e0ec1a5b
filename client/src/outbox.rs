//! The outbox (step 1): a message waits here under a local key until the log has it.
//!
//! Its cid is minted when it is first handed to a socket, in the server's time; `driver` stores the changes this file lists
//! before the first byte leaves. What has no answer is handed again, in order, with the same cid, after every reconnect. Pure.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use natterjack_protocol::{Body, Cid, Kind, MsgId, Refusal, Thread, error::Retry};
use tokio::sync::oneshot;

use crate::backoff::full_jitter;

/// Names a message on this device from the moment it is written; keys grow, also over restarts of a file store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Local(pub u64);

/// A message that the log has not confirmed, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    pub local: Local,
    pub thread: Thread,
    pub kind: Kind,
    pub body: Body,
    /// None: never handed to a socket, so certainly not sent.
    pub cid: Option<Cid>,
    /// Refused for good; stays until it is discarded.
    pub failed: Option<Refusal>,
}

/// A change for the store, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Insert(Box<Unsent>),
    Cid(Local, Option<Cid>),
    Fail(Local, Refusal),
    Remove(Local),
}

/// Tells `send_and_wait` how it ended.
pub(crate) type Waiter = oneshot::Sender<Result<(Cid, MsgId), Refusal>>;

#[derive(Debug)]
struct Item {
    row: Unsent,
    in_flight: bool,
    /// Some handing of this cid ended without a clear "not stored": only the same cid may go out again.
    unsure: bool,
    not_before: Option<Instant>,
    refusals: u32,
    waiter: Option<Waiter>,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    items: BTreeMap<Local, Item>,
    /// In order of writing; an item leaves it when it is settled.
    threads: HashMap<Thread, VecDeque<Local>>,
    by_cid: HashMap<Cid, Local>,
    next: u64,
    in_flight: usize,
    window: usize,
    per_thread: usize,
    changes: Vec<Change>,
}

/// How an item ended.
#[derive(Debug)]
pub(crate) enum Settled {
    Sent { local: Local, thread: Thread, cid: Cid, id: MsgId },
    Failed { local: Local, thread: Thread, refusal: Refusal },
}

impl Outbox {
    /// `window`: handed and unanswered in all; `per_thread`: in one thread. More than one there is faster over a long line, but
    /// a message refused for the moment may then be overtaken by the one after it.
    pub fn new(stored: Vec<Unsent>, next: u64, window: usize, per_thread: usize) -> Self {
        let mut outbox = Self {
            items: BTreeMap::new(),
            threads: HashMap::new(),
            by_cid: HashMap::new(),
            next,
            in_flight: 0,
            window: window.max(1),
            per_thread: per_thread.max(1),
            changes: Vec::new(),
        };
        for row in stored {
            outbox.next = outbox.next.max(row.local.0 + 1);
            // With a cid it may have left before the process died.
            let unsure = row.cid.is_some();
            outbox.place(row, unsure, None);
        }
        outbox
    }

    pub fn add(&mut self, thread: Thread, kind: Kind, body: Body, waiter: Option<Waiter>) -> Local {
        let local = Local(self.next);
        self.next += 1;
        let row = Unsent { local, thread, kind, body, cid: None, failed: None };
        self.changes.push(Change::Insert(Box::new(row.clone())));
        self.place(row, false, waiter);
        local
    }

    fn place(&mut self, row: Unsent, unsure: bool, waiter: Option<Waiter>) {
        if row.failed.is_none() {
            self.threads.entry(row.thread.clone()).or_default().push_back(row.local);
        }
        if let Some(cid) = row.cid {
            self.by_cid.insert(cid, row.local);
        }
        self.items.insert(row.local, Item { row, in_flight: false, unsure, not_before: None, refusals: 0, waiter });
    }

    /// The store did not take it: as if it had never been written.
    pub fn forget(&mut self, local: Local) {
        self.remove(local);
        self.changes.retain(|c| !matches!(c, Change::Insert(r) if r.local == local) && !matches!(c, Change::Cid(l, _) if *l == local));
    }

    /// What may be handed to the socket now, in order. The caller stores [`Outbox::take_changes`] first.
    pub fn hand(&mut self, now: Instant, server_ms: u64, mut random: impl FnMut() -> [u8; 10]) -> Vec<(Local, Cid)> {
        let mut heads: Vec<(Local, Thread)> = self.threads.iter().filter_map(|(t, q)| Some((*q.front()?, t.clone()))).collect();
        heads.sort_unstable();
        let mut handed = Vec::new();
        for (_, thread) in heads {
            let queue: Vec<Local> = self.threads[&thread].iter().take(self.per_thread).copied().collect();
            for local in queue {
                let Some(item) = self.items.get_mut(&local) else { continue };
                if item.in_flight {
                    continue;
                }
                if self.in_flight >= self.window || item.not_before.is_some_and(|t| t > now) {
                    break;
                }
                let cid = *item.row.cid.get_or_insert_with(|| {
                    let cid = Cid::mint(server_ms, random());
                    self.changes.push(Change::Cid(local, Some(cid)));
                    cid
                });
                item.in_flight = true;
                item.not_before = None;
                self.in_flight += 1;
                self.by_cid.insert(cid, local);
                handed.push((local, cid));
            }
        }
        handed
    }

    pub fn get(&self, local: Local) -> Option<&Unsent> {
        self.items.get(&local).map(|i| &i.row)
    }

    /// `sent`, or the own event: whichever comes first, the other finds nothing.
    pub fn sent(&mut self, cid: Cid, id: MsgId) -> Option<Settled> {
        let local = *self.by_cid.get(&cid)?;
        let mut item = self.remove(local)?;
        self.changes.push(Change::Remove(local));
        if let Some(waiter) = item.waiter.take() {
            let _ = waiter.send(Ok((cid, id)));
        }
        Some(Settled::Sent { local, thread: item.row.thread, cid, id })
    }

    /// None: it will be handed again.
    pub fn refused(&mut self, cid: Cid, refusal: Refusal, now: Instant, random: f64) -> Option<Settled> {
        let local = *self.by_cid.get(&cid)?;
        let item = self.items.get_mut(&local)?;
        self.in_flight -= usize::from(std::mem::take(&mut item.in_flight));
        let wait = refusal.retry_after_ms.map(Duration::from_millis);
        match refusal.code.retry() {
            Retry::NewCid if !item.unsure => {
                item.row.cid = None;
                item.not_before = wait.map(|w| now + w);
                self.by_cid.remove(&cid);
                self.changes.push(Change::Cid(local, None));
                None
            }
            // An earlier answer is unknown: a second cid could make a second message, so this one waits until it is in time.
            Retry::NewCid => {
                let ahead = refusal.now_ms.map_or(1_000, |n| cid.unix_ms().saturating_sub(n));
                item.not_before = Some(now + Duration::from_millis(ahead.max(100)));
                None
            }
            Retry::Later | Retry::AfterLogin => {
                item.unsure = true;
                let own = full_jitter(item.refusals, random).max(Duration::from_millis(50));
                item.refusals += 1;
                item.not_before = Some(now + wait.map_or(own, |w| w + own / 4));
                None
            }
            Retry::Never => {
                let row_thread = item.row.thread.clone();
                item.row.failed = Some(refusal.clone());
                if let Some(waiter) = item.waiter.take() {
                    let _ = waiter.send(Err(refusal.clone()));
                }
                self.by_cid.remove(&cid);
                self.dequeue(&row_thread, local);
                self.changes.push(Change::Fail(local, refusal.clone()));
                Some(Settled::Failed { local, thread: row_thread, refusal })
            }
        }
    }

    /// The connection is gone: nobody knows what became of what was in flight.
    pub fn disconnected(&mut self) {
        self.in_flight = 0;
        for item in self.items.values_mut() {
            if std::mem::take(&mut item.in_flight) {
                item.unsure = true;
            }
            item.not_before = None;
        }
    }

    /// Only what failed can be discarded: anything else may be on its way.
    pub fn discard(&mut self, local: Local) -> bool {
        let failed = self.items.get(&local).is_some_and(|i| i.row.failed.is_some());
        if failed {
            self.remove(local);
            self.changes.push(Change::Remove(local));
        }
        failed
    }

    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The store failed: keep the changes for the next time, before whatever came since.
    pub fn put_back(&mut self, mut changes: Vec<Change>) {
        changes.append(&mut self.changes);
        self.changes = changes;
    }

    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Messages that wait or are in flight.
    pub fn waiting(&self) -> usize {
        self.threads.values().map(VecDeque::len).sum()
    }

    pub fn rows(&self) -> Vec<Unsent> {
        self.items.values().map(|i| i.row.clone()).collect()
    }

    /// When the next one that waits for its time may go.
    pub fn due(&self) -> Option<Instant> {
        let heads = self.threads.values().flat_map(|q| q.iter().take(self.per_thread));
        heads.filter_map(|l| self.items.get(l)?.not_before).min()
    }

    fn remove(&mut self, local: Local) -> Option<Item> {
        let item = self.items.remove(&local)?;
        self.in_flight -= usize::from(item.in_flight);
        if let Some(cid) = item.row.cid {
            self.by_cid.remove(&cid);
        }
        self.dequeue(&item.row.thread, local);
        Some(item)
    }

    fn dequeue(&mut self, thread: &Thread, local: Local) {
        if let Some(queue) = self.threads.get_mut(thread) {
            queue.retain(|l| *l != local);
            if queue.is_empty() {
                self.threads.remove(thread);
            }
        }
    }
}

#[cfg(test)]
mod tests;
