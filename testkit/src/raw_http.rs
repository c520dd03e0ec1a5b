//! HTTP written by hand over one connection: pipelined, half, broken, and upgrades behind other requests.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Asks for the WebSocket in JSON; `headers` end with a line break each.
pub fn upgrade(headers: &str) -> String {
    format!(
        "GET /v1/ws HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: \
         13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: natterjack.v1.json\r\n{headers}\r\n"
    )
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| *n == name).map(|(_, v)| v))
    }

    /// The code of a typed refusal, which tells the server's time.
    #[track_caller]
    pub fn code(&self) -> String {
        assert!(self.header("natterjack-now").is_some_and(|ms| ms.parse::<u64>().is_ok()), "{self:?}");
        let refusal: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        assert!(refusal["message"].as_str().is_some_and(|m| !m.is_empty()), "{self:?}");
        refusal["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub struct RawHttp<S> {
    pub stream: S,
    /// Read and not yet of an answer.
    pub read: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawHttp<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next answer, to anything but HEAD.
    pub async fn answer(&mut self) -> Answer {
        self.next(false)
            .await
            .unwrap_or_else(|| panic!("closed without an answer: {:?}", String::from_utf8_lossy(&self.read)))
    }

    /// None: closed instead. `bare`: to HEAD.
    pub async fn next(&mut self, bare: bool) -> Option<Answer> {
        loop {
            if let Some(answer) = self.whole(bare) {
                return Some(answer);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Does the other side close, and say nothing more?
    pub async fn closed(&mut self) -> bool {
        self.read.is_empty() && !self.more().await
    }

    async fn more(&mut self) -> bool {
        let mut buffer = vec![0; 16 * 1024];
        match timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("an answer or the end") {
            Ok(n) if n > 0 => {
                self.read.extend_from_slice(&buffer[..n]);
                true
            }
            _ => false,
        }
    }

    fn whole(&mut self, bare: bool) -> Option<Answer> {
        let end = self.read.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.read[..end - 4].to_vec()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        let length =
            if bare || status < 200 { 0 } else { answer.header("content-length").map_or(0, |n| n.parse().unwrap()) };
        let body = self.read.get(end..end + length)?;
        answer.body = String::from_utf8(body.to_vec()).unwrap();
        self.read.drain(..end + length);
        Some(answer)
    }
}
