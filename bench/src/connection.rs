//! A client that costs as little as it can: one WebSocket in MessagePack, no outbox, no cursors.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use natterjack_protocol::{
    Body, Cid, Kind, Thread, UserId,
    client::frame::{ClientFrame, Hello, SendMessage, ServerFrame},
    codec::Codec,
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue, protocol::WebSocketConfig},
};

use super::system::User;

pub struct LoadConnection {
    pub user: User,
    pub socket: WebSocketStream<TcpStream>,
}

/// What a run needs to know of a frame.
pub enum FrameSeen {
    Sent {
        r: u32,
    },
    /// The moment at which it was handed to the sender's socket, as the sender wrote it into the text.
    Event {
        stamp: u64,
        from: UserId,
    },
    Refused(String),
    Other,
}

impl LoadConnection {
    /// Connects as a device that has nothing, says hello and waits until it is live.
    pub async fn open(url: &str, user: User) -> Result<Self> {
        Ok(Self::open_again(url, user, None).await?.0)
    }

    /// As one that was here before, if with the `synced` of then. With the `synced` of now.
    pub async fn open_again(url: &str, user: User, synced: Option<String>) -> Result<(Self, String)> {
        let mut request = format!("{url}/v1/ws").into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("natterjack.v1.msgpack"));
        if request.uri().scheme_str() != Some("ws") {
            bail!("{url}: the bench speaks ws:// only");
        }
        let address = request.uri().authority().context("an edge's URL names host and port")?.to_string();
        let stream = TcpStream::connect(&address).await?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default().read_buffer_size(4 * 1024);
        let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        let mut connection = Self { user, socket };
        let hello = Hello { synced, ..Hello::new(connection.user.token.clone(), connection.user.id.clone()) };
        connection.socket.send(Message::Binary(ClientFrame::Hello(hello).encode(Codec::Msgpack))).await?;
        loop {
            match connection.frame().await? {
                Some(ServerFrame::Attached { synced }) => return Ok((connection, synced)),
                Some(ServerFrame::Error { refusal, .. }) => bail!("refused: {refusal}"),
                _ => {}
            }
        }
    }

    /// Told, so that the edge need not find out.
    pub async fn bye(&mut self) {
        let _ = self.socket.send(Message::Binary(ClientFrame::Bye.encode(Codec::Msgpack))).await;
    }

    /// None: of a type that is not known here.
    pub async fn frame(&mut self) -> Result<Option<ServerFrame>> {
        match self.socket.next().await.context("the edge closed the connection")?? {
            Message::Binary(bytes) => Ok(ServerFrame::decode(Codec::Msgpack, &bytes)?),
            Message::Close(why) => bail!("the edge closed the connection: {why:?}"),
            _ => Ok(None),
        }
    }
}

/// A text of `len` bytes that begins with the moment of sending.
pub fn stamped(stamp: u64, len: usize) -> Body {
    let mut text = format!("{stamp} ");
    text.extend(std::iter::repeat_n('x', len.saturating_sub(text.len())));
    Body::text(text)
}

pub fn send_frame(r: u32, thread: &Thread, now_ms: u64, body: Body) -> Bytes {
    let cid = Cid::mint(now_ms, rand::random());
    ClientFrame::Send(SendMessage { r, cid, thread: thread.clone(), kind: Kind::Text, body, behind: None })
        .encode(Codec::Msgpack)
}

/// Is it an event? Decides by the first bytes: decoding every delivery would measure us.
pub fn is_event(bytes: &[u8]) -> bool {
    bytes.get(1..9) == Some(b"\xa1t\xa5event".as_slice())
}

pub fn look(bytes: &[u8]) -> FrameSeen {
    match ServerFrame::decode(Codec::Msgpack, bytes) {
        Ok(Some(ServerFrame::Sent { r, .. })) => FrameSeen::Sent { r },
        Ok(Some(ServerFrame::Event(e))) => {
            let stamp = e.body.text.as_deref().and_then(|t| t.split(' ').next()).and_then(|s| s.parse().ok());
            stamp.map_or(FrameSeen::Other, |stamp| FrameSeen::Event { stamp, from: e.from })
        }
        Ok(Some(ServerFrame::Error { refusal, .. })) => FrameSeen::Refused(refusal.to_string()),
        _ => FrameSeen::Other,
    }
}
