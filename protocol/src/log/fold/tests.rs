use proptest::prelude::*;

use super::*;
use crate::cid::Cid;

pub(super) fn user(s: &str) -> UserId {
    UserId::parse(s).unwrap()
}

pub(super) fn ctl(from: &str, kind: Kind, users: &[&str]) -> Entry {
    let body = Body { users: users.iter().map(|u| user(u)).collect(), name: Some("g".into()), ..Body::default() };
    Entry::new(user(from), Cid::mint(1, [0; 10]), kind, body)
}

pub(super) fn role_of(from: &str, who: &str, role: Role) -> Entry {
    let mut e = ctl(from, Kind::RoleChanged, &[who]);
    e.body.role = Some(role);
    e
}

#[test]
fn joining_again_neither_exposes_nor_erases_the_middle() {
    let mut g = None;
    apply_group(&mut g, MsgId(10), &ctl("a", Kind::GroupCreated, &["b"]));
    apply_group(&mut g, MsgId(20), &ctl("a", Kind::MemberRemoved, &["b"]));
    apply_group(&mut g, MsgId(30), &ctl("a", Kind::MemberAdded, &["b"]));
    let i = g.unwrap().item(&user("b")).unwrap().intervals;
    let seen: Vec<u64> = (1..40).filter(|id| i.covers(MsgId(*id))).collect();
    assert_eq!(seen, (10..20).chain(30..40).collect::<Vec<_>>());
}

#[test]
fn a_block_is_one_sided() {
    let (a, b) = (user("a"), user("b"));
    let item = |i: Option<&ThreadItem>, me: &UserId, id, e: &Entry| apply_dm(i, me, MsgId(id), e);
    let started = ctl("a", Kind::DmStarted, &[]);
    let (ia, ib) = (item(None, &a, 1, &started).unwrap(), item(None, &b, 1, &started).unwrap());
    let block = ctl("b", Kind::Blocked, &[]);
    let (ia, ib) = (item(Some(&ia), &a, 5, &block).unwrap(), item(Some(&ib), &b, 5, &block).unwrap());
    assert!(may_send(&ia).is_err() && may_send(&ib).is_err());
    assert_eq!(judge_dm(Some(&ia), Kind::Unblocked), Ok(Verdict::Already(MsgId(1))), "only who blocks can unblock");
    assert_eq!(judge_dm(None, Kind::Unblocked), Ok(Verdict::Already(MsgId::NONE)));
    assert!(item(Some(&ia), &a, 5, &block).is_none(), "idempotent");
    let unblock = ctl("b", Kind::Unblocked, &[]);
    assert!(may_send(&item(Some(&ia), &a, 9, &unblock).unwrap()).is_ok());
}

/// Neither the block nor its end shows itself to the other, whenever they fall.
#[test]
fn who_is_blocked_does_not_know_it() {
    let (a, b) = (user("a"), user("b"));
    let log = [(1, "a", Kind::Blocked), (2, "a", Kind::Unblocked), (3, "b", Kind::DmStarted), (4, "a", Kind::Blocked)];
    let (mut of_a, mut of_b): (Option<ThreadItem>, Option<ThreadItem>) = (None, None);
    let mut seen = Vec::new();
    for (id, from, kind) in log {
        let entry = ctl(from, kind, &[]);
        if kind == Kind::DmStarted {
            assert!(judge_dm(of_b.as_ref(), kind).is_ok(), "it was only a block");
        }
        for (me, item) in [(&a, &mut of_a), (&b, &mut of_b)] {
            *item = apply_dm(item.as_ref(), me, MsgId(id), &entry);
        }
        let told = |i: &Option<ThreadItem>| i.as_ref().map(|i| (i.known_to().0, i.open())).unwrap();
        seen.push((told(&of_a), told(&of_b)));
        if kind == Kind::Blocked {
            assert!(
                judge_dm(of_b.as_ref(), Kind::DmStarted).is_err() && judge_dm(of_a.as_ref(), Kind::DmStarted).is_err()
            );
        }
    }
    let want = [((1, false), (0, true)), ((2, true), (0, true)), ((3, true), (3, true)), ((4, false), (3, true))];
    assert_eq!(seen, want);
    assert!(of_b.is_some_and(|i| i.visible() && may_send(&i).is_err()));
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let who = prop::sample::select(vec!["a", "b", "c", "d"]);
    let kinds = vec![
        Kind::GroupCreated,
        Kind::MemberAdded,
        Kind::MemberRemoved,
        Kind::MemberLeft,
        Kind::RoleChanged,
        Kind::GroupRenamed,
    ];
    let role = prop::sample::select(vec![Role::Member, Role::Admin, Role::Owner]);
    (who.clone(), prop::sample::select(kinds), prop::collection::vec(who, 0..3), role).prop_map(
        |(from, kind, users, role)| {
            let mut e = ctl(from, kind, &users);
            e.body.role = Some(role);
            e
        },
    )
}

proptest! {
    /// However often and from wherever a reader replays the log, it ends with one state; and the items that were
    /// handed out on the way, merged in any order, are the items of that state.
    #[test]
    fn replays_end_with_one_state(
        log in prop::collection::vec(any_entry(), 1..40),
        restarts in prop::collection::vec((0usize..40, 0usize..40), 0..4),
        order in any::<u64>(),
    ) {
        let mut once = None;
        for (i, e) in log.iter().enumerate() {
            apply_group(&mut once, MsgId(i as u64 + 1), e);
        }
        let mut again = None;
        let mut handed_out: Vec<(UserId, ThreadItem)> = Vec::new();
        let mut run = |from: usize, to: usize, state: &mut Option<GroupState>| {
            for (i, e) in log.iter().enumerate().take(to).skip(from) {
                for user in apply_group(state, MsgId(i as u64 + 1), e) {
                    let item = state.as_ref().and_then(|g| g.item(&user)).unwrap();
                    handed_out.push((user, item));
                }
            }
        };
        let mut done = 0;
        for (back, ahead) in restarts {
            let to = (done + ahead).min(log.len());
            run(done.saturating_sub(back), to, &mut again);
            done = done.max(to);
        }
        run(done, log.len(), &mut again);
        prop_assert_eq!(&once, &again);
        let seeded = |text: String| xxhash_rust::xxh3::xxh3_64_with_seed(text.as_bytes(), order);
        handed_out.sort_by_key(|(u, i)| seeded(format!("{u}{}", i.v)));
        let thread = Thread::group(&user("g"));
        let mut users: BTreeMap<UserId, UserThreads> = BTreeMap::new();
        for (user, item) in handed_out {
            users.entry(user).or_default().merge(&thread, item);
        }
        if let Some(g) = once {
            for (user, m) in &g.members {
                let item = &users[user].threads[&thread];
                prop_assert_eq!((&item.intervals, item.role), (&m.intervals, m.role));
            }
            prop_assert!(g.members.values().all(|m| m.role.is_some() == m.intervals.open()));
        }
    }
}
