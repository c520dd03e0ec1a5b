//! The verdict: pure, one pass over a [`Recording`] per rule. `planted` shows that each rule can fail.

mod cursors;
mod messages;
pub mod presence;
mod sessions;

use std::{collections::BTreeSet, fmt};

use super::record::Recording;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Acked, and missing in a history of somebody who may see it.
    Lost,
    /// Acked with one id, found under another.
    AckTruth,
    /// A text or a cid twice in one history or for one reader.
    Twice,
    /// Nobody sent this, or not this text under this cid, or not in this thread.
    Alien,
    /// Every answer was a clear refusal, and somebody saw it.
    Refused,
    /// Histories of one thread differ between edges or members, beyond what membership explains; or are not in order of
    /// ids.
    OneHistory,
    /// A reader saw a thread in another order than history has it.
    Order,
    /// Two messages of one device in one thread are not in the order of writing.
    Fifo,
    /// Written after another one was acked or shown, and yet before it in the log.
    RealTime,
    /// Shown to somebody who was not in the thread then.
    Membership,
    /// A reader never saw something it should have.
    Incomplete,
    /// Within one session the same event came twice, or an older one after a newer one.
    Wire,
    /// A hole below a live event, a skip, an end: what readers complain about.
    Complaint,
    /// Neither acked nor refused when all was healed.
    Unsettled,
    /// Somebody was shown as online who had gone for too long.
    ShownOnline,
    /// Somebody was shown as offline who was connected to an edge that was reached.
    ShownOffline,
    /// Two phones of one user wrote at the same time.
    TwoPhones,
    /// A phone that came back by itself displaced the other one.
    TookOver,
    /// What was told to be stored as read was found further back afterwards.
    ReadBack,
    /// Somebody has read further than there is a log.
    ReadAhead,
    /// In the end, not as many messages unread as the log says.
    Unread,
    /// A receipt says that somebody has read more than they ever said.
    ReceiptAhead,
    /// What a device said until it was told that it is stored is not there in the end.
    ReadLost,
}

impl Rule {
    pub const ALL: [Self; 23] = [
        Self::Lost,
        Self::AckTruth,
        Self::Twice,
        Self::Alien,
        Self::Refused,
        Self::OneHistory,
        Self::Order,
        Self::Fifo,
        Self::RealTime,
        Self::Membership,
        Self::Incomplete,
        Self::Wire,
        Self::Complaint,
        Self::Unsettled,
        Self::ShownOnline,
        Self::ShownOffline,
        Self::TwoPhones,
        Self::TookOver,
        Self::ReadBack,
        Self::ReadAhead,
        Self::Unread,
        Self::ReceiptAhead,
        Self::ReadLost,
    ];
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

#[derive(Debug, Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    pub acked: usize,
    /// Sends without a single answer to one of their handings, found in the log all the same.
    pub recovered: usize,
    pub refused: usize,
    pub shown: usize,
    pub histories: usize,
    /// How often somebody was told how somebody else is shown.
    pub presence: usize,
    /// Phones that had to go for the other one.
    pub displaced: usize,
    /// How often somebody said what they have read, and was told that it is stored.
    pub read_said: usize,
    pub read_stored: usize,
    /// Threads in lists, and receipts of what was read.
    pub lists: usize,
    pub receipts: usize,
    /// Longest time from writing to the ack.
    pub longest_ack_ms: u64,
    pub latest_live_ms: u64,
}

impl Verdict {
    pub fn broken(&self) -> BTreeSet<Rule> {
        self.violations.iter().map(|v| v.rule).collect()
    }

    fn add(&mut self, rule: Rule, what: impl Into<String>) {
        self.violations.push(Violation { rule, what: what.into() });
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rule in self.broken() {
            let of: Vec<_> = self.violations.iter().filter(|v| v.rule == rule).collect();
            writeln!(f, "{rule:?}: {} times", of.len())?;
            for v in of.iter().take(8) {
                writeln!(f, "    {}", v.what)?;
            }
        }
        Ok(())
    }
}

/// Of what was read alone: quick enough to be judged again for each fault that is planted there.
pub fn check_reading(r: &Recording) -> Verdict {
    let mut v = Verdict::default();
    cursors::check(r, &mut v);
    v
}

pub fn check(r: &Recording) -> Verdict {
    let mut v = Verdict { histories: r.histories.len(), ..Verdict::default() };
    messages::check(r, &mut v);
    presence::check(r, &mut v);
    sessions::check(r, &mut v);
    cursors::check(r, &mut v);
    v
}
