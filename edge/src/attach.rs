//! Attach without a hole (ADR 8): subscribe, barrier, read the threads, subscribe the groups, barrier with heads, pages, live.
//! Comes after `hello`; hands over to the dispatcher, which delivers everything newer in order.

pub mod changes;
pub mod plan;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use natterjack_nats::subjects;
use natterjack_protocol::{
    MsgId, Refusal, Thread, UserId,
    client::{
        close,
        frame::{Page, ServerFrame},
    },
    internal::rpc::{Access, At, DirectoryAnswer, DirectoryRequest, HistoryAnswer, HistoryRequest, LastEntry},
    limits,
    log::fold::{ThreadItem, UserThreads},
};
use tokio::{sync::oneshot, time::timeout};

use self::{
    changes::{changes, member},
    plan::{NEW_THREADS, decode_synced, encode_synced, most_recent, plan},
};
use crate::{
    directory::unexpected,
    live::{
        Command, Live,
        round::Barrier,
        topic::{Place, TopicKey},
    },
    sessions::handle::SessionHandle,
};

/// Pages that one attach asks for at the same time.
const PAGES_AT_ONCE: usize = 8;
/// The first barrier usually comes within milliseconds.
const SOON: Duration = Duration::from_millis(300);
/// How often what came while the pages went out may be more than is held (512 KiB): whoever reads so much slower than people write to them
/// is a slow reader.
const TURNS: usize = 16;
/// Who is told of a change while attaching reads again; beyond this the `member` signal has to do.
const READS: usize = 4;

impl Live {
    /// Sends which memberships changed and what is newer than the cursors, then `attached`; from there on events come live. Run it beside
    /// the session's read loop, right after `welcome` was queued. False: something could not be read, and the client was told what.
    ///
    /// The pages go as fast as the client reads them. What is said meanwhile is held, as far as there is room for it; beyond that the log
    /// holds it, and a further turn brings it.
    pub async fn attach(
        &self,
        session: &Arc<SessionHandle>,
        cursors: BTreeMap<Thread, MsgId>,
        synced: Option<String>,
    ) -> Result<bool, Refusal> {
        let own = vec![(TopicKey::User(session.user.clone()), Place::default())];
        self.command(Command::Sit { session: session.clone(), topics: own }).await?;
        let mut synced = synced.and_then(|s| decode_synced(&s, self.layout.generation, self.layout.partitions));
        let (mut cursors, mut complete) = (cursors, true);
        let mut reached: BTreeMap<Thread, MsgId> = BTreeMap::new();
        for _ in 0..TURNS {
            let (items, barrier) = self.threads_of(session).await?;
            tell_changes(session, changes(&session.state.snapshot(), &cursors, synced.as_deref())).await?;
            let caught_up = self.catch_up(session, &items, &cursors, synced.as_deref(), &barrier).await;
            complete &= caught_up.complete;
            for (thread, id) in caught_up.reached {
                let known = reached.entry(thread).or_default();
                *known = id.max(*known);
            }
            let frontiers: Vec<MsgId> = barrier.partitions.iter().map(|p| p.frontier).collect();
            let mark = if complete { encode_synced(self.layout.generation, frontiers.iter().copied()) } else { String::new() };
            let then = ServerFrame::Attached { synced: mark }.encode(session.codec);
            session.drained().await?;
            if self.go_live(session, floors(session, &items, &barrier, &reached), Some(then)).await? {
                return Ok(complete);
            }
            // A further turn goes on from what has been told; also where the client's own cursor made no sense.
            cursors.extend(reached.clone());
            synced = Some(frontiers);
        }
        session.outbox.close(close::SLOW_READER);
        Ok(false)
    }

