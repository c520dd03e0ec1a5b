//! The layout where it stands: written by `provision` and `generation`, read by every role at start, and again when the
//! generation is over (ADR 5).

use std::time::Duration;

use futures_util::{StreamExt, future::join_all};
use tokio::time::Instant;

use crate::{
    keys,
    kv::KvError,
    layout::Layout,
    wire::{client::Nats, jetstream},
};

/// After a watch that could not be opened, or a stream that has no leader.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a role that starts waits for three servers that have just started: an election takes 4–9 s, and may have
/// to be repeated.
const ELECTIONS: Duration = Duration::from_secs(30);
/// A leader answers in well under a millisecond.
const ASKED: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("nothing is provisioned here yet; run `natterjack provision`")]
    NotProvisioned,
    #[error("the layout: {0}")]
    Kv(#[from] KvError),
    #[error("no leader after {} s for: {}; do most of the nats-servers run?", waited.as_secs(), streams.join(", "))]
    NoLeader { streams: Vec<String>, waited: Duration },
}

impl Layout {
    /// By the leader: whatever was written before is seen.
    pub async fn load(nats: &Nats) -> Result<Self, LayoutError> {
        Self::find(nats).await?.map(|(layout, _)| layout).ok_or(LayoutError::NotProvisioned)
    }

    /// Where a role begins: every stream has a leader. Waits while servers that have just started elect them; who
    /// asked earlier would be refused and end.
    pub async fn load_at_start(nats: &Nats) -> Result<Self, LayoutError> {
        let deadline = Instant::now() + ELECTIONS;
        let layout = loop {
            match Self::load(nats).await {
                Err(LayoutError::Kv(KvError::Unavailable { .. })) if Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await
                }
                other => break other?,
            }
        };
        layout.wait_for_leaders(nats, deadline.saturating_duration_since(Instant::now())).await?;
        Ok(layout)
    }

    /// Waits until every stream of this layout has a leader.
    pub async fn wait_for_leaders(&self, nats: &Nats, limit: Duration) -> Result<(), LayoutError> {
        let (started, mut streams) = (Instant::now(), self.streams());
        loop {
            let led = join_all(streams.iter().map(|name| jetstream::has_leader(nats, name, ASKED))).await;
            let mut led = led.into_iter();
            streams.retain(|_| led.next() == Some(false));
            if streams.is_empty() {
                return Ok(());
            }
            if started.elapsed() >= limit {
                return Err(LayoutError::NoLeader { streams, waited: started.elapsed() });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// With its revision.
    pub(crate) async fn find(nats: &Nats) -> Result<Option<(Self, u64)>, LayoutError> {
        match keys::layout(nats).load_with_revision().await {
            Err(KvError::NoBucket(_)) => Ok(None),
            found => Ok(found?),
        }
    }

    /// Writes it if nobody was faster.
    pub(crate) async fn store(&self, nats: &Nats, revision: u64) -> Result<u64, KvError> {
        keys::layout(nats).compare_and_set(self, revision).await
    }

    /// Waits, through every outage, for a later generation than this one. Cancel-safe.
    pub async fn next_generation(&self, nats: &Nats) -> Self {
        loop {
            if let Ok(mut changes) = keys::layout(nats).watch().await {
                while let Some(change) = changes.next().await {
                    if let Some(layout) = change.value.filter(|layout| layout.generation > self.generation) {
                        return layout;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
