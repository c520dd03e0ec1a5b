//! What the tests at the door share.

use std::{net::SocketAddr, time::Duration};

use natterjack_nats::{Layout, LeaderReader};
use natterjack_protocol::{Cid, Code, Most, MsgId, Refusal, Thread};
use natterjack_testkit::{now_ms, within};
use natterjack_tests::kit::{Api, Cluster};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

pub const SOON: Duration = Duration::from_secs(15);

pub fn cid() -> Cid {
    Cid::mint(now_ms(), rand::random())
}

pub fn text(cid: Cid, text: &str) -> Value {
    json!({ "cid": cid, "kind": "text", "body": { "text": text } })
}

/// Sends over HTTP.
pub async fn post(api: &Api, thread: &Thread, cid: Cid, words: &str) -> (u16, Value) {
    api.post(&format!("/v1/threads/{thread}/messages"), &text(cid, words)).await
}

pub fn id_of(answer: &(u16, Value)) -> MsgId {
    assert_eq!(answer.0, 200, "{}", answer.1);
    serde_json::from_value(answer.1["id"].clone()).unwrap()
}

/// The messages of a thread as the log has them.
pub async fn log_of(cluster: &Cluster, thread: &Thread) -> Vec<MsgId> {
    let nats = cluster.connect_nats().await;
    let tail = LeaderReader::new(&nats, Layout::load(&nats).await.unwrap());
    let last = tail.last(thread).await.unwrap().map(|r| r.id).unwrap_or_default();
    let records = tail.after(thread, MsgId::NONE, last, Most::count(10_000)).await.unwrap();
    records.into_iter().filter(|r| !r.control).map(|r| r.id).collect()
}

/// An answer to a request that was written by hand, over a connection that stays.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
    pub stream: TcpStream,
}

impl Answer {
    /// A 429 or 503 that says when to come back, in both ways.
    #[track_caller]
    pub fn refused(&self, code: Code) -> u64 {
        let refusal: Refusal =
            serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{} {:?}: {e}", self.status, self.body));
        assert_eq!((self.status, refusal.code), (code.http_status(), code), "{refusal:?}");
        let ms = refusal.retry_after_ms.expect("it says when");
        let seconds =
            self.head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("retry-after: ")?.parse::<u64>().ok());
        assert_eq!(seconds, Some(ms.div_ceil(1_000)), "{}", self.head);
        ms
    }
}

/// One request from this address. `headers` end with a line break each.
pub async fn from(address: &str, edge: SocketAddr, request: &str, headers: &str, body: &str) -> Answer {
    within("an answer", SOON, async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(edge).await.unwrap();
        let text = format!(
            "{request} HTTP/1.1\r\nHost: edge\r\n{headers}Content-Type: application/json\r\nContent-Length: \
             {}\r\n\r\n{body}",
            body.len()
        );
        // Refused before it could say anything: the answer is there all the same.
        let _ = stream.write_all(text.as_bytes()).await;
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4_096]);
        loop {
            let n = stream.read(&mut buffer).await.unwrap();
            bytes.extend_from_slice(&buffer[..n]);
            let text = String::from_utf8(bytes.clone()).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                assert!(n > 0, "closed without an answer: {text:?}");
                continue;
            };
            let length = head
                .lines()
                .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            if body.len() >= length || n == 0 {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Answer { status, head: head.to_owned(), body: body.to_owned(), stream };
            }
        }
    })
    .await
}
