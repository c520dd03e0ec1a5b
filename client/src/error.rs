//! What can go wrong, by what the app was doing.

use natterjack_protocol::Refusal;

pub use crate::edges::BadEdge;
pub use crate::store::StoreError;
pub use crate::tls::BadRoots;

/// Building a client: nothing runs yet.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Edge(#[from] BadEdge),
    #[error(transparent)]
    Roots(#[from] BadRoots),
    #[error("the client's file: {0}")]
    Store(#[from] StoreError),
    #[error("the file belongs to {stored:?}; give {asked:?} a file of their own")]
    OtherUser { stored: String, asked: String },
    #[error("nobody is logged in here: give a name and password, or tokens")]
    NoLogin,
    #[error("log in: {0}")]
    Login(#[from] RequestError),
    #[error("device: {0}")]
    Device(#[from] natterjack_protocol::ids::BadId),
    /// What the app says of itself cannot be shown to others as it is.
    #[error("{}", .0.message)]
    Text(Refusal),
}

/// A question to an edge.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The answer was no; the code says whether trying again can help.
    #[error("{}", .0.message)]
    Refused(Refusal),
    #[error("no edge answers (tried {tried}): {why}")]
    Unreachable { tried: String, why: String },
    /// What an edge said is not what this version understands.
    #[error("an edge answered what this client does not understand: {0}")]
    Unreadable(String),
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
    #[error("too many requests wait for their answer; try again in a moment")]
    Busy,
    #[error("the client's file: {0}")]
    Store(#[from] StoreError),
    #[error("the client is closed")]
    Closed,
}

/// Giving a message to the outbox, or waiting for what became of it.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Before anything was stored: the message cannot be sent as it is.
    #[error("{}", .0.message)]
    Invalid(Refusal),
    /// The server refused it for good; it stays in the outbox as failed until it is discarded.
    #[error("{}", .0.message)]
    Refused(Refusal),
    #[error("the outbox holds {0} messages; wait until some are sent")]
    Full(usize),
    #[error("the message was not stored: {0}")]
    Store(#[from] StoreError),
    #[error("the client is closed")]
    Closed,
}
