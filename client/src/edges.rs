//! Which edge next, and from when on (pure): a random one first, after a failure the one after it; learnt ones beside
//! those the app named. Where an edge may send us is `At::may_follow`: never out of TLS, never closer to this machine
//! than the edge itself is. What the app named is the app's own word.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Instant,
};

use natterjack_protocol::client::address::{EdgeAddress, Reach};
use reqwest::Url;

/// Edges kept at most; a list from the network must not grow without end.
const MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of an edge: write ws://host:port, or wss://host:port for TLS")]
pub struct BadEdge(pub String);

#[derive(Debug, Clone)]
pub(crate) struct Edges {
    named: Vec<String>,
    all: Vec<String>,
    at: usize,
    /// Those that said to stay away, and until when. An edge counts for itself, so it speaks for itself.
    barred: HashMap<String, Instant>,
}

impl Edges {
    /// `random` picks where to begin.
    pub fn new(named: &[String], random: usize) -> Result<Self, BadEdge> {
        let named: Vec<String> = named.iter().map(|e| normal(e)).collect::<Result<_, _>>()?;
        if named.is_empty() {
            return Err(BadEdge(String::new()));
        }
        Ok(Self { at: random % named.len(), all: named.clone(), named, barred: HashMap::new() })
    }

    pub fn current(&self) -> &str {
        &self.all[self.at % self.all.len()]
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The current one first, then the others in turn.
    pub fn in_turn(&self) -> Vec<String> {
        (0..self.all.len()).map(|i| self.all[(self.at + i) % self.all.len()].clone()).collect()
    }

    pub fn next(&mut self) {
        self.at = (self.at + 1) % self.all.len();
    }

    pub fn bar(&mut self, edge: &str, until: Instant) {
        let until = self.barred.get(edge).map_or(until, |u| until.max(*u));
        self.barred.insert(edge.to_owned(), until);
    }

    /// Goes on, if need be, to the first one from here that may be dialled; if none may, to the one that may first.
    /// From when on.
    pub fn choose(&mut self, now: Instant) -> Instant {
        let known = &self.all;
        self.barred.retain(|edge, until| *until > now && known.contains(edge));
        let turn = (0..self.all.len()).map(|i| (self.at + i) % self.all.len());
        let free = |i: &usize| self.barred.get(&self.all[*i]).copied().unwrap_or(now);
        // The first of equals.
        self.at = turn.min_by_key(free).unwrap_or(self.at);
        free(&self.at)
    }

    /// Takes one of `preferred` (a draining edge names who is left) if it is an edge and not the current one, else the
    /// next.
    pub fn leave_for(&mut self, preferred: &[String], random: usize) {
        let current = self.current().to_owned();
        let good: Vec<String> = usable(&current, preferred).filter(|e| *e != current).collect();
        match good.get(random % good.len().max(1)) {
            None => self.next(),
            Some(edge) => {
                self.add([edge.clone()]);
                self.at = self.all.iter().position(|e| e == edge).unwrap_or(self.at);
            }
        }
    }

    /// The list of `GET /v1/edges`, as `from` has it. Those that the app named stay: they are the way back when all
    /// else is gone.
    pub fn learn(&mut self, from: &str, edges: &[String]) {
        let current = self.current().to_owned();
        self.all = self.named.clone();
        self.add(usable(from, edges));
        if !self.all.contains(&current) {
            self.all.push(current.clone());
        }
        self.at = self.all.iter().position(|e| *e == current).unwrap_or(0);
    }

    fn add(&mut self, edges: impl IntoIterator<Item = String>) {
        for edge in edges {
            if !self.all.contains(&edge) && self.all.len() < MAX {
                self.all.push(edge);
            }
        }
    }

    /// Of the addresses that a host's name leads to, those that may be dialled. A learnt name that leads to this
    /// machine or its cable is no better than such an address: unless the app named it, only what is reached from as
    /// far as the name says.
    pub fn dialable(&self, host: &str) -> impl Fn(IpAddr) -> bool + use<> {
        let is = |edge: &String| {
            Url::parse(edge).is_ok_and(|u| u.host_str().is_some_and(|h| bare(h).eq_ignore_ascii_case(bare(host))))
        };
        let least =
            if self.named.iter().any(is) { Reach::Nowhere } else { Reach::of_host(host).unwrap_or(Reach::Wide) };
        move |ip| Reach::of(ip) >= least
    }
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// What an edge may send us to.
fn usable(from: &str, edges: &[String]) -> impl Iterator<Item = String> {
    let from = at(from);
    let mut seen = HashSet::new();
    edges
        .iter()
        .filter_map(|e| normal(e).ok())
        .filter(move |e| from.zip(at(e)).is_some_and(|(from, to)| from.may_follow(to)) && seen.insert(e.clone()))
}

/// None: no host that everybody reads alike.
fn at(edge: &str) -> Option<EdgeAddress> {
    let url = Url::parse(edge).ok()?;
    Some(EdgeAddress { reach: Reach::of_host(url.host_str()?)?, secure: url.scheme() == "wss" })
}

/// `ws://host:port` or `wss://host:port` without a path, one spelling for all of one; `http://` and `https://` mean the
/// same.
fn normal(edge: &str) -> Result<String, BadEdge> {
    let bad = || BadEdge(edge.to_owned());
    let text = edge.trim();
    let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("ws://{text}")) };
    let url = url.map_err(|_| bad())?;
    let scheme = match url.scheme() {
        "ws" | "http" => "ws",
        "wss" | "https" => "wss",
        _ => return Err(bad()),
    };
    let host = url.host_str().ok_or_else(bad)?;
    let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && !text.contains('@');
    if !plain {
        return Err(bad());
    }
    // `None`: the scheme's own, which ws and http share, as wss and https do.
    Ok(url.port().map_or_else(|| format!("{scheme}://{host}"), |port| format!("{scheme}://{host}:{port}")))
}

