//! The document's words about frames as the simplest code there is: a tree becomes a frame, or is refused.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use natterjack_protocol::{
    Body, Cid, Kind, MsgId, Thread, Token,
    client::{
        frame::{
            Acknowledged, ActivityReport, ClientFrame, DeviceClass, Hello, HistoryQuery, ReadAllQuery, SendMessage,
            SetThread, SyncQuery, ThreadsQuery, TypingIn, WatchQuery,
        },
        thread_settings::SettingsChange,
    },
    codec::Codec,
    log::{HistoryFor, Media, Role},
};

use super::tree::Tree;

/// serde_json reads a whole number beyond 2^64 as a float, so there it cannot tell.
pub fn unsure(tree: &Tree) -> bool {
    match tree {
        Tree::Float(f) => f.abs() >= 1e15,
        Tree::List(l) => l.iter().any(unsure),
        Tree::Map(m) => m.iter().any(|(_, v)| unsure(v)),
        _ => false,
    }
}

/// A map and the codec it came in.
struct Fields<'a>(Codec, &'a [(String, Tree)]);

impl<'a> Fields<'a> {
    fn of(codec: Codec, tree: &'a Tree) -> Option<Self> {
        if let Tree::Map(m) = tree { Some(Self(codec, m)) } else { None }
    }

