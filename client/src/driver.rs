//! The client's one task: carries out what `core` decides, with a socket, a file and a clock.
//!
//! connect → live → wait → connect. A draining edge is left make-before-break: the next connection stands before the
//! old one goes.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use natterjack_protocol::{
    Body, Code, Kind, MsgId, Refusal, Thread, Token, UserId,
    client::{
        close::{self, Back},
        frame::{ActivityReport, ClientFrame, DeviceClass, Displaced, Hello, TypingIn},
        http::EdgeUrls,
    },
    codec::Codec,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Auth, says_logged_out},
    backoff::{self, Backoff},
    clock::now,
    connection::{Connection, Lost, dial},
    core::{Core, Question, Signal},
    error::{RequestError, SendError},
    events::{ClientEvent, Item, Marks, SharedMarks},
    outbox::{Change, Handed, Local, Unsent, Waiter},
    store::Store,
    waking::{PROBE, SleepWatch, pause, unless_woken},
};

/// What may be lost in a crash without harm (cursors, rows that were sent) is stored this much later, together.
const FLUSH: Duration = Duration::from_millis(200);
/// Events that wait for a slow app before the socket is read no further.
const OUT: usize = 1_024;
/// Until the first look at the list of edges, and between two.
const EDGES_SOON: Duration = Duration::from_secs(2);
const EDGES_EVERY: Duration = Duration::from_secs(300);
/// Between two attempts to leave a draining edge; doubled so many times at most, for it is there for 20 s.
const LEAVE_AGAIN: Duration = Duration::from_millis(300);
const LEAVE_SLOWER: u32 = 4;
/// Until a socket that does not drain is looked at again.
const FULL_AGAIN: Duration = Duration::from_millis(50);

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

type Hellos = BTreeMap<Thread, MsgId>;
/// What a dial came to: the connection, or why there is none; the edge, what `hello` said, the token it used.
struct Dialled {
    result: Result<Connection, Lost>,
    edge: String,
    said: Hellos,
    access: String,
}

