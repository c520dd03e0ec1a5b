//! A CQL server behind the store trait (step 7): ScyllaDB or Apache Cassandra 5, for more than one machine.
//!
//! Nothing is read in order to be changed, but for what must happen once (a name, a token, a relation), which is a
//! conditional write. Everything else carries the id of the entry it comes from as its timestamp: the newest stays, in
//! whatever order and however often it is written. Each table has its own file below.

#![allow(clippy::type_complexity, reason = "a row that is read is a tuple of its columns")]

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use natterjack_nats::Position;
use natterjack_protocol::{
    Cid, Most, MsgId, Thread, Token, UserId,
    internal::rpc::LastEntry,
    log::fold::{GroupState, ThreadItem},
};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::store::{
    ArchiveError, ArchiveStore, CidLookup, LostRange, Order, PartitionKey, Row, ThreadBatch, UnknownSubject,
};

mod accounts;
mod append;
mod buckets;
mod config;
mod connecting;
mod contacts;
mod cursors;
mod falls;
mod invites;
mod lost;
mod messages;
mod names;
mod operations;
mod positions;
mod refresh_tokens;
mod schema;
mod session;
mod threads;
mod users;

use append::all;
pub use config::{Buckets, Consistency, CqlConfig};
use connecting::keep_connecting;
use messages::Sought;
use session::Requests;

/// How long who opens it waits for the first answer.
const FIRST: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub struct Cql {
    inner: Arc<Inner>,
    patient: bool,
}

struct Inner {
    db: Arc<OnceLock<Both>>,
    why_not: Arc<Mutex<String>>,
    /// Ends when it has connected, or with us.
    _connecting: Option<AbortOnDropHandle<()>>,
}

/// The same statements with two deadlines.
struct Both {
    quick: Db,
    patient: Db,
}

/// Connected, with the schema of this build and every statement prepared.
struct Db {
    requests: Requests,
    limits: Buckets,
    messages: messages::Messages,
    operations: operations::Operations,
    buckets: buckets::Buckets,
    falls: falls::Falls,
    threads: threads::Threads,
    positions: positions::Positions,
    lost: lost::Lost,
    cursors: cursors::Cursors,
    users: users::Users,
    invites: invites::Invites,
    contacts: contacts::Contacts,
    refresh_tokens: refresh_tokens::RefreshTokens,
}

impl Both {
    async fn connect(cfg: &CqlConfig) -> Result<Self, ArchiveError> {
        let requests = Requests::connect(cfg).await?;
        let limits = schema::prepare(&requests, cfg).await?.buckets;
        Ok(Self {
            patient: Box::pin(Db::prepare(requests.patient(), limits)).await?,
            quick: Box::pin(Db::prepare(requests, limits)).await?,
        })
    }
}

impl Db {
    async fn prepare(requests: Requests, limits: Buckets) -> Result<Self, ArchiveError> {
        let r = &requests;
        Ok(Self {
            limits,
            messages: messages::Messages::prepare(r).await?,
            operations: operations::Operations::prepare(r).await?,
            buckets: buckets::Buckets::prepare(r).await?,
            falls: falls::Falls::prepare(r).await?,
            threads: threads::Threads::prepare(r).await?,
            positions: positions::Positions::prepare(r).await?,
            lost: lost::Lost::prepare(r).await?,
            cursors: cursors::Cursors::prepare(r).await?,
            users: users::Users::prepare(r).await?,
            invites: invites::Invites::prepare(r).await?,
            contacts: contacts::Contacts::prepare(r).await?,
            refresh_tokens: refresh_tokens::RefreshTokens::prepare(r).await?,
            requests,
        })
    }
}

