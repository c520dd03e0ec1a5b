//! A thread (one conversation), its spelling, and the partition of the log that holds it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::{GroupId, Token, UserId};

/// `dm.<lo>.<hi>` (the two user ids sorted; `dm.a.a` is legal: notes to oneself) or `group.<gid>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Thread {
    Dm { lo: UserId, hi: UserId },
    Group { gid: GroupId },
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a thread is dm.<user>.<user> with the ids in order, or group.<id>")]
pub struct BadThread;

impl Thread {
    pub fn dm(a: &UserId, b: &UserId) -> Self {
        let (lo, hi) = if a <= b { (a, b) } else { (b, a) };
        Self::Dm { lo: lo.clone(), hi: hi.clone() }
    }

    pub fn group(gid: &GroupId) -> Self {
        Self::Group { gid: gid.clone() }
    }

    /// 64-bit hash of the spelling. Golden: part of the contract between every role and every generation.
    pub fn hash64(&self) -> u64 {
        // Where it fits, on the stack: a start hashes each of a user's threads a few times.
        let parts: &[&str] = match self {
            Self::Dm { lo, hi } => &["dm.", lo.as_str(), ".", hi.as_str()],
            Self::Group { gid } => &["group.", gid.as_str()],
        };
        let (mut spelled, mut len) = ([0_u8; 128], 0);
        for part in parts {
            let Some(place) = spelled.get_mut(len..len + part.len()) else {
                return xxhash_rust::xxh3::xxh3_64(self.spelled().as_bytes());
            };
            place.copy_from_slice(part.as_bytes());
            len += part.len();
        }
        xxhash_rust::xxh3::xxh3_64(&spelled[..len])
    }

    /// What `Display` writes, without its machinery: a message is spelled several times on its way.
    pub fn spelled(&self) -> String {
        match self {
            Self::Dm { lo, hi } => ["dm.", lo.as_str(), ".", hi.as_str()].concat(),
            Self::Group { gid } => ["group.", gid.as_str()].concat(),
        }
    }

    /// The partition of the log, of `partitions`.
    pub fn partition(&self, partitions: u32) -> u32 {
        partition_of(self.hash64(), partitions)
    }

    /// The other user of a DM as `user` sees it; oneself in notes to oneself; none in a group or for a stranger.
    pub fn peer(&self, user: &UserId) -> Option<&UserId> {
        match self {
            Self::Dm { lo, hi } if lo == user => Some(hi),
            Self::Dm { lo, hi } if hi == user => Some(lo),
            _ => None,
        }
    }

    /// The users of a DM, once each; empty for a group.
    pub fn dm_users(&self) -> impl Iterator<Item = &UserId> {
        let (first, second) = match self {
            Self::Dm { lo, hi } => (Some(lo), (lo != hi).then_some(hi)),
            Self::Group { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// Also shards KV buckets: `shard = xxh3_64(key) % U`.
pub fn partition_of(hash: u64, partitions: u32) -> u32 {
    (hash % u64::from(partitions.max(1))) as u32
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spelled())
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Thread {
    type Err = BadThread;

    fn from_str(s: &str) -> Result<Self, BadThread> {
        let token = |t: &str| Token::parse(t).map_err(|_| BadThread);
        if let Some(rest) = s.strip_prefix("dm.") {
            let (lo, hi) = rest.split_once('.').ok_or(BadThread)?;
            let (lo, hi) = (token(lo)?, token(hi)?);
            if lo > hi {
                return Err(BadThread);
            }
            Ok(Self::Dm { lo, hi })
        } else if let Some(gid) = s.strip_prefix("group.") {
            Ok(Self::Group { gid: token(gid)? })
        } else {
            Err(BadThread)
        }
    }
}

impl Serialize for Thread {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.spelled())
    }
}

impl<'de> Deserialize<'de> for Thread {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Thread;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a thread: dm.<user>.<user> with the ids in order, or group.<id>")
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Thread, E> {
                s.parse().map_err(E::custom)
            }
        }
        d.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_goes_both_ways_and_refuses_the_rest() {
        for good in ["dm.a.b", "dm.a.a", "group.g1"] {
            assert_eq!(good.parse::<Thread>().unwrap().to_string(), good);
        }
        for bad in ["dm.b.a", "dm.a", "dm.a.b.c", "group.", "group.a.b", "dm.*.b", "room.a", "", "group.a b"] {
            assert_eq!(bad.parse::<Thread>(), Err(BadThread), "{bad}");
        }
    }

    #[test]
    fn a_long_thread_has_the_hash_of_its_spelling() {
        for len in [1, 17, 57, 58, 59, 60, 61, 64] {
            let [a, b] = ["a", "b"].map(|c| c.repeat(len).parse::<Token>().unwrap());
            for thread in [Thread::dm(&a, &b), Thread::group(&a)] {
                assert_eq!(thread.hash64(), xxhash_rust::xxh3::xxh3_64(thread.to_string().as_bytes()), "{len}");
            }
        }
    }

    /// Golden: a change here would move every thread to another partition.
    #[test]
    fn partitions_are_golden() {
        let of = |s: &str| s.parse::<Thread>().unwrap();
        assert_eq!(of("dm.a.b").hash64(), xxhash_rust::xxh3::xxh3_64(b"dm.a.b"));
        let golden: Vec<u32> =
            ["dm.a.b", "dm.alice.bob", "group.g1", "group.team"].iter().map(|t| of(t).partition(16)).collect();
        assert_eq!(golden, GOLDEN);
    }
    const GOLDEN: [u32; 4] = [3, 8, 1, 3];

    #[test]
    fn the_peer_of_a_dm() {
        let (a, b, c) = (Token::parse("a").unwrap(), Token::parse("b").unwrap(), Token::parse("c").unwrap());
        let t = Thread::dm(&b, &a);
        assert_eq!(t.peer(&a), Some(&b));
        assert_eq!(t.peer(&c), None);
        assert_eq!(Thread::dm(&a, &a).dm_users().count(), 1);
    }
}
