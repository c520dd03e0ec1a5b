//! One value of everything that crosses a boundary: what the fixtures are made from.

use std::collections::BTreeMap;

use bytes::Bytes;
use natterjack_protocol::{
    Body, Cid, Code, Entry, Event, Kind, MsgId, Refusal, Thread, Token, UserId,
    client::{
        frame::{
            ActivityReport, ClientFrame, DeviceClass, Displaced, Hello, HistoryQuery, OtherDevice, Page, SendMessage,
            ServerFrame, SyncQuery, ThreadSummary, ThreadsQuery, TypingIn, WatchQuery, Welcome,
        },
        presence::{PresenceOf, PresenceState},
    },
    codec::Codec,
    internal::{
        devices::{DeviceEntry, DisplacedBy, SessionPlace, UnsettledSession, UserDevices},
        live::{self, Beat, Ephemeral, LiveMessage},
    },
    limits,
    log::{
        EntryView, HistoryFor, Interval, Intervals, Media, Role,
        fold::{GroupMembership, GroupState, ThreadItem, UserThreads},
    },
};

use super::fixture::Fixture;

/// 2 July 2026 in milliseconds, and an id of that time as the log counts.
pub const NOW: u64 = 1_783_000_000_000;
pub const ID: u64 = 64_611_942_400_001;

pub fn user(s: &str) -> UserId {
    Token::parse(s).unwrap()
}
pub fn anna() -> UserId {
    user("u2q8v1m0c5t7r9x3k")
}
pub fn ben() -> UserId {
    user("u7h4n6p2d0w8j1z5s")
}
pub fn dm() -> Thread {
    Thread::dm(&anna(), &ben())
}
pub fn group() -> Thread {
    Thread::group(&user("g3f6b9e1a4y8m2c0v"))
}
pub fn id(n: u64) -> MsgId {
    MsgId(ID + n)
}
pub fn cid(n: u8) -> Cid {
    Cid::mint(NOW + u64::from(n) * 1_000, [n, 0x5a, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88])
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

fn shown(user: UserId, state: PresenceState, last_seen: Option<u64>) -> PresenceOf {
    PresenceOf { user, state, last_seen }
}

fn away_since(user: UserId) -> PresenceOf {
    shown(user, PresenceState::Offline, Some(NOW))
}

type Sample<T> = (&'static str, &'static str, T);

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
            ClientFrame::Threads(ThreadsQuery { r: 14, limit: None, before: None }),
        ),
        (
            "threads-next",
            "The next page of the thread list.",
            ClientFrame::Threads(ThreadsQuery { r: 15, limit: Some(20), before: Some(MsgId(NOW)) }),
        ),
        (
            "sync",
            "Cursors that did not fit into hello.",
            ClientFrame::Sync(SyncQuery { r: 16, cursors: BTreeMap::from([(group(), id(7))]) }),
        ),
        ("ping", "A sign of life.", ClientFrame::Ping),
        ("bye", "Ends the session.", ClientFrame::Bye),
    ]
}

pub fn event() -> Event {
    Event {
        thread: dm(),
        id: id(9),
        prev: id(0),
        ts: NOW + 42,
        from: anna(),
        cid: cid(1),
        kind: Kind::Text,
        body: Body { reply_to: Some(id(0)), ..Body::text("Grüß dich! 🐸") },
    }
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

fn twice_here() -> Intervals {
    Intervals(vec![Interval { since: id(3), until: Some(id(40)) }, Interval { since: id(90), until: None }])
}

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
                    ThreadSummary { thread: dm(), name: None, role: None, open: true, last: Some(event()) },
                    ThreadSummary {
                        thread: group(),
                        name: Some("Teichfreunde".into()),
                        role: Some(Role::Owner),
                        open: true,
                        last: None,
                    },
                ],
                next: Some(MsgId(NOW + 42)),
            },
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

pub fn entries() -> Vec<Sample<Entry>> {
    let entry = |kind, body| Entry::new(anna(), cid(1), kind, body);
    let members = Body {
        users: vec![anna(), ben()],
        name: Some("Teichfreunde".into()),
        history: Some(HistoryFor::Everything),
        ..Body::default()
    };
    vec![
        ("text", "A message.", entry(Kind::Text, event().body)),
        (
            "text-looked-up",
            "A resend that was looked for before it was published.",
            Entry { seen: Some(NOW + 30_000), ..entry(Kind::Text, event().body) },
        ),
        (
            "custom",
            "Opaque bytes.",
            entry(Kind::Custom, Body { data: Some(Bytes::from_static(&[0, 0xff])), ..Body::default() }),
        ),
        ("dm-started", "The first entry of a DM.", entry(Kind::DmStarted, Body::default())),
        ("group-created", "The first entry of a group.", entry(Kind::GroupCreated, members)),
        (
            "role-changed",
            "A role.",
            entry(Kind::RoleChanged, Body { users: vec![ben()], role: Some(Role::Admin), ..Body::default() }),
        ),
    ]
}

pub fn ephemeral() -> Vec<Sample<Ephemeral>> {
    vec![
        ("typing", "On live.*.x.", Ephemeral::Typing { thread: dm(), user: ben() }),
        ("contacts", "On live.user.*.x.", Ephemeral::Contacts),
    ]
}

