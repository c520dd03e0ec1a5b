//! Golden bytes: each fixture decodes from both codecs to the same value and encodes to the very same bytes again.

use std::fmt::Debug;

use bytes::Bytes;
use natterjack_protocol::{
    Entry,
    client::frame::{ClientFrame, ServerFrame},
    codec::Codec,
    internal::live::{Beat, Ephemeral, EventHeader, LiveMessage},
    log::EntryView,
};
use serde::Serialize;

use super::{fixture, samples};

/// Before anything else: the files are what the samples encode to. Bytes on disk never change by themselves.
#[test]
fn bytes_do_not_change() {
    let all = samples::all();
    if fixture::regenerate() {
        all.iter().for_each(fixture::write);
    }
    for want in &all {
        let have = fixture::read(&want.direction, &want.name);
        assert_eq!(&have, want, "{}/{}: the wire has changed", want.direction, want.name);
    }
    let mut names: Vec<String> = all.iter().map(|f| format!("{}/{}", f.direction, f.name)).collect();
    names.sort();
    assert_eq!(fixture::on_disk(), names, "a fixture without a sample, or two of one name");
}

fn check<T: PartialEq + Debug + Serialize>(direction: &str, name: &str, value: &T, decode: impl Fn(Codec, &[u8]) -> T) {
    let fixture = fixture::read(direction, name);
    for (codec, bytes) in [(Codec::Json, fixture.json.clone().into_bytes()), (Codec::Msgpack, fixture.bytes())] {
        assert_eq!(&decode(codec, &bytes), value, "{direction}/{name} in {codec:?}");
        assert_eq!(
            fixture::hex(&codec.encode(value)),
            fixture::hex(&bytes),
            "{direction}/{name} in {codec:?}, encoded again"
        );
    }
}

#[test]
fn client_frames() {
    for (name, _, frame) in samples::client() {
        check("client", name, &frame, |codec, bytes| ClientFrame::decode(codec, bytes).unwrap());
    }
}

#[test]
fn server_frames() {
    for (name, _, frame) in samples::server() {
        check("server", name, &frame, |codec, bytes| ServerFrame::decode(codec, bytes).unwrap().unwrap());
    }
}

/// A frame type without a fixture is a frame type without a contract.
#[test]
fn every_frame_type_has_a_fixture() {
    for (direction, declared) in [("client", ClientFrame::DECLARED), ("server", ServerFrame::DECLARED)] {
        for info in declared {
            assert!(fixture::path(direction, info.name).exists(), "{direction}/{}", info.name);
        }
    }
    for (name, _, frame) in samples::client() {
        assert_eq!(fixture::read("client", name).tag(), frame.name(), "client/{name}");
    }
    for (name, _, frame) in samples::server() {
        assert_eq!(fixture::read("server", name).tag(), frame.name(), "server/{name}");
    }
}

#[test]
fn the_rest() {
    for (name, _, v) in samples::entries() {
        check("entry", name, &v, |codec, bytes| {
            if codec == Codec::Msgpack { Entry::decode(bytes).unwrap() } else { codec.decode(bytes).unwrap() }
        });
        assert_eq!(v.encode(), fixture::read("entry", name).bytes());
    }
    for (name, _, v) in samples::ephemeral() {
        check("ephemeral", name, &v, |codec, bytes| codec.decode(bytes).unwrap());
        assert_eq!(Ephemeral::decode(&v.encode()).unwrap(), v);
    }
    for (name, _, v) in samples::beats() {
        check("beat", name, &v, |codec, bytes| codec.decode(bytes).unwrap());
        assert_eq!(Beat::decode(&v.encode()).unwrap(), v);
    }
    for (name, _, v) in samples::groups() {
        check("kv", name, &v, |codec, bytes| codec.decode(bytes).unwrap());
    }
    for (name, _, v) in samples::user_devices() {
        check("kv", name, &v, |codec, bytes| codec.decode(bytes).unwrap());
    }
    for (name, _, v) in samples::user_cursors() {
        check("kv", name, &v, |codec, bytes| codec.decode(bytes).unwrap());
    }
    for (name, _, v) in samples::user_drafts() {
        check("kv", name, &v, |codec, bytes| codec.decode(bytes).unwrap());
    }
    for (name, _, v) in samples::user_threads() {
        check("kv", name, &v, |codec, bytes| codec.decode(bytes).unwrap());
    }
}

/// `channel` splices; what it makes is byte for byte what encoding the event makes.
#[test]
fn the_spliced_frame_is_the_encoded_event() {
    let event = samples::event();
    let frame = ServerFrame::Event(Box::new(event.clone())).encode(Codec::Msgpack);
    let message: Bytes = fixture::read("live", "event").bytes().into();
    let (thread, author) = (event.thread.to_string(), event.from.as_str());
    let (id, prev, cid) = (event.id, event.prev, event.cid);
    let header = EventHeader { id, prev, thread: &thread, author, cid, control: false, unread: true };
    assert_eq!(LiveMessage::parse(&message), Ok(LiveMessage::Event { header, frame: &frame }));
    for (name, _, entry) in samples::entries() {
        let bytes = entry.encode();
        let mut spliced = Vec::new();
        EntryView::parse(&bytes).unwrap().write_event(
            &mut spliced,
            &samples::dm().to_string(),
            samples::id(9),
            samples::id(0),
            samples::NOW,
        );
        let event = natterjack_protocol::Event::new(samples::dm(), samples::id(9), samples::id(0), samples::NOW, entry);
        assert_eq!(
            fixture::hex(&spliced),
            fixture::hex(&ServerFrame::Event(Box::new(event)).encode(Codec::Msgpack)),
            "{name}"
        );
    }
}
