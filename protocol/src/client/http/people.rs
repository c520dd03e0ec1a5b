//! Users for each other: profiles, contacts, blocks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{MsgId, UserId},
    size::{self, Size},
    thread::Thread,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Profile {
    pub user: UserId,
    /// Missing: the account was deleted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The account was deleted; what its user wrote stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

impl Profile {
    pub fn named(user: UserId, name: impl Into<String>) -> Self {
        Self { user, name: name.into(), deleted: false }
    }
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Users {
    pub users: Vec<Profile>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContactState {
    /// You have asked.
    Requested,
    /// They have asked; you can accept.
    Asked,
    Contact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContactChange {
    /// Asks; accepts, if the other has asked already.
    Request,
    Accept,
    /// Takes back a request, declines one, or ends the contact.
    Remove,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Contact {
    pub user: UserId,
    pub name: String,
    pub state: ContactState,
}

impl Size for Contact {
    fn size(&self) -> usize {
        size::json(self)
    }
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Contacts {
    pub contacts: Vec<Contact>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Wish)]
pub struct ContactWish {
    pub change: ContactChange,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Relation {
    /// Missing: they are strangers (again).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ContactState>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Blocks {
    pub blocks: Vec<BlockedUser>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BlockedUser {
    pub user: UserId,
}

/// It is so.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Block)]
pub struct BlockChanged {
    /// The conversation of the two.
    pub thread: Thread,
    /// The control entry's place in the thread; if it was so already, that of the last change that the caller may know
    /// of; 0: there was none.
    pub id: MsgId,
    /// The caller blocks this user now.
    pub blocked: bool,
}
