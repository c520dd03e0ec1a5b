//! Step 2 as a client sees it: one id per cid, order per thread, typed refusals.

use std::sync::Arc;

use natterjack_protocol::{
    Code, Entry, Kind, Most, MsgId, Thread,
    client::{
        close,
        frame::{ClientFrame, ServerFrame},
    },
    codec::Codec,
    log::{
        Interval, Intervals,
        fold::{ThreadItem, UserThreads},
    },
};
use natterjack_testkit::eventually;

use crate::kit::{World, cid, cid_at, degraded, id, now_ms};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_starts_the_conversation_and_a_resend_gets_the_first_id() {
    let world = World::start(&["ua", "ub"]).await;
    let mut c = world.client("ua", "d1", Codec::Msgpack).await;
    let (first, second) = (cid(), cid());
    let at = c.sent(first, "dm.ua.ub", "hello").await.unwrap();
    assert_eq!(c.sent(first, "dm.ua.ub", "hello").await.unwrap(), at);
    assert_eq!(c.sent(first, "dm.ua.ub", "the same cid with another body").await.unwrap(), at);
    let later = c.sent(second, "dm.ua.ub", "again").await.unwrap();
    assert!(later > at);

    let thread: Thread = "dm.ua.ub".parse().unwrap();
    let log = world.tail.after(&thread, MsgId::NONE, MsgId::MAX, Most::count(100)).await.unwrap();
    let kinds: Vec<Kind> = log.iter().map(|r| Entry::decode(&r.payload).unwrap().kind).collect();
    assert_eq!(kinds, [Kind::DmStarted, Kind::Text, Kind::Text]);

    // Minutes old: looked up, found; not found, published with the time of the lookup.
    let old = cid_at(now_ms() - 120_000);
    let stored = c.sent(old, "dm.ua.ub", "from long ago").await.unwrap();
    assert_eq!(c.sent(old, "dm.ua.ub", "from long ago").await.unwrap(), stored);
    let entry = world.tail.after(&thread, later, MsgId::MAX, Most::count(10)).await.unwrap();
    assert_eq!(entry.len(), 1);
    assert!(Entry::decode(&entry[0].payload).unwrap().seen.is_some());
}

/// They go in batches, whose ids nobody tells here: no channel publishes their events. So each is asked for again, and
/// stored once.
#[tokio::test(flavor = "multi_thread")]
async fn one_senders_messages_keep_their_order() {
    let world = World::start(&["ua", "ub"]).await;
    let mut c = world.client("ua", "d1", Codec::Msgpack).await;
    let mut asked = Vec::new();
    // More than may be in flight: the rest waits in the socket.
    for i in 0..300 {
        asked.push(c.send(cid(), "dm.ua.ub", &i.to_string()).await);
    }
    let mut answers = Vec::new();
    while answers.len() < asked.len() {
        if let ServerFrame::Sent { r, id, .. } =
            c.until(|f| matches!(f, ServerFrame::Sent { .. } | ServerFrame::Error { .. })).await
        {
            answers.push((r, id));
        } else {
            panic!("refused");
        }
    }
    assert!(answers.is_sorted() && answers.iter().map(|(r, _)| *r).eq(asked));
    let log =
        world.tail.after(&"dm.ua.ub".parse().unwrap(), MsgId::NONE, MsgId::MAX, Most::count(1_000)).await.unwrap();
    assert_eq!(log.len(), 1 + 300, "one has started the conversation");
    assert!(answers.iter().map(|(_, id)| *id).eq(log[1..].iter().map(|r| r.id)));
}

