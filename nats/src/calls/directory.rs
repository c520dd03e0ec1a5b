//! Questions to `directory`: people, their logins and relations. The edge has authenticated the `actor`.

use natterjack_protocol::{
    DeviceId, GroupId, Token, UserId,
    client::http::{Contact, ContactChange, ContactState, Profile, Tokens, UserSession},
    internal::rpc::{AccountProof, DirectoryAnswer, DirectoryRequest, EndedLogins},
};

use super::RpcCall;
use crate::subjects;

pub type DirectoryCall<A> = RpcCall<DirectoryRequest, DirectoryAnswer, A>;

fn call<A>(request: DirectoryRequest, answer: fn(DirectoryAnswer) -> Option<A>) -> DirectoryCall<A> {
    RpcCall { subject: subjects::DIRECTORY, request, answer }
}

pub fn register(name: String, password: String, device: DeviceId, invite: Option<Token>) -> DirectoryCall<Tokens> {
    call(DirectoryRequest::Register { name, password, device, invite }, tokens)
}

pub fn login(name: String, password: String, device: DeviceId) -> DirectoryCall<Tokens> {
    call(DirectoryRequest::Login { name, password, device, known: false }, tokens)
}

/// Only if this device has logged in as this user before. None: it has not, and no password was tried.
pub fn login_of_known(name: String, password: String, device: DeviceId) -> DirectoryCall<Option<Tokens>> {
    call(DirectoryRequest::Login { name, password, device, known: true }, |answer| match answer {
        DirectoryAnswer::Tokens(tokens) => Some(Some(tokens)),
        DirectoryAnswer::UnknownDevice => Some(None),
        _ => None,
    })
}

/// With a token of the external issuer; makes the account if there is none yet.
pub fn login_external(token: String, device: DeviceId) -> DirectoryCall<Tokens> {
    call(DirectoryRequest::LoginExternal { token, device }, tokens)
}

pub fn refresh(refresh: String) -> DirectoryCall<Tokens> {
    call(DirectoryRequest::Refresh { refresh }, tokens)
}

/// Revokes the family of this refresh token.
pub fn logout(refresh: String) -> DirectoryCall<()> {
    call(DirectoryRequest::Logout { refresh }, done)
}

/// The actor's logins; `device`: on which they ask.
pub fn sessions(actor: UserId, device: DeviceId) -> DirectoryCall<Vec<UserSession>> {
    call(DirectoryRequest::Sessions { actor, device }, |answer| match answer {
        DirectoryAnswer::Sessions(sessions) => Some(sessions),
        _ => None,
    })
}

/// How many logins were ended.
pub fn end_sessions(actor: UserId, which: EndedLogins) -> DirectoryCall<u32> {
    call(DirectoryRequest::EndSessions { actor, which }, ended)
}

/// How many logins were ended: all but the one with this family of refresh tokens.
pub fn change_password(actor: UserId, family: Token, old: String, new: String) -> DirectoryCall<u32> {
    call(DirectoryRequest::ChangePassword { actor, family, old, new }, ended)
}

/// For good. Safe to repeat, also when it is done.
pub fn delete_account(actor: UserId, proof: AccountProof) -> DirectoryCall<()> {
    call(DirectoryRequest::DeleteAccount { actor, proof }, done)
}

/// Users whose name begins with this (case is ignored), at most 20.
pub fn find(actor: UserId, prefix: String) -> DirectoryCall<Vec<Profile>> {
    call(DirectoryRequest::Find { actor, prefix }, profiles_of)
}

pub fn profiles(users: Vec<UserId>) -> DirectoryCall<Vec<Profile>> {
    call(DirectoryRequest::Profiles { users }, profiles_of)
}

/// In the order of their names, those behind this name, and whether there are more.
pub fn contacts(actor: UserId, after: Option<String>) -> DirectoryCall<(Vec<Contact>, bool)> {
    call(DirectoryRequest::Contacts { actor, after }, |answer| match answer {
        DirectoryAnswer::Contacts { contacts, more } => Some((contacts, more)),
        _ => None,
    })
}

/// How the two stand then.
pub fn change_contact(actor: UserId, other: UserId, change: ContactChange) -> DirectoryCall<Option<ContactState>> {
    call(DirectoryRequest::Contact { actor, other, change }, |answer| match answer {
        DirectoryAnswer::Contact(state) => Some(state),
        _ => None,
    })
}

/// The key of the user's threads was lost: build it again from archive and log. `not_found` if there is no such user.
pub fn rebuild_threads(user: &UserId) -> DirectoryCall<()> {
    call(DirectoryRequest::RebuildThreads { user: user.clone() }, done)
}

/// The key of a group was lost: likewise.
pub fn rebuild_group(group: &GroupId) -> DirectoryCall<()> {
    call(DirectoryRequest::RebuildGroup { group: group.clone() }, done)
}

/// The key of the user's cursors was lost: write it again from the archive. `not_found` if there is no such user.
pub fn restore_cursors(user: &UserId) -> DirectoryCall<()> {
    call(DirectoryRequest::RestoreCursors { user: user.clone() }, done)
}

fn ended(answer: DirectoryAnswer) -> Option<u32> {
    match answer {
        DirectoryAnswer::Ended(ended) => Some(ended),
        _ => None,
    }
}

fn tokens(answer: DirectoryAnswer) -> Option<Tokens> {
    match answer {
        DirectoryAnswer::Tokens(tokens) => Some(tokens),
        _ => None,
    }
}

fn profiles_of(answer: DirectoryAnswer) -> Option<Vec<Profile>> {
    match answer {
        DirectoryAnswer::Profiles(profiles) => Some(profiles),
        _ => None,
    }
}

fn done(answer: DirectoryAnswer) -> Option<()> {
    match answer {
        DirectoryAnswer::Done => Some(()),
        _ => None,
    }
}