/// The HTTP side of the same listener.
pub(crate) fn http_base(edge: &str) -> String {
    edge.replacen("ws", "http", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(list: &[&str], random: usize) -> Edges {
        Edges::new(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), random).unwrap()
    }

    #[test]
    fn begins_anywhere_and_goes_round() {
        let mut e = edges(&["ws://a:1", "http://b:2/", "c:3"], 4);
        assert_eq!(e.in_turn(), ["ws://b:2", "ws://c:3", "ws://a:1"]);
        e.next();
        e.next();
        assert_eq!(e.current(), "ws://a:1");
    }

    #[test]
    fn what_is_learnt_is_added_and_what_was_named_stays() {
        let mut e = edges(&["ws://a:1"], 0);
        e.learn("ws://a:1", &["ws://b:2".into(), "ws://a:1".into(), "WS://B:2/".into(), "nonsense://x".into()]);
        assert_eq!(e.in_turn(), ["ws://a:1", "ws://b:2"]);
        e.next();
        e.learn("ws://a:1", &[]);
        assert_eq!(e.current(), "ws://b:2", "the one in use is kept until it is left");
        e.leave_for(&["ws://b:2".into(), "ws://c:3".into()], 9);
        assert_eq!(e.current(), "ws://c:3", "never back to the one that drains");
        e.leave_for(&[], 0);
        assert_ne!(e.current(), "ws://c:3");
    }

    #[test]
    fn an_edge_that_said_when_is_left_alone_until_then() {
        let (mut e, now) = (edges(&["ws://a:1", "ws://b:2"], 0), Instant::now());
        let at = |s| now + std::time::Duration::from_secs(s);
        assert_eq!((e.choose(now), e.current()), (now, "ws://a:1"));
        e.bar("ws://a:1", at(20));
        e.bar("ws://a:1", at(3));
        assert_eq!((e.choose(now), e.current()), (now, "ws://b:2"));
        e.bar("ws://b:2", at(10));
        e.next();
        assert_eq!((e.choose(now), e.current()), (at(10), "ws://b:2"), "the one that may be asked first");
        assert_eq!((e.choose(at(11)), e.current()), (at(11), "ws://b:2"));
        e.next();
        assert_eq!((e.choose(at(21)), e.current()), (at(21), "ws://a:1"));
        assert!(e.barred.is_empty());
    }

    #[test]
    fn who_named_edges_with_tls_learns_no_others() {
        let mut e = edges(&["wss://a:1", "https://b:2"], 0);
        assert_eq!(e.in_turn().iter().map(|e| http_base(e)).collect::<Vec<_>>(), ["https://a:1", "https://b:2"]);
        e.learn("wss://a:1", &["ws://evil:1".into(), "evil:1".into(), "wss://c:3".into()]);
        assert_eq!(e.in_turn(), ["wss://a:1", "wss://b:2", "wss://c:3"]);
        e.leave_for(&["ws://evil:1".into()], 0);
        assert_eq!(e.current(), "wss://b:2");
        let mut mixed = edges(&["ws://a:1", "wss://b:2"], 0);
        mixed.learn("wss://b:2", &["ws://c:3".into()]);
        assert_eq!(mixed.len(), 2, "whoever else was named");
        mixed.learn("ws://a:1", &["ws://c:3".into()]);
        assert_eq!(mixed.len(), 3);
    }

    #[test]
    fn an_address_is_checked() {
        for bad in [
            "",
            "wss://",
            "ws://a/b",
            "ftp://x",
            "ws://u@h",
            "wss://u@h",
            "ws://@h",
            "ws://h?x",
            "ws://h#x",
            "ws://a\\b",
            "ws://a b",
            "h:99999",
        ] {
            assert!(Edges::new(&[bad.to_owned()], 0).is_err(), "{bad}");
        }
        for (good, one) in [
            ("WS://Chat.Example.org:80/", "ws://chat.example.org"),
            ("https://h:443", "wss://h"),
            (" [::1]:8080 ", "ws://[::1]:8080"),
            ("ws://127.1:8080", "ws://127.0.0.1:8080"),
            ("localhost:8080", "ws://localhost:8080"),
        ] {
            assert_eq!(edges(&[good], 0).current(), one);
        }
        assert!(Edges::new(&[], 0).is_err());
    }

    /// Who sends us, to where, and whether we go.
    #[test]
    fn nobody_sends_us_to_our_own_machine() {
        for (from, to, goes) in [
            ("ws://192.168.1.5:8080", "ws://127.0.0.1:8081", false),
            ("ws://192.168.1.5:8080", "ws://localhost:8081", false),
            ("ws://192.168.1.5:8080", "ws://127.1:8081", false),
            ("ws://192.168.1.5:8080", "ws://2130706433:8081", false),
            ("ws://192.168.1.5:8080", "ws://0x7f.0.0.1:8081", false),
            ("ws://192.168.1.5:8080", "ws://[::1]:8081", false),
            ("ws://192.168.1.5:8080", "ws://[::ffff:127.0.0.1]:8081", false),
            ("ws://192.168.1.5:8080", "wss://127.0.0.1:8081", false),
            ("ws://192.168.1.5:8080", "ws://0.0.0.0:8081", false),
            ("ws://192.168.1.5:8080", "ws://0:8081", false),
            ("ws://192.168.1.5:8080", "ws://[::]:8081", false),
            ("ws://192.168.1.5:8080", "ws://169.254.169.254", false),
            ("ws://192.168.1.5:8080", "ws://[fe80::1]:8081", false),
            ("ws://192.168.1.5:8080", "http://app.localhost:8081", false),
            ("wss://chat.example.org", "wss://127.0.0.1", false),
            ("wss://chat.example.org", "ws://chat.example.org", false),
            ("wss://chat.example.org", "e2.example.org", false),
            ("ws://127.0.0.1:8080", "ws://0.0.0.0:8081", false),
            ("ws://192.168.1.5:8080", "ws://192.168.1.5:8081", true),
            ("ws://192.168.1.5:8080", "wss://chat.example.org", true),
            ("wss://chat.example.org", "wss://10.0.0.1", true),
            ("ws://127.0.0.1:8080", "ws://127.0.0.2:8081", true),
            ("ws://localhost:8080", "ws://127.0.0.1:8081", true),
            ("ws://[::1]:8080", "ws://192.168.1.5:8081", true),
            ("ws://[fe80::1]:8080", "ws://[fe80::2]:8080", true),
            ("ws://0.0.0.0:8080", "ws://127.0.0.1:8081", true),
        ] {
            let mut learns = edges(&[from], 0);
            learns.learn(&normal(from).unwrap(), &[to.into()]);
            assert_eq!(learns.len() > 1, goes, "the list of {from} has {to}");
            let mut leaves = edges(&[from], 0);
            leaves.leave_for(&[to.into()], 0);
            assert_eq!(leaves.len() > 1, goes, "{from} drains and names {to}");
        }
    }

    #[test]
    fn a_learnt_name_leads_to_no_closer_address() {
        let mut e = edges(&["ws://laptop.test:1", "ws://127.0.0.1:2"], 0);
        e.learn("ws://laptop.test:1", &["ws://evil.example:3".into()]);
        let may = |host: &str, ip: &str| e.dialable(host)(ip.parse().unwrap());
        assert!(may("laptop.test", "127.0.0.1"), "the app named it");
        assert!(may("evil.example", "203.0.113.9") && may("evil.example", "10.0.0.1"));
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "169.254.1.1", "fe80::1"] {
            assert!(!may("evil.example", ip), "{ip}");
        }
        assert!(may("127.0.0.1", "127.0.0.1"));
        let here = edges(&["ws://localhost:1"], 0);
        assert!(here.dialable("localhost")("::1".parse().unwrap()));
    }
}
