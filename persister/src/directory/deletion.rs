//! Deleting an account. The store ends it at once, with its logins: nothing opens it, its name is held, its profile has
//! none and says that it was deleted. What else hangs on it is cleared away behind the answer, by any instance, again
//! from the start after a crash: its threads are left (`departure`), contacts go on both sides, then devices, settings
//! and the list of threads, without which the user does not exist for anybody. Messages stay.
//!
//! What others had begun before they could know may come after that: an edge adds the user to a group, or starts a
//! conversation. So all of it is done once more when none of that can be under way.

use std::{collections::HashSet, time::Duration};

use natterjack_protocol::{
    Code, Refusal, UserId,
    client::http::ContactChange,
    internal::rpc::{AccountProof, DirectoryAnswer, EndedLogins},
    text,
};
use tokio::time::{MissedTickBehavior, interval};

use super::{Directory, kv_refusal, password_refusal, store_refusal};
use crate::store::{
    ArchiveStore,
    accounts::{Accounts, Deletion, NameHold},
    cursors::ArchivedCursors,
};

/// How often deletions are looked for that another instance has begun, or that were cut off.
const LOOK: Duration = Duration::from_secs(5);
/// Of a token that proves who asks: its user has just logged in.
const FRESH: Duration = Duration::from_secs(600);

fn forbidden(why: &str) -> Refusal {
    Refusal::new(Code::Forbidden, why)
}

impl<S: ArchiveStore + Accounts> Directory<S> {
    pub(super) async fn delete_account(&self, actor: &UserId, proof: AccountProof) -> Result<DirectoryAnswer, Refusal> {
        let account = self.store.account(actor).await.map_err(store_refusal)?;
        // If the answer of an earlier attempt was lost: the token is good for a moment longer.
        if account.is_some_and(|a| !a.profile.deleted) {
            match proof {
                AccountProof::Password(password) => self.prove_by_password(actor, &password).await?,
                AccountProof::Token(token) => self.prove_by_token(actor, &token).await?,
            }
        }
        self.delete(actor).await?;
        Ok(DirectoryAnswer::Done)
    }

    async fn prove_by_password(&self, actor: &UserId, password: &str) -> Result<(), Refusal> {
        let wrong = || forbidden("password: this is not your password");
        let place = self.password_place(self.passwords.enter_known())?;
        let password = text::password(password).map_err(|_| wrong())?;
        let login = self.password_login(actor).await?.ok_or_else(|| {
            Refusal::new(Code::Conflict, "this account has no password: send a token of the login that it has")
        })?;
        let fits = self.passwords.check(&place, password, Some(login.secret)).await.map_err(password_refusal)?;
        if fits { Ok(()) } else { Err(wrong()) }
    }

    async fn prove_by_token(&self, actor: &UserId, token: &str) -> Result<(), Refusal> {
        let Some(issuer) = &self.issuer else {
            return Err(Refusal::new(Code::NotFound, "tokens of others are not taken here: no issuer is configured"));
        };
        let person = issuer.check(token).await?;
        if person.age.is_none_or(|age| age > FRESH) {
            return Err(forbidden("token: it was not made in the last ten minutes (`iat`): log in there once more"));
        }
        let login = self.store.login(&issuer.rules().issuer, &person.subject).await.map_err(store_refusal)?;
        if login.is_some_and(|l| l.user == *actor) { Ok(()) } else { Err(forbidden("token: it is not about you")) }
    }

    /// How many logins ended.
    pub(super) async fn delete(&self, user: &UserId) -> Result<u32, Refusal> {
        self.store.delete_user(user, self.hold()).await.map_err(store_refusal)?;
        tracing::info!(%user, "an account was deleted; what hangs on it is being cleared away");
        self.begun.notify_one();
        self.end_logins(user, &EndedLogins::All).await
    }

    /// Never ends. Safe to drop: what is not done is found again.
    pub(super) async fn clear_deleted(&self) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // By this instance, and not for the last time.
        let mut cleared = HashSet::new();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.begun.notified() => {}
            }
            match self.store.deletions().await {
                Ok(deletions) => self.clear_all(&deletions, &mut cleared).await,
                Err(e) => {
                    tracing::warn!(error = %e, "whether accounts are being deleted could not be read; trying again");
                }
            }
        }
    }

    async fn clear_all(&self, deletions: &[Deletion], cleared: &mut HashSet<UserId>) {
        cleared.retain(|user| deletions.iter().any(|d| d.user == *user));
        for Deletion { user, since } in deletions {
            let last = self.time.earliest_ms() >= since.saturating_add(self.settled_after_ms());
            if !last && cleared.contains(user) {
                continue;
            }
            match self.clear(user, last).await {
                Ok(()) => drop(cleared.insert(user.clone())),
                Err(e) => {
                    tracing::warn!(%user, error = %e, "a deleted account is not all cleared away; trying again");
                }
            }
        }
    }

    /// After so long nothing is under way that began before the list of threads was gone: a control entry is given up
    /// at its deadline, and twice that is longer than what comes before it.
    fn settled_after_ms(&self) -> u64 {
        (self.times.publish_deadline * 3).as_millis().try_into().unwrap_or(u64::MAX)
    }

    async fn clear(&self, user: &UserId, last: bool) -> Result<(), Refusal> {
        // The beginning may have been cut off.
        self.store.delete_user(user, self.hold()).await.map_err(store_refusal)?;
        self.end_logins(user, &EndedLogins::All).await?;
        self.depart(user).await?;
        for contact in self.store.contacts(user).await.map_err(store_refusal)? {
            let removed = self.store.change_contact(user, &contact.user, ContactChange::Remove).await;
            removed.map_err(store_refusal)?;
            self.hint(&[&contact.user]).await;
        }
        self.buckets.devices(user).delete().await.map_err(kv_refusal)?;
        self.buckets.cursors(user).delete().await.map_err(kv_refusal)?;
        self.store.put_cursors(vec![ArchivedCursors::deleted(user.clone())]).await.map_err(store_refusal)?;
        self.buckets.drafts(user).delete().await.map_err(kv_refusal)?;
        self.buckets.settings(user).delete().await.map_err(kv_refusal)?;
        self.buckets.threads(user).delete().await.map_err(kv_refusal)?;
        if last {
            self.store.end_deletion(user).await.map_err(store_refusal)?;
            tracing::info!(%user, "all that hung on a deleted account is cleared away");
        }
        Ok(())
    }

    /// Of a name that is given up now.
    pub(super) fn hold(&self) -> NameHold {
        let now = self.time.now_ms();
        NameHold { now, until: now.saturating_add(self.name_hold.as_millis().try_into().unwrap_or(u64::MAX)) }
    }
}
