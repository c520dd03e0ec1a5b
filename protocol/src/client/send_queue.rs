//! Step 2: the order of one device's messages in a thread, as an edge keeps it, whether they come over a socket or over
//! HTTP; the client's half is its outbox ([ADR 10]).
//!
//! One publish is in flight per thread, of one message or of a batch, the others wait behind it: neither a retry nor a
//! leader election can swap two. Nothing that hangs on a refused message is stored before that one has come again, or
//! its sender has let go of it. Pure, and here so that both halves are tested against each other.
//!
//! [ADR 10]: ../../../docs/adr/0010-order-under-refusals.md

use std::collections::{HashMap, HashSet, VecDeque};

use crate::{
    Cid, Refusal, Thread,
    client::frame::SendMessage,
    refusal::{Code, Retry},
};

/// Threads without anything under way that are remembered. Beyond it all of them are forgotten: what then names a
/// message before it is refused once and comes again.
const IDLE: usize = 64;

/// How a message was tried already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    No,
    /// It was to go with others, and has to go alone. Nothing of it has left.
    Alone,
    /// Likewise, after a batch of which nobody knows what was stored.
    Unsure,
}

/// Which way a message came to the edge, and where its answer goes. The numbers are the edge's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendSource {
    /// A connection, which pipelines: what was written behind a message may be read after that one is refused.
    Connection(u64),
    /// One HTTP request, with nothing behind it.
    Request(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    pub send: SendMessage,
    pub source: SendSource,
    pub tried: Tried,
}

#[derive(Default)]
struct Line {
    in_flight: bool,
    waiting: VecDeque<Queued>,
    /// The message that came last.
    last: Option<Cid>,
    /// It, or one on which it hangs, was refused. For good or for now: the answer may be lost, and it comes again.
    broken: bool,
    /// One was refused for now. So is what was received by then, whether it says on what it hangs or not;
    /// but not a request: nothing was written behind it.
    closed: bool,
}

/// What follows from a decision.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// To be published now.
    pub next: Option<Queued>,
    /// What waited and is refused now.
    pub refused: Vec<(Refusal, Queued)>,
}

/// The messages of one device at one edge. Bounded by its requests in flight and [`IDLE`].
#[derive(Default)]
pub struct SendQueue {
    lines: HashMap<Thread, Line>,
    waiting: usize,
    closed: bool,
}

impl SendQueue {
    /// Returns the message if nothing of its thread is in flight: publish it now. An error: what it hangs on was
    /// refused, or it hangs on itself, which no later try would change.
    pub fn push(&mut self, send: SendMessage, source: SendSource) -> Result<Option<Queued>, Refusal> {
        if send.behind == Some(send.cid) {
            let why = Refusal::invalid("behind: names the message itself; name the one before it, or none")
                .with_cid(send.cid);
            self.refused(&send, &why);
            return Err(why);
        }
        let line = self.line(&send.thread);
        let follows = match send.behind {
            Some(before) => line.last == Some(before) && !line.broken,
            None => !line.closed || matches!(source, SendSource::Request(_)),
        };
        (line.last, line.broken) = (Some(send.cid), !follows);
        if !follows {
            return Err(out_of_order().with_cid(send.cid));
        }
        let queued = Queued { send, source, tried: Tried::No };
        if line.in_flight {
            line.waiting.push_back(queued);
            self.waiting += 1;
            return Ok(None);
        }
        line.in_flight = true;
        Ok(Some(queued))
    }

    /// It was refused before it could wait here.
    pub fn refused(&mut self, send: &SendMessage, why: &Refusal) {
        let line = self.line(&send.thread);
        (line.last, line.broken) = (Some(send.cid), true);
        if may_come_again(why) {
            line.closed = true;
            self.closed = true;
        }
    }

    /// What waits behind the message that is about to be published, to go with it: of connections only, up to the first
    /// request.
    pub fn going_with(&mut self, first: &Queued) -> VecDeque<Queued> {
        let pipelined = |queued: &Queued| matches!(queued.source, SendSource::Connection(_));
        match self.lines.get_mut(&first.send.thread) {
            Some(line) if first.tried == Tried::No && pipelined(first) => {
                let end = line.waiting.iter().position(|q| !pipelined(q)).unwrap_or(line.waiting.len());
                self.waiting -= end;
                let rest = line.waiting.split_off(end);
                std::mem::replace(&mut line.waiting, rest)
            }
            _ => VecDeque::new(),
        }
    }

    /// What was in flight is decided: `refused`, if it was, with why. `rest` was to go with it and goes alone.
    pub fn decided(&mut self, thread: &Thread, refused: Option<(Cid, &Refusal)>, rest: Vec<Queued>) -> Decided {
        let Some(line) = self.lines.get_mut(thread) else { return Decided::default() };
        let mut decided = Decided::default();
        self.waiting += rest.len();
        for queued in rest.into_iter().rev() {
            line.waiting.push_front(queued);
        }
        if let Some((cid, why)) = refused {
            let all = may_come_again(why);
            let mut hangs_on = HashSet::from([cid]);
            for queued in std::mem::take(&mut line.waiting) {
                if all || queued.send.behind.is_some_and(|b| hangs_on.contains(&b)) {
                    hangs_on.insert(queued.send.cid);
                    decided.refused.push((refusal_behind(&queued), queued));
                } else {
                    line.waiting.push_back(queued);
                }
            }
            self.waiting -= decided.refused.len();
            line.broken |= line.last.is_some_and(|last| hangs_on.contains(&last));
            line.closed |= all;
            self.closed |= all;
        }
        decided.next = line.waiting.pop_front();
        line.in_flight = decided.next.is_some();
        self.waiting -= usize::from(line.in_flight);
        decided
    }

    /// All that had come by the time of the last refusal was read. What comes now may have been sent by who knows of
    /// it.
    pub fn received_all(&mut self) {
        if std::mem::take(&mut self.closed) {
            self.lines.values_mut().for_each(|l| l.closed = false);
        }
    }

    /// A refusal was made, and not all was read that had come by then.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn is_idle(&self) -> bool {
        self.lines.values().all(|l| !l.in_flight)
    }

    /// Messages that wait, without those in flight.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    fn line(&mut self, thread: &Thread) -> &mut Line {
        if self.lines.len() >= IDLE && !self.lines.contains_key(thread) {
            self.lines.retain(|_, l| l.in_flight);
        }
        self.lines.entry(thread.clone()).or_default()
    }
}

fn may_come_again(why: &Refusal) -> bool {
    why.code.retry() != Retry::Never
}

fn out_of_order() -> Refusal {
    let why = "the message before it in this thread was refused, or is not known here: send what is left again, in \
               the old order";
    // At once: nothing is wrong with it.
    Refusal { retry_after_ms: Some(1), ..Refusal::new(Code::OutOfOrder, why) }
}

fn refusal_behind(queued: &Queued) -> Refusal {
    let why = match queued.tried {
        Tried::Unsure => Refusal::unavailable("not known whether it was stored: send it again, behind those before it"),
        Tried::No | Tried::Alone => out_of_order(),
    };
    why.with_cid(queued.send.cid)
}

#[cfg(test)]
mod tests;
