//! The document's words as the simplest code there is: bytes become a tree, the tree a frame. Slow and trusting nothing of the codec's.

use std::collections::{BTreeMap, HashSet};

use base64::{Engine, prelude::BASE64_STANDARD};
use natterjack_protocol::{
    Body, Cid, Kind, MsgId, Thread, Token,
    codec::Codec,
    entry::Media,
    fold::{HistoryFor, Role},
    frame::{ClientFrame, DeviceClass, Hello, History, Send},
};
use serde::{Deserialize, Deserializer, de};

#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// An extension of MessagePack.
    Other,
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

/// None: refused.
pub fn read(codec: Codec, bytes: &[u8]) -> Option<Tree> {
    let tree = match codec {
        Codec::Json => serde_json::from_slice(bytes).ok()?,
        Codec::Msgpack => {
            let mut rest = bytes;
            let tree = msgpack(&mut rest, 40)?;
            rest.is_empty().then_some(tree)?
        }
    };
    (matches!(tree, Tree::Map(_)) && good(&tree) && levels(&tree) <= 32).then_some(tree)
}

fn levels(tree: &Tree) -> usize {
    match tree {
        Tree::List(l) => 1 + l.iter().map(levels).max().unwrap_or(0),
        Tree::Map(m) => 1 + m.iter().map(|(_, v)| levels(v)).max().unwrap_or(0),
        _ => 0,
    }
}

fn good(tree: &Tree) -> bool {
    match tree {
        Tree::Int(n) => n.abs() < 1 << 53,
        Tree::List(l) => l.iter().all(good),
        Tree::Map(m) => m.iter().map(|(k, _)| k).collect::<HashSet<_>>().len() == m.len() && m.iter().all(|(_, v)| good(v)),
        _ => true,
    }
}

/// serde_json reads a whole number beyond 2^64 as a float, so there it cannot tell.
pub fn unsure(tree: &Tree) -> bool {
    match tree {
        Tree::Float(f) => f.abs() >= 1e15,
        Tree::List(l) => l.iter().any(unsure),
        Tree::Map(m) => m.iter().any(|(_, v)| unsure(v)),
        _ => false,
    }
}

