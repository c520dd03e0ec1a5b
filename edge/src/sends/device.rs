//! Step 2: the messages of one device on this edge, whichever way they come: over its socket (`connection`) or as HTTP
//! requests (`http`).
//!
//! Both share one `SendQueue`, so there is one order: the one in which the edge took them. While messages of a thread
//! are under way, one task ([`drive`]) publishes them and hands each answer to whoever waits for it. What was taken is
//! published also when nobody waits for its answer any more, so nothing behind it has to be refused.

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context, Waker},
};

use natterjack_protocol::{
    Cid, Code, DeviceId, MsgId, Refusal, Thread, UserId,
    client::{
        frame::{Request, SendMessage},
        send_queue::{Queued, SendQueue, SendSource},
    },
    limits,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::{
    members::UserState,
    refusals::{EdgeError, refuse},
};

pub type SendResult = Result<MsgId, Refusal>;

/// What brings messages into the log: [`super::send::Sends`], or a test.
pub trait PublishSends: Send + Sync + 'static {
    /// The messages of one device to one thread, in this order: what became of the first of them, or of all. The others
    /// are given back, to go alone: each of them is to be answered as soon as it is decided.
    fn send_all(
        &self,
        state: &Arc<UserState>,
        thread: &Thread,
        sends: Vec<Queued>,
    ) -> impl Future<Output = Published> + Send;
}

/// Below this many devices nobody looks for those with nothing under way.
const SWEEP_FROM: usize = 256;

/// The devices that have sent something here. One without a session and without anything under way may be forgotten: a
/// message that names one before it is then refused once, and comes again (ADR 10).
pub struct DeviceQueues<P> {
    publisher: P,
    all: Mutex<HashMap<(UserId, DeviceId), Arc<DeviceQueue>>>,
    /// What is being published; it ends with `end`.
    tasks: TaskTracker,
    end: CancellationToken,
}

impl<P> DeviceQueues<P> {
    pub fn new(publisher: P, tasks: &TaskTracker, end: &CancellationToken) -> Self {
        Self { publisher, all: Mutex::default(), tasks: tasks.clone(), end: end.clone() }
    }

    pub fn of(&self, user: &UserId, device: &DeviceId) -> Arc<DeviceQueue> {
        let mut all = self.all.lock();
        if all.len() >= SWEEP_FROM && all.len() == all.capacity() {
            // Its session holds it, and so does its task while anything is under way.
            all.retain(|_, queue| Arc::strong_count(queue) > 1);
        }
        all.entry((user.clone(), device.clone())).or_default().clone()
    }
}

impl<P: PublishSends> DeviceQueues<P> {
    /// Publishes `first`, whose turn it is, and what comes behind it in its thread, in a task of its own.
    pub fn start(self: &Arc<Self>, device: &Arc<DeviceQueue>, state: &Arc<UserState>, first: Queued) {
        let (queues, state) = (self.clone(), state.clone());
        let driving = drive(device.clone(), first, move |thread, batch| {
            let (queues, state) = (queues.clone(), state.clone());
            async move { queues.publisher.send_all(&state, &thread, batch).await }
        });
        self.tasks.spawn(self.end.clone().run_until_cancelled_owned(driving).in_current_span());
    }
}

#[derive(Default)]
pub struct DeviceQueue(Mutex<State>);

#[derive(Default)]
struct State {
    queue: SendQueue,
    /// The last number that a source got.
    sources: u64,
    /// The device's newest connection; those before it are told to close.
    connection: Option<ConnectionEnd>,
    /// HTTP requests that wait for their answer.
    requests: HashMap<u64, oneshot::Sender<SendResult>>,
}

struct ConnectionEnd {
    number: u64,
    /// Not taken yet: at most as many as the session has requests in flight.
    answers: Vec<SendAnswer>,
    waker: Option<Waker>,
}

/// What became of one message of a connection.
pub struct SendAnswer {
    pub r: Request,
    pub cid: Cid,
    pub thread: Thread,
    pub result: SendResult,
}

/// What publishing some messages came to: of the first of them, or of all. `rest` goes alone, one after the other.
pub struct Published {
    pub results: Vec<SendResult>,
    pub rest: Vec<Queued>,
}

impl State {
    fn answer(&mut self, (source, r, cid): (SendSource, Request, Cid), thread: &Thread, result: SendResult) {
        match (source, &mut self.connection) {
            (SendSource::Connection(number), Some(end)) if end.number == number => {
                end.answers.push(SendAnswer { r, cid, thread: thread.clone(), result });
            }
            // Nobody hears it: the message comes again over another connection.
            (SendSource::Connection(_), _) => {}
            (SendSource::Request(number), _) => {
                if let Some(reply) = self.requests.remove(&number) {
                    let _ = reply.send(result);
                }
            }
        }
    }

    fn is_current(&self, number: u64) -> bool {
        self.connection.as_ref().is_some_and(|c| c.number == number)
    }

    /// The session that has to look: at answers, or at what it had received by a refusal.
    fn take_waker(&mut self) -> Option<Waker> {
        let closed = self.queue.is_closed();
        self.connection.as_mut().filter(|c| closed || !c.answers.is_empty()).and_then(|c| c.waker.take())
    }
}

impl DeviceQueue {
    /// A new connection of the device; from here on it is the only one that may send.
    pub fn connect(&self) -> u64 {
        let mut state = self.0.lock();
        state.sources += 1;
        // Whatever was refused before, it had sent nothing by then.
        state.queue.received_all();
        let number = state.sources;
        state.connection = Some(ConnectionEnd { number, answers: Vec::new(), waker: None });
        number
    }

