//! The policies of each class at their limits, and what a value keeps and forgets.

use super::*;

pub(super) fn token(s: &str) -> Token {
    Token::parse(s).unwrap()
}

/// A claim of `device` for a session of its own at `edge`.
pub(super) fn hello(device: &str, class: DeviceClass, edge: &str, session: &str, at: u64) -> DeviceClaim {
    DeviceClaim {
        device: token(device),
        class,
        name: Some(format!("{device} of anna")),
        app: None,
        family: token("f1"),
        place: SessionPlace { session: token(session), edge: token(edge), incarnation: "i1".into() },
        had: None,
        at,
        late: false,
    }
}

fn phone(device: &str, session: &str, at: u64) -> DeviceClaim {
    hello(device, DeviceClass::Phone, "e1", session, at)
}

fn claim(value: &mut UserDevices, claim: &DeviceClaim) -> Claimed {
    value.claim(claim, &DevicePolicy::default(), |_| false)
}

fn connected(value: &UserDevices) -> Vec<&str> {
    value.devices.iter().filter(|d| d.session.is_some()).map(|d| d.id.as_str()).collect()
}

/// Whose sessions have to be settled before the greeting.
fn settles(claimed: &Claimed) -> Vec<&str> {
    let Claimed::Yes { settle, .. } = claimed else { panic!("{claimed:?}") };
    settle.iter().map(|u| u.device.as_str()).collect()
}

fn displaced_by(claimed: &Claimed) -> &str {
    let Claimed::Displaced(d) = claimed else { panic!("{claimed:?}") };
    d.by.device.as_str()
}

#[test]
fn a_phone_displaces_the_other_and_the_other_comes_back_only_when_asked_to() {
    let mut value = UserDevices::default();
    assert!(settles(&claim(&mut value, &phone("a", "s1", 1))).is_empty());
    assert_eq!(settles(&claim(&mut value, &phone("b", "s2", 2))), ["a"]);
    assert_eq!(connected(&value), ["b"]);

    let by_itself = DeviceClaim { had: Some(token("s1")), ..phone("a", "s3", 3) };
    let before = value.clone();
    assert_eq!(displaced_by(&claim(&mut value, &by_itself)), "b");
    assert_eq!(value, before, "who is refused changes nothing");
    assert_eq!(settles(&claim(&mut value, &phone("a", "s4", 4))), ["b"], "use here");
    assert_eq!(connected(&value), ["a"]);
}

#[test]
fn who_comes_back_to_a_class_with_room_displaces_nobody_and_is_in() {
    let mut value = UserDevices::default();
    claim(&mut value, &phone("a", "s1", 1));
    claim(&mut value, &phone("b", "s2", 2));
    assert!(value.leave(&token("b"), &token("s2"), 3, &[token("s1")]));
    let back = DeviceClaim { had: Some(token("s1")), ..phone("a", "s3", 4) };
    assert!(settles(&claim(&mut value, &back)).is_empty());
    assert_eq!(connected(&value), ["a"]);
}

#[test]
fn a_device_replaces_its_own_session_keeps_its_place_and_waits_for_nobody() {
    let mut value = UserDevices::default();
    claim(&mut value, &phone("a", "s1", 1));
    for had in [Some(token("s1")), None] {
        let mut value = value.clone();
        let again = DeviceClaim { had, ..hello("a", DeviceClass::Phone, "e2", "s2", 9) };
        let Claimed::Yes { settle, replaced } = claim(&mut value, &again) else { panic!() };
        assert!(settle.is_empty() && replaced.len() == 1 && replaced[0].place.session == token("s1"));
        let entry = value.device(&token("a")).unwrap();
        assert_eq!((entry.since, entry.active), (1, 9));
        assert!(value.leave(&token("a"), &token("s1"), 10, &[]) && value.unsettled.is_empty(), "it has settled itself");
        assert!(!value.leave(&token("a"), &token("s1"), 11, &[]), "the older session's end is not the newer one's");
        assert!(value.has(&token("a"), &token("s2")));
    }
}

