//! The wire between clients and edges: every frame, declared once, for both codecs.
//!
//! A frame is a map with its type in `t`. Unknown fields are ignored; an unknown type is answered with `unknown_frame`.
//! A request carries `r`, a number of the client's choosing, and gets exactly one answer with the same `r`.

#[macro_use]
mod declare;
mod payload;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use declare::{BadFrame, FrameInfo, FrameKind};
pub use payload::{
    Acknowledged, ActivityReport, DeviceClass, Displaced, Hello, HistoryQuery, OtherDevice, Page, ReadAllQuery,
    Receipt, SendMessage, SetThread, SyncQuery, ThreadSummary, ThreadsQuery, TypingIn, WatchQuery, Welcome,
};

use crate::{
    cid::Cid,
    client::{event::Event, presence::PresenceOf, thread_settings::ThreadSettings},
    codec::{BadBytes, Codec, form::Form},
    ids::{MsgId, UserId},
    log::{Intervals, Role},
    refusal::{Code, Refusal},
    schema::{Cursors, Millis, RequestNumber, Synced, Time},
    thread::Thread,
};
use FrameKind::{Answer, AnswerOrPush, Push, Request as Asks, Signal};

/// Number of a request, chosen by the client; echoed in the answer.
pub type Request = u32;

frames! {
    strict
    /// What a client sends.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
    pub enum ClientFrame {
        /// Begins the session: who it is, and how far it has everything. The first frame of a connection.
        "hello", Signal(Some("welcome")) => Hello(Hello),
        /// A message, or an operation on one.
        "send", Asks("sent") => Send(SendMessage),
        /// How far this device has got, and its user has read. Answered by `read` when what was read is stored.
        "ack", Signal(None) => Ack(Acknowledged),
        /// Somebody is writing; shown for a few seconds, may be lost.
        "typing", Signal(None) => Typing(TypingIn),
        /// A page of a thread.
        "history", Asks("page") => History(HistoryQuery),
        /// A page of the list of threads.
        "threads", Asks("threads") => Threads(ThreadsQuery),
        /// Mutes, pins, archives a thread, marks it as unread, keeps a draft: on all devices of the user.
        "thread_settings", Asks("thread_settings") => SetThread(SetThread),
        /// Marks everything as read.
        "read_all", Asks("ok") => ReadAll(ReadAllQuery),
        /// Watches who is here: these users instead of those before, answered and followed by `presence`.
        "watch", Asks("presence") => Watch(WatchQuery),
        /// Is anybody in front of this device? To be repeated at least every 60 s while it is so. Nobody is shown it.
        "report", Signal(None) => Report(ActivityReport),
        /// Asks for what is newer than the cursors: pages, then `ok`. For more cursors than fit into `hello`.
        "sync", Asks("ok") => Sync(SyncQuery),
        /// A sign of life, at least every `heartbeat_ms`.
        "ping", Signal(Some("pong")) => Ping,
        /// Closes the session.
        "bye", Signal(None) => Bye,
    }
}

