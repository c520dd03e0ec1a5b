//! A client of its own, from docs/protocol.md alone: it mints cids, resends unknown outcomes through any edge, resumes
//! with cursors, and breaks its socket now and then. What it is shown, and every event frame, is recorded.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use natterjack_protocol::{
    Body, Cid, Code, Event, Kind, MsgId, Retry, Thread,
    client::frame::{ClientFrame, Hello, HistoryQuery, Page, SendMessage, ServerFrame},
    codec::Codec,
};
use natterjack_testkit::now_ms;
use natterjack_tests::kit::{RawWs, Received, User};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    record::{Attempt, Recorder},
    rules::Rng,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Write,
    /// Writes nothing new, goes on until all has an answer; reads on.
    Settle,
    Stop,
}

const TICK: Duration = Duration::from_millis(20);
const CONNECT: Duration = Duration::from_secs(3);
const ATTACH: Duration = Duration::from_secs(7);
const PING: Duration = Duration::from_secs(1);
/// Without a frame for so long the edge is taken for dead.
const SILENCE: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_millis(500);
/// Percent per tick: a message every 150 ms or so.
const WRITES: u64 = 13;
/// In a thousand ticks: breaks its socket every ten seconds or so.
const CHOPS: u64 = 2;

struct Pending {
    cid: Option<Cid>,
    text: String,
    /// Its request has no answer on this connection.
    out: bool,
    handed: u32,
}

#[derive(Default)]
struct Line {
    cursor: MsgId,
    /// Everything above the cursor is being fetched; live events wait.
    catching: bool,
    /// The hole was seen below a live event of an undisturbed session: the edge should have filled it.
    suspect: bool,
    held: Vec<Event>,
    asked: bool,
    ask_at: Option<Instant>,
    pending: VecDeque<Pending>,
    retry_at: Option<Instant>,
}

enum Request {
    Send(Thread, Cid),
    History(Thread),
}

pub struct Raw {
    pub name: String,
    pub user: User,
    pub edges: Vec<SocketAddr>,
    pub codec: Codec,
    pub record: Recorder,
    pub reader: usize,
    pub rng: Rng,
    pub phase: watch::Receiver<Phase>,
    /// Messages without an answer.
    pub waiting: watch::Sender<usize>,
    lines: BTreeMap<Thread, Line>,
    synced: Option<String>,
    requests: HashMap<u32, Request>,
    session: u32,
    written: u64,
    ahead: i64,
}

impl Raw {
    #[expect(clippy::too_many_arguments, reason = "each is a different thing that the run decides")]
    pub fn new(
        name: String,
        user: User,
        edges: Vec<SocketAddr>,
        threads: Vec<Thread>,
        codec: Codec,
        record: Recorder,
        rng: Rng,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let reader = record.reader(&name, user.id().as_str());
        Self {
            name,
            user,
            edges,
            codec,
            record,
            reader,
            rng,
            phase,
            waiting: watch::Sender::new(0),
            lines: threads.into_iter().map(|t| (t, Line::default())).collect(),
            synced: None,
            requests: HashMap::new(),
            session: 0,
            written: 0,
            ahead: 0,
        }
    }

    pub async fn run(mut self) {
        let mut edge = self.rng.index(self.edges.len());
        while *self.phase.borrow() != Phase::Stop {
            self.session(self.edges[edge]).await;
            for text in self.lines.values_mut().flat_map(|l| &mut l.pending) {
                if std::mem::take(&mut text.out) {
                    self.record.with_attempt(&text.text, |a| a.unsure = true);
                }
            }
            self.requests.clear();
            // Between two tries, from the seed.
            sleep(Duration::from_millis(self.rng.range(20, 400))).await;
            // Mostly elsewhere, now and then the same again.
            if self.rng.chance(80) {
                edge = (edge + 1) % self.edges.len();
            }
        }
    }

    async fn session(&mut self, edge: SocketAddr) {
        let Ok(Ok(mut ws)) = timeout(CONNECT, RawWs::try_connect(edge, self.codec.subprotocol())).await else { return };
        self.session += 1;
        self.record.lock().numbers.sessions += 1;
        for line in self.lines.values_mut() {
            (line.catching, line.asked, line.ask_at, line.retry_at, line.suspect) = (false, false, None, None, false);
            line.held.clear();
        }
        let hello = Hello {
            cursors: self
                .lines
                .iter()
                .filter(|(_, l)| !l.cursor.is_none())
                .map(|(t, l)| (t.clone(), l.cursor))
                .collect(),
            synced: self.synced.clone(),
            ..Hello::new(self.user.tokens.access.clone(), self.user.tokens.device.clone())
        };
        if !self.say(&mut ws, &ClientFrame::Hello(hello)).await {
            return;
        }
        let attached = async {
            loop {
                match ws.next().await {
                    Received::Frame(ServerFrame::Attached { synced }) => {
                        self.adopt(synced);
                        return true;
                    }
                    Received::Frame(frame) => {
                        if !self.take(frame) {
                            return false;
                        }
                    }
                    Received::Unknown => {}
                    Received::Closed(..) => return false,
                }
            }
        };
        if !timeout(ATTACH, attached).await.unwrap_or(false) {
            return;
        }
        let (mut heard, mut pinged) = (Instant::now(), Instant::now());
        loop {
            match timeout(TICK, ws.next()).await {
                Ok(Received::Frame(frame)) => {
                    heard = Instant::now();
                    if !self.take(frame) {
                        return;
                    }
                }
                Ok(Received::Unknown) => heard = Instant::now(),
                Ok(Received::Closed(..)) => return,
                Err(_) => {}
            }
            let phase = *self.phase.borrow();
            if phase == Phase::Stop || heard.elapsed() > SILENCE {
                return;
            }
            if phase == Phase::Write && self.rng.range(0, 1_000) < CHOPS {
                return;
            }
            if pinged.elapsed() > PING {
                pinged = Instant::now();
                if !self.say(&mut ws, &ClientFrame::Ping).await {
                    return;
                }
            }
            if phase == Phase::Write && self.rng.chance(WRITES) {
                self.write();
            }
            for frame in self.frames() {
                if !self.say(&mut ws, &frame).await {
                    return;
                }
            }
            self.waiting.send_replace(self.lines.values().map(|l| l.pending.len()).sum());
        }
    }

