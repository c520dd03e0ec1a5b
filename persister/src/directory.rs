//! The service `directory`: people, their logins and relations, and the keys in KV that say who is in which thread.
//! Beside the path of a message: edges ask it for an authenticated user (or to authenticate one), it asks the store.
//!
//! Costly work waits in queues of its own (`work_queue`), so that neither a storm of logins nor a lost bucket keeps
//! others from an answer.

use std::{sync::Arc, time::Duration};

use natterjack_nats::{KvBuckets, KvError, Layout, Nats, ServeError, ServerTime, serve, subjects};
use natterjack_protocol::{
    Code, Refusal, Times,
    internal::rpc::{DirectoryAnswer, DirectoryRequest},
};
use natterjack_runtime::Health;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    external::External,
    password::{Cost, PasswordError, Passwords},
    store::{ArchiveError, ArchiveStore, accounts::Accounts},
    tokens::{KeyTimes, TokenError},
    work_queue::{QueuePermit, WorkQueue},
};

mod change_password;
mod contacts;
mod deletion;
mod departure;
mod expired;
mod external;
mod find;
mod issuer;
pub mod keys;
mod login;
mod operators;
mod rebuild;
pub mod refold;
mod register;
mod restore;
mod revoke;
mod sessions;

use issuer::{Issuer, IssuerError};
use keys::{Keys, KeysError};
pub use register::RegistrationRule;
use revoke::Revocations;

const PART: &str = "directory";
/// Requests at once besides those in a line: store reads of a millisecond. Overflow: `unavailable`.
const OTHERS: usize = 256;
/// Requests of operators at once. Overflow: `unavailable`.
const OPERATORS: usize = 8;
/// Rebuilds at once, and how many wait: each reads what the archive lacks of the log.
const REBUILDS: usize = 4;
const REBUILDS_WAITING: usize = 64;
const SWEEP: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("password hashing: {0}")]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// What a request needs.
struct Directory<S> {
    store: S,
    nats: Nats,
    buckets: KvBuckets,
    times: Times,
    time: ServerTime,
    keys: Keys,
    revocations: Revocations,
    passwords: Passwords,
    rebuilds: WorkQueue,
    registration: RegistrationRule,
    name_hold: Duration,
    /// Told when a deletion has begun here.
    begun: Notify,
    /// None: tokens of others are not taken.
    issuer: Option<Issuer>,
}

/// How people log in.
#[derive(Debug, Clone)]
pub struct Logins {
    /// What one password hash costs.
    pub password: Cost,
    pub registration: RegistrationRule,
    /// For so long nobody else gets a name that was given up.
    pub name_hold: Duration,
    /// Whose tokens are taken besides.
    pub external: Option<External>,
}

/// What it stands on.
pub struct Base<S> {
    pub nats: Nats,
    pub layout: Layout,
    pub store: S,
    pub times: Times,
    pub time: ServerTime,
}

/// Serves until `stop`, then finishes what it has begun.
pub async fn run<S: ArchiveStore + Accounts>(
    base: Base<S>,
    logins: Logins,
    health: Health,
    stop: CancellationToken,
) -> Result<(), DirectoryError> {
    let Base { nats, layout, store, times, time } = base;
    health.set(PART, Err("starting".into()));
    let passwords = Passwords::start(&logins.password).await?;
    let issuer = logins.external.map(|rules| Issuer::new(rules, time.clone())).transpose()?;
    let buckets = KvBuckets::new(&nats, layout);
    let Some(keys) = first_key(&buckets, KeyTimes::new(&times), &time, &health, &stop).await else { return Ok(()) };
    let revocations = Revocations::new(&buckets, KeyTimes::new(&times), time.clone());
    let directory = Arc::new(Directory {
        store,
        nats: nats.clone(),
        buckets,
        times,
        time,
        keys,
        revocations,
        passwords,
        rebuilds: WorkQueue::new("rebuild", REBUILDS, REBUILDS_WAITING),
        registration: logins.registration,
        name_hold: logins.name_hold,
        begun: Notify::new(),
        issuer,
    });
    let waiting = directory.issuer.as_ref().map_or(0, Issuer::capacity);
    let permits = directory.passwords.capacity() + directory.rebuilds.capacity() + waiting + OTHERS;
    let answering = directory.clone();
    let answer = move |request| {
        let directory = answering.clone();
        // On the heap: the sum of all requests' states is large, and most requests need little of it.
        async move { Box::pin(directory.answer(request)).await }
    };
    let service = serve(&nats, subjects::DIRECTORY.into(), Some(subjects::DIRECTORY), permits, answer).await?;
    let operating = directory.clone();
    let operate = move |request| {
        let directory = operating.clone();
        async move { Box::pin(directory.operate(request)).await }
    };
    let operators = serve(&nats, subjects::OPERATORS.into(), Some(subjects::OPERATORS), OPERATORS, operate).await?;
    health.set(PART, Ok(()));
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        // None of them ends; dropping them loses nothing but a rotation or a sweep that comes again.
        () = directory.keys.run() => {}
        () = directory.revocations.run() => {}
        () = directory.sweep() => {}
        () = directory.fetch_keys() => {}
        // On the heap: it is large, and there is hardly ever a deletion.
        () = Box::pin(directory.clear_deleted()) => {}
    }
    service.drain().await;
    operators.drain().await;
    health.remove(PART);
    Ok(())
}

