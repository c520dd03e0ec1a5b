//! Accounts as `directory` sees them: users, logins, contacts, families of refresh tokens. Beside the message path, in
//! the same store.
//!
//! Fits a CQL store as well as SQLite: what must happen once is one conditional write on one key (the name's; the use
//! of a refresh token), and the key of a prefix has at least two characters, so that names can be partitioned by them.

use std::future::Future;

pub use natterjack_protocol::text::{Prefix, user_name_key as name_key};
use natterjack_protocol::{
    DeviceId, UserId,
    client::http::{Contact, ContactChange, Profile},
};

use super::ArchiveError;
use crate::tokens::{InviteHash, RefreshHash};

#[cfg(test)]
pub mod conformance;
pub mod contacts;
pub mod families;
pub mod invites;

pub use contacts::{CONTACT_ROWS, ContactOutcome};
pub use families::{Family, LOGINS, NextToken, OpenLogin, Rotated, Use};
pub use invites::NewInvite;

/// Logins by name and password; an external issuer has its own name here, which may not be this one.
pub const PASSWORD: &str = "password";

/// No `Debug`: it holds a secret.
pub struct NewUser {
    pub user: UserId,
    pub name: String,
    /// PHC string of the password.
    pub secret: String,
    /// Milliseconds since 1970.
    pub created: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    Done,
    /// Somebody has this name, or one that looks like it. Of many at once exactly one gets it.
    NameTaken,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub profile: Profile,
    /// Milliseconds since 1970.
    pub created: u64,
    /// Nobody can log in to it.
    pub disabled: bool,
}

/// A name is given up `now`, and is nobody else's before `until`: milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct NameHold {
    pub now: u64,
    pub until: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renamed {
    Done,
    NameTaken,
    NoSuchUser,
}

/// Of an account, while something that hangs on it is not cleared away yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    pub user: UserId,
    /// When it began, milliseconds since 1970.
    pub since: u64,
}

/// Deletions in one answer.
pub const DELETIONS: usize = 1_000;

/// Somebody whose login is elsewhere, at the first time.
pub struct NewExternal {
    pub issuer: String,
    pub subject: String,
    /// The user's id, if there is none for this login yet.
    pub user: UserId,
    /// The first that is free becomes the user's; its id if none is. Nobody knows that before, so nobody can have taken
    /// it.
    pub names: Vec<String>,
    /// Milliseconds since 1970.
    pub created: u64,
}

impl NewExternal {
    /// What `user` may be called, best first.
    pub fn names_of<'a>(&'a self, user: &'a UserId) -> impl Iterator<Item = &'a str> {
        self.names.iter().map(String::as_str).chain([user.as_str()])
    }
}

/// Not even the id of a new user is free as a name, which nobody could know.
pub fn no_name() -> ArchiveError {
    ArchiveError::Constraint("a new user's id is somebody's name".into())
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub profile: Profile,
    /// By this call. Of many at once at least one hears that.
    pub made: bool,
}

/// How somebody proves who they are. No `Debug`: it holds a secret.
pub struct Login {
    pub user: UserId,
    pub name: String,
    /// Empty for an external login.
    pub secret: String,
}