/// Or whoever displaced it may have gone again before its edge knew: then the next one would not wait for it.
#[test]
fn what_is_not_settled_is_settled_by_the_next_one() {
    let mut value = UserDevices::default();
    claim(&mut value, &phone("a", "s1", 1));
    claim(&mut value, &phone("b", "s2", 2));
    value.leave(&token("b"), &token("s2"), 3, &[]);
    assert_eq!(settles(&claim(&mut value, &phone("c", "s3", 4))), ["a"]);
    assert!(settles(&claim(&mut value, &hello("t", DeviceClass::Tablet, "e1", "s4", 5))).is_empty(), "another class");
    value.leave(&token("c"), &token("s3"), 6, &[token("s1")]);
    assert!(settles(&claim(&mut value, &phone("d", "s5", 7))).is_empty());
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    let mut value = UserDevices::default();
    claim(&mut value, &phone("a", "s1", 1));
    let first = claim(&mut value, &phone("b", "s2", 2));
    let written = value.clone();
    assert_eq!(claim(&mut value, &phone("b", "s2", 2)), first);
    assert_eq!(value, written);
}

#[test]
fn each_class_at_its_limit() {
    use DeviceClass::{Desktop, Other, Phone, Tablet, Web};
    for (class, count) in [(Phone, 1), (Tablet, 1), (Desktop, 5), (Web, 5), (Other, 10)] {
        for way in [GivesWay::Oldest, GivesWay::LeastActive, GivesWay::Nobody] {
            let mut policy = DevicePolicy::default();
            let own = match class {
                Phone => &mut policy.phone,
                Tablet => &mut policy.tablet,
                Desktop => &mut policy.desktop,
                Web => &mut policy.web,
                Other => &mut policy.other,
            };
            assert_eq!(own.count, count);
            own.gives_way = way;
            let mut value = UserDevices::default();
            let mut ask = |device: String, session: String, at| {
                value.claim(&hello(&device, class, "e1", &session, at), &policy, |_| false)
            };
            for n in 0..count {
                assert!(settles(&ask(format!("d{n}"), format!("s{n}"), n as u64)).is_empty());
            }
            // The oldest one says hello again: of several another one is now the least active.
            assert!(settles(&ask("d0".into(), "again".into(), 100)).is_empty());
            let one_more = ask("new".into(), "new".into(), 101);
            let least_active = if count > 1 { "d1" } else { "d0" };
            match way {
                GivesWay::Nobody => assert_eq!(one_more, Claimed::Full { count }),
                GivesWay::Oldest => assert!(settles(&one_more).contains(&"d0") && connected(&value).len() == count),
                GivesWay::LeastActive => assert!(settles(&one_more).contains(&least_active)),
            }
            assert_eq!(connected(&value).len(), count);
        }
    }
}

#[test]
fn whose_edge_is_gone_gives_way_first_whatever_the_policy() {
    let refuse = ClassPolicy { count: 2, gives_way: GivesWay::Nobody };
    let policy = DevicePolicy { phone: refuse, ..DevicePolicy::default() };
    let gone = |place: &SessionPlace| place.edge.as_str() == "dead";
    let mut value = UserDevices::default();
    value.claim(&phone("a", "s1", 1), &policy, gone);
    value.claim(&hello("b", DeviceClass::Phone, "dead", "s2", 2), &policy, gone);
    assert_eq!(settles(&value.claim(&phone("c", "s3", 3), &policy, gone)), ["b"], "asked all the same");
    assert_eq!(connected(&value), ["a", "c"]);
    assert_eq!(value.claim(&phone("d", "s4", 4), &policy, gone), Claimed::Full { count: 2 });
    // Long afterwards nobody is asked: an edge without a lease has read the value since, or is no more.
    value.leave(&token("c"), &token("s3"), 5, &[]);
    assert!(settles(&value.claim(&phone("d", "s4", 2 + 61_000), &policy, gone)).is_empty());
}

#[test]
fn who_was_let_in_without_being_asked_about_gives_way_to_those_who_came_later() {
    let late = |device: &str, session: &str, at| DeviceClaim { late: true, ..phone(device, session, at) };
    let mut value = UserDevices::default();
    claim(&mut value, &phone("in", "s0", 1));
    assert_eq!(settles(&claim(&mut value, &late("b", "s2", 20))), ["in"], "it came when the bucket was away");
    assert_eq!(displaced_by(&claim(&mut value, &late("a", "s1", 10))), "b");
    assert_eq!(settles(&claim(&mut value, &late("c", "s3", 30))), ["in", "b"]);
}

