//! Before step 2: the head of one HTTP request. Pure: bytes in, decision out; `connection` does the reading.
//!
//! Strict where two readers could understand it differently, because a proxy in front is the other reader: what it
//! took for one request must not be two here.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, uri::Authority};
use natterjack_protocol::limits;

use crate::http::refused::Refused;

/// What the bytes read so far are.
#[derive(Debug)]
pub enum ParsedHead {
    /// Read on.
    Partial,
    Request(Box<RequestHead>),
    /// Not HTTP, or not to be understood in one way only: answer this and close.
    Broken(Refused),
}

#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    /// HTTP/1.0.
    pub old: bool,
    pub length: Length,
    /// May another request follow?
    pub keep: bool,
    /// The body comes only after `100 Continue`.
    pub waits: bool,
    /// Where the head ends.
    pub end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    Known(u64),
    Chunked,
}

const HEADERS: usize = 64;

/// Decides on a head of at most `limits::HEAD_BYTES`.
pub fn parse(bytes: &[u8]) -> ParsedHead {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let broken = |why: String| ParsedHead::Broken(Refused::bad_request(why));
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => match asked(&request, end) {
            Ok(asked) => ParsedHead::Request(Box::new(asked)),
            Err(refused) => ParsedHead::Broken(refused),
        },
        Ok(httparse::Status::Partial) if bytes.len() >= limits::HEAD_BYTES => {
            broken(format!("the request's head is longer than {} bytes", limits::HEAD_BYTES))
        }
        Ok(httparse::Status::Partial) => ParsedHead::Partial,
        Err(httparse::Error::TooManyHeaders) => broken(format!("the request has more than {HEADERS} headers")),
        Err(e) => broken(format!("this is not an HTTP/1.1 request: {e}")),
    }
}

fn asked(request: &httparse::Request<'_, '_>, end: usize) -> Result<RequestHead, Refused> {
    let bad = |why: &str| Refused::bad_request(why);
    let method = request.method.and_then(|m| m.parse::<Method>().ok()).ok_or_else(|| bad("the method is none"))?;
    let uri =
        request.path.and_then(|p| p.parse::<Uri>().ok()).ok_or_else(|| bad("the request's target is not a URI"))?;
    let reachable = uri.path().starts_with('/') || (method == Method::OPTIONS && uri.path() == "*");
    if !reachable || method == Method::CONNECT {
        return Err(bad("the request's target must be a path: this is no proxy"));
    }
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for h in request.headers.iter() {
        let name = HeaderName::from_bytes(h.name.as_bytes()).map_err(|_| bad("the name of a header is none"))?;
        let value = HeaderValue::from_bytes(h.value)
            .map_err(|_| Refused::bad_request(format!("header {name}: not a value")))?;
        headers.append(name, value);
    }
    let old = request.version == Some(0);
    host(&headers, old)?;
    let length = length(&headers, old)?;
    let keep = !has(&headers, header::CONNECTION, "close") && (!old || has(&headers, header::CONNECTION, "keep-alive"));
    let waits = match headers.get(header::EXPECT) {
        None => false,
        Some(v) if v.as_bytes().eq_ignore_ascii_case(b"100-continue") => !old,
        Some(_) => return Err(Refused::invalid(StatusCode::EXPECTATION_FAILED, "`Expect` can only be 100-continue")),
    };
    Ok(RequestHead { method, uri, headers, old, length, keep, waits, end })
}

/// RFC 9112 §3.2. HTTP/1.0 (health checks of balancers) may leave it out.
fn host(headers: &HeaderMap, old: bool) -> Result<(), Refused> {
    let mut all = headers.get_all(header::HOST).iter();
    match (all.next(), all.next()) {
        (None, _) if old => Ok(()),
        (None, _) => Err(Refused::bad_request("the header `Host` is missing")),
        (Some(_), Some(_)) => Err(Refused::bad_request("the header `Host` stands there twice")),
        (Some(host), None) => {
            let good = host.to_str().is_ok_and(|h| !h.contains(['@', ',']) && h.parse::<Authority>().is_ok());
            if good { Ok(()) } else { Err(Refused::bad_request("the header `Host` names no host")) }
        }
    }
}

/// RFC 9112 §6.3, without what it lets a server guess.
fn length(headers: &HeaderMap, old: bool) -> Result<Length, Refused> {
    let (mut codings, mut lengths) =
        (headers.get_all(header::TRANSFER_ENCODING).iter(), headers.get_all(header::CONTENT_LENGTH).iter());
    match ((codings.next(), codings.next()), (lengths.next(), lengths.next())) {
        ((None, _), (None, _)) => Ok(Length::Known(0)),
        ((None, _), (Some(n), None)) => {
            let digits = n.to_str().ok().filter(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()));
            let digits = digits.ok_or_else(|| Refused::bad_request("`Content-Length` is not a number"))?;
            // Digits that do not fit are too many bytes all the same.
            Ok(Length::Known(digits.parse().unwrap_or(u64::MAX)))
        }
        ((None, _), (Some(_), Some(_))) => Err(Refused::bad_request("`Content-Length` stands there twice")),
        ((Some(_), _), (Some(_), _)) => {
            Err(Refused::bad_request("`Content-Length` and `Transfer-Encoding` exclude each other"))
        }
        ((Some(_), _), _) if old => Err(Refused::bad_request("HTTP/1.0 has no `Transfer-Encoding`")),
        ((Some(c), None), _) if c.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(Length::Chunked),
        _ => Err(Refused::invalid(StatusCode::NOT_IMPLEMENTED, "the only `Transfer-Encoding` known here is chunked")),
    }
}

