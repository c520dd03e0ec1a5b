//! Attach, the pages: queues what a device lacks, when there is room for it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use natterjack_nats::calls::history::{last_entries, page};
use natterjack_protocol::{
    MsgId, Refusal, Thread,
    client::frame::{Page, ServerFrame},
    internal::rpc::{LastEntry, PageStart, ReadAccess},
    limits,
    log::fold::ThreadItem,
};

use super::{
    Attach,
    plan::{NEW_THREADS, most_recent, plan},
};
use crate::{
    history::invalid_reply, live::heads_batch::Barrier, members::member_frame, sessions::handle::SessionHandle,
};

/// Pages that one attach asks for at the same time.
const PAGES_AT_ONCE: usize = 8;

/// What became of one page.
pub struct SentPage {
    complete: bool,
    /// Its last event.
    pub reached: Option<(Thread, MsgId)>,
}

/// What became of all of them.
pub struct CaughtUp {
    pub complete: bool,
    /// How far the page of each thread reached.
    pub reached: HashMap<Thread, MsgId>,
}

impl CaughtUp {
    fn add(&mut self, sent: SentPage) {
        self.complete &= sent.complete;
        self.reached.extend(sent.reached);
    }
}

impl Attach {
    /// Queues the pages that the device lacks.
    pub(super) async fn catch_up(
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
                // With the archive away: what it alone knows of is older than the log, and can be paged when it is
                // back.
                Err(why) => {
                    tracing::debug!(user = %session.user, %why, "last ids are not known");
                    caught_up.complete = false;
                }
            }
        }
        if synced.is_none() && plan.new.len() > NEW_THREADS {
            match self.last_entries(plan.new.iter().map(|(t, _)| t)).await {
                Ok(last) => {
                    let open: HashSet<&Thread> =
                        items.iter().filter(|(_, i)| i.intervals.open()).map(|(t, _)| t).collect();
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
        let mut accesses: HashMap<Thread, ReadAccess> =
            items.iter().map(|(t, i)| (t.clone(), ReadAccess::from(i))).collect();
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

    /// The last id of each partition for which a cursor is beyond what its holder has published: a client may have read
    /// pages that the log had and a new holder has not come to yet.
    async fn ends(&self, cursors: &BTreeMap<Thread, MsgId>, barrier: &Barrier) -> Vec<Option<MsgId>> {
        let mut ends = vec![None; barrier.partitions.len()];
        for (thread, cursor) in cursors {
            let p = self.layout.partition(thread);
            if let (Some(partition), Some(end @ None)) = (barrier.partitions.get(p as usize), ends.get_mut(p as usize))
                && *cursor > partition.frontier
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
            let of = self.history.ask_in_turn(last_entries(chunk.to_vec())).await?;
            if of.len() != chunk.len() {
                return Err(invalid_reply("not one entry for each thread"));
            }
            last.extend(of);
        }
        Ok(last)
    }

    /// Queues the newest page of a thread, without what the device has, when there is room for it. A page that cannot
    /// be read is told to the client, which asks for it later: before any event that lies behind it, so that no hole is
    /// silent.
    pub(super) async fn send_page(
        &self,
        session: &Arc<SessionHandle>,
        thread: Thread,
        cursor: MsgId,
        head: MsgId,
        access: ReadAccess,
    ) -> SentPage {
        let none = SentPage { complete: false, reached: None };
        let Ok(room) = session.room().await else { return none };
        let min_id = if access.intervals.open() { head } else { MsgId::NONE };
        let reader = session.user.clone();
        let newest = page(thread.clone(), reader, access, PageStart::Newest, limits::PAGE_DEFAULT, min_id);
        match self.history.ask_in_turn(newest).await {
            Ok(page) => {
                let sent = SentPage {
                    complete: page.holes.is_empty(),
                    reached: page.events.last().map(|e| (thread.clone(), e.id)),
                };
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

/// Which memberships changed, when there is room: of a device that was away for long there may be thousands. Each as it
/// is by then, so that nothing older follows what a signal has told meanwhile.
pub(super) async fn tell_changes(session: &Arc<SessionHandle>, changed: Vec<Thread>) -> Result<(), Refusal> {
    for thread in changed {
        let room = session.room().await?;
        if let Some(item) = session.state.item(&thread) {
            room.frame(&member_frame(&thread, &item));
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

/// The part of a page that a device with this cursor lacks.
fn newer_than(cursor: MsgId, thread: &Thread, mut page: Page) -> Option<Page> {
    if let Some(had) = page.events.iter().rposition(|e| e.id <= cursor) {
        page.prev = page.events[had].id;
        page.events.drain(..=had);
    }
    page.thread = Some(thread.clone());
    (!page.events.is_empty() || !page.holes.is_empty()).then_some(page)
}
