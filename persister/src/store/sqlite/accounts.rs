//! The accounts trait on SQLite; the statements are in the files of their tables.

use natterjack_protocol::{
    DeviceId, UserId,
    client::http::{Contact, ContactChange, Profile},
};

use super::{Sqlite, contacts, invites, refresh_tokens, users};
use crate::{
    store::{
        ArchiveError,
        accounts::{
            Account, Accounts, Added, ContactOutcome, Deletion, Family, Joined, Login, NameHold, NewExternal,
            NewInvite, NewUser, NextToken, OpenLogin, Prefix, Renamed, Rotated, Use, no_name,
        },
    },
    tokens::{InviteHash, RefreshHash},
};

impl Accounts for Sqlite {
    async fn add_user(&self, user: NewUser) -> Result<Added, ArchiveError> {
        self.write(move |tx| users::add(tx, &user)).await
    }

    async fn add_invite(&self, invite: NewInvite) -> Result<(), ArchiveError> {
        self.write(move |tx| invites::add(tx, &invite)).await
    }

    async fn take_invite(
        &self,
        code: InviteHash,
        name_key: &str,
        user: &UserId,
        now: u64,
    ) -> Result<Option<UserId>, ArchiveError> {
        let (name_key, user) = (name_key.to_owned(), user.clone());
        self.write(move |tx| invites::take(tx, code, &name_key, &user, now)).await
    }

    async fn give_invite_back(&self, code: InviteHash, name_key: &str) -> Result<(), ArchiveError> {
        let name_key = name_key.to_owned();
        self.write(move |tx| invites::give_back(tx, code, &name_key)).await
    }

    async fn join(&self, new: NewExternal) -> Result<Joined, ArchiveError> {
        self.write(move |tx| users::join(tx, &new)).await?.ok_or_else(no_name)
    }

    async fn login(&self, issuer: &str, subject: &str) -> Result<Option<Login>, ArchiveError> {
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        self.read(move |c| users::login(c, &issuer, &subject)).await
    }

    async fn account(&self, user: &UserId) -> Result<Option<Account>, ArchiveError> {
        let user = user.clone();
        self.read(move |c| users::account(c, &user)).await
    }

    async fn accounts(&self, after: Option<&UserId>, limit: usize) -> Result<Vec<Account>, ArchiveError> {
        let after = after.cloned();
        self.read(move |c| users::accounts(c, after.as_ref(), limit)).await
    }

    async fn rename(&self, user: &UserId, name: &str, hold: NameHold) -> Result<Renamed, ArchiveError> {
        let (user, name) = (user.clone(), name.to_owned());
        self.write(move |tx| users::rename(tx, &user, &name, hold)).await
    }

    async fn delete_user(&self, user: &UserId, hold: NameHold) -> Result<bool, ArchiveError> {
        let user = user.clone();
        self.write(move |tx| users::delete(tx, &user, hold)).await
    }

    async fn deletions(&self) -> Result<Vec<Deletion>, ArchiveError> {
        self.read(users::deletions).await
    }

    async fn end_deletion(&self, user: &UserId) -> Result<(), ArchiveError> {
        let user = user.clone();
        self.write(move |tx| users::end_deletion(tx, &user)).await
    }

    async fn set_disabled(&self, user: &UserId, disabled: bool) -> Result<(), ArchiveError> {
        let user = user.clone();
        self.write(move |tx| users::set_disabled(tx, &user, disabled)).await
    }

    async fn set_secret(&self, user: &UserId, secret: &str) -> Result<bool, ArchiveError> {
        let (user, secret) = (user.clone(), secret.to_owned());
        self.write(move |tx| users::set_secret(tx, &user, &secret)).await
    }

    async fn profiles(&self, users: &[UserId]) -> Result<Vec<Profile>, ArchiveError> {
        let wanted = users.to_vec();
        self.read(move |c| users::profiles(c, &wanted)).await
    }

    async fn find(&self, prefix: &Prefix, limit: usize) -> Result<Vec<Profile>, ArchiveError> {
        let prefix = prefix.clone();
        self.read(move |c| users::find(c, &prefix, limit)).await
    }

    async fn contacts(&self, user: &UserId) -> Result<Vec<Contact>, ArchiveError> {
        let user = user.clone();
        self.read(move |c| contacts::of(c, &user)).await
    }

    async fn change_contact(
        &self,
        actor: &UserId,
        other: &UserId,
        change: ContactChange,
    ) -> Result<ContactOutcome, ArchiveError> {
        let (actor, other) = (actor.clone(), other.clone());
        self.write(move |tx| contacts::change(tx, &actor, &other, change)).await
    }

    async fn open_family(&self, login: OpenLogin, first: RefreshHash, expires: u64) -> Result<(), ArchiveError> {
        self.write(move |tx| refresh_tokens::open(tx, &login, first, expires)).await
    }

    async fn open_logins(
        &self,
        user: &UserId,
        device: Option<&DeviceId>,
        now: u64,
    ) -> Result<Vec<OpenLogin>, ArchiveError> {
        let (user, device) = (user.clone(), device.cloned());
        self.read(move |c| refresh_tokens::open_logins(c, &user, device.as_ref(), now)).await
    }

