//! The keys of users' cursors: read from the leader, changed by compare-and-set, restored from the archive when they
//! were lost.

use std::time::Duration;

use natterjack_nats::{KvBuckets, KvError, TreeChange, calls::directory::restore_cursors};
use natterjack_protocol::{Refusal, UserId, internal::cursors::UserCursors};
use tokio::time::sleep;

use crate::{directory::Directory, refusals::refuse};

/// Of a compare-and-set that others were faster than: two of a user's devices on two edges need two.
const ATTEMPTS: u32 = 20;

pub struct StoredCursors {
    buckets: KvBuckets,
    directory: Directory,
}

impl StoredCursors {
    pub fn new(buckets: &KvBuckets, directory: &Directory) -> Self {
        Self { buckets: buckets.clone(), directory: directory.clone() }
    }

    /// By the leader. What is gone was lost, and is restored first.
    pub async fn load(&self, user: &UserId) -> Result<UserCursors, Refusal> {
        let key = self.buckets.cursors(user);
        if let Some(stands) = key.load().await.map_err(refuse)? {
            return Ok(stands);
        }
        self.restore(user).await?;
        key.load().await.map_err(refuse)?.ok_or_else(being_restored)
    }

    async fn restore(&self, user: &UserId) -> Result<(), Refusal> {
        tracing::warn!(%user, "how far a user has read is lost; it is restored from the archive");
        self.directory.ask(restore_cursors(user)).await.map(drop)
    }

    /// See [`KvTree::change`](natterjack_nats::KvTree::change). What is lost is restored first, and who is faster is
    /// given way. The whole as it stands then, if it is under one key.
    pub async fn change<C>(
        &self,
        user: &UserId,
        mut known: Option<(UserCursors, u64)>,
        changes: impl Fn() -> Vec<(u64, C)>,
        mut apply: impl FnMut(&mut UserCursors, &[(u64, C)]) -> bool,
    ) -> Result<Option<(UserCursors, u64)>, Refusal> {
        let (key, mut restored) = (self.buckets.cursors(user), false);
        for attempt in 1.. {
            match key.change(known.take(), changes(), &mut apply).await {
                Ok(TreeChange::Done { whole }) => return Ok(whole),
                Ok(TreeChange::Lost) if restored => break,
                Ok(TreeChange::Lost) => {
                    self.restore(user).await?;
                    restored = true;
                }
                Err(KvError::Conflict) if attempt < ATTEMPTS => {
                    sleep(Duration::from_millis(rand::random_range(0..=2 << attempt.min(6)))).await;
                }
                Err(e) => return Err(refuse(e)),
            }
        }
        Err(being_restored())
    }
}

fn being_restored() -> Refusal {
    Refusal::unavailable("how far you have read is being restored: try again in a moment")
}
