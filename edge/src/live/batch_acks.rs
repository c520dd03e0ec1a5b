//! Step 5, on the side: the ids of messages that went into the log several at once. JetStream acknowledges a batch as a
//! whole (ADR 7); the id of each of its messages is in its event, which comes to the sender's edge as to all others.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use natterjack_protocol::{Cid, MsgId, Thread, UserId, internal::live::EventHeader};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Clones share it. Bounded by the sends in flight.
#[derive(Clone, Default)]
pub struct BatchAcks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    expected: Mutex<HashMap<Cid, Expected>>,
    /// How many are expected, so that an event costs nothing while there are none.
    count: AtomicUsize,
}

struct Expected {
    thread: Thread,
    from: UserId,
    index: usize,
    batch: Arc<Batch>,
}

struct Batch {
    ids: Mutex<Ids>,
    all: Notify,
}

struct Ids {
    known: Vec<MsgId>,
    missing: usize,
}

/// The events of one batch; forgotten when it is dropped.
pub struct AwaitedBatch {
    acks: BatchAcks,
    cids: Vec<Cid>,
    batch: Arc<Batch>,
}

impl BatchAcks {
    /// To be called before the first of them is published.
    pub fn expect(&self, thread: &Thread, from: &UserId, cids: Vec<Cid>) -> AwaitedBatch {
        let ids = Ids { known: vec![MsgId::NONE; cids.len()], missing: cids.len() };
        let batch = Arc::new(Batch { ids: Mutex::new(ids), all: Notify::new() });
        let mut expected = self.0.expected.lock();
        for (index, cid) in cids.iter().enumerate() {
            // The same one twice at the same time: whoever came first gets the id.
            if let Entry::Vacant(free) = expected.entry(*cid) {
                free.insert(Expected { thread: thread.clone(), from: from.clone(), index, batch: batch.clone() });
            }
        }
        self.0.count.store(expected.len(), Relaxed);
        drop(expected);
        AwaitedBatch { acks: self.clone(), cids, batch }
    }

    /// An event has come on a live subject.
    pub fn on_event(&self, event: &EventHeader) {
        if event.control || self.0.count.load(Relaxed) == 0 {
            return;
        }
        let mut expected = self.0.expected.lock();
        let Entry::Occupied(it) = expected.entry(event.cid) else { return };
        if it.get().from.as_str() != event.author || it.get().thread.to_string() != event.thread {
            return;
        }
        let Expected { index, batch, .. } = it.remove();
        self.0.count.store(expected.len(), Relaxed);
        drop(expected);
        let mut ids = batch.ids.lock();
        ids.known[index] = event.id;
        ids.missing -= 1;
        if ids.missing == 0 {
            batch.all.notify_one();
        }
    }
}

impl AwaitedBatch {
    /// Their ids, in the order of the batch, once all have come.
    pub async fn ids(&self) -> Vec<MsgId> {
        loop {
            {
                let mut ids = self.batch.ids.lock();
                if ids.missing == 0 {
                    return std::mem::take(&mut ids.known);
                }
            }
            self.batch.all.notified().await;
        }
    }
}

impl Drop for AwaitedBatch {
    fn drop(&mut self) {
        let mut expected = self.acks.0.expected.lock();
        for cid in &self.cids {
            if expected.get(cid).is_some_and(|e| Arc::ptr_eq(&e.batch, &self.batch)) {
                expected.remove(cid);
            }
        }
        self.acks.0.count.store(expected.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(n: u8) -> Cid {
        Cid::mint(1, [n; 10])
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn event<'a>(thread: &'a str, author: &'a str, n: u8, id: u64) -> EventHeader<'a> {
        EventHeader { id: MsgId(id), prev: MsgId(1), thread, author, cid: cid(n), control: false, unread: true }
    }

    #[tokio::test]
    async fn only_the_senders_own_events_count_and_each_once() {
        let acks = BatchAcks::default();
        let thread: Thread = "group.g".parse().unwrap();
        let awaited = acks.expect(&thread, &user("a"), vec![cid(1), cid(2)]);
        acks.on_event(&event("group.g", "b", 1, 10));
        acks.on_event(&event("group.h", "a", 1, 11));
        acks.on_event(&EventHeader { control: true, ..event("group.g", "a", 1, 12) });
        acks.on_event(&event("group.g", "a", 2, 14));
        acks.on_event(&event("group.g", "a", 2, 15));
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), awaited.ids());
        assert!(waiting.await.is_err(), "the first has not come");
        acks.on_event(&event("group.g", "a", 1, 13));
        assert_eq!(awaited.ids().await, [MsgId(13), MsgId(14)]);
        assert!(acks.0.expected.lock().is_empty());
    }

    #[test]
    fn a_dropped_batch_leaves_nothing_and_takes_nothing_of_others() {
        let acks = BatchAcks::default();
        let thread: Thread = "group.g".parse().unwrap();
        let first = acks.expect(&thread, &user("a"), vec![cid(1), cid(2)]);
        let second = acks.expect(&thread, &user("a"), vec![cid(2), cid(3)]);
        assert_eq!(acks.0.count.load(Relaxed), 3);
        drop(second);
        assert_eq!(acks.0.count.load(Relaxed), 2);
        drop(first);
        assert_eq!(acks.0.count.load(Relaxed), 0);
    }
}
