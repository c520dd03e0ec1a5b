//! The handle an app holds: cheap to clone, every method may be called from anywhere.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use natterjack_protocol::{
    Body, Cid, DeviceId, Event, Kind, MsgId, Thread, UserId,
    client::frame::{HistoryQuery, Page, ThreadSummary, ThreadsQuery},
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

use crate::{
    auth::Auth,
    core::{Question, ThreadList},
    driver::Command,
    error::{RequestError, SendError, StoreError},
    outbox::{Local, Unsent},
    store::Store,
};

/// An answer over the socket, a reconnect on the way included.
const ANSWER: Duration = Duration::from_secs(15);

/// Where a history page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Newest,
    Before(MsgId),
    After(MsgId),
    Around(MsgId),
    /// Milliseconds since 1970.
    Time(u64),
}

pub(crate) struct Inner {
    pub auth: Arc<Auth>,
    pub command: mpsc::Sender<Command>,
    pub pending: watch::Receiver<usize>,
    pub woken: Arc<Notify>,
    pub store: Store,
    pub stop: CancellationToken,
    /// The driver ends when the last handle goes.
    pub _last: DropGuard,
    pub task: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

impl Client {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    pub fn user(&self) -> &UserId {
        &self.inner.auth.user
    }

    pub fn name(&self) -> &str {
        &self.inner.auth.name
    }

    pub fn device(&self) -> &DeviceId {
        &self.inner.auth.device
    }

    pub fn dm(&self, other: &UserId) -> Thread {
        Thread::dm(self.user(), other)
    }

    pub(crate) fn auth(&self) -> &Auth {
        &self.inner.auth
    }

    /// Puts a message into the outbox and returns when it is stored there; `Sent` or `Failed` follows as an event.
    /// Works without a connection. Dropped half-way, the message may or may not be in the outbox.
    pub async fn send(&self, thread: Thread, kind: Kind, body: Body) -> Result<Local, SendError> {
        self.put(thread, kind, body, None).await
    }

    pub async fn send_text(&self, thread: Thread, text: impl Into<String>) -> Result<Local, SendError> {
        self.send(thread, Kind::Text, Body::text(text)).await
    }

    /// [`Client::send`], and waits for the log's id, however long that takes.
    pub async fn send_and_wait(&self, thread: Thread, kind: Kind, body: Body) -> Result<(Cid, MsgId), SendError> {
        let (waiter, done) = oneshot::channel();
        self.put(thread, kind, body, Some(waiter)).await?;
        done.await.map_err(|_| SendError::Closed)?.map_err(SendError::Refused)
    }

    async fn put(
        &self,
        thread: Thread,
        kind: Kind,
        body: Body,
        waiter: Option<crate::outbox::Waiter>,
    ) -> Result<Local, SendError> {
        body.check(kind).map_err(SendError::Invalid)?;
        let (stored, local) = oneshot::channel();
        let command = Command::Send { thread, kind, body: Box::new(body), stored, waiter };
        self.inner.command.send(command).await.map_err(|_| SendError::Closed)?;
        local.await.map_err(|_| SendError::Closed)?
    }

    /// The user has read this thread up to here, which is so on all their devices: each of them, this one too, hears
    /// [`ClientEvent::Read`](crate::ClientEvent::Read) when the server has it. Said again until then; with a file store
    /// also by the next run.
    pub async fn read(&self, thread: Thread, id: MsgId) -> Result<(), RequestError> {
        self.inner.command.send(Command::Read(thread, id)).await.map_err(|_| RequestError::Closed)
    }

    /// Tells the others; lost without harm when there is no connection. Say it every few seconds while somebody types.
    pub fn typing(&self, thread: Thread) {
        let _ = self.inner.command.try_send(Command::Typing(thread));
    }

    /// From here on [`ClientEvent::Presence`] says how these users are shown, at most 500; none: the contacts. Holds
    /// through every connection, until it is called again.
    pub async fn watch(&self, users: Option<Vec<UserId>>) -> Result<(), RequestError> {
        self.inner.command.send(Command::Watch(users)).await.map_err(|_| RequestError::Closed)
    }

    /// Somebody is in front of this device, or is not any more: for notifications, and shown to nobody. Repeat it at
    /// least every 60 s while it is so.
    pub fn report(&self, active: bool) {
        let _ = self.inner.command.try_send(Command::Report(active));
    }

    /// A page of a thread, also of what this device has seen long ago. Does not move any cursor.
    pub async fn history(&self, thread: Thread, at: At, limit: u16) -> Result<Page, RequestError> {
        let mut history = HistoryQuery { thread: Some(thread), limit: Some(limit), ..HistoryQuery::default() };
        match at {
            At::Newest => {}
            At::Before(id) => history.before = Some(id),
            At::After(id) => history.after = Some(id),
            At::Around(id) => history.around = Some(id),
            At::Time(ms) => history.at = Some(ms),
        }
        self.ask(|answer| Question::History(history, answer)).await
    }

    /// This user's threads but those in the archive: pinned ones first, then by what happened last. `before`: the
    /// `next` of the last list.
    pub async fn threads(&self, limit: u16, before: Option<MsgId>) -> Result<ThreadList, RequestError> {
        self.list(ThreadsQuery { limit: Some(limit), before, ..ThreadsQuery::default() }).await
    }

