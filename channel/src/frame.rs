//! Step 4, the frame: an entry and its `prev` become the live message that edges hand to clients as it is. In: a record
//! of the log. Out: bytes for `publisher`. Pure.

use bytes::{Bytes, BytesMut};
use natterjack_nats::LogRecord;
use natterjack_protocol::{Entry, Event, MsgId, internal::live, log::EntryView};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    pub payload: Bytes,
    pub unreadable: bool,
}

/// A buffer for frames: one allocation for many of them, instead of one each that another thread frees. A chunk lives
/// as long as the last of its frames waits in the client's queue.
#[derive(Default)]
pub struct FrameBuffer {
    scratch: Vec<u8>,
    chunk: BytesMut,
}

const CHUNK: usize = 64 << 10;

impl FrameBuffer {
    fn take(&mut self) -> Bytes {
        if self.chunk.capacity() < self.scratch.len() {
            self.chunk = BytesMut::with_capacity(CHUNK.max(self.scratch.len()));
        }
        self.chunk.extend_from_slice(&self.scratch);
        self.scratch.clear();
        self.chunk.split().freeze()
    }
}

/// `readable` is false for a control entry that could not be decoded, so that nobody is shown what was not folded.
pub fn live(buffer: &mut FrameBuffer, record: &LogRecord, prev: MsgId, readable: bool) -> Live {
    // Decoded to be sure that every client and the archive can; what is published are the entry's own bytes.
    let readable = readable && (record.control || Entry::on(false, &record.payload).is_ok());
    let view = match EntryView::parse(&record.payload) {
        Ok(view) if readable => view,
        _ => return unreadable(record, prev, record.payload.clone()),
    };
    live::write_event(
        &mut buffer.scratch,
        &view,
        record.control,
        &record.thread.to_string(),
        record.id,
        prev,
        record.ts,
    );
    Live { payload: buffer.take(), unreadable: false }
}

/// An entry that cannot be understood was acknowledged: it has its place in the chain, as kind `unknown` with its
/// bytes.
fn unreadable(record: &LogRecord, prev: MsgId, bytes: Bytes) -> Live {
    let event = Event::unreadable(record.thread.clone(), record.id, prev, record.ts, bytes);
    Live { payload: live::encode_event(event, record.control), unreadable: true }
}

/// For an entry whose frame is larger than the server takes: its place in the chain, without its bytes.
pub fn placeholder(record: &LogRecord, prev: MsgId) -> Live {
    unreadable(record, prev, Bytes::new())
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{
        Body, Cid, Entry, Kind, UserId, client::frame::ServerFrame, codec::Codec, internal::live::LiveMessage,
    };

    use super::*;

    fn record(payload: Bytes, ts: u64) -> LogRecord {
        LogRecord { id: MsgId(9), ts, thread: "dm.a.b".parse().unwrap(), control: false, payload }
    }

    fn entry(c: u64) -> Entry {
        Entry::new(UserId::parse("a").unwrap(), Cid::mint(c, [0; 10]), Kind::Text, Body::text("hi"))
    }

    fn event(live: &Live) -> (MsgId, Event) {
        let Ok(LiveMessage::Event { header, frame }) = LiveMessage::parse(&live.payload) else { panic!() };
        let Ok(Some(ServerFrame::Event(e))) = ServerFrame::decode(Codec::Msgpack, frame) else { panic!() };
        assert_eq!((header.id, header.thread, header.author, header.cid), (e.id, "dm.a.b", e.from.as_str(), e.cid));
        assert_eq!(header.unread, e.kind.is_message());
        (header.prev, *e)
    }

    #[test]
    fn an_entry_becomes_its_event() {
        let c = 1_800_000_000_000;
        let l = live(&mut FrameBuffer::default(), &record(entry(c).encode(), c + 5), MsgId(7), true);
        let (prev, e) = event(&l);
        assert_eq!(
            (prev, e.prev, e.id, e.ts, e.body.text.as_deref()),
            (MsgId(7), MsgId(7), MsgId(9), c + 5, Some("hi"))
        );
        assert!(!l.unreadable);
    }

    #[test]
    fn what_cannot_be_read_keeps_its_place() {
        let mut forged = entry(1);
        forged.v = 99;
        for bytes in [Bytes::from_static(b"\x00not an entry"), Bytes::new(), forged.encode()] {
            let l = live(&mut FrameBuffer::default(), &record(bytes.clone(), 5), MsgId(7), true);
            let (prev, e) = event(&l);
            assert_eq!((prev, e.kind, e.body.data), (MsgId(7), Kind::Unknown, Some(bytes)));
            assert!(l.unreadable);
        }
        let l = live(&mut FrameBuffer::default(), &record(entry(1).encode(), 5), MsgId(7), false);
        assert!(l.unreadable, "a control entry that was not folded is not shown as one");
        assert_eq!(event(&placeholder(&record(Bytes::new(), 5), MsgId(7))).1.id, MsgId(9));
    }

    #[test]
    fn frames_of_one_chunk_do_not_touch() {
        let mut buffer = FrameBuffer::default();
        let lives: Vec<Live> = (0..2_000)
            .map(|n| live(&mut buffer, &LogRecord { id: MsgId(n), ..record(entry(1).encode(), 5) }, MsgId(0), true))
            .collect();
        assert!(lives.iter().enumerate().all(|(n, l)| event(l).1.id == MsgId(n as u64)));
    }
}
