//! The accounts trait on CQL; the statements are in the files of their tables.

use natterjack_protocol::{
    DeviceId, UserId,
    client::http::{Contact, ContactChange, Profile},
};

use super::Cql;
use crate::{
    store::{
        ArchiveError,
        accounts::{
            Account, Accounts, Added, ContactOutcome, Deletion, Family, Joined, Login, NameHold, NewExternal,
            NewInvite, NewUser, NextToken, OpenLogin, Prefix, Renamed, Rotated, Use,
        },
    },
    tokens::{InviteHash, RefreshHash},
};

impl Accounts for Cql {
    async fn add_user(&self, user: NewUser) -> Result<Added, ArchiveError> {
        let db = self.db()?;
        db.users.add(&db.requests, &user).await
    }

    async fn add_invite(&self, invite: NewInvite) -> Result<(), ArchiveError> {
        let db = self.db()?;
        db.invites.add(&db.requests, &invite).await
    }

    async fn take_invite(
        &self,
        code: InviteHash,
        name_key: &str,
        user: &UserId,
        now: u64,
    ) -> Result<Option<UserId>, ArchiveError> {
        let db = self.db()?;
        db.invites.take(&db.requests, code, name_key, user, now).await
    }

    async fn give_invite_back(&self, code: InviteHash, name_key: &str) -> Result<(), ArchiveError> {
        let db = self.db()?;
        db.invites.give_back(&db.requests, code, name_key).await
    }

    async fn join(&self, new: NewExternal) -> Result<Joined, ArchiveError> {
        let db = self.db()?;
        db.users.join(&db.requests, &new).await
    }

    async fn login(&self, issuer: &str, subject: &str) -> Result<Option<Login>, ArchiveError> {
        let db = self.db()?;
        db.users.login(&db.requests, issuer, subject).await
    }

    async fn account(&self, user: &UserId) -> Result<Option<Account>, ArchiveError> {
        let db = self.db()?;
        db.users.account(&db.requests, user).await
    }

    async fn accounts(&self, after: Option<&UserId>, limit: usize) -> Result<Vec<Account>, ArchiveError> {
        let db = self.db()?;
        db.users.accounts(&db.requests, after, limit).await
    }

    async fn rename(&self, user: &UserId, name: &str, hold: NameHold) -> Result<Renamed, ArchiveError> {
        let db = self.db()?;
        let renamed = db.users.rename(&db.requests, user, name, hold).await?;
        if renamed == Renamed::Done {
            let me = Profile::named(user.clone(), name);
            for contact in db.contacts.of(&db.requests, user).await? {
                let other = Profile::named(contact.user, contact.name);
                db.contacts.write_again(&db.requests, &me, &other).await?;
            }
        }
        Ok(renamed)
    }

    async fn delete_user(&self, user: &UserId, hold: NameHold) -> Result<bool, ArchiveError> {
        let db = self.db()?;
        db.users.delete(&db.requests, user, hold).await
    }

    async fn deletions(&self) -> Result<Vec<Deletion>, ArchiveError> {
        let db = self.db()?;
        db.users.deletions(&db.requests).await
    }

    async fn end_deletion(&self, user: &UserId) -> Result<(), ArchiveError> {
        let db = self.db()?;
        db.users.end_deletion(&db.requests, user).await
    }

    async fn set_disabled(&self, user: &UserId, disabled: bool) -> Result<(), ArchiveError> {
        let db = self.db()?;
        db.users.set_disabled(&db.requests, user, disabled).await
    }

    async fn set_secret(&self, user: &UserId, secret: &str) -> Result<bool, ArchiveError> {
        let db = self.db()?;
        db.users.set_secret(&db.requests, user, secret).await
    }

    async fn profiles(&self, users: &[UserId]) -> Result<Vec<Profile>, ArchiveError> {
        let db = self.db()?;
        db.users.profiles(&db.requests, users).await
    }

    async fn find(&self, prefix: &Prefix, limit: usize) -> Result<Vec<Profile>, ArchiveError> {
        let db = self.db()?;
        db.users.find(&db.requests, prefix, limit).await
    }

    async fn contacts(&self, user: &UserId) -> Result<Vec<Contact>, ArchiveError> {
        let db = self.db()?;
        db.contacts.of(&db.requests, user).await
    }

    async fn change_contact(
        &self,
        actor: &UserId,
        other: &UserId,
        change: ContactChange,
    ) -> Result<ContactOutcome, ArchiveError> {
        let db = self.db()?;
        let (actor, other) =
            tokio::try_join!(db.users.profile(&db.requests, actor), db.users.profile(&db.requests, other))?;
        let (Some(actor), Some(other)) = (actor, other) else { return Ok(ContactOutcome::NoSuchUser) };
        if change != ContactChange::Remove && (actor.deleted || other.deleted) {
            return Ok(ContactOutcome::NoSuchUser);
        }
        db.contacts.change(&db.requests, &actor, &other, change).await
    }

    async fn open_family(&self, login: OpenLogin, first: RefreshHash, expires: u64) -> Result<(), ArchiveError> {
        let db = self.db()?;
        db.refresh_tokens.open(&db.requests, &login, first, expires).await
    }

    async fn open_logins(
        &self,
        user: &UserId,
        device: Option<&DeviceId>,
        now: u64,
    ) -> Result<Vec<OpenLogin>, ArchiveError> {
        let db = self.db()?;
        db.refresh_tokens.open_logins(&db.requests, user, device, now).await
    }

    async fn end_login(&self, family: &Family) -> Result<(), ArchiveError> {
        let db = self.db()?;
        db.refresh_tokens.end(&db.requests, family).await
    }

    async fn has_device(&self, user: &UserId, device: &DeviceId) -> Result<bool, ArchiveError> {
        let db = self.db()?;
        db.refresh_tokens.has_device(&db.requests, user, device).await
    }

    async fn rotate(&self, old: RefreshHash, next: NextToken, when: Use) -> Result<Rotated, ArchiveError> {
        let db = self.db()?;
        let name = async |family: &Family| Ok(db.users.profile(&db.requests, &family.user).await?.map(|p| p.name));
        db.refresh_tokens.rotate(&db.requests, old, next, when, name).await
    }

    async fn revoke(&self, token: RefreshHash) -> Result<Option<Family>, ArchiveError> {
        let db = self.db()?;
        db.refresh_tokens.revoke(&db.requests, token).await
    }

    /// The server forgets them by itself.
    async fn sweep(&self, _now: u64) -> Result<usize, ArchiveError> {
        Ok(0)
    }
}
