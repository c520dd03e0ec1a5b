use natterjack_protocol::Code;
use tokio::sync::oneshot;

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;

fn thread(n: u32) -> Thread {
    format!("group.g{n}").parse().unwrap()
}

fn outbox(per_thread: usize) -> Outbox {
    Outbox::new(Vec::new(), 1, 16, per_thread)
}

fn add(o: &mut Outbox, t: u32, text: &str) -> Local {
    o.add(thread(t), Kind::Text, Body::text(text), None)
}

fn hand(o: &mut Outbox, now: Instant) -> Vec<(Local, Cid)> {
    pairs(&handed(o, now))
}

fn handed(o: &mut Outbox, now: Instant) -> Vec<Handed> {
    let mut n = 0;
    o.hand(now, NOW_MS, || {
        n += 1;
        [n; 10]
    })
}

fn pairs(handed: &[Handed]) -> Vec<(Local, Cid)> {
    handed.iter().map(|h| (h.local, h.cid)).collect()
}

fn refusal(code: Code) -> Refusal {
    Refusal::new(code, "no")
}

#[test]
fn a_cid_is_minted_at_handing_in_the_servers_time_and_listed_for_the_store_first() {
    let mut o = outbox(1);
    let local = add(&mut o, 1, "one");
    assert!(matches!(&o.take_changes()[..], [Change::Insert(row)] if row.cid.is_none()));
    let handed = hand(&mut o, Instant::now());
    assert_eq!(handed[0].0, local);
    assert_eq!(handed[0].1.unix_ms(), NOW_MS);
    assert_eq!(o.take_changes(), [Change::Cid(local, Some(handed[0].1))]);
    assert!(hand(&mut o, Instant::now()).is_empty(), "it is in flight");
}

#[test]
fn a_resend_has_the_same_cid_and_the_order_of_writing() {
    let mut o = outbox(2);
    let now = Instant::now();
    for text in ["one", "two", "three"] {
        add(&mut o, 1, text);
    }
    let first = hand(&mut o, now);
    assert_eq!(first.len(), 2, "the window of a thread");
    o.disconnected();
    assert_eq!(hand(&mut o, now), first);
    assert!(matches!(o.sent(first[0].1, MsgId(7)), Some(Settled::Sent { id: MsgId(7), .. })));
    assert!(o.sent(first[0].1, MsgId(7)).is_none(), "the event with the own cid came too");
    assert_eq!(hand(&mut o, now).len(), 1);
    assert_eq!(o.waiting(), 2);
}

#[test]
fn the_window_over_all_threads() {
    let mut o = Outbox::new(Vec::new(), 1, 3, 1);
    for t in 0..5 {
        add(&mut o, t, "x");
    }
    let now = Instant::now();
    let handed = hand(&mut o, now);
    assert_eq!(handed.iter().map(|(l, _)| l.0).collect::<Vec<_>>(), [1, 2, 3], "the oldest first");
    o.sent(handed[1].1, MsgId(1));
    assert_eq!(hand(&mut o, now).len(), 1);
}

#[test]
fn a_refusal_for_now_holds_its_thread_and_no_other() {
    let mut o = outbox(1);
    let now = Instant::now();
    add(&mut o, 1, "one");
    let handed = hand(&mut o, now);
    let refusal = Refusal { retry_after_ms: Some(2_000), ..Refusal::new(Code::RateLimited, "slow down") };
    assert!(o.refused(handed[0].1, refusal, now, 0.5).is_none());
    add(&mut o, 1, "two");
    add(&mut o, 2, "elsewhere");
    assert_eq!(hand(&mut o, now).iter().map(|(l, _)| l.0).collect::<Vec<_>>(), [3]);
    let due = o.due().unwrap();
    assert!(due >= now + Duration::from_secs(2));
    assert_eq!(hand(&mut o, due), handed, "the same cid");
}

#[test]
fn a_refusal_for_good_fails_the_message_and_the_next_goes_on() {
    let mut o = outbox(1);
    let now = Instant::now();
    let (waiter, mut answer) = oneshot::channel();
    let local = o.add(thread(1), Kind::Text, Body::text("x"), Some(waiter));
    add(&mut o, 1, "next");
    let handed = hand(&mut o, now);
    let refusal = Refusal::new(Code::NotMember, "no");
    assert!(matches!(o.refused(handed[0].1, refusal.clone(), now, 0.0), Some(Settled::Failed { .. })));
    assert_eq!(answer.try_recv().unwrap(), Err(refusal.clone()));
    assert!(o.take_changes().contains(&Change::Fail(local, refusal)));
    assert_eq!(hand(&mut o, now).len(), 1);
    assert_eq!(o.rows().len(), 2, "it stays to be looked at");
    assert!(!o.discard(Local(2)), "on its way");
    assert!(o.discard(local));
}

