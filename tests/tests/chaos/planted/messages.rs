//! Faults in what was said of messages.

use natterjack_protocol::Kind;

use super::Plant;
use crate::{
    checker::Rule,
    record::{Attempt, Message, Reader, Recording, Shown},
};

pub const PLANTS: [Plant; 23] = [
    ("an acked message is in no history", Rule::Lost, |r| {
        let text = acked(r)?;
        r.histories.iter_mut().for_each(|h| h.messages.retain(|m| m.text != text));
        r.readers.iter_mut().for_each(|x| x.shown.retain(|s| s.message.text != text));
        Some(())
    }),
    ("an acked message is missing through one edge", Rule::OneHistory, |r| {
        let text = acked(r)?;
        let h = r.histories.iter_mut().rfind(|h| h.messages.iter().any(|m| m.text == text))?;
        h.messages.retain(|m| m.text != text);
        Some(())
    }),
    ("an acked message has another id in the log", Rule::AckTruth, |r| {
        let text = acked(r)?;
        r.attempts.get_mut(&text)?.acks[0].0 -= 1;
        Some(())
    }),
    ("the second ack of a cid names another id", Rule::AckTruth, |r| {
        let text = acked(r)?;
        let acks = &mut r.attempts.get_mut(&text)?.acks;
        acks.push((acks[0].0 + 1, acks[0].1 + 1));
        Some(())
    }),
    ("a resend was stored twice", Rule::Twice, |r| {
        for h in &mut r.histories {
            let copy = h.messages.iter().find(|m| m.kind.is_message()).cloned();
            if let (Some(copy), Some(last)) = (copy, h.messages.last().map(|m| m.id)) {
                h.messages.push(Message { id: last + 1, ..copy });
            }
        }
        Some(())
    }),
    ("the same text under a second cid", Rule::Twice, |r| {
        let h = r.histories.iter_mut().find(|h| h.messages.iter().any(|m| m.kind.is_message()))?;
        let (copy, last) = (h.messages.iter().find(|m| m.kind.is_message())?.clone(), h.messages.last()?.id);
        h.messages.push(Message { id: last + 1, cid: "another".into(), ..copy });
        Some(())
    }),
    ("a reader saw a message twice", Rule::Twice, |r| {
        let shown = &mut reading(r)?.shown;
        shown.push(shown.iter().rfind(|s| s.message.kind.is_message())?.clone());
        Some(())
    }),
    ("a message that nobody sent, in history", Rule::Alien, |r| {
        let h = r.histories.iter_mut().find(|h| h.messages.iter().any(|m| m.kind.is_message()))?;
        let m = h.messages.iter_mut().rfind(|m| m.kind.is_message())?;
        m.text = "who said this?".into();
        Some(())
    }),
    ("a message that nobody sent, shown live", Rule::Alien, |r| {
        let s = reading(r)?.shown.iter_mut().rfind(|s| s.message.kind.is_message())?;
        s.message.text.push('x');
        Some(())
    }),
    ("two messages exchanged their bodies", Rule::Alien, |r| {
        let shown = &mut reading(r)?.shown;
        let at: Vec<usize> = (0..shown.len()).filter(|i| shown[*i].message.kind.is_message()).take(2).collect();
        let text = shown[at[0]].message.text.clone();
        shown[at[0]].message.text = std::mem::replace(&mut shown[at[1]].message.text, text);
        Some(())
    }),
    ("a message in another thread than it was sent to", Rule::Alien, |r| {
        let s = reading(r)?.shown.iter_mut().find(|s| s.message.kind.is_message())?;
        s.message.thread = "dm.x.y".into();
        Some(())
    }),
    ("a clearly refused message was shown", Rule::Refused, |r| {
        let text = acked(r)?;
        let a = r.attempts.get_mut(&text)?;
        a.acks.clear();
        (a.refused, a.unsure) = (true, false);
        Some(())
    }),
    ("a history is out of order", Rule::OneHistory, |r| {
        let h = r.histories.iter_mut().find(|h| h.messages.len() > 2)?;
        let last = h.messages.len() - 1;
        h.messages.swap(last, last - 1);
        Some(())
    }),
    ("two live messages swapped", Rule::Order, |r| {
        let shown = &mut reading(r)?.shown;
        let (i, j) = neighbours(shown)?;
        shown.swap(i, j);
        Some(())
    }),
    ("a hole that was filled later", Rule::Order, |r| {
        let shown = &mut reading(r)?.shown;
        let (i, _) = neighbours(shown)?;
        let late = shown.remove(i);
        shown.push(late);
        Some(())
    }),
    ("a hole that was never filled", Rule::Incomplete, |r| {
        let shown = &mut reading(r)?.shown;
        let (i, _) = neighbours(shown)?;
        shown.remove(i);
        Some(())
    }),
    ("the last message of a thread never came", Rule::Incomplete, |r| {
        let shown = &mut reading(r)?.shown;
        let last = shown.iter().rposition(|s| s.message.kind.is_message())?;
        shown.remove(last);
        Some(())
    }),
    ("a sender's messages exchanged places", Rule::Fifo, |r| {
        let (one, two) = of_one_writer(r)?;
        let n = r.attempts[&one].n;
        r.attempts.get_mut(&one)?.n = r.attempts[&two].n;
        r.attempts.get_mut(&two)?.n = n;
        Some(())
    }),
    ("written after the next one was known", Rule::RealTime, |r| {
        let (one, two) = of_one_writer(r)?;
        let known = r.attempts[&two].acks.first()?.1;
        r.attempts.get_mut(&one)?.at = known + 1;
        Some(())
    }),
    ("shown to somebody who had been removed", Rule::Membership, |r| {
        let (user, thread, until) = removed(r)?;
        let witness = r.witness.get(&thread)?.clone();
        let log = &r.histories.iter().find(|h| h.thread == thread && h.user == witness)?.messages;
        let back = log
            .iter()
            .find(|m| m.id > until && m.kind == Kind::MemberAdded && m.users.contains(&user))
            .map_or(u64::MAX, |m| m.id);
        let m = log.iter().find(|m| m.id > until && m.id < back && m.kind.is_message())?.clone();
        let shown = &mut r.readers.iter_mut().find(|x| x.user == user)?.shown;
        let at = shown.iter().position(|s| s.message.thread == thread && s.message.id > m.id).unwrap_or(shown.len());
        shown.insert(at, Shown { at: u64::MAX / 2, live: true, message: m });
        Some(())
    }),
    ("the same event twice in a session", Rule::Wire, |r| {
        let wire = &mut r.readers.iter_mut().find(|x| !x.wire.is_empty())?.wire;
        wire.push(wire.last()?.clone());
        Some(())
    }),
    ("a reader had to fill a hole below a live event", Rule::Complaint, |r| {
        reading(r)?.complaints.push("filled a hole".into());
        Some(())
    }),
    ("a send without an answer", Rule::Unsettled, |r| {
        let text = acked(r)?;
        r.attempts.get_mut(&text)?.acks.clear();
        Some(())
    }),
];

