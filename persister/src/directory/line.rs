//! A waiting line in front of costly work (argon2, rebuilding a key): few work, a bounded number waits, the rest is refused at once.
//!
//! A request takes its place before it does anything else and keeps it until it is answered. So requests of this sort never hold
//! more than `places` of the service's permits, and a storm of them leaves the others free: that is why the service is given
//! permits for every place of every line and some more.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Cheap to clone; all clones are one line.
#[derive(Clone)]
pub struct Line {
    name: &'static str,
    capacity: usize,
    places: Arc<Semaphore>,
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
        let workers = workers.max(1);
        let capacity = workers + waiting;
        Self { name, capacity, places: Arc::new(Semaphore::new(capacity)), workers: Arc::new(Semaphore::new(workers)) }
    }

    /// Working and waiting together.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// None: the line is full. Overflow policy: refuse, never queue without bound.
    pub fn enter(&self) -> Option<Place> {
        let Ok(permit) = self.places.clone().try_acquire_owned() else {
            metrics::counter!("natterjack_directory_line_refused_total", "line" => self.name).increment(1);
            return None;
        };
        self.measure();
        Some(Place { line: self.clone(), permit: Some(permit) })
    }

    fn measure(&self) {
        let taken = self.capacity - self.places.available_permits();
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
}
