//! The service `history` (beside step 5: what a live event does not bring). Answers pages, repairs of a chain, newest
//! ids, thread lists and lookups of cids from archive and log together. Any instance answers; the asker has authorised
//! its user.
//!
//! `page_source` makes one thread of both, `page` cuts pages out of it, `latest` and `lookup` answer the rest.
//!
//! An answer is made on one layout of the log, and given only if that was the newest when it was asked for (ADR 5).

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use natterjack_nats::{KvBuckets, Layout, Nats, ServeError, Service, ThreadLog, serve, subjects};
use natterjack_protocol::{
    Event, Most, MsgId, Refusal, Thread, Times, UserId,
    client::frame::Page,
    internal::rpc::{HistoryAnswer, HistoryRequest, PageStart, ReadAccess},
    limits,
};

use tokio::{sync::Semaphore, time::timeout};

use crate::store::{ArchiveError, ArchiveStore, Order, Row, overlay};

mod checked;
mod error;
mod latest;
mod long_tails;
mod lookup;
mod operations;
mod page;
mod page_source;
mod reader;
mod tails;
mod unarchived;

pub use error::HistoryError;
use long_tails::LongTails;
use page_source::PageSource;
use reader::Reader;
use tails::KeptTails;

/// Requests at once. Overflow: `unavailable` at once. A request holds at most about a megabyte: `tail`'s part of the
/// log and a page.
const CONCURRENCY: usize = 128;
/// Nobody waits longer for an answer: whoever asked has asked again, and what is done for nobody would be done twice.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// The service.
#[derive(Clone)]
pub struct History<S> {
    nats: Nats,
    view: Arc<RwLock<View<S>>>,
}

/// What an answer is made from.
#[derive(Clone)]
pub(crate) struct View<S> {
    /// For threads that are looked at beside each other: what 128 lists hold together is what as many pages hold.
    places: Arc<Semaphore>,
    store: S,
    log: ThreadLog,
    buckets: KvBuckets,
    layout: Layout,
    times: Times,
    long_tails: Arc<LongTails>,
    /// Of this layout.
    tails: Arc<KeptTails>,
    /// Entries of a thread above the archive that are read whole.
    whole: Most,
}

/// Serves until it is drained or dropped.
pub async fn start<S: ArchiveStore>(nats: &Nats, history: History<S>) -> Result<Service, ServeError> {
    let handle = move |request| {
        let history = history.clone();
        async move {
            let late = |_| Err(Refusal::unavailable("this took too long; try again"));
            timeout(PATIENCE, history.answer(request)).await.unwrap_or_else(late)
        }
    };
    serve(nats, subjects::HISTORY.to_owned(), Some("history"), CONCURRENCY, handle).await
}

impl<S: ArchiveStore> History<S> {
    pub fn new(nats: &Nats, layout: Layout, times: Times, store: S) -> Self {
        let (log, buckets) = (ThreadLog::new(nats, layout), KvBuckets::new(nats, layout));
        let places = Arc::new(Semaphore::new(CONCURRENCY));
        let view = View {
            places,
            store,
            log,
            buckets,
            layout,
            times,
            long_tails: Arc::default(),
            tails: Arc::default(),
            whole: unarchived::WHOLE,
        };
        Self { nats: nats.clone(), view: Arc::new(RwLock::new(view)) }
    }

    /// Reads at most so many entries of a thread above the archive whole; for tests that have no time to write
    /// thousands.
    #[must_use]
    pub fn reading_whole(self, entries: usize) -> Self {
        let view = View { whole: Most { count: entries.max(4), ..unarchived::WHOLE }, ..self.current() };
        Self { view: Arc::new(RwLock::new(view)), ..self }
    }