impl Cql {
    /// Connects and brings the schema up to date; an error if that cannot be done now.
    pub fn connect(cfg: &CqlConfig) -> BoxFuture<'_, Result<Self, ArchiveError>> {
        Box::pin(async move {
            let db = Arc::new(OnceLock::from(Box::pin(Both::connect(cfg)).await?));
            Ok(Self { inner: Arc::new(Inner { db, why_not: Arc::default(), _connecting: None }), patient: false })
        })
    }

    /// Likewise, but a server that does not answer is waited for beside everything else: until then every call says
    /// `Unavailable`.
    pub async fn open(cfg: CqlConfig) -> Result<Self, ArchiveError> {
        let (db, why_not) = (Arc::new(OnceLock::new()), Arc::new(Mutex::new(String::from("it has not answered yet"))));
        let (tell, first) = oneshot::channel();
        let task = tokio::spawn(keep_connecting(cfg, db.clone(), why_not.clone(), tell));
        match timeout(FIRST, first).await {
            Ok(Ok(Err(e))) if !matches!(e, ArchiveError::Unavailable(_)) => return Err(e),
            Ok(Ok(Ok(()))) => {}
            _ => {
                tracing::warn!(
                    why = %why_not.lock(),
                    "the archive does not answer; starting without it and trying again"
                )
            }
        }
        Ok(Self {
            inner: Arc::new(Inner { db, why_not, _connecting: Some(AbortOnDropHandle::new(task)) }),
            patient: false,
        })
    }

    /// The schema that is there and the one of this build; None: nothing is there yet. Changes nothing.
    pub fn schema_version(cfg: &CqlConfig) -> BoxFuture<'_, Result<Option<(usize, usize)>, ArchiveError>> {
        Box::pin(async move { schema::version(&Requests::connect(cfg).await?, cfg).await })
    }

    fn db(&self) -> Result<&Db, ArchiveError> {
        let both = self.inner.db.get().ok_or_else(|| ArchiveError::Unavailable(self.inner.why_not.lock().clone()))?;
        Ok(if self.patient { &both.patient } else { &both.quick })
    }
}

impl ArchiveStore for Cql {
    fn patient(&self) -> Self {
        Self { patient: true, ..self.clone() }
    }

    async fn append(&self, batch: ThreadBatch) -> Result<(), ArchiveError> {
        let db = self.db()?;
        let ThreadBatch { thread, rows, group, items } = &batch;
        let thread = &thread.to_string();
        let r = &db.requests;
        let state = async {
            if let Some(group) = group {
                db.threads.put_group(r, thread, group).await?;
            }
            all(items.iter().map(|(user, item)| db.threads.put_item(r, thread, user, item)).collect()).await
        };
        // A replay folds from the entries before it, so it does not matter which of the two comes first.
        tokio::try_join!(Box::pin(db.append_rows(thread, rows)), state).map(drop)
    }

    async fn keep_unknown_subject(&self, stray: UnknownSubject) -> Result<(), ArchiveError> {
        let db = self.db()?;
        db.positions.keep_unknown_subject(&db.requests, &stray).await
    }

    async fn is_empty(&self) -> Result<bool, ArchiveError> {
        let db = self.db()?;
        db.positions.is_empty(&db.requests).await
    }

    async fn advance(&self, key: PartitionKey, to: Position) -> Result<(), ArchiveError> {
        let db = self.db()?;
        db.positions.advance(&db.requests, key, to).await
    }

    async fn position(&self, key: PartitionKey) -> Result<Option<Position>, ArchiveError> {
        let db = self.db()?;
        db.positions.position(&db.requests, key).await
    }

    async fn positions(&self) -> Result<Vec<(PartitionKey, Position)>, ArchiveError> {
        let db = self.db()?;
        db.positions.positions(&db.requests).await
    }

    async fn lose(&self, lost: LostRange) -> Result<(), ArchiveError> {
        let db = self.db()?;
        db.lost.lose(&db.requests, &lost).await
    }

    async fn lost(&self) -> Result<Vec<LostRange>, ArchiveError> {
        let db = self.db()?;
        db.lost.lost(&db.requests).await
    }

