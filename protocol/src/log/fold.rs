//! Membership from control entries. The log decides at append (compare-and-set on the thread's last control entry);
//! `judge_group` says whether an actor may append, `apply_group` and `apply_dm` fold what was appended.
//! Channel, persister and edge run this same code.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{MsgId, UserId},
    limits,
    log::{Body, Entry, HistoryFor, Intervals, Kind, Role, VERSION},
    refusal::{Code, Refusal},
    size, text,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMembership {
    /// None: was here, is not any more, may still read their part.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[serde(rename = "i")]
    pub intervals: Intervals,
}

/// State of a group: the fold of its control entries up to `version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    pub v: u8,
    /// Id of the last control entry folded.
    pub version: MsgId,
    pub name: String,
    #[serde(default)]
    pub history: HistoryFor,
    pub members: BTreeMap<UserId, GroupMembership>,
}

/// One thread as one user has it: an item of the KV key `<uid>.threads`. Merged by the larger `v`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadItem {
    /// Id of the control entry this item was made from.
    pub v: MsgId,
    #[serde(rename = "i")]
    pub intervals: Intervals,
    /// Groups only; none after leaving.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// DMs only: this user blocks the other.
    #[serde(rename = "b", default, skip_serializing_if = "std::ops::Not::not")]
    pub blocks: bool,
    /// DMs only: the other user blocks this one.
    #[serde(rename = "bb", default, skip_serializing_if = "std::ops::Not::not")]
    pub blocked_by: bool,
    /// DMs only: there is no conversation yet, only a block or the end of one.
    #[serde(rename = "n", default, skip_serializing_if = "std::ops::Not::not")]
    pub not_begun: bool,
    /// DMs only, where `v` is a block by the other user or the end of one, which is not this user's business: the
    /// newest control entry before it that is; 0: none.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub known: Option<MsgId>,
}

impl ThreadItem {
    /// The newest control entry that this user may know of; 0: the thread is there only because the other user blocks
    /// them.
    pub fn known_to(&self) -> MsgId {
        self.known.unwrap_or(self.v)
    }

    /// May this user know of the thread at all?
    pub fn visible(&self) -> bool {
        !self.known_to().is_none()
    }

    /// May this user write here, as far as they may know? That the other blocks them they learn when they write.
    pub fn open(&self) -> bool {
        self.intervals.open() && !self.blocks
    }
}

/// The value of `<uid>.threads`: present = the user exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserThreads {
    pub v: u8,
    pub threads: BTreeMap<Thread, ThreadItem>,
}

impl Default for UserThreads {
    fn default() -> Self {
        Self { v: VERSION, threads: BTreeMap::new() }
    }
}

impl UserThreads {
    /// Keeps the newer item; says whether anything changed.
    pub fn merge(&mut self, thread: &Thread, item: ThreadItem) -> bool {
        match self.threads.get(thread) {
            Some(old) if old.v >= item.v => false,
            _ => {
                self.threads.insert(thread.clone(), item);
                true
            }
        }
    }
}

impl GroupState {
    pub fn role(&self, user: &UserId) -> Option<Role> {
        self.members.get(user).and_then(|m| m.role)
    }

    /// Those who are in it now.
    pub fn present(&self) -> impl Iterator<Item = (&UserId, Role)> {
        self.members.iter().filter_map(|(u, m)| m.role.map(|r| (u, r)))
    }

    /// The last control entry that this user may know of: of who is not in it any more the one that put them out; none:
    /// never was in it.
    fn known_to(&self, user: &UserId) -> Option<MsgId> {
        let member = self.members.get(user)?;
        Some(member.intervals.0.last().and_then(|i| i.until).unwrap_or(self.version))
    }

    fn owners(&self) -> usize {
        self.present().filter(|(_, r)| *r == Role::Owner).count()
    }

    pub fn item(&self, user: &UserId) -> Option<ThreadItem> {
        let m = self.members.get(user)?;
        Some(ThreadItem { v: self.version, intervals: m.intervals.clone(), role: m.role, ..ThreadItem::default() })
    }

    fn enter(&mut self, user: &UserId, role: Role, id: MsgId) -> bool {
        let since = match self.history {
            HistoryFor::SinceJoining => id,
            HistoryFor::Everything => MsgId::NONE,
        };
        let m = self
            .members
            .entry(user.clone())
            .or_insert_with(|| GroupMembership { role: None, intervals: Intervals::default() });
        if m.role.is_some() {
            return false;
        }
        m.role = Some(role);
        m.intervals.enter(since);
        true
    }

