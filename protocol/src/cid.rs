//! The client's id of a message (step 1), its age, and the two rules of exactly-once that hang on it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::{
    ids::{GroupId, Token, UserId},
    thread::Thread,
    times::Times,
};

/// A UUIDv7 that the client mints in the server's time when it first hands the message to a socket.
/// A string of 36 characters in JSON, 16 bytes in MessagePack.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cid(Uuid);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a cid is a UUID of version 7, in JSON as 36 characters in lower case")]
pub struct BadCid;

/// How old a cid is by the log's clock; decides the way a send takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// More than 10 s ahead: looked up, for the log's clock may have been ahead when it was stored; refused with
    /// `clock_ahead` if it was not.
    Ahead,
    /// At most 20 s old: published directly, the 60 s dedupe window absorbs a resend.
    Fresh,
    /// Older: looked up first.
    Old,
}

impl Cid {
    /// `random` fills the bits that are not time.
    pub fn mint(unix_ms: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, BadCid> {
        Self::from_uuid(Uuid::from_bytes(bytes))
    }

    pub fn from_uuid(uuid: Uuid) -> Result<Self, BadCid> {
        let v7 = uuid.get_version_num() == 7 && uuid.get_variant() == uuid::Variant::RFC4122;
        if v7 { Ok(Self(uuid)) } else { Err(BadCid) }
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// When it was minted, in milliseconds since 1970: the first 48 bits.
    pub fn unix_ms(&self) -> u64 {
        let b = self.0.as_bytes();
        u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]])
    }

    /// `now_ms` is the log's clock, never the edge's own. `dedupe_since_ms`: what was stored before it the stream's
    /// dedupe map does not know, so a cid that is not younger than that plus slack is never fresh; 0: nothing was
    /// stored before.
    pub fn age(&self, now_ms: u64, dedupe_since_ms: u64, times: &Times) -> Age {
        let c = self.unix_ms();
        let slack = times.young_stream().as_millis() as u64;
        if c > now_ms + times.cid_ahead.as_millis() as u64 {
            Age::Ahead
        } else if now_ms.saturating_sub(c) <= times.cid_fresh.as_millis() as u64
            && c > dedupe_since_ms.saturating_add(slack)
        {
            Age::Fresh
        } else {
            Age::Old
        }
    }

    /// The late rule: an entry stored later than 40 s after its cid (or after the lookup that let it through) may be a
    /// copy that the dedupe window could not see. So may one that was stored 15 s before its cid or earlier: then the
    /// log's clock was set back, and nobody knows how late it is. `ts_ms` is the time of the stream.
    pub fn is_late(&self, ts_ms: u64, seen_ms: Option<u64>, times: &Times) -> bool {
        let base = self.unix_ms().max(seen_ms.unwrap_or(0));
        let (late, early) = (times.late.as_millis() as u64, times.young_stream().as_millis() as u64);
        ts_ms > base.saturating_add(late) || base > ts_ms.saturating_add(early)
    }

    /// `Nats-Msg-Id`: 128 bits over (thread, sender, cid), length-prefixed so that no two triples meet.
    pub fn dedupe_id(&self, thread: &Thread, sender: &UserId) -> String {
        let thread = thread.spelled();
        let mut id =
            digest([thread.as_bytes(), sender.as_str().as_bytes(), self.as_bytes().as_slice()]).to_hex().to_string();
        id.truncate(32);
        id
    }

    /// The id of the group that this user makes under this cid: the same for every attempt, through any edge, and of
    /// nobody else.
    pub fn group_id(&self, creator: &UserId) -> GroupId {
        let digest = digest([b"group".as_slice(), creator.as_str().as_bytes(), self.as_bytes().as_slice()]);
        let mut bits = [0; 10];
        bits.copy_from_slice(&digest.as_bytes()[..10]);
        Token::mint('g', bits)
    }
}

fn digest<const N: usize>(parts: [&[u8]; N]) -> blake3::Hash {
    let mut h = blake3::Hasher::new();
    for part in parts {
        h.update(&(part.len() as u32).to_le_bytes());
        h.update(part);
    }
    h.finalize()
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cid {
    type Err = BadCid;
    /// In one spelling only, the one in which it is said: whoever compares strings finds their message again.
    fn from_str(s: &str) -> Result<Self, BadCid> {
        let uuid = Uuid::try_parse(s).map_err(|_| BadCid)?;
        let spelled = uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == s;
        if spelled { Self::from_uuid(uuid) } else { Err(BadCid) }
    }
}

impl Serialize for Cid {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(&self.0) } else { s.serialize_bytes(self.as_bytes()) }
    }
}

