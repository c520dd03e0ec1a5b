//! The outbox (step 1): a message waits here under a local key until the log has it.
//!
//! Its cid is minted when it is first handed to a socket, in the server's time; `driver` stores the changes this file
//! lists before the first byte leaves. What has no answer is handed again, in order, with the same cid, after every
//! reconnect. Pure. The algorithm is that of docs/protocol.md, "The outbox": change both; `model` holds it against the
//! edge's queue.

mod rows;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use natterjack_protocol::{Body, Cid, Code, Kind, MsgId, Refusal, Retry, Thread};

pub(crate) use self::rows::{Change, Handed, Settled, Waiter};
use self::rows::{Item, Line};
pub use self::rows::{Local, Unsent};
use crate::backoff::{self, full_jitter};

/// Between two attempts of which nobody has told when, at least.
const SOON: Duration = Duration::from_millis(50);

/// A cid that is ahead of the log by no more than this is waited for. One that is further ahead was made while the
/// log's clock was ahead; the message is looked for as long as an earlier attempt may still be on its way, and then
/// given up as "not known whether sent".
const AHEAD: Duration = Duration::from_secs(120);
const LOOKED_FOR: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const NOT_KNOWN: &str = "the server's clock was set back since, and the message was not found";

#[derive(Debug)]
pub(crate) struct Outbox {
    items: BTreeMap<Local, Item>,
    threads: HashMap<Thread, Line>,
    by_cid: HashMap<Cid, Local>,
    next: u64,
    in_flight: usize,
    window: usize,
    per_thread: usize,
    changes: Vec<Change>,
}