    /// Listens to the user's groups; the threads as they are then, with their heads.
    async fn threads_of(&self, session: &Arc<SessionHandle>) -> Result<(Vec<(Thread, ThreadItem)>, Barrier), Refusal> {
        let user = &session.user;
        // Behind this barrier every later change of this user's threads is signalled here, whoever publishes it.
        let mut first = std::pin::pin!(self.heads(session, Vec::new()));
        let mut barrier = match timeout(SOON, first.as_mut()).await {
            Ok(barrier) => barrier?,
            Err(_) => {
                // Some partition changes hands; whoever writes to another one need not wait for it.
                session.state.load(read_threads(self, user).await?);
                first.await?
            }
        };
        let mut items: BTreeMap<Thread, ThreadItem> = BTreeMap::new();
        for _ in 0..READS {
            let signals = session.state.signals();
            let threads = read_threads(self, user).await?;
            session.state.load(threads.clone());
            let fresh: Vec<_> = threads.threads.into_iter().filter(|(t, i)| items.get(t).is_none_or(|old| old.v < i.v)).collect();
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
        // Whoever was removed between two looks sits there still.
        self.command(Command::Stand { session: session.id, topics: left }).await?;
        Ok((items, barrier))
    }

    /// Hands over to the dispatcher. False: more came than was held; read the log again.
    async fn go_live(&self, session: &Arc<SessionHandle>, topics: Vec<(TopicKey, Floors)>, then: Option<Bytes>) -> Result<bool, Refusal> {
        let (reply, live) = oneshot::channel();
        self.command(Command::GoLive { session: session.clone(), topics, then, reply }).await?;
        live.await.map_err(|_| Refusal::unavailable("this edge is stopping"))
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

    /// Sits down on the groups among `fresh`, then asks for the heads of all of them.
    async fn barrier(&self, session: &Arc<SessionHandle>, fresh: &[(Thread, ThreadItem)]) -> Result<Barrier, Refusal> {
        let here = |(thread, item): &(Thread, ThreadItem)| match thread {
            Thread::Group { gid } if item.intervals.open() => Some((TopicKey::Group(gid.clone()), Place::from(item))),
            _ => None,
        };
        let topics: Vec<_> = fresh.iter().filter_map(here).collect();
        if !topics.is_empty() {
            self.command(Command::Sit { session: session.clone(), topics }).await?;
        }
        let threads = fresh.iter().map(|(t, _)| (TopicKey::of(t, &session.user), t.clone())).collect();
        self.heads(session, threads).await
    }

    async fn heads(&self, session: &Arc<SessionHandle>, threads: Vec<(TopicKey, Thread)>) -> Result<Barrier, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Barrier { session: session.id, threads, reply }).await?;
        match timeout(self.times.attach, answer).await {
            Ok(Ok(barrier)) => Ok(barrier),
            _ => Err(Refusal::unavailable("the channel service does not answer: try again in a moment")),
        }
    }

    /// Queues the pages that the device lacks.
    async fn catch_up(
        &self,
        session: &Arc<SessionHandle>,
        items: &[(Thread, ThreadItem)],
        cursors: &BTreeMap<Thread, MsgId>,
        synced: Option<&[MsgId]>,
        barrier: &Barrier,
    ) -> CaughtUp {
        let ends = self.ends(cursors, barrier).await;
        let mut plan = plan(items, cursors, synced, barrier, &ends);
        let mut caught_up = CaughtUp { complete: true, reached: HashMap::new() };
        let refused = plan.refused.drain(..).map(|refusal| ServerFrame::error(None, refusal)).collect();
        caught_up.complete &= tell(session, refused).await.is_ok();
        if !plan.ask.is_empty() {
            match self.last_entries(plan.ask.iter().map(|(t, _)| t)).await {
                Ok(last) => {
                    let asked = plan.ask.drain(..).zip(last).filter(|((_, cursor), last)| last.id > *cursor);
                    plan.pages.extend(asked.map(|((thread, cursor), last)| (thread, cursor, last.id)));
                }
                // With the archive away: what it alone knows of is older than the log, and can be paged when it is back.
                Err(why) => {
                    tracing::debug!(user = %session.user, %why, "last ids are not known");
                    caught_up.complete = false;
                }
            }
        }
        if synced.is_none() && plan.new.len() > NEW_THREADS {
            match self.last_entries(plan.new.iter().map(|(t, _)| t)).await {
                Ok(last) => {
                    let open: HashSet<&Thread> = items.iter().filter(|(_, i)| i.intervals.open()).map(|(t, _)| t).collect();
                    plan.new = most_recent(plan.new, &last, |t| open.contains(t));
                }
                // Nobody can read the pages either.
                Err(why) => {
                    tracing::debug!(user = %session.user, %why, "the most recent threads are not known");
                    caught_up.complete = false;
                    plan.new.truncate(NEW_THREADS);
                }
            }
        }
        plan.pages.extend(plan.new.drain(..).map(|(thread, head)| (thread, MsgId::NONE, head)));
        let mut accesses: HashMap<Thread, Access> = items.iter().map(|(t, i)| (t.clone(), Access::from(i))).collect();
        let mut under_way = FuturesUnordered::new();
        for (thread, cursor, head) in plan.pages {
            let Some(access) = accesses.remove(&thread) else { continue };
            under_way.push(self.send_page(session, thread, cursor, head, access));
            if under_way.len() >= PAGES_AT_ONCE
                && let Some(sent) = under_way.next().await
            {
                caught_up.add(sent);
            }
        }
        while let Some(sent) = under_way.next().await {
            caught_up.add(sent);
        }
        caught_up
    }

