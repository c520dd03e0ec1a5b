//! Bytes as a tree, by the document's words about the form of frames: the simplest code there is, trusting nothing of
//! the codec's. Also what the conformance suite reads frames with.

use std::collections::HashSet;

use natterjack_protocol::codec::Codec;
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
        Tree::Map(m) => {
            m.iter().map(|(k, _)| k).collect::<HashSet<_>>().len() == m.len() && m.iter().all(|(_, v)| good(v))
        }
        _ => true,
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