/// Is this token in the header, which may be a list and come several times?
pub fn has(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    list(headers, name).any(|t| t.eq_ignore_ascii_case(token))
}

pub fn list(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn good(text: &str) -> RequestHead {
        match parse(text.as_bytes()) {
            ParsedHead::Request(asked) => *asked,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn status(text: &str) -> u16 {
        match parse(text.as_bytes()) {
            ParsedHead::Broken(Refused(status, _)) => status.as_u16(),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn every_half_of_a_head_is_partial() {
        let text = "POST /v1/login?x=1 HTTP/1.1\r\nHost: h:80\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
        for cut in 0..text.len() {
            assert!(matches!(parse(&text.as_bytes()[..cut]), ParsedHead::Partial), "{cut}");
        }
        let asked = good(&format!("{text}12345"));
        assert_eq!(
            (asked.end, asked.length, asked.keep, asked.waits, asked.uri.path()),
            (text.len(), Length::Known(5), true, true, "/v1/login")
        );
    }

    #[test]
    fn whether_another_request_may_follow() {
        let keeps = |version: &str, connection: &str| {
            good(&format!("GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n")).keep
        };
        assert!(
            keeps("1.1", "") && keeps("1.1", "Connection: keep-alive\r\n") && !keeps("1.1", "Connection: Close\r\n")
        );
        assert!(!keeps("1.0", "") && keeps("1.0", "Connection: x, Keep-Alive\r\n"));
        assert!(!keeps("1.1", "Connection: keep-alive, close\r\n"));
    }

    #[test]
    fn a_request_names_one_host() {
        assert!(good("OPTIONS * HTTP/1.0\r\n\r\n").old, "health checks leave it out");
        for host in ["Host: h", "Host: [::1]:8080", "host:192.0.2.1", "Host: a_b.example:1"] {
            good(&format!("GET http://h/x HTTP/1.1\r\n{host}\r\n\r\n"));
        }
        for host in
            ["X: y", "Host:", "Host: ", "Host: a\r\nHost: a", "Host: a b", "Host: me@h", "Host: h/x", "Host: a,b"]
        {
            assert_eq!(status(&format!("GET / HTTP/1.1\r\n{host}\r\n\r\n")), 400, "{host}");
        }
    }

    #[test]
    fn a_body_ends_in_one_place_only() {
        let length = |h: &str| good(&format!("POST / HTTP/1.1\r\nHost: h\r\n{h}\r\n\r\n")).length;
        assert_eq!(length("Content-Length: 0"), Length::Known(0));
        assert_eq!(length("Transfer-Encoding: Chunked"), Length::Chunked);
        assert_eq!(length("Content-Length: 99999999999999999999999"), Length::Known(u64::MAX));
        for (headers, code) in [
            ("Content-Length: 5\r\nContent-Length: 5", 400),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
            ("Content-Length: +5", 400),
            ("Content-Length: 5, 5", 400),
            ("Content-Length:", 400),
            ("Content-Length: -1", 400),
            ("Content-Length : 5", 400),
            ("Transfer-Encoding: gzip, chunked", 501),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 501),
            ("Transfer-Encoding: chunked, identity", 501),
            ("Transfer-Encoding: \"chunked\"", 501),
            ("Expect: something", 417),
        ] {
            assert_eq!(status(&format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n")), code, "{headers}");
        }
        assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    }

    #[test]
    fn nonsense_and_endless_heads_are_broken() {
        for text in [
            "\x16\x03\x01\x02\x00 hello, I am TLS\r\n\r\n",
            "GET /v1/edges\r\n\r\n",
            "GET /v1/edges HTTP/2.0\r\nHost: h\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET x HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: h\r\n\r\n",
            "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n: empty\r\n\r\n",
        ] {
            assert_eq!(status(text), 400, "{text:?}");
        }
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(limits::HEAD_BYTES))), 400);
        let many: String = (0..100).map(|i| format!("X-{i}: 1\r\n")).collect();
        assert_eq!(status(&format!("GET / HTTP/1.1\r\n{many}\r\n")), 400);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>, at in 0usize..80, with: u8) {
            parse(&bytes);
            let mut bytes = b"POST /v1/login HTTP/1.1\r\nHost: h:80\r\nContent-Length: 5\r\nConnection: a, b\r\n\r\n".to_vec();
            let n = bytes.len();
            bytes[at % n] = with;
            parse(&bytes);
        }
    }
}
