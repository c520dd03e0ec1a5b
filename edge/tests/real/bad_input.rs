//! Whatever a client does wrong gets a typed error or a close code, and disturbs nobody else.

use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use natterjack_protocol::{
    Code, Times,
    client::{
        close,
        frame::{ClientFrame, ServerFrame},
    },
    codec::Codec,
    limits,
};
use natterjack_testkit::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use crate::kit::{PATIENCE, World, cid, closes, times};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_never_says_hello_is_closed() {
    let world = World::start(&[]).await;
    let mut silent = world.socket(Codec::Json).await;
    silent.closes_with(close::HELLO_TIMEOUT).await;

    let mut half = TcpStream::connect(world.addr).await.unwrap();
    half.write_all(b"GET /v1/ws HTTP/1.1\r\nHost: h\r\nUpgrade: web").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, half.read_to_string(&mut answer)).await.expect("half a head is dropped").unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n") && answer.contains("natterjack-now: "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_is_refused_by_name() {
    let world = World::start(&["ua"]).await;
    let good = world.token("ua", "d1", 600);
    let forged = format!("{}x", &good[..good.len() - 1]);
    for (token, device, code) in [
        (world.token("ua", "d1", -4_000), "d1", Code::TokenExpired),
        (world.token("ua", "d1", -1), "d1", Code::TokenExpired),
        (forged, "d1", Code::Unauthorized),
        ("eyJhbGciOiJub25lIn0.e30.".into(), "d1", Code::Unauthorized),
        (good.clone(), "d2", Code::Unauthorized),
        (String::new(), "d1", Code::Unauthorized),
    ] {
        let mut client = world.socket(Codec::Msgpack).await;
        client.hello(&token, device).await;
        let (_, refusal) = client.error().await;
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(token.is_empty() || !refusal.message.contains(&token));
        client.closes_with(close::UNAUTHORIZED).await;
    }
    let mut impatient = world.socket(Codec::Json).await;
    impatient.put(&ClientFrame::Ping).await;
    assert_eq!(impatient.error().await.1.code, Code::Unauthorized);
    impatient.closes_with(close::BAD_FRAME).await;
    let mut clumsy = world.socket(Codec::Json).await;
    clumsy.bytes(Bytes::from_static(br#"{"t":"hello","device":"d1"}"#)).await;
    assert_eq!(clumsy.error().await.1.code, Code::BadFrame);
    clumsy.closes_with(close::BAD_FRAME).await;
    let mut right = world.socket(Codec::Json).await;
    right.hello(&good, "d1").await;
    right.until(|f| matches!(f, ServerFrame::Welcome(_))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_are_answered_and_the_session_goes_on() {
    let world = World::start(&["ua"]).await;
    let mut c = world.client("ua", "d1", Codec::Json).await;
    for (text, r, code) in [
        (r#"{"t":"dance","r":1}"#, Some(1), Code::UnknownFrame),
        (r#"{"t":"send","r":2}"#, Some(2), Code::BadFrame),
        (r#"{"t":"history","r":3,"thread":"dm.*.b"}"#, Some(3), Code::BadFrame),
        (r#"{"t":"history","r":4,"thread":"group.nope"}"#, Some(4), Code::NotMember),
        (r#"{"t":"history","r":5,"thread":"group.nope","limit":201}"#, Some(5), Code::Invalid),
        (r#"{"t":"threads","r":6,"limit":0}"#, Some(6), Code::Invalid),
        (r#"{"r":7}"#, Some(7), Code::BadFrame),
        (r#"{"t":"hello","token":"x","device":"d"}"#, None, Code::Invalid),
    ] {
        c.bytes(Bytes::from_static(text.as_bytes())).await;
        let (asked, refusal) = c.error().await;
        assert_eq!((asked, refusal.code), (r, code), "{text}: {refusal}");
    }
    c.bytes(Bytes::from_static(br#"{"t":"ping","an_unknown_field":[1,{}]}"#)).await;
    c.until(|f| matches!(f, ServerFrame::Pong { synced: Some(_), .. })).await;
    for _ in 0..11 {
        c.bytes(Bytes::from_static(b"[not a frame]")).await;
    }
    c.closes_with(close::BAD_FRAME).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_of_ours_is_closed() {
    let world = World::start(&["ua", "ub"]).await;
    let mut witness = world.client("ub", "d1", Codec::Json).await;

    let mut c = world.client("ua", "d1", Codec::Msgpack).await;
    c.ws.send(Message::Text("{}".into())).await.unwrap();
    c.closes_with(close::BAD_FRAME).await;

    let mut c = world.client("ua", "d1", Codec::Msgpack).await;
    // The edge may close before all of it is written.
    let _ = c.ws.send(Message::Binary(vec![0; limits::FRAME_BYTES + 1].into())).await;
    c.closes_with(close::TOO_LARGE).await;

    let mut c = world.client("ua", "d1", Codec::Json).await;
    // Invalid UTF-8 in a text frame: masked with zeros, so written by hand.
    c.ws.get_mut().write_all(&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28]).await.unwrap();
    c.closes_with(close::NOT_UTF8).await;

    let (status, _, answer) = world
        .raw("GET /v1/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .await;
    assert_eq!((status, answer["code"].as_str()), (400, Some("invalid")));
    assert_eq!(world.raw("\x16\x03\x01nonsense\r\n\r\n").await.0, 400);

    witness.put(&ClientFrame::Ping).await;
    witness.until(|f| matches!(f, ServerFrame::Pong { .. })).await;
}

/// One who takes nothing is closed, everybody else goes on. (Who floods: `session/tests.rs`.)
#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_read_is_closed() {
    let slow = closes(close::SLOW_READER);
    let world = World::with(
        &["ua", "ub"],
        Times { edge_ping: Duration::from_secs(3), heartbeat_timeout: Duration::from_secs(5), ..times() },
    )
    .await;
    // Pages of 20 KB that nobody reads, until every buffer between here and there is full.
    let mut deaf = world.client("ua", "d1", Codec::Json).await;
    deaf.sent(cid(), "dm.ua.ua", "to oneself").await.unwrap();
    for r in 0..2_000u32 {
        let question = format!(r#"{{"t":"history","r":{r},"thread":"dm.ua.ua"}}"#);
        match timeout(Duration::from_secs(3), deaf.ws.send(Message::Text(question.into()))).await {
            Ok(Ok(())) => {}
            _ => break,
        }
    }
    let mut witness = world.client("ub", "d1", Codec::Json).await;
    witness.put(&ClientFrame::Ping).await;
    witness.until(|f| matches!(f, ServerFrame::Pong { .. })).await;
    assert!(witness.sent(cid(), "dm.ub.ub", "still here").await.is_ok());

    // What it asked for waits; but not for one who takes not one byte for so long as silence is suffered.
    eventually("the deaf one is given up", async || {
        let ping = Message::Text(ClientFrame::Ping.encode(Codec::Json).try_into().unwrap());
        matches!(timeout(Duration::from_millis(200), deaf.ws.send(ping)).await, Ok(Err(_)))
    })
    .await;
    // The reason cannot come through: its way is full. That it was this one, the edge counts before it says goodbye.
    assert_eq!(deaf.closed().await, 1006);
    assert_eq!(closes(close::SLOW_READER) - slow, 1);
}
