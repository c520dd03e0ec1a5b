//! A steady rate needs moments: a sleep of tokio's ends up to two milliseconds late, and that would be in every
//! latency. A thread that sleeps in the kernel is exact to some tens of microseconds.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Instant,
};

use tokio::sync::oneshot;

/// Its thread takes questions at once; so many may come while it is not on a processor.
const ASKED: usize = 4_096;

/// Clones share its thread, which ends with the last of them.
#[derive(Clone)]
pub struct Alarm(SyncSender<Wait>);

struct Wait {
    until: Instant,
    ring: oneshot::Sender<()>,
}

impl Alarm {
    pub fn new() -> Self {
        let (ask, asked) = sync_channel(ASKED);
        thread::spawn(move || ring(&asked));
        Self(ask)
    }

    /// Returns at once if it is past.
    pub async fn until(&self, until: Instant) {
        if until <= Instant::now() {
            return;
        }
        let (ring, rings) = oneshot::channel();
        // Whoever holds an alarm keeps its thread alive.
        let _ = self.0.send(Wait { until, ring });
        let _ = rings.await;
    }
}

fn ring(asked: &Receiver<Wait>) {
    let mut waits: BinaryHeap<Reverse<Wait>> = BinaryHeap::new();
    loop {
        while waits.peek().is_some_and(|Reverse(first)| first.until <= Instant::now())
            && let Some(Reverse(first)) = waits.pop()
        {
            let _ = first.ring.send(());
        }
        let next = match waits.peek() {
            Some(Reverse(first)) => asked.recv_timeout(first.until.saturating_duration_since(Instant::now())),
            None => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(wait) => waits.push(Reverse(wait)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Ord for Wait {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until.cmp(&other.until)
    }
}

impl PartialOrd for Wait {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Wait {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}

impl Eq for Wait {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn never_early_and_each_for_himself() {
        let alarm = Alarm::new();
        let wait = async |ms| {
            let at = Instant::now() + Duration::from_millis(ms);
            alarm.until(at).await;
            assert!(Instant::now() >= at);
            ms
        };
        let (a, b, c) = tokio::join!(wait(30), wait(0), wait(3));
        assert_eq!((a, b, c), (30, 0, 3));
    }
}
