//! The wire between clients and edges: every frame, once, for both codecs.
//!
//! A frame is a map with its type in `t`. Unknown fields are ignored; an unknown type is answered with `unknown_frame`.
//! A request carries `r`, a number of the client's choosing, and gets exactly one of `ok page threads sent error` with the same `r`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::{
    cid::Cid,
    client::event::Event,
    codec::{Codec, form::Form},
    ids::{DeviceId, MsgId, Token, UserId},
    limits,
    log::{Body, Intervals, Kind, Role},
    refusal::{Code, Refusal},
    thread::Thread,
};

/// Number of a request, chosen by the client; echoed in the answer.
pub type Request = u32;

/// What the device is; later decides how many of a kind a user may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Access token. Never in a URL.
    pub token: String,
    pub device: DeviceId,
    #[serde(default)]
    pub class: DeviceClass,
    /// Per thread the newest id up to which this device has everything.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cursors: BTreeMap<Thread, MsgId>,
    /// The opaque string of the last `attached` or `pong`: how far this device is in sync altogether.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendMessage {
    pub r: Request,
    pub cid: Cid,
    pub thread: Thread,
    pub kind: Kind,
    pub body: Body,
    /// The message before it in this thread, if that has no answer yet: this one is not stored if that one is refused for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<Cid>,
}

/// Which part of a thread; at most one may be given, none: the newest page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryQuery {
    pub r: Request,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<Thread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<MsgId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<MsgId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub around: Option<MsgId>,
    /// Milliseconds since 1970: the page that begins with the first event at or after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "limit")]
    pub limit: Option<u16>,
}

/// One that is far too large stays too large, and is refused as such: its type is right.
fn limit<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u16>, D::Error> {
    Ok(Option::<u64>::deserialize(d)?.map(|n| n.try_into().unwrap_or(u16::MAX)))
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ClientFrame {
    Hello(Hello),
    Send(SendMessage),
    /// Somebody is writing; shown for a few seconds, may be lost.
    Typing {
        thread: Thread,
    },
    History(HistoryQuery),
    /// The threads of this user, the ones with the latest activity first; `before` (the `next` of the last answer) turns the page.
    Threads {
        r: Request,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u16>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<MsgId>,
    },
    /// Asks for what is newer than the cursors, as `hello` does: pages, then `ok`. For more cursors than fit into `hello`.
    Sync {
        r: Request,
        cursors: BTreeMap<Thread, MsgId>,
    },
    /// At least every `heartbeat_ms`; answered with `pong`.
    Ping,
    /// Closes the session.
    Bye,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub session: Token,
    pub user: UserId,
    /// The server's time, milliseconds since 1970: mint cids in it.
    pub now: u64,
    pub heartbeat_ms: u64,
    pub edge: Token,
    pub limits: limits::ClientLimits,
}

/// A contiguous part of a thread as its reader may see it, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Page {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r: Option<Request>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<Thread>,
    pub events: Vec<Event>,
    /// The newest id this reader may see below the first event; 0: there is none, the thread begins here.
    pub prev: MsgId,
    /// There is something newer than the last event.
    pub more: bool,
    /// Parts inside this page that could not be read now: do not move a cursor over them, ask again later.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<(MsgId, MsgId)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSummary {
    pub thread: Thread,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Groups: the user's role; none after leaving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// May write here.
    pub open: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Event>,
}

/// What an edge sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ServerFrame {
    Welcome(Box<Welcome>),
    /// Everything that the cursors asked for has been sent; from here on events are live. Keep `synced` for the next hello.
    Attached {
        synced: String,
    },
    Ok {
        r: Request,
    },
    /// The log has it: it will never be lost. `id` is the message's id; a resend of the same cid gets the same id.
    Sent {
        r: Request,
        cid: Cid,
        thread: Thread,
        id: MsgId,
    },
    Event(Box<Event>),
    Typing {
        thread: Thread,
        user: UserId,
    },
    /// Your own membership of a thread has changed: joined, role, left or removed (`open` false), blocked.
    Member {
        thread: Thread,
        id: MsgId,
        open: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Role>,
        intervals: Intervals,
    },
    Page(Page),
    Threads {
        r: Request,
        threads: Vec<ThreadSummary>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<MsgId>,
    },
    Error {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        r: Option<Request>,
        #[serde(flatten)]
        refusal: Refusal,
    },
    /// This edge leaves: connect to one of `edges` within `after_ms`, then close this socket.
    Draining {
        after_ms: u64,
        edges: Vec<String>,
    },
    /// The edge is cut off from the log: sends answer `unavailable` while `on`.
    Degraded {
        on: bool,
    },
    Pong {
        now: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        synced: Option<String>,
    },
    /// Your contacts changed: ask `GET /v1/contacts` again.
    Contacts,
}

