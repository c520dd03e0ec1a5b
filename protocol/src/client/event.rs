//! The client-ready event (step 4): an entry with its place in the thread.
//!
//! `channel` builds the MessagePack frame once by splicing the entry's own bytes behind the fields that the log adds;
//! nobody decodes a body on the way to a MessagePack client.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    cid::Cid,
    ids::{MsgId, UserId},
    limits,
    log::{Body, Entry, EntryView, Kind},
    schema::Time,
    thread::Thread,
};

/// An entry with its place in its thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    pub thread: Thread,
    pub id: MsgId,
    /// The id of the event before it in this thread; 0: none that is recent. In a page, only the oldest row's matters.
    pub prev: MsgId,
    /// When the log stored it, milliseconds since 1970.
    #[schema(value_type = Time)]
    pub ts: u64,
    pub from: UserId,
    pub cid: Cid,
    /// Show one that you do not know as "unsupported".
    #[schema(value_type = String, pattern = "^[a-z_]+$", example = "text")]
    pub kind: Kind,
    pub body: Body,
}

impl Event {
    pub fn new(thread: Thread, id: MsgId, prev: MsgId, ts: u64, entry: Entry) -> Self {
        Self { thread, id, prev, ts, from: entry.from, cid: entry.cid, kind: entry.kind, body: entry.body }
    }

    /// The event of an entry that nobody can read: it was acknowledged, so it has a place in its thread, as kind
    /// `unknown` with its bytes. Channel, persister and history all make it here, so that live, catch-up and archive
    /// show the same.
    pub fn unreadable(thread: Thread, id: MsgId, prev: MsgId, ts: u64, bytes: bytes::Bytes) -> Self {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&id.0.to_be_bytes());
        let from = UserId::parse("unreadable").expect("ten letters are an id; minted ones have seventeen");
        // Nobody but who holds the keys of NATS can write more; the archive keeps all of it.
        let body = Body { data: Some(bytes.slice(..bytes.len().min(limits::BODY_BYTES))), ..Body::default() };
        Self { thread, id, prev, ts, from, cid: Cid::mint(ts, random), kind: Kind::Unknown, body }
    }

    /// Stands for what nobody can read any more: ids `first..=last` of the partition, and messages of this thread
    /// perhaps among them. It is in no log; whoever reads archive and log makes it, always the same.
    pub fn lost(thread: Thread, first: MsgId, last: MsgId, ts: u64) -> Self {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&last.0.to_be_bytes());
        let from = UserId::parse("lost").expect("four letters are an id; minted ones have seventeen");
        let body = Body { target: Some(first), ..Body::default() };
        Self { thread, id: last, prev: MsgId::NONE, ts, from, cid: Cid::mint(ts, random), kind: Kind::Lost, body }
    }

    /// May `user` see it at all, membership aside?
    pub fn shown_to(&self, user: &UserId) -> bool {
        !self.kind.only_for_its_author() || &self.from == user
    }
}

impl EntryView<'_> {
    /// Appends the MessagePack frame `event` to `out`.
    pub fn write_event(&self, out: &mut Vec<u8>, thread: &str, id: MsgId, prev: MsgId, ts: u64) {
        const NEVER: &str = "a Vec takes every write";
        let uint = |out: &mut Vec<u8>, key: &str, value: u64| {
            rmp::encode::write_str(out, key).expect(NEVER);
            rmp::encode::write_uint(out, value).expect(NEVER);
        };
        out.reserve(64 + thread.len() + self.tail.len());
        rmp::encode::write_map_len(out, 5 + self.tail_fields).expect(NEVER);
        for s in ["t", "event", "thread", thread] {
            rmp::encode::write_str(out, s).expect(NEVER);
        }
        uint(out, "id", id.0);
        uint(out, "prev", prev.0);
        uint(out, "ts", ts);
        out.extend_from_slice(self.tail);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> Entry {
        let mut e = Entry::new(
            UserId::parse("u1").unwrap(),
            Cid::mint(1_800_000_000_000, [3; 10]),
            Kind::Text,
            Body::text("grüß dich"),
        );
        e.body.reply_to = Some(MsgId(1 << 50));
        e
    }

    #[test]
    fn the_spliced_frame_is_the_event() {
        for seen in [None, Some(1_800_000_000_000)] {
            let e = Entry { seen, ..entry() };
            let bytes = e.encode();
            let view = EntryView::parse(&bytes).unwrap();
            assert_eq!((view.seen, view.from, view.cid, view.kind), (seen, "u1", e.cid, "text"));
            let thread: Thread = "dm.a.u1".parse().unwrap();
            let mut frame = Vec::new();
            view.write_event(&mut frame, &thread.to_string(), MsgId(9), MsgId(7), 42);
            let event: Event = rmp_serde::from_slice(&frame).unwrap();
            assert_eq!(event, Event::new(thread, MsgId(9), MsgId(7), 42, e));
        }
    }

    #[test]
    fn a_field_of_the_next_version_travels_with_the_event() {
        let mut map = rmp_serde::to_vec_named(&entry()).unwrap();
        map[0] += 1;
        rmp::encode::write_str(&mut map, "poll").unwrap();
        rmp::encode::write_array_len(&mut map, 1).unwrap();
        rmp::encode::write_uint(&mut map, 5).unwrap();
        let mut frame = Vec::new();
        EntryView::parse(&map).unwrap().write_event(&mut frame, "dm.a.u1", MsgId(9), MsgId(7), 42);
        assert!(rmp_serde::from_slice::<Event>(&frame).is_ok());
        assert!(frame.windows(4).any(|w| w == b"poll"));
    }

    proptest! {
        #[test]
        fn mutated_entries_never_panic(at in 0usize..200, with: u8, cut in 0usize..200) {
            let mut bytes = entry().encode().to_vec();
            let n = bytes.len();
            bytes[at % n] = with;
            bytes.truncate(n - cut % n);
            if let Ok(view) = EntryView::parse(&bytes) {
                let mut frame = Vec::new();
                view.write_event(&mut frame, "dm.a.u1", MsgId(9), MsgId(7), 42);
            }
            let _ = Entry::decode(&bytes);
        }
    }
}
