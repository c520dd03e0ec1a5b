//! What the keys in KV should be, from the archive's state and the control entries above its watermark. Pure; `rebuild`
//! reads and writes.
//!
//! An entry that the archive has already may be given again: versions and items' `v` are ids of control entries and
//! only grow.

use std::collections::{BTreeMap, BTreeSet};

use natterjack_protocol::{
    Entry, MsgId, Thread, UserId,
    log::fold::{GroupState, ThreadItem, UserThreads, apply_dm, apply_group, named},
};

/// A control entry with its place in the log.
#[derive(Debug, Clone)]
pub struct ControlRecord {
    pub id: MsgId,
    pub thread: Thread,
    pub entry: Entry,
}

/// The groups in which something happened to this user.
pub fn groups_touching(user: &UserId, controls: &[ControlRecord]) -> BTreeSet<Thread> {
    let touches =
        |c: &&ControlRecord| matches!(c.thread, Thread::Group { .. }) && named(&c.thread, &c.entry).contains(user);
    controls.iter().filter(touches).map(|c| c.thread.clone()).collect()
}

/// Folds what is in `controls` of this group; `stored` is its state in the archive.
pub fn group(thread: &Thread, stored: Option<GroupState>, controls: &[ControlRecord]) -> Option<GroupState> {
    let mut group = stored;
    for c in controls.iter().filter(|c| c.thread == *thread) {
        apply_group(&mut group, c.id, &c.entry);
    }
    group
}

/// A user's threads: the archived items, DMs folded on, and the item of each group that `groups_touching` named, as it
/// stands after its fold.
pub fn user(
    user: &UserId,
    archived: Vec<(Thread, ThreadItem)>,
    groups: &BTreeMap<Thread, Option<GroupState>>,
    controls: &[ControlRecord],
) -> UserThreads {
    let mut threads = UserThreads::default();
    for (thread, item) in archived {
        threads.merge(&thread, item);
    }
    for c in controls.iter().filter(|c| c.thread.dm_users().any(|u| u == user)) {
        if let Some(item) = apply_dm(threads.threads.get(&c.thread), user, c.id, &c.entry) {
            threads.merge(&c.thread, item);
        }
    }
    for (thread, stored) in groups {
        if let Some(item) = group(thread, stored.clone(), controls).and_then(|g| g.item(user)) {
            threads.merge(thread, item);
        }
    }
    threads
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{Body, Cid, Kind, merge::MaxMerge};
    use proptest::prelude::*;

    use super::*;

    fn id(s: &str) -> UserId {
        UserId::parse(s).unwrap()
    }

    fn control(at: u64, thread: &str, from: &str, kind: Kind, users: &[&str]) -> ControlRecord {
        let body = Body { users: users.iter().map(|u| id(u)).collect(), name: Some("g".into()), ..Body::default() };
        ControlRecord {
            id: MsgId(at),
            thread: thread.parse().unwrap(),
            entry: Entry::new(id(from), Cid::mint(1, [0; 10]), kind, body),
        }
    }

    type Groups = BTreeMap<Thread, Option<GroupState>>;

    /// As the archive would have it after the first `n` entries.
    fn archive(n: usize, log: &[ControlRecord], who: &UserId) -> (Vec<(Thread, ThreadItem)>, Groups) {
        let (seen, none) = (&log[..n], BTreeMap::new());
        let groups: Groups = log
            .iter()
            .filter(|c| c.thread.dm_users().next().is_none())
            .map(|c| (c.thread.clone(), group(&c.thread, None, seen)))
            .collect();
        let items = user(who, Vec::new(), &none, seen).threads.into_iter();
        let of_groups = groups.iter().filter_map(|(t, g)| Some((t.clone(), g.as_ref()?.item(who)?)));
        (items.chain(of_groups).collect(), groups)
    }

    fn any_control() -> impl Strategy<Value = (usize, usize, usize, Vec<usize>)> {
        (0usize..3, 0usize..3, 0usize..6, prop::collection::vec(0usize..3, 0..3))
    }

    proptest! {
        /// Wherever the watermark stands, and however far below it the reading began, the outcome is that of the whole
        /// log.
        #[test]
        fn the_watermark_does_not_matter(
            raw in prop::collection::vec(any_control(), 1..30),
            mark in 0usize..30,
            back in 0usize..5,
        ) {
            const USERS: [&str; 3] = ["a", "b", "c"];
            let log: Vec<ControlRecord> = raw.iter().enumerate().map(|(i, (t, from, kind, users))| {
                let thread = ["dm.a.b", "group.g", "group.h"][*t];
                let from = if *t == 0 { USERS[from % 2] } else { USERS[*from] };
                let kind = if *t == 0 {
                    [Kind::DmStarted, Kind::Blocked, Kind::Unblocked][kind % 3]
                } else {
                    [
                        Kind::GroupCreated,
                        Kind::MemberAdded,
                        Kind::MemberRemoved,
                        Kind::MemberLeft,
                        Kind::GroupRenamed,
                        Kind::MemberAdded,
                    ][*kind]
                };
                let users: Vec<&str> = users.iter().map(|u| USERS[*u]).collect();
                control(i as u64 + 1, thread, from, kind, &users)
            }).collect();
            let mark = mark.min(log.len());
            let above = &log[mark.saturating_sub(back)..];
            for who in USERS.map(id) {
                let (items, groups) = archive(mark, &log, &who);
                let touched: BTreeMap<_, _> =
                    groups_touching(&who, above).into_iter().map(|t| { let g = groups[&t].clone(); (t, g) }).collect();
                let rebuilt = user(&who, items, &touched, above);
                let (whole, _) = archive(log.len(), &log, &who);
                let plain = |threads: Vec<(Thread, ThreadItem)>| -> BTreeMap<Thread, ThreadItem> {
                    threads.into_iter().map(|(t, i)| (t, ThreadItem { v: MsgId::NONE, ..i })).collect()
                };
                prop_assert_eq!(plain(rebuilt.threads.into_iter().collect()), plain(whole));
            }
        }
    }

    #[test]
    fn what_stands_and_is_newer_stays() {
        let built = user(&id("a"), Vec::new(), &BTreeMap::new(), &[control(3, "dm.a.b", "a", Kind::DmStarted, &[])]);
        let blocked = [control(3, "dm.a.b", "a", Kind::DmStarted, &[]), control(4, "dm.a.b", "a", Kind::Blocked, &[])];
        let mut standing = user(&id("a"), Vec::new(), &BTreeMap::new(), &blocked);
        assert!(!standing.merge_max(&built));
        assert!(UserThreads::default().merge_max(&built));
    }
}
