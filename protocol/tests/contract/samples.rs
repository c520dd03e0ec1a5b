//! One value of everything that crosses a boundary: what the fixtures are made from.

mod entries;
mod from_client;
mod from_server;
mod kv;
mod live;

use natterjack_protocol::{
    Body, Cid, Event, Kind, MsgId, Thread, Token, UserId,
    codec::Codec,
    internal::live::LiveMessage,
    log::{Interval, Intervals},
};

pub use self::{
    entries::entries,
    from_client::client,
    from_server::server,
    kv::{groups, user_cursors, user_devices, user_drafts, user_threads},
    live::{beats, ephemeral, live_messages},
};
use super::fixture::Fixture;

/// 2 July 2026 in milliseconds, and an id of that time as the log counts.
pub const NOW: u64 = 1_783_000_000_000;
pub const ID: u64 = 64_611_942_400_001;

pub fn user(s: &str) -> UserId {
    Token::parse(s).unwrap()
}
pub fn anna() -> UserId {
    user("u2q8v1m0c5t7r9x3k")
}
pub fn ben() -> UserId {
    user("u7h4n6p2d0w8j1z5s")
}
pub fn dm() -> Thread {
    Thread::dm(&anna(), &ben())
}
pub fn group() -> Thread {
    Thread::group(&user("g3f6b9e1a4y8m2c0v"))
}
pub fn id(n: u64) -> MsgId {
    MsgId(ID + n)
}
pub fn cid(n: u8) -> Cid {
    Cid::mint(NOW + u64::from(n) * 1_000, [n, 0x5a, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88])
}

/// Name, what it is, value.
type Sample<T> = (&'static str, &'static str, T);

pub fn event() -> Event {
    Event {
        thread: dm(),
        id: id(9),
        prev: id(0),
        ts: NOW + 42,
        from: anna(),
        cid: cid(1),
        kind: Kind::Text,
        body: Body { reply_to: Some(id(0)), ..Body::text("Grüß dich! 🐸") },
    }
}

fn twice_here() -> Intervals {
    Intervals(vec![Interval { since: id(3), until: Some(id(40)) }, Interval { since: id(90), until: None }])
}

/// Everything, as fixtures.
pub fn all() -> Vec<Fixture> {
    let mut all = Vec::new();
    fn both<T: serde::Serialize>(all: &mut Vec<Fixture>, direction: &str, samples: Vec<Sample<T>>) {
        for (name, about, value) in samples {
            all.push(Fixture::new(direction, name, about, &Codec::Json.encode(&value), &Codec::Msgpack.encode(&value)));
        }
    }
    both(&mut all, "client", client());
    both(&mut all, "server", server());
    both(&mut all, "entry", entries());
    both(&mut all, "ephemeral", ephemeral());
    both(&mut all, "beat", beats());
    both(&mut all, "kv", groups());
    both(&mut all, "kv", user_threads());
    both(&mut all, "kv", user_cursors());
    both(&mut all, "kv", user_drafts());
    both(&mut all, "kv", user_devices());
    for (name, about, bytes) in live_messages() {
        let header = match LiveMessage::parse(&bytes).unwrap() {
            LiveMessage::Event { header: h, frame } => serde_json::json!({
                "tag": bytes[0], "id": h.id, "prev": h.prev, "cid": h.cid, "thread": h.thread, "author": h.author,
                "control": h.control, "unread": h.unread, "frame_at": bytes.len() - frame.len(),
            }),
            LiveMessage::Head { thread, id } | LiveMessage::Member { thread, id } => {
                serde_json::json!({ "tag": bytes[0], "id": id, "thread": thread })
            }
        };
        all.push(Fixture::new("live", name, about, header.to_string().as_bytes(), &bytes));
    }
    all
}
