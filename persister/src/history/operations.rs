//! What the edits and recalls of one stretch of the log do to messages: which operations there are, and which of the
//! recalls count. Of an edit only its id is kept, so that a long stretch fits into memory; its text is read when a page
//! needs it. Pure.

use std::collections::{HashMap, HashSet};

use natterjack_protocol::{
    Kind, MsgId, UserId,
    log::{
        Role,
        fold::{self, GroupState},
    },
};

use crate::store::Row;

/// Who was admin or owner when something in the stretch was written.
#[derive(Debug, Clone)]
pub(super) enum Roles {
    /// The group at the end of what was taken in; none: a conversation of two, or no group yet.
    Exact(Option<GroupState>),
    /// The state before the stretch is not known. Those whom control entries of the stretch concern may have had
    /// another role than now.
    Unknown { touched: HashSet<UserId> },
}

impl Roles {
    pub fn unknown() -> Self {
        Self::Unknown { touched: HashSet::new() }
    }

    fn take(&mut self, row: &Row) {
        if let (Self::Unknown { touched }, false) = (&mut *self, row.kind == Kind::GroupCreated) {
            touched.insert(row.from.clone());
            touched.extend(row.body.users.iter().cloned());
            return;
        }
        if matches!(self, Self::Unknown { .. }) {
            *self = Self::Exact(None);
        }
        if let Self::Exact(group) = self {
            fold::apply_group(group, row.id, &row.entry());
        }
    }

    fn power_of(&self, user: &UserId) -> Power {
        match self {
            Self::Exact(group) => {
                Power::from(group.as_ref().and_then(|g| g.role(user)).is_some_and(|r| r >= Role::Admin))
            }
            Self::Unknown { .. } => Power::Unknown,
        }
    }
}

/// May the author of a recall take back messages of others?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    Yes,
    No,
    Unknown,
}

impl From<bool> for Power {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub id: MsgId,
    pub from: UserId,
    recalls: bool,
    pub power: Power,
}

/// The operations with `after` < id <= `upto`.
#[derive(Debug, Clone)]
pub(super) struct Operations {
    pub after: MsgId,
    pub upto: MsgId,
    pub roles: Roles,
    by_target: HashMap<MsgId, Vec<Operation>>,
    len: usize,
}

impl Operations {
    pub fn new(after: MsgId, roles: Roles) -> Self {
        Self { after, upto: after, roles, by_target: HashMap::new(), len: 0 }
    }

    /// Does this row matter here?
    pub fn concern(kind: Kind) -> bool {
        matches!(kind, Kind::Edit | Kind::Recall) || kind.is_control()
    }

