//! What `channel` and edges publish for edges.

use bytes::Bytes;
use natterjack_protocol::{
    Entry,
    client::{frame::Receipt, thread_settings::ThreadSettings},
    internal::live::{self, Beat, Ephemeral},
    log::EntryView,
};

use super::{NOW, Sample, anna, ben, dm, event, group, id};

pub fn ephemeral() -> Vec<Sample<Ephemeral>> {
    vec![
        ("typing", "On live.*.x.", Ephemeral::Typing { thread: dm(), user: ben(), only: None }),
        (
            "typing_to_contacts",
            "On live.group.*.x.",
            Ephemeral::Typing { thread: group(), user: ben(), only: Some([anna()].into()) },
        ),
        ("contacts", "On live.user.*.x.", Ephemeral::Contacts),
        (
            "receipts",
            "On live.group.*.x.",
            Ephemeral::Receipts {
                thread: group(),
                receipts: vec![Receipt { user: ben(), got: id(120), read: id(90) }],
            },
        ),
        ("read", "On live.user.*.x.", Ephemeral::Read { threads: [(dm(), id(120))].into() }),
        (
            "settings",
            "On live.user.*.x.",
            Ephemeral::Settings {
                thread: dm(),
                settings: ThreadSettings { pinned: true, ..ThreadSettings::default() },
            },
        ),
    ]
}

pub fn beats() -> Vec<Sample<Beat>> {
    let beat = Beat {
        generation: 1,
        p: 1,
        ts: NOW,
        dedupe_since: NOW - 3_600_000,
        frontier: id(9),
        archive_lag_ms: Some(180),
    };
    vec![
        ("beat", "Once a second per partition.", beat),
        ("beat-lag-unknown", "The archive's lag is not known.", Beat { archive_lag_ms: None, ..beat }),
    ]
}

/// Live messages: header and frame.
pub fn live_messages() -> Vec<(&'static str, &'static str, Bytes)> {
    let e = event();
    let entry = Entry::new(e.from, e.cid, e.kind, e.body).encode();
    let mut spliced = Vec::new();
    live::write_event(&mut spliced, &EntryView::parse(&entry).unwrap(), false, &dm().to_string(), e.id, e.prev, e.ts);
    vec![
        ("event", "An event on live.*.e, spliced from the entry.", spliced.into()),
        ("head", "The newest id of a thread that fell quiet.", live::encode_head(&group().to_string(), id(9))),
        ("member", "A membership changed.", live::encode_member(&group().to_string(), id(90))),
    ]
}
