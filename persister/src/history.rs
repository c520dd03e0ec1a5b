//! The service `history` (beside step 5: what a live event does not bring). Answers pages, repairs of a chain, newest ids, thread lists and
//! lookups of cids from archive and log together. Any instance answers; the asker has authorised its user.
//!
//! `joined` makes one thread of both, `page` cuts pages out of it, `latest` and `lookup` answer the rest.

use natterjack_nats::{Layout, Nats, Service, Tail, TailError, serve, service::ServeError, subjects};
use natterjack_protocol::{
    Code, Event, MsgId, Refusal, Thread, Times, UserId,
    frame::Page,
    limits,
    rpc::{Access, At, HistoryAnswer, HistoryRequest},
};

use crate::store::{Order, Row, Store, StoreError};

mod joined;
mod latest;
mod lookup;
mod page;
mod reader;
mod tail;

use joined::Joined;
use reader::Reader;

/// Requests at once. Overflow: `unavailable` at once. A request holds at most a few thousand rows.
const CONCURRENCY: usize = 128;

/// What every answer is made from.
#[derive(Clone)]
pub struct History<S> {
    store: S,
    log: Tail,
    layout: Layout,
    times: Times,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] TailError),
    /// What was read is older than what the asker knows to exist.
    #[error("what was read is not up to date")]
    Stale,
    /// The archive does not answer (or is behind), and the log does not reach back to what was asked for.
    #[error("the archive does not answer, and the log does not reach back that far")]
    OutOfReach,
    #[error("too much happened since this message was first sent")]
    ResendTooOld,
}

impl From<HistoryError> for Refusal {
    fn from(e: HistoryError) -> Self {
        match e {
            HistoryError::ResendTooOld => Self::new(Code::ResendTooOld, e.to_string()),
            HistoryError::Store(StoreError::Unavailable(_)) | HistoryError::OutOfReach => {
                Self::unavailable("older messages cannot be read at the moment; try again in a while")
            }
            HistoryError::Store(_) => {
                tracing::error!(error = %e, "the archive cannot be read");
                Self::new(Code::Internal, "the archive cannot be read; the operator has to look")
            }
            HistoryError::Log(_) | HistoryError::Stale => {
                tracing::warn!(error = %e, "history could not answer");
                Self::unavailable("the newest messages cannot be read at the moment; try again")
            }
        }
    }
}

/// Serves until it is drained or dropped.
pub async fn start<S: Store>(nats: &Nats, layout: Layout, times: Times, store: S) -> Result<Service, ServeError> {
    let history = History::new(nats, layout, times, store);
    let handle = move |request| {
        let history = history.clone();
        async move { history.answer(request).await }
    };
    serve(nats, subjects::HISTORY.to_owned(), Some("history"), CONCURRENCY, handle).await
}

impl<S: Store> History<S> {
    pub fn new(nats: &Nats, layout: Layout, times: Times, store: S) -> Self {
        Self { store, log: Tail::new(nats, layout), layout, times }
    }

    pub async fn answer(&self, request: HistoryRequest) -> Result<HistoryAnswer, Refusal> {
        let (kind, started) = (name(&request), std::time::Instant::now());
        let answer = match request {
            HistoryRequest::Page { thread, reader, access, at, limit, min_id } => {
                self.page(&thread, (reader, access), at, usize::from(limit), min_id).await.map(HistoryAnswer::Page)
            }
            HistoryRequest::Between { thread, after, upto, limit } => self.between(thread, after, upto, usize::from(limit)).await,
            HistoryRequest::LastIds { threads } => at_most(threads.len(), limits::HEADS_PER_BATCH, "threads")
                .map(|()| threads)
                .map(|threads| self.last_ids(threads))?
                .await
                .map(HistoryAnswer::LastIds),
            HistoryRequest::Latest { reader, threads } => at_most(threads.len(), limits::HEADS_PER_BATCH, "threads")
                .map(|()| self.latest(reader, threads))?
                .await
                .map(HistoryAnswer::Latest),
            HistoryRequest::FindCid { thread, sender, cid, below } => self.find_cid(&thread, &sender, cid, below).await,
        };
        metrics::histogram!("natterjack_history_answer_seconds", "request" => kind).record(started.elapsed().as_secs_f64());
        answer.map_err(Refusal::from)
    }

    async fn page(
        &self,
        thread: &Thread,
        (user, access): (UserId, Access),
        at: At,
        limit: usize,
        min_id: MsgId,
    ) -> Result<Page, HistoryError> {
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let v = access.v;
        let mut reader = Reader { user, intervals: access.intervals };
        let page = self.page_as(thread, &reader, at, limit, min_id).await?;
        if reader.ended(&self.log, thread, v).await? { self.page_as(thread, &reader, at, limit, min_id).await } else { Ok(page) }
    }

    /// With the archive if it answers, else as far as the log alone reaches.
    async fn page_as(&self, thread: &Thread, reader: &Reader, at: At, limit: usize, min_id: MsgId) -> Result<Page, HistoryError> {
        let joined = Joined::open(self, thread, min_id).await?;
        match page::cut(&joined, reader, at, limit).await {
            Err(HistoryError::Store(StoreError::Unavailable(_))) => {
                page::cut(&Joined::open_log_only(self, thread, min_id).await?, reader, at, limit).await
            }
            page => page,
        }
    }

    /// Every event with after < id <= upto: what a gap in a chain hides.
    async fn between(&self, thread: Thread, after: MsgId, upto: MsgId, limit: usize) -> Result<HistoryAnswer, HistoryError> {
        let limit = limit.clamp(1, limits::HEADS_PER_BATCH);
        let joined = Joined::open(self, &thread, upto).await?;
        let read = async |joined: &Joined<'_, S>| joined.rows(after.next(), upto.next(), Order::OldestFirst, limit + 1).await;
        let (mut rows, hole) = match read(&joined).await {
            Err(HistoryError::Store(StoreError::Unavailable(_))) => {
                let joined = Joined::open_log_only(self, &thread, upto).await?;
                (read(&joined).await?, joined.hole())
            }
            rows => (rows?, joined.hole()),
        };
        let mut complete = rows.len() <= limit;
        rows.truncate(limit);
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
        HistoryRequest::LastIds { .. } => "last_ids",
        HistoryRequest::Latest { .. } => "latest",
        HistoryRequest::FindCid { .. } => "find_cid",
    }
}
