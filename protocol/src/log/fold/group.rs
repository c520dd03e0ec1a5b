//! The state of a group, and how somebody comes into it and goes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ThreadItem;
use crate::{
    ids::{MsgId, UserId},
    log::{HistoryFor, Intervals, Role},
};

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
    pub(super) fn known_to(&self, user: &UserId) -> Option<MsgId> {
        let member = self.members.get(user)?;
        Some(member.intervals.0.last().and_then(|i| i.until).unwrap_or(self.version))
    }

    pub(in crate::log) fn owners(&self) -> usize {
        self.present().filter(|(_, r)| *r == Role::Owner).count()
    }

    pub fn item(&self, user: &UserId) -> Option<ThreadItem> {
        let m = self.members.get(user)?;
        Some(ThreadItem { v: self.version, intervals: m.intervals.clone(), role: m.role, ..ThreadItem::default() })
    }

    pub(super) fn enter(&mut self, user: &UserId, role: Role, id: MsgId) -> bool {
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

    pub(super) fn exit(&mut self, user: &UserId, id: MsgId) -> bool {
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
