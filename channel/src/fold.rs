//! Step 4, control entries: what a run of them asks of KV, and who has to be told. In: control entries in log order and
//! the values as they stand; out: the new values and the users affected. Pure; `kv_folder` reads and writes, and does
//! it before the entries are published, so that who is told can also read it.
//!
//! Everything here may be done twice, by two instances at once, and from any earlier entry on: a group's version and an
//! item's `v` are ids of control entries and only grow.

use std::{collections::BTreeMap, sync::Arc};

use natterjack_protocol::{
    Entry, GroupId, Kind, MsgId, Thread, UserId,
    log::fold::{GroupState, ThreadItem, UserThreads, apply_dm, apply_group, named},
};

/// A control entry with its place in the log.
#[derive(Debug, Clone)]
pub struct ControlChange {
    pub id: MsgId,
    pub thread: Thread,
    pub entry: Entry,
}

/// What one change does to one user's `<uid>.threads`.
#[derive(Debug, Clone)]
pub enum UserChange {
    /// The item as the group's state has it.
    Item { thread: Thread, item: ThreadItem },
    /// A DM has no key of its own: its state is folded in each user's item.
    Dm(Arc<ControlChange>),
}

impl UserChange {
    pub fn thread(&self) -> &Thread {
        match self {
            Self::Item { thread, .. } => thread,
            Self::Dm(change) => &change.thread,
        }
    }
}

/// The changes of each group, in log order.
pub fn by_group(changes: &[ControlChange]) -> BTreeMap<GroupId, Vec<&ControlChange>> {
    let mut groups: BTreeMap<GroupId, Vec<&ControlChange>> = BTreeMap::new();
    for change in changes {
        if let Thread::Group { gid } = &change.thread {
            groups.entry(gid.clone()).or_default().push(change);
        }
    }
    groups
}

/// The changes of DMs, for each of their users, in log order.
pub fn by_dm_user(changes: &[ControlChange]) -> BTreeMap<UserId, Vec<UserChange>> {
    let mut users: BTreeMap<UserId, Vec<UserChange>> = BTreeMap::new();
    for change in changes.iter().filter(|c| matches!(c.thread, Thread::Dm { .. })) {
        let shared = Arc::new(change.clone());
        for user in change.thread.dm_users() {
            users.entry(user.clone()).or_default().push(UserChange::Dm(shared.clone()));
        }
    }
    users
}

/// A group without a key was lost, unless its first entry is among these.
pub fn lost(group: Option<&GroupState>, changes: &[&ControlChange]) -> bool {
    group.is_none() && changes.first().is_some_and(|c| c.entry.kind != Kind::GroupCreated)
}

/// Folds changes into a group. `group` is written back if the version moved; each user named gets the item.
///
/// A change at or below the version was folded before, perhaps by somebody who died before the users' keys were
/// written: its users get the item of the state as it stands.
pub fn fold_group(group: &mut Option<GroupState>, changes: &[&ControlChange]) -> Vec<(MsgId, UserId, ThreadItem)> {
    let mut out = Vec::new();
    for change in changes {
        let known = group.as_ref().is_some_and(|g| g.version >= change.id);
        let users = if known { touched(change) } else { apply_group(group, change.id, &change.entry) };
        for user in users {
            if let Some(item) = group.as_ref().and_then(|g| g.item(&user)) {
                out.push((change.id, user, item));
            }
        }
    }
    out
}

/// Folds one user's changes; says whether anything is new.
pub fn fold_user<'a>(
    threads: &mut UserThreads,
    me: &UserId,
    changes: impl IntoIterator<Item = &'a UserChange>,
) -> bool {
    let mut new = false;
    for change in changes {
        new |= match change {
            UserChange::Item { thread, item } => threads.merge(thread, item.clone()),
            UserChange::Dm(change) => match apply_dm(threads.threads.get(&change.thread), me, change.id, &change.entry)
            {
                Some(item) => threads.merge(&change.thread, item),
                None => false,
            },
        };
    }
    new
}

/// The users whose own item an entry may have changed, judged by the entry alone: a rename touches nobody's.
fn touched(change: &ControlChange) -> Vec<UserId> {
    match change.entry.kind {
        Kind::MemberAdded | Kind::MemberRemoved | Kind::RoleChanged => change.entry.body.users.clone(),
        Kind::GroupCreated | Kind::MemberLeft => named(&change.thread, &change.entry),
        _ => Vec::new(),
    }
}

