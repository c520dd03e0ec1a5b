//! This edge's own lease: that it lives, for the others to see (`edges`).
//!
//! A lease says where (`address`), how full, leaving or not, and whether beats reach the edge. The lease and the beats
//! together make the `EdgeStatus`.

use std::time::Duration;

use natterjack_nats::{EdgeLease, LeaseState};
use natterjack_protocol::{
    Times,
    client::{close, frame::ServerFrame},
    internal::kv::EdgeInfo,
};
use natterjack_runtime::Health;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{admission::limits::AdmissionLimits, clock::Clock, sessions::Sessions, status::StatusWatch};

/// Beats come once a second; an election takes 4–9 s.
const START: Duration = Duration::from_secs(15);

/// This edge's own lease, and what follows from it. Runs until dropped.
pub struct LeaseKeeper {
    pub lease: EdgeLease,
    pub value: EdgeInfo,
    pub status: StatusWatch,
    pub sessions: Sessions,
    /// See [`EdgeInfo::sessions_in`].
    pub sessions_in: watch::Receiver<Vec<u64>>,
    pub limiter: AdmissionLimits,
    pub clock: Clock,
    pub health: Health,
    pub times: Times,
}

/// The machine, or the container of it, whose addresses this process has: those that share them have the same.
pub fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let network = std::fs::read_link("/proc/self/ns/net");
    match (boot, network) {
        (Ok(boot), Ok(network)) => format!("{} {}", boot.trim(), network.display()),
        // Not to be found out: nobody else's.
        _ => uuid::Uuid::now_v7().to_string(),
    }
}

impl LeaseKeeper {
    pub async fn keep(&mut self) {
        let (mut beats, mut lease, mut status) = (self.clock.watch(), self.lease.state(), self.status.watch());
        let mut lost_since: Option<Instant> = None;
        // A start is not well before the first beats: no news, unless it lasts.
        let (mut told, mut started, began) = (false, false, Instant::now());
        loop {
            let now = *lease.borrow_and_update();
            // Looked at here as well: who should notice a silence may itself be what stands still.
            beats.mark_unchanged();
            self.clock.look();
            self.status.change(|c| {
                c.beats = self.clock.all_alive();
                c.lease = now;
            });
            let condition = *status.borrow_and_update();
            self.lease_value(condition.draining, condition.beats);
            self.health.set("edge", condition.ready().map_err(str::to_owned));
            if condition.degraded() != told {
                told = condition.degraded();
                if told && started {
                    tracing::warn!(beats = condition.beats, lease = ?condition.lease, "this edge is cut off from the \
                        log, or the log stands still");
                } else if started {
                    tracing::info!("this edge is in touch with the log again");
                }
                metrics::gauge!(crate::metrics::DEGRADED).set(f64::from(u8::from(told)));
                self.sessions.tell(&ServerFrame::Degraded { on: told });
            }
            if told && !started && began.elapsed() >= START {
                tracing::warn!(beats = condition.beats, lease = ?condition.lease, "nothing is heard from the log yet: \
                    does a channel run?");
                started = true;
            }
            started |= !told;
            match (now, lost_since) {
                (LeaseState::Lost, None) => lost_since = Some(Instant::now()),
                (LeaseState::Lost, Some(since)) if since.elapsed() >= self.times.suspend => {
                    // Others may have given this edge up long ago: whoever is still here must resume elsewhere.
                    for session in self.sessions.all() {
                        session.outbox.close(close::UNAVAILABLE);
                    }
                }
                (LeaseState::Lost, Some(_)) => {}
                (LeaseState::Held | LeaseState::Suspect, _) => lost_since = None,
            }
            // The number of sessions goes out with this beat, too.
            let next = Instant::now() + self.times.edge_refresh.min(self.times.suspend);
            tokio::select! {
                Ok(()) = beats.changed() => {}
                Ok(()) = lease.changed() => {}
                Ok(()) = status.changed() => {}
                Ok(()) = self.sessions_in.changed() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    fn lease_value(&mut self, draining: bool, healthy: bool) {
        let (sessions, unheeded) = (self.sessions.len() as u32, self.limiter.unheeded());
        let sessions_in = self.sessions_in.borrow_and_update().clone();
        self.value = EdgeInfo { sessions, draining, healthy, sessions_in, unheeded, ..self.value.clone() };
        self.lease.set(self.value.clone());
    }
}