#[test]
fn a_new_cid_only_if_every_answer_was_clock_ahead() {
    let now = Instant::now();
    let ahead = |now_ms| Refusal { now_ms: Some(now_ms), ..Refusal::new(Code::ClockAhead, "your clock") };
    let mut o = outbox(1);
    add(&mut o, 1, "x");
    let first = hand(&mut o, now);
    o.refused(first[0].1, ahead(NOW_MS - 60_000), now, 0.0);
    let second = pairs(&o.hand(now, NOW_MS - 60_000, || [9; 10]));
    assert_ne!(second[0].1, first[0].1);
    assert!(o.sent(first[0].1, MsgId(1)).is_none(), "the old cid is forgotten");

    // The answer of this one is lost with the connection: it may be in the log.
    o.disconnected();
    o.hand(now, NOW_MS, || [8; 10]);
    o.refused(second[0].1, ahead(NOW_MS - 63_000), now, 0.0);
    assert_eq!(o.due(), Some(now + Duration::from_secs(3)), "it waits until it is in time");
    assert_eq!(pairs(&o.hand(now + Duration::from_secs(3), NOW_MS, || [7; 10])), second);
}

/// The log's clock was two hours ahead for a moment: what was sent then is in nobody's way for ever.
#[test]
fn what_is_hours_ahead_and_unsure_is_given_up_as_not_known() {
    const HOURS: u64 = 2 * 3_600_000;
    let began = Instant::now();
    let ahead = |cid| (cid, Refusal { now_ms: Some(NOW_MS - HOURS), ..refusal(Code::ClockAhead) });
    let mut o = outbox(2);
    let local = add(&mut o, 1, "x");
    add(&mut o, 1, "behind it");
    let cid = hand(&mut o, began)[0].1;
    o.disconnected();
    let (mut now, mut failed) = (began, None);
    while failed.is_none() {
        assert!(now < began + Duration::from_secs(60), "it blocks its thread");
        for Handed { local: l, cid: c, .. } in o.hand(now, NOW_MS - HOURS, || [9; 10]) {
            if l == local {
                assert_eq!(c, cid, "never another cid");
                let (cid, why) = ahead(c);
                failed = o.refused(cid, why, now, 1.0);
            } else {
                o.refused(c, refusal(Code::OutOfOrder), now, 1.0);
            }
        }
        now = o.due().unwrap_or(now).max(now);
    }
    assert!(now >= began + Duration::from_secs(30), "an attempt may still be on its way");
    assert!(
        matches!(&failed, Some(Settled::Failed { refusal, .. }) if refusal.code == Code::ResendTooOld),
        "{failed:?}"
    );
    let next = o.hand(now + Duration::from_secs(60), NOW_MS - HOURS, || [8; 10]);
    assert!(next.len() == 1 && next[0].local != local && next[0].behind.is_none(), "the next one goes");
    assert!(o.rows()[0].unsure);
    assert!(
        matches!(o.sent(cid, MsgId(1)), Some(Settled::Sent { local: l, .. }) if l == local),
        "its own event still says so"
    );
}

#[test]
fn what_is_not_known_can_be_discarded_and_what_is_in_flight_cannot() {
    let (mut o, now) = (outbox(1), Instant::now());
    let (local, next) = (add(&mut o, 1, "x"), add(&mut o, 1, "y"));
    let cid = hand(&mut o, now)[0].1;
    assert!(!o.discard(local), "its answer is on the way");
    o.disconnected();
    assert!(o.rows()[0].unsure && !o.rows()[1].unsure);
    o.take_changes();
    assert!(o.discard(local) && !o.discard(local));
    assert_eq!(o.take_changes(), [Change::Remove(local)]);
    assert!(o.sent(cid, MsgId(1)).is_none());
    assert_eq!(hand(&mut o, now)[0].0, next, "nothing is in its way");
}

#[test]
fn what_was_stored_is_sent_again_after_a_restart() {
    let mut o = outbox(1);
    let now = Instant::now();
    add(&mut o, 1, "handed");
    add(&mut o, 2, "not yet");
    let cid = hand(&mut o, now)[0].1;
    let mut again = Outbox::new(o.rows(), 3, 16, 1);
    let handed = hand(&mut again, now);
    assert_eq!(handed[0], (Local(1), cid));
    let ahead = Refusal { now_ms: Some(NOW_MS), ..Refusal::new(Code::ClockAhead, "") };
    again.refused(cid, ahead, now, 0.0);
    assert!(again.due().is_some(), "nobody knows what the first process sent: never a new cid");
    assert_eq!(add(&mut again, 1, "new"), Local(3));
}

#[test]
fn what_the_store_did_not_take_never_was() {
    let mut o = outbox(1);
    let local = add(&mut o, 1, "x");
    hand(&mut o, Instant::now());
    o.forget(local);
    assert!(o.take_changes().is_empty() && o.waiting() == 0 && o.rows().is_empty());
    for t in 0..16 {
        add(&mut o, t, "x");
    }
    assert_eq!(hand(&mut o, Instant::now()).len(), 16, "the window is whole again");
}

