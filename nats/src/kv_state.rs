//! The typed values of `groups` and `users`: what `channel` folds and edges read. A value that cannot be read is an error, never "absent":
//! overwriting it would lose membership.

use bytes::Bytes;
use natterjack_protocol::{
    GroupId, UserId,
    log::fold::{GroupState, UserThreads},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    kv::{Kv, KvBuckets, KvError},
    subjects,
};

#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("the value of {key} cannot be read: {reason}")]
    Corrupt { key: String, reason: String },
}

impl KvBuckets {
    pub async fn load_group(&self, gid: &GroupId) -> Result<Option<(GroupState, u64)>, StateError> {
        load(&self.groups(gid), gid.as_str()).await
    }

    /// `revision` 0: there must be none yet.
    pub async fn cas_group(&self, gid: &GroupId, group: &GroupState, revision: u64) -> Result<u64, KvError> {
        self.groups(gid).cas(gid.as_str(), encode(group), revision).await
    }

    /// None: the user does not exist, or the key was lost; never "no threads".
    pub async fn load_threads(&self, uid: &UserId) -> Result<Option<(UserThreads, u64)>, StateError> {
        load(&self.users(uid), &subjects::threads_key(uid)).await
    }

    pub async fn cas_threads(&self, uid: &UserId, threads: &UserThreads, revision: u64) -> Result<u64, KvError> {
        self.users(uid).cas(&subjects::threads_key(uid), encode(threads), revision).await
    }

    /// At registration. A key that is there already is left as it is.
    pub async fn create_empty_threads(&self, uid: &UserId) -> Result<(), KvError> {
        match self.cas_threads(uid, &UserThreads::default(), 0).await {
            Ok(_) | Err(KvError::Conflict) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Does the user exist, also with the archive away? Same read as `load_threads` without understanding the value.
    pub async fn user_exists(&self, uid: &UserId) -> Result<bool, KvError> {
        Ok(self.threads_bytes(uid).await?.is_some())
    }

    /// The size of the user's threads; none: there is no such user, or the key was lost.
    pub async fn threads_bytes(&self, uid: &UserId) -> Result<Option<usize>, KvError> {
        Ok(self.users(uid).get(&subjects::threads_key(uid)).await?.map(|(value, _)| value.len()))
    }
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    rmp_serde::to_vec_named(value).expect("state has string keys and plain values").into()
}

async fn load<T: DeserializeOwned>(kv: &Kv, key: &str) -> Result<Option<(T, u64)>, StateError> {
    let Some((value, revision)) = kv.get(key).await? else { return Ok(None) };
    match rmp_serde::from_slice(&value) {
        Ok(state) => Ok(Some((state, revision))),
        Err(e) => Err(StateError::Corrupt { key: key.to_owned(), reason: e.to_string() }),
    }
}
