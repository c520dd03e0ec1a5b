//! A client of its own, from docs/protocol.md alone: it mints cids, resends unknown outcomes through any edge, resumes
//! with cursors, and breaks its socket now and then. A device that was displaced takes over again after a while. It
//! watches who is here. What it is shown, every event frame and each of its connections is recorded.

mod acknowledging;
mod reading;
mod sending;
mod watching;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use natterjack_protocol::{
    Thread, Token, UserId,
    client::frame::{ClientFrame, DeviceClass, Hello, ServerFrame},
    codec::Codec,
};
use natterjack_testkit::now_ms;
use natterjack_tests::kit::{RawWs, Received, User};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use self::{
    acknowledging::Unstored,
    sending::{Line, Request},
};
use super::{
    record::{Connection, Recorder},
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
/// A user who was displaced takes the device up again after so many milliseconds.
const TAKES_OVER: (u64, u64) = (1_500, 4_000);
/// Percent of the times in which the displaced device tries by itself before that.
const BY_ITSELF: u64 = 30;
/// Percent per tick: a message every 150 ms or so.
const WRITES: u64 = 13;
/// In a thousand ticks: breaks its socket every ten seconds or so.
const CHOPS: u64 = 2;

/// What kind of a device it is, and how its user treats it.
#[derive(Debug, Clone, Copy)]
pub struct Habit {
    pub class: DeviceClass,
    /// Milliseconds between two connections: a client that comes back, or somebody who goes out.
    pub away: (u64, u64),
    /// Somebody who looks in hangs up after so many milliseconds.
    pub stays: Option<(u64, u64)>,
    /// Says now and then that its user has read what nobody has written.
    pub lies: bool,
}

impl Habit {
    pub fn stays_on(class: DeviceClass) -> Self {
        Self { class, away: (20, 400), stays: None, lies: false }
    }
}

pub struct Raw {
    pub name: String,
    pub user: User,
    pub habit: Habit,
    /// Whom it watches.
    pub friends: Vec<UserId>,
    pub edges: Vec<SocketAddr>,
    pub codec: Codec,
    pub record: Recorder,
    pub reader: usize,
    pub rng: Rng,
    pub phase: watch::Receiver<Phase>,
    /// Messages without an answer.
    pub waiting: watch::Sender<usize>,
    lines: BTreeMap<Thread, Line>,
    /// What its user has read.
    unstored: BTreeMap<Thread, Unstored>,
    synced: Option<String>,
    requests: HashMap<u32, Request>,
    session: u32,
    /// The session that it had last: it names it when it comes back by itself.
    had: Option<Token>,
    /// The number of its connection in the recording.
    connection: usize,
    displaced: bool,
    watch_at: Option<Instant>,
    written: u64,
    ahead: i64,
}

impl Raw {
    #[expect(clippy::too_many_arguments, reason = "each is a different thing that the run decides")]
    pub fn new(
        name: String,
        user: User,
        habit: Habit,
        friends: Vec<UserId>,
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
            habit,
            friends,
            edges,
            codec,
            record,
            reader,
            rng,
            phase,
            waiting: watch::Sender::new(0),
            lines: threads.into_iter().map(|t| (t, Line::default())).collect(),
            unstored: BTreeMap::new(),
            synced: None,
            requests: HashMap::new(),
            session: 0,
            had: None,
            connection: 0,
            displaced: false,
            watch_at: None,
            written: 0,
            ahead: 0,
        }
    }

    pub async fn run(mut self) {
        let (mut edge, mut by_itself) = (self.rng.index(self.edges.len()), true);
        while *self.phase.borrow() != Phase::Stop {
            self.displaced = false;
            if let Ok(Ok(ws)) = timeout(CONNECT, RawWs::try_connect(self.edges[edge], self.codec.subprotocol())).await {
                self.connection = self.says_hello(edge, by_itself);
                self.session(ws, by_itself).await;
                self.record.with_connection(self.connection, |c, now| c.ended = Some(now));
            }
            for text in self.lines.values_mut().flat_map(|l| &mut l.pending) {
                if std::mem::take(&mut text.out) {
                    self.record.with_attempt(&text.text, |a| a.unsure = true);
                }
            }
            self.requests.clear();
            by_itself = !self.displaced || self.rng.chance(BY_ITSELF);
            let (from, to) = if self.displaced { TAKES_OVER } else { self.habit.away };
            // Between two tries, from the seed.
            let pause = sleep(Duration::from_millis(self.rng.range(from, to)));
            tokio::select! {
                () = pause => {}
                _ = self.phase.wait_for(|p| *p == Phase::Stop) => {}
            }
            // Mostly elsewhere, now and then the same again.
            if self.rng.chance(80) {
                edge = (edge + 1) % self.edges.len();
            }
        }
    }

    fn says_hello(&self, edge: usize, by_itself: bool) -> usize {
        self.record.connection(Connection {
            user: self.user.id().to_string(),
            device: self.user.tokens.device.to_string(),
            class: self.habit.class,
            edge,
            by_itself: by_itself && self.had.is_some(),
            hello: self.record.now(),
            greeted: None,
            ended: None,
            displaced_by: None,
            sends: Vec::new(),
            heard: Vec::new(),
            presence: Vec::new(),
        })
    }

    async fn session(&mut self, mut ws: RawWs, by_itself: bool) {
        self.session += 1;
        self.record.lock().numbers.sessions += 1;
        for line in self.lines.values_mut() {
            (line.catching, line.asked, line.ask_at, line.retry_at, line.suspect) = (false, false, None, None, false);
            line.held.clear();
        }
        self.says_all_again();
        let hello = Hello {
            cursors: self
                .lines
                .iter()
                .filter(|(_, l)| !l.cursor.is_none())
                .map(|(t, l)| (t.clone(), l.cursor))
                .collect(),
            synced: self.synced.clone(),
            class: self.habit.class,
            session: self.had.clone().filter(|_| by_itself),
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
        let hangs_up = self.habit.stays.map(|(from, to)| heard + Duration::from_millis(self.rng.range(from, to)));
        self.watch_at = Some(heard);
        loop {
            match timeout(TICK, ws.next()).await {
                Ok(Received::Frame(frame)) => {
                    heard = self.hears();
                    if !self.take(frame) {
                        return;
                    }
                }
                Ok(Received::Unknown) => heard = self.hears(),
                Ok(Received::Closed(..)) => return,
                Err(_) => {}
            }
            let phase = *self.phase.borrow();
            let enough = hangs_up.is_some_and(|at| at < Instant::now());
            if phase == Phase::Stop || heard.elapsed() > SILENCE || enough {
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
            if phase == Phase::Write && !self.lines.is_empty() && self.rng.chance(WRITES) {
                self.write();
            }
            let read = if phase == Phase::Write { self.reads() } else { None };
            for frame in read.into_iter().chain(self.acknowledges()).chain(self.frames()) {
                if !self.say(&mut ws, &frame).await {
                    return;
                }
            }
            self.waiting
                .send_replace(self.lines.values().map(|l| l.pending.len()).sum::<usize>() + self.unstored.len());
        }
    }

    /// A frozen edge stops reading: a full socket is a dead one.
    async fn say(&self, ws: &mut RawWs, frame: &ClientFrame) -> bool {
        matches!(timeout(CONNECT, ws.try_send_bytes(&frame.encode(self.codec))).await, Ok(Ok(())))
    }

    /// False: this session is over.
    fn take(&mut self, frame: ServerFrame) -> bool {
        match frame {
            ServerFrame::Welcome(w) => {
                self.ahead = w.now.cast_signed() - now_ms().cast_signed();
                self.had = Some(w.session);
                self.record.with_connection(self.connection, |c, now| c.greeted = Some(now));
            }
            ServerFrame::Displaced(by) => {
                self.displaced = true;
                let by = by.by.device.to_string();
                self.record.with_connection(self.connection, |c, _| c.displaced_by = Some(by));
            }
            ServerFrame::Read { threads } => self.stored(threads),
            ServerFrame::Receipts { thread, receipts } => self.told_receipts(&thread, &receipts),
            ServerFrame::Presence { r, users } => self.sees(r, users),
            ServerFrame::Pong { synced: Some(synced), .. } => self.adopt(synced),
            ServerFrame::Sent { r, cid, thread, id } => {
                self.requests.remove(&r);
                if let Some(line) = self.lines.get_mut(&thread)
                    && let Some(at) = line.pending.iter().position(|p| p.cid == Some(cid))
                {
                    let p = line.pending.remove(at).expect("just found");
                    self.record.acked(&p.text, cid.to_string(), id.0);
                    self.record.with_connection(self.connection, |c, now| {
                        if let Some(handing) = c.sends.iter_mut().find(|s| s.text == p.text) {
                            handing.acked = Some(now);
                        }
                    });
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
}
