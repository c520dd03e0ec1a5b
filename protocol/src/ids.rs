//! Ids: the only strings that may become part of a subject, and the id of a message.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest id in characters; all of them are ASCII.
pub const TOKEN_MAX: usize = 64;

/// A string of `[A-Za-z0-9_-]{1,64}`. The only way into a NATS subject or KV key: it can hold no dot, wildcard, space
/// or NUL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Arc<str>);

pub type UserId = Token;
pub type GroupId = Token;
pub type DeviceId = Token;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an id is 1 to 64 characters of A-Z a-z 0-9 _ and -")]
pub struct BadId;

impl Token {
    pub fn parse(s: &str) -> Result<Self, BadId> {
        if Self::fits(s) { Ok(Self(s.into())) } else { Err(BadId) }
    }

    /// Would [`Token::parse`] take it? Allocates nothing.
    pub fn fits(s: &str) -> bool {
        (1..=TOKEN_MAX).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    }

    /// Mints an id from 80 random bits: 16 characters of Crockford's base32, lower case, behind a one-letter prefix.
    pub fn mint(prefix: char, random: [u8; 10]) -> Self {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut s = String::with_capacity(17);
        s.push(if prefix.is_ascii_alphanumeric() { prefix } else { 'x' });
        let (mut acc, mut bits) = (0u32, 0u32);
        for byte in random {
            acc = (acc << 8) | u32::from(byte);
            bits += 8;
            while bits >= 5 {
                bits -= 5;
                s.push(ALPHABET[((acc >> bits) & 31) as usize] as char);
            }
        }
        Self(s.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Token {
    type Err = BadId;
    fn from_str(s: &str) -> Result<Self, BadId> {
        Self::parse(s)
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Token;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id of 1 to 64 characters of A-Z a-z 0-9 _ and -")
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Token, E> {
                Token::parse(s).map_err(E::custom)
            }
        }
        d.deserialize_str(Visitor)
    }
}

/// The id of a message: its sequence in the log. Larger is later, within a thread and within a partition.
/// Below 2^53 until 2095, so that JavaScript holds it exactly. Zero means "none".
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MsgId(pub u64);

impl MsgId {
    pub const NONE: Self = Self(0);
    pub const MAX: Self = Self(u64::MAX);

    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_means_something_in_a_subject_is_an_id() {
        for bad in ["", "a.b", "a*", ">", "a b", "a\0b", "a\n", "ä", &"x".repeat(65)] {
            assert_eq!(Token::parse(bad), Err(BadId), "{bad:?}");
        }
        for good in ["a", "A-Z_09", &"x".repeat(64)] {
            assert!(Token::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn minted_ids_are_ids() {
        let id = Token::mint('u', [255; 10]);
        assert_eq!(id.as_str(), "uzzzzzzzzzzzzzzzz");
        assert!(Token::parse(id.as_str()).is_ok());
    }
}