    /// Likewise, those in the archive.
    pub async fn archived_threads(&self, limit: u16, before: Option<MsgId>) -> Result<ThreadList, RequestError> {
        self.list(ThreadsQuery { limit: Some(limit), before, archived: true, ..ThreadsQuery::default() }).await
    }

    /// The threads as this device knows them, with what has come since it asked, those in the archive too. At once,
    /// also without a connection; with a file store, as an earlier run left them.
    pub async fn known_threads(&self) -> Result<Vec<ThreadSummary>, RequestError> {
        let (answer, known) = oneshot::channel();
        self.inner.command.send(Command::Known(answer)).await.map_err(|_| RequestError::Closed)?;
        known.await.map_err(|_| RequestError::Closed)
    }

    /// Asks for what has changed in the list since it was asked for last: [`Client::known_threads`] has it afterwards,
    /// and the first hundred, pinned ones and those that were active last, as soon as they come.
    pub async fn sync_threads(&self) -> Result<(), RequestError> {
        let (answer, since) = oneshot::channel();
        self.inner.command.send(Command::ListedUpTo(answer)).await.map_err(|_| RequestError::Closed)?;
        // Nothing is known yet: an empty one is of no installation, and means everything.
        let since = Some(since.await.map_err(|_| RequestError::Closed)?.unwrap_or_default());
        let (mut before, mut synced) = (None, None);
        loop {
            let query = ThreadsQuery { limit: Some(100), before, since: since.clone(), ..ThreadsQuery::default() };
            let page = self.list(query).await?;
            synced = synced.or(Some(page.synced));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        let Some(synced) = synced else { return Ok(()) };
        self.inner.command.send(Command::Listed(synced)).await.map_err(|_| RequestError::Closed)
    }

    async fn list(&self, query: ThreadsQuery) -> Result<ThreadList, RequestError> {
        self.ask(|answer| Question::Threads(query, answer)).await
    }

    /// The last messages and changes of a thread that came to this device, at most 100, oldest first: for a screen that
    /// has something to show before there is a connection. Only with a file store; there may be gaps between them,
    /// which [`Client::history`] fills.
    pub async fn known_messages(&self, thread: &Thread) -> Result<Vec<Event>, StoreError> {
        self.inner.store.messages(thread.clone()).await
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, RequestError>>) -> Question,
    ) -> Result<T, RequestError> {
        let (answer, answered) = oneshot::channel();
        self.inner.command.send(Command::Ask(question(answer))).await.map_err(|_| RequestError::Closed)?;
        match tokio::time::timeout(ANSWER, answered).await {
            Err(_) => Err(RequestError::Timeout(ANSWER)),
            Ok(answer) => answer.map_err(|_| RequestError::Closed)?,
        }
    }

    /// What the log has not confirmed, the failed ones too, in order of writing.
    pub async fn outbox(&self) -> Result<Vec<Unsent>, RequestError> {
        let (answer, rows) = oneshot::channel();
        self.inner.command.send(Command::Rows(answer)).await.map_err(|_| RequestError::Closed)?;
        rows.await.map_err(|_| RequestError::Closed)
    }

    /// Forgets a message that failed or waits. False: there is none, or its answer is on the way. Of one that is
    /// `unsure` it is not known whether it was sent.
    pub async fn discard(&self, local: Local) -> Result<bool, RequestError> {
        let (answer, done) = oneshot::channel();
        self.inner.command.send(Command::Discard(local, answer)).await.map_err(|_| RequestError::Closed)?;
        done.await.map_err(|_| RequestError::Closed)
    }

    /// Messages that wait to be sent or confirmed; failed ones do not count.
    pub fn unsent(&self) -> usize {
        *self.inner.pending.borrow()
    }

    /// Waits until all that was written is with the log (or has failed); otherwise says how many are not.
    pub async fn flushed(&self, deadline: Duration) -> Result<(), usize> {
        let mut pending = self.inner.pending.clone();
        match tokio::time::timeout(deadline, pending.wait_for(|n| *n == 0)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.unsent()),
        }
    }

    /// The device has slept, or the app comes to the foreground again. The edge is asked at once whether it is there;
    /// if it does not answer within a second, the client connects anew. What is sent waits for the answer, because the
    /// server's time is not known before.
    pub fn wake(&self) {
        self.inner.woken.notify_one();
    }

    /// The network is another one (Wi-Fi, mobile, none and back). Does what [`Client::wake`] does; a client that waits
    /// before it connects again waits no longer.
    pub fn network_changed(&self) {
        self.wake();
    }

    /// After [`Displaced`](crate::ClientEvent::Displaced), when the user wants to use this device again: connects, and
    /// whoever is in has to leave, as far as the installation lets one in. False: this device was not displaced.
    pub async fn take_over(&self) -> Result<bool, RequestError> {
        let (answer, done) = oneshot::channel();
        self.inner.command.send(Command::TakeOver(answer)).await.map_err(|_| RequestError::Closed)?;
        done.await.map_err(|_| RequestError::Closed)
    }

    /// Ends this login on the server and forgets its tokens; then the client is closed.
    pub async fn log_out(&self) -> Result<(), RequestError> {
        self.inner.auth.log_out().await?;
        self.close().await;
        Ok(())
    }

    /// Says goodbye to the edge and writes the last of the store. Unsent messages stay in a file store for the next
    /// time. Drop [`crate::Events`] (or call its `seen`) first, so that the last event read counts as seen.
    pub async fn close(&self) {
        let task = self.inner.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            self.inner.stop.cancel();
            let _ = task.await;
        }
    }
}
