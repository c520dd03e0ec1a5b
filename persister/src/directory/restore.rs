//! The key of a user's cursors was lost (a bucket, or a crash during registration): writes it again from the archive.

use natterjack_protocol::{Code, Refusal, UserId};

use super::{Directory, kv_refusal, store_refusal};
use crate::store::{ArchiveStore, accounts::Accounts};

impl<S: ArchiveStore + Accounts> Directory<S> {
    /// Whatever an edge has written there meanwhile stays.
    pub(super) async fn restore_cursors(&self, user: &UserId) -> Result<(), Refusal> {
        let profiles = self.store.profiles(std::slice::from_ref(user)).await.map_err(store_refusal)?;
        if profiles.iter().all(|p| p.deleted) {
            return Err(Refusal::new(Code::NotFound, "no such user"));
        }
        let archived = self.store.cursors(user).await.map_err(store_refusal)?.unwrap_or_default();
        self.buckets.cursors(user).merge(archived).await.map_err(kv_refusal)?;
        metrics::counter!(crate::metrics::DIRECTORY_REBUILT, "key" => "cursors").increment(1);
        tracing::info!(%user, "how far a user has read was restored");
        Ok(())
    }
}
