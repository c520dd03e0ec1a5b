//! Logging in, refreshing, logging out.
//!
//! Each refresh token is good for one use and gives the next one. An answer may be lost, and two tabs may renew at the
//! same moment, so for a minute, and until the next one is used, the old one gives the same next one again; afterwards
//! it betrays that two have it, and ends the login. The same one, not another: of two that were given, one would have
//! to be taken away from somebody.

use natterjack_protocol::{
    Code, DeviceId, Refusal, UserId, client::http::Tokens, internal::rpc::DirectoryAnswer, text,
};

use super::{Directory, password_refusal, store_refusal, token_refusal};
use crate::{
    store::{
        ArchiveStore,
        accounts::{Accounts, Family, Login, NextToken, OpenLogin, PASSWORD, Rotated, Use, name_key},
    },
    tokens::{RefreshSecret, Salt, mint_id},
    work_queue::QueuePermit,
};

fn no_such_login() -> Refusal {
    Refusal::new(Code::Unauthorized, "name and password do not fit")
}

fn log_in_again() -> Refusal {
    Refusal::new(Code::Unauthorized, "this refresh token is not good any more: log in again")
}

impl<S: ArchiveStore + Accounts> Directory<S> {
    /// `known`: only for a device that has logged in before. It waits where no stranger can.
    pub(super) async fn login(
        &self,
        name: &str,
        password: String,
        device: DeviceId,
        known: bool,
    ) -> Result<DirectoryAnswer, Refusal> {
        let place = if known {
            let Some(login) = self.named(name).await? else { return Ok(DirectoryAnswer::UnknownDevice) };
            if !self.store.has_device(&login.user, &device).await.map_err(store_refusal)? {
                return Ok(DirectoryAnswer::UnknownDevice);
            }
            self.password_place(self.passwords.enter_known())?
        } else {
            self.password_place(self.passwords.enter())?
        };
        // Nobody has such a password; says nothing about the name.
        let password = text::password(&password).map_err(|_| no_such_login())?;
        let login = self.named(name).await?;
        let login = self.with_password(&place, login, password).await?.ok_or_else(no_such_login)?;
        self.heal(&login.user).await;
        self.open_session(login, device).await
    }

    /// A name that only looks like theirs is nobody's.
    async fn named(&self, name: &str) -> Result<Option<Login>, Refusal> {
        let Ok(kept) = text::user_name(name) else { return Ok(None) };
        let login = self.store.login(PASSWORD, &name_key(&kept)).await.map_err(store_refusal)?;
        Ok(login.filter(|l| text::same_user(&l.name, name)))
    }

    /// The login if the password is its own; takes as long for none.
    pub(super) async fn with_password(
        &self,
        place: &QueuePermit,
        login: Option<Login>,
        password: String,
    ) -> Result<Option<Login>, Refusal> {
        let secret = login.as_ref().map(|l| l.secret.clone());
        let fits = self.passwords.check(place, password, secret).await.map_err(password_refusal)?;
        Ok(login.filter(|_| fits))
    }

    /// The list of threads may be missing: a crash during registration, or a lost bucket. The login does not depend on
    /// it, and an edge that misses it later asks again.
    pub(super) async fn heal(&self, user: &UserId) {
        match self.buckets.threads(user).exists().await {
            Ok(true) => {}
            Ok(false) => {
                if let Err(e) = self.rebuild_threads(user).await {
                    tracing::warn!(%user, error = %e, "a list of threads is missing and could not be built");
                }
            }
            Err(e) => tracing::warn!(%user, error = %e, "whether a list of threads is there could not be read"),
        }
    }

    /// A new family of tokens.
    pub(super) async fn open_session(&self, proved: Login, device: DeviceId) -> Result<DirectoryAnswer, Refusal> {
        let now = self.time.now_ms();
        let family = Family { id: mint_id('f').map_err(token_refusal)?, user: proved.user.clone(), device };
        let key = self.keys.current().map_err(token_refusal)?;
        let (access, expires_in) = key.sign(&family.user, &family.device, &family.id, now).map_err(token_refusal)?;
        let refresh = RefreshSecret::mint().map_err(token_refusal)?;
        let login = OpenLogin { family, since: now };
        self.store.open_family(login.clone(), refresh.hash(), self.refresh_expiry(now)).await.map_err(store_refusal)?;
        if let Err(refusal) = self.holds(&proved).await {
            // Nobody has its tokens.
            self.store.end_login(&login.family).await.map_err(store_refusal)?;
            return Err(refusal);
        }
        let (Family { user, device, .. }, name) = (login.family, proved.name);
        Ok(DirectoryAnswer::Tokens(Tokens { user, name, device, access, expires_in, refresh: refresh.into_secret() }))
    }

