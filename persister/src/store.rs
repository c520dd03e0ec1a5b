//! The archive as the rest of the persister sees it: messages, threads with their members, and the watermarks (step 7).
//! `archive` writes through it, `history` and `directory` read; no type of a backend leaks out of here.
//!
//! How a message stands in it:
//! - one [`Row`] per entry of the log, control entries and operations included, keyed (thread, id);
//! - an edited message has the new text and `rev` = the id of the edit;
//! - a recalled message keeps its row with kind `recall`, an empty body (no `target`) and `rev` = the id of the recall;
//! - an entry nobody could read has kind `unknown` and its bytes in `raw`.
//!
//! Writes are idempotent and commute: any order, and any number of repetitions, of the same rows ends equal
//! (`conformance`).

use std::future::Future;

use bytes::Bytes;
use natterjack_nats::Position;
use natterjack_protocol::{
    Body, Cid, Entry, Event, Kind, Most, MsgId, Thread, UserId,
    internal::rpc::LastEntry,
    log::fold::{GroupState, ThreadItem},
    size::{self, Size},
};

pub mod accounts;
#[cfg(test)]
pub mod conformance;
pub mod cql;
pub mod cursors;
pub mod overlay;
pub mod sqlite;

pub use cql::{Cql, CqlConfig};
pub use cursors::CursorArchive;
pub use sqlite::Sqlite;

/// Stretches of rising times that a search for a time looks into, the newest ones: as many as the clock was set back.
const FALLS: usize = 100;

/// Why the store did not do what it was asked. That something is not there is never an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ArchiveError {
    /// It does not answer, or cannot write now; the same call may succeed later.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// What is there cannot be read: a damaged file, or a value of a version this build does not know.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
    /// A rule of the schema was broken (for instance a name that is taken).
    #[error("the store refuses it: {0}")]
    Constraint(String),
    /// A bug of ours, or a file of another schema.
    #[error("the store cannot do this: {0}")]
    Failed(String),
}

/// One entry of a thread as the archive has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub thread: Thread,
    pub id: MsgId,
    /// When the log stored it, milliseconds since 1970: the same on every way to a reader. Rises with the ids unless
    /// that clock was set back.
    pub ts: u64,
    pub from: UserId,
    pub cid: Cid,
    pub kind: Kind,
    pub body: Body,
    /// Id of the operation that changed it last; 0: as it was written.
    pub rev: MsgId,
    /// A recall by somebody who was admin or owner of the group at this point of the log. Decided by the fold, before
    /// it is written.
    pub power: bool,
    /// The bytes of an entry of kind `unknown`.
    pub raw: Option<Bytes>,
    /// Only in an answer of `history`: an operation that cannot be read or judged now may have changed this, so nobody
    /// may be shown it.
    pub unchecked: bool,
}

impl Row {
    /// The row of an entry as it came from the log. One that cannot be read becomes kind `unknown`, with its bytes; so
    /// does a change of the thread that is not on a `ctl.` subject, or a message that is: only the guarded subject may
    /// change who is in a thread.
    pub fn from_log(thread: &Thread, id: MsgId, ts: u64, control: bool, payload: &Bytes) -> Self {
        match Entry::on(control, payload) {
            Ok(entry) => Self {
                raw: (entry.kind == Kind::Unknown).then(|| payload.clone()),
                ..Self::from_event(Event::new(thread.clone(), id, MsgId::NONE, ts, entry))
            },
            Err(_) => Self {
                raw: Some(payload.clone()),
                ..Self::from_event(Event::unreadable(thread.clone(), id, MsgId::NONE, ts, payload.clone()))
            },
        }
    }

    pub fn from_event(e: Event) -> Self {
        let Event { thread, id, ts, from, cid, kind, body, .. } = e;
        Self { thread, id, ts, from, cid, kind, body, rev: MsgId::NONE, power: false, raw: None, unchecked: false }
    }

    pub fn into_event(self, prev: MsgId) -> Event {
        Event {
            thread: self.thread,
            id: self.id,
            prev,
            ts: self.ts,
            from: self.from,
            cid: self.cid,
            kind: self.kind,
            body: self.body,
        }
    }

    /// The entry it came from, as far as a fold of control entries needs it.
    pub fn entry(&self) -> Entry {
        Entry::new(self.from.clone(), self.cid, self.kind, self.body.clone())
    }
}

/// What an event is besides its body, in JSON: a thread of 133 characters, a sender of 64, a cid of 36, three numbers
/// of 16 digits, and the names of the fields.
const EVENT_BYTES: usize = 400;

/// As the event it becomes, in JSON.
impl Size for Row {
    fn size(&self) -> usize {
        EVENT_BYTES + size::json(&self.body)
    }
}

/// The ids at which the times of these rows fall, oldest first; `last`: the row before them. What is not above it was
/// written before.
fn falls<'r>(mut last: LastEntry, rows: impl IntoIterator<Item = &'r Row>) -> Vec<MsgId> {
    let mut falls = Vec::new();
    for row in rows.into_iter() {
        if row.id <= last.id {
            continue;
        }
        if !last.id.is_none() && row.ts < last.ts {
            falls.push(row.id);
        }
        last = LastEntry { id: row.id, ts: row.ts };
    }
    falls
}

