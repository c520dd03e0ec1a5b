//! What travels on live subjects between `channel` and the edges (steps 4 and 5). On `live.*.e`: a binary header, then,
//! of an event, the client-ready frame, so that an edge routes, counts and acknowledges without decoding, and hands the
//! frame on as the same bytes.
//!
//! | bytes of an event | | bytes of a head or a membership | |
//! |---|---|---|---|
//! | 1 | tag | 1 | tag |
//! | 1 | flags: 1 control, 2 counts as unread | 8 | id, little endian |
//! | 8 + 8 | id, prev, little endian | 1 | length of the thread |
//! | 16 | cid | | thread |
//! | 1 + 1 | lengths of thread and author | | |
//! | | thread, author, frame | | |
//!
//! An event's header is 36 bytes, its thread and its author: 91 in a conversation of two minted ids (38 + 17), 76 in a
//! group (23 + 17).

mod signals;

use bytes::Bytes;

pub use self::signals::{Beat, Ephemeral};
use crate::{
    cid::Cid,
    client::{event::Event, frame::ServerFrame},
    codec::Codec,
    ids::MsgId,
    log::{EntryView, Kind},
};

const EVENT: u8 = 1;
const HEAD: u8 = 2;
const MEMBER: u8 = 3;

const CONTROL: u8 = 1;
const UNREAD: u8 = 2;

/// Of an event's header, without thread and author.
const EVENT_FIXED: usize = 1 + 1 + 8 + 8 + 16 + 1 + 1;
/// Of any other, without the thread.
const OTHER_FIXED: usize = 1 + 8 + 1;

/// On `live.*.e`, which only `channel` may publish. Borrowed from the payload: parsing allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveMessage<'a> {
    Event {
        header: EventHeader<'a>,
        /// The frame `event` in MessagePack.
        frame: &'a [u8],
    },
    /// The newest id of a thread that fell quiet; for the edges only, never for clients.
    Head { thread: &'a str, id: MsgId },
    /// The membership of the user whose subject this is has changed in `thread` by control entry `id`. No `prev`: not
    /// in the chain.
    Member { thread: &'a str, id: MsgId },
}

/// What is to be known of an event without decoding its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHeader<'a> {
    pub id: MsgId,
    pub prev: MsgId,
    pub thread: &'a str,
    pub author: &'a str,
    pub cid: Cid,
    /// A control entry: the edge has to look into it (membership, block), and to decide who sees it.
    pub control: bool,
    /// Whoever has not seen it has one more unread: a message, not an operation, a change of the thread, `lost` or
    /// `unknown`.
    pub unread: bool,
}

#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum BadLiveMessage {
    #[error("a live message is cut short")]
    CutShort,
    #[error("a live message has the unknown tag {0}")]
    Tag(u8),
    #[error("a live message has unknown flags: {0:#04x}")]
    Flags(u8),
    #[error("a live message has a malformed cid")]
    Cid,
    #[error("a live message names a thread or an author that is not UTF-8")]
    Utf8,
}

impl EventHeader<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[EVENT, if self.control { CONTROL } else { 0 } | if self.unread { UNREAD } else { 0 }]);
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&self.prev.0.to_le_bytes());
        out.extend_from_slice(self.cid.as_bytes());
        out.extend_from_slice(&[length(self.thread), length(self.author)]);
        out.extend_from_slice(self.thread.as_bytes());
        out.extend_from_slice(self.author.as_bytes());
    }
}

/// Two ids of at most 64 characters, a prefix and two dots: 133.
fn length(of: &str) -> u8 {
    u8::try_from(of.len()).expect("a thread has at most 133 characters, an id 64")
}

