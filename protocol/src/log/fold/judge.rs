//! May it be done? A change of a group or a conversation, and a message, before it goes into the log: judged on the
//! folded state by whoever appends.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{GroupState, ThreadItem};
use crate::{
    ids::{MsgId, UserId},
    limits,
    log::{Body, Kind, Role},
    refusal::{Code, Refusal},
    size, text,
};

/// What a change that its author may make comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It goes into the log, with this body: of those who are to be added only who is not in the group.
    Change(Body),
    /// It is so already, as of this control entry: the request is a repetition, or somebody else was faster. Nothing
    /// goes into the log.
    Already(MsgId),
}

/// May this state (of a group, or the threads of a user) grow? A value that is larger than NATS carries could not be
/// written any more, and nobody would ever learn of what came after it.
pub fn has_room<T: Serialize + ?Sized>(state: &T, most: usize) -> bool {
    size::json(state) <= most
}

/// Somebody's threads do not take one more.
pub fn full(user: &UserId) -> Refusal {
    Refusal::new(Code::LimitReached, format!("{user} is in too many conversations and groups to be in one more"))
}

/// May `actor` make this change of the group as it stands, and is it one? Decided on one version; the append is guarded
/// by it.
///
/// What was done by the request whose answer was lost must not be refused when it is repeated: also to who has left, or
/// has given the right to do it away by doing it.
pub fn judge_group(
    group: Option<&GroupState>,
    actor: &UserId,
    kind: Kind,
    body: &Body,
    max_members: usize,
) -> Result<Verdict, Refusal> {
    if body.users.len() > limits::USERS_PER_CHANGE {
        return Err(Refusal::invalid(format!("users: at most {} in one change", limits::USERS_PER_CHANGE)));
    }
    if kind == Kind::GroupCreated {
        return judge_creation(group, actor, body, max_members);
    }
    let group = group.ok_or_else(|| Refusal::new(Code::NotFound, "no such group"))?;
    let Some(role) = group.role(actor) else {
        let gone = group.known_to(actor).filter(|_| kind == Kind::MemberLeft).map(Verdict::Already);
        return gone.ok_or_else(|| Refusal::new(Code::NotMember, "you are not in this group"));
    };
    let wanted = WantedChange { group, actor, role, body };
    match kind {
        Kind::GroupRenamed => wanted.rename(),
        Kind::MemberAdded => wanted.addition(max_members),
        Kind::MemberRemoved => wanted.removal(),
        Kind::MemberLeft => wanted.leaving(),
        Kind::RoleChanged => wanted.role_change(),
        _ => Err(Refusal::invalid("not a change of a group")),
    }
}

fn judge_creation(
    group: Option<&GroupState>,
    actor: &UserId,
    body: &Body,
    max_members: usize,
) -> Result<Verdict, Refusal> {
    if let Some(group) = group {
        // The id of a group is made of its creator's id and cid, so this is the creator; the first body counts.
        let known = group.known_to(actor).map(Verdict::Already);
        return known.ok_or_else(|| Refusal::new(Code::Conflict, "somebody else has made this group"));
    }
    name_fits(body.name.as_ref())?;
    let others = body.users.iter().filter(|u| *u != actor).collect::<BTreeSet<_>>().len();
    room(others + 1, max_members)?;
    Ok(Verdict::Change(body.clone()))
}

/// What somebody who is in a group wants to change in it.
struct WantedChange<'a> {
    group: &'a GroupState,
    actor: &'a UserId,
    /// The actor's.
    role: Role,
    body: &'a Body,
}

