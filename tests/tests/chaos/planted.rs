//! The checker is shown to fail: recordings in which one rule was broken on purpose, each caught by that rule.
//! Planted into a made-up recording here, and into the recording of every real run.

use natterjack_protocol::Kind;

use super::{
    checker::{Rule, check},
    record::{Attempt, History, Message, Reader, Recording, Shown},
    rules::Rng,
};

type Plant = fn(&mut Recording) -> Option<()>;

/// What is broken, which rule must say so, and how. `None`: the recording has no place for it.
pub const PLANTS: [(&str, Rule, Plant); 23] = [
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

/// How many of [`PLANTS`] had a place in this recording, all of them caught; panics with the first that was not.
pub fn caught(healthy: &Recording) -> usize {
    let mut caught = 0;
    for (what, rule, plant) in PLANTS {
        let mut broken = healthy.clone();
        if plant(&mut broken).is_none() {
            continue;
        }
        let verdict = check(&broken);
        assert!(verdict.broken().contains(&rule), "{what}: not caught by {rule:?}, but by {:?}", verdict.broken());
        caught += 1;
    }
    caught
}

/// Three people in a DM and a group, one of them removed for a while; two edges.
fn healthy() -> Recording {
    let mut rng = Rng::new(3);
    let users = ["a", "b", "c"];
    let mut r = Recording::default();
    let group = "group.g".to_owned();
    r.witness.insert(group.clone(), "a".into());
    for u in users {
        r.readers.push(Reader { name: format!("{u}1"), user: u.into(), ..Reader::default() });
    }
    let mut logs: [(String, Vec<Message>); 2] = [("dm.a.b".into(), Vec::new()), (group.clone(), Vec::new())];
    let control = |id: u64, kind: Kind, users: &[&str]| Message {
        thread: "group.g".into(),
        id,
        from: "a".into(),
        cid: format!("ctl{id}"),
        kind,
        text: String::new(),
        users: users.iter().map(|u| (*u).to_owned()).collect(),
    };
    let mut inside = true;
    logs[1].1.push(control(1_000, Kind::GroupCreated, &["b", "c"]));
    for i in 0..200u64 {
        let (id, at) = (1_001 + i, i * 1_000);
        if i == 80 || i == 120 {
            inside = i == 120;
            logs[1].1.push(control(id, if inside { Kind::MemberAdded } else { Kind::MemberRemoved }, &["c"]));
            continue;
        }
        let in_group = rng.chance(50);
        let writer = if in_group && inside { rng.index(3) } else { rng.index(2) };
        let (thread, log) = &mut logs[usize::from(in_group)];
        let text = format!("{}-{i}", users[writer]);
        let attempt = Attempt {
            writer: format!("{}1", users[writer]),
            user: users[writer].into(),
            thread: thread.clone(),
            n: i,
            text: text.clone(),
            cid: Some(format!("cid{i}")),
            at,
            acks: vec![(id, at + 10)],
            refused: false,
            unsure: false,
        };
        r.attempts.insert(text.clone(), attempt);
        let m = Message {
            thread: thread.clone(),
            id,
            from: users[writer].into(),
            cid: format!("cid{i}"),
            kind: Kind::Text,
            text,
            users: Vec::new(),
        };
        log.push(m.clone());
        let audience = if in_group && inside { 3 } else { 2 };
        for reader in &mut r.readers[..audience] {
            reader.shown.push(Shown { at: at + 20, live: true, message: m.clone() });
            reader.wire.push((1, m.thread.clone(), id));
        }
    }
    for edge in 0..2 {
        for (u, user) in users.iter().enumerate() {
            for (thread, log) in &logs {
                if u == 2 && thread.starts_with("dm.") {
                    continue;
                }
                let away = |m: &Message| u == 2 && (1_081..1_121).contains(&m.id);
                let messages = log.iter().filter(|m| !away(m)).cloned().collect();
                r.histories.push(History { edge, user: (*user).into(), thread: thread.clone(), messages });
            }
        }
    }
    r
}

#[test]
fn a_healthy_recording_passes_and_every_planted_fault_is_caught() {
    let healthy = healthy();
    let verdict = check(&healthy);
    assert!(verdict.violations.is_empty(), "{verdict}");
    assert_eq!(verdict.acked, 198);
    assert_eq!(caught(&healthy), PLANTS.len());
    // And there is no rule without a fault that it alone has to see.
    assert_eq!(Rule::ALL.len(), Rule::Unsettled as usize + 1);
    for rule in Rule::ALL {
        assert!(PLANTS.iter().any(|(_, of, _)| *of == rule), "{rule:?} was never shown to fail");
    }
}
