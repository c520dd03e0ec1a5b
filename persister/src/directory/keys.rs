//! The signing keys of this instance: made at start, published before they sign, rotated, and cleared away long after
//! they end. Edges read the public halves from the control bucket; the private half stays here.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use natterjack_nats::{KvBuckets, KvError, ServerTime};
use parking_lot::RwLock;

use super::expired::Expired;
use crate::tokens::{KeyTimes, SigningKey, TokenError};

/// A new key is there this long before it signs, so that every edge has it by then (the first one of an instance has no
/// time for that: an edge that does not know a key asks the bucket).
const LEAD: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("a signing key: {0}")]
    Token(#[from] TokenError),
    #[error("publishing a signing key: {0}")]
    Kv(#[from] KvError),
}

pub struct Keys {
    buckets: KvBuckets,
    times: KeyTimes,
    time: ServerTime,
    current: RwLock<Arc<SigningKey>>,
}

impl Keys {
    /// Makes and publishes the first key.
    pub async fn start(buckets: &KvBuckets, times: KeyTimes, time: ServerTime) -> Result<Self, KeysError> {
        let key = SigningKey::generate(time.now_ms(), times)?;
        publish(buckets, &key).await?;
        Ok(Self { buckets: buckets.clone(), times, time, current: RwLock::new(Arc::new(key)) })
    }

    /// One that what it signs now does not outlive.
    pub fn current(&self) -> Result<Arc<SigningKey>, TokenError> {
        let key = self.current.read().clone();
        if key.can_sign(Instant::now()) { Ok(key) } else { Err(TokenError::KeyTooOld) }
    }

    /// Rotates and clears away until it is dropped; never returns. A failure is tried again at the next tick: the old
    /// key signs on, until what it signs would outlive it.
    pub async fn run(&self) {
        // Often enough that a rotation is late by a quarter at most, also when tests scale it down.
        let mut tick = tokio::time::interval(
            Duration::from_millis(self.times.rotation / 4).clamp(Duration::from_millis(50), LEAD),
        );
        let mut old = Expired::new(self.buckets.signing_keys());
        loop {
            tick.tick().await;
            if self.current.read().is_due(Instant::now())
                && let Err(e) = self.rotate().await
            {
                tracing::warn!(error = %e, "the signing key could not be rotated; trying again");
            }
            // Whose key it was does not matter: an instance that ended leaves its keys to the others.
            if let Err(e) = old.clear(self.time.earliest_ms()).await {
                tracing::warn!(error = %e, "expired signing keys could not be cleared away; trying again");
            }
        }
    }

    async fn rotate(&self) -> Result<(), KeysError> {
        let next = SigningKey::generate(self.time.now_ms(), self.times)?;
        publish(&self.buckets, &next).await?;
        tokio::time::sleep(LEAD.min(Duration::from_millis(self.times.rotation / 10))).await;
        tracing::info!(kid = %next.kid, "a new key signs access tokens");
        *self.current.write() = Arc::new(next);
        Ok(())
    }
}

async fn publish(buckets: &KvBuckets, key: &SigningKey) -> Result<(), KvError> {
    buckets.signing_key(&key.kid).put(&key.public()).await.map(drop)
}
