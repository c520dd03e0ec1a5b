//! One connection's life (steps 1 and 5 on the wire): dial, hello, welcome; then reader, writer and heartbeat joined
//! until the first ends.

mod pulse;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use natterjack_protocol::{
    Refusal, Times,
    client::{
        close::{self, Back},
        frame::{ClientFrame, Displaced, Hello, ServerFrame, Welcome},
    },
    codec::Codec,
    limits,
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{
        self, Message, Utf8Bytes,
        client::IntoClientRequest,
        http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::WebSocketConfig,
    },
};
use tokio_util::task::AbortOnDropHandle;

use self::pulse::{Pulse, beat};
use crate::{http::Http, told};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// TCP, TLS and upgrade together. An edge that takes longer is not the one to be on.
const DIAL: Duration = Duration::from_secs(10);
/// The largest page is half of it (`limits::PAGE_BYTES` and one event).
const MESSAGE_BYTES: usize = limits::PAYLOAD_BYTES;
/// Frames between socket and driver. Full towards the driver: the socket is not read, the edge notices a slow reader.
/// Full towards the socket: the driver keeps its frames (sends and asks are bounded there).
const QUEUE: usize = 256;
const BYE: Duration = Duration::from_secs(1);

/// Why a connection could not be made or is no more.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Lost {
    /// No socket, a socket error, or silence.
    Broken(String),
    /// An error frame in place of the welcome.
    Refused(Refusal),
    /// The upgrade was answered with something else: by an edge that is full, a proxy without one, a captive portal.
    NoUpgrade { status: u16, retry_after_ms: Option<u64> },
    /// Another device is in, in this one's place.
    Displaced(Displaced),
    Closed {
        code: u16,
        reason: String,
        /// Of the error right before it.
        retry_after_ms: Option<u64>,
    },
}

impl Lost {
    pub fn back(&self) -> Back {
        use natterjack_protocol::Retry;
        match self {
            Self::Broken(_) | Self::NoUpgrade { .. } => Back::Backoff,
            Self::Refused(r) => match r.code.retry() {
                Retry::Never => Back::Never,
                Retry::AfterLogin => Back::AfterLogin,
                Retry::Later | Retry::NewCid => Back::Backoff,
            },
            Self::Displaced(_) => Back::Never,
            Self::Closed { code, .. } => close::back(*code),
        }
    }

    /// How long this edge said to stay away.
    pub fn told(&self) -> Option<u64> {
        match self {
            Self::Broken(_) | Self::Displaced(_) => None,
            Self::Refused(refusal) => refusal.retry_after_ms,
            Self::NoUpgrade { retry_after_ms, .. } | Self::Closed { retry_after_ms, .. } => *retry_after_ms,
        }
    }
}

/// A welcomed connection. Dropping it cuts the socket; `close` says goodbye.
pub(crate) struct Connection {
    pub edge: String,
    pub welcome: Welcome,
    pub incoming: mpsc::Receiver<ServerFrame>,
    pub outgoing: mpsc::Sender<ClientFrame>,
    life: AbortOnDropHandle<Lost>,
    pulse: Arc<Pulse>,
}

impl Connection {
    /// After `incoming` has ended: why. Safe to drop.
    pub async fn lost(&mut self) -> Lost {
        (&mut self.life).await.unwrap_or_else(|e| Lost::Broken(e.to_string()))
    }

    /// Pings; which pong of this connection answers it. Never, if the socket does not drain.
    pub fn ping(&self) -> u64 {
        self.pulse.ping(&self.outgoing)
    }

    /// For how long nothing has come.
    pub fn silence(&self) -> Duration {
        self.pulse.silence()
    }

    pub async fn close(self) {
        let Self { outgoing, incoming, life, .. } = self;
        drop((outgoing, incoming));
        let _ = tokio::time::timeout(BYE, life).await;
    }
}

/// `heartbeat`: in place of what the welcome says.
pub(crate) async fn dial(
    edge: String,
    http: Http,
    codec: Codec,
    hello: Hello,
    heartbeat: Option<Duration>,
) -> Result<Connection, Lost> {
    let silent = || Lost::Broken(format!("{edge} does not answer"));
    let opened = tokio::time::timeout(DIAL, Box::pin(open(&edge, &http, codec))).await;
    let mut socket = opened.map_err(|_| silent())??;
    let greeted = async {
        socket.send(message(codec, &ClientFrame::Hello(hello))).await.map_err(broken)?;
        welcome(&mut socket, codec).await
    };
    // The edge is there; it may wait until another device of this user has left.
    let greeted = tokio::time::timeout(Times::default().welcome, Box::pin(greeted)).await;
    let welcome = greeted.map_err(|_| silent())??;
    let (to_driver, incoming) = mpsc::channel(QUEUE);
    let (outgoing, from_driver) = mpsc::channel(QUEUE);
    let heartbeat = heartbeat.unwrap_or(Duration::from_millis(welcome.heartbeat_ms) / 2).max(Duration::from_millis(20));
    let pulse = Arc::new(Pulse::new());
    let life = live(socket, codec, heartbeat, to_driver, from_driver, outgoing.downgrade(), pulse.clone());
    Ok(Connection { edge, welcome, incoming, outgoing, life: AbortOnDropHandle::new(tokio::spawn(life)), pulse })
}