/// An acked message from the middle of the run, of a thread that more than one history holds.
fn acked(r: &Recording) -> Option<String> {
    let all: Vec<&Attempt> = r.attempts.values().filter(|a| !a.acks.is_empty()).collect();
    all.get(all.len() / 2).map(|a| a.text.clone())
}

fn reading(r: &mut Recording) -> Option<&mut Reader> {
    r.readers.iter_mut().max_by_key(|x| x.shown.len())
}

/// Two messages of one thread, one shown after the other, not the last of it.
fn neighbours(shown: &[Shown]) -> Option<(usize, usize)> {
    let is = |i: usize| shown[i].message.kind.is_message();
    let next = |i: usize| (i + 1..shown.len()).find(|j| is(*j) && shown[*j].message.thread == shown[i].message.thread);
    (0..shown.len()).filter(|i| is(*i)).find_map(|i| next(i).map(|j| (i, j)))
}

/// Two acked messages of one writer in one thread, in the order of the log.
fn of_one_writer(r: &Recording) -> Option<(String, String)> {
    let a = r.attempts.values().filter(|a| !a.acks.is_empty());
    let mut a: Vec<&Attempt> = a.collect();
    a.sort_by_key(|a| (&a.writer, &a.thread, a.n));
    let pair = a
        .windows(2)
        .find(|w| w[0].writer == w[1].writer && w[0].thread == w[1].thread && w[0].acks[0].0 < w[1].acks[0].0)?;
    Some((pair[0].text.clone(), pair[1].text.clone()))
}

fn removed(r: &Recording) -> Option<(String, String, u64)> {
    r.histories.iter().filter(|h| r.witness.get(&h.thread) == Some(&h.user)).find_map(|h| {
        h.messages.iter().enumerate().find_map(|(i, m)| {
            let spoken = h.messages.get(i + 1).is_some_and(|next| next.kind.is_message());
            (m.kind == Kind::MemberRemoved && spoken).then(|| (m.users[0].clone(), h.thread.clone(), m.id))
        })
    })
}