    pub fn disconnect(&self, number: u64) {
        let mut state = self.0.lock();
        state.connection.take_if(|c| c.number == number);
    }

    /// A message of a connection. Returned if nothing of its thread is under way: [`drive`] it.
    pub fn push(&self, number: u64, send: SendMessage) -> Result<Option<Queued>, Refusal> {
        let mut state = self.0.lock();
        if !state.is_current(number) {
            return Err(Refusal::unavailable("this device has a newer connection").with_cid(send.cid));
        }
        state.queue.push(send, SendSource::Connection(number))
    }

    /// A message over HTTP, and where its answer comes. `allowed`: whether its sender may send now.
    pub fn request(
        &self,
        send: SendMessage,
        allowed: Result<(), Refusal>,
    ) -> Result<(Option<Queued>, oneshot::Receiver<SendResult>), Refusal> {
        let mut state = self.0.lock();
        let room = if state.requests.len() < limits::INFLIGHT_REQUESTS { Ok(()) } else { Err(full()) };
        if let Err(why) = allowed.and(room) {
            metrics::counter!(crate::metrics::HTTP_SENDS_REFUSED).increment(1);
            state.queue.refused(&send, &why);
            let waker = state.take_waker();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
            return Err(why);
        }
        state.sources += 1;
        let number = state.sources;
        let first = state.queue.push(send, SendSource::Request(number))?;
        let (reply, answer) = oneshot::channel();
        state.requests.insert(number, reply);
        Ok((first, answer))
    }

    /// A message of a connection was refused before it could be taken.
    pub fn refused(&self, send: &SendMessage, why: &Refusal) {
        self.0.lock().queue.refused(send, why);
    }

    /// The connection has read all that had come by now.
    pub fn received_all(&self, number: u64) {
        let mut state = self.0.lock();
        if state.is_current(number) {
            state.queue.received_all();
        }
    }

    /// Something was refused, and the connection has not read all that had come by then.
    pub fn is_closed(&self, number: u64) -> bool {
        let state = self.0.lock();
        state.is_current(number) && state.queue.is_closed()
    }

    /// The answers for this connection since it last asked; its task is woken when there are more.
    pub fn answers(&self, number: u64, cx: &Context<'_>) -> Vec<SendAnswer> {
        let mut state = self.0.lock();
        let Some(end) = state.connection.as_mut().filter(|c| c.number == number) else { return Vec::new() };
        if end.waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            end.waker = Some(cx.waker().clone());
        }
        std::mem::take(&mut end.answers)
    }

    /// What goes with `first`.
    fn begin(self: &Arc<Self>, first: Queued) -> (UnderWay, Vec<Queued>) {
        let behind = self.0.lock().queue.going_with(&first);
        let thread = first.send.thread.clone();
        let batch: Vec<Queued> = std::iter::once(first).chain(behind).collect();
        let names = batch.iter().map(|q| (q.source, q.send.r, q.send.cid)).collect();
        (UnderWay { device: self.clone(), thread, names }, batch)
    }

    /// Answers, and gives what comes next in the thread.
    fn decided(&self, thread: &Thread, names: Vec<(SendSource, Request, Cid)>, published: Published) -> Option<Queued> {
        let mut state = self.0.lock();
        let mut refused = None;
        for (name, result) in names.into_iter().zip(published.results) {
            if let Err(why) = &result {
                refused = Some((name.2, why.clone()));
            }
            state.answer(name, thread, result);
        }
        let decided = state.queue.decided(thread, refused.as_ref().map(|(cid, why)| (*cid, why)), published.rest);
        for (why, queued) in decided.refused {
            state.answer((queued.source, queued.send.r, queued.send.cid), thread, Err(why));
        }
        let waker = state.take_waker();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        decided.next
    }
}

/// Messages that are being published. Their outcome is open if this is dropped before [`UnderWay::decided`].
struct UnderWay {
    device: Arc<DeviceQueue>,
    thread: Thread,
    names: Vec<(SendSource, Request, Cid)>,
}

impl UnderWay {
    fn decided(mut self, published: Published) -> Option<Queued> {
        let names = std::mem::take(&mut self.names);
        self.device.decided(&self.thread, names, published)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let names = std::mem::take(&mut self.names);
        if !names.is_empty() {
            let open = |(.., cid): &(SendSource, Request, Cid)| Err(refuse(EdgeError::OutcomeOpen).with_cid(*cid));
            let results = names.iter().map(open).collect();
            // Refused for now, so everything that waits behind is refused, too, and nothing comes next.
            self.device.decided(&self.thread, names, Published { results, rest: Vec::new() });
        }
    }
}

/// Publishes `first` and everything of its thread that comes while something of it is under way. When it is dropped,
/// those who wait are told that the outcome is open.
pub async fn drive<F>(device: Arc<DeviceQueue>, first: Queued, publish: impl Fn(Thread, Vec<Queued>) -> F)
where
    F: Future<Output = Published>,
{
    let mut next = Some(first);
    while let Some(first) = next {
        let (under_way, batch) = device.begin(first);
        let published = publish(under_way.thread.clone(), batch).await;
        next = under_way.decided(published);
    }
}

fn full() -> Refusal {
    let why =
        Refusal::new(Code::RateLimited, format!("{} messages of this device wait already", limits::INFLIGHT_REQUESTS));
    Refusal { retry_after_ms: Some(1_000), ..why }
}

#[cfg(test)]
mod tests;
