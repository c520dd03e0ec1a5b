//! Faults in what was shown of people, and in whose phones were in.

use std::collections::{BTreeMap, BTreeSet};

use natterjack_protocol::client::{frame::DeviceClass, presence::PresenceState};

use super::Plant;
use crate::{
    checker::Rule,
    record::{Connection, Handing, Recording},
};

pub const PLANTS: [Plant; 6] = [
    ("somebody who has gone is never shown as offline", Rule::ShownOnline, |r| {
        let (watcher, shown) = last_view(r)?;
        let (user, _) = shown.into_iter().find(|(_, state)| *state == PresenceState::Offline)?;
        for (_, of, state) in &mut r.connections[watcher].presence {
            if *of == user {
                *state = PresenceState::Online;
            }
        }
        gone(r, watcher, &user)
    }),
    ("sessions of an edge that died are never swept", Rule::ShownOnline, |r| {
        let (watcher, shown) = last_view(r)?;
        let (user, _) = shown.into_iter().find(|(_, state)| *state == PresenceState::Online)?;
        gone(r, watcher, &user)
    }),
    ("a session that lives was swept", Rule::ShownOffline, |r| {
        let (watcher, shown) = last_view(r)?;
        let mut swept = None;
        for (user, _) in shown.into_iter().filter(|(_, state)| *state == PresenceState::Online) {
            let last = r.connections[watcher].presence.iter_mut().rfind(|(_, of, _)| *of == user)?;
            last.2 = PresenceState::Offline;
            swept = Some(());
        }
        swept
    }),
    ("a phone goes on writing when the other one is in", Rule::TwoPhones, |r| {
        let phone = |user: Option<&str>, not: &str, r: &Recording| {
            let of = |c: &Connection| user.is_none_or(|u| u == c.user) && c.device != not;
            r.connections.iter().position(|c| c.class == DeviceClass::Phone && c.greeted.is_some() && of(c))
        };
        let one = phone(None, "", r)?;
        let other = phone(Some(&r.connections[one].user), &r.connections[one].device, r)?;
        everybody_counted(r);
        for at in [one, other] {
            r.connections[at].sends.push(Handing { text: "x".into(), begun: u64::MAX / 2, acked: Some(u64::MAX / 2) });
        }
        Some(())
    }),
    ("the other phone is let in beside the first", Rule::TwoPhones, |r| {
        let mut wrote = BTreeMap::<&str, BTreeSet<&str>>::new();
        let phones = r.connections.iter().filter(|c| c.class == DeviceClass::Phone && c.greeted.is_some());
        for c in phones.filter(|c| c.sends.iter().any(|s| s.acked.is_some())) {
            wrote.entry(&c.user).or_default().insert(&c.device);
        }
        // Of a user with two phones that had messages stored, one after the other.
        let user = wrote.into_iter().find(|(_, devices)| devices.len() > 1)?.0.to_owned();
        let all = r.connections.iter_mut().filter(|c| c.user == user && c.greeted.is_some());
        all.for_each(|c| (c.hello, c.greeted) = (0, Some(0)));
        everybody_counted(r);
        Some(())
    }),
    ("a phone that comes back by itself takes over", Rule::TookOver, |r| {
        r.connections.iter().find(|c| c.displaced_by.is_some() && c.greeted.is_some())?;
        r.connections.iter_mut().for_each(|c| c.by_itself = true);
        everybody_counted(r);
        Some(())
    }),
];

/// As if nothing had been away: while it is, people are let in and counted later.
fn everybody_counted(r: &mut Recording) {
    r.outages.clear();
}

/// Longer than anybody may be shown as online after they have gone.
const GONE_US: u64 = 30_000_000;
/// Those who watch until the end are told to stop at the same time; they notice by the next frame.
const END_US: u64 = 1_500_000;

/// The connection that was there until the end, the longest one, and how it showed everybody then. One that was on its
/// way in when all were told to stop has seen nothing.
fn last_view(r: &Recording) -> Option<(usize, BTreeMap<String, PresenceState>)> {
    let heard = |c: &Connection| c.heard.last().copied().unwrap_or_default();
    let watching = || r.connections.iter().enumerate().filter(|(_, c)| !c.presence.is_empty());
    let end = watching().map(|(_, c)| heard(c).1).max()?;
    let (at, last) = watching().filter(|(_, c)| heard(c).1 + END_US > end).min_by_key(|(_, c)| heard(c).0)?;
    Some((at, last.presence.iter().map(|(_, user, state)| (user.clone(), *state)).collect()))
}

/// This user's connections have ended so long before the watcher's that nobody may be told any more that they are here.
fn gone(r: &mut Recording, watcher: usize, user: &str) -> Option<()> {
    let died = r.connections[watcher].heard.last()?.1.checked_sub(GONE_US)?;
    r.connections.retain(|c| c.user != user || c.hello < died);
    for c in r.connections.iter_mut().filter(|c| c.user == user) {
        c.ended = Some(c.ended.map_or(died, |ended| ended.min(died)));
    }
    Some(())
}
