//! The client's one task: carries out what `core` decides, with a socket, a file and a clock.
//!
//! connect → live → wait → connect. A draining edge is left make-before-break: the next connection stands before the
//! old one goes.

mod dialling;
mod live;
mod storing;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use natterjack_protocol::{
    Body, Kind, MsgId, Thread, Token, UserId,
    client::{
        close,
        frame::{DeviceClass, ThreadSummary},
    },
    codec::Codec,
    limits,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::dialling::{Dialled, Next, learn_edges};
use crate::{
    auth::{Auth, says_logged_out},
    backoff::Backoff,
    clock::now,
    connection::Lost,
    core::{Core, Question},
    error::SendError,
    events::{ClientEvent, Item, SharedMarks},
    outbox::{Local, Unsent, Waiter},
    store::Store,
    waking::{SleepWatch, pause, unless_woken},
};

pub(crate) enum Command {
    Send {
        thread: Thread,
        kind: Kind,
        body: Box<Body>,
        stored: oneshot::Sender<Result<Local, SendError>>,
        waiter: Option<Waiter>,
    },
    Ask(Question),
    Typing(Thread),
    Read(Thread, MsgId),
    Known(oneshot::Sender<Vec<ThreadSummary>>),
    /// Up to when the list of threads was asked for.
    ListedUpTo(oneshot::Sender<Option<String>>),
    Listed(String),
    Watch(Option<Vec<UserId>>),
    Report(bool),
    Rows(oneshot::Sender<Vec<Unsent>>),
    Discard(Local, oneshot::Sender<bool>),
    /// Was it displaced?
    TakeOver(oneshot::Sender<bool>),
}

pub(crate) struct DriverOptions {
    pub codec: Codec,
    pub class: DeviceClass,
    pub name: Option<String>,
    pub app: Option<String>,
    pub heartbeat: Option<Duration>,
    pub outbox_max: usize,
}

pub(crate) struct Driver {
    pub core: Core,
    pub auth: Arc<Auth>,
    pub store: Store,
    pub options: DriverOptions,
    pub commands: mpsc::Receiver<Command>,
    /// None when the app dropped its stream: events go nowhere, sending goes on.
    pub events: Option<mpsc::Sender<Item>>,
    pub marks: Arc<SharedMarks>,
    pub waiting: watch::Sender<usize>,
    /// By the app: the device slept, or its network changed.
    pub woken: Arc<Notify>,
    pub sleep: SleepWatch,
    pub stop: CancellationToken,
    pub backoff: Backoff,
    pub flush_at: Option<Instant>,
    /// Farewells to old connections and look-ups of the list of edges.
    pub aside: JoinSet<()>,
    /// The last token that an edge refused.
    pub stale: Option<String>,
    /// The last one: who comes back for it by itself displaces nobody.
    pub session: Option<Token>,
    /// Another device is in; this ends it.
    pub displaced: Option<oneshot::Sender<()>>,
}

/// Frames that one pump can make: 16 sends, 8 pages, a sync, 32 questions of the app; and room for the messages of a
/// command.
const BURST: usize = 96;

pub(crate) const WINDOW_MAX: usize = 32;
/// The window in `pipeline` stays below what an edge answers at a time.
const _: () = assert!(WINDOW_MAX < limits::INFLIGHT_REQUESTS);

impl Driver {
    pub async fn run(mut self) {
        let auth = self.auth.clone();
        self.aside.spawn(async move { learn_edges(&auth).await });
        self.stay_connected().await;
        let stop = self.stop.clone();
        while !self.core.out.is_empty() {
            // Order: who closes does not wait for an app that reads no more.
            let room = tokio::select! {
                biased;
                room = room(self.events.clone()) => room,
                () = stop.cancelled() => break,
            };
            self.give(room);
        }
        self.flush().await;
        self.aside.shutdown().await;
        self.store.close().await;
    }

    /// Until closed, logged out or told never to come back.
    async fn stay_connected(&mut self) {
        let stop = self.stop.clone();
        loop {
            let dial = unless_woken(self.dial(), self.woken.clone());
            let dialled = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                d = self.serving(dial) => d,
            };
            let Some(dialled) = dialled else {
                self.auth.http().with_edges(crate::edges::Edges::next);
                continue;
            };
            let next = match dialled {
                Err(e) if says_logged_out(&e) => return self.logged_out(&e),
                Err(e) => self.not_asked(&e),
                Ok(Dialled { result: Err(lost), edge, access, .. }) => self.lost(lost, &edge, access, Duration::ZERO),
                Ok(Dialled { result: Ok(connection), edge, said, access }) => {
                    let since = now();
                    match self.live(connection, said, access).await {
                        None => return,
                        Some((lost, access)) => {
                            // A session outlives its token, but not its login.
                            if matches!(lost, Lost::Closed { code, .. } if code == close::UNAUTHORIZED.code) {
                                self.auth.login_was_ended();
                            }
                            self.lost(lost, &edge, access, now() - since)
                        }
                    }
                }
            };
            self.core.disconnected();
            match next {
                Next::End(event) => return self.core.tell(*event),
                Next::StayAway(by) => {
                    self.core.tell(ClientEvent::Displaced(by));
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        () = self.stay_away() => {}
                    }
                }
                Next::Wait(wait) => {
                    self.core.tell(ClientEvent::Reconnecting { wait });
                    let auth = self.auth.clone();
                    let pause = pause(wait, self.woken.clone(), move || auth.http().with_edges(|e| e.choose(now())));
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        () = self.serving(pause) => {}
                    }
                }
            }
        }
    }

    /// Until the app takes over, whatever the network does.
    async fn stay_away(&mut self) {
        let (take_over, mut taken) = oneshot::channel();
        self.displaced = Some(take_over);
        let woken = self.woken.clone();
        let away = async {
            loop {
                tokio::select! {
                    biased;
                    _ = &mut taken => return,
                    () = woken.notified() => {}
                }
            }
        };
        self.serving(away).await;
        (self.session, self.backoff) = (None, Backoff::default());
    }

    /// Serves the app while `work` goes on without a connection.
    async fn serving<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            let due = self.flush_at;
            // Order: what is being waited for, then the app. Nothing here is lost by being dropped half-way.
            tokio::select! {
                biased;
                done = &mut work => return done,
                Some(first) = self.commands.recv() => self.command(first, None).await,
                room = room(self.events.clone()), if !self.core.out.is_empty() => self.give(room),
                () = self.marks.changed.notified() => self.flush_soon(),
                () = until(due) => self.flush().await,
            }
        }
    }

    fn give(&mut self, room: Option<mpsc::OwnedPermit<Item>>) {
        match room {
            Some(permit) => {
                if let Some(item) = self.core.out.pop_front() {
                    permit.send(item);
                }
            }
            None => {
                self.events = None;
                self.core.out.clear();
            }
        }
    }
}

/// Room for one event; None when the app has dropped its stream, or there never was one.
async fn room(events: Option<mpsc::Sender<Item>>) -> Option<mpsc::OwnedPermit<Item>> {
    events?.reserve_owned().await.ok()
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
