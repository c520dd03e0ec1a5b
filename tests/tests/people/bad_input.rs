//! Whatever somebody sends: a typed error or a close code that says what to do; everybody else goes on; nothing of it
//! in a log.

use natterjack_protocol::{
    Body, Cid, Code, Kind, MsgId, Refusal, Thread,
    client::frame::{ClientFrame, Hello, SendMessage, ServerFrame, SyncQuery, TypingIn},
    codec::Codec,
    limits,
};
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, User};
use serde_json::{Value, json};

mod wire;

use self::wire::{broken_websocket, nonsense_is_closed, too_large};
use super::common::{all_well, new_group, pages_end, refused, seen_until};

const BODY: &str = "body-that-no-log-may-hold";

fn encode(codec: Codec, frame: &Value) -> Vec<u8> {
    match codec {
        Codec::Json => frame.to_string().into_bytes(),
        Codec::Msgpack => rmp_serde::to_vec_named(&AsBytes("", frame)).unwrap(),
    }
}

/// A cid is a string in JSON and bytes in MessagePack; what is none stays a string.
struct AsBytes<'a>(&'a str, &'a Value);

impl serde::Serialize for AsBytes<'_> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.1 {
            Value::String(text) if self.0 == "cid" => match text.parse::<Cid>() {
                Ok(cid) => s.serialize_bytes(cid.as_bytes()),
                Err(_) => s.serialize_str(text),
            },
            Value::Object(map) => s.collect_map(map.iter().map(|(k, v)| (k, AsBytes(k, v)))),
            value => value.serialize(s),
        }
    }
}

/// The next error, with the request it answers.
async fn error(ws: &mut RawWs) -> (Option<u32>, Refusal) {
    ws.until("an error", |f| match f {
        ServerFrame::Error { r, refusal } => Some((r, refusal)),
        _ => None,
    })
    .await
}

async fn works(ws: &mut RawWs, thread: &Thread) {
    ws.send_text(thread, "still works").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_make_no_sense() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(4).await;
    let dm = users[0].dm(&users[1]);
    for codec in [Codec::Json, Codec::Msgpack] {
        let mut ws = cluster.raw(&users[0], 0, codec).await;
        works(&mut ws, &dm).await;
        shapes(&mut ws, &dm).await;
        ids(&mut ws).await;
        texts(&mut ws, &dm).await;
        clocks(&mut ws, &dm).await;
        strange_threads(&mut ws, &users).await;
        works(&mut ws, &dm).await;
        nonsense_is_closed(&cluster, &users[2], codec).await;
        too_large(&cluster, &users[2], codec).await;
        broken_websocket(&cluster, &users[2], codec).await;
        works(&mut ws, &dm).await;
    }
    over_http(&cluster, &users[0], &dm).await;
    cursors(&cluster, &users).await;
    cluster.assert_not_logged(BODY);
    for u in &users {
        cluster.assert_not_logged(&u.tokens.access);
    }
    all_well(&cluster);
}