/// Everything `directory` asks of a store. Dropping the future of a write leaves it open whether the write happens.
pub trait Accounts: Clone + Send + Sync + 'static {
    fn add_user(&self, user: NewUser) -> impl Future<Output = Result<Added, ArchiveError>> + Send;

    /// A code is new each time.
    fn add_invite(&self, invite: NewInvite) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    /// The id under which an account of this name is made with this invite: the one that was written down for the name
    /// before, or this one. None: the invite is unknown, used up, or expired at `now` (milliseconds since 1970).
    fn take_invite(
        &self,
        code: InviteHash,
        name_key: &str,
        user: &UserId,
        now: u64,
    ) -> impl Future<Output = Result<Option<UserId>, ArchiveError>> + Send;

    /// The use for this name, if there is one, did not happen.
    fn give_invite_back(
        &self,
        code: InviteHash,
        name_key: &str,
    ) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    /// The user of an external login, made if there is none. Of many at once for the same login all get the same user.
    /// Names are as unique as those of [`Accounts::add_user`], and nobody logs in with one of them and a password.
    fn join(&self, new: NewExternal) -> impl Future<Output = Result<Joined, ArchiveError>> + Send;

    /// `subject`: for [`PASSWORD`] the [`name_key`], which names that look alike share: compare the answer's name.
    fn login(&self, issuer: &str, subject: &str) -> impl Future<Output = Result<Option<Login>, ArchiveError>> + Send;

    fn account(&self, user: &UserId) -> impl Future<Output = Result<Option<Account>, ArchiveError>> + Send;

    /// In an order of the store's own: those behind this one. Empty: that was the end.
    fn accounts(
        &self,
        after: Option<&UserId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Account>, ArchiveError>> + Send;

    /// The old name is held. Repeating it changes nothing, and finishes what was cut off.
    fn rename(
        &self,
        user: &UserId,
        name: &str,
        hold: NameHold,
    ) -> impl Future<Output = Result<Renamed, ArchiveError>> + Send;

    /// No login opens the account any more, its name is held, and its profile has none and says that it was deleted. It
    /// is one of [`Accounts::deletions`] until [`Accounts::end_deletion`]. Repeating it changes nothing, and finishes
    /// what was cut off. False: there is no such user.
    fn delete_user(&self, user: &UserId, hold: NameHold) -> impl Future<Output = Result<bool, ArchiveError>> + Send;

    /// At most [`DELETIONS`] of those under way.
    fn deletions(&self) -> impl Future<Output = Result<Vec<Deletion>, ArchiveError>> + Send;

    fn end_deletion(&self, user: &UserId) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    /// For a user that exists.
    fn set_disabled(&self, user: &UserId, disabled: bool) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    /// The PHC string of a new password. False: there is no such user, or they have none, because their login is
    /// elsewhere.
    fn set_secret(&self, user: &UserId, secret: &str) -> impl Future<Output = Result<bool, ArchiveError>> + Send;

    /// Those that exist, in any order.
    fn profiles(&self, users: &[UserId]) -> impl Future<Output = Result<Vec<Profile>, ArchiveError>> + Send;

    /// Users whose name begins so, in the order of their [`name_key`].
    fn find(&self, prefix: &Prefix, limit: usize) -> impl Future<Output = Result<Vec<Profile>, ArchiveError>> + Send;

    /// By name; at most [`CONTACT_ROWS`].
    fn contacts(&self, user: &UserId) -> impl Future<Output = Result<Vec<Contact>, ArchiveError>> + Send;

    /// Both sides change or none. Repeating a change that was made changes nothing.
    fn change_contact(
        &self,
        actor: &UserId,
        other: &UserId,
        change: ContactChange,
    ) -> impl Future<Output = Result<ContactOutcome, ArchiveError>> + Send;

    /// A new family with its first token, which expires at `expires` (milliseconds since 1970) if it is not used.
    fn open_family(
        &self,
        login: OpenLogin,
        first: RefreshHash,
        expires: u64,
    ) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    /// At most [`LOGINS`] that are not over at `now` (milliseconds since 1970), in any order; of this device, if one is
    /// named.
    fn open_logins(
        &self,
        user: &UserId,
        device: Option<&DeviceId>,
        now: u64,
    ) -> impl Future<Output = Result<Vec<OpenLogin>, ArchiveError>> + Send;

    /// Revokes a family. Also one that is revoked, or that nobody knows.
    fn end_login(&self, family: &Family) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    /// Has this device logged in as this user, and not been away since for longer than a refresh token lives?
    fn has_device(&self, user: &UserId, device: &DeviceId) -> impl Future<Output = Result<bool, ArchiveError>> + Send;

    /// Replaces `old` by `next`. If `old` was used before: finds the next one of that time, as `when` allows; or
    /// revokes the family.
    fn rotate(
        &self,
        old: RefreshHash,
        next: NextToken,
        when: Use,
    ) -> impl Future<Output = Result<Rotated, ArchiveError>> + Send;

    /// Revokes the family of a token, used or not. None: no such token.
    fn revoke(&self, token: RefreshHash) -> impl Future<Output = Result<Option<Family>, ArchiveError>> + Send;

    /// Forgets names that are held no longer at `now`, tokens that expired before it, and families without tokens; at
    /// most a few thousand a call. How many tokens went; 0 if the store's server forgets by itself.
    fn sweep(&self, now: u64) -> impl Future<Output = Result<usize, ArchiveError>> + Send;
}