/// The entries of one thread within a batch, oldest first, and what their control entries made of the thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadBatch {
    pub thread: Thread,
    pub rows: Vec<Row>,
    /// State of the group after the batch, if a control entry changed it. Kept if its version is larger than the stored
    /// one's.
    pub group: Option<GroupState>,
    /// Items of users that changed. Each is kept if its `v` is larger than the stored one's.
    pub items: Vec<(UserId, ThreadItem)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    OldestFirst,
    NewestFirst,
}

/// A partition of one generation of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey {
    pub generation: u32,
    pub partition: u32,
}

/// Ids `first..=last` of a partition that nobody can read any more: they aged out of the log before they were archived,
/// or the log lost its end. Of which threads they were is not known, so every thread of the partition has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostRange {
    pub key: PartitionKey,
    /// Of its generation.
    pub partitions: u32,
    pub first: MsgId,
    pub last: MsgId,
    /// The archived times of what stands before and after.
    pub since: u64,
    pub until: u64,
}

impl LostRange {
    pub fn concerns(&self, thread: &Thread) -> bool {
        thread.partition(self.partitions) == self.key.partition
    }

    /// As a reader of the thread is told.
    pub fn row(&self, thread: &Thread) -> Row {
        Row::from_event(Event::lost(thread.clone(), self.first, self.last, self.until))
    }
}

/// Looking for (thread, sender, cid).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CidLookup {
    /// The lowest id it is stored under.
    Found(MsgId),
    Absent,
    /// More rows than a lookup may read; a store with an index on cids never says so.
    TooMany,
}

/// An entry whose subject names no thread: kept, because it was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownSubject {
    pub key: PartitionKey,
    pub id: MsgId,
    pub ts: u64,
    pub subject: String,
    pub payload: Bytes,
}

/// Everything the message path asks of an archive. Dropping a future of a write leaves it open whether the write
/// happens.
pub trait ArchiveStore: CursorArchive + Clone + Send + Sync + 'static {
    /// The same for who can wait: a request may take much longer before it fails.
    fn patient(&self) -> Self {
        self.clone()
    }

    /// Finishes what was begun and lets go of everything; later calls fail.
    fn close(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Writes a thread's part of a batch: rows with their effect on earlier rows, last id, group state and items.
    fn append(&self, batch: ThreadBatch) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    fn keep_unknown_subject(&self, stray: UnknownSubject) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    /// Was nothing ever archived, of any generation?
    fn is_empty(&self) -> impl Future<Output = Result<bool, ArchiveError>> + Send;

    /// Moves the watermark; never back.
    fn advance(&self, key: PartitionKey, to: Position) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    fn position(&self, key: PartitionKey) -> impl Future<Output = Result<Option<Position>, ArchiveError>> + Send;

    /// Of every partition that was ever archived.
    fn positions(&self) -> impl Future<Output = Result<Vec<(PartitionKey, Position)>, ArchiveError>> + Send;

    /// Keeps for ever that these are lost, before the watermark moves over them. Of two with the same beginning the
    /// longer one stays.
    fn lose(&self, lost: LostRange) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    /// All there are, by their last id. Read behind a watermark it has whatever that has moved over.
    fn lost(&self) -> impl Future<Output = Result<Vec<LostRange>, ArchiveError>> + Send;

    /// Rows with `lo <= id < hi`, at most `most`, from the end that `order` names.
    fn rows(
        &self,
        thread: &Thread,
        lo: MsgId,
        hi: MsgId,
        order: Order,
        most: Most,
    ) -> impl Future<Output = Result<Vec<Row>, ArchiveError>> + Send;

    /// The row below this id with the earliest time at or after `ts`; of several the first. Where times rise with ids:
    /// the first one.
    fn id_at(
        &self,
        thread: &Thread,
        ts: u64,
        below: MsgId,
    ) -> impl Future<Output = Result<Option<LastEntry>, ArchiveError>> + Send;

    /// Rows that the log stored before `since` (milliseconds) need not be looked at; and at most `max` are, if rows
    /// have to be read at all.
    fn find_cid(
        &self,
        thread: &Thread,
        from: &UserId,
        cid: Cid,
        since: u64,
        max: usize,
    ) -> impl Future<Output = Result<CidLookup, ArchiveError>> + Send;

    /// The newest entry of each thread, in the order asked.
    fn last_entries(&self, threads: &[Thread]) -> impl Future<Output = Result<Vec<LastEntry>, ArchiveError>> + Send;

    /// The control entries of a thread with `id < below`, oldest first: for a fold as of a point in the past.
    fn controls(&self, thread: &Thread, below: MsgId) -> impl Future<Output = Result<Vec<Row>, ArchiveError>> + Send;

    fn group(&self, thread: &Thread) -> impl Future<Output = Result<Option<GroupState>, ArchiveError>> + Send;

    fn item(
        &self,
        thread: &Thread,
        user: &UserId,
    ) -> impl Future<Output = Result<Option<ThreadItem>, ArchiveError>> + Send;

    /// Every thread the user is or was in.
    fn user_threads(
        &self,
        user: &UserId,
    ) -> impl Future<Output = Result<Vec<(Thread, ThreadItem)>, ArchiveError>> + Send;
}