/// What the edge took over the socket is under way for half a second, as above, when a request comes: it is stored
/// behind it, and may name it.
#[tokio::test(flavor = "multi_thread")]
async fn socket_and_http_of_a_device_have_one_order() {
    let world = World::start(&["ua", "ub"]).await;
    let token = world.token("ua", "d1", 600);
    let mut c = world.client("ua", "d1", Codec::Msgpack).await;
    c.sent(cid(), "dm.ua.ub", "the first").await.unwrap();
    let cids: Vec<_> = (0..20).map(|_| cid()).collect();
    let mut asked = Vec::new();
    for cid in &cids {
        asked.push(c.send(*cid, "dm.ua.ub", "over the socket").await);
    }
    c.put(&ClientFrame::Ping).await;
    let mut early = Vec::new();
    c.until(|f| {
        early.extend(if let ServerFrame::Sent { id, .. } = f { Some(*id) } else { None });
        matches!(f, ServerFrame::Pong { .. })
    })
    .await;
    let posted = cid();
    let body =
        serde_json::json!({ "cid": posted, "kind": "text", "body": { "text": "over HTTP" }, "behind": cids.last() });
    let post = async { world.http("POST", "/v1/threads/dm.ua.ub/messages", Some(&token), &body.to_string()).await };
    let over_the_socket = async {
        let mut ids = early;
        while ids.len() < asked.len() {
            match c.until(|f| matches!(f, ServerFrame::Sent { .. } | ServerFrame::Error { .. })).await {
                ServerFrame::Sent { id, .. } => ids.push(id),
                other => panic!("{other:?}"),
            }
        }
        ids
    };
    let ((status, _, answer), ids) = tokio::join!(post, over_the_socket);
    assert_eq!(status, 200, "{answer}");
    assert!(ids.is_sorted() && answer["id"].as_u64() > ids.last().map(|id| id.0), "{answer} behind {ids:?}");
    // And the socket goes on behind the request.
    let thread = "dm.ua.ub".parse().unwrap();
    let (kind, body) = (Kind::Text, natterjack_protocol::Body::text("on"));
    let on = natterjack_protocol::client::frame::SendMessage {
        r: 999,
        cid: cid(),
        thread,
        kind,
        body,
        behind: Some(posted),
    };
    c.put(&ClientFrame::Send(on)).await;
    let id = match c.until(|f| matches!(f, ServerFrame::Sent { .. } | ServerFrame::Error { .. })).await {
        ServerFrame::Sent { id, .. } => id,
        other => panic!("{other:?}"),
    };
    assert!(Some(id.0) > answer["id"].as_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why() {
    let world = World::start(&["ua", "ub", "uc"]).await;
    let item = |blocked_by, until| ThreadItem {
        v: MsgId(5),
        intervals: Intervals(vec![Interval { since: MsgId(1), until }]),
        blocked_by,
        ..ThreadItem::default()
    };
    let mut threads = UserThreads::default();
    threads.merge(&"group.gone".parse().unwrap(), item(false, Some(MsgId(9))));
    threads.merge(&"dm.ua.uc".parse().unwrap(), item(true, None));
    let (_, revision) = world.buckets().threads(&id("ua")).root().load_with_revision().await.unwrap().unwrap();
    world.buckets().threads(&id("ua")).root().compare_and_set(&threads, revision).await.unwrap();

    let mut c = world.client("ua", "d1", Codec::Json).await;
    for (thread, code) in [
        ("group.never", Code::NotMember),
        ("group.gone", Code::NotMember),
        ("dm.ua.uc", Code::Blocked),
        ("dm.ub.uc", Code::NotMember),
        ("dm.nobody.ua", Code::NotFound),
    ] {
        let refusal = c.sent(cid(), thread, "hello").await.unwrap_err();
        assert_eq!(refusal.code, code, "{thread}: {refusal}");
        assert!(refusal.cid.is_some());
    }
    let ahead = c.sent(cid_at(now_ms() + 60_000), "dm.ua.ub", "from the future").await.unwrap_err();
    assert!(ahead.code == Code::ClockAhead && ahead.now_ms.unwrap().abs_diff(now_ms()) < 5_000);
    let long = c.sent(cid(), "dm.ua.ub", &"ü".repeat(10_001)).await.unwrap_err();
    assert!(long.code == Code::Invalid && long.message.contains("10001"));
    assert!(c.sent(cid(), "dm.ua.ub", &"ü".repeat(10_000)).await.is_ok(), "characters, not bytes");
    assert!(c.sent(cid(), "dm.ua.ua", "notes to oneself").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_beats_sends_wait_and_sockets_stay() {
    let world = Arc::new(World::start(&["ua", "ub"]).await);
    let mut c = world.client("ua", "d1", Codec::Json).await;
    world.beats.send_replace(false);
    c.until(|f| matches!(f, ServerFrame::Degraded { on: true })).await;
    degraded(&world, true).await;
    let parts = || serde_json::to_value(world.health.report()).unwrap()["parts"].clone();
    let named = |parts: &serde_json::Value| {
        parts["live.1-0"]["failing"].as_str().is_some_and(|why| why.contains("no beat for"))
    };
    eventually("the partition is named", async || named(&parts())).await;
    assert_eq!(parts()["watch.revoked"], "ok", "what does not depend on beats goes on");
    let the_same = cid();
    let refusal = c.sent(the_same, "dm.ua.ub", "hello").await.unwrap_err();
    assert!(refusal.code == Code::Unavailable && refusal.retry_after_ms.is_some());
    let mut other = world.socket(Codec::Json).await;
    other.hello(&world.token("ub", "d1", 600), "d1").await;
    other.until(|f| matches!(f, ServerFrame::Degraded { on: true })).await;
    world.beats.send_replace(true);
    c.until(|f| matches!(f, ServerFrame::Degraded { on: false })).await;
    assert!(c.sent(the_same, "dm.ua.ub", "hello").await.is_ok());
    degraded(&world, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_one_session() {
    let world = World::start(&["ua"]).await;
    let mut old = world.client("ua", "d1", Codec::Json).await;
    let mut tablet = world.client("ua", "d2", Codec::Json).await;
    let mut new = world.client("ua", "d1", Codec::Json).await;
    // An edge clears up after a session before it says goodbye: what the old one could take along is gone now.
    old.closes_with(close::REPLACED).await;
    assert!(new.sent(cid(), "dm.ua.ua", "I am new").await.is_ok());
    assert!(tablet.sent(cid(), "dm.ua.ua", "I am another").await.is_ok());
}

/// For a while the log is hours ahead. What was stored meanwhile is found afterwards, although its cid is ahead of the
/// log then; what was not is refused, and stored under a new cid. Fresh tokens are good all the time.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_while_the_log_was_ahead_is_found_when_it_is_right_again() {
    const HOURS: i64 = 2 * 3_600_000;
    let world = World::start(&["ua", "ub"]).await;
    let mut c = world.client("ua", "d1", Codec::Msgpack).await;
    c.sent(cid(), "dm.ua.ub", "before").await.unwrap();
    let until = async |c: &mut crate::kit::Client, ahead: i64| {
        world.log_ahead.store(ahead, std::sync::atomic::Ordering::Relaxed);
        eventually("the edge's time is the log's", async || {
            c.put(&ClientFrame::Ping).await;
            let ServerFrame::Pong { now, .. } = c.until(|f| matches!(f, ServerFrame::Pong { .. })).await else {
                unreachable!()
            };
            now.abs_diff(now_ms().saturating_add_signed(ahead)) < 2_000
        })
        .await;
    };
    until(&mut c, HOURS).await;
    let cids = [cid_at(now_ms().saturating_add_signed(HOURS)), cid_at(now_ms().saturating_add_signed(HOURS))];
    let stored = c.sent(cids[0], "dm.ua.ub", "while it was ahead").await.unwrap();
    world.client("ub", "d1", Codec::Json).await;
    until(&mut c, 0).await;
    assert_eq!(c.sent(cids[0], "dm.ua.ub", "while it was ahead").await.unwrap(), stored);
    let refused = c.sent(cids[1], "dm.ua.ub", "never stored").await.unwrap_err();
    assert!(refused.code == Code::ClockAhead && refused.now_ms.unwrap().abs_diff(now_ms()) < 5_000, "{refused:?}");
    c.sent(cid_at(refused.now_ms.unwrap()), "dm.ua.ub", "a new cid").await.unwrap();
    let stranger = c.sent(cids[0], "group.never", "of nobody's business").await.unwrap_err();
    assert_eq!(stranger.code, Code::ClockAhead);
}
