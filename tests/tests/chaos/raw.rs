//! A client of its own, from docs/protocol.md alone: it mints cids, resends unknown outcomes through any edge, resumes
//! with cursors, and breaks its socket now and then. What it is shown, and every event frame, is recorded.

mod reading;
mod sending;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use natterjack_protocol::{
    Thread,
    client::frame::{ClientFrame, Hello, ServerFrame},
    codec::Codec,
};
use natterjack_testkit::now_ms;
use natterjack_tests::kit::{RawWs, Received, User};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use self::sending::{Line, Request};
use super::{record::Recorder, rules::Rng};

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
}