    /// A frozen edge stops reading: a full socket is a dead one.
    async fn say(&self, ws: &mut RawWs, frame: &ClientFrame) -> bool {
        matches!(timeout(CONNECT, ws.try_send_bytes(&frame.encode(self.codec))).await, Ok(Ok(())))
    }

    fn write(&mut self) {
        let at = self.rng.index(self.lines.len());
        let (thread, line) = self.lines.iter_mut().nth(at).expect("an index below the length");
        self.written += 1;
        let text = format!("{}-{} {:x}", self.name, self.written, self.rng.next());
        self.record.attempt(Attempt {
            writer: self.name.clone(),
            user: self.user.id().to_string(),
            thread: thread.to_string(),
            n: self.written,
            text: text.clone(),
            cid: None,
            at: self.record.now(),
            acks: Vec::new(),
            refused: false,
            unsure: false,
        });
        line.pending.push_back(Pending { cid: None, text, out: false, handed: 0 });
    }

    /// What there is to ask and to send now: in each thread in the order of writing, none before an older one that must
    /// be repeated.
    fn frames(&mut self) -> Vec<ClientFrame> {
        let (mut frames, now) = (Vec::new(), Instant::now());
        let mut number = self.requests.keys().max().copied().unwrap_or(0).max(self.session << 20);
        for (thread, line) in &mut self.lines {
            if line.catching && !line.asked && line.ask_at.is_none_or(|at| at <= now) {
                number += 1;
                (line.asked, line.ask_at) = (true, None);
                self.requests.insert(number, Request::History(thread.clone()));
                // Before the first id there is nothing: everything.
                let after = Some(line.cursor.max(MsgId(1)));
                frames.push(ClientFrame::History(HistoryQuery {
                    r: number,
                    thread: Some(thread.clone()),
                    after,
                    limit: Some(200),
                    ..HistoryQuery::default()
                }));
            }
            if line.retry_at.is_some_and(|at| at > now || line.pending.iter().any(|p| p.out)) {
                continue;
            }
            line.retry_at = None;
            let mut before = None;
            for p in &mut line.pending {
                let behind = before;
                if p.out {
                    before = p.cid;
                    continue;
                }
                let ms = (now_ms().cast_signed() + self.ahead).cast_unsigned();
                let random: [u8; 10] = std::array::from_fn(|_| self.rng.next().to_le_bytes()[0]);
                let cid = *p.cid.get_or_insert_with(|| Cid::mint(ms, random));
                number += 1;
                (p.out, before) = (true, Some(cid));
                p.handed += 1;
                if p.handed == 1 {
                    self.record.with_attempt(&p.text, |a| a.cid = Some(cid.to_string()));
                } else {
                    self.record.lock().numbers.resends += 1;
                }
                self.requests.insert(number, Request::Send(thread.clone(), cid));
                frames.push(ClientFrame::Send(SendMessage {
                    r: number,
                    cid,
                    thread: thread.clone(),
                    kind: Kind::Text,
                    body: Body::text(p.text.clone()),
                    behind,
                }));
            }
        }
        frames
    }

    /// False: this session is over.
    fn take(&mut self, frame: ServerFrame) -> bool {
        match frame {
            ServerFrame::Welcome(w) => self.ahead = w.now.cast_signed() - now_ms().cast_signed(),
            ServerFrame::Pong { synced: Some(synced), .. } => self.adopt(synced),
            ServerFrame::Sent { r, cid, thread, id } => {
                self.requests.remove(&r);
                if let Some(line) = self.lines.get_mut(&thread)
                    && let Some(at) = line.pending.iter().position(|p| p.cid == Some(cid))
                {
                    let p = line.pending.remove(at).expect("just found");
                    self.record.acked(&p.text, cid.to_string(), id.0);
                }
            }
            ServerFrame::Error { r, refusal } => self.refused(r, &refusal),
            ServerFrame::Event(e) => {
                self.record.wire(self.reader, self.session, &e);
                self.live(*e);
            }
            ServerFrame::Page(page) => match page.r {
                None => self.newest(page),
                Some(r) => {
                    if let Some(Request::History(thread)) = self.requests.remove(&r) {
                        self.caught(&thread, page);
                    }
                }
            },
            ServerFrame::Draining { .. } => return false,
            _ => {}
        }
        true
    }