pub fn beats() -> Vec<Sample<Beat>> {
    let beat = Beat {
        generation: 1,
        p: 1,
        ts: NOW,
        dedupe_since: NOW - 3_600_000,
        frontier: id(9),
        archive_lag_ms: Some(180),
    };
    vec![
        ("beat", "Once a second per partition.", beat),
        ("beat-lag-unknown", "The archive's lag is not known.", Beat { archive_lag_ms: None, ..beat }),
    ]
}

pub fn groups() -> Vec<Sample<GroupState>> {
    let member = |role, intervals| GroupMembership { role, intervals };
    let left = Intervals(vec![Interval { since: id(3), until: Some(id(40)) }]);
    let members = BTreeMap::from([
        (anna(), member(Some(Role::Owner), Intervals(vec![Interval { since: id(1), until: None }]))),
        (ben(), member(Some(Role::Member), twice_here())),
        (user("u0gone"), member(None, left)),
    ]);
    vec![(
        "group",
        "groups-<u>: the fold of a group.",
        GroupState { v: 1, version: id(90), name: "Teichfreunde".into(), history: HistoryFor::SinceJoining, members },
    )]
}

pub fn user_threads() -> Vec<Sample<UserThreads>> {
    let item = |v| ThreadItem { v, ..ThreadItem::default() };
    let threads = BTreeMap::from([
        (
            dm(),
            ThreadItem {
                intervals: Intervals(vec![Interval { since: id(0), until: None }]),
                blocks: true,
                ..item(id(5))
            },
        ),
        (Thread::dm(&anna(), &anna()), ThreadItem { intervals: Intervals::all(), blocked_by: true, ..item(id(6)) }),
        (group(), ThreadItem { intervals: twice_here(), role: Some(Role::Member), ..item(id(90)) }),
    ]);
    vec![
        ("user-threads", "users-<u>, <uid>.threads.", UserThreads { v: 1, threads }),
        ("user-threads-empty", "Of a user who was just registered.", UserThreads::default()),
    ]
}

pub fn user_devices() -> Vec<Sample<UserDevices>> {
    let place = |session: &str, edge: &str| SessionPlace {
        session: user(session),
        edge: user(edge),
        incarnation: "edge-01890a5d".into(),
    };
    let phone = DeviceEntry {
        id: user("d1b4n7c0x3z6m9k2v"),
        class: DeviceClass::Phone,
        name: Some("Annas Telefon".into()),
        app: Some("Teich 1.4.2".into()),
        family: user("f8m1k4x7v0c3b6n9q"),
        since: NOW,
        active: NOW + 60_000,
        session: Some(place("s9c3x7m1k5v0b8q2d", "edge-1")),
        displaced: None,
    };
    let old = DeviceEntry {
        id: user("d5k2m8x0q4v7b1n9t"),
        name: None,
        app: None,
        session: None,
        displaced: Some(DisplacedBy { device: phone.id.clone(), at: NOW }),
        ..phone.clone()
    };
    let place = place("s0d4f8h2k6m1p5r9t", "edge-2");
    let unsettled = UnsettledSession { device: old.id.clone(), class: old.class, place, at: NOW };
    vec![
        ("user-devices", "sessions-<u>, <uid>.", UserDevices { devices: vec![old, phone], unsettled: vec![unsettled] }),
        ("user-devices-empty", "Of a user who has no device any more.", UserDevices::default()),
    ]
}

/// Live messages: header and frame.
pub fn live_messages() -> Vec<(&'static str, &'static str, Bytes)> {
    let e = event();
    let entry = Entry::new(e.from, e.cid, e.kind, e.body).encode();
    let mut spliced = Vec::new();
    live::write_event(&mut spliced, &EntryView::parse(&entry).unwrap(), false, &dm().to_string(), e.id, e.prev, e.ts);
    vec![
        ("event", "An event on live.*.e, spliced from the entry.", spliced.into()),
        ("head", "The newest id of a thread that fell quiet.", live::encode_head(&group().to_string(), id(9))),
        ("member", "A membership changed.", live::encode_member(&group().to_string(), id(90))),
    ]
}

/// Everything, as fixtures.
pub fn all() -> Vec<Fixture> {
    let mut all = Vec::new();
    fn both<T: serde::Serialize>(all: &mut Vec<Fixture>, direction: &str, samples: Vec<Sample<T>>) {
        for (name, about, value) in samples {
            all.push(Fixture::new(direction, name, about, &Codec::Json.encode(&value), &Codec::Msgpack.encode(&value)));
        }
    }
    both(&mut all, "client", client());
    both(&mut all, "server", server());
    both(&mut all, "entry", entries());
    both(&mut all, "ephemeral", ephemeral());
    both(&mut all, "beat", beats());
    both(&mut all, "kv", groups());
    both(&mut all, "kv", user_threads());
    both(&mut all, "kv", user_devices());
    for (name, about, bytes) in live_messages() {
        let header = match LiveMessage::parse(&bytes).unwrap() {
            LiveMessage::Event { header: h, frame } => serde_json::json!({
                "tag": bytes[0], "id": h.id, "prev": h.prev, "cid": h.cid, "thread": h.thread, "author": h.author,
                "control": h.control, "unread": h.unread, "frame_at": bytes.len() - frame.len(),
            }),
            LiveMessage::Head { thread, id } | LiveMessage::Member { thread, id } => {
                serde_json::json!({ "tag": bytes[0], "id": id, "thread": thread })
            }
        };
        all.push(Fixture::new("live", name, about, header.to_string().as_bytes(), &bytes));
    }
    all
}
