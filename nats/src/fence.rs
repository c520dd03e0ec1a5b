//! Before step 3: a server without replicas may have lost its last entries while it was away, and would give their ids
//! again. So nothing is published over a new connection to it before `channel` has compared the log's end with what it
//! has read: its beat says so (ADR 11).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{layout::Layout, wire::client::Nats};

/// Clones share what was heard.
#[derive(Clone)]
pub struct Fence {
    nats: Nats,
    /// Per partition the connection of ours during which the last beat came; 0: none came yet.
    heard: Arc<[AtomicU64]>,
}

impl Fence {
    pub fn new(nats: &Nats, layout: Layout) -> Self {
        Self { nats: nats.clone(), heard: (0..layout.partitions).map(|_| AtomicU64::new(0)).collect() }
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