/// Appends the live message of an entry to `out`: header, then the entry's own bytes spliced into the frame.
pub fn write_event(
    out: &mut Vec<u8>,
    view: &EntryView<'_>,
    control: bool,
    thread: &str,
    id: MsgId,
    prev: MsgId,
    ts: u64,
) {
    let unread = !control && Kind::parse(view.kind).is_message();
    EventHeader { id, prev, thread, author: view.from, cid: view.cid, control, unread }.write(out);
    view.write_event(out, thread, id, prev, ts);
}

/// The live message of an event that is decoded already. `control`: it was stored as a control entry, whether or not it
/// can be read.
pub fn encode_event(event: Event, control: bool) -> Bytes {
    let thread = event.thread.to_string();
    let Event { id, prev, cid, kind, .. } = event;
    let mut out = Vec::with_capacity(EVENT_FIXED + 2 * thread.len() + 512);
    let author = event.from.as_str();
    EventHeader { id, prev, thread: &thread, author, cid, control, unread: !control && kind.is_message() }
        .write(&mut out);
    out.extend_from_slice(&ServerFrame::Event(Box::new(event)).encode(Codec::Msgpack));
    out.into()
}

pub fn encode_head(thread: &str, id: MsgId) -> Bytes {
    encode_other(HEAD, thread, id)
}

pub fn encode_member(thread: &str, id: MsgId) -> Bytes {
    encode_other(MEMBER, thread, id)
}

fn encode_other(tag: u8, thread: &str, id: MsgId) -> Bytes {
    let mut out = Vec::with_capacity(OTHER_FIXED + thread.len());
    out.push(tag);
    out.extend_from_slice(&id.0.to_le_bytes());
    out.push(length(thread));
    out.extend_from_slice(thread.as_bytes());
    out.into()
}

