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
    assert_eq!((push(&mut q, 6, Some(5)), next(&mut q), next(&mut q), q.waiting()), (Some(false), Some(5), Some(6), 0));
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
