//! Before step 2: what the head of a connection's first request asks for. Pure: bytes in, decision out; `accept` does the reading.
//!
//! `GET /v1/ws` with an upgrade becomes a session; everything else goes to hyper with its bytes. A refusal here is the same
//! typed JSON as everywhere, because a client that cannot open a socket has nothing but this answer to go by.

use natterjack_protocol::{Refusal, codec::Codec, limits};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub const PATH: &str = "/v1/ws";

/// What the bytes read so far are.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// Read on.
    Partial,
    /// For hyper, whatever it is.
    Http,
    Upgrade(Upgrade),
    /// It wants the WebSocket and cannot have it: answer this and close.
    Refused(Refusal),
    /// Not HTTP, or a head beyond the limit.
    Broken(Refusal),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    pub codec: Codec,
    /// For `Sec-WebSocket-Accept`.
    accept: String,
    /// Where the head ends; what follows is already WebSocket.
    pub end: usize,
}

const HEADERS: usize = 64;

/// Decides on a head of at most `limits::HEAD_BYTES`.
pub fn judge(bytes: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let end = match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) if bytes.len() >= limits::HEAD_BYTES => {
            return Head::Broken(Refusal::invalid(format!("the request's head is longer than {} bytes", limits::HEAD_BYTES)));
        }
        Ok(httparse::Status::Partial) => return Head::Partial,
        Err(httparse::Error::TooManyHeaders) => {
            return Head::Broken(Refusal::invalid(format!("the request has more than {HEADERS} headers")));
        }
        Err(_) => return Head::Broken(Refusal::invalid("this is not an HTTP/1.1 request")),
    };
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(p, _)| p);
    if path != PATH || request.method != Some("GET") {
        return Head::Http;
    }
    let header = |name| values(request.headers, name);
    let has = |name, token: &str| header(name).flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token));
    let refused = |why: &str| Head::Refused(Refusal::invalid(why));
    if !has("upgrade", "websocket") || !has("connection", "upgrade") {
        return refused("this is the WebSocket: the headers `Upgrade: websocket` and `Connection: Upgrade` are missing");
    }
    if !has("sec-websocket-version", "13") {
        return refused("only WebSocket version 13 is spoken: `Sec-WebSocket-Version: 13`");
    }
    let Some(key) = header("sec-websocket-key").next().map(str::trim).filter(|k| k.len() == 24 && k.is_ascii()) else {
        return refused("`Sec-WebSocket-Key` is missing or not 16 bytes in base64");
    };
    let accept = derive_accept_key(key.as_bytes());
    // The first the client offers that is known here: a client lists what it likes best first.
    match header("sec-websocket-protocol").flat_map(|v| v.split(',')).find_map(|p| Codec::of_subprotocol(p.trim())) {
        Some(codec) => Head::Upgrade(Upgrade { codec, accept, end }),
        None => refused("no known subprotocol is offered: `Sec-WebSocket-Protocol: natterjack.v1.msgpack` or `natterjack.v1.json`"),
    }
}

/// The values of `X-Forwarded-For` in a head that was read whole, in order.
pub fn forwarded(bytes: &[u8]) -> Vec<String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(_) => values(request.headers, crate::door::client::HEADER).map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    }
}

/// A header may come several times.
fn values<'a>(headers: &'a [httparse::Header<'a>], name: &'static str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).filter_map(|h| std::str::from_utf8(h.value).ok())
}

impl Upgrade {
    /// The head that turns the connection into a WebSocket. No extension is ever accepted: no compression, no bombs.
    pub fn switching(&self) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            self.accept,
            self.codec.subprotocol()
        )
    }
}

