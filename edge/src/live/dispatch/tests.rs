//! The loop without a socket, in paused time.

mod edge;

use std::time::Duration;

use bytes::Bytes;
use natterjack_nats::subjects;
use natterjack_protocol::{
    MsgId, Refusal, Times,
    client::close,
    internal::live::{self, LiveMessage},
    limits,
};
use tokio::time::sleep;

use self::edge::{BEGIN, Edge, GENERATION, closed, event, shown, thread, user};
use crate::{live::event::LiveEvent, sessions::outbox::Call};

#[tokio::test(start_paused = true)]
async fn a_gap_is_filled_before_later_events_are_shown() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    edge.event("a", 11, 10).await;
    assert_eq!(shown(&session), [11]);
    edge.event("a", 13, 12).await;
    edge.event("a", 14, 13).await;
    assert!(edge.live.is_repairing());
    assert!(shown(&session).is_empty(), "held until the gap is filled");
    let (gap, reply) = edge.fetch();
    assert_eq!((&*gap.thread, gap.after, gap.upto), ("dm.a.b", MsgId(11), MsgId(12)));
    reply.send(Ok(vec![LiveEvent::fetched(event(12, 11))])).unwrap();
    edge.settle().await;
    assert_eq!(shown(&session), [12, 13, 14]);
    assert!(!edge.live.is_repairing());
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_cannot_be_filled_sends_its_sessions_to_their_cursors() {
    let mut edge = Edge::start().await;
    let (session, other) = (edge.attach("a").await, edge.attach("b").await);
    edge.event("a", 13, 12).await;
    edge.fetch().1.send(Err(Refusal::unavailable("later"))).unwrap();
    edge.settle().await;
    assert_eq!((closed(&session), closed(&other)), (Some(close::RESYNC), None));
    assert!(!edge.live.is_repairing());
    assert!(!edge.written.lock().subscriptions.contains_key(&subjects::live_user_all(&user("a"))));
}

#[tokio::test(start_paused = true)]
async fn a_slow_session_is_closed_and_holds_up_nobody() {
    let mut edge = Edge::start().await;
    let (slow, quick) = (edge.attach("a").await, edge.attach("a").await);
    let last = BEGIN.0 + limits::OUTBOX_FRAMES as u64 + 1;
    let mut seen = Vec::new();
    for id in BEGIN.0 + 1..=last {
        edge.event("a", id, id - 1).await;
        seen.extend(shown(&quick));
    }
    assert_eq!(seen, (BEGIN.0 + 1..=last).collect::<Vec<_>>());
    assert_eq!((closed(&slow), closed(&quick)), (Some(close::SLOW_READER), None));
    edge.live.detach(&slow);
    edge.event("a", last + 1, last).await;
    assert_eq!(shown(&quick), [last + 1]);
    edge.live.detach(&quick);
    edge.settle().await;
    assert_eq!(edge.written.lock().subscriptions.len(), 2, "beats and presence alone");
}

#[tokio::test(start_paused = true)]
async fn after_a_silence_the_heads_are_compared() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    edge.beats(BEGIN).await;
    assert!(edge.clock.all_alive() && edge.written.lock().requests.is_empty());
    sleep(Times::default().beat_silence + Duration::from_secs(1)).await;
    assert!(!edge.clock.all_alive());
    edge.answer(BEGIN, MsgId(1), MsgId::NONE).await;
    edge.beats(MsgId(12)).await;
    assert!(edge.clock.all_alive());
    // Every partition, for each may have been silent; the thread's own says that something was missed.
    let mut asked = edge.answer(MsgId(12), MsgId(1), MsgId(12)).await;
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked, [0, 1]);
    let (gap, reply) = edge.fetch();
    assert_eq!((gap.after, gap.upto), (BEGIN, MsgId(12)));
    reply.send(Ok(vec![LiveEvent::fetched(event(12, 10))])).unwrap();
    edge.settle().await;
    assert_eq!(shown(&session), [12]);
    assert_eq!(closed(&session), None);

    sleep(Times::default().beat_silence + Duration::from_secs(1)).await;
    edge.answer(MsgId(12), MsgId(1), MsgId(12)).await;
    edge.beats(MsgId(60)).await;
    edge.answer(MsgId(60), MsgId(50), MsgId::NONE).await;
    assert_eq!(closed(&session), Some(close::RESYNC), "silent for longer than the holder remembers");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_behind_is_no_barrier_until_its_lease_is_over() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    edge.event("a", 11, 10).await;
    assert_eq!(shown(&session), [11]);
    let barrier = tokio::spawn({
        let (live, id) = (edge.live.clone(), session.id);
        async move { live.heads(id, Vec::new()).await }
    });
    edge.settle().await;
    edge.answer(MsgId(5), MsgId(1), MsgId::NONE).await;
    assert!(!barrier.is_finished(), "it knows less than what has come here");
    sleep(Times::default().role_lease + Duration::from_secs(2)).await;
    edge.answer(MsgId(5), MsgId(1), MsgId::NONE).await;
    assert!(barrier.await.unwrap().unwrap().partitions.iter().all(|p| p.frontier == MsgId(5)), "the log has lost it");
}

