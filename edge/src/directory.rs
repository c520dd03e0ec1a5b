//! Asking `directory`: people, logins and relations. It may be away with the archive; then the answer is a retryable
//! refusal.

use std::time::Duration;

use natterjack_nats::{
    Nats,
    calls::directory::{self, DirectoryCall},
};
use natterjack_protocol::{Code, GroupId, Refusal, UserId, client::http::Contact};

use crate::refusals::{EdgeError, RoleService, refuse};

/// Longer than a queue of password hashes that the service still accepts.
const DEADLINE: Duration = Duration::from_secs(15);

#[derive(Clone)]
pub struct Directory {
    nats: Nats,
}

impl Directory {
    pub fn new(nats: &Nats) -> Self {
        Self { nats: nats.clone() }
    }

    pub async fn ask<A>(&self, call: DirectoryCall<A>) -> Result<A, Refusal> {
        self.within(call, DEADLINE).await
    }

    async fn within<A>(&self, call: DirectoryCall<A>, deadline: Duration) -> Result<A, Refusal> {
        self.nats.call(&call, deadline).await.map_err(|e| refuse(EdgeError::Ask(RoleService::Directory, e)))
    }

    pub async fn contacts(&self, actor: &UserId) -> Result<Vec<Contact>, Refusal> {
        let mut all: Vec<Contact> = Vec::new();
        loop {
            let after = all.last().map(|c| c.name.clone());
            let (contacts, more) = self.ask(directory::contacts(actor.clone(), after)).await?;
            let go_on = more && !contacts.is_empty();
            all.extend(contacts);
            if !go_on {
                return Ok(all);
            }
        }
    }

    /// The key of the user's threads is gone: build it again. `not_found` if there is no such user.
    pub async fn rebuild_threads(&self, user: &UserId) -> Result<(), Refusal> {
        self.ask(directory::rebuild_threads(user)).await
    }

    pub async fn rebuild_group(&self, group: &GroupId) -> Result<(), Refusal> {
        self.ask(directory::rebuild_group(group)).await
    }

    /// Does it answer, with the archive behind it? Asked only about tokens that have just expired.
    pub async fn answers(&self, user: &UserId) -> bool {
        let probe = directory::profiles(vec![user.clone()]);
        !matches!(self.within(probe, Duration::from_secs(2)).await, Err(r) if r.code == Code::Unavailable)
    }
}
