//! A made-up recording in which every promise is kept.

use natterjack_protocol::{
    Kind,
    client::{frame::DeviceClass, presence::PresenceState},
};

use crate::{
    record::{
        Attempt, Connection, Handing, History, Message, Outage, Reader, Recording, Shown,
        reading::{ListedThread, ReadReceipt, ReadSaid, ReadStored},
    },
    rules::{Rng, Target},
};

/// Three people in a DM and a group, one of them removed for a while; two edges.
pub fn healthy() -> Recording {
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
    people(&mut r);
    reading(&mut r);
    r
}

/// Each says now and then what they have read, and reads no more from the 150th message on. Another is told of it.
fn reading(r: &mut Recording) {
    let some = r.readers.iter().flat_map(|x| {
        let some = x.shown.iter().step_by(7).filter(|s| s.message.id < 1_150);
        some.map(|s| (x.user.clone(), s.message.thread.clone(), s.message.id, s.at))
    });
    let told: Vec<(String, String, u64, u64)> = some.collect();
    for (user, thread, id, at) in told {
        let of = (user.clone(), thread.clone());
        r.reading.said.push(ReadSaid { at, user, thread, id, repeats: true });
        let (user, thread) = of.clone();
        r.reading.stored.push(ReadStored { asked: Some(at), at: at + 100, user, thread, id });
        let (user, thread) = of;
        r.reading.receipts.push(ReadReceipt { at: at + 200, to: "a".into(), user, thread, id });
    }
    for h in &r.histories {
        let stored = r.reading.stored.iter().filter(|s| s.user == h.user && s.thread == h.thread);
        let read = stored.map(|s| s.id).max().unwrap_or(0);
        let of_others = h.messages.iter().filter(|m| m.kind.is_message() && m.from != h.user && m.id > read);
        r.reading.listed.push(ListedThread {
            asked: SECOND,
            edge: h.edge,
            user: h.user.clone(),
            thread: h.thread.clone(),
            last: h.messages.last().map(|m| m.id),
            read: Some(read),
            unread: Some(of_others.count().min(100) as u64),
            settled: true,
        });
        r.reading.ends.insert(h.thread.clone(), 1_200);
    }
}

const SECOND: u64 = 1_000_000;

fn connection(user: &str, device: &str, from: u64, to: u64) -> Connection {
    Connection {
        user: user.into(),
        device: device.into(),
        class: DeviceClass::Phone,
        edge: 0,
        by_itself: false,
        hello: from * SECOND,
        greeted: Some(from * SECOND + 100),
        ended: Some(to * SECOND),
        displaced_by: None,
        sends: Vec::new(),
        heard: vec![(from * SECOND, to * SECOND)],
        presence: Vec::new(),
    }
}

/// Two minutes: somebody with two phones that take turns, somebody who leaves after 20 s, and their friend. The role
/// stands still from the 60th to the 68th second.
fn people(r: &mut Recording) {
    let phone = |n: u64| if n.is_multiple_of(2) { "phone" } else { "other" };
    for n in 0..12 {
        let handing = |at: u64| Handing { text: format!("turn-{n}-{at}"), begun: at, acked: Some(at + 500) };
        let (from, to) = (n * 10, n * 10 + 10);
        r.connections.push(Connection {
            displaced_by: Some(phone(n + 1).into()),
            sends: vec![handing(from * SECOND + 1_000), handing(to * SECOND - 1_000)],
            ..connection("a", phone(n), from, to)
        });
    }
    r.connections.push(connection("c", "c1", 0, 20));
    let mut friend = connection("b", "b1", 0, 120);
    let mut shown = |at: u64, user: &str, state| friend.presence.push((at * SECOND, user.into(), state));
    for user in ["a", "c"] {
        shown(1, user, PresenceState::Online);
    }
    shown(31, "c", PresenceState::Offline);
    for (at, here, gone) in
        [(63, PresenceState::Unknown, PresenceState::Unknown), (70, PresenceState::Online, PresenceState::Offline)]
    {
        shown(at, "a", here);
        shown(at, "c", gone);
    }
    r.connections.push(friend);
    // On its way in when all are told to stop.
    r.connections.push(connection("b", "b2", 122, 122));
    r.outages.push(Outage { of: Target::Presence(0), from: 60 * SECOND, to: Some(68 * SECOND) });
}
