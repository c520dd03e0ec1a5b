//! Accounts as `directory` sees them: users, logins, contacts, families of refresh tokens. Beside the message path, in
//! the same store.
//!
//! Fits a CQL store as well as SQLite: what must happen once is one conditional write on one key (the name's; the use
//! of a refresh token), and the key of a prefix has at least two characters, so that names can be partitioned by them.

use std::future::Future;

pub use natterjack_protocol::text::{Prefix, user_name_key as name_key};
use natterjack_protocol::{
    DeviceId, Token, UserId,
    client::http::{Contact, ContactChange, ContactState, Profile},
    limits,
};

use super::ArchiveError;
use crate::tokens::{RefreshHash, Salt};

#[cfg(test)]
pub mod conformance;

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

/// The refresh tokens that came from one login, one after the other. `id` stands in the access tokens as `fam`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    pub id: Token,
    pub user: UserId,
    pub device: DeviceId,
}

/// The token that is to stand in the place of one that is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NextToken {
    pub hash: RefreshHash,
    /// Of which it was made, with the old one.
    pub salt: Salt,
    /// If it is not used until then, milliseconds since 1970.
    pub expires: u64,
}

/// When a refresh token is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// The server's time, milliseconds since 1970: what is written down.
    pub now: u64,
    /// The earliest that it may be: what is judged by, so that a clock that has just stepped ends nobody's login.
    pub earliest: u64,
    /// For so long after its first use it may be used again, if the next one was not used meanwhile.
    pub again: u64,
}

impl Use {
    pub fn in_time(&self, at: u64) -> bool {
        self.earliest.saturating_sub(at) <= self.again
    }

    /// Is one that is good until then too old?
    pub fn expired(&self, expires: u64) -> bool {
        expires <= self.earliest
    }
}

/// What using a refresh token comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotated {
    /// The old one is used, and the one that is made of it and this salt stands in its place: the offered one, or that
    /// of an earlier use, whose answer was lost or who came at the same time. With the user's name, because a second
    /// read could fail now.
    Done {
        family: Family,
        name: String,
        salt: Salt,
    },
    /// It was used too long ago, or the next one was used: whoever uses it now or did before is not who it was given
    /// to. The family is revoked.
    Reused(Family),
    Revoked,
    Expired,
    /// Never given, or expired long ago.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactOutcome {
    /// What the other is to the actor now, and whether that is new.
    Is {
        state: Option<ContactState>,
        changed: bool,
    },
    /// There is no request to accept.
    NothingToAccept,
    /// The actor has as many contacts and requests as there may be.
    Full,
    /// As many requests as there may be wait for an answer of the other.
    OtherFull,
    NoSuchUser,
}

/// The rule of contacts: what `other` is to the actor after `change`. Both sides follow from it, see [`mirrored`].
/// None: nothing to accept.
pub fn contact_after(now: Option<ContactState>, change: ContactChange) -> Option<Option<ContactState>> {
    use ContactState::{Asked, Contact, Requested};
    match (change, now) {
        (ContactChange::Request, None | Some(Requested)) => Some(Some(Requested)),
        (ContactChange::Request | ContactChange::Accept, Some(Asked | Contact)) => Some(Some(Contact)),
        (ContactChange::Accept, None | Some(Requested)) => None,
        (ContactChange::Remove, _) => Some(None),
    }
}

/// The same relation from the other side.
pub fn mirrored(state: ContactState) -> ContactState {
    match state {
        ContactState::Requested => ContactState::Asked,
        ContactState::Asked => ContactState::Requested,
        ContactState::Contact => ContactState::Contact,
    }
}

/// What a list has at most: the contacts and requests of a user's own, and the requests of others.
pub const CONTACT_ROWS: usize = limits::CONTACTS + limits::CONTACT_REQUESTS;

/// How many rows somebody has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContactRows {
    /// Contacts, and requests made: only the user makes them more.
    pub own: usize,
    /// Requests of others: anybody makes them more, so they have room of their own.
    pub asked: usize,
}

impl ContactRows {
    pub fn count(&mut self, state: ContactState) {
        *(if state == ContactState::Asked { &mut self.asked } else { &mut self.own }) += 1;
    }

    /// Is there room for a relation that was `now` and becomes `after`?
    fn takes(self, now: Option<ContactState>, after: Option<ContactState>) -> bool {
        let asked = |state: Option<ContactState>| state == Some(ContactState::Asked);
        match after {
            None => true,
            Some(_) if asked(after) => asked(now) || self.asked < limits::CONTACT_REQUESTS,
            Some(_) => now.is_some_and(|n| n != ContactState::Asked) || self.own < limits::CONTACTS,
        }
    }
}