    /// Rows in the log's order.
    pub fn take<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) {
        for row in rows {
            match row.kind {
                kind if kind.is_control() => self.roles.take(row),
                Kind::Edit => self.edit(row),
                Kind::Recall => self.recall(row),
                _ => {}
            }
        }
    }

    /// Of an author's edits of a message the newest counts.
    fn edit(&mut self, row: &Row) {
        let Some(target) = row.body.target else { return };
        let of = self.by_target.entry(target).or_default();
        match of.iter_mut().find(|o| !o.recalls && o.from == row.from) {
            Some(older) => older.id = row.id,
            None => {
                of.push(Operation { id: row.id, from: row.from.clone(), recalls: false, power: Power::No });
                self.len += 1;
            }
        }
    }

    /// Of an author's recalls the first counts, and the first with the power over others' messages.
    fn recall(&mut self, row: &Row) {
        let Some(target) = row.body.target else { return };
        let power = self.roles.power_of(&row.from);
        let of = self.by_target.entry(target).or_default();
        if !of.iter().any(|o| o.recalls && o.from == row.from && (o.power == power || o.power == Power::Yes)) {
            of.push(Operation { id: row.id, from: row.from.clone(), recalls: true, power });
            self.len += 1;
        }
    }

    /// How much is kept.
    pub fn len(&self) -> usize {
        self.len
            + match &self.roles {
                Roles::Unknown { touched } => touched.len(),
                Roles::Exact(group) => {
                    group.iter().flat_map(|g| g.members.values()).map(|m| 1 + m.intervals.0.len()).sum()
                }
            }
    }

    /// The newest edit of this message by its author.
    pub fn edit_of(&self, row: &Row) -> Option<MsgId> {
        let edit = self.by_target.get(&row.id)?.iter().find(|o| !o.recalls && o.from == row.from)?;
        (row.kind.is_message() && edit.id > row.id.max(row.rev)).then_some(edit.id)
    }

    /// Recalls that may concern the row: of the message itself, or, for an edit, of what it edits.
    pub fn recalls_of<'a>(&'a self, row: &Row) -> impl Iterator<Item = &'a Operation> + use<'a> {
        let about = match row.kind {
            Kind::Edit => row.body.target,
            kind if kind.is_message() => Some(row.id),
            _ => None,
        };
        about
            .and_then(|target| self.by_target.get(&target))
            .into_iter()
            .flatten()
            .filter(move |o| o.recalls && Some(o.id) > about)
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::Body;

    use super::*;
    use crate::store::conformance::{edit, recall, row, text, thread, user};

    fn members(users: &[&str], role: Option<Role>) -> Body {
        Body { users: users.iter().map(|u| user(u)).collect(), role, name: Some("g".into()), ..Body::default() }
    }

    #[test]
    fn one_edit_and_the_recalls_that_differ_are_kept_of_each_author() {
        let t = thread("t");
        let mut ops = Operations::new(MsgId(1), Roles::Exact(None));
        let created = row(&t, 2, "o", Kind::GroupCreated, members(&["a", "b"], None));
        let admin = row(&t, 6, "o", Kind::RoleChanged, members(&["b"], Some(Role::Admin)));
        let rows = [
            created,
            edit(&t, 3, "a", 1, "x"),
            edit(&t, 4, "a", 1, "y"),
            recall(&t, 5, "b", 1),
            admin,
            recall(&t, 7, "b", 1),
        ];
        ops.take(&rows);
        ops.take(&[recall(&t, 8, "b", 1), recall(&t, 9, "b", 1)]);
        assert_eq!(ops.len(), 3 + 3 * 2, "operations, members and their intervals");
        let message = text(&t, 1, "a", "x");
        assert_eq!(ops.edit_of(&message), Some(MsgId(4)));
        assert_eq!(ops.edit_of(&Row { rev: MsgId(4), ..message.clone() }), None, "the archive has it already");
        let recalls: Vec<_> = ops.recalls_of(&message).map(|o| (o.id.0, o.power)).collect();
        assert_eq!(recalls, [(5, Power::No), (7, Power::Yes)]);
        let late = edit(&t, 10, "a", 1, "z");
        assert_eq!(ops.recalls_of(&late).count(), 2, "also for an edit that came after the recall");
        assert_eq!(ops.recalls_of(&recall(&t, 11, "a", 1)).count(), 0);
    }

    #[test]
    fn what_nobody_can_judge_is_told_apart() {
        let t = thread("t");
        let mut ops = Operations::new(MsgId(1), Roles::unknown());
        ops.take(&[row(&t, 2, "o", Kind::MemberAdded, members(&["c"], None)), recall(&t, 3, "b", 1)]);
        assert_eq!(ops.recalls_of(&text(&t, 1, "a", "x")).map(|o| o.power).collect::<Vec<_>>(), [Power::Unknown]);
        let Roles::Unknown { touched } = &ops.roles else { panic!("the group is not known") };
        assert!(touched.contains(&user("c")) && !touched.contains(&user("b")));
        ops.take(&[row(&t, 4, "b", Kind::GroupCreated, members(&[], None)), recall(&t, 5, "b", 1)]);
        let powers: Vec<_> = ops.recalls_of(&text(&t, 1, "a", "x")).map(|o| o.power).collect();
        assert_eq!(powers, [Power::Unknown, Power::Yes], "a group that began in the stretch is known");
    }
}
