//! A bounded queue in front of costly work (argon2, rebuilding a key): few work, a bounded number waits, the rest is
//! refused at once.
//!
//! A request takes its place before it does anything else and keeps it until it is answered. So requests of this sort
//! never hold more than `places` of the service's permits, and a storm of them leaves the others free: that is why the
//! service is given permits for every place of every queue and some more. A queue may have a reserve, for known users
//! when strangers have filled the rest.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Cheap to clone; all clones are one queue.
#[derive(Clone)]
pub struct WorkQueue {
    name: &'static str,
    capacity: usize,
    places: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    workers: Arc<Semaphore>,
}

/// A place in the queue, given back when dropped.
pub struct QueuePermit {
    queue: WorkQueue,
    /// Some until dropped; an option so that the gauge is set after the place is free again.
    permit: Option<OwnedSemaphorePermit>,
}

/// The right to work now, given back when dropped. Move it into the work: a caller that went away does not end the
/// work.
pub struct WorkPermit {
    _permit: OwnedSemaphorePermit,
}

impl WorkQueue {
    /// `workers` at once, `waiting` behind them.
    pub fn new(name: &'static str, workers: usize, waiting: usize) -> Self {
        Self::with_reserve(name, workers, waiting, 0)
    }

    /// And `reserve` more behind them, for [`WorkQueue::enter_known`].
    pub fn with_reserve(name: &'static str, workers: usize, waiting: usize, reserve: usize) -> Self {
        let workers = workers.max(1);
        let [places, reserved, working] = [workers + waiting, reserve, workers].map(|n| Arc::new(Semaphore::new(n)));
        Self { name, capacity: workers + waiting + reserve, places, reserve: reserved, workers: working }
    }

    /// Working and waiting together.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// None: the queue is full. Overflow policy: refuse, never queue without bound.
    pub fn enter(&self) -> Option<QueuePermit> {
        self.place(self.places.clone().try_acquire_owned().ok())
    }

    /// The same, in the reserve where there is no other place.
    pub fn enter_known(&self) -> Option<QueuePermit> {
        let place = self.places.clone().try_acquire_owned().or_else(|_| self.reserve.clone().try_acquire_owned());
        self.place(place.ok())
    }

    fn place(&self, permit: Option<OwnedSemaphorePermit>) -> Option<QueuePermit> {
        let Some(permit) = permit else {
            metrics::counter!(crate::metrics::DIRECTORY_QUEUE_REFUSED, "queue" => self.name).increment(1);
            return None;
        };
        self.measure();
        Some(QueuePermit { queue: self.clone(), permit: Some(permit) })
    }

    fn measure(&self) {
        let taken = self.capacity - self.places.available_permits() - self.reserve.available_permits();
        metrics::gauge!(crate::metrics::DIRECTORY_QUEUE_DEPTH, "queue" => self.name).set(taken as f64);
    }
}

impl QueuePermit {
    /// Waits for one's turn, first come, first served. Dropping it gives up the wait, not the place.
    pub async fn turn(&self) -> WorkPermit {
        let permit = self.queue.workers.clone().acquire_owned().await;
        WorkPermit { _permit: permit.expect("the semaphore of a queue is never closed") }
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        self.permit.take();
        self.queue.measure();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refuses_when_full_and_recovers() {
        let queue = WorkQueue::new("test", 1, 2);
        let places: Vec<QueuePermit> = (0..3).map(|_| queue.enter().expect("room for three")).collect();
        assert!(queue.enter().is_none());
        let turn = places[0].turn().await;
        let second = tokio::time::timeout(std::time::Duration::from_millis(20), places[1].turn()).await;
        assert!(second.is_err(), "one works at a time");
        drop(turn);
        places[1].turn().await;
        drop(places);
        assert_eq!(queue.places.available_permits(), queue.capacity());
    }

    #[test]
    fn strangers_do_not_fill_the_reserve() {
        let queue = WorkQueue::with_reserve("test", 1, 2, 2);
        let strangers: Vec<QueuePermit> = std::iter::from_fn(|| queue.enter()).collect();
        let known: Vec<QueuePermit> = std::iter::from_fn(|| queue.enter_known()).collect();
        assert_eq!((strangers.len(), known.len(), queue.capacity()), (3, 2, 5));
        drop(known);
        assert!(queue.enter().is_none() && queue.enter_known().is_some());
        drop(strangers);
        assert_eq!(std::iter::from_fn(|| queue.enter_known()).take(10).collect::<Vec<_>>().len(), 5);
    }
}
