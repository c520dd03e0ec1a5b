//! Who may do what in a thread, and what of it they may read.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::MsgId;

// Ordered: a larger role may do what a smaller one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Member,
    Admin,
    Owner,
}

/// What those who join later may read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HistoryFor {
    /// From the entry that added them on.
    #[default]
    SinceJoining,
    /// All of it.
    Everything,
}

/// What somebody may read: `s` ≤ id < `u`; without `u` it goes on.
// The entry that adds is the first they see, the one that removes is not theirs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interval {
    #[serde(rename = "s")]
    pub since: MsgId,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub until: Option<MsgId>,
}

/// A list of intervals: joining again neither exposes nor erases the middle. Rising, not touching.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Intervals(pub Vec<Interval>);

impl Intervals {
    pub fn all() -> Self {
        Self(vec![Interval { since: MsgId::NONE, until: None }])
    }

    pub fn covers(&self, id: MsgId) -> bool {
        self.0.iter().any(|i| i.since <= id && i.until.is_none_or(|u| id < u))
    }

    /// In the thread now?
    pub fn open(&self) -> bool {
        self.0.last().is_some_and(|i| i.until.is_none())
    }

    pub fn is_all(&self) -> bool {
        matches!(self.0.as_slice(), [Interval { since: MsgId::NONE, until: None }])
    }

    pub fn enter(&mut self, since: MsgId) {
        if !self.open() {
            // Everything may be read: earlier parts are inside the new one.
            if since.is_none() {
                self.0.clear();
            }
            self.0.push(Interval { since, until: None });
        }
    }

    pub fn leave(&mut self, until: MsgId) {
        if let Some(last) = self.0.last_mut() {
            last.until.get_or_insert(until);
        }
    }
}
