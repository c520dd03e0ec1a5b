use super::*;
use crate::log::{
    Entry,
    fold::{
        apply_group,
        tests::{ctl, role_of, user},
    },
};

#[test]
fn the_last_owner_stays() {
    let mut g = None;
    apply_group(&mut g, MsgId(1), &ctl("a", Kind::GroupCreated, &["b"]));
    let judge = |g: &Option<GroupState>, e: &Entry| judge_group(g.as_ref(), &e.from, e.kind, &e.body, 500);
    assert_eq!(judge(&g, &ctl("a", Kind::MemberLeft, &[])).unwrap_err().code, Code::Conflict);
    assert_eq!(judge(&g, &role_of("a", "a", Role::Member)).unwrap_err().code, Code::Conflict);
    assert_eq!(judge(&g, &role_of("b", "b", Role::Owner)).unwrap_err().code, Code::Forbidden);
    assert!(judge(&g, &role_of("a", "b", Role::Owner)).is_ok());
    apply_group(&mut g, MsgId(2), &role_of("a", "b", Role::Owner));
    assert!(judge(&g, &ctl("a", Kind::MemberLeft, &[])).is_ok());
    apply_group(&mut g, MsgId(3), &ctl("a", Kind::MemberLeft, &[]));
    assert!(judge(&g, &ctl("b", Kind::MemberLeft, &[])).is_ok(), "the last person may go");
    assert_eq!(judge(&g, &ctl("a", Kind::MemberAdded, &["a"])).unwrap_err().code, Code::NotMember);
}

/// Each change, judged again after it was folded: nothing more to do, and no refusal, whatever it did to who made
/// it.
#[test]
fn a_change_that_was_made_is_none_when_it_is_repeated() {
    let mut g = None;
    let named = |from: &str, name: &str| Entry {
        body: Body { name: Some(name.into()), ..Body::default() },
        ..ctl(from, Kind::GroupRenamed, &[])
    };
    let log = [
        ctl("a", Kind::GroupCreated, &["b", "c"]),
        named("a", "pond"),
        ctl("a", Kind::MemberAdded, &["d", "e"]),
        ctl("a", Kind::MemberRemoved, &["c"]),
        role_of("a", "b", Role::Owner),
        role_of("a", "a", Role::Member),
        ctl("a", Kind::MemberLeft, &[]),
        ctl("b", Kind::MemberRemoved, &["d"]),
    ];
    for (id, e) in log.iter().enumerate().map(|(i, e)| (MsgId(i as u64 + 1), e)) {
        let judge = |g: &Option<GroupState>| judge_group(g.as_ref(), &e.from, e.kind, &e.body, 500).unwrap();
        assert!(matches!(judge(&g), Verdict::Change(_)), "{e:?}");
        apply_group(&mut g, id, e);
        assert_eq!(judge(&g), Verdict::Already(id), "{e:?}");
    }
    let judge = |e: &Entry| judge_group(g.as_ref(), &e.from, e.kind, &e.body, 500);
    assert_eq!(
        judge(&ctl("a", Kind::GroupCreated, &["x"])),
        Ok(Verdict::Already(MsgId(7))),
        "nothing of what came after they left"
    );
    assert_eq!(judge(&ctl("a", Kind::MemberLeft, &[])), Ok(Verdict::Already(MsgId(7))));
    assert_eq!(judge(&named("b", "pond")), Ok(Verdict::Already(MsgId(8))), "as of the last one, whatever that changed");
    assert_eq!(judge(&ctl("x", Kind::MemberLeft, &[])).unwrap_err().code, Code::NotMember);
    assert_eq!(judge(&ctl("x", Kind::GroupCreated, &[])).unwrap_err().code, Code::Conflict);
    let Ok(Verdict::Change(body)) = judge(&ctl("b", Kind::MemberAdded, &["e", "f", "b", "f"])) else {
        panic!("f is new")
    };
    assert_eq!(body.users, [user("f")], "nobody is added a second time");
    let Ok(Verdict::Change(body)) = judge(&ctl("b", Kind::MemberRemoved, &["d", "e"])) else { panic!("e is there") };
    assert_eq!(body.users, [user("e")], "nobody is removed a second time");
    assert_eq!(judge(&ctl("b", Kind::MemberAdded, &[])).unwrap_err().code, Code::Invalid);
    assert_eq!(
        judge(&role_of("e", "f", Role::Member)).unwrap_err().code,
        Code::Forbidden,
        "roles of others are the owners' affair"
    );
}

#[test]
fn a_group_is_full_at_its_limit() {
    let others: Vec<String> = (1..500).map(|i| format!("u{i}")).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let e = ctl("a", Kind::GroupCreated, &others);
    assert!(judge_group(None, &e.from, e.kind, &e.body, 500).is_ok());
    let mut g = None;
    apply_group(&mut g, MsgId(1), &e);
    let more = ctl("a", Kind::MemberAdded, &["one-more"]);
    assert_eq!(judge_group(g.as_ref(), &more.from, more.kind, &more.body, 500).unwrap_err().code, Code::LimitReached);
}

/// 500 people who joined again and again, as often as they may.
#[test]
fn the_state_of_a_group_stays_below_what_can_be_written() {
    let everybody: Vec<String> = (0..499).map(|i| format!("u{i:016}")).collect();
    let everybody: Vec<&str> = everybody.iter().map(String::as_str).collect();
    let mut g = None;
    apply_group(&mut g, MsgId(1 << 50), &ctl("a", Kind::GroupCreated, &everybody));
    for n in 1.. {
        apply_group(&mut g, MsgId((1 << 50) + 2 * n), &ctl("a", Kind::MemberRemoved, &everybody));
        let again = ctl("a", Kind::MemberAdded, &everybody);
        if let Err(e) = judge_group(g.as_ref(), &again.from, again.kind, &again.body, 500) {
            assert_eq!(e.code, Code::LimitReached);
            assert!(n < limits::REJOINS as u64, "by its size, not by their number");
            break;
        }
        apply_group(&mut g, MsgId((1 << 50) + 2 * n + 1), &again);
    }
    let bytes = rmp_serde::to_vec_named(&g).unwrap().len();
    assert!((limits::STATE_BYTES / 2..limits::PAYLOAD_BYTES - 10_000).contains(&bytes), "{bytes}");
    // The largest one that may be: 5,000 members and former members.
    let many = |from: usize| (from..from + 499).map(|i| format!("u{i:016}")).collect::<Vec<_>>();
    let mut g = None;
    for n in 0..10u64 {
        let some = many(n as usize * 499);
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        let (kind, at) = (if n == 0 { Kind::GroupCreated } else { Kind::MemberAdded }, MsgId((1 << 50) + 2 * n));
        let e = ctl("a", kind, &some);
        assert!(judge_group(g.as_ref(), &e.from, e.kind, &e.body, 500).is_ok(), "{n}");
        apply_group(&mut g, at, &e);
        apply_group(&mut g, at.next(), &ctl("a", Kind::MemberRemoved, &some));
    }
}
