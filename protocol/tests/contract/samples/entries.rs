//! Entries of the log.

use bytes::Bytes;
use natterjack_protocol::{
    Body, Entry, Kind,
    log::{HistoryFor, Role},
};

use super::{NOW, Sample, anna, ben, cid, event};

pub fn entries() -> Vec<Sample<Entry>> {
    let entry = |kind, body| Entry::new(anna(), cid(1), kind, body);
    let members = Body {
        users: vec![anna(), ben()],
        name: Some("Teichfreunde".into()),
        history: Some(HistoryFor::Everything),
        ..Body::default()
    };
    vec![
        ("text", "A message.", entry(Kind::Text, event().body)),
        (
            "text-looked-up",
            "A resend that was looked for before it was published.",
            Entry { seen: Some(NOW + 30_000), ..entry(Kind::Text, event().body) },
        ),
        (
            "custom",
            "Opaque bytes.",
            entry(Kind::Custom, Body { data: Some(Bytes::from_static(&[0, 0xff])), ..Body::default() }),
        ),
        ("dm-started", "The first entry of a DM.", entry(Kind::DmStarted, Body::default())),
        ("group-created", "The first entry of a group.", entry(Kind::GroupCreated, members)),
        (
            "role-changed",
            "A role.",
            entry(Kind::RoleChanged, Body { users: vec![ben()], role: Some(Role::Admin), ..Body::default() }),
        ),
    ]
}
