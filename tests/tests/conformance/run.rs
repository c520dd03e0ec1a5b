//! One case on one codec: what is sent, and what has to come.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt, future::BoxFuture};
use natterjack_protocol::codec::Codec;
use natterjack_testkit::{now_ms, patience};
use natterjack_tests::kit::{Api, Cluster, User};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

use super::{
    case::{Http, Step},
    pattern::{matches, short},
    scope::Scope,
    template::bytes,
    tree::{self, Tree},
};

const ANSWER: Duration = Duration::from_secs(20);
/// What an edge says of itself, and what may therefore come between a request and its answer.
const UNASKED: [&str; 9] =
    ["event", "member", "page", "typing", "contacts", "degraded", "read", "receipts", "thread_settings"];
/// Of these, what follows something that was said before, whenever that comes: also before a frame that is the next
/// one.
const LIVE: [&str; 4] = ["event", "member", "typing", "contacts"];
const CONNECTION: &str = "a";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub struct Run {
    edge: SocketAddr,
    codec: Codec,
    scope: Scope,
    apis: HashMap<String, Api>,
    sockets: HashMap<String, Socket>,
    /// What came unasked and was not expected yet, by connection.
    kept: HashMap<String, Vec<Tree>>,
}

enum Came {
    Frame(Tree),
    Closed(u16),
}

impl Run {
    pub fn new(cluster: &Cluster, codec: Codec, users: Vec<(String, User)>) -> Self {
        let apis = users.iter().map(|(name, user)| (name.clone(), cluster.api(user, 0))).collect();
        Self {
            edge: cluster.edge_addr(0),
            codec,
            scope: Scope::of(&users),
            apis,
            sockets: HashMap::new(),
            kept: HashMap::new(),
        }
    }