impl WantedChange<'_> {
    fn at_least(&self, needed: Role) -> Result<(), Refusal> {
        if self.role >= needed { Ok(()) } else { Err(forbidden("your role in this group does not allow it")) }
    }

    fn already(&self) -> Verdict {
        Verdict::Already(self.group.version)
    }

    fn change(&self) -> Verdict {
        Verdict::Change(self.body.clone())
    }

    fn rename(&self) -> Result<Verdict, Refusal> {
        self.at_least(Role::Admin)?;
        name_fits(self.body.name.as_ref())?;
        Ok(if self.body.name.as_ref() == Some(&self.group.name) { self.already() } else { self.change() })
    }

    fn addition(&self, max_members: usize) -> Result<Verdict, Refusal> {
        let Self { group, body, .. } = self;
        self.at_least(Role::Admin)?;
        if body.users.is_empty() {
            return Err(Refusal::invalid("users: name who is to be added"));
        }
        let mut new: Vec<&UserId> = body.users.iter().filter(|u| group.role(u).is_none()).collect();
        new.sort();
        new.dedup();
        if new.is_empty() {
            return Ok(self.already());
        }
        if new.iter().any(|u| group.members.get(*u).is_some_and(|m| m.intervals.0.len() >= limits::REJOINS)) {
            return Err(Refusal::new(
                Code::LimitReached,
                format!("somebody can join the same group at most {} times", limits::REJOINS),
            ));
        }
        let unknown = new.iter().filter(|u| !group.members.contains_key(**u)).count();
        room(group.members.len() + unknown, limits::GROUP_EVER)?;
        if !has_room(*group, limits::STATE_BYTES) {
            return Err(Refusal::new(
                Code::LimitReached,
                "too many people have joined and left this group; make a new one",
            ));
        }
        room(group.present().count() + new.len(), max_members)?;
        // It is the first entry that they see: it has to say where they are.
        let name = Some(group.name.clone());
        Ok(Verdict::Change(Body { users: new.into_iter().cloned().collect(), name, ..(*body).clone() }))
    }

    fn removal(&self) -> Result<Verdict, Refusal> {
        let Self { group, actor, role, body } = self;
        self.at_least(Role::Admin)?;
        if body.users.is_empty() {
            return Err(Refusal::invalid("users: name who is to be removed"));
        }
        let present: Vec<(&UserId, Role)> = body.users.iter().filter_map(|u| Some((u, group.role(u)?))).collect();
        for (user, theirs) in &present {
            if user == actor {
                return Err(Refusal::invalid("user: leave the group instead of removing yourself"));
            }
            if *role != Role::Owner && theirs >= role {
                return Err(forbidden("only an owner may remove an admin or an owner"));
            }
        }
        if present.is_empty() {
            return Ok(self.already());
        }
        Ok(Verdict::Change(Body { users: present.into_iter().map(|(u, _)| u.clone()).collect(), ..(*body).clone() }))
    }

    fn leaving(&self) -> Result<Verdict, Refusal> {
        if self.role == Role::Owner && self.group.owners() == 1 && self.group.present().count() > 1 {
            return Err(Refusal::new(Code::Conflict, "the last owner cannot leave: make somebody else an owner first"));
        }
        Ok(self.change())
    }

    fn role_change(&self) -> Result<Verdict, Refusal> {
        let Self { group, actor, role, body } = self;
        // An owner who has made themselves a member is no owner any more.
        if body.users == std::slice::from_ref(*actor) && body.role == Some(*role) {
            return Ok(self.already());
        }
        self.at_least(Role::Owner)?;
        let ([user], Some(new)) = (body.users.as_slice(), body.role) else {
            return Err(Refusal::invalid("users, role: name one user and a role"));
        };
        let old =
            group.role(user).ok_or_else(|| Refusal::new(Code::NotFound, format!("{user} is not in this group")))?;
        if old == Role::Owner && new != Role::Owner && group.owners() == 1 {
            return Err(Refusal::new(
                Code::Conflict,
                "a group keeps at least one owner: make somebody else an owner first",
            ));
        }
        Ok(if old == new { self.already() } else { self.change() })
    }
}

/// Normalised by who asked; what is appended is what is judged.
fn name_fits(name: Option<&String>) -> Result<(), Refusal> {
    match text::group_name(name.map_or("", |n| n)) {
        Ok(kept) if Some(&kept) == name => Ok(()),
        Ok(_) => Err(Refusal::invalid("name: not in its normal form")),
        Err(e) => Err(e.of("name")),
    }
}
fn forbidden(what: &str) -> Refusal {
    Refusal::new(Code::Forbidden, what)
}

fn room(count: usize, max: usize) -> Result<(), Refusal> {
    if count <= max {
        Ok(())
    } else {
        Err(Refusal::new(Code::LimitReached, format!("a group has at most {max} members")))
    }
}

/// May `actor` make this change of the DM, and is it one? Judged on the actor's own item.
pub fn judge_dm(item: Option<&ThreadItem>, kind: Kind) -> Result<Verdict, Refusal> {
    let blocks = item.is_some_and(|i| i.blocks);
    match kind {
        Kind::DmStarted if item.is_some_and(|i| !i.not_begun) => {
            Err(Refusal::new(Code::Conflict, "this conversation exists"))
        }
        Kind::Blocked | Kind::Unblocked if blocks == (kind == Kind::Blocked) => {
            Ok(Verdict::Already(item.map_or(MsgId::NONE, ThreadItem::known_to)))
        }
        Kind::DmStarted => item.map_or(Ok(()), may_send).map(|()| Verdict::Change(Body::default())),
        Kind::Blocked | Kind::Unblocked => Ok(Verdict::Change(Body::default())),
        _ => Err(Refusal::invalid("not a change of a conversation")),
    }
}

/// May a user with this item send into the thread?
pub fn may_send(item: &ThreadItem) -> Result<(), Refusal> {
    if item.blocks {
        Err(Refusal::new(Code::Blocked, "you block this person: unblock them to write"))
    } else if item.blocked_by {
        Err(Refusal::new(Code::Blocked, "this person does not take messages from you"))
    } else if !item.intervals.open() {
        Err(Refusal::new(Code::NotMember, "you are not in this thread any more"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
