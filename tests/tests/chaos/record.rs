//! What happened, as plain data: what was asked, what was answered, what was shown to whom, which connections were
//! there, what stood still, and what history says in the end. One process, one monotonic clock.

pub mod reading;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use natterjack_protocol::{
    Event, Kind,
    client::{frame::DeviceClass, presence::PresenceState},
};

use self::reading::ReadingRecord;
use super::rules::Target;

/// One entry of a thread, as somebody saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub thread: String,
    pub id: u64,
    pub from: String,
    pub cid: String,
    pub kind: Kind,
    /// Empty for control entries.
    pub text: String,
    /// Whom a control entry is about.
    pub users: Vec<String>,
}

impl From<&Event> for Message {
    fn from(e: &Event) -> Self {
        Self {
            thread: e.thread.to_string(),
            id: e.id.0,
            from: e.from.to_string(),
            cid: e.cid.to_string(),
            kind: e.kind,
            text: e.body.text.clone().unwrap_or_default(),
            users: e.body.users.iter().map(ToString::to_string).collect(),
        }
    }
}

/// One message somebody wanted to send. Its text is unique in the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// A device.
    pub writer: String,
    pub user: String,
    pub thread: String,
    /// Counts the writer's messages in order of writing.
    pub n: u64,
    pub text: String,
    /// None until it is known (the SDK mints it itself).
    pub cid: Option<String>,
    /// When it was written, in microseconds of the run; no byte of it left before.
    pub at: u64,
    /// Every `sent` for it: id, when.
    pub acks: Vec<(u64, u64)>,
    /// The last answer was a refusal for good.
    pub refused: bool,
    /// Some handing ended without a clear answer.
    pub unsure: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub at: u64,
    pub live: bool,
    pub message: Message,
}

/// One device that reads all the time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reader {
    pub name: String,
    pub user: String,
    /// What a person would have seen, in that order.
    pub shown: Vec<Shown>,
    /// Every `event` frame: session, thread, id. Empty for the SDK, which keeps the wire to itself.
    pub wire: Vec<(u32, String, u64)>,
    /// What a reader must never have to do or be told: fill a hole below a live event, skip, end.
    pub complaints: Vec<String>,
}

/// A message that was handed to this connection, and to none before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handing {
    pub text: String,
    /// Before the first byte of it left.
    pub begun: u64,
    /// When this connection said `sent`.
    pub acked: Option<u64>,
}

/// One connection of a raw device, from its hello on. All times in microseconds of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    pub user: String,
    pub device: String,
    pub class: DeviceClass,
    pub edge: usize,
    /// It named the session that it had; otherwise its user wants to use it here.
    pub by_itself: bool,
    pub hello: u64,
    pub greeted: Option<u64>,
    pub ended: Option<u64>,
    /// The device that has taken over, as it was told.
    pub displaced_by: Option<String>,
    pub sends: Vec<Handing>,
    /// From, to: its edge was heard without a longer pause. Outside of that what it shows is old, and known to be.
    pub heard: Vec<(u64, u64)>,
    /// How whom was shown, in the order of the frames.
    pub presence: Vec<(u64, String, PresenceState)>,
}

/// A fault that keeps a process from speaking or from being heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    pub of: Target,
    pub from: u64,
    /// When the fault was over; what it takes to start and to connect comes after that.
    pub to: Option<u64>,
}

/// The whole of a thread, read through one edge after the faults were healed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub edge: usize,
    pub user: String,
    pub thread: String,
    pub messages: Vec<Message>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recording {
    /// By text.
    pub attempts: BTreeMap<String, Attempt>,
    pub readers: Vec<Reader>,
    pub histories: Vec<History>,
    pub connections: Vec<Connection>,
    pub outages: Vec<Outage>,
    /// Per group who wrote the first entry's place for others: a user who is in it from the beginning to the end.
    pub witness: BTreeMap<String, String>,
    pub reading: ReadingRecord,
    pub numbers: Numbers,
}

/// For the report only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    pub sessions: u64,
    pub resends: u64,
    pub fills: u64,
    pub old_events: u64,
    pub membership_changes: u64,
}

#[derive(Clone)]
pub struct Recorder {
    began: Instant,
    recording: Arc<Mutex<Recording>>,
}

impl Recorder {
    pub fn new() -> Self {
        Self { began: Instant::now(), recording: Arc::default() }
    }

    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).expect("a run is short")
    }

    pub fn lock(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn reader(&self, name: &str, user: &str) -> usize {
        let mut r = self.lock();
        r.readers.push(Reader { name: name.into(), user: user.into(), ..Reader::default() });
        r.readers.len() - 1
    }

    pub fn attempt(&self, attempt: Attempt) {
        let old = self.lock().attempts.insert(attempt.text.clone(), attempt);
        assert!(old.is_none(), "texts are unique");
    }

    pub fn with_attempt(&self, text: &str, change: impl FnOnce(&mut Attempt)) {
        if let Some(a) = self.lock().attempts.get_mut(text) {
            change(a);
        }
    }

    pub fn acked(&self, text: &str, cid: String, id: u64) {
        let now = self.now();
        self.with_attempt(text, |a| {
            a.cid = Some(cid);
            a.acks.push((id, now));
        });
    }

    pub fn show(&self, reader: usize, event: &Event, live: bool) {
        let now = self.now();
        self.lock().readers[reader].shown.push(Shown { at: now, live, message: event.into() });
    }

    pub fn wire(&self, reader: usize, session: u32, event: &Event) {
        self.lock().readers[reader].wire.push((session, event.thread.to_string(), event.id.0));
    }

    /// A device has said hello. Gives the number of its connection.
    pub fn connection(&self, connection: Connection) -> usize {
        let mut r = self.lock();
        r.connections.push(connection);
        r.connections.len() - 1
    }

    pub fn with_connection(&self, connection: usize, change: impl FnOnce(&mut Connection, u64)) {
        let now = self.now();
        change(&mut self.lock().connections[connection], now);
    }

    pub fn outage(&self, of: Target) -> usize {
        let (mut r, from) = (self.lock(), self.now());
        r.outages.push(Outage { of, from, to: None });
        r.outages.len() - 1
    }

    pub fn healed(&self, outage: usize) {
        let now = self.now();
        self.lock().outages[outage].to = Some(now);
    }

    pub fn complain(&self, reader: usize, what: impl Into<String>) {
        self.lock().readers[reader].complaints.push(what.into());
    }
}