/// Whose list has no room for this change, as the actor sees it.
pub fn full(now: Option<ContactState>, after: Option<ContactState>, actor: ContactRows, other: ContactRows) -> Option<ContactOutcome> {
    if !actor.takes(now, after) {
        return Some(ContactOutcome::Full);
    }
    (!other.takes(now.map(mirrored), after.map(mirrored))).then_some(ContactOutcome::OtherFull)
}

/// Everything `directory` asks of a store. Dropping the future of a write leaves it open whether the write happens.
pub trait Accounts: Clone + Send + Sync + 'static {
    fn add_user(&self, user: NewUser) -> impl Future<Output = Result<Added, ArchiveError>> + Send;

    /// The user of an external login, made if there is none. Of many at once for the same login all get the same user.
    /// Names are as unique as those of [`Accounts::add_user`], and nobody logs in with one of them and a password.
    fn join(&self, new: NewExternal) -> impl Future<Output = Result<Joined, ArchiveError>> + Send;

    /// `subject`: for [`PASSWORD`] the [`name_key`], which names that look alike share: compare the answer's name.
    fn login(&self, issuer: &str, subject: &str) -> impl Future<Output = Result<Option<Login>, ArchiveError>> + Send;

    /// When the account was made, milliseconds since 1970.
    fn created(&self, user: &UserId) -> impl Future<Output = Result<Option<u64>, ArchiveError>> + Send;

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
    fn open_family(&self, family: Family, first: RefreshHash, expires: u64) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    /// Has this device logged in as this user, and not been away since for longer than a refresh token lives?
    fn has_device(&self, user: &UserId, device: &DeviceId) -> impl Future<Output = Result<bool, ArchiveError>> + Send;

    /// Replaces `old` by `next`. If `old` was used before: finds the next one of that time, as `when` allows; or
    /// revokes the family.
    fn rotate(&self, old: RefreshHash, next: NextToken, when: Use) -> impl Future<Output = Result<Rotated, ArchiveError>> + Send;

    /// Revokes the family of a token, used or not. None: no such token.
    fn revoke(&self, token: RefreshHash) -> impl Future<Output = Result<Option<Family>, ArchiveError>> + Send;

    /// Forgets tokens that expired before `now`, and families without tokens; at most a few thousand a call. How many
    /// went; 0 if the store's server forgets by itself.
    fn sweep(&self, now: u64) -> impl Future<Output = Result<usize, ArchiveError>> + Send;
}

#[cfg(test)]
mod tests {
    use ContactState::{Asked, Contact, Requested};

    use super::*;

    #[test]
    fn both_sides_always_agree() {
        let changes = [ContactChange::Request, ContactChange::Accept, ContactChange::Remove];
        for now in [None, Some(Requested), Some(Asked), Some(Contact)] {
            for change in changes {
                if let Some(after) = contact_after(now, change) {
                    assert_eq!(contact_after(after, change), Some(after), "repeating {change:?} on {now:?} changes nothing");
                }
                assert_eq!(now.map(mirrored).map(mirrored), now);
            }
        }
    }

    #[test]
    fn what_others_ask_leaves_room_for_ones_own() {
        let rows = |own, asked| ContactRows { own, asked };
        let (none, few, many) = (rows(0, 0), rows(0, limits::CONTACT_REQUESTS), rows(limits::CONTACTS, limits::CONTACT_REQUESTS));
        let request = |now, actor, other| full(now, contact_after(now, ContactChange::Request).unwrap(), actor, other);
        assert_eq!(request(None, few, none), None, "who was asked by many asks somebody");
        assert_eq!(request(None, none, few), Some(ContactOutcome::OtherFull));
        assert_eq!(request(None, rows(limits::CONTACTS, 0), none), Some(ContactOutcome::Full));
        assert_eq!(request(None, none, rows(limits::CONTACTS, 0)), None, "a list of contacts that is full can be asked");
        assert_eq!(request(Some(Asked), few, rows(limits::CONTACTS, 0)), None, "the answer to a request");
        assert_eq!(request(Some(Asked), many, none), Some(ContactOutcome::Full));
        assert_eq!(full(Some(Asked), None, many, many), None, "no is always possible");
        assert_eq!(full(Some(Contact), None, many, many), None);
    }

    #[test]
    fn a_use_again_is_in_time_until_its_end_and_for_a_clock_that_is_behind() {
        let at = |earliest| Use { now: 9_000_000, earliest, again: 60_000 }.in_time(1_000_000);
        assert!(at(1_000_000) && at(1_060_000) && at(999_000));
        assert!(!at(1_060_001));
    }

    #[test]
    fn only_who_was_asked_can_accept() {
        assert_eq!(contact_after(Some(Requested), ContactChange::Accept), None);
        assert_eq!(contact_after(None, ContactChange::Accept), None);
        assert_eq!(contact_after(Some(Asked), ContactChange::Accept), Some(Some(Contact)));
        assert_eq!(contact_after(Some(Asked), ContactChange::Request), Some(Some(Contact)), "two requests meet");
    }
}
