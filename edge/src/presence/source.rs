//! Where presence comes from: the role, which is asked, and the directory, which knows who is whose contact.

use std::{collections::HashSet, time::Duration};

use natterjack_nats::{Layout, Nats, subjects};
use natterjack_protocol::{
    Refusal, UserId,
    client::http::ContactState,
    internal::presence::{PresenceAnswer, PresenceRequest},
};

use crate::{
    directory::Directory,
    refusals::{EdgeError, RoleService, refuse},
};

/// The role answers from memory.
const DEADLINE: Duration = Duration::from_secs(2);

pub trait PresenceSource: Clone + Send + Sync + 'static {
    fn shards(&self) -> u32;

    fn shard(&self, user: &UserId) -> u32;

    /// Of users of this shard, at most [`limits::WATCHED_USERS`](natterjack_protocol::limits::WATCHED_USERS).
    fn ask(&self, shard: u32, users: Vec<UserId>) -> impl Future<Output = Result<PresenceAnswer, Refusal>> + Send;

    /// Whose contact the user is, both having agreed.
    fn contacts(&self, user: &UserId) -> impl Future<Output = Result<HashSet<UserId>, Refusal>> + Send;
}

#[derive(Clone)]
pub struct NatsPresence {
    pub nats: Nats,
    pub layout: Layout,
    pub directory: Directory,
}

impl PresenceSource for NatsPresence {
    fn shards(&self) -> u32 {
        self.layout.kv_shards
    }

    fn shard(&self, user: &UserId) -> u32 {
        self.layout.shard(user.as_str())
    }

    async fn ask(&self, shard: u32, users: Vec<UserId>) -> Result<PresenceAnswer, Refusal> {
        let answer = self.nats.request(&subjects::presence_service(shard), &PresenceRequest { users }, DEADLINE).await;
        answer.map_err(|e| refuse(EdgeError::Ask(RoleService::Presence, e)))
    }

    async fn contacts(&self, user: &UserId) -> Result<HashSet<UserId>, Refusal> {
        let contacts = self.directory.contacts(user).await?;
        Ok(contacts.into_iter().filter(|c| c.state == ContactState::Contact).map(|c| c.user).collect())
    }
}