frames! {
    /// What an edge sends.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    pub enum ServerFrame {
        /// The session exists.
        "welcome", Push => Welcome(Box<Welcome>),
        /// Everything that the cursors asked for has been sent; events are live now. Keep `synced` for the next hello.
        "attached", Push => Attached {
            /// Empty: something could not be read, keep the one of before.
            synced: String,
        },
        /// The request is done.
        "ok", Answer => Ok {
            #[schema(value_type = RequestNumber)]
            r: Request,
        },
        /// The log has it: it will never be lost. `id` is the message's id; a resend of the same cid gets the same id.
        "sent", Answer => Sent {
            #[schema(value_type = RequestNumber)]
            r: Request,
            cid: Cid,
            thread: Thread,
            id: MsgId,
        },
        /// Something happened in a thread.
        "event", Push => Event(Box<Event>),
        /// Up to where this user has read, on whatever device. Keep the larger of this and what you have.
        "read", Push => Read {
            #[schema(value_type = Cursors)]
            threads: BTreeMap<Thread, MsgId>,
        },
        /// How far others have come in a thread in which you wrote lately. May be lost; keep the larger ids.
        "receipts", Push => Receipts { thread: Thread, receipts: Vec<Receipt> },
        /// Somebody else is writing in this thread.
        "typing", Push => Typing { thread: Thread, user: UserId },
        /// How users that you watch are shown, in an answer all of them, else those that changed.
        "presence", AnswerOrPush => Presence {
            #[schema(value_type = Option<RequestNumber>)]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            r: Option<Request>,
            users: Vec<PresenceOf>,
        },
        /// Your own membership of a thread has changed: joined, role, left or removed (`open` false), blocked.
        "member", Push => Member {
            thread: Thread,
            /// The control entry that changed it.
            id: MsgId,
            /// You may write here.
            open: bool,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            role: Option<Role>,
            /// What you may read.
            #[schema(value_type = Vec<crate::log::Interval>)]
            intervals: Intervals,
        },
        /// A contiguous part of a thread as its reader may see it, oldest first.
        "page", AnswerOrPush => Page(Page),
        /// A page of the list of threads.
        "threads", Answer => Threads {
            #[schema(value_type = RequestNumber)]
            r: Request,
            threads: Vec<ThreadSummary>,
            /// For the next page; none: that was the last one.
            #[schema(value_type = Option<Time>)]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            next: Option<MsgId>,
            /// For `since`, later: of the first page, once all pages of it have come.
            #[schema(value_type = Synced)]
            synced: String,
        },
        /// What the user has set for a thread: an answer, or set on another device.
        "thread_settings", AnswerOrPush => ThreadSettings {
            #[schema(value_type = Option<RequestNumber>)]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            r: Option<Request>,
            thread: Thread,
            settings: ThreadSettings,
        },
        /// Something is refused.
        "error", AnswerOrPush => Error {
            #[schema(value_type = Option<RequestNumber>)]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            r: Option<Request>,
            #[serde(flatten)]
            refusal: Refusal,
        },
        /// Another device has taken over: this one is closed with 4011, and does not come back by itself.
        "displaced", Push => Displaced(Displaced),
        /// This edge leaves: connect to one of `edges` within `after_ms`, then close this socket.
        "draining", Push => Draining {
            #[schema(value_type = Millis)]
            after_ms: u64,
            edges: Vec<String>,
        },
        /// The edge is cut off from the log: sends answer `unavailable` while `on`.
        "degraded", Push => Degraded { on: bool },
        /// The server's time, and how far this device is in sync.
        "pong", Push => Pong {
            /// Milliseconds since 1970.
            #[schema(value_type = Time)]
            now: u64,
            #[schema(value_type = Option<Synced>)]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            synced: Option<String>,
        },
        /// Your contacts changed: ask `GET /v1/contacts` again.
        "contacts", Push => Contacts,
    }
}

impl ClientFrame {
    pub fn encode(&self, codec: Codec) -> Bytes {
        codec.encode(self)
    }

    /// One pass over the form, which finds `t` and `r`, and one for the fields, so that every error can name the
    /// request and the field.
    pub fn decode(codec: Codec, bytes: &[u8]) -> Result<Self, BadFrame> {
        let bad = |r, why: String| BadFrame { r, refusal: Refusal::new(Code::BadFrame, why) };
        let form = Form::of(codec, bytes);
        let r: Option<Result<Request, _>> = form.r.map(|r| codec.fields(r));
        if let Some(why) = form.why(codec, bytes) {
            return Err(bad(r.and_then(Result::ok), format!("not a frame: {why}")));
        }
        let r = r.transpose().map_err(|_| bad(None, "r: wrong type, expected a whole number below 2^32".into()))?;
        let t = form.t.ok_or_else(|| bad(r, "the frame has no type: `t` is missing".into()))?;
        let t: String = codec.fields(t).map_err(|why| bad(r, format!("t: {why}")))?;
        Self::with_fields(&t, codec, bytes, r)?.ok_or_else(|| {
            let name: String = t.chars().take(32).collect();
            BadFrame { r, refusal: Refusal::new(Code::UnknownFrame, format!("unknown frame type {name:?}")) }
        })
    }
}

/// The frame type without the rest.
#[derive(Deserialize)]
struct Peek {
    t: Option<String>,
}

impl ServerFrame {
    pub fn encode(&self, codec: Codec) -> Bytes {
        codec.encode(self)
    }

    /// None: a type this version does not know; ignore it.
    pub fn decode(codec: Codec, bytes: &[u8]) -> Result<Option<Self>, BadBytes> {
        let Peek { t } = codec.decode(bytes)?;
        match t.as_deref() {
            // Without the detour of an enum that looks for its tag: most frames are events.
            Some("event") => Ok(Some(Self::Event(codec.decode(bytes)?))),
            Some(t) if Self::DECLARED.iter().any(|d| d.name == t) => codec.decode(bytes).map(Some),
            _ => Ok(None),
        }
    }

    pub fn error(r: Option<Request>, refusal: Refusal) -> Self {
        Self::Error { r, refusal }
    }
}
