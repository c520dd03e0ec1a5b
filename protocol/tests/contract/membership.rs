//! Who may do what in a thread, and what of it they may read: the rules at their edges.

use std::collections::BTreeSet;

use natterjack_protocol::{
    Body, Cid, Code, Entry, Kind, MsgId, Refusal, UserId, limits,
    log::{
        Interval, Intervals, Role,
        fold::{GroupState, ThreadItem, Verdict, apply_group, judge_dm, judge_group, may_send},
    },
};
use proptest::prelude::*;

use super::samples::user;

// Intervals

proptest! {
    /// Against the simplest model there is: walk through the ids and note who was in.
    #[test]
    fn intervals_are_what_was_lived(steps in prop::collection::vec((any::<bool>(), 1u64..5), 0..40)) {
        let (mut intervals, mut lived, mut inside, mut id) = (Intervals::default(), BTreeSet::new(), false, 0u64);
        for (enter, gap) in steps {
            for passed in id..id + gap {
                if inside {
                    lived.insert(passed);
                }
            }
            id += gap;
            if enter { intervals.enter(MsgId(id)) } else { intervals.leave(MsgId(id)) }
            inside = enter;
            prop_assert_eq!(intervals.open(), inside);
        }
        for i in 0..id {
            prop_assert_eq!(intervals.covers(MsgId(i)), lived.contains(&i), "{}", i);
        }
        prop_assert_eq!(intervals.covers(MsgId::MAX), inside);
        for pair in intervals.0.windows(2) {
            prop_assert!(pair[0].until.is_some_and(|u| u <= pair[1].since), "rising");
        }
    }
}

#[test]
fn an_interval_begins_with_its_first_id_and_ends_before_its_last() {
    let i = Intervals(vec![Interval { since: MsgId(10), until: Some(MsgId(20)) }]);
    assert_eq!([9, 10, 19, 20].map(|n| i.covers(MsgId(n))), [false, true, true, false]);
    assert!(!i.open() && !i.is_all() && Intervals::all().is_all() && Intervals::all().covers(MsgId::MAX));
    let mut rejoined_with_everything = i;
    rejoined_with_everything.enter(MsgId::NONE);
    assert!(rejoined_with_everything.is_all(), "earlier parts are inside the new one");
    let mut twice = Intervals::default();
    twice.leave(MsgId(5));
    assert_eq!(twice, Intervals::default(), "leaving what one never entered");
    twice.enter(MsgId(7));
    twice.enter(MsgId(9));
    assert_eq!(twice.0, [Interval { since: MsgId(7), until: None }], "entering twice");
}

// Who may do what

fn entry(from: &str, kind: Kind, users: &[&str]) -> Entry {
    let body = Body { users: users.iter().map(|u| user(u)).collect(), name: Some("g".into()), ..Body::default() };
    Entry::new(user(from), Cid::mint(1, [0; 10]), kind, body)
}

fn renamed(from: &str, name: &str) -> Entry {
    let mut e = entry(from, Kind::GroupRenamed, &[]);
    e.body.name = Some(name.into());
    e
}

fn role_change(from: &str, who: &str, role: Role) -> Entry {
    let mut e = entry(from, Kind::RoleChanged, &[who]);
    e.body.role = Some(role);
    e
}

/// Owners o1 o2, admins a1 a2, members m1 m2, and gone, who left.
fn a_group() -> GroupState {
    let mut g = None;
    let log = [
        entry("o1", Kind::GroupCreated, &["o2", "a1", "a2", "m1", "m2", "gone"]),
        role_change("o1", "o2", Role::Owner),
        role_change("o1", "a1", Role::Admin),
        role_change("o1", "a2", Role::Admin),
        entry("gone", Kind::MemberLeft, &[]),
    ];
    for (i, e) in log.iter().enumerate() {
        assert_eq!(verdict(g.as_ref(), e), Ok(true));
        apply_group(&mut g, MsgId(i as u64 + 1), e);
    }
    g.unwrap()
}

/// May it be made; and does it go into the log, or is it so already?
fn verdict(g: Option<&GroupState>, e: &Entry) -> Result<bool, Code> {
    goes_into_the_log(judge_group(g, &e.from, e.kind, &e.body, limits::GROUP_MEMBERS))
}

fn goes_into_the_log(verdict: Result<Verdict, Refusal>) -> Result<bool, Code> {
    verdict.map(|v| matches!(v, Verdict::Change(_))).map_err(|r| r.code)
}

