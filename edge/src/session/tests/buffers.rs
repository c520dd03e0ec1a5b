//! Buffers are given back while frames come in pieces.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use natterjack_protocol::{
    client::frame::{ClientFrame, ServerFrame},
    codec::Codec,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use super::{edge::Edge, settle};

/// A piece of a message.
fn piece(bytes: &[u8], first: bool, last: bool) -> Message {
    let data = if first { Data::Binary } else { Data::Continue };
    Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(data), last))
}

#[tokio::test(start_paused = true)]
async fn a_session_that_gives_back_its_buffers_loses_nothing_of_what_is_under_way() {
    let edge = Edge::new();
    let mut client = edge.client_over("a", 64).await;
    let session = edge.session();
    let ws = client.ws().await;
    let ping = ClientFrame::Ping.encode(Codec::Msgpack);
    let (begin, end) = ping.split_at(ping.len() / 2);
    for n in 0..50u8 {
        // A heartbeat, a WebSocket ping between the pieces of another heartbeat, and something large in between.
        let all = [
            Message::Binary(ping.clone()),
            piece(begin, true, false),
            Message::Ping(Bytes::from(vec![n; usize::from(n)])),
            piece(end, false, true),
        ];
        let mut expected = vec!["pong", "ping", "pong", "contacts"];
        for message in all {
            ws.feed(message).await.unwrap();
            if n % 3 == 0 {
                // The session has seen this piece, and sleeps.
                ws.flush().await.unwrap();
                settle().await;
            }
        }
        ws.flush().await.unwrap();
        session.frame(&ServerFrame::Contacts);
        while !expected.is_empty() {
            let got = match ws.next().await.unwrap().unwrap() {
                Message::Pong(payload) => {
                    assert_eq!(payload, vec![n; usize::from(n)]);
                    "ping"
                }
                Message::Binary(bytes) => match ServerFrame::decode(Codec::Msgpack, &bytes).unwrap().unwrap() {
                    ServerFrame::Pong { .. } => "pong",
                    ServerFrame::Contacts => "contacts",
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            };
            let at = expected.iter().position(|e| *e == got).expect(got);
            expected.remove(at);
        }
    }
}
