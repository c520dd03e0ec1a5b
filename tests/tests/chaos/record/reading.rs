//! What was said, stored and told of how far users have read.

use std::collections::BTreeMap;

use super::Recorder;

/// Somebody said that they have read a thread up to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadSaid {
    /// Before the first byte of it left.
    pub at: u64,
    pub user: String,
    pub thread: String,
    pub id: u64,
    /// Their device says it until it is told that it is stored. Not so of what is said once, and of ids that nobody has
    /// given.
    pub repeats: bool,
}

/// Somebody was told that it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadStored {
    /// When it was asked, if this is an answer and says how far they are: a frame `read` may be older.
    pub asked: Option<u64>,
    pub at: u64,
    pub user: String,
    pub thread: String,
    pub id: u64,
}

/// A thread in somebody's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedThread {
    pub asked: u64,
    pub edge: usize,
    pub user: String,
    pub thread: String,
    pub last: Option<u64>,
    pub read: Option<u64>,
    pub unread: Option<u64>,
    /// After everything was healed, written and stored.
    pub settled: bool,
}

/// Somebody was told that another user has read up to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadReceipt {
    pub at: u64,
    pub to: String,
    pub user: String,
    pub thread: String,
    pub id: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadingRecord {
    pub said: Vec<ReadSaid>,
    pub stored: Vec<ReadStored>,
    pub listed: Vec<ListedThread>,
    pub receipts: Vec<ReadReceipt>,
    /// Of each thread the newest id in its partition, in the end.
    pub ends: BTreeMap<String, u64>,
}

impl Recorder {
    pub fn says_read(&self, user: &str, thread: &str, id: u64, repeats: bool) {
        let at = self.now();
        self.lock().reading.said.push(ReadSaid { at, user: user.into(), thread: thread.into(), id, repeats });
    }

    pub fn told_stored(&self, asked: Option<u64>, user: &str, thread: &str, id: u64) {
        let at = self.now();
        self.lock().reading.stored.push(ReadStored { asked, at, user: user.into(), thread: thread.into(), id });
    }

    /// 0: nothing was read.
    pub fn told_receipt(&self, to: &str, user: &str, thread: &str, id: u64) {
        let at = self.now();
        if id > 0 {
            let receipt = ReadReceipt { at, to: to.into(), user: user.into(), thread: thread.into(), id };
            self.lock().reading.receipts.push(receipt);
        }
    }
}
