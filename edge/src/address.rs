//! By which address a client reaches this edge or another one: what the operator said (`edge.url`), else the way on
//! which the client came. Pure.
//!
//! The address of a listener is none of these: `0.0.0.0` is no place to go to, and `127.0.0.1` is another machine for
//! every client.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Uri, header, uri::Authority};
use natterjack_protocol::{client::address::Reach, internal::kv::EdgeInfo};

/// Believed from trusted proxies only; each one that passes it on adds to the end.
const HOST: &str = "x-forwarded-host";
const SCHEME: &str = "x-forwarded-proto";

/// What a request says of the address by which its client came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Came {
    /// With its port, if one was named; none: there is no host in the request that somebody could be sent to.
    host: Option<Box<str>>,
    secure: bool,
    /// Through a proxy of ours, which chooses the edge.
    proxied: bool,
}

impl Came {
    /// `tls`: this edge speaks TLS itself.
    pub fn of(uri: &Uri, headers: &HeaderMap, tls: bool, proxied: bool) -> Self {
        let forwarded = |name: &str| {
            headers.get(name).filter(|_| proxied).and_then(|v| v.to_str().ok()?.split(',').next()).map(str::trim)
        };
        let own = || uri.authority().map(Authority::as_str).or_else(|| headers.get(header::HOST)?.to_str().ok());
        let host = forwarded(HOST).or_else(own).filter(|host| is_place(host));
        let secure =
            forwarded(SCHEME).map_or(tls, |s| s.eq_ignore_ascii_case("https") || s.eq_ignore_ascii_case("wss"));
        Self { host: host.map(Into::into), secure, proxied }
    }

    fn url(&self) -> Option<String> {
        Some(url(self.secure, self.host.as_deref()?))
    }

    fn reach(&self) -> Reach {
        self.authority().and_then(|a| Reach::of_host(a.host())).unwrap_or(Reach::Wide)
    }

    fn authority(&self) -> Option<Authority> {
        self.host.as_deref()?.parse().ok()
    }
}

fn is_place(host: &str) -> bool {
    let good = |a: Authority| !a.as_str().contains('@') && Reach::of_host(a.host()).is_some_and(|r| r > Reach::Nowhere);
    host.parse::<Authority>().is_ok_and(good)
}

fn url(secure: bool, host: &str) -> String {
    format!("{}://{host}", if secure { "wss" } else { "ws" })
}

/// What this edge says of itself to the others, before it has anything to say of its state.
pub fn lease(url: Option<String>, listen: SocketAddr, tls: bool, machine: String, incarnation: &str) -> EdgeInfo {
    let incarnation = incarnation.into();
    EdgeInfo {
        url,
        listen,
        tls,
        machine,
        incarnation,
        started: 0,
        sessions: 0,
        draining: false,
        healthy: false,
        sessions_in: Vec::new(),
        unheeded: None,
    }
}

/// Where a client that came so finds this edge again. None: nowhere that is known.
pub fn own(here: &EdgeInfo, came: &Came) -> Option<String> {
    here.url.clone().or_else(|| came.url()).or_else(|| listens(here, came))
}

/// Where a client that came so to the edge `here` finds another one.
pub fn other(there: &EdgeInfo, here: &EdgeInfo, came: &Came) -> Option<String> {
    if there.url.is_some() {
        return there.url.clone();
    }
    // It leads to all of them by the one address, which `own` says.
    if came.proxied {
        return None;
    }
    listens(there, came).or_else(|| beside(there, here, came))
}

/// The address of its listener, if it is one, and no closer to its machine than the one by which the client came.
fn listens(there: &EdgeInfo, came: &Came) -> Option<String> {
    let reach = Reach::of(there.listen.ip());
    (reach > Reach::Nowhere && reach >= came.reach()).then(|| url(there.tls, &there.listen.to_string()))
}

/// It listens on every address of the machine that we are on, so also on the one by which the client came: if that is
/// ours, and not something in front that brings its port here.
fn beside(there: &EdgeInfo, here: &EdgeInfo, came: &Came) -> Option<String> {
    let authority = came.authority()?;
    let direct = authority.port_u16() == Some(here.listen.port()) && there.machine == here.machine;
    let reached = Reach::of(there.listen.ip()) == Reach::Nowhere && spoken(there.listen.ip(), &authority);
    (direct && reached).then(|| url(there.tls, &format!("{}:{}", authority.host(), there.listen.port())))
}