    pub(crate) fn current(&self) -> View<S> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// There is a newer layout.
    pub fn goes_on(&self, layout: Layout) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        if layout.generation > view.layout.generation {
            view.log = ThreadLog::new(&self.nats, layout);
            view.buckets = KvBuckets::new(&self.nats, layout);
            view.layout = layout;
        }
    }

    pub async fn answer(&self, request: HistoryRequest) -> Result<HistoryAnswer, Refusal> {
        let (kind, started) = (name(&request), std::time::Instant::now());
        let answer = match about(&request).cloned() {
            Some(thread) => self.answer_on_the_newest(&thread, request).await?,
            None => self.current().answer(request).await?,
        };
        metrics::histogram!(crate::metrics::HISTORY_ANSWER_SECONDS, "request" => kind)
            .record(started.elapsed().as_secs_f64());
        answer.map_err(Refusal::from)
    }

    /// Nothing is acknowledged in a generation before all streams of the former one are closed. So if one of them still
    /// is open, the newest is what we know; if it is closed, the layout says how the log goes on.
    async fn answer_on_the_newest(
        &self,
        thread: &Thread,
        request: HistoryRequest,
    ) -> Result<Result<HistoryAnswer, HistoryError>, Refusal> {
        loop {
            let view = self.current();
            let (answer, over) = tokio::join!(view.answer(request.clone()), view.log.is_over(thread));
            let answer = answer?;
            // What cannot be told makes no difference to an answer that is none.
            match (over, &answer) {
                (Ok(false), _) | (Err(_), Err(_)) => return Ok(answer),
                (Err(e), Ok(_)) => return Ok(Err(e.into())),
                (Ok(true), _) => {}
            }
            match Layout::load(&self.nats).await {
                Ok(newest) if newest.generation > view.layout.generation => self.goes_on(newest),
                Ok(_) => return Ok(answer),
                Err(e) => return Ok(Err(e.into())),
            }
        }
    }
}

/// A thread that the question is about.
fn about(request: &HistoryRequest) -> Option<&Thread> {
    match request {
        HistoryRequest::Page { thread, .. }
        | HistoryRequest::Between { thread, .. }
        | HistoryRequest::FindCid { thread, .. }
        | HistoryRequest::IsMessage { thread, .. } => Some(thread),
        HistoryRequest::LastEntries { threads } => threads.first(),
        HistoryRequest::Latest { threads, .. } => threads.first().map(|asked| &asked.thread),
    }
}

impl<S: ArchiveStore> View<S> {
    /// The outer error: a question that makes no sense.
    async fn answer(&self, request: HistoryRequest) -> Result<Result<HistoryAnswer, HistoryError>, Refusal> {
        Ok(match request {
            HistoryRequest::Page { thread, reader, access, at, limit, min_id } => {
                self.page(&thread, (reader, access), at, usize::from(limit), min_id).await.map(HistoryAnswer::Page)
            }
            HistoryRequest::Between { thread, after, upto, limit } => {
                self.between(thread, after, upto, usize::from(limit)).await
            }
            HistoryRequest::LastEntries { threads } => {
                at_most(threads.len(), limits::HEADS_PER_BATCH, "threads")?;
                self.last_entries(threads).await.map(HistoryAnswer::LastEntries)
            }
            HistoryRequest::Latest { reader, threads } => {
                at_most(threads.len(), limits::HEADS_PER_BATCH, "threads")?;
                self.latest(reader, threads).await.map(HistoryAnswer::Latest)
            }
            HistoryRequest::FindCid { thread, sender, cid, below } => self.find_cid(&thread, &sender, cid, below).await,
            HistoryRequest::IsMessage { thread, id } => {
                self.is_message(&thread, id).await.map(HistoryAnswer::IsMessage)
            }
        })
    }

    async fn page(
        &self,
        thread: &Thread,
        (user, access): (UserId, ReadAccess),
        at: PageStart,
        limit: usize,
        min_id: MsgId,
    ) -> Result<Page, HistoryError> {
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let v = access.v;
        let mut reader = Reader { user, intervals: access.intervals };
        let page = self.page_as(thread, &reader, at, limit, min_id).await?;
        if reader.ended(&self.log, thread, v).await? {
            self.page_as(thread, &reader, at, limit, min_id).await
        } else {
            Ok(page)
        }
    }

