//! Before step 3: a server without replicas may have lost its last entries while it was away, and would give their ids
//! again. So nothing is published over a new connection to it before `channel` has compared the log's end with what it
//! has read: its beat says so (ADR 11).

use std::{
    convert::Infallible,
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use natterjack_protocol::internal::live::Beat;
use tokio::time::timeout;

use crate::{layout::Layout, subjects, wire::client::Nats};

/// Clones share what was heard.
#[derive(Clone)]
pub struct Fence {
    nats: Nats,
    generation: u32,
    /// Per partition the connection of ours during which the last beat came; 0: none came yet.
    heard: Arc<[AtomicU64]>,
}

impl Fence {
    pub fn new(nats: &Nats, layout: Layout) -> Self {
        let heard = (0..layout.partitions).map(|_| AtomicU64::new(0)).collect();
        Self { nats: nats.clone(), generation: layout.generation, heard }
    }

    /// Does `work`, which publishes, and hears beats meanwhile: for whoever does not hear them all the time. It begins
    /// when one of each partition has come. None: that took longer than `within`, and nothing was begun.
    pub async fn while_heard<T>(&self, within: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut beats = self.nats.client().subscribe(subjects::BEATS).await.ok()?;
        let take = |payload: &[u8]| {
            if let Some(beat) = Beat::decode(payload).ok().filter(|beat| beat.generation == self.generation) {
                self.heard(beat.p);
            }
        };
        let all_heard = async {
            while self.heard.iter().any(|connection| connection.load(Relaxed) == 0) {
                take(&beats.next().await?.payload);
            }
            Some(())
        };
        timeout(within, all_heard).await.ok()??;
        let hearing = async {
            while let Some(beat) = beats.next().await {
                take(&beat.payload);
            }
            pending::<Infallible>().await
        };
        tokio::select! {
            done = work => Some(done),
            never = hearing => match never {},
        }
    }

    /// A beat of this partition came, on whatever connection.
    pub fn heard(&self, p: u32) {
        if let Some(heard) = self.heard.get(p as usize) {
            heard.store(self.nats.connections(), Relaxed);
        }
    }

    /// Until the first beat the edge refuses by itself: it does not know the log's time.
    pub(crate) fn is_open(&self, p: u32) -> bool {
        // What is published without a connection waits in the client, and goes out as the first on the next one.
        let open = |heard: &AtomicU64| is_open(heard.load(Relaxed), self.nats.connections(), self.nats.connected());
        self.nats.config().replicas > 1 || self.heard.get(p as usize).is_none_or(open)
    }
}

fn is_open(heard: u64, now: u64, connected: bool) -> bool {
    heard == 0 || (connected && heard == now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_from_a_reconnect_until_the_next_beat() {
        assert!(is_open(0, 1, true) && is_open(1, 1, true));
        assert!(!is_open(1, 1, false), "it would be published by the next connection");
        assert!(!is_open(1, 2, true));
        assert!(is_open(2, 2, true));
    }
}