async fn shapes(ws: &mut RawWs, dm: &Thread) {
    let codec = ws.codec();
    let cid = ws.cid().to_string();
    let text = json!({ "text": BODY });
    let thread = dm.to_string();
    let send = |r: u32| json!({ "t": "send", "r": r, "cid": cid, "thread": thread, "kind": "text", "body": text });
    let with = |r: u32, key: &str, value: Value| {
        let mut frame = send(r);
        frame[key] = value;
        frame
    };
    let without = |r: u32, key: &str| {
        let mut frame = send(r);
        frame.as_object_mut().unwrap().remove(key);
        frame
    };
    let many: serde_json::Map<String, Value> =
        (0..=limits::CURSORS_PER_HELLO).map(|i| (format!("group.g{i}"), json!(1))).collect();
    // What is sent, the code, and a word that the message must have: the name of the field or of the limit.
    let cases = [
        (json!({ "t": "dance", "r": 1001 }), Some(1001), Code::UnknownFrame, "dance"),
        (json!({ "r": 1002 }), Some(1002), Code::BadFrame, "`t`"),
        (json!({ "t": 5, "r": 1003 }), Some(1003), Code::BadFrame, "t"),
        (without(1004, "thread"), Some(1004), Code::BadFrame, "thread"),
        (without(1005, "cid"), Some(1005), Code::BadFrame, "cid"),
        (without(1006, "body"), Some(1006), Code::BadFrame, "body"),
        (without(1007, "r"), None, Code::BadFrame, "r"),
        (with(1008, "r", json!("8")), None, Code::BadFrame, "r"),
        (with(1009, "r", json!(-1)), None, Code::BadFrame, "r"),
        (with(1010, "body", json!({ "text": 5 })), Some(1010), Code::BadFrame, "text"),
        (with(1011, "body", json!(BODY)), Some(1011), Code::BadFrame, "body"),
        (with(1012, "cid", json!("6c84fb90-12c4-11e1-840d-7b25c5ee775a")), Some(1012), Code::BadFrame, "cid"),
        (with(1013, "cid", json!(BODY)), Some(1013), Code::BadFrame, "cid"),
        (with(1014, "kind", json!("dance")), Some(1014), Code::Invalid, "kind"),
        (with(1015, "kind", json!("member_added")), Some(1015), Code::Invalid, "kind"),
        (with(1016, "kind", json!("image")), Some(1016), Code::Invalid, "media"),
        (with(1017, "body", json!({ "text": "" })), Some(1017), Code::Invalid, "text"),
        (with(1018, "body", json!({ "text": BODY, "users": ["a"] })), Some(1018), Code::Invalid, "users"),
        (json!({ "t": "history", "r": 1020 }), Some(1020), Code::BadFrame, "thread"),
        (json!({ "t": "history", "r": 1021, "thread": thread, "limit": 0 }), Some(1021), Code::Invalid, "limit"),
        (json!({ "t": "history", "r": 1022, "thread": thread, "limit": 201 }), Some(1022), Code::Invalid, "200"),
        (
            json!({ "t": "history", "r": 1023, "thread": thread, "before": 5, "at": 7 }),
            Some(1023),
            Code::Invalid,
            "at most one",
        ),
        (json!({ "t": "history", "r": 1024, "thread": thread, "before": -5 }), Some(1024), Code::BadFrame, "before"),
        (json!({ "t": "threads", "r": 1025, "limit": 5000 }), Some(1025), Code::Invalid, "limit"),
        (json!({ "t": "sync", "r": 1026 }), Some(1026), Code::BadFrame, "cursors"),
        (json!({ "t": "sync", "r": 1027, "cursors": many }), Some(1027), Code::Invalid, "1000"),
        (json!({ "t": "typing" }), None, Code::BadFrame, "thread"),
        (json!({ "t": "hello", "token": "x", "device": "d" }), None, Code::Invalid, "hello"),
    ];
    for (frame, r, code, word) in cases {
        ws.try_send_bytes(&encode(codec, &frame)).await.unwrap();
        let (to, refusal) = error(ws).await;
        assert_eq!((to, refusal.code), (r, code), "{frame:?}: {refusal:?}");
        assert!(refusal.message.contains(word), "{frame}: the message does not name {word:?}: {refusal}");
        assert!(!refusal.message.contains(BODY), "{refusal}");
    }
    // An unknown field is no error: newer clients talk to older edges.
    let newer = with(1030, "mood", json!({ "of": ["a", "newer", "version"] }));
    ws.try_send_bytes(&encode(codec, &newer)).await.unwrap();
    ws.until("sent", |f| matches!(f, ServerFrame::Sent { r: 1030, .. }).then_some(())).await;
    ws.try_send_bytes(&encode(codec, &json!({ "t": "ping", "mood": 5 }))).await.unwrap();
    ws.until("a pong", |f| matches!(f, ServerFrame::Pong { .. }).then_some(())).await;
    if codec == Codec::Msgpack {
        // Text that is none, inside a good frame.
        let mut bytes = encode(codec, &with(1031, "body", json!({ "text": "ZZZZ" })));
        let at = bytes.windows(4).position(|w| w == b"ZZZZ").unwrap();
        bytes[at..at + 4].copy_from_slice(&[0xff, 0xfe, 0xc3, 0x28]);
        ws.try_send_bytes(&bytes).await.unwrap();
        let (to, refusal) = error(ws).await;
        assert_eq!((to, refusal.code), (Some(1031), Code::BadFrame), "{refusal}");
    }
}

/// None of these may ever become a subject or a key.
const BAD_THREADS: [&str; 18] = [
    "",
    "dm",
    "dm.",
    "dm.a",
    "dm.a.",
    "dm..b",
    "dm.a.b.c",
    "dm.b.a",
    "group.",
    "group.*",
    "group.>",
    "group.a b",
    "group.a\u{0}b",
    "group.a.b",
    "group.ä",
    "room.a",
    "group.a\r\nPUB x 1",
    " group.a",
];

