//! What the HTTP API takes and gives beside frames and their parts: the bodies that edge and SDK share, described as
//! the OpenAPI document has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    event::Event,
    frame::{DeviceClass, Page, ServerFrame, ThreadSummary},
    presence::PresenceOf,
};
use crate::{
    cid::Cid,
    ids::{DeviceId, MsgId, Token, UserId},
    log::{Body, HistoryFor, Interval, Kind, Role},
    refusal::Refusal,
    schema::{
        Cursors, GroupName, Millis, Synced, Time,
        texts::{Password, UserName},
    },
    size::{self, Size},
    thread::Thread,
};

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Credentials {
    #[schema(value_type = UserName)]
    pub name: String,
    #[schema(value_type = Password)]
    pub password: String,
    /// Of an earlier login on this device; a new one is made if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

/// An account to be made.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = NewAccount)]
pub struct Registration {
    #[schema(value_type = UserName)]
    pub name: String,
    #[schema(value_type = Password)]
    pub password: String,
    /// Of this device; one is made if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// The code of an invite, where the operator asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<Token>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct ExternalToken {
    /// A signed JWT of the configured issuer (RS256, ES256 or EdDSA), of at most 16,384 bytes.
    pub token: String,
    /// Of an earlier login on this device; a new one is made if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct RefreshToken {
    /// Of the last answer that had one.
    pub refresh: String,
}

/// What a login gives. Neither token is ever logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    pub user: UserId,
    pub name: String,
    pub device: DeviceId,
    /// For `hello` and `Authorization: Bearer`.
    pub access: String,
    /// The access token is good for so many seconds from the answer on: count them by a monotonic clock.
    pub expires_in: u64,
    /// Opaque. Each use gives a new one; using an old one again revokes the whole family.
    pub refresh: String,
}

/// The login of this token is over, or there was none.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LoggedOut {
    #[schema(example = true)]
    pub logged_out: bool,
}

/// A device on which the user is logged in. What is missing is not known: it has not connected since it logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Session)]
pub struct UserSession {
    pub device: DeviceId,
    /// As the device calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<DeviceClass>,
    /// Version of the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// To which edge it is connected, or was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
    /// When it logged in.
    #[schema(value_type = Time)]
    pub since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    pub last_active: Option<u64>,
    pub connected: bool,
    /// The device that asks.
    pub this: bool,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Sessions)]
pub struct SessionList {
    pub sessions: Vec<UserSession>,
}

/// They are over: their refresh tokens, their access tokens, their sockets.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Ended)]
pub struct SessionsEnded {
    /// Logins that this request ended; 0 if they were over already.
    pub ended: u32,
}

/// No `Debug`: it holds secrets.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct PasswordChange {
    #[schema(value_type = Password)]
    pub old: String,
    #[schema(value_type = Password)]
    pub new: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Profile {
    pub user: UserId,
    pub name: String,
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

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewGroup {
    /// Without one each attempt makes a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<Cid>,
    #[schema(value_type = GroupName)]
    pub name: String,
    /// The other members.
    #[serde(default)]
    #[schema(max_items = 500)]
    pub users: Vec<UserId>,
    /// What those who join later may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryFor>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = NewName)]
pub struct NewGroupName {
    #[schema(value_type = GroupName)]
    pub name: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Who)]
pub struct NewMembers {
    #[schema(min_items = 1, max_items = 500)]
    pub users: Vec<UserId>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NewRole {
    pub role: Role,
}

/// It is so.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Changed)]
pub struct GroupChanged {
    pub thread: Thread,
    /// The control entry's place in the thread; if it was so already, that of the group's last change.
    pub id: MsgId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Member)]
pub struct GroupMember {
    pub user: UserId,
    pub role: Role,
}

/// A group as its members see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupInfo {
    pub thread: Thread,
    #[schema(value_type = GroupName)]
    pub name: String,
    pub history: HistoryFor,
    /// The last change this shows.
    pub version: MsgId,
    /// Who is in it now.
    pub members: Vec<GroupMember>,
}

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