    /// None: there, and wrong. Some(None): not there.
    fn maybe<T>(&self, key: &str, read: impl Fn(Codec, &'a Tree) -> Option<T>) -> Option<Option<T>> {
        match self.1.iter().find(|(k, _)| k == key) {
            None => Some(None),
            Some((_, v)) => read(self.0, v).map(Some),
        }
    }

    fn must<T>(&self, key: &str, read: impl Fn(Codec, &'a Tree) -> Option<T>) -> Option<T> {
        self.maybe(key, read)?
    }
}

fn text(_: Codec, v: &Tree) -> Option<String> {
    if let Tree::Text(s) = v { Some(s.clone()) } else { None }
}

fn number(_: Codec, v: &Tree) -> Option<u64> {
    if let Tree::Int(n) = v { u64::try_from(*n).ok() } else { None }
}

fn id(c: Codec, v: &Tree) -> Option<MsgId> {
    number(c, v).map(MsgId)
}

fn small(c: Codec, v: &Tree) -> Option<u32> {
    number(c, v)?.try_into().ok()
}

fn limit(c: Codec, v: &Tree) -> Option<u16> {
    Some(number(c, v)?.try_into().unwrap_or(u16::MAX))
}

fn token(c: Codec, v: &Tree) -> Option<Token> {
    Token::parse(&text(c, v)?).ok()
}

fn thread(c: Codec, v: &Tree) -> Option<Thread> {
    text(c, v)?.parse().ok()
}

fn cid(c: Codec, v: &Tree) -> Option<Cid> {
    match (c, v) {
        (Codec::Json, Tree::Text(s)) => {
            let hex: String = s.chars().filter(|c| *c != '-').collect();
            let dashes: Vec<usize> = s.char_indices().filter(|(_, c)| *c == '-').map(|(i, _)| i).collect();
            let lower = hex.len() == 32 && hex.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
            if dashes != [8, 13, 18, 23] || !lower {
                return None;
            }
            let bytes: Vec<u8> = (0..16).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
            Cid::from_bytes(bytes.try_into().unwrap()).ok()
        }
        (Codec::Msgpack, Tree::Bytes(b)) => Cid::from_bytes(b.clone().try_into().ok()?).ok(),
        _ => None,
    }
}

fn bytes(c: Codec, v: &Tree) -> Option<bytes::Bytes> {
    match (c, v) {
        (Codec::Json, Tree::Text(s)) => BASE64_STANDARD.decode(s).ok().map(Into::into),
        (Codec::Msgpack, Tree::Bytes(b)) => Some(b.clone().into()),
        _ => None,
    }
}

fn flag(_: Codec, v: &Tree) -> Option<bool> {
    if let Tree::Bool(b) = v { Some(*b) } else { None }
}

fn cursors(c: Codec, v: &Tree) -> Option<BTreeMap<Thread, MsgId>> {
    Fields::of(c, v)?.1.iter().map(|(k, v)| Some((k.parse().ok()?, id(c, v)?))).collect()
}

fn users(c: Codec, v: &Tree) -> Option<Vec<Token>> {
    if let Tree::List(l) = v { l.iter().map(|v| token(c, v)).collect() } else { None }
}

fn class(c: Codec, v: &Tree) -> Option<DeviceClass> {
    Some(match text(c, v)?.as_str() {
        "phone" => DeviceClass::Phone,
        "tablet" => DeviceClass::Tablet,
        "desktop" => DeviceClass::Desktop,
        "web" => DeviceClass::Web,
        _ => DeviceClass::Other,
    })
}

fn role(c: Codec, v: &Tree) -> Option<Role> {
    [("member", Role::Member), ("admin", Role::Admin), ("owner", Role::Owner)]
        .into_iter()
        .find(|(n, _)| text(c, v).as_deref() == Some(n))
        .map(|r| r.1)
}

fn history_for(c: Codec, v: &Tree) -> Option<HistoryFor> {
    let all = [("since_joining", HistoryFor::SinceJoining), ("everything", HistoryFor::Everything)];
    all.into_iter().find(|(n, _)| text(c, v).as_deref() == Some(n)).map(|h| h.1)
}

fn media(c: Codec, v: &Tree) -> Option<Media> {
    let f = Fields::of(c, v)?;
    Some(Media {
        url: f.must("url", text)?,
        mime: f.must("mime", text)?,
        size: f.maybe("size", number)?,
        name: f.maybe("name", text)?,
        width: f.maybe("width", small)?,
        height: f.maybe("height", small)?,
        duration_ms: f.maybe("duration_ms", number)?,
    })
}

fn body(c: Codec, v: &Tree) -> Option<Body> {
    let f = Fields::of(c, v)?;
    Some(Body {
        text: f.maybe("text", text)?,
        emoji: f.maybe("emoji", text)?,
        media: f.maybe("media", media)?,
        data: f.maybe("data", bytes)?,
        target: f.maybe("target", id)?,
        reply_to: f.maybe("reply_to", id)?,
        remove: f.maybe("remove", flag)?.unwrap_or_default(),
        users: f.maybe("users", users)?.unwrap_or_default(),
        name: f.maybe("name", text)?,
        role: f.maybe("role", role)?,
        history: f.maybe("history", history_for)?,
    })
}

fn change(c: Codec, v: &Tree) -> Option<SettingsChange> {
    let f = Fields::of(c, v)?;
    Some(SettingsChange {
        muted_until: f.maybe("muted_until", number)?,
        pinned: f.maybe("pinned", flag)?,
        archived: f.maybe("archived", flag)?,
        unread: f.maybe("unread", flag)?,
        draft: f.maybe("draft", text)?,
    })
}

/// None: refused.
pub fn frame(codec: Codec, tree: &Tree) -> Option<ClientFrame> {
    let f = Fields::of(codec, tree)?;
    f.maybe("r", small)?;
    let r = || f.must("r", small);
    Some(match f.must("t", text)?.as_str() {
        "hello" => ClientFrame::Hello(Hello {
            token: f.must("token", text)?,
            device: f.must("device", token)?,
            class: f.maybe("class", class)?.unwrap_or_default(),
            name: f.maybe("name", text)?,
            app: f.maybe("app", text)?,
            session: f.maybe("session", token)?,
            cursors: f.maybe("cursors", cursors)?.unwrap_or_default(),
            synced: f.maybe("synced", text)?,
        }),
        "send" => ClientFrame::Send(SendMessage {
            r: r()?,
            cid: f.must("cid", cid)?,
            thread: f.must("thread", thread)?,
            kind: Kind::parse(&f.must("kind", text)?),
            body: f.must("body", body)?,
            behind: f.maybe("behind", cid)?,
        }),
        "ack" => ClientFrame::Ack(Acknowledged {
            got: f.maybe("got", cursors)?.unwrap_or_default(),
            read: f.maybe("read", cursors)?.unwrap_or_default(),
        }),
        "typing" => ClientFrame::Typing(TypingIn { thread: f.must("thread", thread)? }),
        "history" => ClientFrame::History(HistoryQuery {
            r: r()?,
            thread: Some(f.must("thread", thread)?),
            before: f.maybe("before", id)?,
            after: f.maybe("after", id)?,
            around: f.maybe("around", id)?,
            at: f.maybe("at", number)?,
            limit: f.maybe("limit", limit)?,
        }),
        "threads" => ClientFrame::Threads(ThreadsQuery {
            r: r()?,
            limit: f.maybe("limit", limit)?,
            before: f.maybe("before", id)?,
            since: f.maybe("since", text)?,
            archived: f.maybe("archived", flag)?.unwrap_or_default(),
        }),
        "thread_settings" => ClientFrame::SetThread(SetThread {
            r: r()?,
            thread: f.must("thread", thread)?,
            set: f.must("set", change)?,
        }),
        "read_all" => ClientFrame::ReadAll(ReadAllQuery { r: r()? }),
        "sync" => ClientFrame::Sync(SyncQuery { r: r()?, cursors: f.must("cursors", cursors)? }),
        "watch" => ClientFrame::Watch(WatchQuery { r: r()?, users: f.maybe("users", users)? }),
        "report" => ClientFrame::Report(ActivityReport { active: f.must("active", flag)? }),
        "ping" => ClientFrame::Ping,
        "bye" => ClientFrame::Bye,
        _ => return None,
    })
}
