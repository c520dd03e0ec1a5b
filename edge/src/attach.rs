//! Attach without a hole (ADR 8): subscribe, barrier, read the threads, subscribe the groups, barrier with heads,
//! pages, live. Comes after `hello`; hands over to the dispatcher, which delivers everything newer in order.

mod catch_up;
pub mod changes;
pub mod plan;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use natterjack_nats::{KvBuckets, Layout, LeaderReader, Nats, RpcError, calls::directory::rebuild_threads};
use natterjack_protocol::{
    MsgId, Refusal, Thread, Times, UserId,
    client::{close, frame::ServerFrame},
    internal::rpc::ReadAccess,
    log::fold::{ThreadItem, UserThreads},
};
use tokio::time::timeout;

use self::{catch_up::tell_changes, changes::changes, plan::SyncedMark};
use crate::{
    clock::Clock,
    cursors::CursorKeeper,
    history::HistoryClient,
    live::{LiveHandle, SkipUntil, event::TopicKey, heads_batch::Barrier, topic::VisibleRange},
    refusals::{EdgeError, RoleService, refuse},
    sessions::handle::SessionHandle,
    thread_settings::SettingsKeeper,
};

/// The first barrier usually comes within milliseconds.
const SOON: Duration = Duration::from_millis(300);
/// How often what came while the pages went out may be more than is held (512 KiB): a client that reads so much slower
/// than people write to it is a slow reader.
const TURNS: usize = 16;
/// How often the threads are read again because a change was signalled meanwhile; beyond this the `member` signal has
/// to do.
const READS: usize = 4;

/// Attaches the sessions of an edge. Clones share it.
#[derive(Clone)]
pub struct Attach {
    pub live: LiveHandle,
    pub nats: Nats,
    pub buckets: KvBuckets,
    pub layout: Layout,
    pub clock: Clock,
    pub history: HistoryClient,
    pub tail: LeaderReader,
    pub cursors: CursorKeeper,
    pub settings: SettingsKeeper,
    pub times: Times,
}

impl Attach {
    /// Sends which memberships changed and what is newer than the cursors, then `attached`; from there on events come
    /// live. Run it beside the session's read loop, right after `welcome` was queued. False: something could not be
    /// read, and the client was told what.
    ///
    /// The pages go as fast as the client reads them. What is said meanwhile is held, as far as there is room for it;
    /// beyond that the log holds it, and a further turn brings it.
    pub async fn attach(
        &self,
        session: &Arc<SessionHandle>,
        cursors: BTreeMap<Thread, MsgId>,
        synced: Option<String>,
    ) -> Result<bool, Refusal> {
        self.live.subscribe(session, vec![(TopicKey::User(session.user.clone()), VisibleRange::default())]).await?;
        let comes_back = !cursors.is_empty() || synced.is_some();
        let mark = synced.and_then(|s| SyncedMark::parse(&s, self.layout.generation, self.layout.partitions));
        let (mut synced, read_since) = mark.map_or((None, None), |mark| (Some(mark.frontiers), Some(mark.at_s)));
        let (mut cursors, mut complete) = (cursors, true);
        let mut reached: BTreeMap<Thread, MsgId> = BTreeMap::new();
        for turn in 0..TURNS {
            let (items, barrier) = self.threads_of(session).await?;
            if turn == 0
                && comes_back
                && let Some(stands) = self.cursors.come_back(session, &cursors, read_since).await?
            {
                self.settings.come_back(session, &stands, &cursors, read_since).await;
            }
            tell_changes(session, changes(&session.state.snapshot(), &cursors, synced.as_deref())).await?;
            let caught_up = self.catch_up(session, &items, &cursors, synced.as_deref(), &barrier).await;
            complete &= caught_up.complete;
            for (thread, id) in caught_up.reached {
                let known = reached.entry(thread).or_default();
                *known = id.max(*known);
            }
            let frontiers: Vec<MsgId> = barrier.partitions.iter().map(|p| p.frontier).collect();
            let mark = if complete { self.mark(frontiers.clone()) } else { String::new() };
            let then = ServerFrame::Attached { synced: mark }.encode(session.codec);
            session.drained().await?;
            if self.live.go_live(session, skip_until(session, &items, &barrier, &reached), Some(then)).await? {
                return Ok(complete);
            }
            // A further turn goes on from what has been told; also where the client's own cursor made no sense.
            cursors.extend(reached.clone());
            synced = Some(frontiers);
        }
        session.outbox.close(close::SLOW_READER);
        Ok(false)
    }

