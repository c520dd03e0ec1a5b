//! An edge's dispatcher without NATS: what comes over the wire is put in by hand, what it writes is read, its jobs end
//! when the test says so, time is paused.

use std::{collections::HashMap, future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use natterjack_nats::{FanInEvent, LiveKind, ServerTime, SubscriptionSlot as FanInSlot, subjects};
use natterjack_protocol::{
    Body, Cid, Entry, Event, Kind, MsgId, Refusal, Thread, Times, UserId,
    client::{close, frame::ServerFrame},
    codec::Codec,
    internal::{
        live::{self, Beat},
        rpc::{Heads, HeadsAnswer, Reply},
    },
    log::{
        Intervals,
        fold::{ThreadItem, UserThreads},
    },
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    live::{
        LiveHandle,
        batch_acks::BatchAcks,
        channel,
        dispatch::{BEATS, Dispatch, run},
        event::{Gap, LiveEvent, TopicKey},
        feed::Feed,
        jobs::Jobs,
        topic::VisibleRange,
    },
    members::Members,
    sessions::handle::{SessionHandle, SessionId},
};

pub const PARTITIONS: u32 = 2;
pub const GENERATION: u32 = 7;
/// Where both partitions are when a test begins.
pub const BEGIN: MsgId = MsgId(10);

/// What the dispatcher has written to NATS.
#[derive(Default)]
pub struct Written {
    pub subscriptions: HashMap<String, FanInSlot>,
    /// Token, subject and threads of the requests without an answer.
    pub requests: Vec<(u64, String, Vec<u64>)>,
    pub tokens: u64,
}

pub struct FakeFeed {
    incoming: mpsc::Receiver<FanInEvent>,
    written: Arc<Mutex<Written>>,
}

impl Feed for FakeFeed {
    fn subscribe(&mut self, subject: &str, slot: FanInSlot) {
        self.written.lock().subscriptions.insert(subject.to_owned(), slot);
    }

    fn unsubscribe(&mut self, slot: FanInSlot) {
        self.written.lock().subscriptions.retain(|_, s| *s != slot);
    }

    fn request(&mut self, subject: &str, payload: &[u8]) -> u64 {
        let mut written = self.written.lock();
        written.tokens += 1;
        let token = written.tokens;
        let Heads { threads } = rmp_serde::from_slice(payload).unwrap();
        written.requests.push((token, subject.to_owned(), threads));
        token
    }

    async fn next_batch(&mut self, out: &mut Vec<FanInEvent>) {
        match self.incoming.recv().await {
            Some(event) => out.push(event),
            None => pending().await,
        }
    }
}

pub type Fetch = (Gap, oneshot::Sender<Result<Vec<LiveEvent>, Refusal>>);

#[derive(Clone)]
pub struct FakeJobs(mpsc::Sender<Fetch>);

impl Jobs for FakeJobs {
    async fn fetch(&self, gap: &Gap) -> Result<Vec<LiveEvent>, Refusal> {
        let (reply, events) = oneshot::channel();
        self.0.send((gap.clone(), reply)).await.unwrap();
        events.await.unwrap()
    }

    async fn read_threads(&self, _: &UserId) -> Result<UserThreads, Refusal> {
        Ok(UserThreads::default())
    }

    async fn join(&self, _: &Arc<SessionHandle>, _: &Thread, _: &ThreadItem) {}
}

pub struct Edge {
    pub live: LiveHandle,
    pub clock: Clock,
    pub members: Members,
    pub batch_acks: BatchAcks,
    pub incoming: mpsc::Sender<FanInEvent>,
    pub written: Arc<Mutex<Written>>,
    pub fetches: mpsc::Receiver<Fetch>,
    pub stop: CancellationToken,
    pub dispatcher: JoinHandle<()>,
    pub sessions: u64,
}

pub fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub fn thread() -> Thread {
    Thread::dm(&user("a"), &user("b"))
}

pub fn event(id: u64, prev: u64) -> Event {
    let entry = Entry::new(user("b"), Cid::mint(id, [0; 10]), Kind::Text, Body::text("hello"));
    Event::new(thread(), MsgId(id), MsgId(prev), id, entry)
}

/// Ids of the events that wait in the outbox, which is drained.
pub fn shown(session: &SessionHandle) -> Vec<u64> {
    let mut frames = Vec::new();
    session.outbox.take(&mut frames, usize::MAX);
    let id = |bytes: &Bytes| match ServerFrame::decode(Codec::Msgpack, bytes) {
        Ok(Some(ServerFrame::Event(e))) => e.id.0,
        other => panic!("an event: {other:?}"),
    };
    frames.iter().map(id).collect()
}

/// Why the session was closed.
pub fn closed(session: &SessionHandle) -> Option<close::Close> {
    session.outbox.take(&mut Vec::new(), usize::MAX)
}

impl Edge {
    pub async fn start() -> Self {
        let ((live, inbox), (incoming, events), (jobs, fetches)) = (channel(), mpsc::channel(64), mpsc::channel(64));
        let (times, written) = (Times::default(), Arc::<Mutex<Written>>::default());
        let clock = Clock::new(PARTITIONS, &times, ServerTime::fixed(0));
        let (members, batch_acks, stop) = (Members::default(), BatchAcks::default(), CancellationToken::new());
        let dispatch = Dispatch {
            feed: FakeFeed { incoming: events, written: written.clone() },
            jobs: FakeJobs(jobs),
            clock: clock.clone(),
            members: members.clone(),
            batch_acks: batch_acks.clone(),
            presence: crate::presence::handle::channel().0,
            receipts: crate::receipt_push::channel().0,
            on_beat: Box::new(|_| {}),
            generation: GENERATION,
            partitions: PARTITIONS,
            times,
        };
        let dispatcher = tokio::spawn(run(dispatch, inbox, stop.clone()));
        let edge = Self { live, clock, members, batch_acks, incoming, written, fetches, stop, dispatcher, sessions: 0 };
        edge.beats(BEGIN).await;
        edge
    }

    /// Time stands still while anything can run, so after this everything has been done that does not wait for the
    /// test.
    pub async fn settle(&self) {
        sleep(Duration::from_millis(1)).await;
    }

    pub async fn receive(&self, slot: FanInSlot, payload: Bytes) {
        self.incoming.send(FanInEvent::Msg { slot, kind: LiveKind::Event, payload }).await.unwrap();
        self.settle().await;
    }

    pub async fn beat(&self, p: u32, generation: u32, frontier: MsgId) {
        let ts = self.clock.any_now_ms();
        let beat = Beat { generation, p, ts, dedupe_since: 0, frontier, archive_lag_ms: None };
        self.receive(FanInSlot(BEATS), beat.encode()).await;
    }

    pub async fn beats(&self, frontier: MsgId) {
        for p in 0..PARTITIONS {
            self.beat(p, GENERATION, frontier).await;
        }
    }

    /// On the live subject of a user.
    pub async fn live(&self, of: &str, payload: Bytes) {
        let slot = self.written.lock().subscriptions[&subjects::live_user_all(&user(of))];
        self.receive(slot, payload).await;
    }

    pub async fn event(&self, of: &str, id: u64, prev: u64) {
        self.live(of, live::encode_event(event(id, prev), false)).await;
    }

    /// Answers all requests for heads; `head`: of the thread. Returns the partitions that were asked.
    pub async fn answer(&self, frontier: MsgId, horizon: MsgId, head: MsgId) -> Vec<u32> {
        let requests = std::mem::take(&mut self.written.lock().requests);
        let mut asked = Vec::new();
        for (token, subject, threads) in requests {
            let p = (0..PARTITIONS).find(|p| subjects::heads(GENERATION, *p) == subject).unwrap();
            asked.push(p);
            let of = |hash: &u64| if *hash == thread().hash64() { head } else { MsgId::NONE };
            let answer = HeadsAnswer { frontier, horizon, ts: 0, heads: threads.iter().map(of).collect() };
            let payload = rmp_serde::to_vec_named(&Reply::Ok(answer)).unwrap().into();
            self.incoming.send(FanInEvent::Reply { token, payload, no_responders: false }).await.unwrap();
        }
        self.settle().await;
        asked
    }

    /// A session of this user that is live behind [`BEGIN`].
    pub async fn attach(&mut self, of: &str) -> Arc<SessionHandle> {
        self.attach_at(of, BEGIN).await
    }

    pub async fn attach_at(&mut self, of: &str, frontier: MsgId) -> Arc<SessionHandle> {
        self.sessions += 1;
        let state = self.members.enter(&user(of));
        state.merge(&thread(), ThreadItem { v: MsgId(1), intervals: Intervals::all(), ..ThreadItem::default() });
        let (id, device) = (SessionId(self.sessions), user("d"));
        let session = SessionHandle::new(id, user("s"), user(of), device, Codec::Msgpack, state, Default::default());
        let own = TopicKey::User(user(of));
        self.live.subscribe(&session, vec![(own.clone(), VisibleRange::default())]).await.unwrap();
        let barrier = tokio::spawn({
            let live = self.live.clone();
            async move { live.heads(id, Vec::new()).await }
        });
        self.settle().await;
        let asked = self.answer(frontier, MsgId(1), MsgId::NONE).await;
        assert_eq!(asked.len(), PARTITIONS as usize, "a barrier of all partitions");
        let barrier = barrier.await.unwrap().unwrap();
        assert!(barrier.partitions.iter().all(|p| p.frontier == frontier));
        assert!(self.live.go_live(&session, vec![(own, Vec::new())], None).await.unwrap());
        session
    }

    pub fn fetch(&mut self) -> Fetch {
        self.fetches.try_recv().expect("a gap is being fetched")
    }
}
