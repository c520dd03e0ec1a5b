//! Setting another password: by its user, who knows the old one, or by an operator. Other logins end with it: whoever
//! knew the old password may have made them.

use natterjack_protocol::{
    Code, Refusal, Token, UserId,
    internal::rpc::{DirectoryAnswer, EndedLogins},
    text,
};

use super::{Directory, password_refusal, store_refusal};
use crate::{
    store::{
        ArchiveStore,
        accounts::{Accounts, Login, PASSWORD, name_key},
    },
    work_queue::QueuePermit,
};

fn wrong() -> Refusal {
    Refusal::new(Code::Forbidden, "old: this is not your password")
}

fn elsewhere() -> Refusal {
    Refusal::new(Code::Conflict, "this account has no password: its user logs in elsewhere")
}

impl<S: ArchiveStore + Accounts> Directory<S> {
    /// If its answer was lost it is asked again, and the old password is the new one by then: only the rest is done.
    pub(super) async fn change_password(
        &self,
        actor: &UserId,
        family: Token,
        old: String,
        new: String,
    ) -> Result<DirectoryAnswer, Refusal> {
        let place = self.password_place(self.passwords.enter_known())?;
        let new = text::password(&new).map_err(|e| e.of("new"))?;
        // Nobody has such a password.
        let old = text::password(&old).map_err(|_| wrong())?;
        let login = self.password_login(actor).await?.ok_or_else(elsewhere)?;
        let secret = || Some(login.secret.clone());
        if self.passwords.check(&place, old, secret()).await.map_err(password_refusal)? {
            self.put_password(&place, actor, new).await?;
        } else if !self.passwords.check(&place, new, secret()).await.map_err(password_refusal)? {
            return Err(wrong());
        }
        Ok(DirectoryAnswer::Ended(self.end_logins(actor, &EndedLogins::AllBut(family)).await?))
    }

    pub(super) async fn put_password(&self, place: &QueuePermit, user: &UserId, new: String) -> Result<(), Refusal> {
        let secret = self.passwords.hash(place, new).await.map_err(password_refusal)?;
        if self.store.set_secret(user, &secret).await.map_err(store_refusal)? { Ok(()) } else { Err(elsewhere()) }
    }

    /// None: there is no such user, or no password.
    pub(super) async fn password_login(&self, user: &UserId) -> Result<Option<Login>, Refusal> {
        let Some(account) = self.store.account(user).await.map_err(store_refusal)? else { return Ok(None) };
        let login = self.store.login(PASSWORD, &name_key(&account.profile.name)).await.map_err(store_refusal)?;
        Ok(login.filter(|l| l.user == *user))
    }
}