/// Waits for the bucket: without a published key nobody could use what we sign. None: stopped before.
async fn first_key(
    buckets: &KvBuckets,
    times: KeyTimes,
    time: &ServerTime,
    health: &Health,
    stop: &CancellationToken,
) -> Option<Keys> {
    loop {
        let why: KeysError = match Keys::start(buckets, times, time.clone()).await {
            Ok(keys) => return Some(keys),
            Err(e) => e,
        };
        tracing::warn!(error = %why, "directory waits");
        health.set(PART, Err(why.to_string()));
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

impl<S: ArchiveStore + Accounts> Directory<S> {
    async fn answer(&self, request: DirectoryRequest) -> Result<DirectoryAnswer, Refusal> {
        match request {
            DirectoryRequest::Register { name, password, device, invite } => {
                self.register(name, password, device, invite).await
            }
            DirectoryRequest::Login { name, password, device, known } => {
                self.login(&name, password, device, known).await
            }
            DirectoryRequest::LoginExternal { token, device } => self.login_external(&token, device).await,
            DirectoryRequest::Refresh { refresh } => self.refresh(&refresh).await,
            DirectoryRequest::Logout { refresh } => self.logout(&refresh).await,
            DirectoryRequest::Sessions { actor, device } => self.sessions(&actor, &device).await,
            DirectoryRequest::EndSessions { actor, which } => self.end_sessions(&actor, &which).await,
            DirectoryRequest::ChangePassword { actor, family, old, new } => {
                self.change_password(&actor, family, old, new).await
            }
            DirectoryRequest::DeleteAccount { actor, proof } => self.delete_account(&actor, proof).await,
            // Whom somebody finds does not depend on who asks.
            DirectoryRequest::Find { prefix, actor: _ } => self.find(&prefix).await,
            DirectoryRequest::Profiles { users } => self.profiles(&users).await,
            DirectoryRequest::Contacts { actor, after } => self.contacts(&actor, after).await,
            DirectoryRequest::Contact { actor, other, change } => self.contact(&actor, &other, change).await,
            DirectoryRequest::RebuildThreads { user } => {
                self.rebuild_threads(&user).await.map(|()| DirectoryAnswer::Done)
            }
            DirectoryRequest::RebuildGroup { group } => {
                self.rebuild_group(&group).await.map(|()| DirectoryAnswer::Done)
            }
            DirectoryRequest::RestoreCursors { user } => {
                self.restore_cursors(&user).await.map(|()| DirectoryAnswer::Done)
            }
        }
    }

    fn password_place(&self, place: Option<QueuePermit>) -> Result<QueuePermit, Refusal> {
        place.ok_or_else(|| {
            let wait = self.passwords.retry_after().as_millis().try_into().unwrap_or(u64::MAX);
            let refusal = Refusal::new(Code::RateLimited, "many people are logging in; try again in a moment");
            Refusal { retry_after_ms: Some(wait), ..refusal }
        })
    }

    async fn fetch_keys(&self) {
        match &self.issuer {
            Some(issuer) => issuer.run().await,
            None => std::future::pending().await,
        }
    }

    async fn sweep(&self) {
        let mut tick = tokio::time::interval(SWEEP);
        loop {
            tick.tick().await;
            match self.store.sweep(self.time.earliest_ms()).await {
                Ok(0) => {}
                Ok(gone) => tracing::debug!(gone, "expired refresh tokens were cleared away"),
                Err(e) => tracing::warn!(error = %e, "expired tokens and names could not be cleared away"),
            }
        }
    }
}

fn internal() -> Refusal {
    Refusal::new(Code::Internal, "something went wrong on the server")
}

fn store_refusal(e: ArchiveError) -> Refusal {
    match e {
        ArchiveError::Unavailable(_) => {
            tracing::warn!(error = %e, "the store is away");
            Refusal::unavailable("accounts cannot be read now; try again in a moment")
        }
        ArchiveError::Corrupt(_) | ArchiveError::Constraint(_) | ArchiveError::Failed(_) => {
            tracing::error!(error = %e, "the store failed");
            internal()
        }
    }
}

fn kv_refusal(e: KvError) -> Refusal {
    match e {
        KvError::Corrupt { .. } => {
            tracing::error!(error = %e, "a key cannot be read");
            internal()
        }
        _ => {
            tracing::warn!(error = %e, "a bucket is away");
            Refusal::unavailable("membership cannot be read now; try again in a moment")
        }
    }
}

fn password_refusal(e: PasswordError) -> Refusal {
    tracing::error!(error = %e, "a password could not be hashed or checked");
    internal()
}

fn token_refusal(e: TokenError) -> Refusal {
    tracing::error!(error = %e, "a token could not be made");
    if matches!(e, TokenError::KeyTooOld) {
        Refusal::unavailable("nobody can log in now; try again in a moment")
    } else {
        internal()
    }
}
