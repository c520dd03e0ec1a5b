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
mod tests {
    use super::*;
    use crate::{Body, Kind};

    const SOCKET: SendSource = SendSource::Connection(1);

    fn thread() -> Thread {
        "dm.a.b".parse().unwrap()
    }

    fn cid(n: u8) -> Cid {
        Cid::mint(1, [n; 10])
    }

    fn send(n: u8, behind: Option<u8>) -> SendMessage {
        SendMessage {
            r: u32::from(n),
            cid: cid(n),
            thread: thread(),
            kind: Kind::Text,
            body: Body::text("x"),
            behind: behind.map(cid),
        }
    }

    /// Waits (`Some(false)`), is to be published (`Some(true)`) or refused.
    fn push(q: &mut SendQueue, n: u8, behind: Option<u8>) -> Option<bool> {
        match q.push(send(n, behind), SOCKET) {
            Ok(now) => Some(now.is_some()),
            Err(why) => {
                assert_eq!((why.code, why.cid), (Code::OutOfOrder, Some(cid(n))));
                None
            }
        }
    }

    fn next(q: &mut SendQueue) -> Option<u32> {
        let Decided { next, refused } = q.decided(&thread(), None, Vec::new());
        assert!(refused.is_empty());
        next.map(|q| q.send.r)
    }

    /// The message in flight.
    fn refuse(q: &mut SendQueue, n: u8, code: Code) -> (Option<u32>, Vec<(u32, Code)>) {
        let Decided { next, refused } = q.decided(&thread(), Some((cid(n), &Refusal::new(code, "no"))), Vec::new());
        (next.map(|q| q.send.r), refused.into_iter().map(|(why, q)| (q.send.r, why.code)).collect())
    }

    #[test]
    fn one_in_flight_per_thread_in_order_and_threads_do_not_wait_for_each_other() {
        let mut q = SendQueue::default();
        assert_eq!(
            (push(&mut q, 1, None), push(&mut q, 2, None), push(&mut q, 3, Some(2))),
            (Some(true), Some(false), Some(false))
        );
        let other = SendMessage { thread: "group.g".parse().unwrap(), ..send(4, None) };
        assert!(q.push(other, SOCKET).unwrap().is_some());
        assert_eq!(q.waiting(), 2);
        assert_eq!((next(&mut q), next(&mut q), next(&mut q)), (Some(2), Some(3), None));
        assert_eq!(q.decided(&"group.g".parse().unwrap(), None, Vec::new()), Decided::default());
        assert!(q.is_idle() && q.waiting() == 0);
        assert_eq!(q.decided(&"dm.x.y".parse().unwrap(), None, Vec::new()), Decided::default());
    }

    #[test]
    fn what_hangs_on_a_refused_message_is_refused_until_the_client_begins_anew() {
        for code in Code::ALL {
            let mut q = SendQueue::default();
            push(&mut q, 1, None);
            push(&mut q, 2, Some(1));
            assert_eq!(refuse(&mut q, 1, code), (None, vec![(2, Code::OutOfOrder)]), "{code:?}");
            q.received_all();
            // On their way when the refusal was written, however long that takes.
            assert_eq!((push(&mut q, 3, Some(2)), push(&mut q, 4, Some(3))), (None, None), "{code:?}");
            assert_eq!(
                (push(&mut q, 1, None), push(&mut q, 2, Some(1))),
                (Some(true), Some(false)),
                "in the old order again"
            );
            refuse(&mut q, 1, code);
            q.received_all();
            assert_eq!(
                (push(&mut q, 9, None), push(&mut q, 10, Some(9))),
                (Some(true), Some(false)),
                "it may give up the first one"
            );
        }
    }

    #[test]
    fn a_final_refusal_concerns_what_names_it_and_nothing_else() {
        let mut q = SendQueue::default();
        for (n, behind) in [(1, None), (2, None), (3, Some(1)), (4, Some(3)), (5, None)] {
            push(&mut q, n, behind);
        }
        // Its answer may be lost, and it may be taken when it comes again: 3 and 4 would have overtaken it.
        assert!(q.lines[&thread()].waiting.len() == 2, "3 does not name the newest one");
        let mut q = SendQueue::default();
        for (n, behind) in [(1, None), (2, Some(1)), (3, Some(2)), (4, None), (5, Some(4))] {
            push(&mut q, n, behind);
        }
        assert_eq!(refuse(&mut q, 1, Code::Blocked), (Some(4), vec![(2, Code::OutOfOrder), (3, Code::OutOfOrder)]));
        assert!(!q.is_closed());
        assert_eq!(
            (push(&mut q, 6, Some(5)), next(&mut q), next(&mut q), q.waiting()),
            (Some(false), Some(5), Some(6), 0)
        );
        q.refused(&send(7, Some(6)), &Refusal::new(Code::Invalid, "no"));
        assert_eq!((push(&mut q, 8, Some(7)), push(&mut q, 9, None)), (None, Some(false)));
    }

