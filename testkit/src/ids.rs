//! Ids by the dozen: short names for what tests write again and again.

use std::time::{SystemTime, UNIX_EPOCH};

use natterjack_protocol::{Cid, Thread, Token, internal::kv::EdgeInfo};

/// This machine's clock, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A user's id, or any other one of the same form.
pub fn user(s: &str) -> Token {
    Token::parse(s).unwrap()
}

/// `group.…` or `dm.…`.
pub fn thread(s: &str) -> Thread {
    s.parse().unwrap()
}

pub fn group(s: &str) -> Thread {
    Thread::group(&user(s))
}

/// A cid of now.
pub fn cid() -> Cid {
    cid_at(now_ms())
}

pub fn cid_at(ms: u64) -> Cid {
    Cid::mint(ms, rand::random())
}

/// What an edge at no address that anybody uses says in its lease: it is well and nobody is connected to it.
pub fn edge_info(incarnation: &str) -> EdgeInfo {
    EdgeInfo {
        url: None,
        listen: ([127, 0, 0, 1], 8080).into(),
        tls: false,
        machine: "m".into(),
        incarnation: incarnation.into(),
        started: 0,
        sessions: 0,
        draining: false,
        healthy: true,
        sessions_in: Vec::new(),
        unheeded: None,
    }
}