/// Who gets a `member` signal for a change: both users of a DM; of a group, who was folded, and if it could not be
/// folded, who is named: a signal too many costs one read.
pub fn signals(change: &ControlChange, folded: Option<&Vec<UserId>>) -> Vec<UserId> {
    match (&change.thread, folded) {
        (Thread::Dm { .. }, _) => change.thread.dm_users().cloned().collect(),
        (Thread::Group { .. }, Some(users)) => users.clone(),
        (Thread::Group { .. }, None) => touched(change),
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{Body, Cid, log::Role};

    use super::*;

    fn user(s: &str) -> UserId {
        UserId::parse(s).unwrap()
    }

    fn change(id: u64, thread: &str, from: &str, kind: Kind, users: &[&str]) -> ControlChange {
        let body = Body { users: users.iter().map(|u| user(u)).collect(), name: Some("n".into()), ..Body::default() };
        ControlChange {
            id: MsgId(id),
            thread: thread.parse().unwrap(),
            entry: Entry::new(user(from), Cid::mint(1, [0; 10]), kind, body),
        }
    }

    fn names(out: &[(MsgId, UserId, ThreadItem)]) -> Vec<(u64, &str)> {
        out.iter().map(|(id, u, _)| (id.0, u.as_str())).collect()
    }

    #[test]
    fn a_group_asks_for_the_keys_of_those_affected_and_no_others() {
        let log = [
            change(1, "group.g", "a", Kind::GroupCreated, &["b"]),
            change(2, "group.g", "a", Kind::GroupRenamed, &[]),
            change(3, "group.g", "a", Kind::MemberAdded, &["b", "c"]),
            change(4, "group.g", "b", Kind::MemberLeft, &[]),
        ];
        let groups = by_group(&log);
        let changes = &groups[&user("g")];
        let mut g = None;
        assert!(!lost(None, changes));
        let out = fold_group(&mut g, changes);
        assert_eq!(names(&out), [(1, "a"), (1, "b"), (3, "c"), (4, "b")], "b was there already, a rename is nobody's");
        assert_eq!(g.as_ref().unwrap().version, MsgId(4));
        let item = &out.last().unwrap().2;
        assert_eq!((item.role, item.intervals.open()), (None, false));
    }

    /// The writer died between the group's key and the users' keys: the replay finds the version moved and writes them
    /// all the same.
    #[test]
    fn a_replay_writes_the_users_that_a_crash_left_out() {
        let created = change(1, "group.g", "a", Kind::GroupCreated, &["b"]);
        let removed = change(2, "group.g", "a", Kind::MemberRemoved, &["b"]);
        let mut g = None;
        fold_group(&mut g, &[&created, &removed]);
        let before = g.clone();
        let out = fold_group(&mut g, &[&created, &removed]);
        assert_eq!(g, before);
        assert_eq!(names(&out), [(1, "a"), (1, "b"), (2, "b")]);
        let mut b = UserThreads::default();
        for (_, u, item) in out.iter().filter(|(_, u, _)| u.as_str() == "b") {
            fold_user(&mut b, u, &[UserChange::Item { thread: created.thread.clone(), item: item.clone() }]);
        }
        assert!(!b.threads[&created.thread].intervals.open(), "the state as it stands, not as it was at entry 1");
        assert_eq!(b.threads[&created.thread].role, None::<Role>);
    }

    #[test]
    fn a_group_is_lost_only_if_its_beginning_is_not_here() {
        let added = change(2, "group.g", "a", Kind::MemberAdded, &["c"]);
        assert!(lost(None, &[&added]));
        let mut g = None;
        assert!(fold_group(&mut g, &[&added]).is_empty());
        assert_eq!(g, None);
        assert_eq!(signals(&added, None), [user("c")], "who is named is told all the same");
    }

    #[test]
    fn a_dm_is_folded_by_both_its_users_and_notes_by_one() {
        let started = change(5, "dm.a.b", "a", Kind::DmStarted, &["b"]);
        let blocked = change(6, "dm.a.b", "b", Kind::Blocked, &[]);
        let notes = change(7, "dm.a.a", "a", Kind::DmStarted, &[]);
        let users = by_dm_user(&[started.clone(), blocked, notes.clone()]);
        assert_eq!(users.keys().map(|u| u.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let mut a = UserThreads::default();
        assert!(fold_user(&mut a, &user("a"), &users[&user("a")]));
        assert_eq!(a.threads.len(), 2);
        assert!(a.threads[&started.thread].blocked_by);
        assert!(!fold_user(&mut a, &user("a"), &users[&user("a")]), "again: nothing new, nothing written");
        assert_eq!((signals(&started, None).len(), signals(&notes, None).len()), (2, 1));
    }
}