async fn open(edge: &str, http: &Http, codec: Codec) -> Result<Socket, Lost> {
    let mut request = format!("{edge}/v1/ws").into_client_request().map_err(broken)?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(codec.subprotocol()));
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES));
    let connector = Some(Connector::Rustls(http.tls.clone()));
    let port = request.uri().port_u16().unwrap_or(if edge.starts_with("wss") { 443 } else { 80 });
    let addresses = http.names().find(request.uri().host().unwrap_or_default(), port).await.map_err(broken)?;
    let stream = TcpStream::connect(&addresses[..]).await.map_err(broken)?;
    stream.set_nodelay(true).map_err(broken)?;
    let (socket, _) =
        client_async_tls_with_config(request, stream, Some(config), connector).await.map_err(|e| match e {
            tungstenite::Error::Http(answer) => no_upgrade(&answer),
            e => broken(e),
        })?;
    Ok(socket)
}

fn no_upgrade(answer: &tungstenite::http::Response<Option<Vec<u8>>>) -> Lost {
    let body = answer.body().as_deref().unwrap_or_default();
    let refusal: Option<Refusal> = serde_json::from_slice(body).ok();
    let retry_after_ms = told::longer(told::retry_after(answer.headers()), refusal.and_then(|r| r.retry_after_ms));
    Lost::NoUpgrade { status: answer.status().as_u16(), retry_after_ms }
}

async fn welcome(socket: &mut Socket, codec: Codec) -> Result<Welcome, Lost> {
    let mut refusal = None;
    loop {
        match next_frame(socket, codec).await {
            Ok(Some(ServerFrame::Welcome(welcome))) => return Ok(*welcome),
            Ok(Some(ServerFrame::Error { refusal: r, .. })) => refusal = Some(r),
            Ok(_) => {}
            // The close code that follows an error is coarser than the error.
            Err(lost) => return Err(refusal.map_or(lost, Lost::Refused)),
        }
    }
}

async fn live(
    socket: Socket,
    codec: Codec,
    heartbeat: Duration,
    to_driver: mpsc::Sender<ServerFrame>,
    from_driver: mpsc::Receiver<ClientFrame>,
    pings: mpsc::WeakSender<ClientFrame>,
    pulse: Arc<Pulse>,
) -> Lost {
    let (sink, stream) = socket.split();
    // Whichever ends first ends all. Order: what was read is handed on before a write error is noticed.
    tokio::select! {
        biased;
        lost = read(stream, codec, to_driver, &pulse) => lost,
        lost = write(sink, codec, from_driver) => lost,
        lost = beat(heartbeat, pings, &pulse) => lost,
    }
}

async fn read(
    mut stream: SplitStream<Socket>,
    codec: Codec,
    to_driver: mpsc::Sender<ServerFrame>,
    pulse: &Pulse,
) -> Lost {
    let mut told = None;
    loop {
        match next_frame(&mut stream, codec).await {
            Ok(frame) => {
                pulse.heard();
                let Some(frame) = frame else { continue };
                told = match &frame {
                    ServerFrame::Error { r: None, refusal } => refusal.retry_after_ms,
                    _ => None,
                };
                pulse.busy.store(true, Relaxed);
                let taken = to_driver.send(frame).await;
                pulse.busy.store(false, Relaxed);
                pulse.heard();
                if taken.is_err() {
                    // The driver let go of this connection; `write` says goodbye.
                    std::future::pending::<()>().await;
                }
            }
            Err(Lost::Closed { code, reason, .. }) => return Lost::Closed { code, reason, retry_after_ms: told },
            Err(lost) => return lost,
        }
    }
}

/// Writes all that is ready, flushes once. Ends with a bye when the driver lets go.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    codec: Codec,
    mut from_driver: mpsc::Receiver<ClientFrame>,
) -> Lost {
    let mut batch = Vec::new();
    loop {
        let n = from_driver.recv_many(&mut batch, 64).await;
        let goodbye = n == 0;
        batch.extend(goodbye.then_some(ClientFrame::Bye));
        for frame in batch.drain(..) {
            if let Err(e) = sink.feed(message(codec, &frame)).await {
                return broken(e);
            }
        }
        if let Err(e) = sink.flush().await {
            return broken(e);
        }
        if goodbye {
            let _ = sink.close().await;
            return Lost::Closed { code: close::BYE.code, reason: close::BYE.reason.into(), retry_after_ms: None };
        }
    }
}

/// None: a frame type of a later version, or a control frame. `displaced` ends the connection, also in place of a
/// welcome.
async fn next_frame(
    stream: &mut (impl StreamExt<Item = Result<Message, tungstenite::Error>> + Unpin),
    codec: Codec,
) -> Result<Option<ServerFrame>, Lost> {
    let bytes = match stream.next().await {
        None => return Err(Lost::Broken("the socket ended".into())),
        Some(Err(e)) => return Err(broken(e)),
        Some(Ok(Message::Close(frame))) => {
            return Err(match frame {
                Some(f) => Lost::Closed { code: f.code.into(), reason: f.reason.to_string(), retry_after_ms: None },
                None => Lost::Broken("closed without a code".into()),
            });
        }
        Some(Ok(Message::Binary(bytes))) => bytes,
        Some(Ok(Message::Text(text))) => text.into(),
        Some(Ok(_)) => return Ok(None),
    };
    match ServerFrame::decode(codec, &bytes) {
        Ok(Some(ServerFrame::Displaced(by))) => Err(Lost::Displaced(by)),
        Ok(frame) => Ok(frame),
        Err(e) => Err(Lost::Broken(format!("a frame that cannot be read: {e}"))),
    }
}

fn message(codec: Codec, frame: &ClientFrame) -> Message {
    let bytes = frame.encode(codec);
    match codec {
        Codec::Msgpack => Message::Binary(bytes),
        Codec::Json => Message::Text(Utf8Bytes::try_from(bytes).expect("JSON is UTF-8")),
    }
}

fn broken(e: impl std::fmt::Display) -> Lost {
    Lost::Broken(e.to_string())
}

#[cfg(test)]
mod tests;
