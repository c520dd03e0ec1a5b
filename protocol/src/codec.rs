//! The two subprotocols: the same frames as MessagePack maps with string keys, or as JSON text.
//!
//! What a client says is read strictly ([`Codec::read`]): first its form, then its fields without serde's leniency.
//! What our own processes have written is only decoded ([`Codec::decode`]).

pub mod form;
mod strict;

use bytes::Bytes;
use serde::{Deserializer as _, Serialize, de, de::DeserializeOwned};

use form::Form;
use strict::Strict;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    Msgpack,
    Json,
}

/// Why bytes were not taken. Names fields and types, never a value: it may be logged, and values are messages and
/// tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadBytes(pub String);

/// A bomb of nested arrays stops here, long before the stack does; what a client says at [`form::MAX_LEVELS`].
const MAX_DEPTH: usize = 64;
/// Longest reason given, in characters.
const REASON_CHARS: usize = 200;
/// Bytes of most frames; larger ones grow.
const USUAL: usize = 192;

impl Codec {
    pub const ALL: [Self; 2] = [Self::Msgpack, Self::Json];

    /// The WebSocket subprotocol; a client offers one or both, the server picks the first it knows.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Msgpack => "natterjack.v1.msgpack",
            Self::Json => "natterjack.v1.json",
        }
    }

    pub fn of_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.subprotocol() == name)
    }

    pub fn encode<T: Serialize>(self, value: &T) -> Bytes {
        match self {
            Self::Msgpack => {
                let mut bytes = Vec::with_capacity(USUAL);
                rmp_serde::encode::write_named(&mut bytes, value).expect("frames have string keys and plain values");
                bytes.into()
            }
            Self::Json => serde_json::to_vec(value).expect("frames have string keys and plain values").into(),
        }
    }

    /// The whole of `bytes` is one value; anything behind it is refused.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, BadBytes> {
        match self {
            Self::Msgpack => {
                let mut d = msgpack(bytes);
                let value = T::deserialize(&mut d).map_err(|e| BadBytes(without_values(&e.to_string())))?;
                if d.deserialize_option(More).is_ok() {
                    Err(BadBytes("bytes behind the value".into()))
                } else {
                    Ok(value)
                }
            }
            Self::Json => serde_json::from_slice(bytes).map_err(|e| BadBytes(without_values(&e.to_string()))),
        }
    }

    /// What somebody else has written, who may be anybody: one map of the right form whose fields are of the right
    /// types.
    pub fn read<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, BadBytes> {
        match Form::of(self, bytes).why(self, bytes) {
            Some(why) => Err(BadBytes(why)),
            None => self.fields(bytes),
        }
    }

    /// The fields of bytes whose form is right; refused with the path of the first one that is wrong.
    pub fn fields<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, BadBytes> {
        let value = match self {
            Self::Msgpack => T::deserialize(Strict(&mut msgpack(bytes))).ok(),
            Self::Json => T::deserialize(Strict(&mut serde_json::Deserializer::from_slice(bytes))).ok(),
        };
        value.ok_or_else(|| self.explain::<T>(bytes))
    }

    /// A second look, which knows the path.
    fn explain<T: DeserializeOwned>(self, bytes: &[u8]) -> BadBytes {
        let why = match self {
            Self::Msgpack => named(serde_path_to_error::deserialize::<_, T>(Strict(&mut msgpack(bytes)))),
            Self::Json => named(serde_path_to_error::deserialize::<_, T>(Strict(
                &mut serde_json::Deserializer::from_slice(bytes),
            ))),
        };
        BadBytes(why.unwrap_or_else(|| "not readable".into()))
    }
}

fn msgpack(bytes: &[u8]) -> rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'_, [u8]>> {
    let mut d = rmp_serde::Deserializer::from_read_ref(bytes);
    d.set_max_depth(MAX_DEPTH);
    d
}

/// Is there one more value? Looks at its first byte only.
struct More;

impl<'de> de::Visitor<'de> for More {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }
    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_some<D: de::Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        Ok(())
    }
}

fn named<T, E: std::error::Error>(result: Result<T, serde_path_to_error::Error<E>>) -> Option<String> {
    let e = result.err()?;
    let (path, why) = (e.path().to_string(), without_values(&e.inner().to_string()));
    let nowhere = path == "." || path.contains('?');
    let path: String = path.chars().take(REASON_CHARS).collect();
    Some(if nowhere { why } else { format!("{path}: {why}") })
}

/// serde quotes what it found; a reason may say what was expected only.
fn without_values(why: &str) -> String {
    const QUOTING: [(&str, &str); 4] = [
        ("invalid type: ", "wrong type"),
        ("invalid value: ", "wrong value"),
        ("invalid length ", "wrong length"),
        ("unknown variant ", "unknown value"),
    ];
    let quoting = QUOTING.iter().find(|(begins, _)| why.starts_with(begins));
    let clean = match (quoting, why.rfind(", expected ")) {
        (Some((_, short)), Some(at)) => format!("{short}{}", &why[at..]),
        (Some((_, short)), None) => (*short).to_owned(),
        (None, _) => why.to_owned(),
    };
    clean.chars().take(REASON_CHARS).collect()
}

/// `Option<Bytes>`: bytes in MessagePack, base64 (standard alphabet, padded) in JSON.
pub mod opt_bytes {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use bytes::Bytes;
    use serde::{Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(value: &Option<Bytes>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            None => s.serialize_none(),
            Some(b) if s.is_human_readable() => s.serialize_some(&BASE64_STANDARD.encode(b)),
            Some(b) => s.serialize_some(serde_bytes::Bytes::new(b)),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Bytes>, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Option<Bytes>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes, or base64 in JSON")
            }
            fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
                if d.is_human_readable() { d.deserialize_str(self) } else { d.deserialize_bytes(self) }
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Self::Value, E> {
                BASE64_STANDARD
                    .decode(s)
                    .map(|b| Some(b.into()))
                    .map_err(|_| E::custom("not base64 (standard alphabet, padded)"))
            }
            fn visit_bytes<E: de::Error>(self, b: &[u8]) -> Result<Self::Value, E> {
                Ok(Some(Bytes::copy_from_slice(b)))
            }
        }
        d.deserialize_option(Visitor)
    }
}
