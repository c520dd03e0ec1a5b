//! An edge's sessions without NATS and without sockets: clients speak over pipes in memory, what the rest of the edge
//! answers is said by the test, time is paused.

use std::{collections::BTreeMap, sync::Arc};

use natterjack_nats::ServerTime;
use natterjack_protocol::{
    Cid, Code, MsgId, Refusal, Thread, Times, Token, UserId,
    client::{
        frame::{Acknowledged, Page, Request, ServerFrame},
        send_queue::Queued,
        thread_settings::{SettingsChange, ThreadSettings},
    },
    codec::Codec,
    limits::ClientLimits,
    log::{
        Intervals,
        fold::{ThreadItem, UserThreads},
    },
};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{
    io::duplex,
    net::{TcpListener, TcpSocket},
    sync::{mpsc, oneshot},
};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};

use super::client::Client;
use crate::{
    address::Came,
    admission::{
        Admission,
        limits::{AdmissionLimits, Limits},
    },
    auth::{Actor, revoked::RevokedLogins},
    clock::Clock,
    live::{self, LiveInbox},
    members::{Members, UserState},
    pages::PageQuestion,
    presence::handle,
    sends::device::{DeviceQueues, PublishSends, Published, SendResult},
    session::{Counts, Services, backend::Backend, handshake::Handshake},
    sessions::{Sessions, handle::SessionHandle, socket::Socket},
    status::StatusWatch,
    threads::{ListQuery, ListedThreads},
    wire::Wire,
};

/// What a pipe holds in each direction before its writer waits.
pub const PIPE: usize = 1 << 20;

pub fn id(name: &str) -> Token {
    Token::parse(name).unwrap()
}

pub fn thread() -> Thread {
    Thread::dm(&id("a"), &id("b"))
}

pub fn cid(n: u8) -> Cid {
    Cid::mint(1, [n; 10])
}

/// Messages on their way into the log, by their requests, and what it says to the first of them; to all, if that is an
/// id.
pub type Publishing = (Vec<u32>, oneshot::Sender<SendResult>);

pub struct FakeLog(mpsc::Sender<Publishing>);

impl PublishSends for FakeLog {
    async fn send_all(&self, _: &Arc<UserState>, _: &Thread, sends: Vec<Queued>) -> Published {
        let (reply, result) = oneshot::channel();
        self.0.send((sends.iter().map(|q| q.send.r).collect(), reply)).await.unwrap();
        match result.await.unwrap() {
            Ok(first) => Published {
                results: (0..sends.len() as u64).map(|n| Ok(MsgId(first.0 + n))).collect(),
                rest: Vec::new(),
            },
            refused => Published { results: vec![refused], rest: sends.into_iter().skip(1).collect() },
        }
    }
}

/// A page that was asked for, from which id on it has to be.
pub type Asked = (MsgId, oneshot::Sender<Result<Page, Refusal>>);

pub struct FakeBackend {
    pages: mpsc::Sender<Asked>,
    /// What attach ends with.
    attach: Mutex<Result<bool, Refusal>>,
}

impl Backend for FakeBackend {
    type Publisher = FakeLog;

    /// A token is `user/device/family`.
    async fn verify(&self, token: &str) -> Result<Actor, Refusal> {
        match token.split('/').collect::<Vec<_>>()[..] {
            [user, device, family] => Ok(Actor { user: id(user), device: id(device), family: id(family) }),
            _ => Err(Refusal::new(Code::Unauthorized, "not a token")),
        }
    }

    async fn attach(
        &self,
        session: &Arc<SessionHandle>,
        _: BTreeMap<Thread, MsgId>,
        _: Option<String>,
    ) -> Result<bool, Refusal> {
        let result = self.attach.lock().clone();
        if result.is_ok() {
            session
                .state
                .merge(&thread(), ThreadItem { v: MsgId(1), intervals: Intervals::all(), ..ThreadItem::default() });
            session.state.load(UserThreads::default());
            session.frame(&ServerFrame::Attached { synced: "s0".into() });
        }
        result
    }

    async fn sync(&self, _: &Arc<SessionHandle>, _: BTreeMap<Thread, MsgId>) -> Result<(), Refusal> {
        Ok(())
    }

    fn synced(&self) -> Option<String> {
        Some("s1".into())
    }

    async fn page(&self, _: &UserId, _: Option<ThreadItem>, _: PageQuestion, min_id: MsgId) -> Result<Page, Refusal> {
        let (reply, page) = oneshot::channel();
        self.pages.send((min_id, reply)).await.unwrap();
        page.await.unwrap()
    }

    async fn threads(&self, _: &UserId, _: Vec<(Thread, ThreadItem)>, _: ListQuery) -> Result<ListedThreads, Refusal> {
        Ok(ListedThreads { threads: Vec::new(), next: None, synced: String::new() })
    }

    async fn set_thread(&self, _: &SessionHandle, _: &Thread, _: SettingsChange) -> Result<ThreadSettings, Refusal> {
        Ok(ThreadSettings::default())
    }

    async fn read_all(&self, _: &SessionHandle) -> Result<(), Refusal> {
        Ok(())
    }

    fn ack(&self, _: &SessionHandle, _: Acknowledged) -> Result<(), Refusal> {
        Ok(())
    }

