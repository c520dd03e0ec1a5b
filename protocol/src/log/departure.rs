//! How somebody leaves a group who cannot be asked to settle their affairs first: their account is deleted.

use std::cmp::Reverse;

use super::{Body, Kind, Role, fold::GroupState};
use crate::ids::UserId;

/// The next change that puts `user` out of the group, as they would make it themself: an owner is made first if they
/// are the last one, then they leave. None: they are not in it.
pub fn departure(group: &GroupState, user: &UserId) -> Option<(Kind, Body)> {
    group.role(user)?;
    Some(match heir(group, user) {
        Some(heir) => {
            (Kind::RoleChanged, Body { users: vec![heir.clone()], role: Some(Role::Owner), ..Body::default() })
        }
        None => (Kind::MemberLeft, Body::default()),
    })
}

/// Who is to own the group when this user goes: nobody, if it keeps an owner or nobody else is in it. An admin before a
/// member, then whoever has been in it longest.
fn heir<'a>(group: &'a GroupState, user: &UserId) -> Option<&'a UserId> {
    if group.role(user) != Some(Role::Owner) || group.owners() > 1 {
        return None;
    }
    let since = |user: &UserId| group.members.get(user).and_then(|m| m.intervals.0.last()).map(|i| i.since);
    let others = group.present().filter(|(other, _)| *other != user);
    others.min_by_key(|(other, role)| (Reverse(*role), since(other))).map(|(other, _)| other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cid::Cid,
        ids::MsgId,
        log::{
            Entry,
            fold::{Verdict, apply_group, judge_group},
        },
    };

    fn user(s: &str) -> UserId {
        UserId::parse(s).unwrap()
    }

    struct Folded {
        group: Option<GroupState>,
        last: u64,
    }

    impl Folded {
        fn apply(&mut self, from: &str, kind: Kind, body: Body) {
            self.last += 1;
            apply_group(&mut self.group, MsgId(self.last), &Entry::new(user(from), Cid::mint(1, [0; 10]), kind, body));
        }

        fn with(owner: &str, members: &[&str]) -> Self {
            let mut folded = Self { group: None, last: 0 };
            folded.apply(owner, Kind::GroupCreated, Body { name: Some("g".into()), ..Body::default() });
            for member in members {
                folded.apply(owner, Kind::MemberAdded, Body { users: vec![user(member)], ..Body::default() });
            }
            folded
        }

        fn role(&mut self, who: &str, role: Role) {
            self.apply("a", Kind::RoleChanged, Body { users: vec![user(who)], role: Some(role), ..Body::default() });
        }

        /// Leaves by changes that anybody might make, and says who was made an owner.
        fn departs(&mut self, who: &str) -> Vec<String> {
            let mut made = Vec::new();
            while let Some((kind, body)) = departure(self.group.as_ref().unwrap(), &user(who)) {
                let allowed = judge_group(self.group.as_ref(), &user(who), kind, &body, 500);
                assert_eq!(allowed, Ok(Verdict::Change(body.clone())));
                made.extend(body.users.iter().map(ToString::to_string));
                self.apply(who, kind, body);
            }
            assert_eq!(self.group.as_ref().unwrap().role(&user(who)), None);
            made
        }
    }

    #[test]
    fn the_last_owner_leaves_the_group_to_an_admin_then_to_whoever_came_first() {
        let mut folded = Folded::with("a", &["z", "b", "c"]);
        folded.role("c", Role::Admin);
        assert_eq!(folded.departs("a"), ["c"]);
        assert_eq!(folded.departs("c"), ["z"], "in it for longer than b");
        assert_eq!(folded.departs("z"), ["b"]);
        assert_eq!(folded.departs("b"), Vec::<String>::new(), "nobody is left");
    }

    #[test]
    fn nobody_is_made_an_owner_without_need() {
        let mut folded = Folded::with("a", &["b", "c"]);
        assert_eq!(folded.departs("c"), Vec::<String>::new());
        folded.role("b", Role::Owner);
        assert_eq!(folded.departs("a"), Vec::<String>::new());
        assert_eq!(folded.departs("never-there"), Vec::<String>::new());
    }
}