async fn ids(ws: &mut RawWs) {
    let codec = ws.codec();
    let long = format!("group.{}", "x".repeat(65));
    for (i, bad) in BAD_THREADS.into_iter().chain([long.as_str()]).enumerate() {
        let (r, cid) = (2_000 + i as u32, ws.cid().to_string());
        let send = json!({ "t": "send", "r": r, "cid": cid, "thread": bad, "kind": "text", "body": { "text": BODY } });
        let history = json!({ "t": "history", "r": r, "thread": bad });
        let sync = json!({ "t": "sync", "r": r, "cursors": { bad: 5 } });
        for frame in [send, history, sync] {
            ws.try_send_bytes(&encode(codec, &frame)).await.unwrap();
            let (to, refusal) = error(ws).await;
            assert_eq!((to, refusal.code), (Some(r), Code::BadFrame), "{bad:?}: {refusal}");
        }
    }
}

async fn texts(ws: &mut RawWs, dm: &Thread) {
    // Characters, not bytes: two and four of them each.
    for letter in ["ü", "🐸"] {
        ws.send_text(dm, &letter.repeat(limits::TEXT_CHARS)).await.unwrap();
        let e = ws.send_text(dm, &letter.repeat(limits::TEXT_CHARS + 1)).await.unwrap_err();
        assert_eq!(e.code, Code::Invalid);
        assert!(e.message.contains("10001 characters"), "{e}");
    }
    let r = ws.request();
    let cid = ws.cid();
    let huge = Body { data: Some(vec![7; limits::CUSTOM_BYTES + 1].into()), ..Body::default() };
    ws.send(&ClientFrame::Send(SendMessage {
        r,
        cid,
        thread: dm.clone(),
        kind: Kind::Custom,
        body: huge,
        behind: None,
    }))
    .await;
    let (to, refusal) = error(ws).await;
    assert_eq!((to, refusal.code), (Some(r), Code::Invalid), "{refusal}");
}

async fn clocks(ws: &mut RawWs, dm: &Thread) {
    // Fast: refused, with the time to mint in; a new cid in that time is taken.
    let fast = ws.cid_at(60_000);
    let e = ws.send_cid(dm, fast, "from the future").await.unwrap_err();
    assert_eq!((e.code, e.cid), (Code::ClockAhead, Some(fast)));
    let now = e.now_ms.expect("clock_ahead says what time it is");
    ws.send_cid(dm, Cid::mint(now, rand::random()), "in the server's time").await.unwrap();
    // Slow, by hours and by decades: looked up, stored, and once however often it is sent.
    for off in [-30_000, -2 * 3_600_000, -40 * 365 * 86_400_000_i64] {
        let slow = ws.cid_at(off);
        let first = ws.send_cid(dm, slow, "from the past").await.unwrap();
        assert_eq!(ws.send_cid(dm, slow, "from the past").await.unwrap(), first, "{off}");
        assert_eq!(ws.send_cid(dm, slow, "with another body").await.unwrap(), first, "{off}");
    }
}

async fn strange_threads(ws: &mut RawWs, users: &[User]) {
    let other: Thread = users[2].dm(&users[3]);
    let nowhere: Thread = "group.g-of-nobody".parse().unwrap();
    for thread in [&other, &nowhere] {
        assert_eq!(ws.send_text(thread, BODY).await.unwrap_err().code, Code::NotMember);
        let r = ws.request();
        let history =
            natterjack_protocol::client::frame::HistoryQuery { r, thread: Some(thread.clone()), ..Default::default() };
        ws.send(&ClientFrame::History(history)).await;
        let (to, refusal) = error(ws).await;
        assert_eq!((to, refusal.code), (Some(r), Code::NotMember));
        ws.send(&ClientFrame::Typing(TypingIn { thread: thread.clone() })).await;
        let (_, refusal) = error(ws).await;
        assert_eq!((refusal.code, refusal.thread), (Code::NotMember, Some(thread.clone())));
    }
    let stranger = Thread::dm(users[0].id(), &"u-of-nobody".parse().unwrap());
    assert_eq!(ws.send_text(&stranger, BODY).await.unwrap_err().code, Code::NotFound);
}

