//! What the log holds (steps 2 and 3): one entry per message, operation or control change.
//!
//! An entry is a MessagePack map whose first fields are for readers of the log (`v`, `seen`) and whose rest
//! (`from cid kind body`) stands in the client-ready event word for word, so that `channel` can splice instead of
//! decoding.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    cid::Cid,
    codec::Codec,
    ids::UserId,
    log::{BadEntry, Body, EntryView, Kind, VERSION},
};

/// Bytes of an entry beside its text.
const ENCODED: usize = 192;

/// One entry of the log. Its thread is in the subject, its id and time are the log's.
/// The order of the fields is the wire's: `from` and all after it are spliced into the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub v: u8,
    /// The log's clock when an edge looked for an earlier copy before it published this one (the late rule needs it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<u64>,
    pub from: UserId,
    /// For a control entry: the id of the operation (`op`).
    pub cid: Cid,
    pub kind: Kind,
    pub body: Body,
}

impl Entry {
    pub fn new(from: UserId, cid: Cid, kind: Kind, body: Body) -> Self {
        Self { v: VERSION, seen: None, from, cid, kind, body }
    }

    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(ENCODED + self.body.text.as_ref().map_or(0, String::len));
        rmp_serde::encode::write_named(&mut bytes, self).expect("an entry has only string keys and plain values");
        bytes.into()
    }

    /// Takes nothing that [`EntryView::parse`] refuses, so that `channel`, which splices, and everybody who decodes
    /// agree on what is readable. The entry of a record on a `ctl.` subject (`control`) or a `chat.` subject: a change
    /// of the thread counts only on the guarded subject, and nothing else counts there. What this refuses is shown as
    /// kind `unknown`, live and in history alike.
    pub fn on(control: bool, bytes: &[u8]) -> Result<Self, BadEntry> {
        let entry = Self::decode(bytes)?;
        if entry.kind == Kind::Lost {
            Err(BadEntry("kind lost is in no log".into()))
        } else if entry.kind == Kind::Unknown || entry.kind.is_control() == control {
            Ok(entry)
        } else {
            Err(BadEntry(format!("kind {} on a subject of the other sort", entry.kind.as_str())))
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, BadEntry> {
        EntryView::parse(bytes)?;
        Codec::Msgpack.decode(bytes).map_err(|e| BadEntry(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_encoding() {
        let e = Entry::new(
            UserId::parse("u1").unwrap(),
            Cid::mint(1_800_000_000_000, [1; 10]),
            Kind::Text,
            Body::text("hi"),
        );
        assert_eq!(Entry::decode(&e.encode()).unwrap(), e);
        let next = Entry { v: VERSION + 1, ..e.clone() };
        assert!(Entry::decode(&next.encode()).is_ok(), "version N reads N + 1");
        assert!(Entry::decode(&Entry { v: VERSION + 2, ..e }.encode()).is_err());
    }
}
