//! What these promises are judged by: the log itself, read past edges and history, and everything that one socket was
//! shown.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use natterjack_nats::{Layout, LeaderReader, Nats};
use natterjack_protocol::{
    Cid, Event, Most, MsgId, Refusal, Retry, Thread,
    client::frame::{ClientFrame, Hello, ServerFrame},
    codec::Codec,
};
use natterjack_testkit::{eventually_within, now_ms, patience};
pub use natterjack_tests::kit::witness::heavy;
use natterjack_tests::kit::{Api, Cluster, RawWs, Received, User, writer::Writer};
use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub const SOON: Duration = Duration::from_secs(10);

/// The order that everybody has to be shown.
pub struct ReadLog {
    pub nats: Nats,
    pub layout: Layout,
    tail: LeaderReader,
}

impl ReadLog {
    pub async fn of(cluster: &Cluster) -> Self {
        let nats = cluster.connect_nats().await;
        let layout = Layout::load(&nats).await.unwrap();
        Self { tail: LeaderReader::new(&nats, layout), nats, layout }
    }

    pub async fn last(&self, thread: &Thread) -> MsgId {
        self.tail.last(thread).await.unwrap().map(|r| r.id).unwrap_or_default()
    }

    /// The messages (no control entries) after this id, as the log has them.
    pub async fn messages(&self, thread: &Thread, after: MsgId) -> Vec<MsgId> {
        let upto = self.last(thread).await;
        let (mut found, mut at) = (Vec::new(), after);
        while at < upto {
            let records = self.tail.after(thread, at, upto, Most::count(1_000)).await.unwrap();
            let Some(last) = records.last() else { break };
            at = last.id;
            found.extend(records.iter().filter(|r| !r.control).map(|r| r.id));
        }
        found
    }
}

#[derive(Default)]
struct Shown {
    /// Live events and the events of pages, as they came.
    events: Vec<(Instant, Event)>,
    /// The newest id of the thread's pages.
    paged: BTreeMap<Thread, MsgId>,
    attached: bool,
    degraded: Vec<bool>,
    closed: Option<(u16, String)>,
}

/// A bare socket whose every frame is written down.
pub struct Watcher {
    shown: Arc<Mutex<Shown>>,
    _task: AbortOnDropHandle<()>,
}

impl Watcher {
    pub async fn attach(cluster: &Cluster, user: &User, edge: usize) -> Self {
        // Both codecs, by chance of the user's id: what is promised does not depend on it.
        let codec = if user.id().as_str().len() + user.id().as_str().bytes().map(usize::from).sum::<usize>() % 2 == 0 {
            Codec::Json
        } else {
            Codec::Msgpack
        };
        let mut ws = RawWs::connect(cluster.edge_addr(edge), codec).await;
        let hello = Hello::new(user.tokens.access.clone(), user.tokens.device.clone());
        ws.send(&ClientFrame::Hello(hello)).await;
        let shown = Arc::new(Mutex::new(Shown::default()));
        let task = AbortOnDropHandle::new(tokio::spawn(write_down(ws, shown.clone())));
        let watcher = Self { shown, _task: task };
        eventually_within("attached", SOON, async || watcher.shown.lock().unwrap().attached).await;
        watcher
    }

    /// Messages of a thread in the order of arrival.
    pub fn messages(&self, thread: &Thread) -> Vec<(Instant, MsgId)> {
        let shown = self.shown.lock().unwrap();
        shown
            .events
            .iter()
            .filter(|(_, e)| e.thread == *thread && !e.kind.is_control())
            .map(|(at, e)| (*at, e.id))
            .collect()
    }

    pub fn degraded(&self) -> Vec<bool> {
        self.shown.lock().unwrap().degraded.clone()
    }

    pub fn assert_open(&self) {
        let closed = self.shown.lock().unwrap().closed.clone();
        assert_eq!(closed, None, "the socket was closed");
    }

    /// Waits until this message is shown; gives the moment.
    pub async fn shows(&self, what: &str, thread: &Thread, id: MsgId, limit: Duration) -> Instant {
        let at =
            eventually_within(what, limit, async || self.messages(thread).into_iter().find(|(_, i)| *i == id)).await;
        at.0
    }

    /// Exactly what the log has after `after`, in its order.
    pub async fn shows_the_log(&self, log: &ReadLog, thread: &Thread, after: MsgId, limit: Duration) {
        eventually_within(&format!("{thread} is shown to its end"), limit, async || {
            let wanted = log.messages(thread, after).await;
            let got = self.messages(thread);
            if got.len() >= wanted.len() { Ok(()) } else { Err(format!("{} of {}", got.len(), wanted.len())) }
        })
        .await;
        let got: Vec<MsgId> = self.messages(thread).into_iter().map(|(_, id)| id).collect();
        assert_log(thread, &got, &log.messages(thread, after).await);
    }
}

/// The first difference is what one wants to see, not two lists of hundreds.
#[track_caller]
pub fn assert_log(thread: &Thread, got: &[MsgId], log: &[MsgId]) {
    if got != log {
        let at = got.iter().zip(log).take_while(|(a, b)| a == b).count();
        let missing: Vec<_> = log.iter().filter(|id| !got.contains(id)).take(10).collect();
        panic!(
            "{thread}: shown {} of {}; they differ at {at}: shown {:?}, the log has {:?}; missing {missing:?}",
            got.len(),
            log.len(),
            &got[at..got.len().min(at + 5)],
            &log[at..log.len().min(at + 5)],
        );
    }
}