/// `::` takes IPv4 too, `0.0.0.0` takes nothing else.
fn spoken(listen: IpAddr, authority: &Authority) -> bool {
    listen.is_ipv6() || !authority.host().starts_with('[')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(host: &str, more: &[(&'static str, &str)], tls: bool, proxied: bool) -> Came {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        more.iter().for_each(|(name, value)| drop(headers.insert(*name, value.parse().unwrap())));
        Came::of(&Uri::from_static("/"), &headers, tls, proxied)
    }

    fn edge(listen: &str, machine: &str) -> EdgeInfo {
        lease(None, listen.parse().unwrap(), false, machine.into(), "i")
    }

    fn named(url: &str) -> EdgeInfo {
        EdgeInfo { url: Some(url.into()), ..edge("0.0.0.0:8080", "m") }
    }

    #[test]
    fn the_operators_word_first_then_the_way_on_which_the_client_came() {
        let here = edge("0.0.0.0:8080", "m");
        for (host, url) in [
            ("192.168.1.5:8080", Some("ws://192.168.1.5:8080")),
            ("laptop.local:8080", Some("ws://laptop.local:8080")),
            ("[fd00::5]:8080", Some("ws://[fd00::5]:8080")),
            ("chat.example.org", Some("ws://chat.example.org")),
            ("127.0.0.1:8080", Some("ws://127.0.0.1:8080")),
            ("0.0.0.0:8080", None),
            ("[::]:8080", None),
            ("0:8080", None),
            ("me@h", None),
        ] {
            assert_eq!(own(&here, &came(host, &[], false, false)).as_deref(), url, "{host}");
            assert_eq!(
                own(&named("wss://chat"), &came(host, &[], false, false)).as_deref(),
                Some("wss://chat"),
                "{host}"
            );
        }
        assert_eq!(
            own(&here, &came("h:1", &[], true, false)).as_deref(),
            Some("wss://h:1"),
            "with a certificate of its own"
        );
        assert_eq!(own(&here, &Came::default()), None, "HTTP/1.0 without a host");
        let fixed = edge("10.0.0.1:8080", "m");
        assert_eq!(own(&fixed, &came("0.0.0.0:8080", &[], false, false)).as_deref(), Some("ws://10.0.0.1:8080"));
        let absolute = Came::of(&Uri::from_static("http://a:1/x"), &HeaderMap::new(), false, false);
        assert_eq!(own(&here, &absolute).as_deref(), Some("ws://a:1"));
    }

    #[test]
    fn what_a_proxy_says_counts_if_it_is_one_of_ours() {
        let here = edge("0.0.0.0:8080", "m");
        let said = [(HOST, "chat.example.org, 10.0.0.1:8080"), (SCHEME, "https")];
        assert_eq!(own(&here, &came("natterjack", &said, false, true)).as_deref(), Some("wss://chat.example.org"));
        assert_eq!(
            own(&here, &came("natterjack", &said, false, false)).as_deref(),
            Some("ws://natterjack"),
            "anybody may send these"
        );
        assert_eq!(own(&here, &came("chat", &[(SCHEME, "HTTPS")], false, true)).as_deref(), Some("wss://chat"));
        assert_eq!(own(&here, &came("chat", &[(SCHEME, "http")], true, true)).as_deref(), Some("ws://chat"));
        assert_eq!(own(&here, &came("chat", &[(HOST, "0.0.0.0")], false, true)), None);
        let all = [edge("10.0.0.2:8080", "n"), edge("0.0.0.0:8081", "m")];
        assert!(
            all.iter().all(|there| other(there, &here, &came("chat", &said, false, true)).is_none()),
            "the proxy leads there"
        );
        assert_eq!(other(&named("wss://e2"), &here, &came("chat", &said, false, true)).as_deref(), Some("wss://e2"));
    }

    #[test]
    fn another_edge_is_where_the_client_can_reach_it() {
        let here = edge("0.0.0.0:8080", "m");
        let v6 = edge("[::]:8081", "m");
        for (there, host, url) in [
            (edge("0.0.0.0:8081", "m"), "192.168.1.5:8080", Some("ws://192.168.1.5:8081")),
            (edge("0.0.0.0:8081", "m"), "[fd00::5]:8080", None),
            (v6.clone(), "[fd00::5]:8080", Some("ws://[fd00::5]:8081")),
            (v6, "192.168.1.5:8080", Some("ws://192.168.1.5:8081")),
            (edge("0.0.0.0:8081", "m"), "127.0.0.1:8080", Some("ws://127.0.0.1:8081")),
            (edge("0.0.0.0:8081", "m"), "192.168.1.5:80", None),
            (edge("0.0.0.0:8081", "m"), "192.168.1.5", None),
            (edge("0.0.0.0:8081", "n"), "192.168.1.5:8080", None),
            (edge("10.0.0.2:8080", "n"), "192.168.1.5:8080", Some("ws://10.0.0.2:8080")),
            (edge("127.0.0.1:8081", "m"), "192.168.1.5:8080", None),
            (edge("127.0.0.1:8081", "m"), "chat.example.org", None),
            (edge("127.0.0.1:8081", "m"), "127.0.0.1:8080", Some("ws://127.0.0.1:8081")),
            (edge("127.0.0.1:8081", "m"), "localhost:8080", Some("ws://127.0.0.1:8081")),
            (edge("169.254.1.1:8081", "m"), "10.0.0.1:8080", None),
            (edge("[fe80::1]:8081", "m"), "[fe80::2]:8080", Some("ws://[fe80::1]:8081")),
        ] {
            assert_eq!(other(&there, &here, &came(host, &[], false, false)).as_deref(), url, "{there:?} {host}");
        }
    }

    #[test]
    fn nobody_is_ever_sent_to_no_address() {
        let hosts = [
            "0.0.0.0:8080",
            "[::]:8080",
            "[::ffff:0.0.0.0]:8080",
            "0.0.0.1",
            "0x0:8080",
            "00.0:8080",
            "h:8080",
            "127.0.0.1:8080",
        ];
        for (here, there) in
            [("0.0.0.0:8080", "0.0.0.0:8081"), ("[::]:8080", "[::]:8081"), ("0.0.0.0:8080", "[::]:8081")]
        {
            let (here, there) = (edge(here, "m"), edge(there, "m"));
            for host in hosts {
                for proxied in [false, true] {
                    let came = came(host, &[], false, proxied);
                    for url in [own(&here, &came), other(&there, &here, &came)].into_iter().flatten() {
                        assert!(url.starts_with("ws://h:") || url.starts_with("ws://127.0.0.1:"), "{host}: {url}");
                    }
                }
            }
        }
    }
}
