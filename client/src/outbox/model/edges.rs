//! The server's side of the model: edges that read, refuse and publish what the client handed them, and the log.

use std::collections::HashMap;

use natterjack_protocol::{
    Cid, Code, MsgId, Refusal, Thread,
    client::{
        frame::SendMessage,
        send_queue::{Queued, SendQueue, SendSource, Tried},
    },
};
use rand::Rng;

use super::{AHEAD_MS, NOW_MS, World};

/// What a client does not see: where its messages are.
#[derive(Default)]
pub(super) struct Log {
    pub ids: HashMap<Cid, MsgId>,
    pub order: Vec<(Thread, Cid)>,
}

impl Log {
    fn store(&mut self, send: &SendMessage) -> MsgId {
        let next = MsgId(self.ids.len() as u64 + 1);
        *self.ids.entry(send.cid).or_insert_with(|| {
            self.order.push((send.thread.clone(), send.cid));
            next
        })
    }
}

pub(super) enum Answer {
    Sent(Cid),
    Refused(Cid, Refusal),
}

/// An edge with one connection of the device, or with its requests over HTTP, which overtake each other.
pub(super) struct Edge {
    pub http: bool,
    pub up: Vec<SendMessage>,
    pub down: Vec<Answer>,
    pub queue: SendQueue,
    pub publishing: Vec<Vec<Queued>>,
}

impl World {
    /// One of the edges, the newest one rather than one that nobody hears.
    fn some_edge(&mut self) -> Option<usize> {
        let last = self.edges.len().checked_sub(1)?;
        Some(if self.chance(70) { last } else { self.rng.random_range(0..=last) })
    }

    pub(super) fn read(&mut self) {
        let Some(at) = self.some_edge() else { return };
        let refuse = !self.calm && self.chance(8);
        let all = self.chance(50);
        let edge = &mut self.edges[at];
        if edge.up.is_empty() {
            return edge.queue.received_all();
        }
        let which = if edge.http { self.rng.random_range(0..edge.up.len()) } else { 0 };
        let send = edge.up.remove(which);
        let cid = send.cid;
        self.tell(|| format!("edge {at} reads {}", self.name(cid)));
        let edge = &mut self.edges[at];
        if refuse {
            let why = refusal(Code::RateLimited, Some(1_000));
            edge.queue.refused(&send, &why);
            edge.down.push(Answer::Refused(cid, why));
        } else {
            let source = if edge.http { SendSource::Request(0) } else { SendSource::Connection(0) };
            match edge.queue.push(send, source) {
                Ok(Some(first)) => {
                    let mut batch = vec![first];
                    batch.extend(edge.queue.going_with(&batch[0]));
                    edge.publishing.push(batch);
                }
                Ok(None) => {}
                Err(why) => edge.down.push(Answer::Refused(cid, why)),
            }
        }
        if all {
            edge.queue.received_all();
        }
    }

    pub(super) fn publish(&mut self) {
        let Some(at) = self.some_edge() else { return };
        if self.edges[at].publishing.is_empty() {
            return;
        }
        let which = self.rng.random_range(0..self.edges[at].publishing.len());
        let mut batch = self.edges[at].publishing.remove(which);
        let thread = batch[0].send.thread.clone();
        let (mut results, mut rest) = (Vec::new(), Vec::new());
        let limit = NOW_MS + self.ms + AHEAD_MS;
        let ahead = |s: &Queued| s.send.cid.unix_ms() > limit;
        if batch.len() > 1 && !batch.iter().any(ahead) && self.chance(50) {
            results.extend(batch.iter().map(|s| (s.send.cid, Ok(self.log.store(&s.send)))));
        } else {
            if batch.len() > 1 {
                // A prefix of it is stored, which nobody learns; or it was none.
                let unsure = !batch.iter().any(ahead) && self.chance(50);
                let stored = if unsure { self.rng.random_range(0..=batch.len()) } else { 0 };
                for queued in &batch[..stored] {
                    self.log.store(&queued.send);
                }
                batch.iter_mut().for_each(|s| s.tried = if unsure { Tried::Unsure } else { Tried::Alone });
            }
            let first = batch.remove(0);
            rest = batch;
            results.push((first.send.cid, self.send(&first)));
        }
        self.tell(|| {
            format!(
                "edge {at} decides {:?}",
                results.iter().map(|(c, r)| (self.name(*c), r.is_ok())).collect::<Vec<_>>()
            )
        });
        let refused = results.iter().find_map(|(cid, r)| Some((*cid, r.as_ref().err()?.clone())));
        let edge = &mut self.edges[at];
        edge.down.extend(results.into_iter().map(|(cid, result)| match result {
            Ok(_) => Answer::Sent(cid),
            Err(why) => Answer::Refused(cid, why),
        }));
        let decided = edge.queue.decided(&thread, refused.as_ref().map(|(cid, why)| (*cid, why)), rest);
        edge.down.extend(decided.refused.into_iter().map(|(why, queued)| Answer::Refused(queued.send.cid, why)));
        if let Some(next) = decided.next {
            let mut batch = vec![next];
            batch.extend(edge.queue.going_with(&batch[0]));
            edge.publishing.push(batch);
        }
    }

    /// One message alone, as `edge/src/sends/send.rs` decides it.
    fn send(&mut self, queued: &Queued) -> Result<MsgId, Refusal> {
        let (send, sure) = (&queued.send, queued.tried != Tried::Unsure);
        if sure && send.cid.unix_ms() > NOW_MS + self.ms + AHEAD_MS {
            if let Some(id) = self.log.ids.get(&send.cid) {
                return Ok(*id);
            }
            return Err(Refusal { now_ms: Some(NOW_MS + self.ms), ..refusal(Code::ClockAhead, None) });
        }
        match self.rng.random_range(0..100) {
            _ if self.calm => Ok(self.log.store(send)),
            0..6 => Err(refusal(Code::Unavailable, Some(1_000))),
            6..10 => {
                self.log.store(send);
                Err(refusal(Code::Unavailable, None))
            }
            10..12 => Err(refusal(Code::Internal, None)),
            12..15 if sure => Err(refusal(Code::StorageBehind, Some(3_000))),
            15..18 => Err(refusal(Code::Blocked, None)),
            _ => Ok(self.log.store(send)),
        }
    }
}

pub(super) fn refusal(code: Code, retry_after_ms: Option<u64>) -> Refusal {
    Refusal { retry_after_ms, ..Refusal::new(code, "no") }
}