async fn over_http(cluster: &Cluster, user: &User, dm: &Thread) {
    let api = cluster.api(user, 0);
    for bad in ["dm.a.b.c", "group.%2A", "group.%3E", "group.a%20b", "group.a%00b", "group.", "room.x", "group.%FF"] {
        let (status, body) = api.get(&format!("/v1/threads/{bad}/messages")).await;
        assert_eq!((status, body["code"].as_str()), (400, Some("invalid")), "{bad}: {body}");
    }
    for bad in ["a.b", "%2A", "%3E", "a%20b", "a%00", &"x".repeat(65)] {
        refused(api.get(&format!("/v1/groups/{bad}")).await, Code::Invalid);
        refused(api.put(&format!("/v1/blocks/{bad}"), &json!({})).await, Code::Invalid);
        refused(api.get(&format!("/v1/users/{bad}")).await, Code::Invalid);
        refused(
            api.post("/v1/groups", &json!({ "name": "x", "users": [bad.replace("%2A", "*").replace('%', " ")] })).await,
            Code::BadFrame,
        );
    }
    refused(api.get(&format!("/v1/threads/{dm}/messages?limit=1000")).await, Code::Invalid);
    refused(api.get(&format!("/v1/threads/{dm}/messages?before=x")).await, Code::Invalid);
    refused(api.get("/v1/threads/group.g-of-nobody/messages").await, Code::NotMember);
    refused(api.post("/v1/groups", &json!({ "name": 5 })).await, Code::BadFrame);
    refused(api.post("/v1/groups", &json!({})).await, Code::BadFrame);
    let (status, body) = api.post("/v1/groups", &json!({ "name": "x".repeat(limits::HTTP_BODY_BYTES) })).await;
    assert_eq!((status, body["code"].as_str()), (413, Some("invalid")));
    let (status, body) = api.call(reqwest::Method::DELETE, "/v1/groups", None).await;
    assert_eq!((status, body["code"].as_str()), (405, Some("not_found")));
}

/// From the future, or of another thread: nobody gets what is not theirs, nobody misses what is, and the rest of the
/// hello is served.
async fn cursors(cluster: &Cluster, users: &[User]) {
    let (alice, bob, carol) = (&users[0], &users[1], &users[2]);
    let mine = new_group(&cluster.api(alice, 0), "mine", &users[1..2]).await;
    let theirs = new_group(&cluster.api(carol, 0), "theirs", &users[3..4]).await;
    let mut ws = cluster.raw(alice, 0, Codec::Json).await;
    let mut other = cluster.raw(carol, 0, Codec::Json).await;
    let first = ws.send_text(&mine, "mine 1").await.unwrap();
    let foreign = other.send_text(&theirs, "theirs 1").await.unwrap();
    ws.send_text(&mine, "mine 2").await.unwrap();

    let max = MsgId((1 << 53) - 1);
    for cursor in [max, foreign, MsgId(first.0 + 1)] {
        let mut ws = RawWs::connect(cluster.edge_addr(1), Codec::Json).await;
        ws.send(&ClientFrame::Hello(Hello {
            cursors: [(mine.clone(), cursor), (theirs.clone(), MsgId::NONE)].into(),
            synced: Some("not-a-synced-of-ours".into()),
            ..Hello::new(bob.tokens.access.clone(), bob.tokens.device.clone())
        }))
        .await;
        let (pages, refusals) = pages_end(&mut ws).await;
        assert!(pages.iter().all(|e| e.thread != theirs), "nothing of a thread one is not in");
        if cursor == max {
            assert!(
                refusals.iter().any(|r| r.message.contains(&mine.to_string())),
                "a cursor of the future is told: {refusals:?}"
            );
        }
        // Live goes on, whatever the cursor said.
        let mut pen = cluster.raw(alice, 0, Codec::Json).await;
        let said = format!("after {cursor}");
        pen.send_text(&mine, &said).await.unwrap();
        seen_until(&mut ws, &said).await;
        let r = ws.request();
        ws.send(&ClientFrame::Sync(SyncQuery { r, cursors: [(mine.clone(), max), (theirs.clone(), foreign)].into() }))
            .await;
        ws.until("an answer to sync", |f| match f {
            ServerFrame::Ok { r: to } if to == r => Some(()),
            ServerFrame::Error { r: Some(to), .. } if to == r => Some(()),
            ServerFrame::Page(p) => {
                assert_eq!(p.thread.as_ref(), Some(&mine));
                None
            }
            _ => None,
        })
        .await;
    }
    refused(
        cluster.api(alice, 1).get(&format!("/v1/threads/{theirs}/messages?around={foreign}")).await,
        Code::NotMember,
    );
}
