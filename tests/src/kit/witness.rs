//! Who sees what: pages, whole threads page by page, and a reader that writes down every event in the order the edge
//! gave it.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use natterjack_protocol::{
    Event, MsgId, Retry, Thread,
    client::frame::{ClientFrame, HistoryQuery, ServerFrame},
    codec::Codec,
};
use natterjack_testkit::eventually_within;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Cluster, RawWs, Received, User, paging::whole, writer::connect};

pub const SOON: Duration = Duration::from_secs(20);

/// Bigger numbers, for `make test-heavy`.
pub fn heavy() -> bool {
    std::env::var_os("NATTERJACK_HEAVY").is_some()
}

/// A group of these; the first is its owner.
pub async fn group(cluster: &Cluster, users: &[&User]) -> Thread {
    let others: Vec<_> = users[1..].iter().map(|u| u.id()).collect();
    let api = cluster.api(users[0], 0);
    let body = json!({ "name": "toads", "users": others });
    let (status, body) = api.post("/v1/groups", &body).await;
    assert_eq!(status, 200, "creating a group: {body}");
    serde_json::from_value(body["thread"].clone()).unwrap()
}

/// The messages people wrote, in their order: id and text.
pub fn texts(events: &[Event]) -> Vec<(MsgId, String)> {
    events.iter().filter_map(|e| Some((e.id, e.body.text.clone()?))).collect()
}

/// No cid twice and ids only rising.
pub fn assert_once_and_in_order(what: &str, events: &[Event]) {
    for pair in events.windows(2) {
        assert!(pair[0].id < pair[1].id, "{what}: {} comes before {}", pair[0].id, pair[1].id);
    }
    let mut seen = HashSet::new();
    for e in events {
        assert!(seen.insert((e.from.clone(), e.cid)), "{what}: {} is a second copy of {}", e.id, e.cid);
    }
}

/// Live, in pages and in history the thread is this and nothing else.
pub async fn assert_thread(
    cluster: &Cluster,
    thread: &Thread,
    readers: &[(&str, &Reader)],
    member: &User,
    expected: &[(MsgId, String)],
) {
    for (who, reader) in readers {
        reader.wait_for(&format!("{who} has seen all"), thread, expected.len()).await;
        assert_eq!(texts(&reader.of(thread)), expected, "{who}");
        assert_once_and_in_order(who, &reader.of(thread));
        reader.assert_nothing_wrong(who);
    }
    for edge in 0..cluster.spec().edges {
        let all = whole(&cluster.api(member, edge), thread, edge % 2 == 0).await;
        assert_eq!(texts(&all), expected, "history through edge {edge}");
        assert_once_and_in_order("history", &all);
    }
}

#[derive(Default)]
pub struct Seen {
    /// As they came, threads mixed.
    pub events: Vec<Event>,
    /// When each of them came.
    pub at: Vec<Instant>,
    /// Sessions that were attached.
    pub attached: usize,
    /// Of the events, how many came in pages.
    pub from_pages: usize,
    /// What must not happen: an event that is not above the last one of its thread. (Right after attaching, what the
    /// page had may come again: that is on paper, and a client drops it.)
    pub wrong: Vec<String>,
}

impl Seen {
    fn last(&self, thread: &Thread) -> MsgId {
        self.events.iter().rev().find(|e| &e.thread == thread).map_or(MsgId::NONE, |e| e.id)
    }
}

/// One device that only reads, stays connected to one of its edges and resumes from its cursors. It neither sorts nor
/// dedupes: what the edge says is what it has seen.
pub struct Reader {
    seen: Arc<Mutex<Seen>>,
    hang_up: mpsc::Sender<()>,
    _task: AbortOnDropHandle<()>,
}

impl Reader {
    pub async fn start(edges: Vec<SocketAddr>, user: &User, codec: Codec) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (hang_up, hung_up) = mpsc::channel(1);
        let task = Watching { edges, user: user.clone(), codec, seen: seen.clone(), hung_up };
        let reader = Self { seen, hang_up, _task: AbortOnDropHandle::new(tokio::spawn(task.run())) };
        eventually_within("the reader is attached", SOON, async || reader.seen().attached > 0).await;
        reader
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn of(&self, thread: &Thread) -> Vec<Event> {
        self.seen().events.iter().filter(|e| &e.thread == thread).cloned().collect()
    }