#[test]
fn a_message_says_behind_which_it_goes() {
    let mut o = outbox(3);
    let now = Instant::now();
    for n in 0..4 {
        add(&mut o, 1, &n.to_string());
    }
    let first = handed(&mut o, now);
    assert_eq!(first.iter().map(|h| h.behind).collect::<Vec<_>>(), [None, Some(first[0].cid), Some(first[1].cid)]);
    o.sent(first[0].cid, MsgId(1));
    assert_eq!(handed(&mut o, now)[0].behind, Some(first[2].cid));
    for h in &first[1..] {
        o.sent(h.cid, MsgId(2));
    }
    add(&mut o, 2, "elsewhere");
    assert!(handed(&mut o, now)[0].behind.is_none());
}

#[test]
fn after_a_refusal_for_now_the_thread_waits_for_all_its_answers() {
    for code in Code::ALL.into_iter().filter(|c| c.retry() != Retry::Never) {
        let mut o = outbox(3);
        let now = Instant::now();
        for n in 0..4 {
            add(&mut o, 1, &n.to_string());
        }
        add(&mut o, 2, "elsewhere");
        let first = handed(&mut o, now);
        let at_once = matches!(code, Code::ClockAhead | Code::OutOfOrder);
        o.refused(first[0].cid, Refusal { retry_after_ms: Some(1_000), ..refusal(code) }, now, 0.0);
        let later = now + Duration::from_secs(2);
        assert!(hand(&mut o, later).is_empty() && o.due().is_none(), "{code:?}: two answers are still to come");
        o.refused(first[1].cid, refusal(Code::OutOfOrder), now, 0.0);
        o.sent(first[2].cid, MsgId(1));
        let wait = if at_once { Duration::ZERO } else { Duration::from_secs(1) };
        assert_eq!(o.due(), Some(now + wait), "{code:?}: only the first says when");
        let again = o.hand(later, NOW_MS + 1, || [9; 10]);
        assert_eq!(again.iter().map(|h| h.local.0).collect::<Vec<_>>(), [1, 2, 4], "{code:?}: in the old order");
        assert_eq!((again[0].behind, again[1].behind), (None, Some(again[0].cid)));
        assert_eq!(again[0].cid == first[0].cid, code != Code::ClockAhead);
    }
}

#[test]
fn what_was_certainly_not_stored_gets_a_new_cid_and_nothing_else_does() {
    for code in Code::ALL.into_iter().filter(|c| c.retry() != Retry::Never) {
        let mut o = outbox(1);
        let now = Instant::now();
        add(&mut o, 1, "x");
        let first = hand(&mut o, now)[0].1;
        o.refused(first, refusal(code), now, 0.0);
        let again = hand(&mut o, now + Duration::from_secs(1))[0].1;
        o.refused(again, Refusal { now_ms: Some(NOW_MS - 60_000), ..refusal(Code::ClockAhead) }, now, 0.0);
        let new = o.hand(now + Duration::from_secs(3_600), NOW_MS, || [9; 10])[0].cid != again;
        assert_eq!(new, code.means_not_stored(), "{code:?}");
    }
}

#[test]
fn a_wait_that_was_told_outlives_the_connection_and_has_an_end() {
    let mut o = outbox(1);
    let now = Instant::now();
    add(&mut o, 1, "x");
    let told = |ms| Refusal { retry_after_ms: Some(ms), ..refusal(Code::RateLimited) };
    let cid = hand(&mut o, now)[0].1;
    o.refused(cid, told(20_000), now, 0.5);
    o.disconnected();
    assert!(hand(&mut o, now + Duration::from_secs(19)).is_empty());
    let due = o.due().unwrap();
    assert!((20..=26).contains(&(due - now).as_secs()), "not before, and spread");
    hand(&mut o, due);
    o.refused(cid, told(u64::MAX), due, 1.0);
    assert!(o.due().unwrap() <= due + Duration::from_secs(4_500));
}

#[test]
fn an_own_event_settles_also_what_had_failed() {
    let mut o = outbox(1);
    let local = add(&mut o, 1, "x");
    let cid = hand(&mut o, Instant::now())[0].1;
    o.refused(cid, refusal(Code::ResendTooOld), Instant::now(), 0.0);
    assert!(o.refused(cid, refusal(Code::Unavailable), Instant::now(), 0.0).is_none());
    let mut again = Outbox::new(o.rows(), 2, 16, 1);
    for o in [&mut o, &mut again] {
        assert!(matches!(o.sent(cid, MsgId(5)), Some(Settled::Sent { local: l, .. }) if l == local));
        assert!(o.rows().is_empty() && o.take_changes().contains(&Change::Remove(local)));
    }
}
