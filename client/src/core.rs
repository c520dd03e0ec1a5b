//! What the client decides: frames and commands in, frames and events out. No socket, no file, no timer: `driver` has
//! those.

mod asking;
mod question;

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

pub(crate) use self::question::Question;
pub use self::question::ThreadList;
use crate::{
    clock::ServerClock,
    error::RequestError,
    events::{ClientEvent, Item},
    known_threads::KnownThreads,
    outbox::{Handed, Outbox, Settled},
    read_state::ReadState,
    resume::{Out, Resume},
    waking::EdgeProbe,
    watch_wish::WatchWish,
};
use natterjack_protocol::{
    Cid, Code, Event, MsgId, Refusal, Thread, UserId,
    client::frame::{ClientFrame, Page, Request, SendMessage, ServerFrame, Welcome},
};

/// App requests that wait for a connection or an answer; beyond it `Busy`.
const APP_REQUESTS: usize = 32;

enum Pending {
    Watch,
    Send(Cid),
    Page(Thread),
    Sync,
    App(Question),
}

/// What `driver` has to do something about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Draining { edges: Vec<String> },
}

pub(crate) struct Core {
    me: UserId,
    pub outbox: Outbox,
    pub resume: Resume,
    pub read: ReadState,
    pub known: KnownThreads,
    clock: ServerClock,
    /// While it is open, sends wait.
    pub probe: EdgeProbe,
    /// Sends wait until the edge knows this session's threads.
    attached: bool,
    complete: bool,
    requests: HashMap<Request, Pending>,
    next_request: Request,
    questions: VecDeque<Question>,
    pub watch: WatchWish,
    /// The newest change of each thread's membership that the app was told of.
    memberships: HashMap<Thread, MsgId>,
    pub out: VecDeque<Item>,
}

impl Core {
    pub fn new(
        me: UserId,
        outbox: Outbox,
        resume: Resume,
        read: ReadState,
        known: KnownThreads,
        clock: ServerClock,
    ) -> Self {
        Self {
            me,
            outbox,
            resume,
            read,
            known,
            clock,
            probe: EdgeProbe::default(),
            attached: false,
            complete: false,
            requests: HashMap::new(),
            next_request: 1,
            questions: VecDeque::new(),
            watch: WatchWish::default(),
            memberships: HashMap::new(),
            out: VecDeque::new(),
        }
    }

    pub fn connected(
        &mut self,
        welcome: &Welcome,
        said: &std::collections::BTreeMap<Thread, MsgId>,
        edge: String,
        now: Instant,
    ) {
        self.disconnected();
        self.clock.learn(welcome.now, now);
        self.resume.connected(said);
        self.tell(ClientEvent::Connected { edge });
    }

    pub fn disconnected(&mut self) {
        (self.attached, self.complete, self.probe) = (false, false, EdgeProbe::default());
        self.outbox.disconnected();
        self.watch.disconnected();
        self.read.disconnected();
        let unanswered =
            self.requests.drain().filter_map(|(_, p)| if let Pending::App(q) = p { Some(q) } else { None });
        self.questions.extend(unanswered);
    }

    pub fn tell(&mut self, event: ClientEvent) {
        self.out.push_back(Item::App(Box::new(event)));
    }

    pub fn question(&mut self, question: Question) {
        let asked = self.requests.values().filter(|p| matches!(p, Pending::App(_))).count();
        if asked + self.questions.len() >= APP_REQUESTS {
            question.fail(RequestError::Busy);
        } else {
            self.questions.push_back(question);
        }
    }