/// The frame type without the rest.
#[derive(Deserialize)]
struct Peek {
    t: Option<String>,
}

#[derive(Deserialize)]
struct TypingFields {
    thread: Thread,
}

#[derive(Deserialize)]
struct ThreadsFields {
    r: Request,
    #[serde(default, deserialize_with = "limit")]
    limit: Option<u16>,
    before: Option<MsgId>,
}

#[derive(Deserialize)]
struct SyncFields {
    r: Request,
    cursors: BTreeMap<Thread, MsgId>,
}

/// A frame that cannot be taken: the request it answers, if it had one, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFrame {
    pub r: Option<Request>,
    pub refusal: Refusal,
}

impl ClientFrame {
    pub fn encode(&self, codec: Codec) -> Bytes {
        codec.encode(self)
    }

    /// One pass over the form, which finds `t` and `r`, and one for the fields, so that every error can name the request and the field.
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
        Ok(match t.as_str() {
            "send" => Self::Send(fields(codec, bytes, &t, r)?),
            "hello" => Self::Hello(fields(codec, bytes, &t, r)?),
            "typing" => {
                let TypingFields { thread } = fields(codec, bytes, &t, r)?;
                Self::Typing { thread }
            }
            "history" => {
                let h: HistoryQuery = fields(codec, bytes, &t, r)?;
                for (there, field) in [(r.is_some(), "r"), (h.thread.is_some(), "thread")] {
                    if !there {
                        return Err(bad(r, format!("history: missing field `{field}`")));
                    }
                }
                Self::History(h)
            }
            "threads" => {
                let ThreadsFields { r, limit, before } = fields(codec, bytes, &t, r)?;
                Self::Threads { r, limit, before }
            }
            "sync" => {
                let SyncFields { r, cursors } = fields(codec, bytes, &t, r)?;
                Self::Sync { r, cursors }
            }
            "ping" => Self::Ping,
            "bye" => Self::Bye,
            other => {
                let name: String = other.chars().take(32).collect();
                return Err(BadFrame { r, refusal: Refusal::new(Code::UnknownFrame, format!("unknown frame type {name:?}")) });
            }
        })
    }
}

/// The fields of a frame of type `t`; refused with the path of the first field that is wrong.
fn fields<T: DeserializeOwned>(codec: Codec, bytes: &[u8], t: &str, r: Option<Request>) -> Result<T, BadFrame> {
    codec.fields(bytes).map_err(|why| BadFrame { r, refusal: Refusal::new(Code::BadFrame, format!("{t}: {why}")) })
}

impl ServerFrame {
    pub fn encode(&self, codec: Codec) -> Bytes {
        codec.encode(self)
    }

    /// None: a type this version does not know; ignore it.
    pub fn decode(codec: Codec, bytes: &[u8]) -> Result<Option<Self>, crate::codec::BadBytes> {
        const KNOWN: [&str; 14] = [
            "welcome", "attached", "ok", "sent", "event", "typing", "member", "page", "threads", "error", "draining", "degraded", "pong",
            "contacts",
        ];
        let Peek { t } = codec.decode(bytes)?;
        match t.as_deref() {
            Some("event") => Ok(Some(Self::Event(codec.decode(bytes)?))),
            Some(t) if KNOWN.contains(&t) => codec.decode(bytes).map(Some),
            _ => Ok(None),
        }
    }

    pub fn error(r: Option<Request>, refusal: Refusal) -> Self {
        Self::Error { r, refusal }
    }
}