    /// The last id of each partition for which a cursor is beyond what its holder has published: a client may have read pages that the
    /// log had and a new holder has not come to yet.
    async fn ends(&self, cursors: &BTreeMap<Thread, MsgId>, barrier: &Barrier) -> Vec<Option<MsgId>> {
        let mut ends = vec![None; barrier.partitions.len()];
        for (thread, cursor) in cursors {
            let p = self.layout.partition(thread);
            if let (Some(place), Some(end @ None)) = (barrier.partitions.get(p as usize), ends.get_mut(p as usize))
                && *cursor > place.frontier
            {
                // Not known: nobody is accused of a wrong cursor.
                *end = self.tail.bounds(p).await.ok().map(|b| b.last);
            }
        }
        ends
    }

    async fn last_entries(&self, threads: impl Iterator<Item = &Thread>) -> Result<Vec<LastEntry>, Refusal> {
        let (threads, mut last): (Vec<Thread>, _) = (threads.cloned().collect(), Vec::new());
        for chunk in threads.chunks(limits::HEADS_PER_BATCH) {
            match self.history.ask_in_turn(HistoryRequest::LastEntries { threads: chunk.to_vec() }).await? {
                HistoryAnswer::LastEntries(of) if of.len() == chunk.len() => last.extend(of),
                _ => return Err(unexpected()),
            }
        }
        Ok(last)
    }

    /// Queues the newest page of a thread, without what the device has, when there is room for it. A page that cannot be read is told to
    /// the client, which asks for it later: before any event that lies behind it, so that no hole is silent.
    async fn send_page(&self, session: &Arc<SessionHandle>, thread: Thread, cursor: MsgId, head: MsgId, access: Access) -> Sent {
        let none = Sent { complete: false, reached: None };
        let Ok(room) = session.room().await else { return none };
        let request = HistoryRequest::Page {
            thread: thread.clone(),
            reader: session.user.clone(),
            min_id: if access.intervals.open() { head } else { MsgId::NONE },
            access,
            at: At::Newest,
            limit: limits::PAGE_DEFAULT as u16,
        };
        let answer = match self.history.ask_in_turn(request).await {
            Ok(HistoryAnswer::Page(page)) => Ok(page),
            Ok(_) => Err(unexpected()),
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(page) => {
                let sent = Sent { complete: page.holes.is_empty(), reached: page.events.last().map(|e| (thread.clone(), e.id)) };
                if let Some(page) = newer_than(cursor, &thread, page) {
                    room.frame(&ServerFrame::Page(page));
                }
                sent
            }
            Err(refusal) => {
                room.frame(&ServerFrame::error(None, refusal.with_thread(&thread)));
                none
            }
        }
    }
}

/// Which memberships changed, when there is room: of a device that was away for long there may be thousands. Each as it is by then, so that
/// nothing older follows what a signal has told meanwhile.
async fn tell_changes(session: &Arc<SessionHandle>, changed: Vec<Thread>) -> Result<(), Refusal> {
    for thread in changed {
        let room = session.room().await?;
        if let Some(item) = session.state.item(&thread) {
            room.frame(&member(&thread, &item));
        }
    }
    Ok(())
}

/// Cursors that make no sense, when there is room: a `hello` has up to a thousand.
async fn tell(session: &Arc<SessionHandle>, frames: Vec<ServerFrame>) -> Result<(), Refusal> {
    for frame in frames {
        session.room().await?.frame(&frame);
    }
    Ok(())
}

/// Per thread (by its hash) up to where everything is in the pages.
type Floors = Vec<(u64, MsgId)>;

