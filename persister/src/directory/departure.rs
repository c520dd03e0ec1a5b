//! Whoever's account is deleted leaves their groups, and takes no more messages in conversations: by control entries as
//! they would make them themself, guarded by the last one of the thread as those of an edge are
//! (`edge/src/control.rs`), so each reader of the log folds them as any other.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use natterjack_nats::{Fence, Layout, PublishError, Publisher, ThreadLog};
use natterjack_protocol::{
    Body, Cid, Entry, Kind, MsgId, Refusal, Thread, UserId,
    log::{
        departure,
        fold::{ThreadItem, UserThreads},
    },
};
use tokio::time::{Instant, sleep};

use super::{Directory, kv_refusal};
use crate::store::{ArchiveStore, accounts::Accounts};

/// Threads that are left at once.
const AT_ONCE: usize = 16;
/// Until `channel` has folded what was appended: 20–60 ms for a group of 500.
const FOLD: Duration = Duration::from_millis(50);
/// Of one attempt; what is left then waits for the next.
const WITHIN: Duration = Duration::from_secs(60);
/// Beats come once a second.
const BEATS: Duration = Duration::from_secs(5);

fn later() -> Refusal {
    Refusal::unavailable("the threads of an account cannot be left now; it is tried again")
}

/// Is the user in the thread in a way that others notice?
fn is_in(user: &UserId, thread: &Thread, item: &ThreadItem) -> bool {
    match thread {
        Thread::Group { .. } => item.role.is_some(),
        Thread::Dm { .. } => !item.not_begun && !item.blocks && thread.peer(user).is_some_and(|peer| peer != user),
    }
}

impl<S: ArchiveStore + Accounts> Directory<S> {
    /// Returns once it is so. Safe to drop and to repeat, by many at once.
    pub(super) async fn depart(&self, user: &UserId) -> Result<(), Refusal> {
        if self.left_to_leave(user).await?.is_empty() {
            return Ok(());
        }
        let layout = Layout::load(&self.nats).await.map_err(|e| {
            tracing::warn!(error = %e, "threads cannot be left: the layout of the log is not known");
            later()
        })?;
        let fence = Fence::new(&self.nats, layout);
        let publisher = Publisher::new(&self.nats, layout, self.times.clone()).behind(fence.clone());
        let log = ThreadLog::new(&self.nats, layout);
        let end = Instant::now() + WITHIN;
        let leaving = async {
            loop {
                let threads = self.left_to_leave(user).await?;
                if threads.is_empty() {
                    return Ok(());
                }
                if Instant::now() >= end {
                    return Err(later());
                }
                let one = |(thread, item): (Thread, ThreadItem)| self.leave(user, thread, item.v, &log, &publisher);
                stream::iter(threads).map(one).buffer_unordered(AT_ONCE).try_for_each(async |()| Ok(())).await?;
                sleep(FOLD).await;
            }
        };
        fence.while_heard(BEATS, leaving).await.unwrap_or_else(|| {
            tracing::warn!("threads cannot be left: no `channel` says that the log is whole");
            Err(later())
        })
    }

    async fn left_to_leave(&self, user: &UserId) -> Result<Vec<(Thread, ThreadItem)>, Refusal> {
        let UserThreads { threads, .. } = match self.buckets.threads(user).load().await.map_err(kv_refusal)? {
            Some(threads) => threads,
            // Cleared away before. What came into the log since then stands there alone.
            None => self.computed_threads(user).await?,
        };
        Ok(threads.into_iter().filter(|(thread, item)| is_in(user, thread, item)).collect())
    }

    /// One step, if everything before it has been folded.
    async fn leave(
        &self,
        user: &UserId,
        thread: Thread,
        seen: MsgId,
        log: &ThreadLog,
        publisher: &Publisher,
    ) -> Result<(), Refusal> {
        let (last, guard) = log.last_control(&thread).await.map_err(|e| {
            tracing::warn!(%thread, error = %e, "a thread cannot be left: the log does not answer");
            later()
        })?;
        let (version, change) = match &thread {
            Thread::Group { gid } => match self.buckets.group(gid).load().await.map_err(kv_refusal)? {
                Some(group) => (group.version, departure(&group, user)),
                None => return self.rebuild_group(gid).await,
            },
            Thread::Dm { .. } => (seen, Some((Kind::Blocked, Body::default()))),
        };
        let Some((kind, body)) = change.filter(|_| last.is_none_or(|l| l.id == version)) else { return Ok(()) };
        let op = Cid::mint(self.time.now_ms(), rand::random());
        let payload = Entry::new(user.clone(), op, kind, body).encode();
        match publisher.control(&thread, &op.dedupe_id(&thread, user), payload, guard).await {
            // Somebody was faster: it is judged anew.
            Ok(_) | Err(PublishError::Conflict) => Ok(()),
            Err(e) => {
                tracing::warn!(%thread, error = %e, "a thread cannot be left: the log does not take the entry");
                Err(later())
            }
        }
    }
}
