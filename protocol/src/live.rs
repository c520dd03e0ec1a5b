//! What travels on live subjects between `channel` and the edges (steps 4 and 5): a small fixed header, then the client-ready frame,
//! so that an edge finds thread, id and prev without decoding, and hands the rest to its sessions as the very same bytes.

use bytes::Bytes;

use crate::{codec::Codec, entry::BadEntry, event::EntryView, ids::MsgId};

/// On `live.*.e`, which only `channel` may publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// An event in the chain of its thread.
    Event {
        id: MsgId,
        prev: MsgId,
        /// A control entry: the edge has to look into it (membership, block), and to decide who sees it.
        control: bool,
        thread: String,
        /// The frame `event` in MessagePack.
        frame: Bytes,
    },
    /// The newest id of a thread that fell quiet; for the edges only, never for clients.
    Head { thread: String, id: MsgId },
    /// The membership of the user whose subject this is has changed in `thread` by control entry `id`. No `prev`: not in the chain.
    Member { thread: String, id: MsgId },
}

const EVENT: u8 = 1;
const CONTROL: u8 = 2;
const HEAD: u8 = 3;
const MEMBER: u8 = 4;
/// tag, id, prev, length of the thread.
const FIXED: usize = 1 + 8 + 8 + 1;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a live message")]
pub struct BadLive;

fn header(out: &mut Vec<u8>, tag: u8, id: MsgId, prev: MsgId, thread: &str) {
    out.push(tag);
    out.extend_from_slice(&id.0.to_le_bytes());
    out.extend_from_slice(&prev.0.to_le_bytes());
    // Two ids of at most 64 characters, a prefix and two dots: 133.
    out.push(u8::try_from(thread.len()).expect("a thread has at most 133 characters"));
    out.extend_from_slice(thread.as_bytes());
}

/// The live message of an entry, built in one allocation.
pub fn encode_event(view: &EntryView<'_>, control: bool, thread: &str, id: MsgId, prev: MsgId, ts: u64) -> Bytes {
    let mut out = Vec::with_capacity(FIXED + thread.len() * 2 + 512);
    write_event(&mut out, view, control, thread, id, prev, ts);
    out.into()
}

/// Appends the same to `out`, for whoever makes very many.
pub fn write_event(out: &mut Vec<u8>, view: &EntryView<'_>, control: bool, thread: &str, id: MsgId, prev: MsgId, ts: u64) {
    header(out, if control { CONTROL } else { EVENT }, id, prev, thread);
    view.write_event(out, thread, id, prev, ts);
}

/// An event whose frame was made elsewhere (an entry that could not be understood, an event fetched to fill a gap).
pub fn encode_frame(control: bool, thread: &str, id: MsgId, prev: MsgId, frame: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(FIXED + thread.len() + frame.len());
    header(&mut out, if control { CONTROL } else { EVENT }, id, prev, thread);
    out.extend_from_slice(frame);
    out.into()
}

pub fn encode_head(thread: &str, id: MsgId) -> Bytes {
    let mut out = Vec::with_capacity(FIXED + thread.len());
    header(&mut out, HEAD, id, MsgId::NONE, thread);
    out.into()
}

pub fn encode_member(thread: &str, id: MsgId) -> Bytes {
    let mut out = Vec::with_capacity(FIXED + thread.len());
    header(&mut out, MEMBER, id, MsgId::NONE, thread);
    out.into()
}

/// A live message with everything borrowed or shared: for the hot path.
#[derive(Debug)]
pub struct LiveView<'a> {
    pub tag: Tag,
    pub id: MsgId,
    pub prev: MsgId,
    pub thread: &'a str,
    /// Where the frame begins in the payload.
    pub frame_at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    Event,
    Control,
    Head,
    Member,
}

impl<'a> LiveView<'a> {
    pub fn parse(payload: &'a [u8]) -> Result<Self, BadLive> {
        let (fixed, rest) = payload.split_at_checked(FIXED).ok_or(BadLive)?;
        let tag = match fixed[0] {
            EVENT => Tag::Event,
            CONTROL => Tag::Control,
            HEAD => Tag::Head,
            MEMBER => Tag::Member,
            _ => return Err(BadLive),
        };
        let word = |at: usize| fixed[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| BadLive);
        let thread = rest.get(..usize::from(fixed[FIXED - 1])).ok_or(BadLive)?;
        Ok(Self {
            tag,
            id: MsgId(word(1)?),
            prev: MsgId(word(9)?),
            thread: std::str::from_utf8(thread).map_err(|_| BadLive)?,
            frame_at: FIXED + thread.len(),
        })
    }
}

impl Live {
    pub fn decode(payload: &Bytes) -> Result<Self, BadLive> {
        let view = LiveView::parse(payload)?;
        let (id, prev, thread) = (view.id, view.prev, view.thread.to_owned());
        Ok(match view.tag {
            Tag::Event | Tag::Control => {
                Self::Event { id, prev, control: view.tag == Tag::Control, thread, frame: payload.slice(view.frame_at..) }
            }
            Tag::Head => Self::Head { thread, id },
            Tag::Member => Self::Member { thread, id },
        })
    }
}

/// Ephemeral messages on `live.*.x`: truth by pull or last-value-wins, so they may be lost. In MessagePack.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum Ephemeral {
    Typing {
        thread: crate::Thread,
        user: crate::UserId,
    },
    /// Contacts of this user changed: ask again.
    Contacts,
}

impl Ephemeral {
    pub fn encode(&self) -> Bytes {
        rmp_serde::to_vec_named(self).expect("plain values").into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, BadEntry> {
        Codec::Msgpack.decode(bytes).map_err(|e| BadEntry(e.to_string()))
    }
}

/// On `beat.<p>` once a second: a sign of life, the log's clock, and how far this partition has been published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Beat {
    /// Of the log's streams; the partitions of another one are others.
    #[serde(default = "first_generation")]
    pub generation: u32,
    pub p: u32,
    /// The stream leader's clock, milliseconds since 1970.
    pub ts: u64,
    /// What was stored before this moment, likewise, the stream's dedupe map does not know: when it was made, or
    /// where its clock stood when it was set back. 0: nothing was.
    pub dedupe_since: u64,
    /// Every event up to this id has been published on the connection that sends this beat.
    pub frontier: MsgId,
    /// How old the first entry is that the archive does not have yet, milliseconds; none: not known.
    #[serde(default)]
    pub archive_lag_ms: Option<u64>,
}

fn first_generation() -> u32 {
    1
}

impl Beat {
    pub fn encode(&self) -> Bytes {
        rmp_serde::to_vec_named(self).expect("plain values").into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, BadEntry> {
        Codec::Msgpack.decode(bytes).map_err(|e| BadEntry(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn goes_both_ways() {
        let e = encode_frame(true, "dm.a.b", MsgId(9), MsgId(7), b"frame");
        assert_eq!(
            Live::decode(&e),
            Ok(Live::Event { id: MsgId(9), prev: MsgId(7), control: true, thread: "dm.a.b".into(), frame: Bytes::from_static(b"frame") })
        );
        assert_eq!(Live::decode(&encode_head("group.g", MsgId(3))), Ok(Live::Head { thread: "group.g".into(), id: MsgId(3) }));
        assert_eq!(Live::decode(&encode_member("group.g", MsgId(3))), Ok(Live::Member { thread: "group.g".into(), id: MsgId(3) }));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Live::decode(&bytes.into());
        }
    }
}
