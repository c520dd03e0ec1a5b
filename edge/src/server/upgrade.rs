//! Before step 2: whether a request may turn its connection into a WebSocket, as any request of a connection may. Pure.
//!
//! A refusal here is the same typed JSON as everywhere, because a client that cannot open a socket has nothing but
//! this answer to go by.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Method, header};
use natterjack_protocol::codec::Codec;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::head::{Length, RequestHead, has, list};
use crate::http::{WEBSOCKET_PATH, refused::Refused};

#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    pub codec: Codec,
    /// For `Sec-WebSocket-Accept`.
    accept: String,
}

/// Does it want the WebSocket?
pub fn wanted(asked: &RequestHead) -> bool {
    asked.method == Method::GET && asked.uri.path() == WEBSOCKET_PATH
}

/// Of a request that wants it.
pub fn judge(asked: &RequestHead) -> Result<Upgrade, Refused> {
    let (headers, refused) = (&asked.headers, |why: &str| Err(Refused::bad_request(why)));
    if asked.old {
        return refused("the WebSocket needs HTTP/1.1, this is HTTP/1.0; in nginx: `proxy_http_version 1.1`");
    }
    if !has(headers, header::UPGRADE, "websocket") || !has(headers, header::CONNECTION, "upgrade") {
        return refused(
            "this is the WebSocket: the headers `Upgrade: websocket` and `Connection: Upgrade` are missing",
        );
    }
    if asked.length != Length::Known(0) {
        return refused("a request for the WebSocket has no body");
    }
    if !has(headers, header::SEC_WEBSOCKET_VERSION, "13") {
        return refused("only WebSocket version 13 is spoken: `Sec-WebSocket-Version: 13`");
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) => {
            Some(key.as_bytes().trim_ascii()).filter(|k| STANDARD.decode(k).is_ok_and(|k| k.len() == 16))
        }
        _ => None,
    };
    let Some(key) = key else {
        return refused("`Sec-WebSocket-Key` is missing, is not 16 bytes in base64, or stands there twice");
    };
    // The first the client offers that is known here: a client lists what it likes best first.
    match list(headers, header::SEC_WEBSOCKET_PROTOCOL).find_map(Codec::of_subprotocol) {
        Some(codec) => Ok(Upgrade { codec, accept: derive_accept_key(key) }),
        None => refused(
            "no known subprotocol is offered: `Sec-WebSocket-Protocol: natterjack.v1.msgpack` or `natterjack.v1.json`",
        ),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::head::{self, ParsedHead};

    const GOOD: &str = "GET /v1/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, natterjack.v1.json, natterjack.v1.msgpack\r\n\r\n";

    fn without(header: &str) -> String {
        GOOD.split_inclusive("\r\n").filter(|l| !l.starts_with(header)).collect()
    }

    fn asked(text: &str) -> RequestHead {
        match head::parse(text.as_bytes()) {
            ParsedHead::Request(asked) => *asked,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_upgrade_picks_the_first_known_subprotocol() {
        let up = judge(&asked(GOOD)).unwrap();
        assert_eq!(up.codec, Codec::Json);
        // The key and its answer are the example of RFC 6455.
        assert!(up.switching().contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(up.switching().contains("Sec-WebSocket-Protocol: natterjack.v1.json\r\n"));
        assert!(!up.switching().to_ascii_lowercase().contains("extensions"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, word) in [
            (without("Upgrade:"), "Upgrade: websocket"),
            (without("Connection"), "Connection: Upgrade"),
            (without("Sec-WebSocket-Version"), "13"),
            (without("Sec-WebSocket-Key"), "Sec-WebSocket-Key"),
            (without("Sec-WebSocket-Protocol"), "natterjack.v1.msgpack"),
            (GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!!=="), "Sec-WebSocket-Key"),
            (
                GOOD.replace("Host: h\r\n", "Host: h\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
                "Sec-WebSocket-Key",
            ),
            (GOOD.replace("HTTP/1.1", "HTTP/1.0"), "HTTP/1.1"),
            (GOOD.replace("Host: h\r\n", "Host: h\r\nContent-Length: 3\r\n"), "body"),
            (GOOD.replace("Host: h\r\n", "Host: h\r\nTransfer-Encoding: chunked\r\n"), "body"),
        ] {
            let refused = judge(&asked(&text)).unwrap_err();
            assert!(refused.0.as_u16() == 400 && refused.1.message.contains(word), "{word}: {refused:?}");
        }
    }

    #[test]
    fn only_a_get_of_that_path_wants_it() {
        assert!(wanted(&asked(GOOD)) && wanted(&asked(&GOOD.replace("/v1/ws", "http://h/v1/ws?x=1"))));
        assert!(
            !wanted(&asked(&GOOD.replace("/v1/ws", "/v1/threads"))) && !wanted(&asked(&GOOD.replace("GET", "POST")))
        );
    }
}