    fn refused(&mut self, r: Option<u32>, refusal: &natterjack_protocol::Refusal) {
        let wait = refusal.retry_after_ms.map_or(AGAIN, Duration::from_millis);
        let never = refusal.code.retry() == Retry::Never;
        match r.and_then(|r| self.requests.remove(&r)) {
            Some(Request::Send(thread, cid)) => {
                let Some(line) = self.lines.get_mut(&thread) else { return };
                let Some(at) = line.pending.iter().position(|p| p.cid == Some(cid)) else { return };
                if never {
                    let p = line.pending.remove(at).expect("just found");
                    // Whoever is not in a group may not write there: part of the play. Anything else is not.
                    if refusal.code != Code::NotMember {
                        self.record.complain(self.reader, format!("{:?} was refused: {refusal:?}", p.text));
                    }
                    self.record.with_attempt(&p.text, |a| a.refused = true);
                } else {
                    line.pending[at].out = false;
                    line.retry_at = Some(Instant::now() + wait);
                    let unsure = !refusal.code.means_not_stored();
                    self.record.with_attempt(&line.pending[at].text, |a| a.unsure |= unsure);
                }
            }
            Some(Request::History(thread)) => {
                let Some(line) = self.lines.get_mut(&thread) else { return };
                line.asked = false;
                if never {
                    line.catching = false;
                    for e in std::mem::take(&mut line.held) {
                        self.show(e, true);
                    }
                } else {
                    line.ask_at = Some(Instant::now() + wait);
                }
            }
            // A thread that could not be read while attaching.
            None => {
                if let Some(line) = refusal.thread.as_ref().and_then(|t| self.lines.get_mut(t)) {
                    match refusal.code {
                        Code::Unavailable => (line.catching, line.ask_at) = (true, Some(Instant::now() + wait)),
                        Code::NotMember | Code::NotFound => {}
                        _ => self.record.complain(self.reader, format!("while attaching: {refusal:?}")),
                    }
                }
            }
        }
    }

    fn adopt(&mut self, synced: String) {
        if !synced.is_empty() && self.lines.values().all(|l| !l.catching) {
            self.synced = Some(synced);
        }
    }

    fn live(&mut self, e: Event) {
        let line = self.lines.entry(e.thread.clone()).or_default();
        if line.catching {
            line.held.push(e);
        } else if e.id <= line.cursor {
            self.record.lock().numbers.old_events += 1;
        } else if e.prev <= line.cursor || line.cursor.is_none() {
            self.show(e, true);
        } else {
            (line.catching, line.suspect) = (true, true);
            line.held.push(e);
        }
    }

    /// After hello: the newest page of a thread. One that does not follow is not shown; everything above the cursor is
    /// fetched upwards.
    fn newest(&mut self, page: Page) {
        let Some(thread) = page.thread.clone().or_else(|| page.events.first().map(|e| e.thread.clone())) else {
            return;
        };
        let line = self.lines.entry(thread).or_default();
        let follows = page.prev <= line.cursor && page.holes.is_empty() && !page.more;
        if line.catching || !follows {
            line.catching = true;
            self.record.lock().numbers.fills += 1;
            return;
        }
        for e in page.events {
            self.show(e, false);
        }
    }

    fn caught(&mut self, thread: &Thread, page: Page) {
        let Some(line) = self.lines.get_mut(thread) else { return };
        line.asked = false;
        let hole = page.holes.iter().map(|(from, _)| *from).min();
        let (more, empty, suspect) = (page.more, page.events.is_empty(), line.suspect);
        let held = line.held.first().map(|e| e.id);
        for e in page.events.into_iter().filter(|e| hole.is_none_or(|h| e.id < h)) {
            if suspect && e.id > self.lines[thread].cursor && held.is_some_and(|h| e.id < h) {
                self.record.complain(
                    self.reader,
                    format!("session {}: {} of {thread} was missing below the live event {held:?}", self.session, e.id),
                );
            }
            self.show(e, false);
        }
        let line = self.lines.get_mut(thread).expect("as above");
        if hole.is_some() || more {
            line.ask_at = (hole.is_some() || empty).then(|| Instant::now() + AGAIN);
            return;
        }
        (line.catching, line.suspect) = (false, false);
        let mut held = std::mem::take(&mut line.held).into_iter();
        // The answer has spoken for what lies below the first held event; later ones are judged like live ones.
        if let Some(first) = held.next() {
            self.show(first, true);
        }
        for e in held {
            self.live(e);
        }
    }

    fn show(&mut self, e: Event, live: bool) {
        let line = self.lines.entry(e.thread.clone()).or_default();
        if e.id > line.cursor {
            line.cursor = e.id;
            self.record.show(self.reader, &e, live);
        }
    }
}