#[test]
fn every_role_at_every_change() {
    use Code::{Conflict, Forbidden, Invalid, NotFound, NotMember};
    let g = a_group();
    let actors = ["o1", "a1", "m1", "gone", "stranger"];
    let no = |owner, admin, member| [owner, admin, member, Err(NotMember), Err(NotMember)];
    let table: Vec<(Entry, [Result<bool, Code>; 5])> = vec![
        (renamed("x", "h"), no(Ok(true), Ok(true), Err(Forbidden))),
        (renamed("x", "g"), no(Ok(false), Ok(false), Err(Forbidden))),
        (entry("x", Kind::MemberAdded, &["new"]), no(Ok(true), Ok(true), Err(Forbidden))),
        (entry("x", Kind::MemberAdded, &["gone"]), no(Ok(true), Ok(true), Err(Forbidden))),
        (entry("x", Kind::MemberAdded, &["m2"]), no(Ok(false), Ok(false), Err(Forbidden))),
        (entry("x", Kind::MemberAdded, &["m2", "new"]), no(Ok(true), Ok(true), Err(Forbidden))),
        (entry("x", Kind::MemberRemoved, &["m2"]), no(Ok(true), Ok(true), Err(Forbidden))),
        (entry("x", Kind::MemberRemoved, &["a2"]), no(Ok(true), Err(Forbidden), Err(Forbidden))),
        (entry("x", Kind::MemberRemoved, &["o2"]), no(Ok(true), Err(Forbidden), Err(Forbidden))),
        (entry("x", Kind::MemberRemoved, &["m2", "a2"]), no(Ok(true), Err(Forbidden), Err(Forbidden))),
        (entry("x", Kind::MemberAdded, &[]), no(Err(Invalid), Err(Invalid), Err(Forbidden))),
        (entry("x", Kind::MemberRemoved, &["gone"]), no(Ok(false), Ok(false), Err(Forbidden))),
        (entry("x", Kind::MemberRemoved, &[]), no(Err(Invalid), Err(Invalid), Err(Forbidden))),
        (entry("x", Kind::MemberLeft, &[]), [Ok(true), Ok(true), Ok(true), Ok(false), Err(NotMember)]),
        (role_change("x", "m2", Role::Member), no(Ok(false), Err(Forbidden), Err(Forbidden))),
        (role_change("x", "m1", Role::Member), no(Ok(false), Err(Forbidden), Ok(false))),
        (role_change("x", "m2", Role::Admin), no(Ok(true), Err(Forbidden), Err(Forbidden))),
        (role_change("x", "m2", Role::Owner), no(Ok(true), Err(Forbidden), Err(Forbidden))),
        (role_change("x", "o2", Role::Member), no(Ok(true), Err(Forbidden), Err(Forbidden))),
        (role_change("x", "gone", Role::Admin), no(Err(NotFound), Err(Forbidden), Err(Forbidden))),
        (entry("x", Kind::RoleChanged, &["m2"]), no(Err(Invalid), Err(Forbidden), Err(Forbidden))),
        (entry("x", Kind::GroupCreated, &[]), [Ok(false), Ok(false), Ok(false), Ok(false), Err(Conflict)]),
        (entry("x", Kind::Text, &[]), no(Err(Invalid), Err(Invalid), Err(Invalid))),
        (entry("x", Kind::Blocked, &[]), no(Err(Invalid), Err(Invalid), Err(Invalid))),
    ];
    for (change, verdicts) in table {
        for (actor, want) in actors.iter().zip(verdicts) {
            let change = Entry { from: user(actor), ..change.clone() };
            assert_eq!(
                verdict(Some(&g), &change),
                want,
                "{actor}: {:?} {:?} {:?}",
                change.kind,
                change.body.users,
                change.body.role
            );
        }
    }
    for actor in ["o1", "a1"] {
        assert_eq!(
            verdict(Some(&g), &entry(actor, Kind::MemberRemoved, &[actor])),
            Err(Invalid),
            "nobody removes themselves"
        );
    }
    assert_eq!(verdict(None, &entry("o1", Kind::MemberAdded, &["x"])), Err(NotFound));
}