    pub fn frame(&mut self, frame: ServerFrame, now: Instant, random: f64) -> Option<Signal> {
        match frame {
            ServerFrame::Event(event) => {
                self.own(&event);
                self.resume.live(*event, now);
            }
            ServerFrame::Sent { r, cid, id, .. } => {
                self.requests.remove(&r);
                self.settled(|o| o.sent(cid, id));
            }
            ServerFrame::Page(page) => self.page(page, now),
            ServerFrame::Attached { synced } => {
                self.attached = true;
                // Empty: the edge could not read everything, so this connection says nothing about being in sync.
                self.complete = !synced.is_empty();
                if self.complete {
                    self.resume.synced(synced, self.clock.now_ms(now).unwrap_or(0));
                } else {
                    self.resume.incomplete(now);
                }
                self.tell(ClientEvent::Attached);
            }
            ServerFrame::Pong { now: server, synced } => {
                if self.probe.pong() {
                    self.clock.learn(server, now);
                }
                if let Some(synced) = synced.filter(|s| self.complete && !s.is_empty()) {
                    self.resume.synced(synced, server);
                }
            }
            ServerFrame::Ok { r } => match self.requests.remove(&r) {
                Some(Pending::Sync) => self.resume.sync_done(),
                other => self.put_back(r, other),
            },
            ServerFrame::Threads { r, threads, next, synced } => match self.requests.remove(&r) {
                Some(Pending::App(Question::Threads(_, answer))) => {
                    threads.iter().filter_map(|t| t.last.as_ref()).for_each(|e| self.own(e));
                    for summary in &threads {
                        if let Some(read) = summary.read {
                            self.was_read(&summary.thread, read);
                        }
                    }
                    self.known.listed(&threads);
                    let _ = answer.send(Ok(ThreadList { threads, next, synced }));
                }
                other => self.put_back(r, other),
            },
            ServerFrame::Read { threads } => threads.iter().for_each(|(thread, id)| self.was_read(thread, *id)),
            ServerFrame::ThreadSettings { thread, settings, .. } => {
                self.known.set(&thread, &settings);
                self.tell(ClientEvent::Settings { thread, settings });
            }
            ServerFrame::Receipts { thread, receipts } => self.tell(ClientEvent::Receipts { thread, receipts }),
            ServerFrame::Error { r, refusal } => self.refused(r, refusal, now, random),
            ServerFrame::Typing { thread, user } => self.tell(ClientEvent::Typing { thread, user }),
            ServerFrame::Member { thread, id, open, role, intervals } => {
                // The same change may be told by a signal and again when a connection begins.
                let told = self.memberships.entry(thread.clone()).or_default();
                if id > *told {
                    *told = id;
                    self.known.member(&thread, open, role);
                    self.tell(ClientEvent::Member { thread, id, open, role, intervals });
                }
            }
            ServerFrame::Presence { r, users } => {
                if let Some(r) = r {
                    self.requests.remove(&r);
                }
                self.tell(ClientEvent::Presence { users });
            }
            ServerFrame::Contacts => {
                self.watch.contacts_changed();
                self.tell(ClientEvent::Contacts);
            }
            // The connection has ended with it.
            ServerFrame::Displaced(_) => {}
            ServerFrame::Degraded { on } => self.tell(ClientEvent::Degraded { on }),
            ServerFrame::Draining { edges, .. } => return Some(Signal::Draining { edges }),
            ServerFrame::Welcome(welcome) => self.clock.learn(welcome.now, now),
        }
        self.collect();
        None
    }

    fn was_read(&mut self, thread: &Thread, id: MsgId) {
        let newest = self.resume.newest_of(thread);
        if let Some(id) = self.read.stored(thread, id, newest) {
            self.known.was_read(thread, id);
            self.tell(ClientEvent::Read { thread: thread.clone(), id });
        }
    }

    /// An own event says what `sent` says, wherever it stands.
    fn own(&mut self, event: &Event) {
        if event.from == self.me {
            self.settled(|o| o.sent(event.cid, event.id));
        }
    }

    fn page(&mut self, page: Page, now: Instant) {
        page.events.iter().for_each(|e| self.own(e));
        match page.r.and_then(|r| self.requests.remove(&r).map(|p| (r, p))) {
            Some((_, Pending::Page(thread))) => self.resume.page(thread, page, now),
            Some((_, Pending::App(Question::History(_, answer)))) => {
                let _ = answer.send(Ok(page));
            }
            // Pages between `sync` and its `ok` may carry its number: they are the edge's own, like those after hello.
            Some((r, other)) => {
                self.put_back(r, Some(other));
                self.resume.newest(page, now);
            }
            None => self.resume.newest(page, now),
        }
    }

