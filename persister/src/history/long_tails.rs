//! The operations of threads of which the log has too much above the archive to be read for every page: kept, and read
//! on from where the last reading ended. A stretch that is not read in time makes the answer a refusal; the next one
//! goes on there.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use natterjack_protocol::{Kind, MsgId, Thread, log::EntryView};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time::{Instant, timeout_at},
};

use super::{
    HistoryError, View,
    operations::{Operations, Roles},
    unarchived::{part, row},
};
use crate::{fold, store::ArchiveStore};

/// An edge asks again after 1.5 s. At about 100,000 entries a second this is an hour of 25 messages a second in one
/// thread.
const BUDGET: Duration = Duration::from_millis(1_000);
/// Operations of one thread, and of all, and what is known of members: each about 150 bytes, so 30 MB.
const OF_ONE: usize = 50_000;
const OF_ALL: usize = 200_000;
const THREADS: usize = 1_000;

#[derive(Default)]
pub(super) struct LongTails {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    threads: HashMap<Thread, Slot>,
    /// Counts uses.
    clock: u64,
}

struct Slot {
    read: Arc<AsyncMutex<Read>>,
    used: u64,
    len: usize,
}

struct Read {
    operations: Operations,
    /// The last entry that was taken in: a log that lost its end gives its id again.
    last: Option<(MsgId, u64)>,
    /// More than may be kept.
    too_many: bool,
}

impl Default for Read {
    /// Of nothing: it fits no question.
    fn default() -> Self {
        Self { operations: Operations::new(MsgId::MAX, Roles::unknown()), last: None, too_many: false }
    }
}

/// The operations of one thread, for as long as a page is made.
pub(super) struct Held(OwnedMutexGuard<Read>);

impl Deref for Held {
    type Target = Operations;

    fn deref(&self) -> &Operations {
        &self.0.operations
    }
}

impl LongTails {
    /// Is something of this thread kept?
    pub fn knows(&self, thread: &Thread) -> bool {
        self.lock().threads.contains_key(thread)
    }

    /// All operations with `floor` < id <= `reach`. `archived`: the archive has what lies below, and can tell the roles
    /// at `floor`.
    pub async fn operations<S: ArchiveStore>(
        &self,
        view: &View<S>,
        thread: &Thread,
        (floor, reach): (MsgId, MsgId),
        archived: bool,
    ) -> Result<Held, HistoryError> {
        let deadline = Instant::now() + BUDGET;
        let read = self.slot(thread);
        let Ok(mut read) = timeout_at(deadline, read.lock_owned()).await else { return Err(HistoryError::OutOfReach) };
        let exact = matches!(read.operations.roles, Roles::Exact(_)) || !archived;
        if read.operations.after > floor || !exact || (read.too_many && floor >= read.operations.upto) {
            *read = Read::from(view, thread, floor, archived).await?;
        }
        while !read.too_many && read.operations.upto < reach {
            if Instant::now() >= deadline {
                metrics::counter!(crate::metrics::HISTORY_LONG_TAILS_UNREAD).increment(1);
                return Err(HistoryError::OutOfReach);
            }
            if !read.on(view, thread, reach).await? {
                *read = Read::from(view, thread, floor, archived).await?;
            }
        }
        self.used(thread, read.operations.len());
        if read.too_many {
            return Err(HistoryError::OutOfReach);
        }
        Ok(Held(read))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, thread: &Thread) -> Arc<AsyncMutex<Read>> {
        let slot = || Slot { read: Arc::default(), used: 0, len: 0 };
        self.lock().threads.entry(thread.clone()).or_insert_with(slot).read.clone()
    }

    /// Forgets what was not used for the longest time, if there is too much.
    fn used(&self, thread: &Thread, len: usize) {
        let mut kept = self.lock();
        kept.clock += 1;
        let now = kept.clock;
        if let Some(slot) = kept.threads.get_mut(thread) {
            (slot.used, slot.len) = (now, len);
        }
        while kept.threads.len() > THREADS || kept.threads.values().map(|s| s.len).sum::<usize>() > OF_ALL {
            let oldest = kept.threads.iter().min_by_key(|(_, s)| s.used).map(|(t, _)| t.clone());
            let Some(oldest) = oldest else { return };
            kept.threads.remove(&oldest);
        }
    }
}

impl Read {
    async fn from<S: ArchiveStore>(
        view: &View<S>,
        thread: &Thread,
        floor: MsgId,
        archived: bool,
    ) -> Result<Self, HistoryError> {
        let roles = match thread {
            Thread::Dm { .. } => Roles::Exact(None),
            Thread::Group { .. } if archived => {
                Roles::Exact(fold::group_before(&view.store, thread, floor.next()).await?)
            }
            Thread::Group { .. } => Roles::unknown(),
        };
        Ok(Self { operations: Operations::new(floor, roles), last: None, too_many: false })
    }

    /// Takes the next part in. False: what was read before is not in the log any more.
    async fn on<S: ArchiveStore>(
        &mut self,
        view: &View<S>,
        thread: &Thread,
        reach: MsgId,
    ) -> Result<bool, HistoryError> {
        let after = self.last.map_or(self.operations.upto, |(id, _)| MsgId(id.0 - 1));
        let part = part(view.whole);
        let mut records = view.log.after(thread, after, reach, part).await?;
        let mut all = !part.full(&records);
        if let Some(last) = self.last {
            if records.first().is_none_or(|r| (r.id, r.ts) != last) {
                return Ok(false);
            }
            records.remove(0);
            if records.is_empty() && !all {
                // It alone is as large as a part.
                records = view.log.after(thread, last.0, reach, part).await?;
                all = !part.full(&records);
            }
        }
        if let Some(last) = records.last() {
            self.last = Some((last.id, last.ts));
        }
        let end = if all { reach } else { self.last.map_or(reach, |(id, _)| id) };
        records.retain(|r| EntryView::parse(&r.payload).is_ok_and(|v| Operations::concern(Kind::parse(v.kind))));
        let rows: Vec<_> = view.without_copies(records).await?.into_iter().map(row).collect();
        self.operations.take(&rows);
        self.operations.upto = end;
        if self.operations.len() > OF_ONE {
            // Nothing is kept but that it is too much, until the archive has come past it.
            let after = self.operations.after;
            self.operations = Operations::new(after, Roles::Exact(None));
            self.operations.upto = end;
            self.too_many = true;
        }
        Ok(true)
    }
}