/// A whole answer for a connection that gets no further than this. `now_ms`: the log's clock, as on every answer.
pub fn refusal(status: u16, refusal: &Refusal, now_ms: u64) -> String {
    let body = serde_json::to_string(refusal).expect("a refusal is plain");
    let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error");
    let retry = refusal.retry_after_ms.map_or_else(String::new, |ms| format!("Retry-After: {}\r\n", ms.div_ceil(1_000)));
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nAccess-Control-Allow-Origin: *\r\nNatterjack-Now: {now_ms}\r\n{retry}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "GET /v1/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, natterjack.v1.json, natterjack.v1.msgpack\r\n\r\n";

    fn without(header: &str) -> String {
        GOOD.split_inclusive("\r\n").filter(|l| !l.starts_with(header)).collect()
    }

    #[test]
    fn a_good_upgrade_picks_the_first_known_subprotocol() {
        let with_frame = format!("{GOOD}frame");
        let Head::Upgrade(up) = judge(with_frame.as_bytes()) else { panic!("refused") };
        assert_eq!((up.codec, up.end), (Codec::Json, GOOD.len()));
        // The key and its answer are the example of RFC 6455.
        assert!(up.switching().contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(up.switching().contains("Sec-WebSocket-Protocol: natterjack.v1.json\r\n"));
        assert!(!up.switching().to_ascii_lowercase().contains("extensions"));
    }

    #[test]
    fn every_half_of_a_head_is_partial() {
        for cut in 0..GOOD.len() {
            assert_eq!(judge(&GOOD.as_bytes()[..cut]), Head::Partial, "{cut}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (header, word) in [
            ("Upgrade:", "Upgrade: websocket"),
            ("Connection", "Connection: Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "Sec-WebSocket-Key"),
            ("Sec-WebSocket-Protocol", "natterjack.v1.msgpack"),
        ] {
            match judge(without(header).as_bytes()) {
                Head::Refused(r) => assert!(r.message.contains(word), "{header}: {r}"),
                other => panic!("{header}: {other:?}"),
            }
        }
    }

    #[test]
    fn everything_else_is_for_hyper() {
        assert_eq!(judge(b"GET /v1/threads HTTP/1.1\r\nHost: h\r\n\r\n"), Head::Http);
        assert_eq!(judge(b"POST /v1/ws HTTP/1.1\r\nHost: h\r\n\r\n"), Head::Http);
        assert!(matches!(judge(b"GET /v1/ws?x=1 HTTP/1.1\r\nHost: h\r\n\r\n"), Head::Refused(_)));
    }

    #[test]
    fn who_a_proxy_speaks_for_stands_in_the_head() {
        let head = GOOD.replace("Host: h\r\n", "x-forwarded-for: 192.0.2.1\r\nHost: h\r\nX-Forwarded-For: 10.0.0.2\r\n");
        assert_eq!(forwarded(head.as_bytes()), ["192.0.2.1", "10.0.0.2"]);
        assert!(forwarded(GOOD.as_bytes()).is_empty() && forwarded(b"\x00").is_empty());
    }

    #[test]
    fn nonsense_and_endless_heads_are_broken() {
        assert!(matches!(judge(b"\x16\x03\x01\x02\x00 hello, I am TLS\r\n\r\n"), Head::Broken(_)));
        let endless = format!("GET /v1/ws HTTP/1.1\r\nX: {}", "a".repeat(limits::HEAD_BYTES));
        assert!(matches!(judge(endless.as_bytes()), Head::Broken(_)));
        let many: String = (0..100).map(|i| format!("X-{i}: 1\r\n")).collect();
        assert!(matches!(judge(format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes()), Head::Broken(_)));
    }

    #[test]
    fn a_refusal_is_a_whole_http_answer() {
        let text = refusal(503, &Refusal::unavailable("later"), 7);
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && text.contains("Retry-After: 1\r\n"));
        let body = text.split("\r\n\r\n").nth(1).unwrap();
        assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(serde_json::from_str::<Refusal>(body).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(mut bytes: Vec<u8>, at in 0usize..200, with: u8) {
            judge(&bytes);
            bytes = GOOD.as_bytes().to_vec();
            let n = bytes.len();
            bytes[at % n] = with;
            judge(&bytes);
        }
    }
}
