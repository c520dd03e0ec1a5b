//! Step 2, the seam to the rest of the edge: what a session asks of others, so that its loop runs without NATS in
//! tests.

use std::{collections::BTreeMap, sync::Arc};

use natterjack_nats::{Nats, subjects};
use natterjack_protocol::{
    MsgId, Refusal, Thread, UserId,
    client::{
        frame::{Acknowledged, Page, Request},
        thread_settings::{SettingsChange, ThreadSettings},
    },
    internal::live::Ephemeral,
    log::fold::ThreadItem,
};

use crate::{
    attach::Attach,
    auth::{Actor, TokenVerifier},
    cursors::CursorKeeper,
    pages::{PageQuestion, Pages},
    presence::{Presence, choice::SeesTyping},
    sends::{device::PublishSends, send::Sends},
    sessions::handle::SessionHandle,
    threads::{ListQuery, ListedThreads, ThreadLists},
};

/// What each of these promises is said where [`EdgeBackend`] finds it.
pub trait Backend: Send + Sync + 'static {
    type Publisher: PublishSends;

    fn verify(&self, token: &str) -> impl Future<Output = Result<Actor, Refusal>> + Send;

    fn attach(
        &self,
        session: &Arc<SessionHandle>,
        cursors: BTreeMap<Thread, MsgId>,
        synced: Option<String>,
    ) -> impl Future<Output = Result<bool, Refusal>> + Send;

    fn sync(
        &self,
        session: &Arc<SessionHandle>,
        cursors: BTreeMap<Thread, MsgId>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    fn synced(&self) -> Option<String>;

    fn page(
        &self,
        reader: &UserId,
        known: Option<ThreadItem>,
        question: PageQuestion,
        min_id: MsgId,
    ) -> impl Future<Output = Result<Page, Refusal>> + Send;

    fn threads(
        &self,
        reader: &UserId,
        threads: Vec<(Thread, ThreadItem)>,
        query: ListQuery,
    ) -> impl Future<Output = Result<ListedThreads, Refusal>> + Send;

    /// Sets something for a thread of the user.
    fn set_thread(
        &self,
        session: &SessionHandle,
        thread: &Thread,
        change: SettingsChange,
    ) -> impl Future<Output = Result<ThreadSettings, Refusal>> + Send;

    /// All that has been written until now is read.
    fn read_all(&self, session: &SessionHandle) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Takes what the device says that it has got and its user has read. Refused may be a thread that this edge has not
    /// heard of yet.
    fn ack(&self, session: &SessionHandle, acked: Acknowledged) -> Result<(), Refusal>;

    /// The same, judged by the leader.
    fn ack_surely(
        &self,
        session: &SessionHandle,
        acked: Acknowledged,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Tells the others of the thread that this user types, if all of them may see it; may be lost.
    fn typing(&self, session: &Arc<SessionHandle>, thread: Thread) -> impl Future<Output = ()> + Send;

    /// The session watches these users, none: its contacts. Answered with a frame if it is taken.
    fn watch(
        &self,
        session: &Arc<SessionHandle>,
        users: Option<Vec<UserId>>,
        r: Request,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Of an edge that runs.
pub struct EdgeBackend {
    pub tokens: TokenVerifier,
    pub attach: Attach,
    pub pages: Pages,
    pub threads: ThreadLists,
    pub presence: Presence,
    pub cursors: CursorKeeper,
    pub nats: Nats,
}

impl Backend for EdgeBackend {
    type Publisher = Sends;

    async fn verify(&self, token: &str) -> Result<Actor, Refusal> {
        self.tokens.check(token).await
    }

    async fn attach(
        &self,
        session: &Arc<SessionHandle>,
        cursors: BTreeMap<Thread, MsgId>,
        synced: Option<String>,
    ) -> Result<bool, Refusal> {
        self.attach.attach(session, cursors, synced).await
    }

    async fn sync(&self, session: &Arc<SessionHandle>, cursors: BTreeMap<Thread, MsgId>) -> Result<(), Refusal> {
        self.attach.sync(session, cursors).await
    }

    fn synced(&self) -> Option<String> {
        self.attach.synced()
    }

    async fn page(
        &self,
        reader: &UserId,
        known: Option<ThreadItem>,
        question: PageQuestion,
        min_id: MsgId,
    ) -> Result<Page, Refusal> {
        self.pages.page(reader, known, question, min_id).await
    }

    async fn threads(
        &self,
        reader: &UserId,
        threads: Vec<(Thread, ThreadItem)>,
        query: ListQuery,
    ) -> Result<ListedThreads, Refusal> {
        self.threads.page(reader, threads, query).await
    }

    async fn set_thread(
        &self,
        session: &SessionHandle,
        thread: &Thread,
        change: SettingsChange,
    ) -> Result<ThreadSettings, Refusal> {
        let item = match session.state.item(thread) {
            // It may have begun a moment ago.
            None => self.threads.people.thread(&session.user, thread).await?,
            item => item,
        };
        self.threads.settings.set(&session.user, thread, item, change).await
    }

    async fn read_all(&self, session: &SessionHandle) -> Result<(), Refusal> {
        self.threads.read_all(&session.user, session.state.snapshot()).await.map(drop)
    }

    fn ack(&self, session: &SessionHandle, acked: Acknowledged) -> Result<(), Refusal> {
        self.cursors.ack(&session.state, &session.device, acked, None)
    }

    async fn ack_surely(&self, session: &SessionHandle, acked: Acknowledged) -> Result<(), Refusal> {
        let threads = self.attach.read_threads(&session.user).await?;
        self.cursors.ack(&session.state, &session.device, acked, Some(&threads))
    }

    async fn typing(&self, session: &Arc<SessionHandle>, thread: Thread) {
        let only = match self.presence.who_sees_typing(session, &thread).await {
            SeesTyping::Nobody => return,
            SeesTyping::Everybody => None,
            SeesTyping::Only(users) => Some(users),
        };
        let payload = Ephemeral::Typing { thread: thread.clone(), user: session.user.clone(), only }.encode();
        for subject in subjects::live_x_subjects_of(&thread) {
            if self.nats.publish(subject, payload.clone()).await.is_err() {
                break;
            }
        }
    }

    async fn watch(&self, session: &Arc<SessionHandle>, users: Option<Vec<UserId>>, r: Request) -> Result<(), Refusal> {
        self.presence.watch(session.clone(), users, r).await
    }
}