#[tokio::test(start_paused = true)]
async fn beats_of_another_generation_say_nothing_and_at_the_end_all_who_wait_are_told() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    for generation in [GENERATION - 1, GENERATION + 1] {
        edge.beat(0, generation, MsgId(99)).await;
    }
    assert_eq!(edge.clock.frontier(0), Some(BEGIN));
    let waits = tokio::spawn({
        let (live, id) = (edge.live.clone(), session.id);
        async move { live.heads(id, Vec::new()).await }
    });
    edge.settle().await;
    edge.stop.cancel();
    edge.dispatcher.await.unwrap();
    assert!(waits.await.unwrap().is_err());
    assert!(edge.live.unsubscribe(session.id, Vec::new()).await.is_err());
    edge.live.detach(&session);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_of_a_closed_topic_does_nothing_to_the_next_one_in_its_slot() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    edge.event("a", 13, 12).await;
    let slot = edge.written.lock().subscriptions[&subjects::live_user_all(&user("a"))];
    edge.live.detach(&session);
    edge.settle().await;
    let next = edge.attach_at("b", MsgId(13)).await;
    assert_eq!(edge.written.lock().subscriptions[&subjects::live_user_all(&user("b"))], slot);
    edge.fetch().1.send(Err(Refusal::unavailable("later"))).unwrap();
    edge.settle().await;
    assert_eq!(closed(&next), None);
    edge.event("b", 14, 13).await;
    assert_eq!(shown(&next), [14]);
}

#[tokio::test(start_paused = true)]
async fn batches_are_acknowledged_from_the_header_alone() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    let batch = edge.batch_acks.expect(&thread(), &user("b"), vec![event(11, 10).cid, event(12, 11).cid]);
    edge.live("a", Bytes::from_static(b"\x01 not a live message")).await;
    for (id, prev) in [(11, 10), (12, 11)] {
        let payload = live::encode_event(event(id, prev), false);
        let Ok(LiveMessage::Event { frame, .. }) = LiveMessage::parse(&payload) else { panic!("an event") };
        edge.live("a", payload.slice(..payload.len() - frame.len())).await;
    }
    assert_eq!(batch.ids().await, [MsgId(11), MsgId(12)]);
    let mut frames = Vec::new();
    session.outbox.take(&mut frames, usize::MAX);
    assert_eq!(frames, [Bytes::new(), Bytes::new()], "frames are handed on as they came");
}

/// As a long poll waits; a session over a socket is written to (`session/tests/writing`).
#[tokio::test(start_paused = true)]
async fn who_sleeps_is_woken_when_the_batch_is_done() {
    let mut edge = Edge::start().await;
    let session = edge.attach("a").await;
    for id in [11, 12] {
        let waits = tokio::spawn({
            let session = session.clone();
            async move { session.outbox.called().await }
        });
        edge.settle().await;
        assert!(!waits.is_finished());
        edge.event("a", id, id - 1).await;
        assert_eq!(waits.await.unwrap(), Call::Write);
        assert_eq!(shown(&session), [id]);
    }
}
