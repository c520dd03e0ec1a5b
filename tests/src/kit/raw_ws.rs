//! A bare WebSocket that may say anything: for bad input, for counting frames, for clients that are not ours.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use natterjack_protocol::{
    Body, Cid, Kind, MsgId, Refusal, Thread,
    client::frame::{ClientFrame, Hello, SendMessage, ServerFrame, Welcome},
    codec::Codec,
};
use natterjack_testkit::within;
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue, protocol::Role},
};

use super::user::User;

pub struct RawWs {
    ws: WebSocketStream<MaybeTlsStream<TcpStream>>,
    codec: Codec,
    /// Of the last hello.
    pub welcome: Option<Box<Welcome>>,
    requests: u32,
    /// What came while [`RawWs::until`] waited for something else, in its order; whoever wants it takes it.
    pub passed_over: Vec<ServerFrame>,
    /// Between the server's clock and ours, in milliseconds.
    ahead: i64,
}

/// What came from the edge.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    Frame(ServerFrame),
    /// A frame type that this version does not know.
    Unknown,
    /// Close code and reason; 1006 without a close frame.
    Closed(u16, String),
}

const ANSWER: Duration = Duration::from_secs(15);

impl RawWs {
    pub async fn connect(edge: SocketAddr, codec: Codec) -> Self {
        Self::try_connect(edge, codec.subprotocol()).await.unwrap_or_else(|e| panic!("no socket at {edge}: {e}"))
    }

    /// With any subprotocol; what the server thinks of it is the answer.
    pub async fn try_connect(edge: SocketAddr, subprotocol: &str) -> Result<Self, Error> {
        Self::open(&format!("ws://{edge}"), subprotocol, Connector::Plain).await
    }

    /// Over TLS.
    pub async fn connect_tls(edge: SocketAddr, codec: Codec, tls: Arc<ClientConfig>) -> Self {
        let opened = Self::open(&format!("wss://{edge}"), codec.subprotocol(), Connector::Rustls(tls)).await;
        opened.unwrap_or_else(|e| panic!("no socket at {edge}: {e}"))
    }