impl<'de> Deserialize<'de> for Cid {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Cid;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a cid: a UUID of version 7, in JSON as 36 characters in lower case, in MessagePack as 16 bytes",
                )
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Cid, E> {
                s.parse().map_err(E::custom)
            }
            fn visit_bytes<E: de::Error>(self, b: &[u8]) -> Result<Cid, E> {
                let bytes: [u8; 16] = b.try_into().map_err(|_| E::custom(BadCid))?;
                Cid::from_bytes(bytes).map_err(E::custom)
            }
        }
        if d.is_human_readable() { d.deserialize_str(Visitor) } else { d.deserialize_bytes(Visitor) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(ms: u64) -> Cid {
        Cid::mint(ms, [7; 10])
    }

    #[test]
    fn age_at_its_edges() {
        let t = Times::default();
        let now = 1_800_000_000_000;
        let old_stream = now - 3_600_000;
        assert_eq!(cid(now + 10_001).age(now, old_stream, &t), Age::Ahead);
        assert_eq!(cid(now + 10_000).age(now, old_stream, &t), Age::Fresh);
        assert_eq!(cid(now - 20_000).age(now, old_stream, &t), Age::Fresh);
        assert_eq!(cid(now - 20_001).age(now, old_stream, &t), Age::Old);
        assert_eq!(
            cid(now).age(now, now - 15_000, &t),
            Age::Old,
            "the stream's dedupe map is younger than the cid may be"
        );
        assert_eq!(cid(now).age(now, now - 15_001, &t), Age::Fresh);
    }

    #[test]
    fn late_at_its_edge() {
        let t = Times::default();
        let c = 1_800_000_000_000;
        assert!(!cid(c).is_late(c + 40_000, None, &t));
        assert!(cid(c).is_late(c + 40_001, None, &t));
        assert!(!cid(c).is_late(c + 90_000, Some(c + 60_000), &t), "looked up at 60 s, stored 30 s later");
        assert!(!cid(c + 15_000).is_late(c, None, &t), "as far ahead as is let through, and the slack");
        assert!(
            cid(c + 15_001).is_late(c, None, &t) && cid(c).is_late(c, Some(c + 15_001), &t),
            "the clock was set back"
        );
    }

    #[test]
    fn the_dedupe_id_keeps_thread_sender_and_cid_apart() {
        let user = |s: &str| crate::Token::parse(s).unwrap();
        let (a, b, ab) = (user("a"), user("b"), user("ab"));
        let c = cid(1);
        let t = Thread::dm(&a, &b);
        let id = c.dedupe_id(&t, &a);
        assert_eq!(id.len(), 32);
        assert_ne!(id, c.dedupe_id(&t, &b));
        assert_ne!(c.dedupe_id(&Thread::group(&a), &ab), c.dedupe_id(&Thread::group(&ab), &a));
        assert_ne!(id, cid(2).dedupe_id(&t, &a));
    }

    #[test]
    fn a_group_has_one_id_for_each_creator_and_cid() {
        let user = |s: &str| Token::parse(s).unwrap();
        let id = cid(1).group_id(&user("a"));
        assert_eq!(id, cid(1).group_id(&user("a")));
        assert_ne!(id, cid(1).group_id(&user("b")));
        assert_ne!(id, cid(2).group_id(&user("a")));
        assert_eq!(id.as_str().len(), 17);
    }

    #[test]
    fn only_version_7() {
        assert!("0190b2f4-0000-4000-8000-000000000000".parse::<Cid>().is_err());
        assert!("0190b2f4-0000-7000-0000-000000000000".parse::<Cid>().is_err(), "of another variant");
        assert!("nonsense".parse::<Cid>().is_err());
        let c = cid(1_800_000_000_000);
        assert_eq!(c.to_string().parse::<Cid>(), Ok(c));
        assert_eq!(c.unix_ms(), 1_800_000_000_000);
        let s = c.to_string();
        for other in [
            s.to_uppercase(),
            s.replace('-', ""),
            format!("{{{s}}}"),
            format!("urn:uuid:{s}"),
            format!(" {s}"),
            s.replace('-', "_"),
        ] {
            assert_eq!(other.parse::<Cid>(), Err(BadCid), "{other}");
        }
    }
}
