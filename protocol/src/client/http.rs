//! What the HTTP API takes and gives besides frames.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{DeviceId, UserId},
    size::{self, Size},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContactChange {
    /// Asks; accepts, if the other has asked already.
    Request,
    Accept,
    /// Takes back a request, declines one, or ends the contact.
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContactState {
    /// The actor has asked.
    Requested,
    /// The other has asked; the actor can accept.
    Asked,
    Contact,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    pub user: UserId,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// What a login gives. Neither token is ever logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    pub user: UserId,
    pub name: String,
    pub device: DeviceId,
    /// Signed (EdDSA), for `hello` and `Authorization: Bearer`.
    pub access: String,
    /// The access token is good for so many seconds from now on, however late it may be by the clock of who gets it.
    pub expires_in: u64,
    /// Opaque; each use gives a new one, using an old one again revokes the whole family.
    pub refresh: String,
}
