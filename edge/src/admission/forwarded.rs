//! A proxy that nobody has named: whoever comes through it counts as the proxy, and a proxy on this machine is exempt
//! from every limit. It shows by what it says of its clients, which is not believed. Said once, and kept for
//! `natterjack doctor`.

use std::net::IpAddr;

use http::HeaderMap;
use natterjack_runtime::networks::is_near;
use parking_lot::Mutex;

use super::client_address;

/// By what a proxy says for whom it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Header(&'static str),
    /// The PROXY protocol, in front of everything else.
    Preface,
}

const HEADERS: [&str; 3] = [client_address::HEADER, "forwarded", "x-real-ip"];
const PREFACES: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
/// The longest of them.
pub const PREFACE: usize = 12;

/// What of a request's head is not heeded. `trusted`: `X-Forwarded-For` is believed, and if it is there, nothing else
/// is missed.
pub fn header(headers: &HeaderMap, trusted: bool) -> Option<Sign> {
    if trusted && headers.contains_key(client_address::HEADER) {
        return None;
    }
    HEADERS.into_iter().find(|name| headers.contains_key(*name)).map(Sign::Header)
}

/// Do the first bytes of a connection begin so?
pub fn preface(first: &[u8]) -> Option<Sign> {
    PREFACES.iter().any(|p| first.starts_with(p)).then_some(Sign::Preface)
}

impl std::fmt::Display for Sign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "the header `{name}`"),
            Self::Preface => f.write_str("the PROXY protocol"),
        }
    }
}

/// The first peers that were not heeded: one that is near, probably somebody's own proxy, and one from far away, who
/// may have made it up. The one does not hide the other.
#[derive(Default)]
pub struct Unheeded(Mutex<[Option<IpAddr>; 2]>);

impl Unheeded {
    pub fn note(&self, peer: IpAddr, sign: Sign, exempt: bool) {
        let near = exempt || is_near(peer);
        metrics::counter!(crate::metrics::UNTRUSTED_FORWARDED, "peer" => if near { "near" } else { "far" })
            .increment(1);
        let first = self.0.lock()[usize::from(!near)].replace(peer).is_none();
        if first {
            let counts = if exempt { "is exempt from every limit of an address" } else { "counts as this one address" };
            tracing::warn!(
                %peer,
                "{peer} says by {sign} for whom it speaks, which is not heeded: everybody who comes through it \
                 {counts}. If it is a proxy of yours, name it in limits.trusted_proxies and let it set \
                 `X-Forwarded-For`; if not, somebody has made that up. Said once"
            );
        }
    }

    /// A near one if there is one.
    pub fn peer(&self) -> Option<IpAddr> {
        let [near, far] = *self.0.lock();
        near.or(far)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(names: &[&'static str]) -> HeaderMap {
        names.iter().map(|n| (http::HeaderName::from_static(n), HeaderValue::from_static("203.0.113.9"))).collect()
    }

    #[test]
    fn what_is_not_heeded() {
        for name in HEADERS {
            assert_eq!(header(&headers(&["host", name]), false), Some(Sign::Header(name)));
        }
        assert_eq!((header(&headers(&["host"]), false), header(&headers(&["host"]), true)), (None, None));
        assert_eq!(header(&headers(&["x-forwarded-for", "forwarded"]), true), None);
        assert_eq!(
            header(&headers(&["forwarded"]), true),
            Some(Sign::Header("forwarded")),
            "the other header is the one that is read"
        );
    }

    #[test]
    fn the_proxy_protocol_is_known_by_its_first_bytes() {
        for first in [
            &b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"[..],
            b"PROXY UNKNOWN\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
        ] {
            assert_eq!(preface(first), Some(Sign::Preface));
        }
        for first in [&b"POST / HTTP/1.1\r\n"[..], b"PROXY", b"\r\n\r\nGET / HTTP/1.1", b"\x16\x03\x01", b""] {
            assert_eq!(preface(first), None);
        }
    }

    #[test]
    fn a_stranger_from_far_away_does_not_hide_the_proxy_next_door() {
        let (seen, at) = (Unheeded::default(), |s: &str| s.parse::<IpAddr>().unwrap());
        assert_eq!(seen.peer(), None);
        for (peer, exempt, then) in [
            ("203.0.113.9", false, "203.0.113.9"),
            ("203.0.113.10", false, "203.0.113.10"),
            ("10.1.2.3", false, "10.1.2.3"),
            ("203.0.113.9", false, "10.1.2.3"),
            ("127.0.0.1", true, "127.0.0.1"),
        ] {
            seen.note(at(peer), Sign::Preface, exempt);
            assert_eq!(seen.peer(), Some(at(then)), "{peer}");
        }
    }
}
