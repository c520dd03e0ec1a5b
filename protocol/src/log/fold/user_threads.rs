//! Threads as one user has them: what KV keeps of them, whatever kind of thread it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::MsgId,
    log::{Intervals, Role, VERSION},
    merge::MaxMerge,
    parts::{Parts, dealt},
    thread::Thread,
};

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

/// The value of `<uid>.threads`, or a part of it: present = the user exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserThreads {
    pub v: u8,
    pub threads: BTreeMap<Thread, ThreadItem>,
    /// What was in it stands in its parts.
    #[serde(rename = "c", default, skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

impl Default for UserThreads {
    fn default() -> Self {
        Self { v: VERSION, threads: BTreeMap::new(), cut: false }
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

impl MaxMerge for UserThreads {
    fn merge_max(&mut self, other: &Self) -> bool {
        other.threads.iter().fold(false, |new, (thread, item)| self.merge(thread, item.clone()) | new)
    }
}

impl FromIterator<(Thread, ThreadItem)> for UserThreads {
    fn from_iter<I: IntoIterator<Item = (Thread, ThreadItem)>>(threads: I) -> Self {
        Self { threads: threads.into_iter().collect(), ..Self::default() }
    }
}

impl Parts for UserThreads {
    fn is_cut(&self) -> bool {
        self.cut
    }

    fn cut(&mut self, depth: usize) -> Vec<Self> {
        let all = std::mem::take(&mut self.threads);
        self.cut = true;
        dealt(all, depth, |(thread, _)| thread.hash64()).into_iter().map(Self::from_iter).collect()
    }
}