    async fn end_login(&self, family: &Family) -> Result<(), ArchiveError> {
        let id = family.id.clone();
        self.write(move |tx| refresh_tokens::revoke_family(tx, &id)).await
    }

    async fn has_device(&self, user: &UserId, device: &DeviceId) -> Result<bool, ArchiveError> {
        let (user, device) = (user.clone(), device.clone());
        self.read(move |c| refresh_tokens::has_device(c, &user, &device)).await
    }

    async fn rotate(&self, old: RefreshHash, next: NextToken, when: Use) -> Result<Rotated, ArchiveError> {
        self.write(move |tx| refresh_tokens::rotate(tx, old, next, when)).await
    }

    async fn revoke(&self, token: RefreshHash) -> Result<Option<Family>, ArchiveError> {
        self.write(move |tx| refresh_tokens::revoke(tx, token)).await
    }

    async fn sweep(&self, now: u64) -> Result<usize, ArchiveError> {
        self.write(move |tx| {
            users::sweep_held(tx, now)?;
            refresh_tokens::sweep(tx, now)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::accounts::conformance, tokens::Salt};

    #[tokio::test]
    async fn conforms() {
        let dir = tempfile::tempdir().unwrap();
        conformance::all(&Sqlite::open(dir.path().join("n.db")).await.unwrap()).await;
    }

    #[tokio::test]
    async fn a_sweep_forgets_what_has_expired() {
        use natterjack_protocol::Token;
        let dir = tempfile::tempdir().unwrap();
        let db = Sqlite::open(dir.path().join("n.db")).await.unwrap();
        let id = |s| Token::parse(s).unwrap();
        db.add_user(NewUser { user: id("u"), name: "u".into(), secret: "x".into(), created: 1 }).await.unwrap();
        let old = RefreshHash([1; 32]);
        let next = NextToken { hash: RefreshHash([2; 32]), salt: Salt([3; 32]), expires: 9_000 };
        db.open_family(
            OpenLogin { family: Family { id: id("f"), user: id("u"), device: id("d") }, since: 1 },
            old,
            5_000,
        )
        .await
        .unwrap();
        assert_eq!((db.sweep(4_000).await.unwrap(), db.sweep(6_000).await.unwrap()), (0, 1));
        assert_eq!(db.rotate(old, next, Use { now: 10, earliest: 10, again: 0 }).await.unwrap(), Rotated::Unknown);
    }

    #[tokio::test]
    async fn a_full_list_of_contacts_refuses_the_next_one() {
        use natterjack_protocol::{client::http::ContactState, limits};
        let dir = tempfile::tempdir().unwrap();
        let db = Sqlite::open(dir.path().join("n.db")).await.unwrap();
        db.write(|tx| {
            tx.execute_batch("INSERT INTO users VALUES ('a', 'a', 'a', 0, 0, 0), ('b', 'b', 'b', 0, 0, 0)")?;
            let mut user = tx.prepare("INSERT INTO users VALUES (?1, ?1, ?1, 0, 0, 0)")?;
            let mut contact = tx.prepare("INSERT INTO contacts VALUES ('a', ?1, 'contact')")?;
            for n in 0..limits::CONTACTS {
                let other = format!("u{n}");
                user.execute([&other])?;
                contact.execute([&other])?;
            }
            Ok(())
        })
        .await
        .unwrap();
        let id = |s| UserId::parse(s).unwrap();
        let (a, b) = (id("a"), id("b"));
        assert_eq!(db.change_contact(&a, &b, ContactChange::Request).await.unwrap(), ContactOutcome::Full);
        let requested = ContactOutcome::Is { state: Some(ContactState::Requested), changed: true };
        assert_eq!(db.change_contact(&b, &a, ContactChange::Request).await.unwrap(), requested, "others may ask");
        assert_eq!(db.change_contact(&a, &b, ContactChange::Accept).await.unwrap(), ContactOutcome::Full);
        db.change_contact(&a, &id("u7"), ContactChange::Remove).await.unwrap();
        let contact = ContactOutcome::Is { state: Some(ContactState::Contact), changed: true };
        assert_eq!(db.change_contact(&a, &b, ContactChange::Accept).await.unwrap(), contact);
        // Strangers ask: what they fill is not what one asks oneself, or has.
        db.write(|tx| {
            tx.execute_batch("INSERT INTO users VALUES ('c', 'c', 'c', 0, 0, 0), ('d', 'd', 'd', 0, 0, 0)")?;
            let mut asked = tx.prepare("INSERT INTO contacts VALUES ('c', ?1, 'asked')")?;
            for n in 0..limits::CONTACT_REQUESTS {
                asked.execute([format!("u{n}")])?;
            }
            Ok(())
        })
        .await
        .unwrap();
        let (c, d) = (id("c"), id("d"));
        assert_eq!(db.change_contact(&d, &c, ContactChange::Request).await.unwrap(), ContactOutcome::OtherFull);
        assert_eq!(db.change_contact(&c, &d, ContactChange::Request).await.unwrap(), requested);
        assert_eq!(db.change_contact(&d, &c, ContactChange::Accept).await.unwrap(), contact);
        assert_eq!(db.contacts(&c).await.unwrap().len(), limits::CONTACT_REQUESTS + 1, "a list shows all of them");
    }
}
