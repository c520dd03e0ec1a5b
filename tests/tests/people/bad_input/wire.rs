//! Below frames: messages that are none, that are too large, and a WebSocket that breaks its own rules. Each is closed
//! with a code that says why.

use natterjack_protocol::{
    Code,
    client::{
        close::{self, Close},
        frame::ServerFrame,
    },
    codec::Codec,
    limits,
};
use natterjack_tests::kit::{Cluster, RawWs, Received, User};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{super::common::SOON, encode, error};

/// What is no frame at all, again and again; and a message of the other codec's type.
pub async fn nonsense_is_closed(cluster: &Cluster, user: &User, codec: Codec) {
    let mut ws = cluster.raw(user, 1, codec).await;
    let mut close = None;
    for i in 0..50u8 {
        let bytes = if codec == Codec::Json { format!("[{i}]").into_bytes() } else { vec![0xc1, i] };
        if ws.try_send_bytes(&bytes).await.is_err() {
            break;
        }
        match ws.next().await {
            Received::Frame(ServerFrame::Error { refusal, .. }) => assert_eq!(refusal.code, Code::BadFrame),
            Received::Closed(code, reason) => {
                close = Some((code, reason));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let (code, reason) = close.expect("given up after some");
    assert_eq!((code, reason.as_str()), (close::BAD_FRAME.code, close::BAD_FRAME.reason));

    let mut ws = cluster.raw(user, 1, codec).await;
    let message = match codec {
        Codec::Json => tokio_tungstenite::tungstenite::Message::binary(b"{}".to_vec()),
        Codec::Msgpack => tokio_tungstenite::tungstenite::Message::text("{}"),
    };
    ws.send_message(message).await.unwrap();
    assert_eq!(error(&mut ws).await.1.code, Code::BadFrame);
    assert_eq!(ws.until_closed(SOON).await, close::BAD_FRAME.code);
}

pub async fn too_large(cluster: &Cluster, user: &User, codec: Codec) {
    let largest = |n: usize| json!({ "t": "ping", "x": "x".repeat(n) });
    let fits = {
        let over = encode(codec, &largest(limits::FRAME_BYTES)).len() - limits::FRAME_BYTES;
        encode(codec, &largest(limits::FRAME_BYTES - over))
    };
    assert_eq!(fits.len(), limits::FRAME_BYTES);
    let mut ws = cluster.raw(user, 1, codec).await;
    ws.try_send_bytes(&fits).await.unwrap();
    ws.until("a pong to the largest frame", |f| matches!(f, ServerFrame::Pong { .. }).then_some(())).await;
    // The edge may close before it has taken everything.
    let _ = ws.try_send_bytes(&encode(codec, &largest(limits::FRAME_BYTES))).await;
    assert_eq!(ws.until_closed(SOON).await, close::TOO_LARGE.code);
    // Announced only: refused at once, not waited for and nothing kept free for it.
    let mut ws = cluster.raw(user, 1, codec).await;
    let mut head = vec![0x82, 0x80 | 127];
    head.extend_from_slice(&(1u64 << 40).to_be_bytes());
    head.extend_from_slice(&[0; 4]);
    ws.socket().write_all(&head).await.unwrap();
    assert_eq!(ws.until_closed(SOON).await, close::TOO_LARGE.code);
    // In many small parts: the message counts, not the part.
    let mut ws = cluster.raw(user, 1, codec).await;
    let opcode = if codec == Codec::Json { 0x01 } else { 0x02 };
    let part = vec![b'x'; 60_000];
    for i in 0..5 {
        if ws.socket().write_all(&masked(if i == 0 { opcode } else { 0x00 }, &part)).await.is_err() {
            break;
        }
    }
    assert_eq!(ws.until_closed(SOON).await, close::TOO_LARGE.code);
}

/// A frame as a client masks it (with a mask of zeros).
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..=125 => frame.push(0x80 | n as u8),
        n => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(n).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

pub async fn broken_websocket(cluster: &Cluster, user: &User, codec: Codec) {
    // {"t":"ping"} as deflate would make it: what matters is the bit that nobody has agreed upon.
    let compressed = [0xaa, 0x56, 0x2a, 0x51, 0xb2, 0x52, 0x2a, 0xc8, 0xcc, 0x4b, 0x57, 0xaa, 0x05, 0x00];
    let data = if codec == Codec::Json { 0x01 } else { 0x02 };
    let cases: [(&str, Vec<u8>, Close); 6] = [
        ("compressed", masked(0x80 | 0x40 | data, &compressed), close::PROTOCOL),
        ("another reserved bit", masked(0x80 | 0x20 | data, b"x"), close::PROTOCOL),
        ("an unknown opcode", masked(0x83, b"x"), close::PROTOCOL),
        ("not masked", vec![0x80 | data, 1, b'x'], close::PROTOCOL),
        ("a part of nothing", masked(0x80, b"x"), close::PROTOCOL),
        ("text that is not UTF-8", masked(0x81, &[0xff, 0xfe, 0xc3, 0x28]), close::NOT_UTF8),
    ];
    for (what, bytes, why) in cases {
        let mut ws = cluster.raw(user, 1, codec).await;
        ws.socket().write_all(&bytes).await.unwrap();
        let code = ws.until_closed(SOON).await;
        assert_eq!(code, why.code, "{what}");
        // Also from somebody who has not said hello.
        let mut ws = RawWs::connect(cluster.edge_addr(1), codec).await;
        ws.socket().write_all(&bytes).await.unwrap();
        assert_eq!(ws.until_closed(SOON).await, why.code, "{what}, before hello");
    }
    // The first frame is a hello, and names a device that could be one.
    let mut ws = RawWs::connect(cluster.edge_addr(1), codec).await;
    ws.try_send_bytes(&encode(codec, &json!({ "t": "threads", "r": 5 }))).await.unwrap();
    let (to, refusal) = error(&mut ws).await;
    assert_eq!((to, refusal.code), (Some(5), Code::Unauthorized));
    assert_eq!(ws.until_closed(SOON).await, close::BAD_FRAME.code);
    for device in ["", "a.b", "*", ">", "a b", "a\u{0}"] {
        let mut ws = RawWs::connect(cluster.edge_addr(1), codec).await;
        let hello = json!({ "t": "hello", "token": user.tokens.access, "device": device });
        ws.try_send_bytes(&encode(codec, &hello)).await.unwrap();
        assert_eq!(error(&mut ws).await.1.code, Code::BadFrame);
        assert_eq!(ws.until_closed(SOON).await, close::BAD_FRAME.code, "{device:?}");
    }
}
