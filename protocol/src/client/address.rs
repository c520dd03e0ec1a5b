//! From how far an address is reached, and whether who is at one may go on to another. Pure; a name is judged as a
//! name, and again by the addresses that it leads to, by whoever dials.

use std::net::{IpAddr, Ipv4Addr};

/// The larger, the farther it is reached from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// `0.0.0.0`, `::`: something to listen on, and no place to go to.
    Nowhere,
    /// From the same machine alone, which is another one for everybody.
    Loopback,
    /// From the same cable or radio alone.
    Link,
    /// Everything else: a private network is told from the internet by nothing that a client can see.
    Wide,
}

impl Reach {
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            ip if ip.is_unspecified() => Self::Nowhere,
            ip if ip.is_loopback() => Self::Loopback,
            // 0.0.0.0/8 is "this host" (RFC 1122), and some systems take it so.
            IpAddr::V4(ip) if ip.octets()[0] == 0 => Self::Nowhere,
            IpAddr::V4(ip) if ip.is_link_local() => Self::Link,
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Self::Link,
            // `::127.0.0.1`, and the same behind the prefix of NAT64.
            IpAddr::V6(ip) => match ip.segments() {
                [0, 0, 0, 0, 0, 0, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => Self::of(v4(a, b).into()),
                _ => Self::Wide,
            },
            IpAddr::V4(_) => Self::Wide,
        }
    }

    /// A host as it stands in a URL or in the header `Host`, without a port. None: no host at all, or a number that not
    /// everybody reads alike.
    pub fn of_host(host: &str) -> Option<Self> {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Some(Self::of(ip));
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let last = name.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x").is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
        if last.is_empty() || hex || last.bytes().all(|b| b.is_ascii_digit()) || name.contains([':', '[', ']', '%']) {
            return None;
        }
        Some(if last == "localhost" { Self::Loopback } else { Self::Wide })
    }
}

fn v4(a: u16, b: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(a) << 16 | u32::from(b))
}

/// An edge as its URL says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeAddress {
    pub reach: Reach,
    /// `wss://`.
    pub secure: bool,
}

impl EdgeAddress {
    /// Never to what is nowhere, never closer to the own machine, never out of TLS: a list from the network would hand
    /// the token to whoever listens there.
    pub fn may_follow(self, to: EdgeAddress) -> bool {
        to.reach > Reach::Nowhere && to.reach >= self.reach && (to.secure || !self.secure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_all_their_spellings() {
        for (host, reach) in [
            ("0.0.0.0", Some(Reach::Nowhere)),
            ("0.0.0.1", Some(Reach::Nowhere)),
            ("[::]", Some(Reach::Nowhere)),
            ("[::ffff:0.0.0.0]", Some(Reach::Nowhere)),
            ("127.0.0.1", Some(Reach::Loopback)),
            ("127.9.8.7", Some(Reach::Loopback)),
            ("[::1]", Some(Reach::Loopback)),
            ("[::ffff:127.0.0.1]", Some(Reach::Loopback)),
            ("[::127.0.0.1]", Some(Reach::Loopback)),
            ("[64:ff9b::7f00:1]", Some(Reach::Loopback)),
            ("localhost", Some(Reach::Loopback)),
            ("LocalHost.", Some(Reach::Loopback)),
            ("chat.localhost", Some(Reach::Loopback)),
            ("169.254.169.254", Some(Reach::Link)),
            ("[fe80::1]", Some(Reach::Link)),
            ("[febf::1]", Some(Reach::Link)),
            ("192.168.1.5", Some(Reach::Wide)),
            ("10.0.0.1", Some(Reach::Wide)),
            ("[fd00::1]", Some(Reach::Wide)),
            ("203.0.113.9", Some(Reach::Wide)),
            ("chat.example.org", Some(Reach::Wide)),
            ("4f2a9c", Some(Reach::Wide)),
            ("localhost.example.org", Some(Reach::Wide)),
            ("127.1", None),
            ("2130706433", None),
            ("0x7f000001", None),
            ("0x7f.1", None),
            ("127.0.0.01", None),
            ("1.2.3.4.5", None),
            ("", None),
            (".", None),
            ("[fe80::1%eth0]", None),
        ] {
            assert_eq!(Reach::of_host(host), reach, "{host}");
        }
    }

    #[test]
    fn who_may_follow_where() {
        use Reach::{Link, Loopback, Nowhere, Wide};
        let all = [Nowhere, Loopback, Link, Wide];
        for from in all {
            for to in all {
                let may =
                    |a, b| EdgeAddress { reach: from, secure: a }.may_follow(EdgeAddress { reach: to, secure: b });
                let closer = matches!((from, to), (_, Nowhere) | (Link | Wide, Loopback) | (Wide, Link));
                assert_eq!(may(false, false), !closer, "{from:?} {to:?}");
                assert_eq!(may(false, true), !closer, "{from:?} {to:?}");
                assert_eq!(may(true, true), !closer, "{from:?} {to:?}");
                assert!(!may(true, false), "{from:?} {to:?}");
            }
        }
    }
}
