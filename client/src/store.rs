//! Where a device keeps what must outlive the process: outbox, cursors, how far it is in sync, tokens.

mod file;

use std::path::{Path, PathBuf};

use natterjack_protocol::{
    DeviceId, Event, MsgId, Thread,
    client::{frame::ThreadSummary, http::Tokens},
};

use crate::{
    events::Marks,
    outbox::{Change, Unsent},
    resume::{Cursor, SyncPoint},
};

/// Where the outbox lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OutboxStore {
    /// Gone with the process.
    #[default]
    Memory,
    /// A file (SQLite) of this one device; one process at a time.
    File(PathBuf),
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("{0} is in use by another process: one client per file")]
    InUse(PathBuf),
    #[error("cannot {doing} {path}: {why}")]
    Io { doing: &'static str, path: PathBuf, why: String },
    /// Written by something else, or damaged beyond what the journal repairs.
    #[error("{path} holds what this client cannot read ({what}); move it away to start anew")]
    Corrupt { path: PathBuf, what: String },
}

/// What a file held when it was opened.
#[derive(Default)]
pub(crate) struct Stored {
    pub tokens: Option<Tokens>,
    pub device: Option<DeviceId>,
    /// The name of whose file this is; stays when the login ends.
    pub owner: Option<String>,
    pub synced: Option<SyncPoint>,
    pub cursors: Vec<(Thread, Cursor)>,
    /// What the user has read and the server does not know yet.
    pub read: Vec<(Thread, MsgId)>,
    /// The list of threads as it was known, and up to when it was asked for.
    pub known: Vec<ThreadSummary>,
    pub listed: Option<String>,
    pub outbox: Vec<Unsent>,
    /// The next local key; keys of messages long gone are not used again.
    pub next_local: u64,
}

/// The memory variant keeps nothing: all of it stands in the structures that decide.
#[derive(Clone)]
pub(crate) enum Store {
    Memory,
    File(file::File),
}

impl Store {
    pub async fn open(which: &OutboxStore) -> Result<(Self, Stored), StoreError> {
        match which {
            OutboxStore::Memory => Ok((Self::Memory, Stored { next_local: 1, ..Stored::default() })),
            OutboxStore::File(path) => {
                let path = path.clone();
                let (file, stored) = blocking(move || file::File::open(&path)).await?;
                Ok((Self::File(file), stored))
            }
        }
    }

    pub fn keeps(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// One transaction, on disk when this returns. Dropping the future does not stop it.
    pub async fn apply(&self, changes: Vec<Change>, marks: Marks) -> Result<(), (StoreError, Vec<Change>, Marks)> {
        match self {
            Self::Memory => Ok(()),
            Self::File(file) => {
                let file = file.clone();
                let (result, changes, marks) = blocking(move || (file.apply(&changes, &marks), changes, marks)).await;
                result.map_err(|e| (e, changes, marks))
            }
        }
    }

    pub async fn close(&self) {
        if let Self::File(file) = self {
            let file = file.clone();
            blocking(move || file.close()).await;
        }
    }

    /// The last ones of a thread, oldest first.
    pub async fn messages(&self, thread: Thread) -> Result<Vec<Event>, StoreError> {
        match self {
            Self::Memory => Ok(Vec::new()),
            Self::File(file) => {
                let file = file.clone();
                blocking(move || file.messages(&thread)).await
            }
        }
    }

    /// None forgets them (logged out).
    pub async fn save_login(&self, device: DeviceId, tokens: Option<Tokens>) -> Result<(), StoreError> {
        match self {
            Self::Memory => Ok(()),
            Self::File(file) => {
                let file = file.clone();
                blocking(move || file.save_login(&device, tokens.as_ref())).await
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(t) => t,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down refuses blocking work; nothing of ours goes on then.
            Err(_) => std::future::pending().await,
        },
    }
}

impl StoreError {
    fn io(doing: &'static str, path: &Path, why: impl std::fmt::Display) -> Self {
        Self::Io { doing, path: path.to_owned(), why: why.to_string() }
    }
}
