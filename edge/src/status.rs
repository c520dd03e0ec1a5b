//! How this edge stands: beats, its own lease, leaving or not. One value that sends, readiness, the lease and new
//! sockets look at.
//!
//! Brown-out, not stampede (docs/guarantees.md): without beats or lease an edge keeps its sockets and says so; it does
//! not throw clients at the other edges, which may be in the same trouble.

use natterjack_nats::LeaseState;
use natterjack_protocol::{Refusal, Thread};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeStatus {
    /// Beats of all partitions reach this edge.
    pub beats: bool,
    pub lease: LeaseState,
    pub draining: bool,
}

impl EdgeStatus {
    /// Clients are told: sends are answered `unavailable` while this is so.
    pub fn degraded(self) -> bool {
        !self.beats || self.lease == LeaseState::Lost
    }

    /// May a send into this thread be published? Beats are judged per partition by the sender, not here.
    pub fn may_send(self, thread: &Thread) -> Result<(), Refusal> {
        match (self.lease, thread) {
            (LeaseState::Lost, _) => {
                Err(Refusal::unavailable("this edge is cut off from the cluster; try again in a moment"))
            }
            // Whoever was removed from a group may not be known here yet.
            (LeaseState::Suspect, Thread::Group { .. }) => {
                Err(Refusal::unavailable("this edge is not sure of its place in the cluster; try again in a moment"))
            }
            _ => Ok(()),
        }
    }

    pub fn ready(self) -> Result<(), &'static str> {
        match self {
            Self { draining: true, .. } => Err("draining"),
            Self { beats: false, .. } => Err("no beats from the log"),
            Self { lease: LeaseState::Lost | LeaseState::Suspect, .. } => Err("the edge's lease is not held"),
            _ => Ok(()),
        }
    }
}

/// Clones share it.
#[derive(Clone)]
pub struct StatusWatch(watch::Sender<EdgeStatus>);

impl Default for StatusWatch {
    /// Before the first beat and before the lease is held.
    fn default() -> Self {
        Self(watch::Sender::new(EdgeStatus { beats: false, lease: LeaseState::Suspect, draining: false }))
    }
}

impl StatusWatch {
    pub fn now(&self) -> EdgeStatus {
        *self.0.borrow()
    }

    pub fn change(&self, f: impl FnOnce(&mut EdgeStatus)) {
        self.0.send_if_modified(|c| {
            let before = *c;
            f(c);
            *c != before
        });
    }

    pub fn watch(&self) -> watch::Receiver<EdgeStatus> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_edge_refuses_groups_and_a_lost_one_everything() {
        let dm: Thread = "dm.a.b".parse().unwrap();
        let group: Thread = "group.g".parse().unwrap();
        let at = |lease| EdgeStatus { beats: true, lease, draining: false };
        assert!(at(LeaseState::Held).may_send(&group).is_ok() && !at(LeaseState::Held).degraded());
        assert!(at(LeaseState::Suspect).may_send(&dm).is_ok() && at(LeaseState::Suspect).may_send(&group).is_err());
        assert!(at(LeaseState::Lost).may_send(&dm).is_err() && at(LeaseState::Lost).degraded());
        assert!(EdgeStatus { beats: false, ..at(LeaseState::Held) }.degraded());
        assert!(EdgeStatus { draining: true, ..at(LeaseState::Held) }.ready().is_err());
    }
}
