//! Messages: none lost, doubled, out of order, or shown to whom it is not meant for.

use std::collections::{BTreeMap, HashMap, HashSet};

use natterjack_protocol::Kind;

use super::{Rule, Verdict};
use crate::record::{Attempt, History, Message, Reader, Recording};

/// Since (inclusive) and until (exclusive), ids of control entries.
type Intervals = Vec<(u64, u64)>;

/// thread → user → intervals. In a DM both are in it always.
type Membership<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Intervals>>;

/// Everything that was promised of messages.
pub fn check(r: &Recording, v: &mut Verdict) {
    let logs = logs(r);
    let membership = membership(&logs);
    let may_see = |user: &str, m: &Message| {
        membership
            .get(m.thread.as_str())
            .is_none_or(|users| users.get(user).is_some_and(|i| i.iter().any(|(a, b)| (*a..*b).contains(&m.id))))
    };
    histories(r, &logs, &may_see, v);
    acks(r, &logs, v);
    attempts_in_order(r, &logs, v);
    for reader in &r.readers {
        reading(r, reader, &logs, &may_see, v);
    }
    real_time(r, &logs, v);
}

/// Per thread what its log says: the history of a witness, through the first edge that gave it.
fn logs(r: &Recording) -> BTreeMap<&str, &[Message]> {
    let mut logs: BTreeMap<&str, &[Message]> = BTreeMap::new();
    for h in &r.histories {
        if r.witness.get(&h.thread).is_none_or(|w| *w == h.user) {
            logs.entry(&h.thread).or_insert(&h.messages);
        }
    }
    logs
}

