//! Step 5, the words of it: which live subject, which event, which gap.

use std::sync::Arc;

use bytes::Bytes;
use natterjack_protocol::{
    Event, GroupId, MsgId, Thread, UserId, client::frame::ServerFrame, codec::Codec, size::Size,
};
use xxhash_rust::xxh3::xxh3_64;

/// Whose live subject it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicKey {
    User(UserId),
    Group(GroupId),
}

impl TopicKey {
    /// The topic on which `user` receives `thread`.
    pub fn of(thread: &Thread, user: &UserId) -> Self {
        match thread {
            Thread::Dm { .. } => Self::User(user.clone()),
            Thread::Group { gid } => Self::Group(gid.clone()),
        }
    }
}

/// An event on its way to sessions: the frame in MessagePack, made once by `channel`, shared by all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveEvent {
    pub thread: Arc<str>,
    pub id: MsgId,
    pub prev: MsgId,
    pub control: bool,
    pub frame: Bytes,
}

impl LiveEvent {
    pub fn hash(&self) -> u64 {
        xxh3_64(self.thread.as_bytes())
    }

    /// An event that was fetched to fill a gap.
    pub fn fetched(event: Event) -> Self {
        let (thread, id, prev, control) =
            (event.thread.to_string().into(), event.id, event.prev, event.kind.is_control());
        Self { thread, id, prev, control, frame: ServerFrame::Event(Box::new(event)).encode(Codec::Msgpack) }
    }
}

impl Size for LiveEvent {
    fn size(&self) -> usize {
        self.frame.len()
    }
}

/// What has to be fetched before the thread can go on: `after < id <= upto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub thread: Arc<str>,
    pub after: MsgId,
    pub upto: MsgId,
}
