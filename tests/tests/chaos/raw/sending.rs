//! What a device writes, asks for again and sends again: in each thread in the order of writing.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use natterjack_protocol::{
    Body, Cid, Code, Event, Kind, MsgId, Refusal, Retry, Thread,
    client::frame::{ClientFrame, HistoryQuery, SendMessage, WatchQuery},
};
use natterjack_testkit::now_ms;

use super::{AGAIN, Raw};
use crate::record::{Attempt, Handing};

pub(super) struct Pending {
    pub(super) cid: Option<Cid>,
    pub(super) text: String,
    /// Its request has no answer on this connection.
    pub(super) out: bool,
    pub(super) handed: u32,
}

#[derive(Default)]
pub(super) struct Line {
    pub(super) cursor: MsgId,
    /// Everything above the cursor is being fetched; live events wait.
    pub(super) catching: bool,
    /// The hole was seen below a live event of an undisturbed session: the edge should have filled it.
    pub(super) suspect: bool,
    pub(super) held: Vec<Event>,
    pub(super) asked: bool,
    pub(super) ask_at: Option<Instant>,
    pub(super) pending: VecDeque<Pending>,
    pub(super) retry_at: Option<Instant>,
}

pub(super) enum Request {
    Send(Thread, Cid),
    History(Thread),
    Watch,
}

impl Raw {
    pub(super) fn write(&mut self) {
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
    pub(super) fn frames(&mut self) -> Vec<ClientFrame> {
        let (mut frames, now) = (Vec::new(), Instant::now());
        let mut number = self.requests.keys().max().copied().unwrap_or(0).max(self.session << 20);
        if self.watch_at.is_some_and(|at| at <= now) {
            number += 1;
            self.watch_at = None;
            self.requests.insert(number, Request::Watch);
            frames.push(ClientFrame::Watch(WatchQuery { r: number, users: Some(self.friends.clone()) }));
        }
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
                    let text = p.text.clone();
                    self.record.with_connection(self.connection, |c, begun| {
                        c.sends.push(Handing { text, begun, acked: None });
                    });
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

    pub(super) fn refused(&mut self, r: Option<u32>, refusal: &Refusal) {
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
            Some(Request::Watch) if never => {
                self.record.complain(self.reader, format!("a watch was refused: {refusal:?}"));
            }
            Some(Request::Watch) => self.watch_at = Some(Instant::now() + wait),
            // A thread that could not be read while attaching, or one that was acknowledged.
            None => {
                if let (Code::NotMember, Some(thread)) = (refusal.code, &refusal.thread) {
                    self.not_theirs(thread);
                }
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
}
