//! Presence as this edge's clients see it: the state of each user that a session here watches, and of that what each
//! watcher is allowed to see.
//!
//! `desk` is the task: it hears batches, asks the role, pushes to watchers; others reach it through `handle`.
//! `hearing` notices missing batches and silent shards, `watching` knows who watches whom (both pure). `choice` is what
//! users set for themselves, `source` is where all of it comes from.

pub mod choice;
pub mod desk;
pub mod handle;
pub mod hearing;
pub mod source;
pub mod watching;

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use natterjack_protocol::{
    Refusal, Thread, UserId,
    client::{
        frame::Request,
        presence::{PresenceOf, PresenceVisibility},
    },
    internal::presence::UserPresence,
    limits,
};

use self::{
    choice::{Choices, SeesTyping},
    handle::PresenceHandle,
    source::{NatsPresence, PresenceSource},
    watching::{Standing, view},
};
use crate::{people::People, sessions::handle::SessionHandle};

/// A shard of which nothing was heard for so long is unknown. It says something every second.
pub const SILENCE: Duration = Duration::from_secs(3);

/// What sessions and HTTP handlers use. Clones share it.
#[derive(Clone)]
pub struct Presence {
    pub desk: PresenceHandle,
    pub source: NatsPresence,
    pub people: People,
    pub choices: Choices,
}

impl Presence {
    /// The session watches these users, or its user's contacts; answered with a frame.
    pub async fn watch(
        &self,
        session: Arc<SessionHandle>,
        users: Option<Vec<UserId>>,
        r: Request,
    ) -> Result<(), Refusal> {
        if let Some(users) = &users {
            not_too_many("users", users)?;
        }
        let contacts = self.source.contacts(&session.user).await;
        let users = match (users, &contacts) {
            (Some(users), _) => users,
            (None, Ok(contacts)) => contacts.iter().take(limits::WATCHED_USERS).cloned().collect(),
            (None, Err(e)) => return Err(e.clone()),
        };
        self.desk.watch(session, users, contacts, r).await
    }

    /// Who of the thread may be shown that the session's user types?
    pub async fn who_sees_typing(&self, session: &SessionHandle, thread: &Thread) -> SeesTyping {
        self.choices.who_sees_typing(&session.state, thread, &self.source, &self.people).await
    }

    /// How these users are shown to `actor`, asked once: for those whom nobody watches, in a large group for instance.
    pub async fn pull(&self, actor: &UserId, users: Vec<UserId>) -> Result<Vec<PresenceOf>, Refusal> {
        not_too_many("query: users", &users)?;
        let known = self.known(&users).await;
        let threads = self.people.threads(actor).await?.threads;
        // Most people let everybody see it.
        let asks = known.iter().any(|u| u.settings.visibility == PresenceVisibility::Contacts);
        let contacts = if asks { self.source.contacts(actor).await? } else { HashSet::new() };
        let seen = |known: UserPresence| {
            let item = threads.get(&Thread::dm(actor, &known.user));
            let standing = Standing {
                contact: contacts.contains(&known.user),
                blocked: item.is_some_and(|item| item.blocks || item.blocked_by),
                own: known.user == *actor,
            };
            let (state, last_seen) = view(&known, false, standing);
            PresenceOf { user: known.user, state, last_seen }
        };
        Ok(known.into_iter().map(seen).collect())
    }

    /// Whoever cannot be asked for is unknown.
    async fn known(&self, users: &[UserId]) -> Vec<UserPresence> {
        let shards: HashSet<u32> = users.iter().map(|user| self.source.shard(user)).collect();
        let asks = shards.into_iter().map(|shard| {
            let of_shard: Vec<UserId> = users.iter().filter(|user| self.source.shard(user) == shard).cloned().collect();
            async move {
                match self.source.ask(shard, of_shard.clone()).await {
                    Ok(answer) => answer.users,
                    Err(e) => {
                        tracing::debug!(shard, error = %e, "presence did not answer");
                        of_shard.into_iter().map(UserPresence::unknown).collect()
                    }
                }
            }
        });
        join_all(asks).await.into_iter().flatten().collect()
    }
}

fn not_too_many(what: &str, users: &[UserId]) -> Result<(), Refusal> {
    let (count, most) = (users.len(), limits::WATCHED_USERS);
    if count > most {
        return Err(Refusal::invalid(format!("{what}: {count} of them, at most {most} are allowed")));
    }
    Ok(())
}
