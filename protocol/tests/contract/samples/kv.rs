//! Values in KV.

use std::collections::BTreeMap;

use natterjack_protocol::{
    Thread,
    client::{frame::DeviceClass, thread_settings::SettingsChange},
    internal::{
        cursors::UserCursors,
        devices::{DeviceEntry, DisplacedBy, SessionPlace, UnsettledSession, UserDevices},
        thread_settings::UserDrafts,
    },
    log::{
        HistoryFor, Interval, Intervals, Role,
        fold::{GroupMembership, GroupState, ThreadItem, UserThreads},
    },
    parts::Parts,
};

use super::{NOW, Sample, anna, ben, dm, group, id, twice_here, user};

pub fn groups() -> Vec<Sample<GroupState>> {
    let member = |role, intervals| GroupMembership { role, intervals };
    let left = Intervals(vec![Interval { since: id(3), until: Some(id(40)) }]);
    let members = BTreeMap::from([
        (anna(), member(Some(Role::Owner), Intervals(vec![Interval { since: id(1), until: None }]))),
        (ben(), member(Some(Role::Member), twice_here())),
        (user("u0gone"), member(None, left)),
    ]);
    vec![(
        "group",
        "groups-<u>: the fold of a group.",
        GroupState { v: 1, version: id(90), name: "Teichfreunde".into(), history: HistoryFor::SinceJoining, members },
    )]
}

pub fn user_threads() -> Vec<Sample<UserThreads>> {
    let item = |v| ThreadItem { v, ..ThreadItem::default() };
    let threads = BTreeMap::from([
        (
            dm(),
            ThreadItem {
                intervals: Intervals(vec![Interval { since: id(0), until: None }]),
                blocks: true,
                ..item(id(5))
            },
        ),
        (Thread::dm(&anna(), &anna()), ThreadItem { intervals: Intervals::all(), blocked_by: true, ..item(id(6)) }),
        (group(), ThreadItem { intervals: twice_here(), role: Some(Role::Member), ..item(id(90)) }),
    ]);
    vec![
        ("user-threads", "users-<u>, <uid>.threads.<place>.", UserThreads::from_iter(threads)),
        ("user-threads-empty", "Of a user who was just registered.", UserThreads::default()),
    ]
}

pub fn user_cursors() -> Vec<Sample<UserCursors>> {
    let mut cursors = UserCursors::default();
    cursors.add_read(&dm(), id(7), NOW / 1_000);
    cursors.add_got(&user("d1b4n7c0x3z6m9k2v"), &dm(), id(120));
    cursors.set(&dm(), &SettingsChange { pinned: Some(true), ..SettingsChange::default() }, NOW);
    let mut cut = cursors.clone();
    cut.cut(0);
    vec![
        ("user-cursors", "users-<u>, <uid>.cursors.<place>: by the hash of the thread.", cursors),
        ("user-cursors-cut", "What was in it stands in its parts.", cut),
    ]
}

pub fn user_drafts() -> Vec<Sample<UserDrafts>> {
    let drafts = UserDrafts([(dm().hash64(), "Am Teich".into())].into());
    vec![("user-drafts", "users-<u>, <uid>.drafts: by the hash of the thread.", drafts)]
}

pub fn user_devices() -> Vec<Sample<UserDevices>> {
    let place = |session: &str, edge: &str| SessionPlace {
        session: user(session),
        edge: user(edge),
        incarnation: "edge-01890a5d".into(),
    };
    let phone = DeviceEntry {
        id: user("d1b4n7c0x3z6m9k2v"),
        class: DeviceClass::Phone,
        name: Some("Annas Telefon".into()),
        app: Some("Teich 1.4.2".into()),
        family: user("f8m1k4x7v0c3b6n9q"),
        since: NOW,
        active: NOW + 60_000,
        session: Some(place("s9c3x7m1k5v0b8q2d", "edge-1")),
        displaced: None,
    };
    let old = DeviceEntry {
        id: user("d5k2m8x0q4v7b1n9t"),
        name: None,
        app: None,
        session: None,
        displaced: Some(DisplacedBy { device: phone.id.clone(), at: NOW }),
        ..phone.clone()
    };
    let place = place("s0d4f8h2k6m1p5r9t", "edge-2");
    let unsettled = UnsettledSession { device: old.id.clone(), class: old.class, place, at: NOW };
    vec![
        (
            "user-devices",
            "sessions-<u>, <uid>.",
            UserDevices { devices: vec![old, phone], unsettled: vec![unsettled], left: None },
        ),
        ("user-devices-empty", "Of a user who has no device any more.", UserDevices::default()),
    ]
}
