//! Where a number is that is too large, for people: a second pass, over bytes that the first has refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::MAX_NUMBER;
use crate::codec::{Codec, msgpack};

/// The path of the first number of 2^53 or more (or -2^53 or less).
pub fn of_a_large_number(codec: Codec, bytes: &[u8]) -> Option<String> {
    let path = match codec {
        Codec::Msgpack => serde_path_to_error::deserialize::<_, Small>(&mut msgpack(bytes)).err()?.path().to_string(),
        Codec::Json => {
            let mut json = serde_json::Deserializer::from_slice(bytes);
            serde_path_to_error::deserialize::<_, Small>(&mut json).err()?.path().to_string()
        }
    };
    (path != "." && !path.contains('?')).then_some(path)
}

/// Any value whose numbers are small enough.
struct Small;

impl<'de> Deserialize<'de> for Small {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Numbers)
    }
}

struct Numbers;

impl Numbers {
    fn check<E: Error>(n: u64) -> Result<Small, E> {
        if n <= MAX_NUMBER { Ok(Small) } else { Err(E::custom("too large")) }
    }
}

impl<'de> Visitor<'de> for Numbers {
    type Value = Small;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Small, E> {
        Self::check(n)
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Small, E> {
        Self::check(n.unsigned_abs())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Small, E> {
        Ok(Small)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Small, E> {
        Ok(Small)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Small, E> {
        Ok(Small)
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Small, E> {
        Ok(Small)
    }

    fn visit_unit<E: Error>(self) -> Result<Small, E> {
        Ok(Small)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<Small, D::Error> {
        IgnoredAny::deserialize(d).map(|_| Small)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Small, A::Error> {
        while list.next_element::<Small>()?.is_some() {}
        Ok(Small)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Small, A::Error> {
        while map.next_entry::<String, Small>()?.is_some() {}
        Ok(Small)
    }
}
