//! An instance of the service, a writer that knows the truth, and an observer that sees all subjects in the order of
//! one connection.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use natterjack_channel::run;
use natterjack_nats::{Layout, Nats, NatsConfig, NatsMessage, Publisher, RoleConfig, RoleStartError, subjects};
use natterjack_protocol::{
    Body, Entry, Kind, MsgId, Thread, Times,
    internal::live::{Beat, EventHeader, LiveMessage},
    log::chain::{self, ChainLink},
};
use natterjack_runtime::Health;
use natterjack_testkit::{NatsServer, eventually};
pub use natterjack_testkit::{cid, user};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

pub struct Instance {
    pub health: Health,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RoleStartError>>,
}

impl Instance {
    pub fn start(server: &NatsServer, name: &str) -> Self {
        Self::through(server.config(), name)
    }

    pub fn through(nats: NatsConfig, name: &str) -> Self {
        let cfg = RoleConfig { nats, times: Times::default(), instance: name.into() };
        let (health, stop) = (Health::new(), CancellationToken::new());
        let task = tokio::spawn(run(cfg, health.clone(), stop.clone()));
        Self { health, stop, task }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }

    /// Gone in the middle of whatever it did; its leases are not released.
    pub fn die(self) {
        self.task.abort();
    }
}

/// What was stored, in order.
#[derive(Clone)]
pub struct Writer {
    publisher: Publisher,
    truth: Arc<Mutex<BTreeMap<Thread, Vec<MsgId>>>>,
}

impl Writer {
    pub fn new(nats: &Nats, layout: Layout) -> Self {
        Self { publisher: Publisher::new(nats, layout, Times::default()), truth: Arc::default() }
    }

    /// Goes on in another generation.
    pub fn follow(&self, nats: &Nats, layout: Layout) -> Self {
        Self { publisher: Publisher::new(nats, layout, Times::default()), truth: self.truth.clone() }
    }

    pub async fn text(&self, thread: &Thread, from: &str) -> MsgId {
        let entry = Entry::new(user(from), cid(), Kind::Text, Body::text("hello"));
        self.message(thread, entry.encode()).await
    }

    pub async fn message(&self, thread: &Thread, payload: Bytes) -> MsgId {
        let stored = self.publisher.message(thread, &cid().to_string(), payload).await.unwrap();
        self.note(thread, stored.id)
    }

    pub async fn control(&self, thread: &Thread, from: &str, kind: Kind, users: &[&str], expected: MsgId) -> MsgId {
        let body =
            Body { users: users.iter().map(|u| user(u)).collect(), name: Some("a name".into()), ..Body::default() };
        let entry = Entry::new(user(from), cid(), kind, body);
        let stored = self.publisher.control(thread, &entry.cid.to_string(), entry.encode(), expected).await.unwrap();
        self.note(thread, stored.id)
    }

    fn note(&self, thread: &Thread, id: MsgId) -> MsgId {
        self.truth.lock().unwrap().entry(thread.clone()).or_default().push(id);
        id
    }

    pub fn truth(&self) -> BTreeMap<Thread, Vec<MsgId>> {
        self.truth.lock().unwrap().clone()
    }
}

pub enum What {
    Live(LiveMessage<'static>),
    Beat(Beat),
    /// Something else, by its subject alone; answers to requests of the test among it.
    Other(NatsMessage),
}

pub struct Seen {
    pub at: Instant,
    pub subject: String,
    pub what: What,
}

#[derive(Clone)]
pub struct Observer {
    pub nats: Nats,
    seen: Arc<Mutex<Vec<Seen>>>,
    _task: Arc<tokio_util::task::AbortOnDropHandle<()>>,
}

impl Observer {
    pub async fn start(server: &NatsServer) -> Self {
        Self::of(server, &["live.>", "beat.*"]).await
    }

