//! SQLite behind the store trait (step 7): one file, the embedded default of `up`.
//!
//! One writer thread with a bounded queue groups whatever waits into one transaction (one fsync for many jobs, none for
//! what the log has as well); reads use a few connections of their own beside it (WAL). Nothing here blocks an async
//! thread. Each table has its own file below.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use natterjack_nats::Position;
use natterjack_protocol::{
    Cid, Most, MsgId, Thread, UserId,
    internal::rpc::LastEntry,
    log::fold::{GroupState, ThreadItem},
};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, Transaction};
use tokio::sync::{Semaphore, mpsc, oneshot};

pub(crate) use self::errors::bad_column;
use self::{
    schema::{migrate, to_wal},
    writer::Durable,
};
use crate::store::{
    ArchiveError, ArchiveStore, CidLookup, LostRange, Order, PartitionKey, Row, ThreadBatch, UnknownSubject, falls,
};

mod accounts;
mod contacts;
mod cursors;
mod errors;
mod invites;
mod lost;
mod messages;
mod positions;
mod refresh_tokens;
mod schema;
mod threads;
mod users;
mod writer;

/// Jobs that wait for the writer. Overflow: whoever writes waits.
const QUEUE: usize = 256;
/// Two cores: more readers than that only wait for each other.
const READERS: usize = 4;
/// Another process may hold the file while it migrates.
const BUSY: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Sqlite {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// None once it is closed.
    jobs: Mutex<Option<mpsc::Sender<writer::Job>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    readers: Semaphore,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Inner {
    /// The readers first: as long as one is open, the journal cannot be folded into the file. Then the writer finishes
    /// what is queued, folds the journal in and closes the file; a few milliseconds.
    fn end(&self) {
        self.idle.lock().clear();
        drop(self.jobs.lock().take());
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
    }
}

impl Sqlite {
    /// Opens or creates the file and brings its schema up to date. Several processes may do so at once.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, ArchiveError> {
        let path = path.as_ref().to_owned();
        tokio::task::spawn_blocking(move || Self::open_blocking(path)).await.map_err(|_| gone())?
    }

    fn open_blocking(path: PathBuf) -> Result<Self, ArchiveError> {
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|e| ArchiveError::Unavailable(format!("{}: {e}", folder.display())))?;
        }
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY)?;
        to_wal(&connection)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        migrate(&mut connection)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("sqlite-writer".into())
            .spawn(move || writer::run(connection, queue))
            .map_err(|e| ArchiveError::Unavailable(e.to_string()))?;
        let inner = Inner {
            path,
            jobs: Mutex::new(Some(jobs)),
            writer: Mutex::new(Some(writer)),
            readers: Semaphore::new(READERS),
            idle: Arc::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A copy of the file as of one moment, while others write to it; nothing of it is in a journal. `to` must not be
    /// there.
    pub async fn copy(from: &Path, to: &Path) -> Result<(), ArchiveError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        let copy = move || {
            let name = to.to_str().ok_or_else(|| ArchiveError::Failed(format!("{} is no UTF-8", to.display())))?;
            let connection = reader(&from)?;
            // One read transaction: writers go on beside it, and their journal grows meanwhile.
            connection.execute("VACUUM INTO ?1", [name])?;
            Ok(())
        };
        tokio::task::spawn_blocking(copy).await.map_err(|_| gone())?
    }

    /// Of a file that nobody writes; changes nothing of it, its schema included. Writes are refused.
    pub async fn open_to_read(path: &Path) -> Result<Self, ArchiveError> {
        let inner = Inner {
            path: path.to_owned(),
            jobs: Mutex::new(None),
            writer: Mutex::new(None),
            readers: Semaphore::new(READERS),
            idle: Arc::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs `f` in a transaction and answers after its commit, when it is on the disk: an account that was created is
    /// kept. An error of `f` undoes what `f` did and nothing else. Dropping the future does not stop a job that is
    /// queued.
    pub async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        self.job(Durable::Now, f).await
    }

    /// Likewise, for what the log has as well: does not wait for the disk, which the log needs, too.
    async fn write_from_log(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), ArchiveError> {
        self.job(Durable::Later, f).await
    }

    async fn job<T: Send + 'static>(
        &self,
        durable: Durable,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.inner.jobs.lock().clone().ok_or_else(gone)?;
        metrics::gauge!(crate::metrics::STORE_QUEUE_JOBS).set((QUEUE - jobs.capacity()) as f64);
        jobs.send(writer::job(f, durable, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Runs `f` on a read-only connection.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let _permit = self.inner.readers.acquire().await.map_err(|_| gone())?;
        let (idle, path) = (self.inner.idle.clone(), self.inner.path.clone());
        let read = move || {
            let popped = idle.lock().pop();
            let connection = match popped {
                Some(c) => c,
                None => reader(&path)?,
            };
            let result = f(&connection).map_err(ArchiveError::from);
            idle.lock().push(connection);
            result
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| gone())?
    }
}

impl ArchiveStore for Sqlite {
    /// Leaves the file alone, without a journal beside it, unless another process has it open.
    async fn close(&self) {
        // Reads that are under way end first; later ones are refused.
        let reads = self.inner.readers.acquire_many(READERS as u32).await;
        self.inner.readers.close();
        let inner = self.inner.clone();
        if tokio::task::spawn_blocking(move || inner.end()).await.is_err() {
            tracing::error!("closing the archive panicked; its journal is kept and read at the next start");
        }
        drop(reads);
    }

    async fn append(&self, batch: ThreadBatch) -> Result<(), ArchiveError> {
        self.write_from_log(move |tx| {
            let ThreadBatch { thread, rows, group, items } = batch;
            if let Some(last) = rows.iter().max_by_key(|r| r.id) {
                for id in falls(threads::last_entry(tx, &thread)?, &rows) {
                    threads::put_fall(tx, &thread, id)?;
                }
                threads::touch(tx, &thread, last.id, last.ts)?;
            }
            for row in rows {
                messages::insert(tx, row)?;
            }
            if let Some(group) = &group {
                threads::put_group(tx, &thread, group)?;
            }
            items.iter().try_for_each(|(user, item)| threads::put_item(tx, &thread, user, item))
        })
        .await
    }

    async fn keep_unknown_subject(&self, stray: UnknownSubject) -> Result<(), ArchiveError> {
        self.write_from_log(move |tx| positions::keep_unknown_subject(tx, &stray)).await
    }

    async fn is_empty(&self) -> Result<bool, ArchiveError> {
        self.read(positions::is_empty).await
    }

    async fn advance(&self, key: PartitionKey, to: Position) -> Result<(), ArchiveError> {
        self.write_from_log(move |tx| positions::advance(tx, key, to)).await
    }

    async fn position(&self, key: PartitionKey) -> Result<Option<Position>, ArchiveError> {
        self.read(move |c| positions::position(c, key)).await
    }

    async fn positions(&self) -> Result<Vec<(PartitionKey, Position)>, ArchiveError> {
        self.read(positions::positions).await
    }

    async fn lose(&self, lost: LostRange) -> Result<(), ArchiveError> {
        self.write(move |tx| lost::lose(tx, &lost)).await
    }

    async fn lost(&self) -> Result<Vec<LostRange>, ArchiveError> {
        self.read(lost::lost).await
    }

    async fn rows(
        &self,
        thread: &Thread,
        lo: MsgId,
        hi: MsgId,
        order: Order,
        most: Most,
    ) -> Result<Vec<Row>, ArchiveError> {
        let thread = thread.clone();
        self.read(move |c| messages::rows(c, &thread, lo, hi, order, most)).await
    }

    async fn id_at(&self, thread: &Thread, ts: u64, below: MsgId) -> Result<Option<LastEntry>, ArchiveError> {
        let thread = thread.clone();
        self.read(move |c| messages::id_at(c, &thread, ts, below)).await
    }

    async fn find_cid(
        &self,
        thread: &Thread,
        from: &UserId,
        cid: Cid,
        _since: u64,
        _max: usize,
    ) -> Result<CidLookup, ArchiveError> {
        let (thread, from) = (thread.clone(), from.clone());
        let found = self.read(move |c| messages::find_cid(c, &thread, &from, cid)).await?;
        Ok(found.map_or(CidLookup::Absent, CidLookup::Found))
    }

    async fn last_entries(&self, threads: &[Thread]) -> Result<Vec<LastEntry>, ArchiveError> {
        let threads = threads.to_vec();
        self.read(move |c| threads::last_entries(c, &threads)).await
    }

    async fn controls(&self, thread: &Thread, below: MsgId) -> Result<Vec<Row>, ArchiveError> {
        let thread = thread.clone();
        self.read(move |c| messages::controls(c, &thread, below)).await
    }

    async fn group(&self, thread: &Thread) -> Result<Option<GroupState>, ArchiveError> {
        let thread = thread.clone();
        self.read(move |c| threads::group(c, &thread)).await
    }

    async fn item(&self, thread: &Thread, user: &UserId) -> Result<Option<ThreadItem>, ArchiveError> {
        let (thread, user) = (thread.clone(), user.clone());
        self.read(move |c| threads::item(c, &thread, &user)).await
    }

    async fn user_threads(&self, user: &UserId) -> Result<Vec<(Thread, ThreadItem)>, ArchiveError> {
        let user = user.clone();
        self.read(move |c| threads::user_threads(c, &user)).await
    }
}

fn reader(path: &Path) -> Result<Connection, ArchiveError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn gone() -> ArchiveError {
    ArchiveError::Unavailable("it is shutting down, or a job of it failed badly: see the log".into())
}

/// SQLite's integers are signed; ids and times stay below 2^53.
pub(crate) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn uint(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

#[cfg(test)]
mod tests;