/// Everything up to the heads is in the pages; what the dispatcher has collected beyond them follows.
fn floors(
    session: &SessionHandle,
    items: &[(Thread, ThreadItem)],
    barrier: &Barrier,
    reached: &BTreeMap<Thread, MsgId>,
) -> Vec<(TopicKey, Floors)> {
    let user = &session.user;
    let mut floors: HashMap<TopicKey, Floors> = HashMap::from([(TopicKey::User(user.clone()), Vec::new())]);
    for (thread, item) in items {
        if matches!(thread, Thread::Dm { .. }) || item.intervals.open() {
            let of = floors.entry(TopicKey::of(thread, user)).or_default();
            // A page may reach further than the head: the log went on.
            let floor = barrier.heads.get(thread).into_iter().chain(reached.get(thread)).max();
            of.extend(floor.map(|floor| (thread.hash64(), *floor)));
        }
    }
    floors.into_iter().collect()
}

/// What became of one page.
struct Sent {
    complete: bool,
    /// Its last event.
    reached: Option<(Thread, MsgId)>,
}

/// What became of all of them.
struct CaughtUp {
    complete: bool,
    /// How far the page of each thread reached.
    reached: HashMap<Thread, MsgId>,
}

impl CaughtUp {
    fn add(&mut self, sent: Sent) {
        self.complete &= sent.complete;
        self.reached.extend(sent.reached);
    }
}

/// The part of a page that a device with this cursor lacks.
fn newer_than(cursor: MsgId, thread: &Thread, mut page: Page) -> Option<Page> {
    if let Some(had) = page.events.iter().rposition(|e| e.id <= cursor) {
        page.prev = page.events[had].id;
        page.events.drain(..=had);
    }
    page.thread = Some(thread.clone());
    (!page.events.is_empty() || !page.holes.is_empty()).then_some(page)
}

/// A session that is live already joins a group: sits down, fills (join, heads], goes live.
pub(crate) async fn join(live: &Live, session: &Arc<SessionHandle>, thread: &Thread, item: &ThreadItem) {
    if !joined(live, session, thread, item).await.unwrap_or(false) {
        // Attaching again does the same from the beginning.
        session.outbox.close(close::RESYNC);
    }
}

async fn joined(live: &Live, session: &Arc<SessionHandle>, thread: &Thread, item: &ThreadItem) -> Result<bool, Refusal> {
    let key = TopicKey::of(thread, &session.user);
    let since = item.intervals.0.last().map_or(MsgId::NONE, |i| i.since);
    let mut had = MsgId(since.0.saturating_sub(1));
    for _ in 0..TURNS {
        let barrier = live.barrier(session, &[(thread.clone(), item.clone())]).await?;
        let head = barrier.heads.get(thread).copied().unwrap_or(item.v);
        let sent = live.send_page(session, thread.clone(), had, head, Access::from(item)).await;
        had = sent.reached.map_or(had, |(_, id)| id.max(had));
        session.drained().await?;
        if live.go_live(session, vec![(key.clone(), vec![(thread.hash64(), had.max(head))])], None).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The leader's value of `<uid>.threads`. A missing key is lost, never "no threads": it is built again first.
pub(crate) async fn read_threads(live: &Live, user: &UserId) -> Result<UserThreads, Refusal> {
    let read = || async {
        let found = live.buckets.load_threads(user).await;
        found.map(|f| f.map(|(threads, _)| threads)).map_err(|e| {
            tracing::debug!(%user, error = %e, "threads cannot be read");
            Refusal::unavailable("your threads cannot be read: try again in a moment")
        })
    };
    if let Some(threads) = read().await? {
        return Ok(threads);
    }
    tracing::warn!(%user, "the threads of a user are lost, they are built again");
    let rebuild = DirectoryRequest::RebuildThreads { user: user.clone() };
    match live.nats.request::<_, DirectoryAnswer>(subjects::DIRECTORY, &rebuild, live.times.attach).await {
        Ok(_) => read().await?.ok_or_else(|| Refusal::unavailable("your threads are being built again: try again in a moment")),
        Err(natterjack_nats::connect::RpcError::Refused(refusal)) => Err(refusal),
        Err(_) => Err(Refusal::unavailable("your threads are lost and the directory does not answer: try again in a moment")),
    }
}
