//! Frames that a server sends.

use bytes::Bytes;
use natterjack_protocol::{
    Body, Code, Event, Kind, MsgId, Refusal, UserId,
    client::{
        frame::{DeviceClass, Displaced, OtherDevice, Page, Receipt, ServerFrame, ThreadSummary, Welcome},
        presence::{PresenceOf, PresenceState},
        thread_settings::ThreadSettings,
    },
    limits,
    log::{Interval, Intervals, Role},
};

use super::{NOW, Sample, anna, ben, cid, dm, event, group, id, twice_here, user};

pub fn server() -> Vec<Sample<ServerFrame>> {
    let welcome = Welcome {
        session: user("s9c3x7m1k5v0b8q2d"),
        user: anna(),
        now: NOW,
        heartbeat_ms: 25_000,
        edge_ping_ms: 45_000,
        silence_ms: 75_000,
        edge: user("edge-1"),
        limits: limits::ClientLimits::default(),
    };
    let page = Page { thread: Some(dm()), events: vec![started(), event()], ..Page::default() };
    let ahead = Refusal {
        now_ms: Some(NOW),
        cid: Some(cid(200)),
        ..Refusal::new(Code::ClockAhead, "the cid is of the future: mint it in the server's time")
    };
    let added = Event {
        thread: group(),
        id: id(90),
        prev: id(80),
        kind: Kind::MemberAdded,
        body: Body { users: vec![ben()], ..Body::default() },
        ..event()
    };
    let custom = Event {
        kind: Kind::Custom,
        body: Body { data: Some(Bytes::from_static(&[0, 0xff])), ..Body::default() },
        ..event()
    };
    vec![
        ("welcome", "The session exists.", ServerFrame::Welcome(Box::new(welcome))),
        (
            "attached",
            "All pages were sent; from here on events are live.",
            ServerFrame::Attached { synced: "1.64611942400500.64611942400777".into() },
        ),
        (
            "attached-incomplete",
            "Something could not be read: keep the `synced` of before.",
            ServerFrame::Attached { synced: String::new() },
        ),
        ("ok", "A request without another answer was done.", ServerFrame::Ok { r: 16 }),
        ("sent", "The log has the message.", ServerFrame::Sent { r: 1, cid: cid(1), thread: dm(), id: id(9) }),
        ("event", "A message.", ServerFrame::Event(Box::new(event()))),
        ("event-custom", "A message of opaque bytes.", ServerFrame::Event(Box::new(custom))),
        ("event-member-added", "A change of a group.", ServerFrame::Event(Box::new(added))),
        (
            "event-unknown",
            "An entry that nobody can read keeps its place.",
            ServerFrame::Event(Box::new(Event::unreadable(dm(), id(10), id(9), NOW + 50, Bytes::from_static(b"\xc1")))),
        ),
        (
            "read",
            "Read, on this device or another one of the user.",
            ServerFrame::Read { threads: [(dm(), id(120)), (group(), id(90))].into() },
        ),
        (
            "receipts",
            "Two others in a thread.",
            ServerFrame::Receipts {
                thread: group(),
                receipts: vec![
                    Receipt { user: anna(), got: id(120), read: id(120) },
                    Receipt { user: ben(), got: id(120), read: MsgId::NONE },
                ],
            },
        ),
        ("typing", "Somebody else is writing.", ServerFrame::Typing { thread: dm(), user: ben() }),
        (
            "presence-answer",
            "Everybody who is watched.",
            ServerFrame::Presence {
                r: Some(21),
                users: vec![shown(anna(), PresenceState::Online, None), away_since(ben())],
            },
        ),
        (
            "presence",
            "Those whose presence changed.",
            ServerFrame::Presence {
                r: None,
                users: vec![shown(anna(), PresenceState::Away, None), shown(ben(), PresenceState::Unknown, None)],
            },
        ),
        (
            "member",
            "This user's membership of a thread changed.",
            ServerFrame::Member {
                thread: group(),
                id: id(90),
                open: true,
                role: Some(Role::Member),
                intervals: twice_here(),
            },
        ),
        (
            "member-removed",
            "This user is not in the group any more.",
            ServerFrame::Member {
                thread: group(),
                id: id(120),
                open: false,
                role: None,
                intervals: Intervals(vec![Interval { since: id(90), until: Some(id(120)) }]),
            },
        ),
        ("page", "Sent by the edge itself after hello.", ServerFrame::Page(Page { prev: MsgId::NONE, ..page.clone() })),
        (
            "page-answer",
            "The answer to `history`, with a hole.",
            ServerFrame::Page(Page {
                r: Some(10),
                events: vec![event()],
                prev: id(0),
                more: true,
                holes: vec![(id(1), id(8))],
                ..page
            }),
        ),
        (
            "threads",
            "A page of the thread list.",
            ServerFrame::Threads {
                r: 14,
                threads: vec![
                    ThreadSummary {
                        thread: dm(),
                        name: None,
                        role: None,
                        open: true,
                        last: Some(event()),
                        cut: true,
                        active: NOW,
                        read: Some(id(7)),
                        unread: Some(2),
                        settings: Some(settings()),
                    },
                    ThreadSummary {
                        thread: group(),
                        name: Some("Teichfreunde".into()),
                        role: Some(Role::Owner),
                        open: true,
                        last: None,
                        cut: false,
                        active: 0,
                        read: None,
                        unread: None,
                        settings: None,
                    },
                ],
                next: Some(MsgId(NOW + 42)),
                synced: "3.1900000000.5.7".into(),
            },
        ),
        (
            "thread_settings",
            "Set on another device.",
            ServerFrame::ThreadSettings { r: None, thread: dm(), settings: settings() },
        ),
        (
            "thread_settings-answer",
            "Nothing is set any more.",
            ServerFrame::ThreadSettings { r: Some(24), thread: group(), settings: ThreadSettings::default() },
        ),
        (
            "error",
            "The answer to a request that was refused.",
            ServerFrame::error(Some(12), Refusal::new(Code::NotMember, "you are not in this thread")),
        ),
        (
            "error-without-request",
            "Something was refused that carried no `r`.",
            ServerFrame::error(None, Refusal::unavailable("try again in a moment")),
        ),
        ("error-clock-ahead", "A send whose cid is of the future.", ServerFrame::error(Some(1), ahead)),
        ("displaced", "Another phone has taken over.", ServerFrame::Displaced(displaced(Some("Annas Telefon")))),
        (
            "displaced-nameless",
            "By a device whose client does not say what it is called.",
            ServerFrame::Displaced(displaced(None)),
        ),
        (
            "draining",
            "This edge leaves.",
            ServerFrame::Draining {
                after_ms: 4_000,
                edges: vec!["ws://127.0.0.1:8082".into(), "ws://127.0.0.1:8083".into()],
            },
        ),
        ("degraded", "The edge is cut off from the log.", ServerFrame::Degraded { on: true }),
        (
            "pong",
            "The answer to ping.",
            ServerFrame::Pong { now: NOW + 25_000, synced: Some("1.64611942400900.64611942400951".into()) },
        ),
        (
            "pong-attaching",
            "The answer to ping before `attached`.",
            ServerFrame::Pong { now: NOW + 1_000, synced: None },
        ),
        ("contacts", "The contacts of this user changed.", ServerFrame::Contacts),
    ]
}

fn displaced(name: Option<&str>) -> Displaced {
    let by =
        OtherDevice { device: user("d1b4n7c0x3z6m9k2v"), name: name.map(str::to_owned), class: DeviceClass::Phone };
    Displaced { by, since: NOW + 5_000 }
}

fn started() -> Event {
    Event {
        id: id(0),
        prev: MsgId::NONE,
        ts: NOW,
        cid: cid(0),
        kind: Kind::DmStarted,
        body: Body::default(),
        ..event()
    }
}

fn shown(user: UserId, state: PresenceState, last_seen: Option<u64>) -> PresenceOf {
    PresenceOf { user, state, last_seen }
}

fn away_since(user: UserId) -> PresenceOf {
    shown(user, PresenceState::Offline, Some(NOW))
}

fn settings() -> ThreadSettings {
    ThreadSettings {
        muted_until: NOW + 3_600_000,
        pinned: true,
        archived: false,
        unread: true,
        draft: Some("Am Teich".into()),
    }
}
