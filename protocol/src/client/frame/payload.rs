//! What frames carry.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Request;
use crate::{
    cid::Cid,
    client::{
        event::Event,
        thread_settings::{SettingsChange, ThreadSettings},
    },
    ids::{DeviceId, MsgId, Token, UserId},
    limits,
    log::{Body, Kind, Role},
    schema::{AppName, Cursors, DeviceName, GroupName, Hole, Millis, PageLimit, RequestNumber, Synced, Time},
    thread::Thread,
};

/// What the device is: how many of a kind may be connected at once, the installation decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceClass {
    Phone,
    Tablet,
    Desktop,
    Web,
    #[default]
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hello {
    /// Access token. Never in a URL.
    pub token: String,
    pub device: DeviceId,
    #[serde(default)]
    pub class: DeviceClass,
    /// What its user calls it, for the list of devices and for whom it displaces.
    #[schema(value_type = Option<DeviceName>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name and version of the client.
    #[schema(value_type = Option<AppName>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The session that this client had last (`welcome.session`) and comes back for by itself: it displaces nobody.
    /// None: its user wants to use it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Token>,
    /// Per thread the newest id up to which this device has everything.
    #[schema(value_type = Cursors)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cursors: BTreeMap<Thread, MsgId>,
    /// The opaque string of the last `attached` or `pong`: how far this device is in sync altogether.
    #[schema(value_type = Option<Synced>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<String>,
}

impl Hello {
    /// Of a device that has nothing yet and says nothing of itself.
    pub fn new(token: String, device: DeviceId) -> Self {
        Self {
            token,
            device,
            class: DeviceClass::default(),
            name: None,
            app: None,
            session: None,
            cursors: BTreeMap::new(),
            synced: None,
        }
    }
}

/// A message; answered with `sent` when the log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendMessage {
    pub r: Request,
    pub cid: Cid,
    pub thread: Thread,
    pub kind: Kind,
    pub body: Body,
    /// The message before it in this thread, if that has no answer yet: this one is not stored if that one is refused
    /// for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<Cid>,
}

/// Which part of a thread; at most one of `before`, `after`, `around` and `at`, none: the newest page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistoryQuery {
    #[schema(value_type = RequestNumber)]
    pub r: Request,
    #[schema(required, value_type = Thread)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "required")]
    pub thread: Option<Thread>,
    /// The page that ends just below this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<MsgId>,
    /// The page that begins just above this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<MsgId>,
    /// Half a page on each side of this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around: Option<MsgId>,
    /// The page that begins with the first event at or after this time, milliseconds since 1970.
    #[schema(value_type = Option<Time>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    #[schema(value_type = Option<PageLimit>)]
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "limit")]
    pub limit: Option<u16>,
}

/// The threads of this user, those with the latest activity first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ThreadsQuery {
    #[schema(value_type = RequestNumber)]
    pub r: Request,
    #[schema(value_type = Option<PageLimit>)]
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "limit")]
    pub limit: Option<u16>,
    /// Turns the page: the `next` of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<MsgId>,
    /// Those alone of which something has changed since: the `synced` of an earlier list, or of `attached`, `pong`.
    #[schema(value_type = Option<Synced>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Those that the user has archived, instead of those they have not. Without meaning beside `since`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
}

/// What is to be set for a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetThread {
    #[schema(value_type = RequestNumber)]
    pub r: Request,
    pub thread: Thread,
    pub set: SettingsChange,
}

/// Everything that has been written until now is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadAllQuery {
    #[schema(value_type = RequestNumber)]
    pub r: Request,
}

/// More cursors than fit into `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncQuery {
    #[schema(value_type = RequestNumber)]
    pub r: Request,
    #[schema(value_type = Cursors)]
    pub cursors: BTreeMap<Thread, MsgId>,
}

/// How far this device has got in some threads, and how far its user has read in some. Ids only move forward: what is
/// behind the one that is known already changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Acknowledged)]
#[serde(bound(deserialize = "T: Deserialize<'de> + Ord"))]
pub struct Acknowledged<T: Ord = Thread> {
    /// Up to here this device has everything.
    #[schema(value_type = Option<Cursors>)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub got: BTreeMap<T, MsgId>,
    /// Up to here the user has read, which is so on all their devices.
    #[schema(value_type = Option<Cursors>)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub read: BTreeMap<T, MsgId>,
}

