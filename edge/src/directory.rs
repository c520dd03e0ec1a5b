//! Asking `directory`: people, logins and relations. It may be away with the archive; then the answer is a retryable refusal.

use std::time::Duration;

use natterjack_nats::{Nats, subjects};
use natterjack_protocol::{
    Code, DeviceId, GroupId, Refusal, UserId,
    client::http::{Contact, Profile, Tokens, UserSession},
    internal::rpc::{DirectoryAnswer, DirectoryRequest, EndedLogins},
};

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

    pub async fn ask(&self, request: &DirectoryRequest) -> Result<DirectoryAnswer, Refusal> {
        self.within(request, DEADLINE).await
    }

    async fn within(&self, request: &DirectoryRequest, deadline: Duration) -> Result<DirectoryAnswer, Refusal> {
        let answer = self.nats.request(subjects::DIRECTORY, request, deadline).await;
        answer.map_err(|e| refuse(EdgeError::Ask(RoleService::Directory, e)))
    }

    pub async fn tokens(&self, request: &DirectoryRequest) -> Result<Tokens, Refusal> {
        match self.ask(request).await? {
            DirectoryAnswer::Tokens(tokens) => Ok(tokens),
            _ => Err(refuse(EdgeError::InvalidReply)),
        }
    }

    /// Of a login by a device that should be known; none: it is not, and no password was tried.
    pub async fn known_tokens(&self, request: &DirectoryRequest) -> Result<Option<Tokens>, Refusal> {
        match self.ask(request).await? {
            DirectoryAnswer::Tokens(tokens) => Ok(Some(tokens)),
            DirectoryAnswer::UnknownDevice => Ok(None),
            _ => Err(refuse(EdgeError::InvalidReply)),
        }
    }

    pub async fn done(&self, request: &DirectoryRequest) -> Result<(), Refusal> {
        self.ask(request).await.map(|_| ())
    }

    /// `device`: on which the actor asks.
    pub async fn sessions(&self, actor: UserId, device: DeviceId) -> Result<Vec<UserSession>, Refusal> {
        match self.ask(&DirectoryRequest::Sessions { actor, device }).await? {
            DirectoryAnswer::Sessions(sessions) => Ok(sessions),
            _ => Err(refuse(EdgeError::InvalidReply)),
        }
    }

    pub async fn end_sessions(&self, actor: UserId, which: EndedLogins) -> Result<u32, Refusal> {
        match self.ask(&DirectoryRequest::EndSessions { actor, which }).await? {
            DirectoryAnswer::Ended(ended) => Ok(ended),
            _ => Err(refuse(EdgeError::InvalidReply)),
        }
    }

    pub async fn profiles(&self, request: &DirectoryRequest) -> Result<Vec<Profile>, Refusal> {
        match self.ask(request).await? {
            DirectoryAnswer::Profiles(profiles) => Ok(profiles),
            _ => Err(refuse(EdgeError::InvalidReply)),
        }
    }

    pub async fn contacts(&self, actor: &UserId) -> Result<Vec<Contact>, Refusal> {
        let mut all: Vec<Contact> = Vec::new();
        loop {
            let after = all.last().map(|c| c.name.clone());
            match self.ask(&DirectoryRequest::Contacts { actor: actor.clone(), after }).await? {
                DirectoryAnswer::Contacts { contacts, more } => {
                    let go_on = more && !contacts.is_empty();
                    all.extend(contacts);
                    if !go_on {
                        return Ok(all);
                    }
                }
                _ => return Err(refuse(EdgeError::InvalidReply)),
            }
        }
    }

    /// The key of the user's threads is gone: build it again. `not_found` if there is no such user.
    pub async fn rebuild_threads(&self, user: &UserId) -> Result<(), Refusal> {
        self.done(&DirectoryRequest::RebuildThreads { user: user.clone() }).await
    }

    pub async fn rebuild_group(&self, group: &GroupId) -> Result<(), Refusal> {
        self.done(&DirectoryRequest::RebuildGroup { group: group.clone() }).await
    }

    /// Does it answer, with the archive behind it? Asked only about tokens that have just expired.
    pub async fn answers(&self, user: &UserId) -> bool {
        let probe = DirectoryRequest::Profiles { users: vec![user.clone()] };
        !matches!(self.within(&probe, Duration::from_secs(2)).await, Err(r) if r.code == Code::Unavailable)
    }
}
