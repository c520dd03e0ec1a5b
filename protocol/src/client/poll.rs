//! The long poll: what a client without a WebSocket asks, and what it is answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    event::Event,
    frame::{DeviceClass, Page, ServerFrame},
    presence::PresenceOf,
};
use crate::{
    ids::{MsgId, Token, UserId},
    log::{Interval, Role},
    refusal::Refusal,
    schema::{AppName, Cursors, DeviceName, Millis, Synced},
    thread::Thread,
};

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
    /// For the next poll: the device keeps its place.
    pub session: Token,
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
    Read {
        #[schema(value_type = Cursors)]
        threads: BTreeMap<Thread, MsgId>,
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
    pub class: DeviceClass,
    /// What its user calls the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DeviceName>)]
    pub name: Option<String>,
    /// Name and version of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AppName>)]
    pub app: Option<String>,
    /// `session` of the last answer: the device goes on with its place and displaces nobody. None: its user wants to
    /// use it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Token>,
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
