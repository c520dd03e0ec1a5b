//! How the types of `protocol` look in JSON. `protocol` knows nothing of HTTP, so their descriptions stand here; a test holds each
//! description against the real type.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::scalar::{Cid, GroupName, Id, Millis, MsgId, Synced, Thread, Time};

/// An answer of "no".
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// One of a closed list; each says whether a retry can help (docs/protocol.md).
    pub code: Code,
    /// For people; names the field and says what to do.
    #[schema(min_length = 1)]
    pub message: String,
    /// Not before; the header `Retry-After` says the same in seconds.
    pub retry_after_ms: Option<Millis>,
    /// The log's clock, with `clock_ahead`.
    pub now_ms: Option<Time>,
    /// The message it is about.
    pub cid: Option<Cid>,
    /// Which thread this is about, where the request does not say it.
    pub thread: Option<Thread>,
}

/// The codes are `natterjack_protocol::Code`; which of them an operation may answer stands at its statuses.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(pattern = "^[a-z_]+$", example = "unavailable")]
pub struct Code(String);

#[derive(Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    pub user: Id,
    pub name: String,
    pub device: Id,
    /// For `hello` and `Authorization: Bearer`.
    pub access: String,
    /// The access token is good for so many seconds from the answer on: count them by a monotonic clock.
    pub expires_in: u64,
    /// Used once; gives new tokens.
    pub refresh: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct Profile {
    pub user: Id,
    pub name: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct Contact {
    pub user: Id,
    pub name: String,
    pub state: ContactState,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContactState {
    /// You have asked.
    Requested,
    /// They have asked; you can accept.
    Asked,
    Contact,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContactChange {
    Request,
    Accept,
    Remove,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Member,
    Admin,
    Owner,
}

/// What those who join later may read.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HistoryFor {
    SinceJoining,
    Everything,
}

/// An attachment by reference; the bytes live where `url` says.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Media {
    /// An absolute address (RFC 3986), without user and password.
    #[schema(
        pattern = r"^[Hh][Tt][Tt][Pp][Ss]?://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{0,5})?([/?#]([!#$&-;=?-Z\[\]_a-z~]|%[0-9A-Fa-f]{2})*)?$",
        max_length = 2048,
        example = "https://files.example/7c1e.jpg"
    )]
    pub url: String,
    /// A media type (RFC 6838), without parameters.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*$", max_length = 127, example = "image/png")]
    pub mime: String,
    /// Bytes.
    #[schema(minimum = 0, maximum = 9007199254740991usize)]
    pub size: Option<u64>,
    /// Of the file: one visible line without a path.
    #[schema(pattern = r"^[^/\\\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]+$", max_length = 255, example = "teich.jpg")]
    pub name: Option<String>,
    /// Pixels.
    #[schema(minimum = 0, maximum = 4294967295usize)]
    pub width: Option<u32>,
    /// Pixels.
    #[schema(minimum = 0, maximum = 4294967295usize)]
    pub height: Option<u32>,
    pub duration_ms: Option<Millis>,
}

/// Which fields are there depends on the kind.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Body {
    pub text: Option<String>,
    pub emoji: Option<String>,
    pub media: Option<Media>,
    /// Base64 with the standard alphabet and padding.
    #[schema(content_encoding = "base64")]
    pub data: Option<String>,
    /// The message an edit, recall or reaction is about.
    pub target: Option<MsgId>,
    pub reply_to: Option<MsgId>,
    /// Takes a reaction away.
    pub remove: Option<bool>,
    /// Control entries: who is affected.
    pub users: Option<Vec<Id>>,
    pub name: Option<GroupName>,
    pub role: Option<Role>,
    pub history: Option<HistoryFor>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct Event {
    pub thread: Thread,
    pub id: MsgId,
    /// The event before it; 0: none that is recent.
    pub prev: MsgId,
    /// When the log stored it.
    pub ts: Time,
    pub from: Id,
    pub cid: Cid,
    /// Show one that you do not know as "unsupported".
    #[schema(pattern = "^[a-z_]+$", example = "text")]
    pub kind: String,
    pub body: Body,
}

/// A contiguous part of a thread, oldest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Page {
    pub thread: Thread,
    pub events: Vec<Event>,
    /// The newest id below the first event; 0: the thread begins here.
    pub prev: MsgId,
    /// There is something newer than the last event.
    pub more: bool,
    /// Parts that could not be read now, from the first id to the last: ask again later.
    #[schema(value_type = Option<Vec<Vec<MsgId>>>)]
    pub holes: Option<Vec<(MsgId, MsgId)>>,
}

/// What a poll brought.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Polled {
    /// In their order.
    pub frames: Vec<PolledFrame>,
    /// Per thread how far its cursor may be moved once the frames are stored.
    #[schema(value_type = BTreeMap<String, MsgId>)]
    pub cursors: BTreeMap<Thread, MsgId>,
    /// For the next poll; missing: keep the old one.
    pub synced: Option<Synced>,
}

/// A frame of the socket, with its type in `t` (docs/protocol.md).
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum PolledFrame {
    Page(Page),
    Event(Event),
    Member { thread: Thread, id: MsgId, open: bool, role: Option<Role>, intervals: Vec<Interval> },
    Error(Refusal),
    Contacts,
    Draining { after_ms: Millis, edges: Vec<String> },
}

/// What somebody may read: `s` ≤ id < `u`; without `u` it goes on.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Interval {
    pub s: MsgId,
    pub u: Option<MsgId>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct ThreadSummary {
    pub thread: Thread,
    /// Groups only.
    pub name: Option<GroupName>,
    pub role: Option<Role>,
    /// You may write here.
    pub open: bool,
    /// The newest event you may see.
    pub last: Option<Event>,
}

#[cfg(test)]
mod tests;
