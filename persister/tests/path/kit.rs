//! A real nats-server, a SQLite file behind a switch, archives that can be started and killed, and `history` asked over
//! NATS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use natterjack_nats::{
    KvBuckets, Layout, LeaderReader, Nats, NatsConfig, Position, Publisher, RoleLease, RpcError, Service, provision,
    subjects,
};
use natterjack_persister::{
    archive::Archive,
    history::{self, History},
    store::{
        ArchiveError, ArchiveStore, CidLookup, LostRange, Order, PartitionKey, Row, Sqlite, ThreadBatch, UnknownSubject,
    },
};
use natterjack_protocol::{
    Body, Cid, Entry, Event, Kind, Most, MsgId, Refusal, Thread, Times, UserId,
    client::frame::Page,
    internal::rpc::{AskedThread, HeardOf, HistoryAnswer, HistoryRequest, LastEntry, LatestOf, PageStart, ReadAccess},
    log::{
        Intervals,
        fold::{GroupState, ThreadItem},
    },
};
use natterjack_role::RoleSetup;
use natterjack_runtime::{Health, health::Readers};
use natterjack_testkit::NatsServer;
pub use natterjack_testkit::{cid, eventually, group, user};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

// By its path, which holds also where another binary includes this file.
#[path = "kit/switched.rs"]
mod switched;

pub use switched::Switched;

pub struct World {
    pub nats: Nats,
    pub cfg: NatsConfig,
    pub layout: Layout,
    pub times: Times,
    pub store: Switched,
    pub publisher: Publisher,
    pub dir: tempfile::TempDir,
    pub history: History<Switched>,
    _history: Service,
    _server: NatsServer,
}

/// A nats-server with nothing in it, and a folder.
pub struct Bare {
    pub cfg: NatsConfig,
    pub nats: Nats,
    pub dir: tempfile::TempDir,
    server: NatsServer,
}

impl Bare {
    pub async fn new() -> Self {
        let server = NatsServer::start();
        Self { cfg: server.config(), nats: server.nats().await, dir: tempfile::tempdir().unwrap(), server }
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(Times::default()).await
    }

    pub async fn with(times: Times) -> Self {
        let Bare { cfg, nats, dir, server } = Bare::new().await;
        let layout = provision(&nats, &cfg, &times).await.unwrap();
        let inner = Sqlite::open(dir.path().join("n.db")).await.unwrap();
        let calls_left = Arc::new(AtomicI64::new(i64::MAX));
        let store =
            Switched { inner, away: Arc::default(), stuck: Arc::default(), calls_left, searches: Arc::default() };
        let history = History::new(&nats, layout, times.clone(), store.clone());
        let service = history::start(&nats, history.clone()).await.unwrap();
        let publisher = Publisher::new(&nats, layout, times.clone());
        Self { nats, cfg, layout, times, store, publisher, dir, history, _history: service, _server: server }
    }

    /// The log goes on with so many partitions; nobody but us is told.
    pub async fn switch(&mut self, partitions: u32) {
        self.layout = natterjack_nats::switch(&self.nats, &self.cfg, &self.times, partitions).await.unwrap();
        self.publisher = Publisher::new(&self.nats, self.layout, self.times.clone());
    }

    /// An archive of every partition, those of the former generation first; dropping it kills it wherever it is.
    pub fn archive(&self, instance: &str) -> AbortOnDropHandle<()> {
        self.archive_watched(Readers::new(&Health::new()), instance)
    }

    /// As parts of somebody's health.
    pub fn archive_watched(&self, readers: Readers, instance: &str) -> AbortOnDropHandle<()> {
        let archive = Archive { history: self.history.clone(), store: self.store.clone() };
        let setup = RoleSetup {
            nats: self.nats.clone(),
            layout: self.layout,
            times: self.times.clone(),
            instance: instance.to_owned(),
            readers,
        };
        AbortOnDropHandle::new(tokio::spawn(natterjack_role::run(archive, setup, CancellationToken::new())))
    }

