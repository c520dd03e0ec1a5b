//! A waiting line in front of costly work (argon2, rebuilding a key): few work, a bounded number waits, the rest is refused at once.
//!
//! A request takes its place before it does anything else and keeps it until it is answered. So requests of this sort never hold
//! more than `places` of the service's permits, and a storm of them leaves the others free: that is why the service is given
//! permits for every place of every line and some more. A line may have a reserve, for who is known when strangers have filled the rest.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Cheap to clone; all clones are one line.
#[derive(Clone)]
pub struct Line {
    name: &'static str,
    capacity: usize,
    places: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    workers: Arc<Semaphore>,
}

/// A place in the line, given back when dropped.
pub struct Place {
    line: Line,
    /// Some until dropped; an option so that the gauge is set after the place is free again.
    permit: Option<OwnedSemaphorePermit>,
}

/// The right to work now, given back when dropped. Move it into the work: a caller that went away does not end the work.
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Line {
    /// `workers` at once, `waiting` behind them.
    pub fn new(name: &'static str, workers: usize, waiting: usize) -> Self {
        Self::with_reserve(name, workers, waiting, 0)
    }

    /// And `reserve` more behind them, for [`Line::enter_known`].
    pub fn with_reserve(name: &'static str, workers: usize, waiting: usize, reserve: usize) -> Self {
        let workers = workers.max(1);
        let [places, reserved, working] = [workers + waiting, reserve, workers].map(|n| Arc::new(Semaphore::new(n)));
        Self { name, capacity: workers + waiting + reserve, places, reserve: reserved, workers: working }
    }

    /// Working and waiting together.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// None: the line is full. Overflow policy: refuse, never queue without bound.
    pub fn enter(&self) -> Option<Place> {
        self.place(self.places.clone().try_acquire_owned().ok())
    }

    /// The same, in the reserve where there is no other place.
    pub fn enter_known(&self) -> Option<Place> {
        let place = self.places.clone().try_acquire_owned().or_else(|_| self.reserve.clone().try_acquire_owned());
        self.place(place.ok())
    }

    fn place(&self, permit: Option<OwnedSemaphorePermit>) -> Option<Place> {
        let Some(permit) = permit else {
            metrics::counter!("natterjack_directory_line_refused_total", "line" => self.name).increment(1);
            return None;
        };
        self.measure();
        Some(Place { line: self.clone(), permit: Some(permit) })
    }

    fn measure(&self) {
        let taken = self.capacity - self.places.available_permits() - self.reserve.available_permits();
        metrics::gauge!("natterjack_directory_line_depth", "line" => self.name).set(taken as f64);
    }
}

impl Place {
    /// Waits for one's turn, first come, first served. Dropping it gives up the wait, not the place.
    pub async fn turn(&self) -> Turn {
        let permit = self.line.workers.clone().acquire_owned().await;
        Turn { _permit: permit.expect("the semaphore of a line is never closed") }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.permit.take();
        self.line.measure();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refuses_when_full_and_recovers() {
        let line = Line::new("test", 1, 2);
        let places: Vec<Place> = (0..3).map(|_| line.enter().expect("room for three")).collect();
        assert!(line.enter().is_none());
        let turn = places[0].turn().await;
        let second = tokio::time::timeout(std::time::Duration::from_millis(20), places[1].turn()).await;
        assert!(second.is_err(), "one works at a time");
        drop(turn);
        places[1].turn().await;
        drop(places);
        assert_eq!(line.places.available_permits(), line.capacity());
    }

    #[test]
    fn strangers_do_not_fill_the_reserve() {
        let line = Line::with_reserve("test", 1, 2, 2);
        let strangers: Vec<Place> = std::iter::from_fn(|| line.enter()).collect();
        let known: Vec<Place> = std::iter::from_fn(|| line.enter_known()).collect();
        assert_eq!((strangers.len(), known.len(), line.capacity()), (3, 2, 5));
        drop(known);
        assert!(line.enter().is_none() && line.enter_known().is_some());
        drop(strangers);
        assert_eq!(std::iter::from_fn(|| line.enter_known()).take(10).collect::<Vec<_>>().len(), 5);
    }
}
