//! RFC 6455: what breaks it is closed with its codes, whether hello was said or not, and a goodbye is answered.

use futures_util::{SinkExt, StreamExt};
use natterjack_protocol::{client::close, codec::Codec, limits};
use tokio::{io::AsyncWriteExt, time::timeout};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::kit::{PATIENCE, World};

/// Masked with zeros; `first` is the byte with the opcode.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..126 => frame.push(0x80 | n as u8),
        n => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_it_is_closed_with_its_codes() {
    let world = World::start(&["ua"]).await;
    let (protocol, not_utf8, too_large) = (close::PROTOCOL.code, close::NOT_UTF8.code, close::TOO_LARGE.code);
    let parts =
        |parts: &[(u8, &[u8])]| parts.iter().flat_map(|(first, payload)| masked(*first, payload)).collect::<Vec<u8>>();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("not masked", vec![0x81, 1, b'x'], protocol),
        ("a ping that is not masked", vec![0x89, 0], protocol),
        ("the first reserved bit, as of a compressed frame", masked(0xc1, b"x"), protocol),
        ("the second", masked(0xa1, b"x"), protocol),
        ("the third, of a ping", masked(0x99, b""), protocol),
        ("a reserved data opcode", masked(0x83, b"x"), protocol),
        ("a reserved control opcode", masked(0x8b, b"x"), protocol),
        ("a ping in parts", masked(0x09, b"x"), protocol),
        ("a close in parts", masked(0x08, &[3, 232]), protocol),
        ("a ping of 126 bytes", masked(0x89, &[0; 126]), protocol),
        ("a part of nothing", masked(0x80, b"x"), protocol),
        ("a message within another", parts(&[(0x01, b"{"), (0x81, b"}")]), protocol),
        ("a close of one byte", masked(0x88, &[3]), protocol),
        ("a close with a code that is none", masked(0x88, &[0x03, 0xed]), protocol),
        ("a close with code 0", masked(0x88, &[0, 0]), protocol),
        ("a close with code 999", masked(0x88, &[0x03, 0xe7]), protocol),
        ("a close with a code for inside only", masked(0x88, &[0x03, 0xee]), protocol),
        ("text that is not UTF-8", masked(0x81, &[0xff, 0xfe, 0xc3, 0x28]), not_utf8),
        ("a surrogate", masked(0x81, &[0xed, 0xa0, 0x80]), not_utf8),
        ("UTF-8 that ends early", masked(0x81, &[b'{', 0xe2, 0x82]), not_utf8),
        ("in parts, broken in the second", parts(&[(0x01, &[0xe2]), (0x80, &[0x28, 0xa1])]), not_utf8),
        ("a reason that is not UTF-8", masked(0x88, &[0x03, 0xe8, 0xff]), not_utf8),
        ("one byte too many", masked(0x81, &vec![b' '; limits::FRAME_BYTES + 1]), too_large),
        ("a length of 2^63", [&[0x81u8, 0xff, 0x80][..], &[0; 7], &[0; 4]].concat(), too_large),
        (
            "too much in parts",
            parts(
                &vec![(0x01, &[b' '; 1][..]); 1]
                    .into_iter()
                    .chain((0..60).map(|_| (0x00, &[b' '; 4_096][..])))
                    .collect::<Vec<_>>(),
            ),
            too_large,
        ),
    ];
    for (what, bytes, code) in cases {
        for greeted in [true, false] {
            let mut client =
                if greeted { world.client("ua", "d1", Codec::Json).await } else { world.socket(Codec::Json).await };
            // It may be closed before all of it is written.
            let _ = client.ws.get_mut().write_all(&bytes).await;
            assert_eq!(client.closed().await, code, "{what}, greeted: {greeted}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_is_answered_with_its_code() {
    let world = World::start(&["ua"]).await;
    for code in [1000u16, 1001, 1003, 1011, 3000, 4999] {
        for greeted in [true, false] {
            let mut client = if greeted {
                world.client("ua", "d1", Codec::Msgpack).await
            } else {
                world.socket(Codec::Msgpack).await
            };
            let frame = CloseFrame { code: CloseCode::from(code), reason: "the weather".into() };
            client.ws.send(Message::Close(Some(frame))).await.unwrap();
            assert_eq!(client.closed().await, code, "greeted: {greeted}");
            // And the connection with it.
            assert!(timeout(PATIENCE, client.ws.next()).await.unwrap().is_none_or(|r| r.is_err()));
        }
    }
    // Without a code there is none in the answer.
    let mut client = world.client("ua", "d1", Codec::Json).await;
    client.ws.get_mut().write_all(&masked(0x88, b"")).await.unwrap();
    assert_eq!(client.closed().await, 1005);
}
