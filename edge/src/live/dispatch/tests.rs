//! The loop without a socket, in paused time: what comes over NATS is put in by hand, and jobs end when the test says
//! so.

use std::{collections::HashMap, future::pending};

use natterjack_nats::ServerTime;
use natterjack_protocol::{
    Body, Cid, Entry, Event, Kind, MsgId, UserId,
    client::{close, frame::ServerFrame},
    codec::Codec,
    internal::live,
    limits,
    log::{
        Intervals,
        fold::{ThreadItem, UserThreads},
    },
};
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinHandle};

use super::*;
use crate::{
    live::{LiveHandle, channel, topic::VisibleRange},
    sessions::handle::{SessionHandle, SessionId},
};

const PARTITIONS: u32 = 2;
const GENERATION: u32 = 7;
/// Where both partitions are when a test begins.
const BEGIN: MsgId = MsgId(10);

/// What the dispatcher has written to NATS.
#[derive(Default)]
struct Written {
    subscriptions: HashMap<String, FanInSlot>,
    /// Token, subject and threads of the requests without an answer.
    requests: Vec<(u64, String, Vec<u64>)>,
    tokens: u64,
}

struct FakeFeed {
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

type Fetch = (Gap, oneshot::Sender<Result<Vec<LiveEvent>, Refusal>>);

#[derive(Clone)]
struct FakeJobs(mpsc::Sender<Fetch>);

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

struct Edge {
    live: LiveHandle,
    clock: Clock,
    members: Members,
    batch_acks: BatchAcks,
    incoming: mpsc::Sender<FanInEvent>,
    written: Arc<Mutex<Written>>,
    fetches: mpsc::Receiver<Fetch>,
    stop: CancellationToken,
    dispatcher: JoinHandle<()>,
    sessions: u64,
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn thread() -> Thread {
    Thread::dm(&user("a"), &user("b"))
}

fn event(id: u64, prev: u64) -> Event {
    let entry = Entry::new(user("b"), Cid::mint(id, [0; 10]), Kind::Text, Body::text("hello"));
    Event::new(thread(), MsgId(id), MsgId(prev), id, entry)
}

/// Ids of the events that wait in the outbox, which is drained.
fn shown(session: &SessionHandle) -> Vec<u64> {
    let mut frames = Vec::new();
    session.outbox.take(&mut frames, usize::MAX);
    let id = |bytes: &Bytes| match ServerFrame::decode(Codec::Msgpack, bytes) {
        Ok(Some(ServerFrame::Event(e))) => e.id.0,
        other => panic!("an event: {other:?}"),
    };
    frames.iter().map(id).collect()
}

/// Why the session was closed.
fn closed(session: &SessionHandle) -> Option<close::Close> {
    session.outbox.take(&mut Vec::new(), usize::MAX)
}

impl Edge {
    async fn start() -> Self {
        let ((live, inbox), (incoming, events), (jobs, fetches)) = (channel(), mpsc::channel(64), mpsc::channel(64));
        let (times, written) = (Times::default(), Arc::<Mutex<Written>>::default());
        let clock = Clock::new(PARTITIONS, &times, ServerTime::told(0));
        let (members, batch_acks, stop) = (Members::default(), BatchAcks::default(), CancellationToken::new());
        let dispatch = Dispatch {
            feed: FakeFeed { incoming: events, written: written.clone() },
            jobs: FakeJobs(jobs),
            clock: clock.clone(),
            members: members.clone(),
            batch_acks: batch_acks.clone(),
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
    async fn settle(&self) {
        sleep(Duration::from_millis(1)).await;
    }

    async fn receive(&self, slot: FanInSlot, payload: Bytes) {
        let (subject, reply, header) = (Bytes::new(), Bytes::new(), Bytes::new());
        let message = FanInEvent::Msg { slot, subject_tail: Tail8::Event, payload, subject, reply, header, status: 0 };
        self.incoming.send(message).await.unwrap();
        self.settle().await;
    }

    async fn beat(&self, p: u32, generation: u32, frontier: MsgId) {
        let ts = self.clock.any_now_ms();
        let beat = Beat { generation, p, ts, dedupe_since: 0, frontier, archive_lag_ms: None };
        self.receive(FanInSlot(BEATS), beat.encode()).await;
    }

    async fn beats(&self, frontier: MsgId) {
        for p in 0..PARTITIONS {
            self.beat(p, GENERATION, frontier).await;
        }
    }

    /// On the live subject of a user.
    async fn live(&self, of: &str, payload: Bytes) {
        let slot = self.written.lock().subscriptions[&subjects::live_user_all(&user(of))];
        self.receive(slot, payload).await;
    }

    async fn event(&self, of: &str, id: u64, prev: u64) {
        self.live(of, live::encode_event(event(id, prev), false)).await;
    }

    /// Answers all requests for heads; `head`: of the thread. Returns the partitions that were asked.
    async fn answer(&self, frontier: MsgId, horizon: MsgId, head: MsgId) -> Vec<u32> {
        let requests = std::mem::take(&mut self.written.lock().requests);
        let mut asked = Vec::new();
        for (token, subject, threads) in requests {
            let p = (0..PARTITIONS).find(|p| subjects::heads(GENERATION, *p) == subject).unwrap();
            asked.push(p);
            let of = |hash: &u64| if *hash == thread().hash64() { head } else { MsgId::NONE };
            let answer = HeadsAnswer { frontier, horizon, ts: 0, heads: threads.iter().map(of).collect() };
            let payload = rmp_serde::to_vec_named(&Answer::Ok(answer)).unwrap().into();
            self.incoming.send(FanInEvent::Reply { token, payload, no_responders: false }).await.unwrap();
        }
        self.settle().await;
        asked
    }

    /// A session of this user that is live behind [`BEGIN`].
    async fn attach(&mut self, of: &str) -> Arc<SessionHandle> {
        self.attach_at(of, BEGIN).await
    }

    async fn attach_at(&mut self, of: &str, frontier: MsgId) -> Arc<SessionHandle> {
        self.sessions += 1;
        let state = self.members.enter(&user(of));
        state.merge(&thread(), ThreadItem { v: MsgId(1), intervals: Intervals::all(), ..ThreadItem::default() });
        let (id, device) = (SessionId(self.sessions), user("d"));
        let session = SessionHandle::new(id, user(of), device, Codec::Msgpack, state, Default::default());
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

    fn fetch(&mut self) -> Fetch {
        self.fetches.try_recv().expect("a gap is being fetched")
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_filled_before_later_events_are_shown() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    edge.event("a", 11, 10).await;
    assert_eq!(shown(&session), [11]);
    edge.event("a", 13, 12).await;
    edge.event("a", 14, 13).await;
    assert!(edge.live.is_repairing());
    assert!(shown(&session).is_empty(), "held until the gap is filled");
    let (gap, reply) = edge.fetch();
    assert_eq!((&*gap.thread, gap.after, gap.upto), ("dm.a.b", MsgId(11), MsgId(12)));
    reply.send(Ok(vec![LiveEvent::fetched(event(12, 11))])).unwrap();
    edge.settle().await;
    assert_eq!(shown(&session), [12, 13, 14]);
    assert!(!edge.live.is_repairing());
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_cannot_be_filled_sends_its_sessions_to_their_cursors() {
    let mut edge = Edge::start().await;
    let (session, other) = (edge.attach("a").await, edge.attach("b").await);
    edge.event("a", 13, 12).await;
    edge.fetch().1.send(Err(Refusal::unavailable("later"))).unwrap();
    edge.settle().await;
    assert_eq!((closed(&session), closed(&other)), (Some(close::RESYNC), None));
    assert!(!edge.live.is_repairing());
    assert!(!edge.written.lock().subscriptions.contains_key(&subjects::live_user_all(&user("a"))));
}

#[tokio::test(start_paused = true)]
async fn a_slow_session_is_closed_and_holds_up_nobody() {
    let mut edge = Edge::start().await;
    let (slow, quick) = (edge.attach("a").await, edge.attach("a").await);
    let last = BEGIN.0 + limits::OUTBOX_FRAMES as u64 + 1;
    let mut seen = Vec::new();
    for id in BEGIN.0 + 1..=last {
        edge.event("a", id, id - 1).await;
        seen.extend(shown(&quick));
    }
    assert_eq!(seen, (BEGIN.0 + 1..=last).collect::<Vec<_>>());
    assert_eq!((closed(&slow), closed(&quick)), (Some(close::SLOW_READER), None));
    edge.live.detach(&slow);
    edge.event("a", last + 1, last).await;
    assert_eq!(shown(&quick), [last + 1]);
    edge.live.detach(&quick);
    edge.settle().await;
    assert_eq!(edge.written.lock().subscriptions.len(), 1, "beats alone");
}

#[tokio::test(start_paused = true)]
async fn after_a_silence_the_heads_are_compared() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    edge.beats(BEGIN).await;
    assert!(edge.clock.all_alive() && edge.written.lock().requests.is_empty());
    sleep(Times::default().beat_silence + Duration::from_secs(1)).await;
    assert!(!edge.clock.all_alive());
    edge.answer(BEGIN, MsgId(1), MsgId::NONE).await;
    edge.beats(MsgId(12)).await;
    assert!(edge.clock.all_alive());
    // Every partition, for each may have been silent; the thread's own says that something was missed.
    let mut asked = edge.answer(MsgId(12), MsgId(1), MsgId(12)).await;
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked, [0, 1]);
    let (gap, reply) = edge.fetch();
    assert_eq!((gap.after, gap.upto), (BEGIN, MsgId(12)));
    reply.send(Ok(vec![LiveEvent::fetched(event(12, 10))])).unwrap();
    edge.settle().await;
    assert_eq!(shown(&session), [12]);
    assert_eq!(closed(&session), None);

    sleep(Times::default().beat_silence + Duration::from_secs(1)).await;
    edge.answer(MsgId(12), MsgId(1), MsgId(12)).await;
    edge.beats(MsgId(60)).await;
    edge.answer(MsgId(60), MsgId(50), MsgId::NONE).await;
    assert_eq!(closed(&session), Some(close::RESYNC), "silent for longer than the holder remembers");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_behind_is_no_barrier_until_its_lease_is_over() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    edge.event("a", 11, 10).await;
    assert_eq!(shown(&session), [11]);
    let barrier = tokio::spawn({
        let (live, id) = (edge.live.clone(), session.id);
        async move { live.heads(id, Vec::new()).await }
    });
    edge.settle().await;
    edge.answer(MsgId(5), MsgId(1), MsgId::NONE).await;
    assert!(!barrier.is_finished(), "it knows less than what has come here");
    sleep(Times::default().role_lease + Duration::from_secs(2)).await;
    edge.answer(MsgId(5), MsgId(1), MsgId::NONE).await;
    assert!(barrier.await.unwrap().unwrap().partitions.iter().all(|p| p.frontier == MsgId(5)), "the log has lost it");
}

#[tokio::test(start_paused = true)]
async fn beats_of_another_generation_say_nothing_and_at_the_end_all_who_wait_are_told() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    for generation in [GENERATION - 1, GENERATION + 1] {
        edge.beat(0, generation, MsgId(99)).await;
    }
    assert_eq!(edge.clock.frontier(0), Some(BEGIN));
    let waits = tokio::spawn({
        let (live, id) = (edge.live.clone(), session.id);
        async move { live.heads(id, Vec::new()).await }
    });
    edge.settle().await;
    edge.stop.cancel();
    edge.dispatcher.await.unwrap();
    assert!(waits.await.unwrap().is_err());
    assert!(edge.live.unsubscribe(session.id, Vec::new()).await.is_err());
    edge.live.detach(&session);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_of_a_closed_topic_does_nothing_to_the_next_one_in_its_slot() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    edge.event("a", 13, 12).await;
    let slot = edge.written.lock().subscriptions[&subjects::live_user_all(&user("a"))];
    edge.live.detach(&session);
    edge.settle().await;
    let next = edge.attach_at("b", MsgId(13)).await;
    assert_eq!(edge.written.lock().subscriptions[&subjects::live_user_all(&user("b"))], slot);
    edge.fetch().1.send(Err(Refusal::unavailable("later"))).unwrap();
    edge.settle().await;
    assert_eq!(closed(&next), None);
    edge.event("b", 14, 13).await;
    assert_eq!(shown(&next), [14]);
}

#[tokio::test(start_paused = true)]
async fn batches_are_acknowledged_from_the_header_alone() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    let batch = edge.batch_acks.expect(&thread(), &user("b"), vec![event(11, 10).cid, event(12, 11).cid]);
    edge.live("a", Bytes::from_static(b"\x01 not a live message")).await;
    for (id, prev) in [(11, 10), (12, 11)] {
        let payload = live::encode_event(event(id, prev), false);
        let Ok(LiveMessage::Event { frame, .. }) = LiveMessage::parse(&payload) else { panic!("an event") };
        edge.live("a", payload.slice(..payload.len() - frame.len())).await;
    }
    assert_eq!(batch.ids().await, [MsgId(11), MsgId(12)]);
    let mut frames = Vec::new();
    session.outbox.take(&mut frames, usize::MAX);
    assert_eq!(frames, [Bytes::new(), Bytes::new()], "frames are handed on as they came");
}