#[test]
fn who_was_displaced_writes_nothing_until_there_is_room() {
    let policy = DevicePolicy::default();
    let mut value = UserDevices::default();
    assert!(value.displaced_now(&token("bot"), &policy).is_none());
    claim(&mut value, &phone("a", "s1", 1));
    claim(&mut value, &phone("b", "s2", 2));
    let by = value.displaced_now(&token("a"), &policy).unwrap();
    assert_eq!((by.by.device.as_str(), by.by.name.as_deref(), by.since), ("b", Some("b of anna"), 2));
    assert!(value.displaced_now(&token("b"), &policy).is_none());
    value.leave(&token("b"), &token("s2"), 3, &[]);
    assert!(value.displaced_now(&token("a"), &policy).is_none());
}

#[test]
fn devices_that_are_not_connected_make_room() {
    let many = ClassPolicy { count: limits::USER_DEVICES + 8, gives_way: GivesWay::Nobody };
    let policy = DevicePolicy { other: many, ..DevicePolicy::default() };
    let (name, mut value) = ("🐸".repeat(limits::DEVICE_NAME_CHARS), UserDevices::default());
    let ask = |n: usize| DeviceClaim {
        name: Some(name.clone()),
        app: Some("🐸".repeat(limits::APP_CHARS)),
        ..hello(&format!("{n:0>64}"), DeviceClass::Other, &"e".repeat(64), &format!("{n:0>17}"), n as u64)
    };
    for n in 0..200 {
        assert_eq!(settles(&value.claim(&ask(n), &policy, |_| false)).len(), 0);
        assert!(value.leave(&ask(n).device, &ask(n).place.session, n as u64, &[]));
        assert!(value.devices.len() <= limits::USER_DEVICES && value.bytes() <= limits::USER_DEVICES_BYTES);
        assert!(value.device(&ask(n).device).is_some());
    }
    // Connected ones stay.
    let mut came = 0;
    while value.claim(&ask(1_000 + came), &policy, |_| false) != Claimed::NoRoom {
        came += 1;
    }
    assert!((11..=limits::USER_DEVICES).contains(&came) && connected(&value).len() == came, "{came}");
    assert!(value.bytes() <= limits::USER_DEVICES_BYTES);
}

#[test]
fn an_ended_login_is_no_device_any_more_and_its_session_is_settled() {
    let mut value = UserDevices::default();
    claim(&mut value, &phone("a", "s1", 1));
    assert!(!value.forget(&token("a"), &token("f0"), 2), "it came with another login since");
    assert!(value.forget(&token("a"), &token("f1"), 2) && value.devices.is_empty());
    assert!(!value.forget(&token("a"), &token("f1"), 3));
    assert_eq!(value.last_left(), Some(2), "its user was here until then");
    assert_eq!(settles(&claim(&mut value, &phone("b", "s2", 4))), ["a"]);
    assert!(value.leave(&token("b"), &token("s2"), 9, &[token("s1")]) && value.unsettled.is_empty());
    assert_eq!(value.last_left(), Some(9));
}

/// Its old connections are found dead later, at whatever edge they were.
#[test]
fn a_phone_that_always_comes_back_before_it_has_left_gets_in() {
    let mut value = UserDevices::default();
    let ask = |n: u64| DeviceClaim {
        place: SessionPlace { edge: token(&format!("e{}", n % 2)), ..phone("a", &format!("s{n}"), n).place },
        ..phone("a", &format!("s{n}"), n)
    };
    for n in 0..500 {
        let Claimed::Yes { settle, replaced } = claim(&mut value, &ask(n)) else { panic!("{n}: {value:?}") };
        assert!(settle.is_empty() && replaced.len() <= 1);
        if let Some(old) = n.checked_sub(1).map(ask) {
            assert!(value.leave(&old.device, &old.place.session, n, &[]), "its own session is settled");
        }
    }
    assert!(value.unsettled.is_empty() && connected(&value) == ["a"]);
}

#[test]
fn the_configuration_spells_who_gives_way_as_the_value_does() {
    for (way, name) in GivesWay::ALL {
        assert_eq!(GivesWay::parse(name), Some(way));
        assert_eq!(serde_json::to_value(way).unwrap(), name);
    }
    assert_eq!(GivesWay::parse("nobody"), None);
    assert!(DevicePolicy::default().total() <= limits::USER_DEVICES);
}
