//! Which edge next, and from when on (pure): a random one first, after a failure the one after it; learnt ones beside those the app named. An app that named
//! edges with TLS only never learns one without: a list from the network must not take it away.

use std::{collections::HashMap, time::Instant};

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
    /// Every named one speaks TLS.
    secure: bool,
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
        let secure = named.iter().all(|e| is_secure(e));
        Ok(Self { at: random % named.len(), all: named.clone(), secure, named, barred: HashMap::new() })
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

    /// Goes on, if need be, to the first one from here that may be dialled; if none may, to the one that may first. From when on.
    pub fn choose(&mut self, now: Instant) -> Instant {
        let known = &self.all;
        self.barred.retain(|edge, until| *until > now && known.contains(edge));
        let turn = (0..self.all.len()).map(|i| (self.at + i) % self.all.len());
        let free = |i: &usize| self.barred.get(&self.all[*i]).copied().unwrap_or(now);
        // The first of equals.
        self.at = turn.min_by_key(free).unwrap_or(self.at);
        free(&self.at)
    }

    /// Takes one of `preferred` (a draining edge names who is left) if it is an edge and not the current one, else the next.
    pub fn leave_for(&mut self, preferred: &[String], random: usize) {
        let current = self.current().to_owned();
        let good: Vec<String> = self.usable(preferred).into_iter().filter(|e| *e != current).collect();
        match good.get(random % good.len().max(1)) {
            None => self.next(),
            Some(edge) => {
                self.add(std::slice::from_ref(edge));
                self.at = self.all.iter().position(|e| e == edge).unwrap_or(self.at);
            }
        }
    }

    /// The list of `GET /v1/edges`. Those that the app named stay: they are the way back when all else is gone.
    pub fn learn(&mut self, edges: &[String]) {
        let current = self.current().to_owned();
        self.all = self.named.clone();
        self.add(edges);
        if !self.all.contains(&current) {
            self.all.push(current.clone());
        }
        self.at = self.all.iter().position(|e| *e == current).unwrap_or(0);
    }

    fn usable(&self, edges: &[String]) -> Vec<String> {
        edges.iter().filter_map(|e| normal(e).ok()).filter(|e| !self.secure || is_secure(e)).collect()
    }

    fn add(&mut self, edges: &[String]) {
        for edge in self.usable(edges) {
            if !self.all.contains(&edge) && self.all.len() < MAX {
                self.all.push(edge);
            }
        }
    }
}

/// `ws://host:port` or `wss://host:port` without a path; `http://` and `https://` mean the same.
fn normal(edge: &str) -> Result<String, BadEdge> {
    let (scheme, host) = match edge.trim().split_once("://") {
        Some(("ws" | "http", host)) => ("ws", host),
        Some(("wss" | "https", host)) => ("wss", host),
        Some(_) => return Err(BadEdge(edge.to_owned())),
        None => ("ws", edge.trim()),
    };
    let host = host.trim_end_matches('/');
    if host.is_empty() || host.contains("://") || host.contains(['/', ' ', '?', '#', '@']) {
        return Err(BadEdge(edge.to_owned()));
    }
    Ok(format!("{scheme}://{host}"))
}

fn is_secure(edge: &str) -> bool {
    edge.starts_with("wss://")
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
        e.learn(&["ws://b:2".into(), "ws://a:1".into(), "nonsense://x".into()]);
        assert_eq!(e.in_turn(), ["ws://a:1", "ws://b:2"]);
        e.next();
        e.learn(&[]);
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
        e.learn(&["ws://evil:1".into(), "evil:1".into(), "wss://c:3".into()]);
        assert_eq!(e.in_turn(), ["wss://a:1", "wss://b:2", "wss://c:3"]);
        e.leave_for(&["ws://evil:1".into()], 0);
        assert_eq!(e.current(), "wss://b:2");
        let mut mixed = edges(&["ws://a:1", "wss://b:2"], 0);
        mixed.learn(&["ws://c:3".into()]);
        assert_eq!(mixed.len(), 3);
    }

    #[test]
    fn an_address_is_checked() {
        for bad in ["", "wss://", "ws://a/b", "ftp://x", "ws://u@h", "wss://u@h"] {
            assert!(Edges::new(&[bad.to_owned()], 0).is_err(), "{bad}");
        }
        assert!(Edges::new(&[], 0).is_err());
    }
}