fn msgpack(rest: &mut &[u8], fuel: usize) -> Option<Tree> {
    use rmp::Marker as M;
    fn be(rest: &mut &[u8], n: usize) -> Option<u64> {
        Some(take(rest, n)?.iter().fold(0, |sum, b| sum * 256 + u64::from(*b)))
    }
    fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
        let (taken, left) = rest.split_at_checked(n)?;
        *rest = left;
        Some(taken)
    }
    let fuel = fuel.checked_sub(1)?;
    let text = |rest: &mut &[u8], n: u64| String::from_utf8(take(rest, n as usize)?.to_vec()).ok().map(Tree::Text);
    let bytes = |rest: &mut &[u8], n: u64| take(rest, n as usize).map(|b| Tree::Bytes(b.to_vec()));
    let other = |rest: &mut &[u8], n: u64| take(rest, n as usize + 1).map(|_| Tree::Other);
    let list = |rest: &mut &[u8], n: u64| (0..n).map(|_| msgpack(rest, fuel)).collect::<Option<_>>().map(Tree::List);
    let map = |rest: &mut &[u8], n: u64| {
        let pair = |_| match msgpack(rest, fuel)? {
            Tree::Text(key) => Some((key, msgpack(rest, fuel)?)),
            _ => None,
        };
        (0..n).map(pair).collect::<Option<_>>().map(Tree::Map)
    };
    Some(match M::from_u8(*take(rest, 1)?.first()?) {
        M::Null => Tree::Null,
        M::True => Tree::Bool(true),
        M::False => Tree::Bool(false),
        M::FixPos(n) => Tree::Int(n.into()),
        M::FixNeg(n) => Tree::Int(n.into()),
        M::U8 => Tree::Int(be(rest, 1)?.into()),
        M::U16 => Tree::Int(be(rest, 2)?.into()),
        M::U32 => Tree::Int(be(rest, 4)?.into()),
        M::U64 => Tree::Int(be(rest, 8)?.into()),
        M::I8 => Tree::Int((be(rest, 1)? as i8).into()),
        M::I16 => Tree::Int((be(rest, 2)? as i16).into()),
        M::I32 => Tree::Int((be(rest, 4)? as i32).into()),
        M::I64 => Tree::Int((be(rest, 8)? as i64).into()),
        M::F32 => Tree::Float(f32::from_bits(be(rest, 4)? as u32).into()),
        M::F64 => Tree::Float(f64::from_bits(be(rest, 8)?)),
        M::FixStr(n) => text(rest, n.into())?,
        M::Str8 => be(rest, 1).and_then(|n| text(rest, n))?,
        M::Str16 => be(rest, 2).and_then(|n| text(rest, n))?,
        M::Str32 => be(rest, 4).and_then(|n| text(rest, n))?,
        M::Bin8 => be(rest, 1).and_then(|n| bytes(rest, n))?,
        M::Bin16 => be(rest, 2).and_then(|n| bytes(rest, n))?,
        M::Bin32 => be(rest, 4).and_then(|n| bytes(rest, n))?,
        M::FixArray(n) => list(rest, n.into())?,
        M::Array16 => be(rest, 2).and_then(|n| list(rest, n))?,
        M::Array32 => be(rest, 4).and_then(|n| list(rest, n))?,
        M::FixMap(n) => map(rest, n.into())?,
        M::Map16 => be(rest, 2).and_then(|n| map(rest, n))?,
        M::Map32 => be(rest, 4).and_then(|n| map(rest, n))?,
        M::FixExt1 => other(rest, 1)?,
        M::FixExt2 => other(rest, 2)?,
        M::FixExt4 => other(rest, 4)?,
        M::FixExt8 => other(rest, 8)?,
        M::FixExt16 => other(rest, 16)?,
        M::Ext8 => be(rest, 1).and_then(|n| other(rest, n))?,
        M::Ext16 => be(rest, 2).and_then(|n| other(rest, n))?,
        M::Ext32 => be(rest, 4).and_then(|n| other(rest, n))?,
        M::Reserved => return None,
    })
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Tree;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("anything")
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }
            fn visit_bool<E>(self, v: bool) -> Result<Tree, E> {
                Ok(Tree::Bool(v))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Tree, E> {
                Ok(Tree::Int(v.into()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Tree, E> {
                Ok(Tree::Int(v.into()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Tree, E> {
                Ok(Tree::Float(v))
            }
            fn visit_str<E>(self, v: &str) -> Result<Tree, E> {
                Ok(Tree::Text(v.to_owned()))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut a: A) -> Result<Tree, A::Error> {
                let mut list = Vec::new();
                while let Some(v) = a.next_element()? {
                    list.push(v);
                }
                Ok(Tree::List(list))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut a: A) -> Result<Tree, A::Error> {
                let mut map = Vec::new();
                while let Some(pair) = a.next_entry()? {
                    map.push(pair);
                }
                Ok(Tree::Map(map))
            }
        }
        d.deserialize_any(Visitor)
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
            cursors: f.maybe("cursors", cursors)?.unwrap_or_default(),
            synced: f.maybe("synced", text)?,
        }),
        "send" => ClientFrame::Send(Send {
            r: r()?,
            cid: f.must("cid", cid)?,
            thread: f.must("thread", thread)?,
            kind: Kind::parse(&f.must("kind", text)?),
            body: f.must("body", body)?,
        }),
        "typing" => ClientFrame::Typing { thread: f.must("thread", thread)? },
        "history" => ClientFrame::History(History {
            r: r()?,
            thread: Some(f.must("thread", thread)?),
            before: f.maybe("before", id)?,
            after: f.maybe("after", id)?,
            around: f.maybe("around", id)?,
            at: f.maybe("at", number)?,
            limit: f.maybe("limit", limit)?,
        }),
        "threads" => ClientFrame::Threads { r: r()?, limit: f.maybe("limit", limit)?, before: f.maybe("before", id)? },
        "sync" => ClientFrame::Sync { r: r()?, cursors: f.must("cursors", cursors)? },
        "ping" => ClientFrame::Ping,
        "bye" => ClientFrame::Bye,
        _ => return None,
    })
}
