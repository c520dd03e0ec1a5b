//! Just enough of an edge to hold a conversation by hand: sessions as the test takes them, and `/v1/refresh`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use natterjack_protocol::{
    Token,
    client::{
        close::Close,
        frame::{ClientFrame, Hello, ServerFrame, Welcome},
        http::Tokens,
    },
    codec::Codec,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        http::header::SEC_WEBSOCKET_PROTOCOL,
        protocol::CloseFrame,
    },
};

/// A server's clock far from this machine's.
pub const NOW: u64 = 4_000_000_000_000;

pub fn tokens(access: &str) -> Tokens {
    let id = |s| Token::parse(s).unwrap();
    Tokens {
        user: id("a"),
        name: "a".into(),
        device: id("d1"),
        access: access.into(),
        expires_in: 3_600,
        refresh: "r".into(),
    }
}

pub struct Fake {
    pub url: String,
    sessions: mpsc::Receiver<Session>,
    revoked: Arc<AtomicBool>,
    _listener: JoinSet<()>,
}

pub struct Session {
    socket: WebSocketStream<TcpStream>,
    codec: Codec,
    pub hello: Hello,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (to, sessions) = mpsc::channel(16);
        let (revoked, renewed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let revoked = revoked.clone();
            async move {
                let mut connections = JoinSet::new();
                while let Ok((socket, _)) = listener.accept().await {
                    connections.spawn(serve(socket, to.clone(), revoked.clone(), renewed.clone()));
                }
            }
        });
        Self { url, sessions, revoked, _listener: tasks }
    }

    /// The next client that has said hello.
    pub async fn session(&mut self) -> Session {
        self.sessions.recv().await.unwrap()
    }

    pub fn revoke(&self) {
        self.revoked.store(true, SeqCst);
    }
}

async fn serve(mut socket: TcpStream, to: mpsc::Sender<Session>, revoked: Arc<AtomicBool>, renewed: Arc<AtomicU32>) {
    let mut head = [0; 64];
    let n = socket.peek(&mut head).await.unwrap_or(0);
    if !head[..n].starts_with(b"GET /v1/ws ") {
        let mut request = vec![0; 4_096];
        let n = socket.read(&mut request).await.unwrap_or(0);
        let (status, body) = match &request[..n] {
            r if !r.starts_with(b"POST /v1/refresh") => {
                ("404 Not Found", r#"{"code":"not_found","message":"no"}"#.to_owned())
            }
            _ if revoked.load(SeqCst) => {
                ("401 Unauthorized", r#"{"code":"unauthorized","message":"revoked"}"#.to_owned())
            }
            _ => (
                "200 OK",
                serde_json::to_string(&tokens(&format!("renewed-{}", renewed.fetch_add(1, SeqCst) + 1))).unwrap(),
            ),
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let _ = socket.write_all(answer.as_bytes()).await;
        return;
    }
    if let Some(session) = Session::upgrade(socket).await {
        let _ = to.send(session).await;
    }
}

/// A request that the test answers by hand: the upgrade, or `POST /v1/refresh`.
pub struct Dial {
    socket: TcpStream,
    pub path: String,
}

impl Dial {
    pub async fn answer(mut self, status: u16, headers: &[(String, String)], body: &str) {
        let mut request = vec![0; 8_192];
        let _ = self.socket.read(&mut request).await;
        let lines: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let head =
            format!("HTTP/1.1 {status} It Is So\r\n{lines}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _ = self.socket.write_all(format!("{head}{body}").as_bytes()).await;
    }

    pub async fn upgrade(self) -> Session {
        Session::upgrade(self.socket).await.expect("says hello")
    }
}

/// An edge of which the test answers everything; its address.
pub async fn scripted() -> (String, mpsc::Receiver<Dial>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (to, dials) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut head = [0; 64];
            let n = socket.peek(&mut head).await.unwrap_or(0);
            let path = String::from_utf8_lossy(&head[..n]).split(' ').nth(1).unwrap_or_default().to_owned();
            // The list of edges is looked at from time to time, which is no matter here.
            if path != "/v1/edges" {
                let _ = to.send(Dial { socket, path }).await;
            }
        }
    });
    (url, dials, tasks)
}

impl Session {
    async fn upgrade(socket: TcpStream) -> Option<Self> {
        let mut codec = Codec::Msgpack;
        #[allow(clippy::result_large_err)]
        let choose = |request: &Request, mut response: Response| {
            let offered = request.headers().get(SEC_WEBSOCKET_PROTOCOL).unwrap().clone();
            codec = Codec::of_subprotocol(offered.to_str().unwrap()).unwrap();
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, offered);
            Ok(response)
        };
        let mut socket = accept_hdr_async(socket, choose).await.unwrap();
        let Some(Ok(first)) = socket.next().await else { return None };
        let Ok(ClientFrame::Hello(hello)) = ClientFrame::decode(codec, &first.into_data()) else {
            panic!("hello comes first")
        };
        Some(Self { socket, codec, hello })
    }

    pub async fn welcome(&mut self) {
        let id = |s| Token::parse(s).unwrap();
        let welcome = Welcome {
            session: id("s1"),
            user: id("a"),
            now: NOW,
            heartbeat_ms: 25_000,
            edge_ping_ms: 45_000,
            silence_ms: 75_000,
            edge: id("e1"),
            limits: Default::default(),
        };
        self.say(&ServerFrame::Welcome(Box::new(welcome))).await;
    }

    pub async fn say(&mut self, frame: &ServerFrame) {
        let bytes = frame.encode(self.codec);
        let message = match self.codec {
            Codec::Msgpack => Message::Binary(bytes),
            Codec::Json => Message::text(String::from_utf8(bytes.to_vec()).unwrap()),
        };
        self.socket.send(message).await.unwrap();
    }

    /// The next frame; pings are not answered and not shown, nor what the device has got.
    pub async fn hear(&mut self) -> ClientFrame {
        loop {
            match self.hear_any().await {
                ClientFrame::Ping => {}
                ClientFrame::Ack(acked) if acked.read.is_empty() => {}
                frame => return frame,
            }
        }
    }

    pub async fn hear_any(&mut self) -> ClientFrame {
        loop {
            let message =
                tokio::time::timeout(Duration::from_secs(10), self.socket.next()).await.unwrap().unwrap().unwrap();
            if message.is_text() || message.is_binary() {
                return ClientFrame::decode(self.codec, &message.into_data()).unwrap();
            }
        }
    }

    pub async fn close(mut self, close: Close) {
        let frame = CloseFrame { code: close.code.into(), reason: close.reason.into() };
        let _ = self.socket.close(Some(frame)).await;
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}
