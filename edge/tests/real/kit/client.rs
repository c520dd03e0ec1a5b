//! A client that speaks plain frames.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use natterjack_protocol::{
    Body, Cid, Kind, MsgId, Refusal, Thread,
    client::{
        close::Close,
        frame::{ClientFrame, Hello, SendMessage, ServerFrame},
    },
    codec::Codec,
};
use natterjack_testkit::RawHttp;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::{PATIENCE, id};

pub struct Client {
    pub ws: WebSocketStream<TcpStream>,
    pub(super) codec: Codec,
    pub(super) r: u32,
}

impl Client {
    /// Over a connection that has become a WebSocket, with JSON, by hand.
    pub async fn over(http: RawHttp<TcpStream>) -> Self {
        let ws = WebSocketStream::from_partially_read(http.stream, http.read, Role::Client, None).await;
        Self { ws, codec: Codec::Json, r: 0 }
    }

    pub async fn hello(&mut self, token: &str, device: &str) {
        let hello = Hello::new(token.into(), id(device));
        self.put(&ClientFrame::Hello(hello)).await;
    }

    pub async fn put(&mut self, frame: &ClientFrame) {
        self.bytes(frame.encode(self.codec)).await;
    }

    pub async fn bytes(&mut self, bytes: Bytes) {
        let message = match self.codec {
            Codec::Msgpack => Message::Binary(bytes),
            Codec::Json => Message::Text(bytes.try_into().unwrap()),
        };
        self.ws.send(message).await.unwrap();
    }

    /// The next frame, or the code of the close.
    pub async fn next(&mut self) -> Result<ServerFrame, u16> {
        loop {
            let bytes = match timeout(PATIENCE, self.ws.next()).await.unwrap() {
                Some(Ok(Message::Binary(bytes))) => bytes,
                Some(Ok(Message::Text(text))) => text.into(),
                Some(Ok(Message::Close(Some(frame)))) => return Err(frame.code.into()),
                Some(Ok(Message::Close(None))) => return Err(1005),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return Err(1006),
            };
            if let Some(frame) = ServerFrame::decode(self.codec, &bytes).unwrap() {
                return Ok(frame);
            }
        }
    }

    pub async fn until(&mut self, mut wanted: impl FnMut(&ServerFrame) -> bool) -> ServerFrame {
        loop {
            let frame = self.next().await.unwrap();
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// The refusal of the next error frame, with its request.
    pub async fn error(&mut self) -> (Option<u32>, Refusal) {
        match self.until(|f| matches!(f, ServerFrame::Error { .. })).await {
            ServerFrame::Error { r, refusal } => (r, refusal),
            _ => unreachable!(),
        }
    }

    /// Reads on to the close.
    pub async fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.next().await {
                return code;
            }
        }
    }

    pub async fn closes_with(&mut self, why: Close) {
        assert_eq!(self.closed().await, why.code, "{}", why.reason);
    }

    pub async fn send(&mut self, cid: Cid, thread: &str, text: &str) -> u32 {
        self.r += 1;
        let thread: Thread = thread.parse().unwrap();
        self.put(&ClientFrame::Send(SendMessage {
            r: self.r,
            cid,
            thread,
            kind: Kind::Text,
            body: Body::text(text),
            behind: None,
        }))
        .await;
        self.r
    }

    /// Sends and waits for the answer.
    pub async fn sent(&mut self, cid: Cid, thread: &str, text: &str) -> Result<MsgId, Refusal> {
        let asked = self.send(cid, thread, text).await;
        let answer = |f: &ServerFrame| match f {
            ServerFrame::Sent { r, .. } | ServerFrame::Error { r: Some(r), .. } => *r == asked,
            _ => false,
        };
        match self.until(answer).await {
            ServerFrame::Sent { id, .. } => Ok(id),
            ServerFrame::Error { refusal, .. } => Err(refusal),
            _ => unreachable!(),
        }
    }
}