impl Outbox {
    /// `window`: handed and unanswered in all; `per_thread`: in one thread.
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
            outbox.place(Unsent { unsure: row.cid.is_some(), ..row }, None);
        }
        outbox
    }

    pub fn add(&mut self, thread: Thread, kind: Kind, body: Body, waiter: Option<Waiter>) -> Local {
        let local = Local(self.next);
        self.next += 1;
        let row = Unsent { local, thread, kind, body, cid: None, failed: None, unsure: false };
        self.changes.push(Change::Insert(Box::new(row.clone())));
        self.place(row, waiter);
        local
    }

    fn place(&mut self, row: Unsent, waiter: Option<Waiter>) {
        if row.failed.is_none() {
            self.threads.entry(row.thread.clone()).or_default().queue.push_back(row.local);
        }
        if let Some(cid) = row.cid {
            self.by_cid.insert(cid, row.local);
        }
        self.items.insert(
            row.local,
            Item { row, in_flight: false, not_before: None, ahead_since: None, refusals: 0, waiter },
        );
    }

    /// The store did not take it: as if it had never been written.
    pub fn forget(&mut self, local: Local) {
        self.remove(local);
        self.changes.retain(|c| {
            !matches!(c, Change::Insert(r) if r.local == local) && !matches!(c, Change::Cid(l, _) if *l == local)
        });
    }

    /// What may be handed to the socket now, in order. The caller stores [`Outbox::take_changes`] first.
    pub fn hand(&mut self, now: Instant, server_ms: u64, mut random: impl FnMut() -> [u8; 10]) -> Vec<Handed> {
        let mut heads: Vec<(Local, Thread)> =
            self.threads.iter().filter_map(|(t, l)| Some((*l.queue.front()?, t.clone()))).collect();
        heads.sort_unstable();
        let mut handed = Vec::new();
        for (_, thread) in heads {
            let Some(line) = self.threads.get_mut(&thread) else { continue };
            if line.refused && line.in_flight > 0 {
                continue;
            }
            line.refused = false;
            let mut behind = None;
            for local in line.queue.iter().take(self.per_thread).copied() {
                let Some(item) = self.items.get_mut(&local) else { continue };
                if item.in_flight {
                    behind = item.row.cid;
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
                (item.in_flight, item.not_before) = (true, None);
                line.in_flight += 1;
                self.in_flight += 1;
                self.by_cid.insert(cid, local);
                handed.push(Handed { local, cid, behind });
                behind = Some(cid);
            }
        }
        handed
    }

    pub fn get(&self, local: Local) -> Option<&Unsent> {
        self.items.get(&local).map(|i| &i.row)
    }

    /// `sent`, or the own event, live or in a page: whichever comes first, the others find nothing. Also of one that
    /// failed: an attempt whose answer was lost had stored it.
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
        self.landed(local);
        let item = self.items.get_mut(&local).filter(|i| i.row.failed.is_none())?;
        if refusal.code.retry() == Retry::Never {
            return Some(self.fail(local, refusal));
        }
        let ahead = Duration::from_millis(refusal.now_ms.map_or(0, |n| cid.unix_ms().saturating_sub(n)));
        if refusal.code.retry() == Retry::NewCid && item.row.unsure && ahead > AHEAD {
            let since = *item.ahead_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= LOOKED_FOR {
                return Some(self.fail(local, Refusal::new(Code::ResendTooOld, NOT_KNOWN)));
            }
        }
        let item = self.items.get_mut(&local)?;
        let line = self.threads.get_mut(&item.row.thread)?;
        line.refused = true;
        item.row.unsure |= !refusal.code.means_not_stored();
        // Nothing is wrong with this one, and those before it know when to come again.
        if refusal.code == Code::OutOfOrder && line.queue.front() != Some(&local) {
            return None;
        }
        // The first of these says nothing against trying again at once.
        let at_once = item.refusals == 0 && matches!(refusal.code, Code::ClockAhead | Code::OutOfOrder);
        let wait = match refusal.retry_after_ms {
            _ if at_once => Duration::ZERO,
            Some(told) => backoff::told(told, item.refusals, random),
            None => full_jitter(item.refusals, random).max(SOON),
        };
        item.refusals += 1;
        item.not_before = Some(now + wait);
        if refusal.code.retry() == Retry::NewCid {
            if item.row.unsure {
                // A second cid could make a second message, so this one waits until it is in time.
                item.not_before = Some(now + wait.max(if ahead > AHEAD { LOOK_AGAIN } else { ahead }));
            } else {
                item.row.cid = None;
                self.by_cid.remove(&cid);
                self.changes.push(Change::Cid(local, None));
            }
        }
        None
    }

    /// The connection is gone: nobody knows what became of what was in flight. What was told to wait waits on the next
    /// one, too.
    pub fn disconnected(&mut self) {
        self.in_flight = 0;
        for line in self.threads.values_mut() {
            (line.in_flight, line.refused) = (0, false);
        }
        for item in self.items.values_mut() {
            item.row.unsure |= std::mem::take(&mut item.in_flight);
        }
    }

    /// What is in flight cannot be discarded: its answer is about to say what it is. Anything else can; of what is
    /// unsure it is not known whether it was sent, and its own event may still come.
    pub fn discard(&mut self, local: Local) -> bool {
        let idle = self.items.get(&local).is_some_and(|i| !i.in_flight);
        if idle {
            self.remove(local);
            self.changes.push(Change::Remove(local));
        }
        idle
    }

    /// It stays to be looked at; those behind it go on.
    fn fail(&mut self, local: Local, refusal: Refusal) -> Settled {
        let item = self.items.get_mut(&local).expect("the caller has found it");
        item.row.failed = Some(refusal.clone());
        if let Some(waiter) = item.waiter.take() {
            let _ = waiter.send(Err(refusal.clone()));
        }
        let thread = item.row.thread.clone();
        self.dequeue(&thread, local);
        self.changes.push(Change::Fail(local, refusal.clone()));
        Settled::Failed { local, thread, refusal }
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
        self.threads.values().map(|l| l.queue.len()).sum()
    }

    pub fn rows(&self) -> Vec<Unsent> {
        self.items.values().map(|i| i.row.clone()).collect()
    }

    /// When the next one that waits for nothing but its time may go.
    pub fn due(&self) -> Option<Instant> {
        if self.in_flight >= self.window {
            return None;
        }
        let lines = self.threads.values().filter(|l| !l.refused || l.in_flight == 0);
        lines.filter_map(|l| self.items.get(l.queue.iter().take(self.per_thread).nth(l.in_flight)?)?.not_before).min()
    }

    /// Its request has its answer.
    fn landed(&mut self, local: Local) {
        let Some(item) = self.items.get_mut(&local) else { return };
        if std::mem::take(&mut item.in_flight) {
            self.in_flight -= 1;
            if let Some(line) = self.threads.get_mut(&item.row.thread) {
                line.in_flight -= 1;
            }
        }
    }

    fn remove(&mut self, local: Local) -> Option<Item> {
        self.landed(local);
        let item = self.items.remove(&local)?;
        if let Some(cid) = item.row.cid {
            self.by_cid.remove(&cid);
        }
        self.dequeue(&item.row.thread, local);
        Some(item)
    }

    fn dequeue(&mut self, thread: &Thread, local: Local) {
        if let Some(line) = self.threads.get_mut(thread) {
            line.queue.retain(|l| *l != local);
            if line.queue.is_empty() {
                self.threads.remove(thread);
            }
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
