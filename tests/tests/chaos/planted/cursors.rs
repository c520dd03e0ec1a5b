//! Faults in how far somebody has read.

use super::Plant;
use crate::{
    checker::Rule,
    record::{
        Recording,
        reading::{ListedThread, ReadStored},
    },
};

pub const PLANTS: [Plant; 10] = [
    ("what was stored is further back in the list", Rule::ReadBack, |r| {
        let (at, stored) = stored_and_listed(r)?;
        r.reading.listed[at].read = Some(stored - 1);
        Some(())
    }),
    ("an edge counts from what it knew before", Rule::ReadBack, |r| {
        let (at, _) = stored_and_listed(r)?;
        r.reading.listed[at].read = Some(0);
        Some(())
    }),
    ("an answer goes back behind one before it", Rule::ReadBack, |r| {
        let last = r.reading.stored.iter().max_by_key(|s| s.id)?.clone();
        r.reading.stored.push(ReadStored { asked: Some(last.at + 1), at: last.at + 2, id: last.id - 1, ..last });
        Some(())
    }),
    ("an id that nobody has given is believed", Rule::ReadAhead, |r| {
        let stored = r.reading.stored.last_mut()?;
        stored.id = r.reading.ends.get(&stored.thread)? + 1;
        Some(())
    }),
    ("one message too many is unread", Rule::Unread, |r| {
        let row = settled(r).find(|row| row.unread.is_some_and(|n| n < 100))?;
        row.unread = row.unread.map(|n| n + 1);
        Some(())
    }),
    ("what was said last is not counted as unread", Rule::Unread, |r| {
        let row = settled(r).find(|row| row.unread.is_some_and(|n| n > 0))?;
        row.unread = row.unread.map(|n| n - 1);
        Some(())
    }),
    ("nobody knows what is unread", Rule::Unread, |r| {
        settled(r).next()?.unread = None;
        Some(())
    }),
    ("a receipt is ahead of its user", Rule::ReceiptAhead, |r| {
        let receipt = r.reading.receipts.last_mut()?;
        let of_user = r.reading.said.iter().filter(|s| s.user == receipt.user && s.thread == receipt.thread);
        receipt.id = of_user.map(|s| s.id).max()? + 1;
        Some(())
    }),
    ("a receipt before its user has read anything", Rule::ReceiptAhead, |r| {
        let receipt = r.reading.receipts.last_mut()?;
        let of_user = r.reading.said.iter().filter(|s| s.user == receipt.user && s.thread == receipt.thread);
        receipt.at = of_user.map(|s| s.at).min()?;
        Some(())
    }),
    ("an edge died with what was said, and nobody says it again", Rule::ReadLost, |r| {
        let never_out = r.reading.listed.iter().filter(|row| row.settled && row.thread.starts_with("dm."));
        let mut wanted = r.reading.said.iter().filter(|s| s.repeats).filter_map(|s| {
            let row = never_out.clone().find(|row| row.user == s.user && row.thread == s.thread)?;
            (row.last? >= s.id).then(|| (s.user.clone(), s.thread.clone(), s.id))
        });
        let (user, thread, id) = wanted.next()?;
        r.reading.stored.retain(|s| s.user != user || s.thread != thread);
        settled(r).filter(|row| row.user == user && row.thread == thread).for_each(|row| row.read = Some(id - 1));
        Some(())
    }),
];

fn settled(r: &mut Recording) -> impl Iterator<Item = &mut ListedThread> {
    let known: Vec<_> = r.histories.iter().map(|h| (h.edge, h.user.clone(), h.thread.clone())).collect();
    let of_history = move |row: &&mut ListedThread| known.contains(&(row.edge, row.user.clone(), row.thread.clone()));
    r.reading.listed.iter_mut().filter(|row| row.settled).filter(of_history)
}

/// A row of a list, and what was stored before it was asked for.
fn stored_and_listed(r: &Recording) -> Option<(usize, u64)> {
    let rows = r.reading.listed.iter().enumerate().filter(|(_, row)| row.settled);
    let mut found = rows.filter_map(|(at, row)| {
        let of_row = |s: &&ReadStored| s.user == row.user && s.thread == row.thread && s.at < row.asked;
        let stored = r.reading.stored.iter().filter(of_row).map(|s| s.id).max()?;
        Some((at, row.last.map_or(stored, |last| stored.min(last))))
    });
    found.next()
}
