//! The accounts trait on SQLite; the statements are in the files of their tables.

use natterjack_protocol::{
    UserId,
    rpc::{Contact, ContactChange, Profile},
};

use super::{Sqlite, contacts, refresh_tokens, users};
use crate::{
    store::{
        StoreError,
        accounts::{Accounts, Added, ContactOutcome, Family, Login, NewUser, Rotated},
    },
    tokens::RefreshHash,
};

impl Accounts for Sqlite {
    async fn add_user(&self, user: NewUser) -> Result<Added, StoreError> {
        self.write(move |tx| users::add(tx, &user)).await
    }

    async fn login(&self, issuer: &str, subject: &str) -> Result<Option<Login>, StoreError> {
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        self.read(move |c| users::login(c, &issuer, &subject)).await
    }

    async fn profiles(&self, users: &[UserId]) -> Result<Vec<Profile>, StoreError> {
        let wanted = users.to_vec();
        self.read(move |c| users::profiles(c, &wanted)).await
    }

    async fn find(&self, prefix: &str, limit: usize) -> Result<Vec<Profile>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |c| users::find(c, &prefix, limit)).await
    }

    async fn contacts(&self, user: &UserId) -> Result<Vec<Contact>, StoreError> {
        let user = user.clone();
        self.read(move |c| contacts::of(c, &user)).await
    }

    async fn change_contact(&self, actor: &UserId, other: &UserId, change: ContactChange) -> Result<ContactOutcome, StoreError> {
        let (actor, other) = (actor.clone(), other.clone());
        self.write(move |tx| contacts::change(tx, &actor, &other, change)).await
    }

    async fn open_family(&self, family: Family, first: RefreshHash, expires: u64) -> Result<(), StoreError> {
        self.write(move |tx| refresh_tokens::open(tx, &family, first, expires)).await
    }

    async fn rotate(&self, old: RefreshHash, new: RefreshHash, now: u64, expires: u64) -> Result<Rotated, StoreError> {
        self.write(move |tx| refresh_tokens::rotate(tx, old, new, now, expires)).await
    }

    async fn revoke(&self, token: RefreshHash) -> Result<Option<Family>, StoreError> {
        self.write(move |tx| refresh_tokens::revoke(tx, token)).await
    }

    async fn sweep(&self, now: u64) -> Result<usize, StoreError> {
        self.write(move |tx| refresh_tokens::sweep(tx, now)).await
    }
}