    /// With the archive if it answers, else as far as the log alone reaches.
    async fn page_as(
        &self,
        thread: &Thread,
        reader: &Reader,
        at: PageStart,
        limit: usize,
        min_id: MsgId,
    ) -> Result<Page, HistoryError> {
        let source = PageSource::open(self, thread, min_id).await?;
        match page::cut(&source, reader, at, limit).await {
            Err(HistoryError::Store(ArchiveError::Unavailable(_))) => {
                page::cut(&PageSource::open_log_only(self, thread, min_id).await?, reader, at, limit).await
            }
            page => page,
        }
    }

    async fn is_message(&self, thread: &Thread, id: MsgId) -> Result<bool, HistoryError> {
        let one = Most::count(1);
        let read = async |source: &PageSource<'_, S>| {
            let (mut rows, _) = source.rows(id, id.next(), Order::OldestFirst, one).await?;
            Ok((rows.pop(), source.hole()))
        };
        let (row, hole) = match read(&PageSource::open(self, thread, MsgId::NONE).await?).await {
            Err(HistoryError::Store(ArchiveError::Unavailable(_))) => {
                read(&PageSource::open_log_only(self, thread, MsgId::NONE).await?).await?
            }
            found => found?,
        };
        match row {
            Some(row) => Ok(row.kind.is_message() || overlay::is_recalled(&row)),
            None if hole.is_some_and(|(first, last)| first <= id && id <= last) => Err(HistoryError::OutOfReach),
            None => Ok(false),
        }
    }

    /// Every event with after < id <= upto: what a gap in a chain hides.
    async fn between(
        &self,
        thread: Thread,
        after: MsgId,
        upto: MsgId,
        limit: usize,
    ) -> Result<HistoryAnswer, HistoryError> {
        let most = Most { count: limit.clamp(1, limits::HEADS_PER_BATCH), bytes: limits::ANSWER_BYTES };
        let source = PageSource::open(self, &thread, upto).await?;
        // What stands for lost entries stands under the last of them.
        let read = async |source: &PageSource<'_, S>| {
            let end = source.lost_at(upto).unwrap_or(upto);
            source.rows(after.next(), end.next(), Order::OldestFirst, most).await
        };
        let ((mut rows, more), hole) = match read(&source).await {
            Err(HistoryError::Store(ArchiveError::Unavailable(_))) => {
                let source = PageSource::open_log_only(self, &thread, upto).await?;
                (read(&source).await?, source.hole())
            }
            rows => (rows?, source.hole()),
        };
        let read = rows.len();
        most.keep_first(&mut rows);
        let mut complete = (!more && rows.len() == read) || rows.last().is_some_and(|r| r.id >= upto);
        if let Some(unchecked) = rows.iter().position(|r| r.unchecked) {
            if unchecked == 0 {
                return Err(HistoryError::OutOfReach);
            }
            rows.truncate(unchecked);
            complete = false;
        }
        if let Some((from, to)) = hole.filter(|(from, to)| *from <= upto && after < *to) {
            // What lies beyond a hole would be shown before what is in it.
            let reached = rows.iter().take_while(|r| r.id < from).count();
            if reached == 0 && after.next() >= from && after < to {
                return Err(HistoryError::OutOfReach);
            }
            rows.truncate(reached);
            complete = false;
        }
        Ok(HistoryAnswer::Between { events: chained(rows, after), complete })
    }
}

/// Rows of one thread, oldest first, as events that each name the one before; the first names `before`.
fn chained(rows: Vec<Row>, before: MsgId) -> Vec<Event> {
    let mut prev = before;
    rows.into_iter()
        .map(|row| {
            let event = row.into_event(prev);
            prev = event.id;
            event
        })
        .collect()
}

fn at_most(n: usize, max: usize, what: &str) -> Result<(), Refusal> {
    if n <= max { Ok(()) } else { Err(Refusal::invalid(format!("{what}: at most {max} in one request"))) }
}

fn name(request: &HistoryRequest) -> &'static str {
    match request {
        HistoryRequest::Page { .. } => "page",
        HistoryRequest::Between { .. } => "between",
        HistoryRequest::LastEntries { .. } => "last_entries",
        HistoryRequest::Latest { .. } => "latest",
        HistoryRequest::FindCid { .. } => "find_cid",
        HistoryRequest::IsMessage { .. } => "is_message",
    }
}
