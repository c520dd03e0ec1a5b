//! Membership from control entries. The log decides at append (compare-and-set on the thread's last control entry);
//! `judge` says whether an actor may append, `apply_group` and `apply_dm` fold what was appended.
//! Channel, persister and edge run this same code.

mod group;
mod judge;
mod user_threads;

use std::collections::BTreeMap;

pub use self::{
    group::{GroupMembership, GroupState},
    judge::{Verdict, full, has_room, judge_dm, judge_group, may_send},
    user_threads::{ThreadItem, UserThreads},
};
use crate::{
    ids::{MsgId, UserId},
    log::{Body, Entry, Kind, Role, VERSION},
    thread::Thread,
};

/// Does this entry put `user` out of the group?
pub fn ends_membership(kind: Kind, from: &UserId, body: &Body, user: &UserId) -> bool {
    match kind {
        Kind::MemberLeft => from == user,
        Kind::MemberRemoved => body.users.contains(user),
        _ => false,
    }
}

/// Folds one control entry of a group. Returns the users whose own item changed. Idempotent: an entry at or below the
/// version changes nothing. What makes no sense is skipped, never an error: it is in the log.
pub fn apply_group(state: &mut Option<GroupState>, id: MsgId, entry: &Entry) -> Vec<UserId> {
    if state.as_ref().is_some_and(|g| g.version >= id) {
        return Vec::new();
    }
    let body = &entry.body;
    if entry.kind == Kind::GroupCreated && state.is_none() {
        let mut group = GroupState {
            v: VERSION,
            version: id,
            name: body.name.clone().unwrap_or_default(),
            history: body.history.unwrap_or_default(),
            members: BTreeMap::new(),
        };
        group.enter(&entry.from, Role::Owner, id);
        for user in &body.users {
            group.enter(user, Role::Member, id);
        }
        let affected = group.members.keys().cloned().collect();
        *state = Some(group);
        return affected;
    }
    let Some(group) = state else { return Vec::new() };
    group.version = id;
    match entry.kind {
        Kind::GroupRenamed => {
            if let Some(name) = &body.name {
                group.name.clone_from(name);
            }
            Vec::new()
        }
        Kind::MemberAdded => body.users.iter().filter(|u| group.enter(u, Role::Member, id)).cloned().collect(),
        Kind::MemberRemoved => body.users.iter().filter(|u| group.exit(u, id)).cloned().collect(),
        Kind::MemberLeft => {
            let user = entry.from.clone();
            if group.exit(&user, id) { vec![user] } else { Vec::new() }
        }
        Kind::RoleChanged => {
            let mut affected = Vec::new();
            for user in &body.users {
                if let Some(GroupMembership { role: Some(role), .. }) = group.members.get_mut(user)
                    && let Some(new) = body.role
                {
                    *role = new;
                    affected.push(user.clone());
                }
            }
            affected
        }
        _ => Vec::new(),
    }
}

/// Folds one control entry of a DM into the item of `me`, one of its two users. None: nothing changed.
pub fn apply_dm(item: Option<&ThreadItem>, me: &UserId, id: MsgId, entry: &Entry) -> Option<ThreadItem> {
    if item.is_some_and(|i| i.v >= id) {
        return None;
    }
    let mut new = item.cloned().unwrap_or_else(|| ThreadItem { not_begun: true, ..ThreadItem::default() });
    let mine = &entry.from == me;
    match entry.kind {
        Kind::DmStarted => new.not_begun = false,
        Kind::Blocked if mine => new.blocks = true,
        Kind::Blocked => new.blocked_by = true,
        Kind::Unblocked if mine => new.blocks = false,
        Kind::Unblocked => new.blocked_by = false,
        _ => return None,
    }
    new.known = if mine || entry.kind == Kind::DmStarted { None } else { Some(new.known_to()) };
    new.v = id;
    new.intervals.enter(id);
    Some(new)
}

/// The users named by a control entry, whoever they are: who may have to be told.
pub fn named(thread: &Thread, entry: &Entry) -> Vec<UserId> {
    let mut users: Vec<UserId> = match thread {
        Thread::Dm { .. } => thread.dm_users().cloned().collect(),
        Thread::Group { .. } => std::iter::once(&entry.from).chain(&entry.body.users).cloned().collect(),
    };
    users.sort();
    users.dedup();
    users
}

#[cfg(test)]
mod tests;
