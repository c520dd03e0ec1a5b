//! The two subprotocols: the same frames as MessagePack maps with string keys, or as JSON text.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    Msgpack,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadBytes(pub String);

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
            Self::Msgpack => rmp_serde::to_vec_named(value).expect("frames have string keys and plain values").into(),
            Self::Json => serde_json::to_vec(value).expect("frames have string keys and plain values").into(),
        }
    }

    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, BadBytes> {
        match self {
            Self::Msgpack => {
                let mut d = rmp_serde::Deserializer::from_read_ref(bytes);
                // Frames are four levels deep; a bomb of nested arrays stops here.
                d.set_max_depth(32);
                T::deserialize(&mut d).map_err(|e| BadBytes(e.to_string()))
            }
            Self::Json => serde_json::from_slice(bytes).map_err(|e| BadBytes(e.to_string())),
        }
    }
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
                d.deserialize_any(self)
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Self::Value, E> {
                BASE64_STANDARD.decode(s).map(|b| Some(b.into())).map_err(|_| E::custom("not base64 (standard alphabet, padded)"))
            }
            fn visit_bytes<E: de::Error>(self, b: &[u8]) -> Result<Self::Value, E> {
                Ok(Some(Bytes::copy_from_slice(b)))
            }
        }
        d.deserialize_option(Visitor)
    }
}