    fn exit(&mut self, user: &UserId, id: MsgId) -> bool {
        match self.members.get_mut(user) {
            Some(m) if m.role.is_some() => {
                m.role = None;
                m.intervals.leave(id);
                true
            }
            _ => false,
        }
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

/// What a change that its author may make comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It goes into the log, with this body: of those who are to be added only who is not in the group.
    Change(Body),
    /// It is so already, as of this control entry: the request is a repetition, or somebody else was faster. Nothing
    /// goes into the log.
    Already(MsgId),
}

fn forbidden(what: &str) -> Refusal {
    Refusal::new(Code::Forbidden, what)
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
    // Normalised by who asked; what is appended is what is judged.
    let name_fits = |name: Option<&String>| match text::group_name(name.map_or("", |n| n)) {
        Ok(kept) if Some(&kept) == name => Ok(()),
        Ok(_) => Err(Refusal::invalid("name: not in its normal form")),
        Err(e) => Err(e.of("name")),
    };
    if body.users.len() > limits::USERS_PER_CHANGE {
        return Err(Refusal::invalid(format!("users: at most {} in one change", limits::USERS_PER_CHANGE)));
    }
    let change = || Ok(Verdict::Change(body.clone()));
    if kind == Kind::GroupCreated {
        if let Some(group) = group {
            // The id of a group is made of its creator's id and cid, so this is the creator; the first body counts.
            let known = group.known_to(actor).map(Verdict::Already);
            return known.ok_or_else(|| Refusal::new(Code::Conflict, "somebody else has made this group"));
        }
        name_fits(body.name.as_ref())?;
        let others = body.users.iter().filter(|u| *u != actor).collect::<std::collections::BTreeSet<_>>().len();
        room(others + 1, max_members)?;
        return change();
    }
    let group = group.ok_or_else(|| Refusal::new(Code::NotFound, "no such group"))?;
    let already = Verdict::Already(group.version);
    let Some(role) = group.role(actor) else {
        let gone = group.known_to(actor).filter(|_| kind == Kind::MemberLeft).map(Verdict::Already);
        return gone.ok_or_else(|| Refusal::new(Code::NotMember, "you are not in this group"));
    };
    let at_least = |needed: Role| {
        if role >= needed { Ok(()) } else { Err(forbidden("your role in this group does not allow it")) }
    };
    match kind {
        Kind::GroupRenamed => {
            at_least(Role::Admin)?;
            name_fits(body.name.as_ref())?;
            if body.name.as_ref() == Some(&group.name) { Ok(already) } else { change() }
        }
        Kind::MemberAdded => {
            at_least(Role::Admin)?;
            if body.users.is_empty() {
                return Err(Refusal::invalid("users: name who is to be added"));
            }
            let mut new: Vec<&UserId> = body.users.iter().filter(|u| group.role(u).is_none()).collect();
            new.sort();
            new.dedup();
            if new.is_empty() {
                return Ok(already);
            }
            if new.iter().any(|u| group.members.get(*u).is_some_and(|m| m.intervals.0.len() >= limits::REJOINS)) {
                return Err(Refusal::new(
                    Code::LimitReached,
                    format!("somebody can join the same group at most {} times", limits::REJOINS),
                ));
            }
            let unknown = new.iter().filter(|u| !group.members.contains_key(**u)).count();
            room(group.members.len() + unknown, limits::GROUP_EVER)?;
            if !has_room(group, limits::STATE_BYTES) {
                return Err(Refusal::new(
                    Code::LimitReached,
                    "too many people have joined and left this group; make a new one",
                ));
            }
            room(group.present().count() + new.len(), max_members)?;
            // It is the first entry that they see: it has to say where they are.
            let name = Some(group.name.clone());
            Ok(Verdict::Change(Body { users: new.into_iter().cloned().collect(), name, ..body.clone() }))
        }
        Kind::MemberRemoved => {
            at_least(Role::Admin)?;
            if body.users.is_empty() {
                return Err(Refusal::invalid("users: name who is to be removed"));
            }
            let present: Vec<(&UserId, Role)> = body.users.iter().filter_map(|u| Some((u, group.role(u)?))).collect();
            for (user, theirs) in &present {
                if *user == actor {
                    return Err(Refusal::invalid("user: leave the group instead of removing yourself"));
                }
                if role != Role::Owner && *theirs >= role {
                    return Err(forbidden("only an owner may remove an admin or an owner"));
                }
            }
            if present.is_empty() {
                return Ok(already);
            }
            Ok(Verdict::Change(Body { users: present.into_iter().map(|(u, _)| u.clone()).collect(), ..body.clone() }))
        }
        Kind::MemberLeft => {
            if role == Role::Owner && group.owners() == 1 && group.present().count() > 1 {
                return Err(Refusal::new(
                    Code::Conflict,
                    "the last owner cannot leave: make somebody else an owner first",
                ));
            }
            change()
        }
        Kind::RoleChanged => {
            // An owner who has made themselves a member is no owner any more.
            if body.users == std::slice::from_ref(actor) && body.role == Some(role) {
                return Ok(already);
            }
            at_least(Role::Owner)?;
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
            if old == new { Ok(already) } else { change() }
        }
        _ => Err(Refusal::invalid("not a change of a group")),
    }
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cid::Cid;

    fn user(s: &str) -> UserId {
        UserId::parse(s).unwrap()
    }

    fn ctl(from: &str, kind: Kind, users: &[&str]) -> Entry {
        let body = Body { users: users.iter().map(|u| user(u)).collect(), name: Some("g".into()), ..Body::default() };
        Entry::new(user(from), Cid::mint(1, [0; 10]), kind, body)
    }

    fn role_of(from: &str, who: &str, role: Role) -> Entry {
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
        assert_eq!(judge(&ctl("x", Kind::MemberLeft, &[])).unwrap_err().code, Code::NotMember);
        assert_eq!(judge(&ctl("x", Kind::GroupCreated, &[])).unwrap_err().code, Code::Conflict);
        let Ok(Verdict::Change(body)) = judge(&ctl("b", Kind::MemberAdded, &["e", "f", "b", "f"])) else {
            panic!("f is new")
        };
        assert_eq!(body.users, [user("f")], "nobody is added a second time");
        let Ok(Verdict::Change(body)) = judge(&ctl("b", Kind::MemberRemoved, &["d", "e"])) else {
            panic!("e is there")
        };
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
        assert_eq!(
            judge_group(g.as_ref(), &more.from, more.kind, &more.body, 500).unwrap_err().code,
            Code::LimitReached
        );
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
        let log =
            [(1, "a", Kind::Blocked), (2, "a", Kind::Unblocked), (3, "b", Kind::DmStarted), (4, "a", Kind::Blocked)];
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
                    judge_dm(of_b.as_ref(), Kind::DmStarted).is_err()
                        && judge_dm(of_a.as_ref(), Kind::DmStarted).is_err()
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
}