    fn put_back(&mut self, r: Request, pending: Option<Pending>) {
        if let Some(pending) = pending {
            self.requests.insert(r, pending);
        }
    }

    fn refused(&mut self, r: Option<Request>, refusal: Refusal, now: Instant, random: f64) {
        if let (Code::ClockAhead, Some(server), false) = (refusal.code, refusal.now_ms, self.probe.is_open()) {
            self.clock.learn(server, now);
        }
        match r.and_then(|r| self.requests.remove(&r)) {
            Some(Pending::Send(cid)) => self.settled(|o| o.refused(cid, refusal, now, random)),
            Some(Pending::Page(thread)) => self.resume.page_refused(thread, &refusal, now, random),
            Some(Pending::Sync) => self.resume.sync_refused(&refusal, now, random),
            Some(Pending::Watch) => self.watch.refused(&refusal, now),
            Some(Pending::App(question)) => question.fail(RequestError::Refused(refusal)),
            None => match refusal.cid {
                Some(cid) => self.settled(|o| o.refused(cid, refusal, now, random)),
                // Beside the pages after `hello`, `sync` or a joining: this one could not be read, and events will
                // follow it.
                None if r.is_none() && refusal.code == Code::Unavailable && refusal.thread.is_some() => {
                    self.resume.page_missing(&refusal, now, random);
                }
                // An `ack`: nothing of this thread is taken from this user any more.
                None if r.is_none() && refusal.code == Code::NotMember && refusal.thread.is_some() => {
                    refusal.thread.iter().for_each(|thread| self.read.refused(thread));
                }
                None => tracing::debug!(code = ?refusal.code, message = ?refusal.message, "the edge refused something"),
            },
        }
    }

    fn settled(&mut self, change: impl FnOnce(&mut Outbox) -> Option<Settled>) {
        match change(&mut self.outbox) {
            Some(Settled::Sent { local, thread, cid, id }) => self.tell(ClientEvent::Sent { local, thread, cid, id }),
            Some(Settled::Failed { local, thread, refusal }) => {
                self.tell(ClientEvent::Failed { local, thread, refusal })
            }
            None => {}
        }
    }

    fn collect(&mut self) {
        while let Some(out) = self.resume.next_out() {
            self.out.push_back(match out {
                Out::Event(event) => {
                    self.read.got(&event.thread, event.id);
                    self.known.event(&self.me, &event);
                    Item::App(Box::new(ClientEvent::Message(*event)))
                }
                Out::Skipped { thread, from, to } => Item::App(Box::new(ClientEvent::Skipped { thread, from, to })),
                Out::Synced(synced) => Item::Synced(synced),
            });
        }
    }

    /// Messages to hand over now. Their cids have to be stored before [`Core::send`] is asked for the frames.
    pub fn hand(&mut self, now: Instant) -> Vec<Handed> {
        match self.clock.now_ms(now) {
            Some(server_ms) if self.attached && !self.probe.is_open() => self.outbox.hand(now, server_ms, rand::random),
            _ => Vec::new(),
        }
    }

    pub fn send(&mut self, handed: &[Handed]) -> Vec<ClientFrame> {
        let mut frames = Vec::with_capacity(handed.len());
        for Handed { local, cid, behind } in handed.iter().copied() {
            let Some(row) = self.outbox.get(local) else { continue };
            let (thread, kind, body) = (row.thread.clone(), row.kind, row.body.clone());
            let r = self.request(Pending::Send(cid));
            frames.push(ClientFrame::Send(SendMessage { r, cid, thread, kind, body, behind }));
        }
        frames
    }

    fn request(&mut self, pending: Pending) -> Request {
        let r = self.next_request;
        self.next_request = self.next_request.wrapping_add(1).max(1);
        self.requests.insert(r, pending);
        r
    }

    pub fn due(&self) -> Option<Instant> {
        let outbox = self.attached.then(|| self.outbox.due()).flatten();
        let watch = self.watch.due().filter(|_| self.attached);
        let read = self.read.due().filter(|_| self.attached);
        outbox.into_iter().chain(self.resume.due()).chain(watch).chain(read).chain(self.probe.due()).min()
    }
}