    /// Several subscriptions are several queues, without an order between them.
    pub async fn of(server: &NatsServer, subjects: &[&'static str]) -> Self {
        let nats = server.nats().await;
        let mut all = futures_util::stream::SelectAll::new();
        for subject in subjects {
            all.push(nats.subscribe(*subject).await.unwrap());
        }
        nats.flush_barrier().await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                while let Some(message) = all.next().await {
                    let subject = message.subject.to_string();
                    let what = if subject.starts_with("live.") {
                        // A few hundred kilobytes in a test.
                        let payload: &'static [u8] = Box::leak(message.payload.to_vec().into_boxed_slice());
                        What::Live(LiveMessage::parse(payload).unwrap())
                    } else if subject.starts_with("beat.") {
                        What::Beat(Beat::decode(&message.payload).unwrap())
                    } else if subject.starts_with("test.") {
                        What::Other(message)
                    } else {
                        continue;
                    };
                    seen.lock().unwrap().push(Seen { at: Instant::now(), subject, what });
                }
            }
        });
        Self { nats, seen, _task: Arc::new(tokio_util::task::AbortOnDropHandle::new(task)) }
    }

    pub fn with<R>(&self, f: impl FnOnce(&[Seen]) -> R) -> R {
        f(&self.seen.lock().unwrap())
    }

    pub fn saw_event(&self, subject: &str, wanted: MsgId) -> bool {
        let is_it = |what: &What| matches!(what, What::Live(LiveMessage::Event { header, .. }) if header.id == wanted);
        self.with(|all| all.iter().any(|s| s.subject == subject && is_it(&s.what)))
    }

    /// Waits until every entry has come on every subject of its thread, then checks order and predecessors. Returns how
    /// many events came more than once.
    pub async fn has_everything(&self, writer: &Writer) -> usize {
        let last: Vec<(String, MsgId)> = writer
            .truth()
            .iter()
            .flat_map(|(t, ids)| subjects::live_subjects_of(t).into_iter().map(|s| (s, *ids.last().unwrap())))
            .collect();
        eventually("the last event of every thread", async || last.iter().all(|(s, id)| self.saw_event(s, *id))).await;
        self.check(&writer.truth())
    }

    /// As an edge does: `link` must never find a gap, and what it shows must be the truth.
    pub fn check(&self, truth: &BTreeMap<Thread, Vec<MsgId>>) -> usize {
        let (copies, gaps) = self.judge(truth);
        assert_eq!(gaps, 0, "gaps");
        copies
    }

    /// Copies, and gaps that an edge would have noticed and filled from history. A hole that it could not notice fails.
    pub fn judge(&self, truth: &BTreeMap<Thread, Vec<MsgId>>) -> (usize, usize) {
        let mut shown: HashMap<(String, String), Vec<MsgId>> = HashMap::new();
        let (mut copies, mut gaps) = (0, 0);
        self.with(|all| {
            for s in all {
                let What::Live(LiveMessage::Event { header, .. }) = &s.what else { continue };
                let EventHeader { id, prev, thread, .. } = header;
                let ids = &truth[&thread.parse().unwrap()];
                let at = ids.iter().position(|i| i == id).expect("nothing that was not stored");
                let real = if at == 0 { MsgId::NONE } else { ids[at - 1] };
                assert_eq!(*prev, real, "predecessor of {id} in {thread}");
                let list = shown.entry((s.subject.clone(), (*thread).to_owned())).or_default();
                match chain::link(list.last().copied(), MsgId::NONE, *prev, *id) {
                    ChainLink::Next => list.push(*id),
                    ChainLink::Old => copies += 1,
                    ChainLink::Gap { after } => {
                        gaps += 1;
                        list.extend(ids.iter().copied().filter(|i| *i > after && i <= id));
                    }
                }
            }
        });
        for (thread, ids) in truth {
            for subject in subjects::live_subjects_of(thread) {
                assert_eq!(shown.get(&(subject.clone(), thread.to_string())), Some(ids), "{thread} on {subject}");
            }
        }
        (copies, gaps)
    }
}