    /// Nobody archives this generation, until the leases are released.
    pub async fn hold_back(&self, layout: Layout) -> Vec<RoleLease> {
        let mut leases = Vec::new();
        for p in 0..layout.partitions {
            let mut lease =
                RoleLease::new(&KvBuckets::new(&self.nats, layout), "persister", p, "holds it back", &self.times);
            lease.acquire().await;
            leases.push(lease);
        }
        leases
    }

    pub fn switch_off(&self, off: bool) {
        self.store.away.store(off, Ordering::SeqCst);
    }

    pub fn key(&self, thread: &Thread) -> PartitionKey {
        PartitionKey { generation: self.layout.generation, partition: self.layout.partition(thread) }
    }

    pub fn tail(&self) -> LeaderReader {
        LeaderReader::new(&self.nats, self.layout)
    }

    /// Until the archive has everything up to here.
    pub async fn archived(&self, thread: &Thread, id: MsgId) {
        eventually("the watermark moves", async || {
            self.store.inner.position(self.key(thread)).await.unwrap().is_some_and(|p| p.id >= id)
        })
        .await;
    }

    pub async fn position(&self, layout: Layout, thread: &Thread) -> Option<MsgId> {
        let key = PartitionKey { generation: layout.generation, partition: layout.partition(thread) };
        self.store.inner.position(key).await.unwrap().map(|p| p.id)
    }

    /// In another generation than the newest.
    pub async fn archived_in(&self, layout: Layout, thread: &Thread, id: MsgId) {
        eventually("the watermark moves", async || self.position(layout, thread).await.is_some_and(|p| p >= id)).await;
    }

    /// The first id that this generation's log has of the thread's partition.
    pub async fn history_of(&self, layout: Layout, thread: &Thread) -> MsgId {
        LeaderReader::new(&self.nats, layout).bounds(layout.partition(thread)).await.unwrap().first
    }

    pub async fn group(&self, thread: &Thread) -> GroupState {
        self.store.inner.group(thread).await.unwrap().unwrap()
    }

    pub async fn say(&self, thread: &Thread, from: &str, text: &str) -> MsgId {
        self.send(thread, from, Kind::Text, Body::text(text)).await
    }

    pub async fn send(&self, thread: &Thread, from: &str, kind: Kind, body: Body) -> MsgId {
        self.send_as(thread, from, cid(), kind, body).await
    }

    pub async fn send_as(&self, thread: &Thread, from: &str, cid: Cid, kind: Kind, body: Body) -> MsgId {
        let entry = Entry::new(user(from), cid, kind, body);
        if kind.is_control() {
            let last = self.tail().last_control(thread).await.unwrap().map_or(MsgId::NONE, |r| r.id);
            return self.publisher.control(thread, &cid.to_string(), entry.encode(), last).await.unwrap().id;
        }
        self.publisher.message(thread, &cid.dedupe_id(thread, &user(from)), entry.encode()).await.unwrap().id
    }

    /// Straight into the log, whatever it is.
    pub async fn raw(&self, subject: String, payload: &'static [u8]) -> MsgId {
        let js = natterjack_testkit::raw_jetstream(&self.nats).await;
        MsgId(js.publish(subject, Bytes::from_static(payload)).await.unwrap().await.unwrap().sequence)
    }

    pub async fn ask(&self, request: &HistoryRequest) -> Result<HistoryAnswer, Refusal> {
        match self.nats.request(subjects::HISTORY, request, Duration::from_secs(10)).await {
            Ok(answer) => Ok(answer),
            Err(RpcError::Refused(refusal)) => Err(refusal),
            Err(e) => panic!("history does not answer: {e}"),
        }
    }