fn membership<'a>(logs: &BTreeMap<&'a str, &'a [Message]>) -> Membership<'a> {
    let mut all = Membership::new();
    for (thread, log) in logs.iter().filter(|(t, _)| t.starts_with("group.")) {
        let users: &mut BTreeMap<&str, Intervals> = all.entry(*thread).or_default();
        for m in *log {
            let named = m.users.iter().map(String::as_str);
            match m.kind {
                Kind::GroupCreated | Kind::MemberAdded => {
                    let own = (m.kind == Kind::GroupCreated).then_some(m.from.as_str());
                    for user in named.chain(own) {
                        let intervals = users.entry(user).or_default();
                        if intervals.last().is_none_or(|(_, until)| *until != u64::MAX) {
                            intervals.push((m.id, u64::MAX));
                        }
                    }
                }
                Kind::MemberRemoved | Kind::MemberLeft => {
                    let own = (m.kind == Kind::MemberLeft).then_some(m.from.as_str());
                    for user in named.chain(own) {
                        if let Some(last) = users.entry(user).or_default().last_mut() {
                            last.1 = last.1.min(m.id);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    all
}

fn said(messages: &[Message]) -> impl Iterator<Item = &Message> {
    messages.iter().filter(|m| m.kind.is_message())
}

/// Known, true to its attempt, and not refused.
fn genuine(r: &Recording, m: &Message, place: &str, v: &mut Verdict) {
    match r.attempts.get(&m.text) {
        None => v.add(Rule::Alien, format!("{place}: nobody sent {:?} ({})", m.text, m.id)),
        Some(a) if a.thread != m.thread || a.user != m.from || a.cid.as_ref().is_some_and(|c| *c != m.cid) => {
            v.add(Rule::Alien, format!("{place}: {:?} ({}) is not as it was sent: {m:?}", m.text, m.id));
        }
        Some(a) if a.refused && !a.unsure && a.acks.is_empty() => {
            v.add(Rule::Refused, format!("{place}: {:?} ({}) was refused", m.text, m.id));
        }
        Some(_) => {}
    }
}

fn twice<'a>(messages: impl Iterator<Item = &'a Message>, place: &str, v: &mut Verdict) {
    let (mut texts, mut cids, mut ids) = (HashSet::new(), HashSet::new(), HashSet::new());
    for m in messages {
        let fresh = (texts.insert(&m.text), cids.insert((&m.thread, &m.from, &m.cid)), ids.insert((&m.thread, m.id)));
        if fresh != (true, true, true) {
            v.add(Rule::Twice, format!("{place}: {:?} ({})", m.text, m.id));
        }
    }
}

fn histories(
    r: &Recording,
    logs: &BTreeMap<&str, &[Message]>,
    may_see: &impl Fn(&str, &Message) -> bool,
    v: &mut Verdict,
) {
    for h in &r.histories {
        let place = place(h);
        if !h.messages.is_sorted_by(|a, b| a.id < b.id) {
            v.add(Rule::OneHistory, format!("{place}: not in order of ids"));
        }
        twice(said(&h.messages), &place, v);
        for m in said(&h.messages) {
            genuine(r, m, &place, v);
            if !may_see(&h.user, m) {
                v.add(Rule::Membership, format!("{place}: {:?} ({})", m.text, m.id));
            }
        }
        let Some(log) = logs.get(h.thread.as_str()) else {
            v.add(Rule::OneHistory, format!("{place}: no witness read this thread"));
            continue;
        };
        let wanted = said(log).filter(|m| may_see(&h.user, m));
        if !wanted.eq(said(&h.messages)) {
            let here: HashSet<u64> = said(&h.messages).map(|m| m.id).collect();
            let missing: Vec<u64> =
                said(log).filter(|m| may_see(&h.user, m) && !here.contains(&m.id)).map(|m| m.id).take(5).collect();
            v.add(Rule::OneHistory, format!("{place}: differs from the witness's; missing at least {missing:?}"));
        }
    }
}

fn place(h: &History) -> String {
    format!("history of {} through edge {} by {}", h.thread, h.edge, h.user)
}

fn acks(r: &Recording, logs: &BTreeMap<&str, &[Message]>, v: &mut Verdict) {
    let found: HashMap<&str, u64> = logs.values().flat_map(|log| said(log)).map(|m| (m.text.as_str(), m.id)).collect();
    for a in r.attempts.values() {
        let in_log = found.get(a.text.as_str()).copied();
        if a.acks.is_empty() {
            v.refused += usize::from(a.refused);
            v.recovered += usize::from(in_log.is_some());
            if !a.refused {
                v.add(Rule::Unsettled, format!("{:?} of {}", a.text, a.writer));
            }
            continue;
        }
        v.acked += 1;
        v.longest_ack_ms = v.longest_ack_ms.max((a.acks[0].1.saturating_sub(a.at)) / 1_000);
        match in_log {
            None => v.add(Rule::Lost, format!("{:?} in {}, acked as {:?}", a.text, a.thread, a.acks)),
            Some(id) if a.acks.iter().any(|(acked, _)| *acked != id) => {
                v.add(Rule::AckTruth, format!("{:?} is {id}, acked as {:?}", a.text, a.acks));
            }
            Some(_) => {}
        }
    }
}

/// One device's messages in a thread keep the order of writing.
fn attempts_in_order(r: &Recording, logs: &BTreeMap<&str, &[Message]>, v: &mut Verdict) {
    for (thread, log) in logs {
        let mut newest: HashMap<&str, &Attempt> = HashMap::new();
        for m in said(log) {
            let Some(a) = r.attempts.get(&m.text) else { continue };
            if let Some(before) = newest.insert(&a.writer, a)
                && before.n > a.n
            {
                v.add(Rule::Fifo, format!("{thread}: {:?} ({}) stands behind {:?}", a.text, m.id, before.text));
            }
        }
    }
}

fn reading(
    r: &Recording,
    reader: &Reader,
    logs: &BTreeMap<&str, &[Message]>,
    may_see: &impl Fn(&str, &Message) -> bool,
    v: &mut Verdict,
) {
    let name = &reader.name;
    v.shown += reader.shown.len();
    for c in &reader.complaints {
        v.add(Rule::Complaint, format!("{name}: {c}"));
    }
    twice(reader.shown.iter().map(|s| &s.message).filter(|m| m.kind.is_message()), name, v);
    let mut newest: HashMap<&str, u64> = HashMap::new();
    let mut seen: HashMap<&str, HashSet<u64>> = HashMap::new();
    for s in &reader.shown {
        let m = &s.message;
        if newest.insert(&m.thread, m.id).is_some_and(|before| before >= m.id) {
            v.add(Rule::Order, format!("{name}: {} shows {:?} ({}) too late", m.thread, m.text, m.id));
        }
        if !m.kind.is_message() {
            continue;
        }
        genuine(r, m, name, v);
        if !may_see(&reader.user, m) {
            v.add(Rule::Membership, format!("{name}: {:?} ({}) in {}", m.text, m.id, m.thread));
        }
        seen.entry(&m.thread).or_default().insert(m.id);
        if s.live
            && let Some(a) = r.attempts.get(&m.text)
        {
            v.latest_live_ms = v.latest_live_ms.max(s.at.saturating_sub(a.at) / 1_000);
        }
    }
    for (thread, log) in logs {
        let of_reader = r.histories.iter().any(|h| h.user == reader.user && h.thread == *thread);
        let seen = seen.remove(thread).unwrap_or_default();
        for m in said(log).filter(|m| of_reader && may_see(&reader.user, m) && !seen.contains(&m.id)) {
            v.add(Rule::Incomplete, format!("{name}: never saw {:?} ({}) of {thread}", m.text, m.id));
        }
        let known: HashSet<u64> = said(log).map(|m| m.id).collect();
        for id in seen.iter().filter(|id| !known.contains(id)) {
            v.add(Rule::OneHistory, format!("{name}: saw {id} in {thread}, history has no such message"));
        }
    }
    let mut newest: HashMap<(u32, &str), u64> = HashMap::new();
    for (session, thread, id) in &reader.wire {
        if newest.insert((*session, thread), *id).is_some_and(|before| before >= *id) {
            v.add(Rule::Wire, format!("{name}: {id} of {thread} in session {session}"));
        }
    }
}

/// What was known (acked or shown to anybody) before a message was written stands before it in its thread.
fn real_time(r: &Recording, logs: &BTreeMap<&str, &[Message]>, v: &mut Verdict) {
    let mut known: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for a in r.attempts.values() {
        known.entry(&a.thread).or_default().extend(a.acks.iter().map(|(id, at)| (*at, *id)));
    }
    for s in r.readers.iter().flat_map(|x| &x.shown) {
        known.entry(&s.message.thread).or_default().push((s.at, s.message.id));
    }
    for (thread, log) in logs {
        let mut known = known.remove(thread).unwrap_or_default();
        known.sort_unstable();
        let mut written: Vec<(u64, u64, &str)> =
            said(log).filter_map(|m| r.attempts.get(&m.text).map(|a| (a.at, m.id, m.text.as_str()))).collect();
        written.sort_unstable();
        let (mut next, mut newest) = (0, 0);
        for (at, id, text) in written {
            while next < known.len() && known[next].0 < at {
                newest = newest.max(known[next].1);
                next += 1;
            }
            if newest > id {
                v.add(Rule::RealTime, format!("{thread}: {text:?} ({id}) was written after {newest} was known"));
            }
        }
    }
}