async fn write_down(mut ws: RawWs, shown: Arc<Mutex<Shown>>) {
    let mut ping = interval(Duration::from_secs(10));
    // Nothing may be said between hello and welcome.
    ping.reset();
    loop {
        let received = tokio::select! {
            _ = ping.tick() => {
                if ws.try_send_bytes(&ClientFrame::Ping.encode(ws.codec())).await.is_err() {
                    return;
                }
                continue;
            }
            received = ws.next_within(Duration::from_secs(3_600)) => received,
        };
        let (now, mut shown) = (Instant::now(), shown.lock().unwrap());
        match received {
            // As docs/protocol.md says: what a page had is dropped. What was live comes once.
            Received::Frame(ServerFrame::Event(e)) if shown.paged.get(&e.thread).is_some_and(|upto| e.id <= *upto) => {}
            Received::Frame(ServerFrame::Event(e)) => shown.events.push((now, *e)),
            Received::Frame(ServerFrame::Page(p)) => {
                if let Some(last) = p.events.last() {
                    shown.paged.insert(last.thread.clone(), last.id);
                }
                shown.events.extend(p.events.into_iter().map(|e| (now, e)));
            }
            Received::Frame(ServerFrame::Attached { .. }) => shown.attached = true,
            Received::Frame(ServerFrame::Degraded { on }) => shown.degraded.push(on),
            Received::Closed(code, reason) => {
                shown.closed = Some((code, reason));
                return;
            }
            _ => {}
        }
    }
}

/// Sends until it is stored, always with the same cid.
pub async fn send_through(ws: &mut RawWs, thread: &Thread, text: &str) -> MsgId {
    let cid: Cid = ws.cid();
    loop {
        match ws.send_cid(thread, cid, text).await {
            Ok(id) => return id,
            Err(refusal) => {
                assert_ne!(refusal.code.retry(), Retry::Never, "{refusal:?}");
                // As the refusal asks for it.
                sleep(wait_of(&refusal)).await;
            }
        }
    }
}

fn wait_of(refusal: &Refusal) -> Duration {
    Duration::from_millis(refusal.retry_after_ms.unwrap_or(100).min(500))
}

/// What was acknowledged, and when. By thread: in two partitions the same id is two messages.
pub type Acked = BTreeMap<Thread, BTreeMap<MsgId, Instant>>;

/// One socket that writes into some threads, in turn, until told to stop.
pub struct Traffic {
    stop: CancellationToken,
    acked: Arc<Mutex<Acked>>,
    task: JoinHandle<()>,
}

/// Who writes the traffic.
enum Pen {
    /// One socket; it is an error if that is closed.
    Socket(Box<RawWs>),
    /// Comes back when it is closed.
    Writer(Box<Writer>),
}

impl Pen {
    async fn write(&mut self, thread: &Thread, text: String) -> MsgId {
        match self {
            Self::Socket(ws) => send_through(ws, thread, &text).await,
            Self::Writer(writer) => {
                let cid = Cid::mint(now_ms(), rand::random());
                writer.send(&[(thread.clone(), cid, text)]).await[&cid]
            }
        }
    }
}

impl Traffic {
    pub fn start(ws: RawWs, threads: Vec<Thread>, pace: Duration) -> Self {
        Self::written_by(Pen::Socket(Box::new(ws)), threads, pace)
    }

    /// Through faults in which an edge may close its sockets.
    pub fn resuming(writer: Writer, threads: Vec<Thread>, pace: Duration) -> Self {
        Self::written_by(Pen::Writer(Box::new(writer)), threads, pace)
    }

    fn written_by(mut pen: Pen, threads: Vec<Thread>, pace: Duration) -> Self {
        let (stop, acked) = (CancellationToken::new(), Arc::<Mutex<Acked>>::default());
        let (stopped, writes) = (stop.clone(), acked.clone());
        let task = tokio::spawn(async move {
            let mut n = 0;
            while !stopped.is_cancelled() {
                let thread = &threads[n % threads.len()];
                let id = pen.write(thread, format!("traffic {n}")).await;
                writes.lock().unwrap().entry(thread.clone()).or_default().insert(id, Instant::now());
                n += 1;
                // What the caller wants.
                sleep(pace).await;
            }
        });
        Self { stop, acked, task }
    }

    pub fn count(&self) -> usize {
        self.acked.lock().unwrap().values().map(BTreeMap::len).sum()
    }

    /// Waits for so many more sends.
    pub async fn goes_on(&self, more: usize, limit: Duration) {
        let goal = self.count() + more;
        eventually_within(&format!("{more} more messages are sent"), limit, async || self.count() >= goal).await;
    }

    /// What was sent, and when its ack came.
    pub async fn stop(self) -> Acked {
        self.stop.cancel();
        timeout(patience(Duration::from_secs(30)), self.task).await.expect("the sender ends").unwrap();
        self.acked.lock().unwrap().clone()
    }
}

/// The longest time from the ack to the moment a message of the thread was shown.
pub fn slowest(acked: &BTreeMap<MsgId, Instant>, shown: &[(Instant, MsgId)]) -> Duration {
    shown.iter().filter_map(|(at, id)| Some(at.saturating_duration_since(*acked.get(id)?))).max().unwrap_or_default()
}

pub async fn new_group(api: &Api, others: &[&User]) -> Thread {
    let users: Vec<String> = others.iter().map(|u| u.id().to_string()).collect();
    let (status, body) = api.post("/v1/groups", &json!({ "name": "a group", "users": users })).await;
    assert_eq!(status, 200, "{body}");
    body["thread"].as_str().unwrap().parse().unwrap()
}

pub async fn listed_edges(cluster: &Cluster, ask: usize) -> Vec<String> {
    let (status, body) = cluster.anonymous(ask).get("/v1/edges").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_value(body["edges"].clone()).unwrap()
}
