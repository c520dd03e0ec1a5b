//! Making an account: the row in the store first (the name is decided there), then the user's empty list of threads in
//! KV, whose presence says to everybody else that the user exists. A crash between the two is healed by the next login.
//!
//! The answer may be lost, so a registration that comes again is answered like a login. What makes it one is the
//! password: the edge counts registrations of a name as logins with it, so that nobody can try more passwords here than
//! there, and only a new account is tried at all. With an invite it goes on under the id that it had the first time.

use std::time::Duration;

use natterjack_nats::KvError;
use natterjack_protocol::{
    Code, DeviceId, Refusal, Token, UserId,
    internal::{cursors::UserCursors, rpc::DirectoryAnswer},
    log::fold::UserThreads,
    text,
};
use serde::{Deserialize, Serialize};

use super::{Directory, password_refusal, store_refusal, token_refusal};
use crate::{
    store::{
        ArchiveStore,
        accounts::{Accounts, Added, Login, NewUser, PASSWORD, name_key},
    },
    tokens::{InviteHash, mint_id},
    work_queue::QueuePermit,
};

/// Who may make an account with a name and a password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationRule {
    #[default]
    Open,
    /// Whoever has an invite of the operator.
    Invite,
    Closed,
}

/// An account this young may be registered again by who made it. Longer than a client goes on trying.
const AGAIN: Duration = Duration::from_secs(600);

impl<S: ArchiveStore + Accounts> Directory<S> {
    pub(super) async fn register(
        &self,
        name: String,
        password: String,
        device: DeviceId,
        invite: Option<Token>,
    ) -> Result<DirectoryAnswer, Refusal> {
        let invite = match (self.registration, invite) {
            (RegistrationRule::Open, _) => None,
            (RegistrationRule::Invite, code) => Some(code.ok_or_else(bad_invite)?),
            (RegistrationRule::Closed, _) => return Err(closed()),
        };
        let invite = invite.map(|code| InviteHash::of(&code));
        let place = self.password_place(self.passwords.enter())?;
        let name = text::user_name(&name).map_err(|e| e.of("name"))?;
        let password = text::password(&password).map_err(|e| e.of("password"))?;
        if let Some(login) = self.store.login(PASSWORD, &name_key(&name)).await.map_err(store_refusal)? {
            return self.register_again(&place, login, &name, password, device).await;
        }
        let key = name_key(&name);
        let minted = mint_id('u').map_err(token_refusal)?;
        let user = match invite {
            Some(code) => {
                let now = self.time.earliest_ms();
                self.store.take_invite(code, &key, &minted, now).await.map_err(store_refusal)?.ok_or_else(bad_invite)?
            }
            None => minted,
        };
        let secret = self.passwords.hash(&place, password.clone()).await.map_err(password_refusal)?;
        let login = Login { user: user.clone(), name: name.clone(), secret: secret.clone() };
        let new = NewUser { user: user.clone(), name: name.clone(), secret, created: self.time.now_ms() };
        match self.store.add_user(new).await.map_err(store_refusal)? {
            Added::Done => {}
            Added::NameTaken => {
                // Somebody was faster: the same registration, perhaps.
                let login = self.store.login(PASSWORD, &key).await.map_err(store_refusal)?;
                if let Some(code) = invite.filter(|_| login.as_ref().is_none_or(|l| l.user != user)) {
                    self.store.give_invite_back(code, &key).await.map_err(store_refusal)?;
                }
                let login = login.ok_or_else(taken)?;
                return self.register_again(&place, login, &name, password, device).await;
            }
        }
        if let Err(e) = self.make_keys(&user).await {
            tracing::warn!(%user, error = %e, "an account was made but not its keys; its first login will");
            return Err(Refusal::unavailable(
                "the account was made, but cannot be used yet; try the same again in a moment",
            ));
        }
        self.open_session(login, device).await
    }

    /// Those that every user has. Who has a list of threads exists, so it comes last.
    pub(super) async fn make_keys(&self, user: &UserId) -> Result<(), KvError> {
        self.buckets.cursors(user).create_if_absent(&UserCursors::default()).await?;
        self.buckets.threads(user).create_if_absent(&UserThreads::default()).await
    }

    /// The name is taken. By the same registration, if it is spelled the same, was made a moment ago, and the password
    /// is its own.
    async fn register_again(
        &self,
        place: &QueuePermit,
        login: Login,
        name: &str,
        password: String,
        device: DeviceId,
    ) -> Result<DirectoryAnswer, Refusal> {
        let account = self.store.account(&login.user).await.map_err(store_refusal)?;
        let age = account.map(|a| self.time.earliest_ms().saturating_sub(a.created));
        let young = age.is_some_and(|ms| u128::from(ms) <= AGAIN.as_millis());
        if !young || login.name != name {
            return Err(taken());
        }
        let login = self.with_password(place, Some(login), password).await?.ok_or_else(taken)?;
        self.heal(&login.user).await;
        self.open_session(login, device).await
    }
}

fn closed() -> Refusal {
    Refusal::new(Code::RegistrationClosed, "nobody may make an account here; ask the operator")
}

fn bad_invite() -> Refusal {
    Refusal::new(
        Code::BadInvite,
        "an account is made with an invite here: this one is missing, unknown, used up or expired",
    )
}

fn taken() -> Refusal {
    Refusal::new(Code::Conflict, "this name is taken, or one that looks like it")
}