    /// Subscribes to the user's groups; the threads as they are then, with their heads.
    async fn threads_of(&self, session: &Arc<SessionHandle>) -> Result<(Vec<(Thread, ThreadItem)>, Barrier), Refusal> {
        let user = &session.user;
        // Behind this barrier every later change of this user's threads is signalled here, whoever publishes it.
        let mut first = std::pin::pin!(self.heads(session, Vec::new()));
        let mut barrier = match timeout(SOON, first.as_mut()).await {
            Ok(barrier) => barrier?,
            Err(_) => {
                // Some partition changes hands; whoever writes to another one need not wait for it.
                session.state.load(self.read_threads(user).await?);
                first.await?
            }
        };
        let mut items: BTreeMap<Thread, ThreadItem> = BTreeMap::new();
        for _ in 0..READS {
            let signals = session.state.signals();
            let threads = self.read_threads(user).await?;
            session.state.load(threads.clone());
            let fresh: Vec<_> =
                threads.threads.into_iter().filter(|(t, i)| items.get(t).is_none_or(|old| old.v < i.v)).collect();
            if !fresh.is_empty() {
                barrier.and(self.barrier(session, &fresh).await?);
                items.extend(fresh);
            }
            if session.state.signals() == signals {
                break;
            }
        }
        let items: Vec<_> = items.into_iter().filter(|(_, i)| i.visible()).collect();
        let left = items.iter().filter(|(_, i)| !i.intervals.open()).map(|(t, _)| TopicKey::of(t, user));
        let left = left.filter(|k| matches!(k, TopicKey::Group(_))).collect();
        // A session whose user was removed between two reads is still subscribed.
        self.live.unsubscribe(session.id, left).await?;
        Ok((items, barrier))
    }

    /// Pages of what is newer than these cursors; for more of them than fit into `hello`.
    pub async fn sync(&self, session: &Arc<SessionHandle>, cursors: BTreeMap<Thread, MsgId>) -> Result<(), Refusal> {
        session.state.loaded(self.times.attach).await?;
        let items = session.state.snapshot().into_iter().filter(|(t, i)| i.visible() && cursors.contains_key(t));
        let items: Vec<_> = items.collect();
        tell_changes(session, changes(&items, &cursors, None)).await?;
        let threads = items.iter().map(|(t, _)| (TopicKey::of(t, &session.user), t.clone())).collect();
        let barrier = self.heads(session, threads).await?;
        if self.catch_up(session, &items, &cursors, None, &barrier).await.complete {
            Ok(())
        } else {
            Err(Refusal::unavailable("some threads could not be read: sync again in a moment"))
        }
    }

    /// A session that is live already joins a group: subscribes, gets the page of (join, head], goes live.
    pub async fn join(&self, session: &Arc<SessionHandle>, thread: &Thread, item: &ThreadItem) {
        if !self.joined(session, thread, item).await.unwrap_or(false) {
            // Attaching again does the same from the beginning.
            session.outbox.close(close::RESYNC);
        }
    }