    async fn rows(
        &self,
        thread: &Thread,
        lo: MsgId,
        hi: MsgId,
        order: Order,
        most: Most,
    ) -> Result<Vec<Row>, ArchiveError> {
        let db = self.db()?;
        let (spelled, mut found) = (thread.to_string(), Vec::new());
        let mut parts = db.buckets.walk(&db.requests, &spelled, lo, hi, order);
        while !most.full(&found)
            && let Some(part) = parts.next().await?
        {
            found.extend(db.messages.rows(&db.requests, thread, part, order, most.beside(&found)).await?);
        }
        Ok(found)
    }

    async fn id_at(&self, thread: &Thread, ts: u64, below: MsgId) -> Result<Option<LastEntry>, ArchiveError> {
        let db = self.db()?;
        let (r, thread) = (&db.requests, thread.to_string());
        let (mut best, mut hi): (Option<LastEntry>, _) = (None, below);
        for lo in db.falls.below(r, &thread, below).await?.into_iter().chain([MsgId::NONE]) {
            let (part, next) = db.buckets.around(r, &thread, (lo, hi), ts).await?;
            let found = db.messages.id_at(r, &thread, part, ts).await?.or(next);
            best = best.into_iter().chain(found).min_by_key(|e| (e.ts, e.id));
            hi = lo;
        }
        Ok(best)
    }

    async fn find_cid(
        &self,
        thread: &Thread,
        from: &UserId,
        cid: Cid,
        since: u64,
        max: usize,
    ) -> Result<CidLookup, ArchiveError> {
        let db = self.db()?;
        let thread = thread.to_string();
        let mut sought = Sought { from, cid, since, max, looked: 0, lowest: None, older: None };
        let mut below = Some(MsgId::MAX);
        while let Some(hi) = below.take()
            && sought.looked <= max
        {
            let mut parts = db.buckets.walk(&db.requests, &thread, MsgId::NONE, hi, Order::NewestFirst);
            while let Some(part) = parts.next().await?
                && !db.messages.find_cid(&db.requests, &thread, part, &mut sought).await?
            {}
            // What is too old ends the search, unless times fall further below: there are younger ones again.
            if let Some(older) = sought.older.take() {
                below = db.falls.below(&db.requests, &thread, older.next()).await?.first().copied();
            }
        }
        Ok(match sought.lowest {
            _ if sought.looked > max => CidLookup::TooMany,
            Some(id) => CidLookup::Found(id),
            None => CidLookup::Absent,
        })
    }

    async fn last_entries(&self, threads: &[Thread]) -> Result<Vec<LastEntry>, ArchiveError> {
        let db = self.db()?;
        db.threads.last_entries(&db.requests, threads).await
    }

    async fn controls(&self, thread: &Thread, below: MsgId) -> Result<Vec<Row>, ArchiveError> {
        let db = self.db()?;
        db.messages.controls(&db.requests, thread, below).await
    }

    async fn group(&self, thread: &Thread) -> Result<Option<GroupState>, ArchiveError> {
        let db = self.db()?;
        db.threads.group(&db.requests, thread).await
    }

    async fn item(&self, thread: &Thread, user: &UserId) -> Result<Option<ThreadItem>, ArchiveError> {
        let db = self.db()?;
        db.threads.item(&db.requests, thread, user).await
    }

    async fn user_threads(&self, user: &UserId) -> Result<Vec<(Thread, ThreadItem)>, ArchiveError> {
        let db = self.db()?;
        db.threads.user_threads(&db.requests, user).await
    }
}

fn corrupt(column: &str, why: impl std::fmt::Display) -> ArchiveError {
    ArchiveError::Corrupt(format!("{column}: {why}"))
}

/// An id column. What cannot be an id is a damaged row.
fn token(column: &str, text: &str) -> Result<Token, ArchiveError> {
    Token::parse(text).map_err(|e| corrupt(column, e))
}

/// CQL's integers are signed; ids and times stay below 2^53.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn uint(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