    #[test]
    fn a_message_behind_itself_is_wrong_and_not_out_of_order() {
        let mut q = SendQueue::default();
        assert_eq!(push(&mut q, 1, None), Some(true));
        let why = q.push(send(2, Some(2)), SOCKET).unwrap_err();
        assert!(why.code == Code::Invalid && why.message.starts_with("behind: ") && why.cid == Some(cid(2)), "{why:?}");
        assert_eq!(
            (push(&mut q, 3, Some(2)), push(&mut q, 4, None)),
            (None, Some(false)),
            "as after any other final refusal"
        );
    }

    #[test]
    fn what_was_received_by_then_is_refused_whatever_it_says() {
        let mut q = SendQueue::default();
        push(&mut q, 1, None);
        assert!(!q.is_closed());
        refuse(&mut q, 1, Code::ClockAhead);
        assert!(q.is_closed());
        assert_eq!(push(&mut q, 2, None), None);
        q.received_all();
        assert_eq!(push(&mut q, 3, None), Some(true), "who waits for each answer is never held up");
        q.refused(&send(4, None), &Refusal::new(Code::RateLimited, "slow down"));
        assert_eq!((push(&mut q, 5, None), push(&mut q, 6, Some(5))), (None, None));
    }

    #[test]
    fn what_is_not_known_here_is_refused() {
        let mut q = SendQueue::default();
        assert_eq!(push(&mut q, 2, Some(1)), None, "another edge, or another connection, has the first one");
        push(&mut q, 1, None);
        // Requests that overtake each other on their way: 3 names 2, which comes later.
        assert_eq!((push(&mut q, 3, Some(2)), push(&mut q, 2, Some(1))), (None, None));
        for n in 0..200u32 {
            let send = SendMessage { thread: format!("group.g{n}").parse().unwrap(), ..send(1, None) };
            let thread = send.thread.clone();
            q.push(send, SOCKET).unwrap();
            q.decided(&thread, None, Vec::new());
        }
        assert!(q.lines.len() <= IDLE + 1);
    }

    /// A device that sends over its socket and over HTTP at once.
    #[test]
    fn requests_and_connections_share_the_order_and_the_refusals() {
        let http = SendSource::Request(1);
        let mut q = SendQueue::default();
        for n in 1..=3 {
            push(&mut q, n, None);
        }
        assert_eq!(q.push(send(4, None), http), Ok(None), "behind those of the socket");
        assert_eq!((push(&mut q, 5, Some(4)), q.waiting()), (Some(false), 4));
        let second = q.decided(&thread(), None, Vec::new()).next.unwrap();
        assert_eq!(q.going_with(&second).iter().map(|s| s.send.r).collect::<Vec<_>>(), [3], "up to the request");
        let fourth = q.decided(&thread(), None, Vec::new()).next.unwrap();
        assert!(fourth.source == http && q.going_with(&fourth).is_empty(), "which goes alone");
        assert_eq!(
            refuse(&mut q, 4, Code::Unavailable),
            (None, vec![(5, Code::OutOfOrder)]),
            "of the socket, behind that of the request"
        );
        assert_eq!(push(&mut q, 6, None), None, "written before the refusal was read, perhaps");
        assert!(
            matches!(q.push(send(7, None), http), Ok(Some(_))),
            "a request has nothing that could have been written before"
        );
        assert_eq!(q.push(send(9, Some(8)), http).unwrap_err().code, Code::OutOfOrder);
    }

    #[test]
    fn what_has_come_meanwhile_goes_together() {
        let mut q = SendQueue::default();
        for n in 1..=4 {
            push(&mut q, n, None);
        }
        let second = q.decided(&thread(), None, Vec::new()).next.unwrap();
        let rest: Vec<Queued> = q.going_with(&second).into();
        assert_eq!(rest.iter().map(|s| s.send.r).collect::<Vec<_>>(), [3, 4]);
        push(&mut q, 5, None);
        // Nobody knows what of the batch was stored: 3 and 4 go alone.
        let rest = rest.into_iter().map(|s| Queued { tried: Tried::Unsure, ..s }).collect();
        let third = q.decided(&thread(), None, rest).next.unwrap();
        assert_eq!((third.send.r, q.going_with(&third).len(), q.waiting()), (3, 0, 2));
        let both = vec![(4, Code::Unavailable), (5, Code::OutOfOrder)];
        assert_eq!(refuse(&mut q, 3, Code::Unavailable), (None, both), "4 may be stored, 5 is not");
    }
}
