//! Looking people up: by the beginning of a name, or by id.

use natterjack_protocol::{Refusal, UserId, client::http::Profile, internal::rpc::DirectoryAnswer, limits};

use super::{Directory, store_refusal};
use crate::store::accounts::{Accounts, Prefix};

/// At most this many in one request: everybody who ever was in a group.
const PROFILES: usize = limits::GROUP_EVER;

impl<S: Accounts> Directory<S> {
    pub(super) async fn find(&self, prefix: &str) -> Result<DirectoryAnswer, Refusal> {
        let found: Vec<Profile> = match Prefix::of(prefix).map_err(|e| e.of("prefix"))? {
            Some(prefix) => self.store.find(&prefix, limits::FIND_USERS).await.map_err(store_refusal)?,
            None => Vec::new(),
        };
        Ok(DirectoryAnswer::Profiles(found))
    }

    /// Those that exist; the others are left out.
    pub(super) async fn profiles(&self, users: &[UserId]) -> Result<DirectoryAnswer, Refusal> {
        if users.len() > PROFILES {
            return Err(Refusal::invalid(format!("users: at most {PROFILES} in one request")));
        }
        Ok(DirectoryAnswer::Profiles(self.store.profiles(users).await.map_err(store_refusal)?))
    }
}