enum Next {
    Wait(Duration),
    /// Until the app takes over from this one.
    StayAway(Displaced),
    End(Box<ClientEvent>),
}

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

    /// The access token could not be renewed; a server that said when was asked for all edges.
    fn not_asked(&mut self, e: &RequestError) -> Next {
        let told = match e {
            RequestError::Refused(refusal) => refusal.retry_after_ms,
            _ => None,
        };
        match self.lost(Lost::Broken(e.to_string()), "", String::new(), Duration::ZERO) {
            Next::Wait(wait) => Next::Wait(told.map_or(wait, |ms| wait.max(backoff::told(ms, 0, rand::random())))),
            end => end,
        }
    }

    /// Whether, where and when to come back.
    fn lost(&mut self, lost: Lost, edge: &str, access: String, lived: Duration) -> Next {
        tracing::debug!(?lost, ?lived, edge, "connection lost");
        let (back, random) = (lost.back(), rand::random());
        self.refused_by(&lost, edge, access);
        let (edges, at) = self.auth.http().with_edges(|e| {
            e.next();
            (e.len(), e.choose(now()))
        });
        let wait =
            self.backoff.lost(back, lived, edges, random).map(|wait| wait.max(at.saturating_duration_since(now())));
        match (wait, lost) {
            (Some(wait), _) => Next::Wait(wait),
            (None, Lost::Displaced(by)) => Next::StayAway(by),
            (None, Lost::Closed { code, reason, .. }) => Next::End(Box::new(ClientEvent::Ended { code, reason })),
            (None, Lost::Refused(refusal)) => {
                Next::End(Box::new(ClientEvent::Ended { code: 0, reason: refusal.message }))
            }
            (None, Lost::Broken(reason)) => Next::End(Box::new(ClientEvent::Ended { code: 0, reason })),
            (None, Lost::NoUpgrade { status, .. }) => {
                Next::End(Box::new(ClientEvent::Ended { code: status, reason: String::new() }))
            }
        }
    }

    /// What an edge said about its next dial, and about the token.
    fn refused_by(&mut self, lost: &Lost, edge: &str, access: String) {
        if let Some(ms) = lost.told() {
            let until = now() + backoff::told(ms, 0, rand::random());
            self.auth.http().with_edges(|e| e.bar(edge, until));
        }
        if lost.back() == Back::AfterLogin {
            self.stale = Some(access);
        }
    }

    fn logged_out(&mut self, e: &RequestError) {
        let refusal = match e {
            RequestError::Refused(r) => r.clone(),
            other => Refusal::new(Code::Unauthorized, other.to_string()),
        };
        self.core.tell(ClientEvent::LoggedOut { refusal });
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

    /// A connection to the current edge, on its way; borrows nothing of the driver.
    fn dial(&mut self) -> impl Future<Output = Result<Dialled, RequestError>> + Send + use<> {
        let (auth, stale) = (self.auth.clone(), self.stale.clone());
        let (said, synced) = self.core.resume.hello();
        let DriverOptions { codec, class, heartbeat, .. } = self.options;
        let (name, app, session) = (self.options.name.clone(), self.options.app.clone(), self.session.clone());
        async move {
            let access = auth.access(stale.as_deref()).await?;
            let edge = auth.http().with_edges(|e| e.current().to_owned());
            let (token, device, cursors) = (access.clone(), auth.device.clone(), said.clone());
            let hello = Hello { token, device, class, name, app, session, cursors, synced };
            let result = dial(edge.clone(), auth.http().clone(), codec, hello, heartbeat).await;
            Ok(Dialled { result, edge, said, access })
        }
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

    /// One connection, and what replaces it when it drains; why it ended, and the token it used. None: closed by the
    /// app.
    async fn live(&mut self, connection: Connection, said: Hellos, access: String) -> Option<(Lost, String)> {
        let (mut connection, mut access) = (connection, access);
        let stop = self.stop.clone();
        self.welcomed(&connection, &said);
        let mut replacement: JoinSet<Result<Dialled, RequestError>> = JoinSet::new();
        let mut attempts = 0;
        loop {
            // What is due waits for room, too.
            let due = if self.pump(&connection).await { self.core.due() } else { Some(now() + FULL_AGAIN) };
            let due = due.into_iter().chain(self.flush_at).min();
            let can_read = self.core.out.len() < OUT;
            // Order: the end, then what makes room, then what fills it.
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    connection.close().await;
                    return None;
                }
                () = self.woken.notified() => self.probe(&connection),
                room = room(self.events.clone()), if !self.core.out.is_empty() => self.give(room),
                Some(next) = replacement.join_next() => match next {
                    Ok(Ok(Dialled { result: Ok(new), said, access: token, .. })) => {
                        let old = std::mem::replace(&mut connection, new);
                        self.aside.spawn(old.close());
                        (access, attempts) = (token, 0);
                        self.welcomed(&connection, &said);
                    }
                    // Until the old one closes; then the usual way back is taken.
                    failed => {
                        if let Ok(Ok(Dialled { result: Err(lost), edge, access, .. })) = failed {
                            self.refused_by(&lost, &edge, access);
                        }
                        self.auth.http().with_edges(crate::edges::Edges::next);
                        replacement.spawn(self.dial_later(LEAVE_AGAIN * (1 << attempts)));
                        attempts = LEAVE_SLOWER.min(attempts + 1);
                    }
                },
                frame = connection.incoming.recv(), if can_read => match frame {
                    Some(frame) => {
                        if let Some(Signal::Draining { edges }) = self.core.frame(frame, now(), rand::random())
                            && replacement.is_empty()
                        {
                            self.auth.http().with_edges(|e| e.leave_for(&edges, rand::random::<u32>() as usize));
                            replacement.spawn(self.dial_later(Duration::ZERO));
                        }
                    }
                    None => {
                        let lost = match connection.lost().await {
                            // By ourselves: its welcome is on the way.
                            Lost::Closed { code, .. } if code == close::REPLACED.code && !replacement.is_empty() => {
                                Lost::Broken("replaced by the next connection".into())
                            }
                            lost => lost,
                        };
                        return Some((lost, access));
                    }
                },
                Some(first) = self.commands.recv() => self.command(first, Some(&connection)).await,
                () = self.marks.changed.notified() => self.flush_soon(),
                () = until(due) => {
                    if self.flush_at.is_some_and(|t| t <= now()) {
                        self.flush().await;
                    }
                    // While something comes, or waits for the app, the pong may be behind it.
                    if self.core.probe.is_overdue(now()) && can_read && connection.silence() >= PROBE / 2 {
                        return Some((Lost::Broken("no answer to a ping".into()), access));
                    }
                }
            }
        }
    }

    /// Asks the edge whether it is there and what time it is; sends wait for that.
    fn probe(&mut self, connection: &Connection) {
        // What failed over another network, or before a sleep, says nothing about the next attempt.
        self.backoff = Backoff::default();
        self.core.probe.ask(connection.ping(), now());
    }

    /// Messages to hand over now; none if the device slept since the last look.
    fn hand(&mut self, connection: &Connection) -> Vec<Handed> {
        if self.sleep.has_slept() {
            self.probe(connection);
        }
        self.core.hand(now())
    }

    /// As `dial`, not before the chosen edge takes us.
    fn dial_later(&mut self, wait: Duration) -> impl Future<Output = Result<Dialled, RequestError>> + Send + use<> {
        let at = self.auth.http().with_edges(|e| e.choose(now())).max(now() + wait);
        let dial = self.dial();
        async move {
            tokio::time::sleep_until(at.into()).await;
            dial.await
        }
    }

    fn welcomed(&mut self, connection: &Connection, said: &Hellos) {
        self.core.connected(&connection.welcome, said, connection.edge.clone(), now());
        self.session = Some(connection.welcome.session.clone());
        self.auth.date_tokens();
        self.sleep = SleepWatch::start();
        while self.aside.try_join_next().is_some() {}
    }

    /// Hands over what may go: cids stored first, then the frames. False: the socket does not drain, everything waits
    /// where it is.
    async fn pump(&mut self, connection: &Connection) -> bool {
        let now = now();
        if connection.outgoing.capacity() < BURST {
            return false;
        }
        for frame in self.core.asks(now) {
            let _ = connection.outgoing.try_send(frame);
        }
        let handed = self.hand(connection);
        if handed.is_empty() {
            if self.core.outbox.has_changes() {
                self.flush_soon();
            }
        } else if self.store_changes(Marks::default()).await.is_ok() {
            for frame in self.core.send(&handed) {
                let _ = connection.outgoing.try_send(frame);
            }
        } else {
            for Handed { cid, .. } in handed {
                let later = Refusal::unavailable("the client's file cannot be written");
                self.core.outbox.refused(cid, later, now, rand::random());
            }
        }
        let waiting = self.core.outbox.waiting();
        self.waiting.send_if_modified(|n| std::mem::replace(n, waiting) != waiting);
        true
    }

    /// A command and whatever else has come meanwhile: messages written together are stored together.
    async fn command(&mut self, first: Command, connection: Option<&Connection>) {
        let mut added: Vec<(Local, oneshot::Sender<Result<Local, SendError>>)> = Vec::new();
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Send { stored, .. } if self.core.outbox.waiting() >= self.options.outbox_max => {
                    let _ = stored.send(Err(SendError::Full(self.options.outbox_max)));
                }
                Command::Send { thread, kind, body, stored, waiter } => {
                    added.push((self.core.outbox.add(thread, kind, *body, waiter), stored));
                }
                Command::Ask(question) => self.core.question(question),
                Command::Typing(thread) => {
                    if let Some(connection) = connection {
                        let _ = connection.outgoing.try_send(ClientFrame::Typing(TypingIn { thread }));
                    }
                }
                Command::Watch(users) => self.core.watch.is(users),
                Command::Report(active) => {
                    if let Some(connection) = connection {
                        let _ = connection.outgoing.try_send(ClientFrame::Report(ActivityReport { active }));
                    }
                }
                Command::Rows(answer) => {
                    let _ = answer.send(self.core.outbox.rows());
                }
                Command::Discard(local, answer) => {
                    let _ = answer.send(self.core.outbox.discard(local));
                    self.flush_soon();
                }
                Command::TakeOver(answer) => {
                    let displaced = self.displaced.take().is_some_and(|away| away.send(()).is_ok());
                    let _ = answer.send(displaced);
                }
            }
            next = if added.len() < 64 { self.commands.try_recv().ok() } else { None };
        }
        if added.is_empty() {
            return;
        }
        // With a connection the cids are minted now, so that row and cid are one write.
        let drains = connection.filter(|c| c.outgoing.capacity() >= BURST);
        let handed = drains.map(|c| self.hand(c)).unwrap_or_default();
        match self.store_changes(Marks::default()).await {
            Ok(()) => {
                // Before the answers: who has one must find the message counted.
                self.waiting.send_replace(self.core.outbox.waiting());
                for (local, stored) in added {
                    let _ = stored.send(Ok(local));
                }
                for frame in self.core.send(&handed) {
                    let Some(connection) = connection else { break };
                    let _ = connection.outgoing.try_send(frame);
                }
            }
            Err(why) => {
                let now = now();
                for Handed { cid, .. } in handed {
                    self.core.outbox.refused(
                        cid,
                        Refusal::unavailable("the client's file cannot be written"),
                        now,
                        rand::random(),
                    );
                }
                for (local, stored) in added {
                    self.core.outbox.forget(local);
                    let _ = stored.send(Err(SendError::Store(why.clone())));
                }
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

    fn flush_soon(&mut self) {
        if self.flush_at.is_none() && self.store.keeps() {
            self.flush_at = Some(now() + FLUSH);
        }
    }

    async fn flush(&mut self) {
        self.flush_at = None;
        let marks = self.marks.take();
        if self.store_changes(marks).await.is_err() {
            self.flush_soon();
        }
    }

    async fn store_changes(&mut self, marks: Marks) -> Result<(), crate::error::StoreError> {
        let changes: Vec<Change> = self.core.outbox.take_changes();
        if !self.store.keeps() || (changes.is_empty() && marks.is_empty()) {
            return Ok(());
        }
        self.store.apply(changes, marks).await.map_err(|(e, changes, marks)| {
            tracing::warn!(error = %e, "the client's file was not written");
            self.core.outbox.put_back(changes);
            self.marks.put_back(marks);
            e
        })
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

/// Soon after the start, then from time to time.
async fn learn_edges(auth: &Auth) {
    let mut wait = EDGES_SOON.mul_f64(rand::random());
    loop {
        tokio::time::sleep(wait).await;
        match auth.http().ask_any::<(), EdgeUrls>(reqwest::Method::GET, "/v1/edges", None, None).await {
            Ok((from, EdgeUrls { edges })) => {
                auth.http().with_edges(|e| e.learn(&from, &edges));
                wait = EDGES_EVERY.mul_f64(0.5 + rand::random::<f64>());
            }
            Err(e) => {
                tracing::debug!(error = %e, "the list of edges was not read");
                if let RequestError::Refused(Refusal { retry_after_ms: Some(ms), .. }) = e {
                    tokio::time::sleep(backoff::told(ms, 0, rand::random())).await;
                }
                wait = (wait * 2)
                    .clamp(EDGES_SOON.mul_f64(0.5), EDGES_EVERY.mul_f64(0.5))
                    .mul_f64(0.5 + rand::random::<f64>());
            }
        }
    }
}
