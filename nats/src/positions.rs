//! How far a role has got in a partition of a generation, for those roles that keep it on NATS (the persister keeps its watermark in the store).

use bytes::Bytes;
use natterjack_protocol::{MsgId, log::VERSION};
use serde::{Deserialize, Serialize};

use crate::{
    kv::{Kv, KvBuckets, KvError},
    subjects,
};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub id: MsgId,
    /// When the log stored that entry, milliseconds since 1970.
    pub ts: u64,
}

#[derive(Serialize, Deserialize)]
struct Value {
    v: u8,
    #[serde(flatten)]
    position: Position,
}

#[derive(Clone)]
pub struct Positions {
    kv: Kv,
    role: String,
    generation: u32,
}

impl Positions {
    pub fn new(buckets: &KvBuckets, role: &str) -> Self {
        Self { kv: buckets.control(), role: role.to_owned(), generation: buckets.generation() }
    }

    /// None: this role has never been here; also for a value that cannot be read (it is written again by the next `advance`).
    pub async fn load(&self, p: u32) -> Result<Option<Position>, KvError> {
        Ok(self.kv.get(&self.key(p)).await?.and_then(|(v, _)| parse(&v)))
    }

    fn key(&self, p: u32) -> String {
        subjects::position_key(&self.role, self.generation, p)
    }

    /// Moves forward, never back: of two readers the one that is behind changes nothing.
    pub async fn advance(&self, p: u32, to: Position) -> Result<(), KvError> {
        self.kv.update(&self.key(p), |old| merge(old.and_then(parse), to).map(encode)).await.map(|_| ())
    }
}

fn merge(old: Option<Position>, new: Position) -> Option<Position> {
    (old.is_none_or(|o| o.id < new.id)).then_some(new)
}

fn parse(value: &[u8]) -> Option<Position> {
    serde_json::from_slice::<Value>(value).ok().map(|v| v.position)
}

fn encode(position: Position) -> Bytes {
    serde_json::to_vec(&Value { v: VERSION, position }).expect("plain values").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_forward() {
        let at = |id| Position { id: MsgId(id), ts: id };
        assert_eq!(merge(None, at(5)), Some(at(5)));
        assert_eq!(merge(Some(at(5)), at(5)), None);
        assert_eq!(merge(Some(at(6)), at(5)), None);
        assert_eq!(parse(&encode(at(7))), Some(at(7)));
    }
}
