//! How far somebody has read (P5): never back, never ahead of the log, counted right, and never more than they said.

use std::collections::{BTreeMap, BTreeSet};

use natterjack_protocol::{Kind, limits::UNREAD_MAX};

use super::{Rule, Verdict, presence::micros};
use crate::record::{
    Recording,
    reading::{ListedThread, ReadingRecord},
};

/// User, thread.
type Place<'a> = (&'a str, &'a str);

pub fn check(r: &Recording, v: &mut Verdict) {
    let reading = &r.reading;
    (v.read_said, v.read_stored) = (reading.said.len(), reading.stored.len());
    (v.lists, v.receipts) = (reading.listed.len(), reading.receipts.len());
    back(reading, v);
    ahead(reading, v);
    receipts(reading, v);
    let out = ever_out(r);
    for row in reading.listed.iter().filter(|row| row.settled) {
        unread(r, row, v);
        kept(reading, &out, row, v);
    }
}

/// In the order of the moments at which each is known: how far the thread is stored for this user.
fn by_place<'a>(all: impl Iterator<Item = (Place<'a>, u64, u64)>) -> BTreeMap<Place<'a>, Vec<(u64, u64)>> {
    let mut by_place: BTreeMap<Place<'a>, Vec<(u64, u64)>> = BTreeMap::new();
    all.for_each(|(place, at, id)| by_place.entry(place).or_default().push((at, id)));
    by_place.values_mut().for_each(|ids| {
        ids.sort_unstable();
        let mut most = 0;
        ids.iter_mut().for_each(|(_, id)| {
            most = most.max(*id);
            *id = most;
        });
    });
    by_place
}

/// The largest id that was known before this moment; 0: none.
fn before(all: &BTreeMap<Place, Vec<(u64, u64)>>, place: Place, at: u64) -> u64 {
    let Some(ids) = all.get(&place) else { return 0 };
    ids[..ids.partition_point(|(known, _)| *known < at)].last().map_or(0, |(_, id)| *id)
}

/// Of what a list can say: it goes to its last event, a cursor may be beyond it.
fn listable(row: &ListedThread, id: u64) -> u64 {
    row.last.map_or(id, |last| id.min(last))
}

/// What was told to be stored is in every answer to what was asked afterwards.
fn back(reading: &ReadingRecord, v: &mut Verdict) {
    let stored = reading.stored.iter().map(|s| ((s.user.as_str(), s.thread.as_str()), s.at, s.id));
    let stored = by_place(stored);
    for s in &reading.stored {
        let Some(asked) = s.asked else { continue };
        let most = before(&stored, (&s.user, &s.thread), asked);
        if s.id < most {
            let (at, user, thread) = (micros(asked), &s.user, &s.thread);
            v.add(Rule::ReadBack, format!("{at:.1?}: {user} has read {thread} up to {} after {most}", s.id));
        }
    }
    for row in &reading.listed {
        let most = listable(row, before(&stored, (&row.user, &row.thread), row.asked));
        if row.read.is_some_and(|read| read < most) {
            let at = micros(row.asked);
            v.add(Rule::ReadBack, format!("{at:.1?}: after {most} the list through an edge says {row:?}"));
        }
    }
}

fn ahead(reading: &ReadingRecord, v: &mut Verdict) {
    // Asked for in the end only.
    if reading.ends.is_empty() {
        return;
    }
    let stored = reading.stored.iter().map(|s| (&s.user, &s.thread, s.id));
    let listed = reading.listed.iter().filter_map(|row| Some((&row.user, &row.thread, row.read?)));
    let receipts = reading.receipts.iter().map(|x| (&x.user, &x.thread, x.id));
    for (user, thread, id) in stored.chain(listed).chain(receipts) {
        let end = reading.ends.get(thread).copied().unwrap_or(0);
        if id > end {
            v.add(Rule::ReadAhead, format!("{user} has read {thread} up to {id}, and its partition ends with {end}"));
        }
    }
}

fn receipts(reading: &ReadingRecord, v: &mut Verdict) {
    let said = by_place(reading.said.iter().map(|s| ((s.user.as_str(), s.thread.as_str()), s.at, s.id)));
    for x in &reading.receipts {
        let most = before(&said, (&x.user, &x.thread), x.at);
        if x.id > most {
            v.add(Rule::ReceiptAhead, format!("{:.1?}: {x:?}, who had said {most}", micros(x.at)));
        }
    }
}

/// What others said behind it, as this reader's history has it.
fn unread(r: &Recording, row: &ListedThread, v: &mut Verdict) {
    let of_row = r.histories.iter().find(|h| h.edge == row.edge && h.user == row.user && h.thread == row.thread);
    let Some(history) = of_row else { return };
    let (Some(read), Some(unread)) = (row.read, row.unread) else {
        v.add(Rule::Unread, format!("nobody knows it in the end: {row:?}"));
        return;
    };
    let of_others = history.messages.iter().filter(|m| m.kind.is_message() && m.from != row.user && m.id > read);
    let counted = of_others.count().min(usize::from(UNREAD_MAX)) as u64;
    if unread != counted {
        v.add(Rule::Unread, format!("{counted} in the log: {row:?}"));
    }
}

/// Who was out of a group at some time, as its log says.
fn ever_out(r: &Recording) -> BTreeSet<Place<'_>> {
    let all = r.histories.iter().flat_map(|h| &h.messages).filter(|m| m.kind == Kind::MemberRemoved);
    all.flat_map(|m| m.users.iter().map(|user| (user.as_str(), m.thread.as_str()))).collect()
}

/// What a device says until it is told that it is stored is there in the end. Not of somebody who was out of the group:
/// what they said meanwhile was refused.
fn kept(reading: &ReadingRecord, out: &BTreeSet<Place>, row: &ListedThread, v: &mut Verdict) {
    if out.contains(&(row.user.as_str(), row.thread.as_str())) {
        return;
    }
    let said = reading.said.iter().filter(|s| s.repeats && s.user == row.user && s.thread == row.thread);
    let most = listable(row, said.map(|s| s.id).max().unwrap_or(0));
    if row.read.is_some_and(|read| read < most) {
        v.add(Rule::ReadLost, format!("{most} was said: {row:?}"));
    }
}