/// How far somebody else has come in a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    pub user: UserId,
    /// A device of theirs has everything up to here.
    pub got: MsgId,
    /// They have read up to here; 0: nothing.
    pub read: MsgId,
}

impl<T: Ord> Default for Acknowledged<T> {
    fn default() -> Self {
        Self { got: BTreeMap::new(), read: BTreeMap::new() }
    }
}

/// Somebody is writing in this thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TypingIn {
    pub thread: Thread,
}

/// Whom to watch from here on, and nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchQuery {
    #[schema(value_type = RequestNumber)]
    pub r: Request,
    /// None: the user's contacts.
    #[schema(max_items = 500)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<Vec<UserId>>,
}

/// Is this device in use?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActivityReport {
    pub active: bool,
}

/// A missing field is an error, although the type has a value for it: `default()` of a query names no thread yet.
fn required<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Thread>, D::Error> {
    Option::deserialize(d)
}

/// One that is far too large stays too large, and is refused as such: its type is right.
fn limit<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u16>, D::Error> {
    Ok(Option::<u64>::deserialize(d)?.map(|n| n.try_into().unwrap_or(u16::MAX)))
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Welcome {
    /// For the next `hello` of this client when it comes back by itself.
    pub session: Token,
    pub user: UserId,
    /// The server's time, milliseconds since 1970: mint cids in it.
    #[schema(value_type = Time)]
    pub now: u64,
    /// The client sends something at least this often.
    #[schema(value_type = Millis)]
    pub heartbeat_ms: u64,
    /// The edge sends a WebSocket ping after this much silence of the client.
    #[schema(value_type = Millis)]
    pub edge_ping_ms: u64,
    /// After this much silence the edge closes the socket; a pong ends a silence.
    #[schema(value_type = Millis)]
    pub silence_ms: u64,
    pub edge: Token,
    pub limits: limits::ClientLimits,
}

/// Another device has taken the place of this one in its class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Displaced {
    pub by: OtherDevice,
    /// When it did.
    #[schema(value_type = Time)]
    pub since: u64,
}

/// A device of the same user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OtherDevice {
    pub device: DeviceId,
    #[schema(value_type = Option<DeviceName>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub class: DeviceClass,
}

/// A contiguous part of a thread as its reader may see it, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Page {
    /// The request it answers; none after `hello` and over HTTP.
    #[schema(value_type = Option<RequestNumber>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r: Option<Request>,
    #[schema(required, value_type = Thread)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<Thread>,
    #[schema(required)]
    pub events: Vec<Event>,
    /// The newest id this reader may see below the first event; 0: there is none, the thread begins here.
    #[schema(required)]
    pub prev: MsgId,
    /// There is something newer than the last event.
    #[schema(required)]
    pub more: bool,
    /// Parts inside this page that could not be read now, from the first id to the last: do not move a cursor over
    /// them, ask again later.
    #[schema(value_type = Vec<Hole>)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<(MsgId, MsgId)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ThreadSummary {
    pub thread: Thread,
    /// Groups only.
    #[schema(value_type = Option<GroupName>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Groups: the user's role; none after leaving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// This user may write here.
    pub open: bool,
    /// The newest message, or change of the thread, that this user may see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Event>,
    /// `last` has more text, or names more people, than is shown here: it is no copy of the event.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// When something happened here last, reactions and edits too, milliseconds since 1970: the list is ordered by it.
    /// 0: nothing, or not known now.
    #[schema(value_type = Time)]
    pub active: u64,
    /// Up to here this user has read, on whatever device; 0: nothing. Missing: not known now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<MsgId>,
    /// Messages of others behind it; 100: that many or more. Missing: not known now.
    #[schema(maximum = 100)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<u8>,
    /// Missing: not known now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<ThreadSettings>,
}

impl ThreadSummary {
    /// Of one of which nothing else is known.
    pub fn of(thread: Thread) -> Self {
        Self {
            thread,
            name: None,
            role: None,
            open: true,
            last: None,
            cut: false,
            active: 0,
            read: None,
            unread: None,
            settings: None,
        }
    }
}
