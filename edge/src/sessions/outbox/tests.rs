use futures_util::FutureExt;

use super::*;

fn frame(n: usize) -> Bytes {
    Bytes::from(vec![0; n])
}

#[test]
fn overflow_by_frames_and_by_bytes_closes_with_a_resumable_code() {
    let by_frames = SessionOutbox::default();
    (0..limits::OUTBOX_FRAMES).for_each(|_| by_frames.push(frame(1)));
    assert!(!by_frames.is_closed());
    by_frames.push(frame(1));
    let mut out = Vec::new();
    assert_eq!(by_frames.take(&mut out, usize::MAX), Some(close::SLOW_READER));
    assert!(out.is_empty(), "the queue is dropped as a whole");

    let by_bytes = SessionOutbox::default();
    by_bytes.push(frame(limits::OUTBOX_BYTES));
    assert!(!by_bytes.is_closed());
    by_bytes.push(frame(1));
    assert_eq!(by_bytes.take(&mut out, usize::MAX), Some(close::SLOW_READER));
}

#[test]
fn what_is_held_counts_and_leaves_room_behind_it() {
    let o = SessionOutbox::default();
    assert!(o.hold(limits::OUTBOX_BYTES / 2) && !o.hold(1), "half of it");
    o.push(frame(limits::OUTBOX_BYTES / 2));
    assert!(!o.is_closed());
    o.release(1, limits::OUTBOX_BYTES / 2);
    o.push(frame(limits::OUTBOX_BYTES / 2));
    assert!(!o.is_closed());
    o.push(frame(1));
    assert!(o.is_closed() && o.hold(1), "who is gone is not counted");
}

#[tokio::test]
async fn a_snapshot_waits_in_order_and_never_closes() {
    let o = SessionOutbox::default();
    let pages = limits::SNAPSHOT_BYTES / limits::PAGE_BYTES;
    for n in 0..pages {
        assert!(o.take_room(limits::PAGE_BYTES).now_or_never().unwrap());
        // One that is larger than its room, one that is smaller.
        o.push_snapshot(frame(if n == 0 { 2 * limits::PAGE_BYTES } else { limits::PAGE_BYTES }));
    }
    let mut all = Box::pin(o.take_room(limits::SNAPSHOT_BYTES));
    let mut page = Box::pin(o.take_room(limits::PAGE_BYTES));
    assert!(futures_util::poll!(all.as_mut()).is_pending() && futures_util::poll!(page.as_mut()).is_pending());
    o.push(frame(limits::OUTBOX_BYTES));
    assert!(!o.is_closed(), "live frames have their own room");
    let mut out = Vec::new();
    for _ in 1..pages {
        o.take(&mut out, 1);
    }
    assert!(
        futures_util::poll!(all.as_mut()).is_pending() && futures_util::poll!(page.as_mut()).is_pending(),
        "in order"
    );
    o.take(&mut out, 1);
    assert!(all.await);
    assert!(futures_util::poll!(page.as_mut()).is_pending());
    o.give_back(limits::SNAPSHOT_BYTES);
    assert!(page.await);
    let later = o.take_room(limits::SNAPSHOT_BYTES);
    o.close(close::DRAINING);
    assert!(!later.await, "who waits is told of the end");
}

#[test]
fn close_waits_for_what_is_queued() {
    let o = SessionOutbox::default();
    o.push(frame(10));
    o.push(frame(10));
    o.close(close::DRAINING);
    o.push(frame(10));
    let mut out = Vec::new();
    assert_eq!(o.take(&mut out, 5), None);
    assert_eq!(out.len(), 1);
    assert_eq!(o.take(&mut out, 5), Some(close::DRAINING));
    assert_eq!(out.len(), 2, "nothing is queued behind a close");
}

/// Counts its wakes.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicUsize);

impl futures_util::task::ArcWake for Woken {
    fn wake_by_ref(this: &std::sync::Arc<Self>) {
        this.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn a_session_is_woken_for_what_it_can_do_and_once() {
    let (o, woken) = (SessionOutbox::default(), std::sync::Arc::new(Woken::default()));
    let waker = futures_util::task::waker(woken.clone());
    let mut cx = Context::from_waker(&waker);
    let wakes = || woken.0.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(o.poll(&mut cx, WriterState::Idle, false), Poll::Pending);
    o.push(frame(1));
    o.push(frame(1));
    assert_eq!((wakes(), o.poll(&mut cx, WriterState::Idle, false)), (1, Poll::Ready(Call::Write)));
    o.take(&mut Vec::new(), usize::MAX);
    assert_eq!(o.poll(&mut cx, WriterState::Idle, false), Poll::Pending);
    assert!(!o.awake());
    o.push(frame(1));
    assert_eq!(
        (wakes(), o.poll(&mut cx, WriterState::Idle, false)),
        (1, Poll::Ready(Call::Write)),
        "what it says itself"
    );
    assert_eq!(o.poll(&mut cx, WriterState::Blocked, false), Poll::Pending, "its socket takes nothing");
    o.push(frame(1));
    assert_eq!(wakes(), 1);
    o.leave();
    assert_eq!((wakes(), o.poll(&mut cx, WriterState::Blocked, false)), (2, Poll::Ready(Call::Leave)));
    assert!(o.awake(), "before it reads on");
    assert_eq!(o.poll(&mut cx, WriterState::Idle, false), Poll::Ready(Call::Write), "what was said before");
    assert_eq!(o.poll(&mut cx, WriterState::Blocked, true), Poll::Pending, "it knows");
    o.close(close::DRAINING);
    assert_eq!(o.poll(&mut cx, WriterState::Blocked, true), Poll::Pending);
    o.close(close::BYE);
    assert_eq!(
        (wakes(), o.poll(&mut cx, WriterState::Idle, true)),
        (3, Poll::Ready(Call::Write)),
        "not for what it knows"
    );
    assert_eq!(o.take(&mut Vec::new(), usize::MAX), Some(close::DRAINING));
}

#[test]
fn the_last_value_of_an_ephemeral_wins() {
    let o = SessionOutbox::default();
    o.push_ephemeral(7, frame(3));
    o.push(frame(1));
    o.push_ephemeral(7, frame(4));
    let mut out = Vec::new();
    o.take(&mut out, usize::MAX);
    assert_eq!(out.iter().map(Bytes::len).collect::<Vec<_>>(), [4, 1]);
}