    pub fn steps<'a>(&'a mut self, steps: &'a [Step]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            for (i, step) in steps.iter().enumerate() {
                self.step(step).await.map_err(|why| format!("step {}: {why}", i + 1))?;
            }
            Ok(())
        })
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Open { open } => self.open(open).await,
            Step::Attach { attach, user } => self.attach(attach, user).await,
            Step::Send { send, on } => {
                let bytes = bytes(self.codec, send, &mut self.scope);
                let message = if self.codec == Codec::Json { text(bytes) } else { Message::binary(bytes) };
                self.put(on.as_deref(), message).await
            }
            Step::Message { message, on } => {
                let message = if message == "text" { Message::text("{}") } else { Message::binary(b"\x80".to_vec()) };
                self.put(on.as_deref(), message).await
            }
            Step::Expect { expect, on, next } => self.expect(expect, on.as_deref(), *next).await,
            Step::ExpectClose { expect_close, on } => match self.receive(on.as_deref()).await? {
                Came::Closed(code) if code == *expect_close => Ok(()),
                Came::Closed(code) => Err(format!("expected close {expect_close}, it is {code}")),
                Came::Frame(frame) => Err(format!("expected close {expect_close}, found {}", short(&frame))),
            },
            Step::Http(http) => self.http(http).await,
            Step::For { r#for, values, steps } => {
                for value in values {
                    self.scope.set(r#for, value.clone());
                    self.steps(steps).await.map_err(|why| format!("{value}: {why}"))?;
                }
                Ok(())
            }
            Step::Repeat { repeat, steps } => {
                for n in 0..*repeat {
                    self.steps(steps).await.map_err(|why| format!("time {}: {why}", n + 1))?;
                }
                Ok(())
            }
        }
    }

    async fn open(&mut self, name: &str) -> Result<(), String> {
        let mut request = format!("ws://{}/v1/ws", self.edge).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(self.codec.subprotocol()));
        let opened = timeout(patience(ANSWER), connect_async(request)).await.map_err(|e| e.to_string())?;
        self.sockets.insert(name.to_owned(), opened.map_err(|e| e.to_string())?.0);
        Ok(())
    }

    async fn attach(&mut self, name: &str, user: &str) -> Result<(), String> {
        self.open(name).await?;
        let [token, device] = ["token", "device"].map(|of| format!("${{{user}.{of}}}"));
        let hello = bytes(self.codec, &json!({ "t": "hello", "token": token, "device": device }), &mut self.scope);
        let message = if self.codec == Codec::Json { text(hello) } else { Message::binary(hello) };
        self.put(Some(name), message).await?;
        let welcome = json!({ "$some": { "t": "welcome", "now": { "$set": "now" } } });
        self.expect(&welcome, Some(name), true).await?;
        self.scope.ahead = self.scope.get("now").as_i64().unwrap() - now_ms().cast_signed();
        self.expect(&json!({ "t": "attached", "synced": { "$is": "text" } }), Some(name), false).await
    }

    async fn put(&mut self, on: Option<&str>, message: Message) -> Result<(), String> {
        let socket = self.sockets.get_mut(on.unwrap_or(CONNECTION)).ok_or("there is no such connection")?;
        // The edge may close before it has taken everything.
        let _ = timeout(patience(ANSWER), socket.send(message)).await;
        Ok(())
    }

    async fn receive(&mut self, on: Option<&str>) -> Result<Came, String> {
        let socket = self.sockets.get_mut(on.unwrap_or(CONNECTION)).ok_or("there is no such connection")?;
        loop {
            let message = timeout(patience(ANSWER), socket.next()).await.map_err(|_| "nothing came")?;
            let bytes = match (message, self.codec) {
                (Some(Ok(Message::Text(text))), Codec::Json) => text.as_bytes().to_vec(),
                (Some(Ok(Message::Binary(bytes))), Codec::Msgpack) => bytes.to_vec(),
                (Some(Ok(Message::Close(why))), _) => return Ok(Came::Closed(why.map_or(1005, |c| c.code.into()))),
                (Some(Ok(Message::Ping(_) | Message::Pong(_))), _) => continue,
                (Some(Err(_)) | None, _) => return Ok(Came::Closed(1006)),
                (Some(Ok(other)), _) => return Err(format!("a message of the wrong sort: {other:?}")),
            };
            let frame =
                tree::read(self.codec, &bytes).ok_or_else(|| format!("not of the form of a frame: {bytes:x?}"))?;
            return Ok(Came::Frame(frame));
        }
    }

    async fn expect(&mut self, pattern: &Value, on: Option<&str>, next: bool) -> Result<(), String> {
        let connection = on.unwrap_or(CONNECTION).to_owned();
        if !next {
            let kept = self.kept.entry(connection.clone()).or_default();
            let fits = kept.iter().position(|frame| matches(self.codec, pattern, frame, &mut self.scope).is_ok());
            if let Some(at) = fits {
                kept.remove(at);
                return Ok(());
            }
        }
        loop {
            let came = self.receive(on).await.map_err(|why| {
                let kept: Vec<String> = self.kept.get(&connection).into_iter().flatten().map(short).collect();
                format!("{why}, expected {pattern}; came unasked: {}", kept.join(" | "))
            })?;
            let frame = match came {
                Came::Frame(frame) => frame,
                Came::Closed(code) => return Err(format!("closed with {code}, expected {pattern}")),
            };
            let Err(why) = matches(self.codec, pattern, &frame, &mut self.scope) else { return Ok(()) };
            let (t, r) = (field(&frame, "t"), field(&frame, "r"));
            let unasked = r.is_none() && matches!(t, Some(Tree::Text(t)) if UNASKED.contains(&t.as_str()));
            let live = matches!(t, Some(Tree::Text(t)) if LIVE.contains(&t.as_str()));
            let between =
                live && !LIVE.contains(&pattern.get("$some").unwrap_or(pattern)["t"].as_str().unwrap_or_default());
            if !unasked || (next && !between) {
                return Err(why);
            }
            self.kept.entry(connection.clone()).or_default().push(frame);
        }
    }

    async fn http(&mut self, http: &Http) -> Result<(), String> {
        let (method, path) = http.http.split_once(' ').ok_or("method and path")?;
        let method: Method = method.parse().map_err(|_| "method")?;
        let body = http.body.as_ref().map(|body| bytes(Codec::Json, body, &mut self.scope));
        let body: Option<Value> = body.map(|b| serde_json::from_slice(&b).unwrap());
        let (status, answer) = self.apis[&http.user].call(method, &self.scope.fill(path), body.as_ref()).await;
        if status != http.status {
            return Err(format!("expected {}, it is {status} {answer}", http.status));
        }
        let Some(pattern) = &http.answer else { return Ok(()) };
        let found: Tree = serde_json::from_value(answer).unwrap();
        matches(Codec::Json, pattern, &found, &mut self.scope)
    }
}

fn field<'a>(frame: &'a Tree, key: &str) -> Option<&'a Tree> {
    let Tree::Map(map) = frame else { return None };
    map.iter().find(|(k, _)| k == key).map(|(_, v)| v)
}

/// A text message of bytes that may be none: then nothing is sent that a client library would send.
fn text(bytes: Vec<u8>) -> Message {
    Message::text(String::from_utf8(bytes).expect("a case for JSON is text"))
}