    /// Is the account enabled, and the password still the one that was checked? Asked when the new login can be found
    /// by whoever ends all logins after such a change, so none slips through between the two.
    async fn holds(&self, proved: &Login) -> Result<(), Refusal> {
        let account = self.store.account(&proved.user).await.map_err(store_refusal)?.ok_or_else(no_such_login)?;
        if account.profile.deleted {
            return Err(no_such_login());
        }
        if account.disabled {
            return Err(Refusal::new(Code::AccountDisabled, "this account is disabled; ask the operator"));
        }
        if proved.secret.is_empty() {
            return Ok(());
        }
        let login = self.store.login(PASSWORD, &name_key(&account.profile.name)).await.map_err(store_refusal)?;
        let same = login.is_some_and(|l| l.user == proved.user && l.secret == proved.secret);
        if same { Ok(()) } else { Err(no_such_login()) }
    }

    pub(super) async fn refresh(&self, refresh: &str) -> Result<DirectoryAnswer, Refusal> {
        let old = RefreshSecret::parse(refresh).ok_or_else(log_in_again)?;
        let (now, salt) = (self.time.now_ms(), Salt::mint().map_err(token_refusal)?);
        // Before the old token is used up: afterwards a failure would cost the login.
        let key = self.keys.current().map_err(token_refusal)?;
        let next = NextToken { hash: old.next(&salt).hash(), salt, expires: self.refresh_expiry(now) };
        let when = Use {
            now,
            earliest: self.time.earliest_ms(),
            again: self.times.refresh_again.as_millis().try_into().unwrap_or(u64::MAX),
        };
        match self.store.rotate(old.hash(), next, when).await.map_err(store_refusal)? {
            Rotated::Done { family, name, salt } => {
                if salt != next.salt {
                    metrics::counter!(crate::metrics::DIRECTORY_REFRESH_REPEATED).increment(1);
                }
                let (access, expires_in) =
                    key.sign(&family.user, &family.device, &family.id, now).map_err(token_refusal)?;
                let Family { user, device, .. } = family;
                let refresh = old.next(&salt).into_secret();
                Ok(DirectoryAnswer::Tokens(Tokens { user, name, device, access, expires_in, refresh }))
            }
            Rotated::Reused(family) => {
                metrics::counter!(crate::metrics::DIRECTORY_REFRESH_REUSED).increment(1);
                tracing::warn!(
                    user = %family.user, family = %family.id,
                    "a refresh token was used twice; its family is revoked"
                );
                self.tell_edges(&family).await?;
                Err(log_in_again())
            }
            Rotated::Revoked | Rotated::Expired | Rotated::Unknown => Err(log_in_again()),
        }
    }

    /// Done also for a token nobody knows: the caller is logged out either way.
    pub(super) async fn logout(&self, refresh: &str) -> Result<DirectoryAnswer, Refusal> {
        if let Some(token) = RefreshSecret::parse(refresh) {
            // Also if it was revoked before: the edges may not have been told then.
            if let Some(family) = self.store.revoke(token.hash()).await.map_err(store_refusal)? {
                self.tell_edges(&family).await?;
            }
        }
        Ok(DirectoryAnswer::Done)
    }

    /// Access tokens of the family are good until then, and its sockets open.
    pub(super) async fn tell_edges(&self, family: &Family) -> Result<(), Refusal> {
        self.revocations.publish(family).await.map_err(|e| {
            tracing::error!(family = %family.id, error = %e, "a revocation could not be told to the edges");
            Refusal::unavailable("the login is over, but not every server knows it yet; try again in a moment")
        })
    }

    fn refresh_expiry(&self, now: u64) -> u64 {
        now.saturating_add(self.times.refresh_token.as_millis().try_into().unwrap_or(u64::MAX))
    }
}
