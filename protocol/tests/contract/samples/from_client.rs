//! Frames that a client sends.

use std::collections::BTreeMap;

use bytes::Bytes;
use natterjack_protocol::{
    Body, Kind, MsgId,
    client::{
        frame::{
            Acknowledged, ActivityReport, ClientFrame, DeviceClass, Hello, HistoryQuery, ReadAllQuery, SendMessage,
            SetThread, SyncQuery, ThreadsQuery, TypingIn, WatchQuery,
        },
        thread_settings::SettingsChange,
    },
    log::Media,
};

use super::{NOW, Sample, anna, ben, cid, dm, group, id, user};

pub fn client() -> Vec<Sample<ClientFrame>> {
    let hello = Hello {
        token: "eyJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl".into(),
        device: user("d5k2m8x0q4v7b1n9t"),
        class: DeviceClass::Desktop,
        name: Some("Annas Schreibtisch".into()),
        app: Some("Teich 1.4.2".into()),
        session: Some(user("s9c3x7m1k5v0b8q2d")),
        cursors: BTreeMap::from([(dm(), id(0)), (group(), id(7))]),
        synced: Some("1.64611942400500.64611942400777".into()),
    };
    let history = |r| HistoryQuery { r, thread: Some(dm()), ..HistoryQuery::default() };
    let about = |target: u64| Body { target: Some(id(target)), ..Body::default() };
    vec![
        ("hello", "The first frame of a connection that resumes.", ClientFrame::Hello(hello.clone())),
        (
            "hello-first",
            "The first frame of a device that has nothing yet.",
            ClientFrame::Hello(Hello::new(hello.token, hello.device)),
        ),
        ("send", "A text.", send(1, Kind::Text, Body { reply_to: Some(id(0)), ..Body::text("Grüß dich! 🐸") })),
        ("send-emoji", "A large emoji.", send(2, Kind::Emoji, Body { emoji: Some("🐸".into()), ..Body::default() })),
        (
            "send-image",
            "An attachment by reference, with a caption.",
            send(3, Kind::Image, Body { media: Some(picture()), ..Body::text("Am Teich") }),
        ),
        (
            "send-custom",
            "Opaque bytes: base64 in JSON, bytes in MessagePack.",
            send(4, Kind::Custom, Body { data: Some(Bytes::from_static(&[0, 1, 2, 0xfe, 0xff])), ..Body::default() }),
        ),
        (
            "send-edit",
            "A new text for an earlier message.",
            send(5, Kind::Edit, Body { text: Some("Grüß Dich!".into()), ..about(9) }),
        ),
        ("send-recall", "An earlier message is taken back.", send(6, Kind::Recall, about(9))),
        (
            "send-reaction",
            "A reaction to an earlier message.",
            send(7, Kind::Reaction, Body { emoji: Some("👍".into()), ..about(9) }),
        ),
        (
            "send-reaction-removed",
            "A reaction is taken away.",
            send(8, Kind::Reaction, Body { emoji: Some("👍".into()), remove: true, ..about(9) }),
        ),
        (
            "send-behind",
            "Sent while the message before it in its thread has no answer.",
            ClientFrame::Send(SendMessage {
                r: 9,
                cid: cid(9),
                thread: dm(),
                kind: Kind::Text,
                body: Body::text("… und noch etwas"),
                behind: Some(cid(1)),
            }),
        ),
        (
            "ack",
            "This device has one thread, and its user has read another.",
            ClientFrame::Ack(Acknowledged { got: [(dm(), id(120))].into(), read: [(group(), id(90))].into() }),
        ),
        ("typing", "Somebody is writing.", ClientFrame::Typing(TypingIn { thread: dm() })),
        (
            "watch",
            "These users are watched from here on.",
            ClientFrame::Watch(WatchQuery { r: 21, users: Some(vec![anna(), ben()]) }),
        ),
        ("watch-contacts", "The contacts are watched.", ClientFrame::Watch(WatchQuery { r: 22, users: None })),
        ("report", "Somebody is in front of the device.", ClientFrame::Report(ActivityReport { active: true })),
        ("history", "The newest page.", ClientFrame::History(history(9))),
        (
            "history-before",
            "The page below an id.",
            ClientFrame::History(HistoryQuery { before: Some(id(0)), limit: Some(100), ..history(10) }),
        ),
        (
            "history-after",
            "The page above an id.",
            ClientFrame::History(HistoryQuery { after: Some(id(0)), ..history(11) }),
        ),
        (
            "history-around",
            "Half a page on each side of an id.",
            ClientFrame::History(HistoryQuery { around: Some(id(0)), ..history(12) }),
        ),
        (
            "history-at",
            "The page that begins at a point in time.",
            ClientFrame::History(HistoryQuery { at: Some(NOW), ..history(13) }),
        ),
        (
            "threads",
            "The first page of the thread list.",
            ClientFrame::Threads(ThreadsQuery { r: 14, ..ThreadsQuery::default() }),
        ),
        (
            "threads-next",
            "The next page of the thread list.",
            ClientFrame::Threads(ThreadsQuery {
                r: 15,
                limit: Some(20),
                before: Some(MsgId(NOW)),
                ..ThreadsQuery::default()
            }),
        ),
        (
            "threads-since",
            "What has changed in the thread list.",
            ClientFrame::Threads(ThreadsQuery {
                r: 22,
                since: Some("3.1900000000.5.7".into()),
                ..ThreadsQuery::default()
            }),
        ),
        (
            "threads-archived",
            "What is in the archive.",
            ClientFrame::Threads(ThreadsQuery { r: 23, archived: true, ..ThreadsQuery::default() }),
        ),
        (
            "thread_settings",
            "Muted and pinned on all devices.",
            ClientFrame::SetThread(SetThread {
                r: 24,
                thread: dm(),
                set: SettingsChange { muted_until: Some(NOW), pinned: Some(true), ..SettingsChange::default() },
            }),
        ),
        (
            "thread_settings-draft",
            "A draft, out of the archive, marked unread.",
            ClientFrame::SetThread(SetThread {
                r: 25,
                thread: group(),
                set: SettingsChange {
                    archived: Some(false),
                    unread: Some(true),
                    draft: Some("Am Teich".into()),
                    ..SettingsChange::default()
                },
            }),
        ),
        ("read_all", "Everything is read.", ClientFrame::ReadAll(ReadAllQuery { r: 26 })),
        (
            "sync",
            "Cursors that did not fit into hello.",
            ClientFrame::Sync(SyncQuery { r: 16, cursors: BTreeMap::from([(group(), id(7))]) }),
        ),
        ("ping", "A sign of life.", ClientFrame::Ping),
        ("bye", "Ends the session.", ClientFrame::Bye),
    ]
}

fn send(r: u32, kind: Kind, body: Body) -> ClientFrame {
    ClientFrame::Send(SendMessage { r, cid: cid(r as u8), thread: dm(), kind, body, behind: None })
}

fn picture() -> Media {
    Media {
        url: "https://files.example/7c1e.jpg".into(),
        mime: "image/jpeg".into(),
        size: Some(482_113),
        name: Some("teich.jpg".into()),
        width: Some(1_600),
        height: Some(1_200),
        duration_ms: None,
    }
}