    pub async fn page_as(&self, thread: &Thread, reader: &str, at: PageStart, limit: u16) -> Result<Page, Refusal> {
        let request = HistoryRequest::Page {
            thread: thread.clone(),
            reader: user(reader),
            access: everything(),
            at,
            limit,
            min_id: MsgId::NONE,
        };
        match self.ask(&request).await? {
            HistoryAnswer::Page(page) => Ok(page),
            other => panic!("a page was asked for: {other:?}"),
        }
    }

    pub async fn page(&self, thread: &Thread, at: PageStart, limit: u16) -> Page {
        self.page_as(thread, "reader", at, limit).await.unwrap()
    }

    pub async fn between(
        &self,
        thread: &Thread,
        after: MsgId,
        upto: MsgId,
        limit: u16,
    ) -> Result<(Vec<Event>, bool), Refusal> {
        match self.ask(&HistoryRequest::Between { thread: thread.clone(), after, upto, limit }).await? {
            HistoryAnswer::Between { events, complete } => Ok((events, complete)),
            other => panic!("events were asked for: {other:?}"),
        }
    }

    pub async fn find_cid(&self, thread: &Thread, from: &str, cid: Cid) -> Result<Option<MsgId>, Refusal> {
        match self
            .ask(&HistoryRequest::FindCid { thread: thread.clone(), sender: user(from), cid, below: None })
            .await?
        {
            HistoryAnswer::FindCid { found, .. } => Ok(found),
            other => panic!("an id was asked for: {other:?}"),
        }
    }

    pub async fn is_message(&self, thread: &Thread, id: MsgId) -> Result<bool, Refusal> {
        match self.ask(&HistoryRequest::IsMessage { thread: thread.clone(), id }).await? {
            HistoryAnswer::IsMessage(is) => Ok(is),
            other => panic!("yes or no was asked for: {other:?}"),
        }
    }

    pub async fn last_ids(&self, threads: &[&Thread]) -> Vec<MsgId> {
        match self
            .ask(&HistoryRequest::LastEntries { threads: threads.iter().map(|t| (*t).clone()).collect() })
            .await
            .unwrap()
        {
            HistoryAnswer::LastEntries(last) => last.into_iter().map(|e| e.id).collect(),
            other => panic!("ids were asked for: {other:?}"),
        }
    }

    pub async fn latest(&self, reader: &str, threads: &[&Thread]) -> Vec<Option<Event>> {
        let threads = threads.iter().map(|t| asked(t, None, None)).collect();
        self.latest_of(reader, threads).await.into_iter().map(|l| l.last).collect()
    }

    pub async fn latest_of(&self, reader: &str, threads: Vec<AskedThread>) -> Vec<LatestOf> {
        match self.ask(&HistoryRequest::Latest { reader: user(reader), threads }).await.unwrap() {
            HistoryAnswer::Latest(latest) => latest,
            other => panic!("the latest were asked for: {other:?}"),
        }
    }

    /// Of the health of a whole persister: `history`, `directory`, each partition and each shard.
    pub fn parts(&self) -> usize {
        2 + (self.layout.partitions + self.layout.kv_shards) as usize
    }

    /// Unread messages of somebody who has read up to here.
    pub async fn unread(&self, reader: &str, thread: &Thread, read: MsgId) -> Option<u8> {
        self.latest_of(reader, vec![asked(thread, Some(read), None)]).await[0].unread
    }
}

/// By somebody who sees all of it.
pub fn asked(thread: &Thread, read: Option<MsgId>, heard: Option<HeardOf>) -> AskedThread {
    AskedThread { thread: thread.clone(), access: everything(), read, heard }
}

fn everything() -> ReadAccess {
    ReadAccess { intervals: Intervals::all(), v: MsgId::NONE }
}

pub fn ids(events: &[Event]) -> Vec<MsgId> {
    events.iter().map(|e| e.id).collect()
}

pub fn on(target: MsgId, text: Option<&str>) -> Body {
    Body { target: Some(target), text: text.map(str::to_owned), ..Body::default() }
}