#[test]
fn the_limits_of_a_group() {
    let many = |n: usize| (0..n).map(|i| format!("u{i}")).collect::<Vec<_>>();
    let created = |n: usize, max: usize| {
        let users = many(n);
        let e = entry("o1", Kind::GroupCreated, &users.iter().map(String::as_str).collect::<Vec<_>>());
        goes_into_the_log(judge_group(None, &e.from, e.kind, &e.body, max))
    };
    assert_eq!(created(limits::GROUP_MEMBERS - 1, limits::GROUP_MEMBERS), Ok(true));
    assert_eq!(created(limits::GROUP_MEMBERS, limits::GROUP_MEMBERS), Err(Code::LimitReached));
    assert_eq!(created(limits::USERS_PER_CHANGE + 1, usize::MAX), Err(Code::Invalid));
    let doubled = entry("o1", Kind::GroupCreated, &["o1", "m1", "m1"]);
    assert!(judge_group(None, &doubled.from, doubled.kind, &doubled.body, 2).is_ok(), "people are counted, not names");
    for (chars, want) in
        [(0, false), (1, true), (limits::GROUP_NAME_CHARS, true), (limits::GROUP_NAME_CHARS + 1, false)]
    {
        let mut e = entry("o1", Kind::GroupRenamed, &[]);
        e.body.name = Some("ü".repeat(chars));
        assert_eq!(verdict(Some(&a_group()), &e).is_ok(), want, "{chars}");
    }
    let mut g = Some(a_group());
    let mut id = 100;
    for _ in 0..limits::REJOINS - 1 {
        for e in [entry("o1", Kind::MemberRemoved, &["m1"]), entry("o1", Kind::MemberAdded, &["m1"])] {
            assert_eq!(verdict(g.as_ref(), &e), Ok(true));
            id += 1;
            apply_group(&mut g, MsgId(id), &e);
        }
    }
    apply_group(&mut g, MsgId(id + 1), &entry("o1", Kind::MemberRemoved, &["m1"]));
    assert_eq!(verdict(g.as_ref(), &entry("o1", Kind::MemberAdded, &["m1"])), Err(Code::LimitReached));
}

proptest! {
    /// Whatever is judged allowed keeps a group sound: within its limit, and owned as long as anybody is in it.
    #[test]
    fn allowed_changes_keep_a_group_sound(
        steps in prop::collection::vec((0usize..5, 0usize..5, 0usize..5, 0usize..3), 1..60),
    ) {
        let people = ["a", "b", "c", "d", "e"];
        let kinds = [Kind::GroupCreated, Kind::MemberAdded, Kind::MemberRemoved, Kind::MemberLeft, Kind::RoleChanged];
        let roles = [Role::Member, Role::Admin, Role::Owner];
        let mut g: Option<GroupState> = None;
        for (i, (actor, kind, who, role)) in steps.into_iter().enumerate() {
            let mut e = entry(people[actor], kinds[kind], &[people[who]]);
            e.body.role = Some(roles[role]);
            if judge_group(g.as_ref(), &e.from, e.kind, &e.body, 4).is_ok() {
                apply_group(&mut g, MsgId(i as u64 + 1), &e);
                let g = g.as_ref().unwrap();
                let present: Vec<(&UserId, Role)> = g.present().collect();
                prop_assert!(present.len() <= 4);
                prop_assert!(present.is_empty() || present.iter().any(|(_, r)| *r == Role::Owner));
            }
        }
    }
}

#[test]
fn dms_and_sending() {
    let item = |blocks, blocked_by| {
        let mut intervals = Intervals::default();
        intervals.enter(MsgId(1));
        ThreadItem { v: MsgId(1), intervals, blocks, blocked_by, ..ThreadItem::default() }
    };
    let code = |r: Result<(), Refusal>| r.map_err(|e| e.code);
    assert_eq!(goes_into_the_log(judge_dm(None, Kind::DmStarted)), Ok(true));
    assert_eq!(goes_into_the_log(judge_dm(Some(&item(false, false)), Kind::DmStarted)), Err(Code::Conflict));
    assert_eq!(goes_into_the_log(judge_dm(None, Kind::Blocked)), Ok(true), "also somebody who never wrote");
    assert_eq!(goes_into_the_log(judge_dm(Some(&item(true, false)), Kind::Blocked)), Ok(false));
    assert_eq!(goes_into_the_log(judge_dm(Some(&item(false, true)), Kind::Blocked)), Ok(true), "both may block");
    assert_eq!(
        goes_into_the_log(judge_dm(Some(&item(false, true)), Kind::Unblocked)),
        Ok(false),
        "not by who is blocked"
    );
    assert_eq!(goes_into_the_log(judge_dm(None, Kind::Text)), Err(Code::Invalid));
    assert_eq!(code(may_send(&item(false, false))), Ok(()));
    assert_eq!(code(may_send(&item(true, false))), Err(Code::Blocked));
    assert_eq!(code(may_send(&item(false, true))), Err(Code::Blocked));
    assert_eq!(code(may_send(&ThreadItem::default())), Err(Code::NotMember));
}