    async fn joined(&self, session: &Arc<SessionHandle>, thread: &Thread, item: &ThreadItem) -> Result<bool, Refusal> {
        let key = TopicKey::of(thread, &session.user);
        let since = item.intervals.0.last().map_or(MsgId::NONE, |i| i.since);
        let mut had = MsgId(since.0.saturating_sub(1));
        for _ in 0..TURNS {
            let barrier = self.barrier(session, &[(thread.clone(), item.clone())]).await?;
            let head = barrier.heads.get(thread).copied().unwrap_or(item.v);
            let sent = self.send_page(session, thread.clone(), had, head, ReadAccess::from(item)).await;
            had = sent.reached.map_or(had, |(_, id)| id.max(had));
            session.drained().await?;
            let topics = vec![(key.clone(), vec![(thread.hash64(), had.max(head))])];
            if self.live.go_live(session, topics, None).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Subscribes to the groups among `fresh`, then asks for the heads of all of them.
    async fn barrier(&self, session: &Arc<SessionHandle>, fresh: &[(Thread, ThreadItem)]) -> Result<Barrier, Refusal> {
        let here = |(thread, item): &(Thread, ThreadItem)| match thread {
            Thread::Group { gid } if item.intervals.open() => {
                Some((TopicKey::Group(gid.clone()), VisibleRange::from(item)))
            }
            _ => None,
        };
        let topics: Vec<_> = fresh.iter().filter_map(here).collect();
        if !topics.is_empty() {
            self.live.subscribe(session, topics).await?;
        }
        let threads = fresh.iter().map(|(t, _)| (TopicKey::of(t, &session.user), t.clone())).collect();
        self.heads(session, threads).await
    }

    async fn heads(&self, session: &Arc<SessionHandle>, threads: Vec<(TopicKey, Thread)>) -> Result<Barrier, Refusal> {
        let late = |_| refuse(EdgeError::Ask(RoleService::Channel, RpcError::Timeout));
        timeout(self.times.attach, self.live.heads(session.id, threads)).await.map_err(late)?
    }

    /// The frontier of every partition, for `pong`. None while a gap is being filled: not everything below it has been
    /// shown yet.
    pub fn synced(&self) -> Option<String> {
        let frontiers = (0..self.layout.partitions).map(|p| self.clock.frontier(p).unwrap_or_default());
        (!self.live.is_repairing()).then(|| self.mark(frontiers.collect()))
    }

    fn mark(&self, frontiers: Vec<MsgId>) -> String {
        SyncedMark { at_s: self.cursors.now_s(), frontiers }.encode(self.layout.generation)
    }

    /// The leader's value of `<uid>.threads`. A missing key is lost, never "no threads": it is built again first.
    pub async fn read_threads(&self, user: &UserId) -> Result<UserThreads, Refusal> {
        let read = || async { self.buckets.threads(user).load().await.map_err(refuse) };
        if let Some(threads) = read().await? {
            return Ok(threads);
        }
        tracing::warn!(%user, "the threads of a user are lost, they are built again");
        match self.nats.call(&rebuild_threads(user), self.times.attach).await {
            Ok(()) => read()
                .await?
                .ok_or_else(|| Refusal::unavailable("your threads are being built again: try again in a moment")),
            Err(e) => Err(refuse(EdgeError::Ask(RoleService::Directory, e))),
        }
    }
}

/// Everything up to the heads is in the pages; what the dispatcher has held beyond them follows.
fn skip_until(
    session: &SessionHandle,
    items: &[(Thread, ThreadItem)],
    barrier: &Barrier,
    reached: &BTreeMap<Thread, MsgId>,
) -> Vec<(TopicKey, SkipUntil)> {
    let user = &session.user;
    let mut topics: HashMap<TopicKey, SkipUntil> = HashMap::from([(TopicKey::User(user.clone()), Vec::new())]);
    for (thread, item) in items {
        if matches!(thread, Thread::Dm { .. }) || item.intervals.open() {
            let of = topics.entry(TopicKey::of(thread, user)).or_default();
            // A page may reach further than the head: the log went on.
            let until = barrier.heads.get(thread).into_iter().chain(reached.get(thread)).max();
            of.extend(until.map(|until| (thread.hash64(), *until)));
        }
    }
    topics.into_iter().collect()
}
