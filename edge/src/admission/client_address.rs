//! Whose address counts: the peer's, or what proxies that are trusted say about it. Pure.

use std::net::{IpAddr, SocketAddr};

use natterjack_runtime::networks::plain;

/// Each proxy adds the address it was connected from.
pub const HEADER: &str = "x-forwarded-for";

/// `forwarded`: the values of `X-Forwarded-For` in the order of the headers; each proxy has added its peer at the end.
/// Read from the end as long as who wrote an entry is trusted: what stands further left anybody may have made up.
pub fn address<'a>(peer: IpAddr, forwarded: impl Iterator<Item = &'a str>, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = plain(peer);
    if !trusted(client) {
        return client;
    }
    let entries: Vec<&str> = forwarded.flat_map(|v| v.split(',')).collect();
    for entry in entries.into_iter().rev() {
        // Not readable: the last address that is known has to answer for it.
        let Some(next) = parse(entry.trim()) else { break };
        client = plain(next);
        if !trusted(client) {
            break;
        }
    }
    client
}

/// Some proxies write the port too.
fn parse(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|e| e.strip_suffix(']')).unwrap_or(entry);
    bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|a| a.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, forwarded: &[&str]) -> String {
        let trusted = |a: IpAddr| a.to_string().starts_with("10.");
        address(peer.parse().unwrap(), forwarded.iter().copied(), trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(of("192.0.2.1", &["203.0.113.9"]), "192.0.2.1", "anybody may send this header");
        assert_eq!(of("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(of("::ffff:10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_the_client_made_up_is_not() {
        assert_eq!(of("10.0.0.1", &["1.1.1.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(of("10.0.0.1", &["1.1.1.1", "203.0.113.9, 10.0.0.2"]), "203.0.113.9", "through two proxies of ours");
        assert_eq!(of("10.0.0.1", &["203.0.113.9, 10.0.0.3", "10.0.0.2"]), "203.0.113.9");
        assert_eq!(of("10.0.0.1", &["203.0.113.9, nonsense, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(of("10.0.0.1", &["10.0.0.7"]), "10.0.0.7", "all of them ours");
    }

    #[test]
    fn ports_and_brackets_are_taken() {
        assert_eq!(of("10.0.0.1", &["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(of("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(of("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(of("10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
    }
}