    async fn open(url: &str, subprotocol: &str, connector: Connector) -> Result<Self, Error> {
        let mut request = format!("{url}/v1/ws").into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_str(subprotocol).unwrap());
        let opened = connect_async_tls_with_config(request, None, false, Some(connector));
        let (ws, _) = within("a WebSocket handshake", ANSWER, Box::pin(opened)).await?;
        let codec = Codec::of_subprotocol(subprotocol).unwrap_or(Codec::Json);
        Ok(Self { ws, codec, welcome: None, requests: 0, passed_over: Vec::new(), ahead: 0 })
    }

    /// Over a connection that has become a WebSocket already; `read`: what was read behind the head.
    pub async fn over(stream: MaybeTlsStream<TcpStream>, read: Vec<u8>, codec: Codec) -> Self {
        let ws = WebSocketStream::from_partially_read(stream, read, Role::Client, None).await;
        Self { ws, codec, welcome: None, requests: 0, passed_over: Vec::new(), ahead: 0 }
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// A number for a request that was not used before.
    pub fn request(&mut self) -> u32 {
        self.requests += 1;
        self.requests
    }

    pub async fn send(&mut self, frame: &ClientFrame) {
        let bytes = frame.encode(self.codec);
        self.try_send_bytes(&bytes).await.unwrap_or_else(|e| panic!("the edge has closed: {e}"));
    }

    /// In one write, so that the edge has all of them when it reads the first.
    pub async fn send_together(&mut self, frames: &[ClientFrame]) {
        for frame in frames {
            let bytes = frame.encode(self.codec);
            let message = if self.codec == Codec::Json {
                Message::text(String::from_utf8(bytes.into()).unwrap())
            } else {
                Message::binary(bytes)
            };
            self.ws.feed(message).await.unwrap_or_else(|e| panic!("the edge has closed: {e}"));
        }
        self.ws.flush().await.unwrap_or_else(|e| panic!("the edge has closed: {e}"));
    }

    /// Anything at all, as the message type of the codec.
    pub async fn try_send_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let message = match (self.codec, std::str::from_utf8(bytes)) {
            (Codec::Json, Ok(text)) => Message::text(text),
            _ => Message::binary(bytes.to_vec()),
        };
        self.ws.send(message).await
    }

    pub async fn send_message(&mut self, message: Message) -> Result<(), Error> {
        self.ws.send(message).await
    }

    /// Raw bytes below WebSocket: broken frames, half a header.
    pub fn socket(&mut self) -> &mut TcpStream {
        match self.ws.get_mut() {
            MaybeTlsStream::Plain(tcp) => tcp,
            _ => unreachable!("only asked for without TLS"),
        }
    }

    pub async fn next(&mut self) -> Received {
        self.next_within(ANSWER).await
    }

    pub async fn next_within(&mut self, limit: Duration) -> Received {
        within("a frame or a close", limit, self.receive()).await
    }

    async fn receive(&mut self) -> Received {
        loop {
            let bytes = match self.ws.next().await {
                Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
                Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                Some(Ok(Message::Close(Some(c)))) => return Received::Closed(c.code.into(), c.reason.to_string()),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return Received::Closed(1006, String::new()),
            };
            let frame = ServerFrame::decode(self.codec, &bytes)
                .unwrap_or_else(|e| panic!("the edge sent what is no frame: {e}"));
            return frame.map_or(Received::Unknown, Received::Frame);
        }
    }

    /// The next frame that `wanted` takes; others are passed over, a close is a panic.
    pub async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(ServerFrame) -> Option<T>) -> T {
        within(what, ANSWER, async {
            loop {
                match self.receive().await {
                    Received::Frame(frame) => {
                        if let Some(found) = wanted(frame.clone()) {
                            return found;
                        }
                        self.passed_over.push(frame);
                    }
                    Received::Unknown => {}
                    Received::Closed(code, reason) => panic!("closed with {code} {reason:?} while waiting for: {what}"),
                }
            }
        })
        .await
    }

    /// The close code, whatever comes before it.
    pub async fn until_closed(&mut self, limit: Duration) -> u16 {
        within("the edge closes", limit, async {
            loop {
                if let Received::Closed(code, _) = self.receive().await {
                    return code;
                }
            }
        })
        .await
    }

    /// Says hello without cursors and waits until attached; gives the `synced` of it.
    pub async fn hello(&mut self, user: &User) -> String {
        let hello = Hello::new(user.tokens.access.clone(), user.tokens.device.clone());
        self.hello_with(hello).await
    }

    pub async fn hello_with(&mut self, hello: Hello) -> String {
        self.send(&ClientFrame::Hello(hello)).await;
        let welcome = self
            .until("welcome", |f| match f {
                ServerFrame::Welcome(w) => Some(w),
                _ => None,
            })
            .await;
        self.ahead = welcome.now.cast_signed() - natterjack_testkit::now_ms().cast_signed();
        self.welcome = Some(welcome);
        self.until("attached", |f| match f {
            ServerFrame::Attached { synced } => Some(synced),
            _ => None,
        })
        .await
    }

    /// A cid in the server's time.
    pub fn cid(&self) -> Cid {
        self.cid_at(0)
    }

    /// A cid from a clock that is off by so many milliseconds.
    pub fn cid_at(&self, off_ms: i64) -> Cid {
        let now = natterjack_testkit::now_ms().cast_signed() + self.ahead + off_ms;
        Cid::mint(now.cast_unsigned(), rand::random())
    }

    /// Sends a text and waits for `sent` or the refusal of this very request.
    pub async fn send_text(&mut self, thread: &Thread, text: &str) -> Result<MsgId, Refusal> {
        let cid = self.cid();
        self.send_cid(thread, cid, text).await
    }

    pub async fn send_cid(&mut self, thread: &Thread, cid: Cid, text: &str) -> Result<MsgId, Refusal> {
        self.send_kind(thread, cid, Kind::Text, Body::text(text)).await
    }

    pub async fn send_kind(&mut self, thread: &Thread, cid: Cid, kind: Kind, body: Body) -> Result<MsgId, Refusal> {
        let (r, thread) = (self.request(), thread.clone());
        self.send(&ClientFrame::Send(SendMessage { r, cid, thread, kind, body, behind: None })).await;
        self.until("sent or a refusal", |f| match f {
            ServerFrame::Sent { r: to, id, .. } if to == r => Some(Ok(id)),
            ServerFrame::Error { r: Some(to), refusal } if to == r => Some(Err(refusal)),
            _ => None,
        })
        .await
    }

    /// The next event of any thread.
    pub async fn event(&mut self) -> natterjack_protocol::Event {
        self.until("an event", |f| match f {
            ServerFrame::Event(e) => Some(*e),
            _ => None,
        })
        .await
    }
}
