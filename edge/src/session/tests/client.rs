//! The client's side of a pipe or a socket.

use futures_util::{SinkExt, StreamExt};
use natterjack_protocol::{
    Body, Code, Kind,
    client::frame::{ClientFrame, Hello, HistoryQuery, SendMessage, ServerFrame},
    codec::Codec,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::edge::{cid, id, thread};
use crate::wire::Wire;

pub struct Client {
    ours: Option<Wire>,
    ws: Option<WebSocketStream<Wire>>,
    /// Ends with the connection.
    pub session: JoinHandle<()>,
}

impl Client {
    pub fn new(ours: Wire, session: JoinHandle<()>) -> Self {
        Self { ours: Some(ours), ws: None, session }
    }

    pub async fn ws(&mut self) -> &mut WebSocketStream<Wire> {
        if let Some(ours) = self.ours.take() {
            self.ws = Some(WebSocketStream::from_raw_socket(ours, Role::Client, None).await);
        }
        self.ws.as_mut().unwrap()
    }

    pub async fn into_ws(mut self) -> WebSocketStream<Wire> {
        self.ws().await;
        self.ws.unwrap()
    }

    pub async fn hello(&mut self, token: &str) {
        let device = id(token.split('/').nth(1).unwrap_or("d"));
        let hello = Hello::new(token.into(), device);
        self.put(&ClientFrame::Hello(hello)).await;
    }

    pub async fn put(&mut self, frame: &ClientFrame) {
        self.put_all(std::slice::from_ref(frame)).await;
    }

    /// All of them before the session reads the first.
    pub async fn put_all(&mut self, frames: &[ClientFrame]) {
        let ws = self.ws().await;
        for frame in frames {
            ws.feed(Message::Binary(frame.encode(Codec::Msgpack))).await.unwrap();
        }
        ws.flush().await.unwrap();
    }

    /// The next frame, or the code of the close; 1006: there was none.
    pub async fn next(&mut self) -> Result<ServerFrame, u16> {
        match self.ws().await.next().await {
            Some(Ok(Message::Binary(bytes))) => Ok(ServerFrame::decode(Codec::Msgpack, &bytes).unwrap().unwrap()),
            Some(Ok(Message::Close(Some(frame)))) => Err(frame.code.into()),
            Some(Err(_)) | None => Err(1006),
            other => panic!("neither a frame nor a close: {other:?}"),
        }
    }

    /// The next frame of WebSocket as it comes, not answered: opcode and payload. Nothing may have been read ahead.
    pub async fn raw(&mut self) -> (u8, Vec<u8>) {
        let pipe = self.ws().await.get_mut();
        let (first, length) = (pipe.read_u8().await.unwrap(), pipe.read_u8().await.unwrap());
        assert!(length < 126, "a short one, without a mask");
        let mut payload = vec![0; length.into()];
        pipe.read_exact(&mut payload).await.unwrap();
        (first & 0xf, payload)
    }

    /// A pong and nothing else, with a mask of zeros.
    pub async fn raw_pong(&mut self) {
        self.ws().await.get_mut().write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.unwrap();
    }

    /// Everything up to the close, and its code.
    pub async fn rest(&mut self) -> (Vec<ServerFrame>, u16) {
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Ok(frame) => frames.push(frame),
                Err(code) => return (frames, code),
            }
        }
    }

    /// `sent`, or why not, with the request.
    pub async fn answer(&mut self) -> (u32, Result<u64, Code>) {
        match self.next().await {
            Ok(ServerFrame::Sent { r, id, .. }) => (r, Ok(id.0)),
            Ok(ServerFrame::Error { r: Some(r), refusal }) => (r, Err(refusal.code)),
            other => panic!("an answer: {other:?}"),
        }
    }
}

/// The message `n` of the conversation; `behind`: on which it hangs.
pub fn send(n: u8, behind: Option<u8>) -> ClientFrame {
    let (r, cid_, behind) = (n.into(), cid(n), behind.map(cid));
    ClientFrame::Send(SendMessage { r, cid: cid_, thread: thread(), kind: Kind::Text, body: Body::text("x"), behind })
}

pub fn history(r: u32) -> ClientFrame {
    ClientFrame::History(HistoryQuery { r, thread: Some(thread()), ..HistoryQuery::default() })
}
