//! What operators ask about accounts, and do to them: `natterjack user`. Each of it may be repeated.

use natterjack_protocol::{
    Code, Refusal, Token, UserId,
    internal::{
        operator::{AccountRow, INVITE_USES, OperatorAnswer, OperatorRequest},
        rpc::EndedLogins,
    },
    text,
};

use super::{Directory, store_refusal, token_refusal};
use crate::{
    store::{
        ArchiveStore,
        accounts::{Account, Accounts, NewInvite, Prefix, Renamed},
    },
    tokens::{InviteHash, mint_id},
};

/// Accounts in one answer: 100 bytes each.
const PAGE: usize = 500;

fn row(account: Account) -> AccountRow {
    let Account { profile, created, disabled } = account;
    AccountRow { user: profile.user, name: profile.name, created, disabled, deleted: profile.deleted }
}

impl<S: ArchiveStore + Accounts> Directory<S> {
    pub(super) async fn operate(&self, request: OperatorRequest) -> Result<OperatorAnswer, Refusal> {
        match request {
            OperatorRequest::List { after } => {
                let accounts = self.store.accounts(after.as_ref(), PAGE).await.map_err(store_refusal)?;
                Ok(OperatorAnswer::Accounts(accounts.into_iter().map(row).collect()))
            }
            OperatorRequest::Show { name } => {
                let account = self.account_named(&name).await?;
                let sessions = self.sessions_of(&account.profile.user, None).await?;
                Ok(OperatorAnswer::Account { sessions, account: row(account) })
            }
            OperatorRequest::Rename { name, new } => self.rename(self.account_named(&name).await?, &new).await,
            OperatorRequest::Delete { name } => {
                let account = self.account_named(&name).await?;
                let ended = self.delete(&account.profile.user).await?;
                let account = AccountRow { deleted: true, ..row(account) };
                Ok(OperatorAnswer::Done { account, ended })
            }
            OperatorRequest::Invite { uses, good_for } => self.invite(uses, good_for).await,
            OperatorRequest::Logout { name } => self.ended(self.account_named(&name).await?, "logged out").await,
            OperatorRequest::Disable { name } => {
                let account = self.account_named(&name).await?;
                // Before its logins end: from here on there is no new one.
                self.store.set_disabled(&account.profile.user, true).await.map_err(store_refusal)?;
                self.ended(Account { disabled: true, ..account }, "disabled").await
            }
            OperatorRequest::Enable { name } => {
                let account = self.account_named(&name).await?;
                self.store.set_disabled(&account.profile.user, false).await.map_err(store_refusal)?;
                tracing::info!(user = %account.profile.user, "an operator has enabled an account");
                Ok(OperatorAnswer::Done { account: row(Account { disabled: false, ..account }), ended: 0 })
            }
            OperatorRequest::SetPassword { name, password } => {
                let account = self.account_named(&name).await?;
                let password = text::password(&password).map_err(|e| e.of("password"))?;
                let place = self.password_place(self.passwords.enter_known())?;
                self.put_password(&place, &account.profile.user, password).await?;
                self.ended(account, "given another password").await
            }
        }
    }

    async fn rename(&self, account: Account, new: &str) -> Result<OperatorAnswer, Refusal> {
        let name = text::user_name(new).map_err(|e| e.of("new"))?;
        let user = &account.profile.user;
        match self.store.rename(user, &name, self.hold()).await.map_err(store_refusal)? {
            Renamed::Done => {}
            Renamed::NameTaken => {
                return Err(Refusal::new(Code::Conflict, "this name is taken or held, or one that looks like it"));
            }
            Renamed::NoSuchUser => return Err(Refusal::new(Code::NotFound, "this account was deleted")),
        }
        tracing::info!(%user, "an operator has renamed an account");
        self.hint(&[user]).await;
        for contact in self.store.contacts(user).await.map_err(store_refusal)? {
            self.hint(&[&contact.user]).await;
        }
        Ok(OperatorAnswer::Done { account: AccountRow { name, ..row(account) }, ended: 0 })
    }

    async fn invite(&self, uses: u32, good_for: u64) -> Result<OperatorAnswer, Refusal> {
        if !(1..=INVITE_USES).contains(&uses) {
            return Err(Refusal::invalid(format!("uses: 1 to {INVITE_USES}")));
        }
        let code: Token = mint_id('i').map_err(token_refusal)?;
        let expires = self.time.now_ms().saturating_add(good_for);
        let invite = NewInvite { code: InviteHash::of(&code), uses, expires };
        self.store.add_invite(invite).await.map_err(store_refusal)?;
        tracing::info!(uses, "an operator has made an invite");
        Ok(OperatorAnswer::Invite { code, expires })
    }

    async fn ended(&self, account: Account, what: &str) -> Result<OperatorAnswer, Refusal> {
        let ended = self.end_logins(&account.profile.user, &EndedLogins::All).await?;
        tracing::info!(user = %account.profile.user, ended, "an account was {what} by an operator");
        Ok(OperatorAnswer::Done { account: row(account), ended })
    }

    /// The one of this name, or with this id; one that was deleted by its id alone.
    async fn account_named(&self, name: &str) -> Result<Account, Refusal> {
        let none = || Refusal::new(Code::NotFound, format!("there is no account {name}"));
        let mut user = None;
        if let Some(prefix) = Prefix::of(name).map_err(|e| e.of("name"))? {
            // The name itself stands before those that are longer.
            let found = self.store.find(&prefix, 1).await.map_err(store_refusal)?;
            user = found.into_iter().find(|p| text::same_user(&p.name, name)).map(|p| p.user);
        }
        let user = user.or_else(|| UserId::parse(name).ok()).ok_or_else(none)?;
        self.store.account(&user).await.map_err(store_refusal)?.ok_or_else(none)
    }
}
