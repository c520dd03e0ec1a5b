//! Looking people up: by the beginning of a name, or by id.

use natterjack_protocol::{
    Refusal, UserId, limits,
    rpc::{DirectoryAnswer, Profile},
};

use super::{Directory, register::is_name, store_refusal};
use crate::store::accounts::{Accounts, name_key};

/// At most this many in one request: everybody who ever was in a group.
const PROFILES: usize = limits::GROUP_EVER;

impl<S: Accounts> Directory<S> {
    pub(super) async fn find(&self, prefix: &str) -> Result<DirectoryAnswer, Refusal> {
        if prefix.chars().count() < limits::USER_NAME_MIN {
            return Err(Refusal::invalid(format!("prefix: at least {} characters", limits::USER_NAME_MIN)));
        }
        // No name begins with what is no name.
        let found: Vec<Profile> =
            if is_name(prefix) { self.store.find(&name_key(prefix), limits::FIND_USERS).await.map_err(store_refusal)? } else { Vec::new() };
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
