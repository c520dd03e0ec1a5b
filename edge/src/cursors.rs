//! How far the users of this edge have read, and their devices have got: gathered from their sessions, written into
//! their key, told to their other devices (ADR 15, P5).
//!
//! A key only grows, so two edges that write it at once lose nothing of each other's, and no write that comes late or
//! twice does harm. What an edge that dies had not written yet, its clients say again.

mod stored;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use natterjack_nats::{KvBuckets, KvError, Layout, Nats, ServerTime, subjects};
use natterjack_protocol::{
    Code, DeviceId, MsgId, Refusal, Thread, UserId,
    client::frame::{Acknowledged, ServerFrame},
    internal::{cursors::UserCursors, live::Ephemeral},
    limits,
    log::fold::{ThreadItem, UserThreads},
    merge::MaxMerge,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;

use self::stored::StoredCursors;
use crate::{
    acks::{
        UserAcks,
        pending::{Given, PendingAcks, ReadyAcks},
    },
    clock::Clock,
    directory::Directory,
    members::UserState,
    receipt_push::ReceiptPublisher,
    refusals::refuse,
    sessions::handle::SessionHandle,
};

/// Before a key that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Attempts for somebody who is not here any more.
const FAILURES: u32 = 30;
/// What was written so long ago has been told to every device that was there; clocks of edges differ by less.
const SLACK_S: u64 = 60;

/// Clones share it.
#[derive(Clone)]
pub struct CursorKeeper(Arc<Inner>);

struct Inner {
    nats: Nats,
    buckets: KvBuckets,
    layout: Layout,
    clock: Clock,
    time: ServerTime,
    stored: StoredCursors,
    receipts: ReceiptPublisher,
    tasks: TaskTracker,
}

impl CursorKeeper {
    pub fn new(
        nats: &Nats,
        buckets: &KvBuckets,
        layout: Layout,
        clock: &Clock,
        time: &ServerTime,
        directory: &Directory,
    ) -> Self {
        Self(Arc::new(Inner {
            nats: nats.clone(),
            buckets: buckets.clone(),
            layout,
            clock: clock.clone(),
            time: time.clone(),
            stored: StoredCursors::new(buckets, directory),
            receipts: ReceiptPublisher::new(nats, buckets),
            tasks: TaskTracker::new(),
        }))
    }

    /// By the leader of the key. A key that is gone was lost, and is restored first.
    pub async fn load(&self, user: &UserId) -> Result<UserCursors, Refusal> {
        self.0.stored.load(user).await
    }

    /// Changes what stands there of one thread, and says what stands there then; `apply` says whether it changes
    /// anything, and may be asked several times.
    pub async fn change(
        &self,
        user: &UserId,
        thread: &Thread,
        mut apply: impl FnMut(&mut UserCursors) -> Result<bool, Refusal>,
    ) -> Result<UserCursors, Refusal> {
        let mut stands = Ok(UserCursors::default());
        self.0
            .stored
            .change(
                user,
                None,
                || vec![(thread.hash64(), ())],
                |part, _| {
                    let changed = apply(part);
                    stands = changed.as_ref().map(|_| part.clone()).map_err(Clone::clone);
                    changed.unwrap_or(false)
                },
            )
            .await?;
        stands
    }

    /// Takes what a device of the user says, to be written within a second. Refused is what makes no sense: the rest of
    /// it is taken all the same.
    ///
    /// `threads`: by the leader, for who may have been told of a thread before this edge was.
    pub fn ack(
        &self,
        state: &Arc<UserState>,
        device: &DeviceId,
        acked: Acknowledged,
        threads: Option<&UserThreads>,
    ) -> Result<(), Refusal> {
        let item = |thread: &Thread| {
            state.item(thread).or_else(|| threads.and_then(|threads| threads.threads.get(thread).cloned()))
        };
        let (acked, refused) = checked(acked, |thread| item(thread).as_ref().and_then(readable))?;
        if (!acked.got.is_empty() || !acked.read.is_empty())
            && let Some(changed) = state.acks.add(device, acked, Instant::now())
        {
            self.0.tasks.spawn(self.0.clone().write_all(state.clone(), changed));
        }
        refused.map_or(Ok(()), Err)
    }

    /// The same for who has no session: returns when it is written, with how far these threads are read then.
    pub async fn ack_now(
        &self,
        user: &UserId,
        threads: &UserThreads,
        device: &DeviceId,
        acked: Acknowledged,
    ) -> Result<BTreeMap<Thread, MsgId>, Refusal> {
        let (acked, refused) = checked(acked, |thread| threads.threads.get(thread).and_then(readable))?;
        let of: Vec<Thread> = acked.read.keys().cloned().collect();
        let mut pending = PendingAcks::default();
        pending.add(device, acked, Instant::now());
        pending.hurry();
        while let Some(due) = pending.due(Instant::now()) {
            sleep_until(due).await;
            let ready = pending.take(Instant::now(), |thread| self.0.given(thread));
            if !ready.is_empty() {
                self.0.write(user, None, &ready).await?;
            }
        }
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        let cursors = self.load(user).await?;
        Ok(of.into_iter().map(|thread| (thread.clone(), cursors.read(&thread))).collect())
    }

    /// What is not read of these so far is. Returns when it is written, of how many that was so.
    pub async fn read_all(&self, user: &UserId, threads: Vec<(Thread, MsgId)>) -> Result<usize, Refusal> {
        let stands = self.load(user).await?;
        let read: Vec<_> = threads.into_iter().filter(|(thread, id)| *id > stands.read(thread)).collect();
        for part in read.chunks(limits::CURSORS_PER_HELLO) {
            self.0.write(user, None, &ReadyAcks { read: part.to_vec(), got: Vec::new() }).await?;
        }
        Ok(read.len())
    }

    /// Returns when all that was said is written.
    pub async fn written(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// To a device that comes back: what its user has read since it was in sync last (seconds since 1970); if nobody
    /// knows when that was, in the threads that it has. What it has got, it says with its cursors. Gives what stands
    /// there, if it can be told now.
    pub async fn come_back(
        &self,
        session: &Arc<SessionHandle>,
        has: &BTreeMap<Thread, MsgId>,
        since_s: Option<u64>,
    ) -> Result<Option<UserCursors>, Refusal> {
        // Nobody's attach waits for the archive: what is restored, the list of threads tells.
        let cursors = match self.0.buckets.cursors(&session.user).load().await {
            Ok(Some(cursors)) => cursors,
            Ok(None) => {
                let (inner, user) = (self.0.clone(), session.user.clone());
                self.0.tasks.spawn(async move { inner.stored.load(&user).await.map(drop).unwrap_or_default() });
                return Ok(None);
            }
            // Of a later version, perhaps: nothing of it can be told, and they chat all the same.
            Err(e @ KvError::Corrupt { .. }) => {
                tracing::warn!(user = %session.user, error = %e, "what was read is not told");
                return Ok(None);
            }
            Err(e) => return Err(refuse(e)),
        };
        let told = session.state.select(|thread, item| {
            item.visible()
                && (since_s.is_some() || has.contains_key(thread))
                && cursors.read_since(thread, since_s.unwrap_or(0)).is_some()
        });
        for part in told.chunks(limits::CURSORS_PER_HELLO) {
            let threads = part.iter().map(|(thread, _)| (thread.clone(), cursors.read(thread))).collect();
            session.frame(&ServerFrame::Read { threads });
        }
        let further = has.iter().filter(|(thread, id)| **id > cursors.got_by(&session.device, thread));
        let got = further.map(|(thread, id)| (thread.clone(), *id)).collect();
        // Cursors that make no sense are refused with the pages.
        let _ = self.ack(&session.state, &session.device, Acknowledged { got, read: BTreeMap::new() }, None);
        Ok(Some(cursors))
    }

    /// For the mark of a device that is in sync: who comes back with it is told what was read from then on.
    pub fn now_s(&self) -> u64 {
        (self.0.time.now_ms() / 1_000).saturating_sub(SLACK_S)
    }
}

/// Up to where somebody may have read a thread: who has left it, what was theirs. None: it is none of theirs.
fn readable(item: &ThreadItem) -> Option<MsgId> {
    let until = item.intervals.0.last().and_then(|i| i.until);
    item.visible().then(|| until.map_or(MsgId::MAX, |until| MsgId(until.0.saturating_sub(1))))
}

/// What may be taken of it, and why not the rest. `most`: see [`readable`].
fn checked(
    mut acked: Acknowledged,
    most: impl Fn(&Thread) -> Option<MsgId>,
) -> Result<(Acknowledged, Option<Refusal>), Refusal> {
    for (name, ids) in [("got", &acked.got), ("read", &acked.read)] {
        if ids.len() > limits::CURSORS_PER_HELLO {
            return Err(Refusal::invalid(format!("{name}: at most {} at once", limits::CURSORS_PER_HELLO)));
        }
    }
    let mut refused = None;
    let mut takes = |thread: &Thread, id: &mut MsgId| match most(thread) {
        Some(most) => {
            *id = most.min(*id);
            !id.is_none()
        }
        None => {
            let refusal = || Refusal::new(Code::NotMember, "you are not in this thread").with_thread(thread);
            refused.get_or_insert_with(refusal);
            false
        }
    };
    acked.got.retain(&mut takes);
    acked.read.retain(&mut takes);
    Ok((acked, refused))
}

impl Inner {
    fn given(&self, thread: &Thread) -> Given {
        let p = self.layout.partition(thread);
        Given { newest: self.clock.newest(p), beats: self.clock.alive(p) }
    }

    /// Until nothing is pending.
    async fn write_all(self: Arc<Self>, state: Arc<UserState>, changed: Arc<Notify>) {
        let mut failures = 0;
        while let Some(due) = state.acks.due_or_done(Instant::now()) {
            tokio::select! {
                () = sleep_until(due) => {}
                () = changed.notified() => continue,
            }
            let ready = state.acks.take(Instant::now(), |thread| self.given(thread));
            if ready.is_empty() {
                continue;
            }
            match self.write(&state.user, Some(&state.acks), &ready).await {
                Ok(()) => {
                    failures = 0;
                    state.acks.written(Instant::now());
                }
                // The account is gone, and all of it with it; or there is no room, and will be none.
                Err(e) if matches!(e.code, Code::NotFound | Code::LimitReached) => state.acks.written(Instant::now()),
                // Nobody of this user is here any more: their devices say it again, wherever they are.
                Err(_) if failures >= FAILURES && Arc::strong_count(&state) == 1 => return state.acks.give_up(),
                Err(e) => {
                    failures += 1;
                    tracing::debug!(user = %state.user, error = %e.message, "cursors are not written yet");
                    state.acks.put_back(ready, Instant::now(), AGAIN);
                }
            }
        }
    }

    /// Into the key, then to all devices of the user.
    async fn write(&self, user: &UserId, acks: Option<&UserAcks>, ready: &ReadyAcks) -> Result<(), Refusal> {
        let (now_s, mut news) = (self.time.now_ms() / 1_000, ReadyAcks::default());
        let apply = |part: &mut UserCursors, acks: &[(u64, ReadyAcks)]| {
            let mut grows = false;
            for (_, ack) in acks {
                news.extend(ack.beyond(part));
                grows |= part.merge_max(&ack.cursors(now_s));
            }
            part.fit();
            grows
        };
        let whole = self.stored.change(user, acks.and_then(UserAcks::take_known), || ready.by_thread(), apply).await?;
        metrics::counter!(crate::metrics::CURSOR_WRITES).increment(u64::from(!news.is_empty()));
        if let (Some(acks), Some((value, revision))) = (acks, whole) {
            acks.remember(value, revision);
        }
        news.got.iter().for_each(|(_, thread, id)| self.receipts.add(user, thread, *id, MsgId::NONE));
        news.read.iter().for_each(|(thread, id)| self.receipts.add(user, thread, *id, *id));
        self.tell(user, ready).await;
        Ok(())
    }

    /// Also when nothing was new: the device that said it waits for this.
    async fn tell(&self, user: &UserId, ready: &ReadyAcks) {
        for part in ready.read.chunks(limits::CURSORS_PER_HELLO) {
            let payload = Ephemeral::Read { threads: part.iter().cloned().collect() }.encode();
            if let Err(e) = self.nats.publish(subjects::live_user_x(user), payload).await {
                tracing::debug!(%user, error = %e, "what was read is not told");
            }
        }
    }
}