    async fn ack_surely(&self, _: &SessionHandle, _: Acknowledged) -> Result<(), Refusal> {
        Ok(())
    }

    async fn typing(&self, _: &Arc<SessionHandle>, _: Thread) {}

    async fn watch(&self, session: &Arc<SessionHandle>, _: Option<Vec<UserId>>, r: Request) -> Result<(), Refusal> {
        session.frame(&ServerFrame::Presence { r: Some(r), users: Vec::new() });
        Ok(())
    }
}

pub struct Edge {
    pub services: Arc<Services<FakeBackend>>,
    pub sessions: Sessions,
    pub revoked: RevokedLogins,
    pub status: StatusWatch,
    pub times: Times,
    /// What arrives at the log.
    pub log: mpsc::Receiver<Publishing>,
    pub pages: mpsc::Receiver<Asked>,
    /// Nobody dispatches here; commands wait in it.
    _live: LiveInbox,
}

impl Edge {
    pub fn new() -> Self {
        let ((log, arriving), (pages, asked)) = (mpsc::channel(256), mpsc::channel(256));
        let (times, sessions, revoked, status) =
            (Times::default(), Sessions::default(), RevokedLogins::default(), StatusWatch::default());
        let (live, inbox) = live::channel();
        let devices = crate::devices::tests::alone(&sessions);
        let admission = Admission {
            revoked: revoked.clone(),
            sessions: sessions.clone(),
            members: Members::default(),
            live,
            presence: handle::channel().0,
            devices,
        };
        let services = Services {
            backend: FakeBackend { pages, attach: Mutex::new(Ok(true)) },
            devices: Arc::new(DeviceQueues::new(FakeLog(log), &TaskTracker::new(), &CancellationToken::new())),
            admission: Arc::new(admission),
            limiter: AdmissionLimits::new(Limits { sends_per_user: 0, ..Limits::default() }),
            clock: Clock::new(1, &times, ServerTime::fixed(1_900_000_000_000)),
            status: status.clone(),
            times: times.clone(),
            edge: id("e1"),
            limits: ClientLimits::default(),
            counts: Counts::default(),
        };
        status.change(|s| s.beats = true);
        Self {
            services: Arc::new(services),
            sessions,
            revoked,
            status,
            times,
            log: arriving,
            pages: asked,
            _live: inbox,
        }
    }

    pub fn attach_ends_with(&self, result: Result<bool, Refusal>) {
        *self.services.backend.attach.lock() = result;
    }

    /// A connection that has not said hello.
    pub fn connect(&self) -> Client {
        self.connect_over(PIPE)
    }

    /// Likewise; `pipe`: the bytes that it takes before its writer waits.
    pub fn connect_over(&self, pipe: usize) -> Client {
        let (ours, theirs) = duplex(pipe);
        self.connect_by(Either::Right(Either::Right(ours)), Either::Right(Either::Right(theirs)))
    }

    fn connect_by(&self, ours: Wire, theirs: Wire) -> Client {
        let services = self.services.clone();
        let session = tokio::spawn(async move {
            let socket = Socket::new(theirs, bytes::Bytes::new(), Codec::Msgpack);
            if let Some(session) = Handshake::new(services, socket, Came::default()).greeted().await {
                Box::new(session).run().await;
            }
        });
        Client::new(ours, session)
    }

    /// Greeted and attached: device `d` of this user, with a login of its name.
    pub async fn client(&self, user: &str) -> Client {
        self.client_over(user, PIPE).await
    }

    pub async fn client_over(&self, user: &str, pipe: usize) -> Client {
        Self::greeted(user, self.connect_over(pipe)).await
    }

    /// Over TCP, with a send buffer as small as the kernel makes it, which is full again and again. The receive buffer
    /// is larger: one of 2 KiB opens its window so seldom that the kernel waits for timers.
    pub async fn client_over_tcp(&self, user: &str) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpSocket::new_v4().unwrap();
        client.set_recv_buffer_size(64 << 10).unwrap();
        let (ours, accepted) = tokio::join!(client.connect(listener.local_addr().unwrap()), listener.accept());
        let theirs = accepted.unwrap().0;
        theirs.set_nodelay(true).unwrap();
        SockRef::from(&theirs).set_send_buffer_size(1).unwrap();
        Self::greeted(user, self.connect_by(Either::Left(ours.unwrap()), Either::Left(theirs))).await
    }

    async fn greeted(user: &str, mut client: Client) -> Client {
        client.hello(&format!("{user}/d/{user}")).await;
        assert!(
            matches!(client.next().await, Ok(ServerFrame::Welcome(w)) if w.user == id(user)),
            "the first is welcome"
        );
        assert_eq!(client.next().await, Ok(ServerFrame::Attached { synced: "s0".into() }));
        client
    }

    /// The only session there is.
    pub fn session(&self) -> Arc<SessionHandle> {
        self.sessions.all().pop().unwrap()
    }

    /// What arrives at the log next is decided so.
    pub async fn log(&mut self, result: SendResult) -> Vec<u32> {
        let (requests, reply) = self.log.recv().await.unwrap();
        reply.send(result).unwrap();
        requests
    }
}