impl<'a> LiveMessage<'a> {
    pub fn parse(payload: &'a [u8]) -> Result<Self, BadLiveMessage> {
        let mut rest = payload;
        let [tag] = take(&mut rest)?;
        match tag {
            EVENT => {
                let [flags] = take(&mut rest)?;
                if flags & !(CONTROL | UNREAD) != 0 {
                    return Err(BadLiveMessage::Flags(flags));
                }
                let (id, prev) = (take_id(&mut rest)?, take_id(&mut rest)?);
                let cid = Cid::from_bytes(take(&mut rest)?).map_err(|_| BadLiveMessage::Cid)?;
                let [thread, author] = take(&mut rest)?;
                let (thread, author) = (take_str(&mut rest, thread)?, take_str(&mut rest, author)?);
                let (control, unread) = (flags & CONTROL != 0, flags & UNREAD != 0);
                Ok(Self::Event { header: EventHeader { id, prev, thread, author, cid, control, unread }, frame: rest })
            }
            HEAD | MEMBER => {
                let id = take_id(&mut rest)?;
                let [thread] = take(&mut rest)?;
                let thread = take_str(&mut rest, thread)?;
                Ok(if tag == HEAD { Self::Head { thread, id } } else { Self::Member { thread, id } })
            }
            other => Err(BadLiveMessage::Tag(other)),
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BadLiveMessage> {
    let (taken, left) = rest.split_first_chunk().ok_or(BadLiveMessage::CutShort)?;
    *rest = left;
    Ok(*taken)
}

fn take_id(rest: &mut &[u8]) -> Result<MsgId, BadLiveMessage> {
    take(rest).map(|bytes| MsgId(u64::from_le_bytes(bytes)))
}

fn take_str<'a>(rest: &mut &'a [u8], length: u8) -> Result<&'a str, BadLiveMessage> {
    let (taken, left) = rest.split_at_checked(usize::from(length)).ok_or(BadLiveMessage::CutShort)?;
    *rest = left;
    std::str::from_utf8(taken).map_err(|_| BadLiveMessage::Utf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Body, Entry, Thread, UserId};

    fn event(kind: Kind) -> Event {
        let (a, b) = ("a".repeat(17), "b".repeat(17));
        let user = |s: &str| UserId::parse(s).unwrap();
        let entry = Entry::new(user(&a), Cid::mint(1_800_000_000_000, [3; 10]), kind, Body::text("hi"));
        Event::new(Thread::dm(&user(&a), &user(&b)), MsgId(9), MsgId(7), 42, entry)
    }

    #[test]
    fn messages_count_as_unread_and_nothing_else_does() {
        for name in ["text", "emoji", "image", "video", "file", "audio", "custom"] {
            assert!(unread(Kind::parse(name)), "{name}");
        }
        for name in
            ["edit", "recall", "reaction", "dm_started", "group_renamed", "member_added", "lost", "of another version"]
        {
            assert!(!unread(Kind::parse(name)), "{name}");
        }
    }

    fn unread(kind: Kind) -> bool {
        let payload = encode_event(event(kind), kind.is_control());
        let Ok(LiveMessage::Event { header, .. }) = LiveMessage::parse(&payload) else { panic!("an event") };
        assert_eq!(header.control, kind.is_control());
        header.unread
    }

    #[test]
    fn spliced_and_decoded_are_the_same_bytes_as_long_as_stated() {
        let event = event(Kind::Text);
        let entry = Entry::new(event.from.clone(), event.cid, event.kind, event.body.clone()).encode();
        let mut spliced = Vec::new();
        let thread = event.thread.to_string();
        write_event(&mut spliced, &EntryView::parse(&entry).unwrap(), false, &thread, event.id, event.prev, event.ts);
        assert_eq!(spliced, encode_event(event, false));
        let Ok(LiveMessage::Event { frame, .. }) = LiveMessage::parse(&spliced) else { panic!("an event") };
        assert_eq!(spliced.len() - frame.len(), 91);
    }

    fn text() -> impl Strategy<Value = String> {
        "[a-z0-9._-]{0,133}|\\PC{0,30}"
    }

    prop_compose! {
        /// A payload and where its frame begins, or its end.
        fn payload()(
            tag in EVENT..=MEMBER, id: u64, prev: u64, random: [u8; 10], ms in 0u64..1 << 48,
            thread in text(), author in text(), control: bool, unread: bool, frame: Vec<u8>,
        ) -> (Vec<u8>, usize) {
            let (id, prev, cid) = (MsgId(id), MsgId(prev), Cid::mint(ms, random));
            let (mut out, (thread, author)) = (Vec::new(), (thread.as_str(), author.as_str()));
            let want = match tag {
                EVENT => {
                    let header = EventHeader { id, prev, thread, author, cid, control, unread };
                    header.write(&mut out);
                    LiveMessage::Event { header, frame: &frame }
                }
                HEAD => LiveMessage::Head { thread, id },
                _ => LiveMessage::Member { thread, id },
            };
            if tag != EVENT {
                out = encode_other(tag, thread, id).into();
            }
            let header = out.len();
            if tag == EVENT {
                out.extend_from_slice(&frame);
            }
            assert_eq!(LiveMessage::parse(&out), Ok(want));
            (out, header)
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_each_shorter_header_is_an_error((bytes, header) in payload()) {
            for end in 0..header {
                prop_assert_eq!(LiveMessage::parse(&bytes[..end]), Err(BadLiveMessage::CutShort));
            }
        }

        #[test]
        fn mutated_bytes_are_a_message_or_an_error((bytes, header) in payload(), at: prop::sample::Index, with: u8) {
            let mut bytes = bytes;
            let at = at.index(header);
            bytes[at] = with;
            if let Ok(LiveMessage::Event { frame, .. }) = LiveMessage::parse(&bytes) {
                prop_assert!(bytes.ends_with(frame));
            }
            if at == 0 && !(EVENT..=MEMBER).contains(&with) {
                prop_assert_eq!(LiveMessage::parse(&bytes), Err(BadLiveMessage::Tag(with)));
            }
        }

        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _ = LiveMessage::parse(&bytes);
        }
    }
}