    /// The messages of a thread and when they came.
    pub fn shown(&self, thread: &Thread) -> Vec<(Instant, MsgId)> {
        let seen = self.seen();
        let messages = seen.events.iter().zip(&seen.at).filter(|(e, _)| &e.thread == thread && !e.kind.is_control());
        messages.map(|(e, at)| (*at, e.id)).collect()
    }

    /// Leaves without a word and comes back through the next edge.
    pub async fn hang_up(&self) {
        self.hang_up.send(()).await.unwrap();
    }

    pub async fn wait_for(&self, what: &str, thread: &Thread, count: usize) {
        eventually_within(what, Duration::from_secs(40), async || {
            let n = texts(&self.of(thread)).len();
            if n >= count { Ok(()) } else { Err(format!("{n} of {count}")) }
        })
        .await;
    }

    pub fn assert_nothing_wrong(&self, who: &str) {
        let seen = self.seen();
        assert!(seen.wrong.is_empty(), "{who} was shown what breaks the order: {:?}", seen.wrong);
    }
}

struct Watching {
    edges: Vec<SocketAddr>,
    user: User,
    codec: Codec,
    seen: Arc<Mutex<Seen>>,
    hung_up: mpsc::Receiver<()>,
}

/// A thread whose newest page did not reach down to what was seen: what is held until the rest is there.
#[derive(Default)]
struct Filling {
    r: u32,
    held: Vec<Event>,
}

impl Watching {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(mut self) {
        for turn in 0.. {
            let cursors = self.seen().events.iter().map(|e| (e.thread.clone(), e.id)).collect();
            match connect(self.edges[turn % self.edges.len()], &self.user, self.codec, cursors).await {
                Some(ws) => self.session(ws).await,
                // Nobody there: the next edge is tried, not without end at once.
                None => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn session(&mut self, mut ws: RawWs) {
        let mut filling: HashMap<Thread, Filling> = HashMap::new();
        let mut paged: HashMap<Thread, MsgId> = HashMap::new();
        loop {
            let received = tokio::select! {
                received = ws.next_within(Duration::from_secs(600)) => received,
                _ = self.hung_up.recv() => return,
            };
            match received {
                Received::Frame(ServerFrame::Attached { .. }) => self.seen().attached += 1,
                Received::Frame(ServerFrame::Event(e)) => match filling.get_mut(&e.thread) {
                    _ if paged.get(&e.thread).is_some_and(|upto| e.id <= *upto) => {}
                    Some(f) => f.held.push(*e),
                    None => self.note(*e),
                },
                Received::Frame(ServerFrame::Page(page)) => {
                    let Some(thread) = page.thread.clone() else { continue };
                    let last = self.seen().last(&thread);
                    let answers = filling.get(&thread).is_some_and(|f| page.r == Some(f.r));
                    if page.r.is_some() && !answers {
                        continue;
                    }
                    let mut f = filling.remove(&thread).unwrap_or_default();
                    let (lowest, prev) = (page.events.first().map(|e| e.id), page.prev);
                    if let Some(newest) = page.events.last() {
                        let upto = paged.entry(thread.clone()).or_default();
                        *upto = newest.id.max(*upto);
                    }
                    f.held.splice(0..0, page.events.into_iter().filter(|e| e.id > last));
                    match lowest {
                        Some(lowest) if prev > last => {
                            f.r = ws.request();
                            let below = HistoryQuery {
                                r: f.r,
                                thread: Some(thread.clone()),
                                before: Some(lowest),
                                limit: Some(200),
                                ..HistoryQuery::default()
                            };
                            filling.insert(thread, f);
                            if ws.try_send_bytes(&ClientFrame::History(below).encode(self.codec)).await.is_err() {
                                return;
                            }
                        }
                        _ => {
                            self.seen().from_pages += f.held.len();
                            f.held.into_iter().for_each(|e| self.note(e));
                        }
                    }
                }
                // What it could not read is asked for again with the next hello.
                Received::Frame(ServerFrame::Error { refusal, .. }) if refusal.code.retry() == Retry::Later => return,
                Received::Closed(..) => return,
                _ => {}
            }
        }
    }

    fn note(&self, event: Event) {
        let mut seen = self.seen();
        let last = seen.last(&event.thread);
        if event.id <= last {
            seen.wrong.push(format!("{} after {last} in {}", event.id, event.thread));
        }
        seen.events.push(event);
        seen.at.push(Instant::now());
    }
}
