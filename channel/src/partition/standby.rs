//! Standing by: waits for the lease, and looks how far the holder is, so that what it has published is dropped.

use natterjack_nats::{Position, Positions, RoleLease};
use natterjack_role::Partition as Assigned;
use tokio::time::{Instant, sleep};

use super::SAVE;
use crate::in_flight::InFlight;

/// Between attempts to read the last holder's position.
const RETRY: std::time::Duration = std::time::Duration::from_millis(100);

pub(super) struct Standby {
    at: Assigned,
    acquiring: InFlight<(RoleLease, Option<Position>)>,
    holder_at: InFlight<Option<Position>>,
    looked_at: Instant,
    /// Another instance publishes, or did when this one began.
    stood_by: bool,
}

pub(super) enum StandbyEvent {
    /// The lease is ours, and the last holder left this position.
    Acquired(RoleLease, Option<Position>),
    /// The holder has published up to here; none: not known.
    HolderAt(Option<Position>),
}

impl Standby {
    /// `stood_by`: another instance is known to publish.
    pub fn new(at: &Assigned, lease: RoleLease, stood_by: bool) -> Self {
        let mut acquiring = InFlight::default();
        acquiring.start(acquire(lease, at.positions.clone(), at.p));
        Self { at: at.clone(), acquiring, holder_at: InFlight::default(), looked_at: Instant::now(), stood_by }
    }

    pub fn stood_by(&self) -> bool {
        self.stood_by
    }

    /// Cancel-safe.
    pub async fn next(&mut self) -> StandbyEvent {
        tokio::select! {
            biased;
            (lease, position) = self.acquiring.finished() => StandbyEvent::Acquired(lease, position),
            position = self.holder_at.finished() => StandbyEvent::HolderAt(position),
        }
    }

    /// Called with each maintenance.
    pub fn look(&mut self) {
        if self.looked_at.elapsed() < SAVE || !self.holder_at.is_idle() {
            return;
        }
        self.looked_at = Instant::now();
        // Half a second after the start a lease that is free is ours.
        self.stood_by = true;
        let (positions, p) = (self.at.positions.clone(), self.at.p);
        self.holder_at.start(async move { positions.load(p).await.ok().flatten() });
    }
}

async fn acquire(mut lease: RoleLease, positions: Positions, p: u32) -> (RoleLease, Option<Position>) {
    lease.acquire().await;
    loop {
        match positions.load(p).await {
            Ok(position) => return (lease, position),
            Err(e) => {
                tracing::warn!(
                    partition = p, error = %e,
                    "the position of the last holder cannot be read; trying again"
                )
            }
        }
        sleep(RETRY).await;
    }
}
