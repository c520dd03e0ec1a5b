//! What the HTTP API takes and gives beside frames and their parts: the bodies that edge and SDK share, described as
//! the OpenAPI document has them.

mod accounts;
mod groups;
mod people;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::{
    accounts::{
        AccountDeleted, AccountDeletion, Credentials, ExternalToken, LoggedOut, PasswordChange, RefreshToken,
        Registration, SessionList, SessionsEnded, Tokens, UserSession,
    },
    groups::{GroupChanged, GroupInfo, GroupMember, NewGroup, NewGroupName, NewMembers, NewRole},
    people::{
        BlockChanged, BlockedUser, Blocks, Contact, ContactChange, ContactState, ContactWish, Contacts, Profile,
        Relation, Users,
    },
};
use super::frame::ThreadSummary;
use crate::{
    cid::Cid,
    ids::{MsgId, UserId},
    log::{Body, Kind},
    schema::{Cursors, Synced, Time},
    thread::Thread,
};

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Threads)]
pub struct ThreadsAnswer {
    pub threads: Vec<ThreadSummary>,
    /// None: that was the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    pub next: Option<MsgId>,
    /// For `since`, later: of the first page, once all pages of it have come.
    #[schema(value_type = Synced)]
    pub synced: String,
}

/// Up to where somebody has read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Read)]
pub struct ReadAnswer {
    /// Of the threads that were asked about.
    #[schema(value_type = Cursors)]
    pub read: BTreeMap<Thread, MsgId>,
}

/// Everything is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllRead {
    /// In so many threads something was not.
    #[schema(maximum = 100000)]
    pub threads: usize,
}

/// How far a message has come with one who may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptState {
    /// None of their devices has it yet.
    Sent,
    /// One of their devices has it.
    Delivered,
    Read,
    /// They give no receipts, or nobody can tell now.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptOf {
    pub user: UserId,
    pub state: ReceiptState,
}

/// Who has got and read a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Receipts)]
pub struct ReceiptsAnswer {
    pub thread: Thread,
    pub id: MsgId,
    /// How many may read it besides its author.
    pub of: u32,
    /// Of those, a page in the order of their ids.
    pub users: Vec<ReceiptOf>,
    /// `after` of the next page; missing: that was the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<UserId>,
}

/// A message; which fields its body needs depends on the kind, as `client::message` describes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewMessage {
    pub cid: Cid,
    pub kind: Kind,
    pub body: Body,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<Cid>,
}

/// The log has it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Sent)]
pub struct MessageSent {
    pub cid: Cid,
    pub thread: Thread,
    /// The message's id; the same for every attempt with this cid.
    pub id: MsgId,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = EdgeList)]
pub struct EdgeUrls {
    /// In no order; `/v1/ws` is the path of the socket.
    #[schema(example = json!(["ws://127.0.0.1:8081"]))]
    pub edges: Vec<String>,
}

/// All that is said of an edge on the clients' port. What is wrong, and numbers, are on the operators' address
/// (`admin.listen`).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Well)]
pub struct EdgeWell {
    /// Always true.
    pub ok: bool,
}
