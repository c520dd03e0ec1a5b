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
        Credentials, ExternalToken, LoggedOut, PasswordChange, RefreshToken, Registration, SessionList, SessionsEnded,
        Tokens, UserSession,
    },
    groups::{GroupChanged, GroupInfo, GroupMember, NewGroup, NewGroupName, NewMembers, NewRole},
    people::{
        BlockChanged, BlockedUser, Blocks, Contact, ContactChange, ContactState, ContactWish, Contacts, Profile,
        Relation, Users,
    },
};
use super::{
    event::Event,
    frame::{Page, ServerFrame, ThreadSummary},
    presence::PresenceOf,
};
use crate::{
    cid::Cid,
    ids::{MsgId, UserId},
    log::{Body, Interval, Kind, Role},
    refusal::Refusal,
    schema::{Cursors, Millis, Synced, Time},
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

/// What a poll brought.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Polled)]
pub struct PollAnswer {
    /// In their order.
    #[schema(value_type = Vec<PolledFrame>)]
    pub frames: Vec<ServerFrame>,
    /// Per thread how far its cursor may be moved once the frames are stored. A thread that has frames and is not here
    /// has a gap.
    #[schema(value_type = BTreeMap<String, MsgId>)]
    pub cursors: BTreeMap<Thread, MsgId>,
    /// For the next poll; missing: keep the old one.
    #[schema(value_type = Option<Synced>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<String>,
    /// Of those in `watch`; missing: it is as the client has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<PollPresence>,
}

/// The frames of the socket that a poll may bring, with their type in `t` (docs/protocol.md).
#[derive(Serialize, ToSchema)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum PolledFrame {
    Page(Page),
    Event(Event),
    Member {
        thread: Thread,
        id: MsgId,
        open: bool,
        role: Option<Role>,
        intervals: Vec<Interval>,
    },
    Error(Refusal),
    Contacts,
    Draining {
        #[schema(value_type = Millis)]
        after_ms: u64,
        edges: Vec<String>,
    },
}

/// What a poll asks, in a body: for any number of cursors.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Poll)]
#[serde(bound(deserialize = "T: Deserialize<'de> + Ord"))]
pub struct PollRequest<T: Ord = Thread> {
    #[serde(default)]
    #[schema(value_type = Option<Cursors>)]
    pub cursors: BTreeMap<T, MsgId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Synced>)]
    pub synced: Option<String>,
    /// How long to wait if there is nothing; 25 s if missing, and at most; 0: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Millis>)]
    pub wait_ms: Option<u64>,
    /// Whose presence to tell, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 500)]
    pub watch: Option<Vec<UserId>>,
    /// `presence.seen` of the last answer that had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
}

/// How all are shown whom a poll watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PollPresence {
    pub users: Vec<PresenceOf>,
    /// For the next poll, as `seen`.
    pub seen: String,
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
