//! The dispatcher writes while the session's task sleeps; the task goes on where it stops.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use natterjack_protocol::{
    MsgId,
    client::{
        close,
        frame::{ClientFrame, ServerFrame},
    },
    codec::Codec,
};
use proptest::prelude::*;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::{client::send, edge::Edge, settle};
use crate::sessions::handle::SessionHandle;

/// A frame with a number, which no session sends by itself here.
fn numbered(now: u64) -> ServerFrame {
    ServerFrame::Pong { now, synced: Some("n".into()) }
}

/// As the dispatcher does with a batch. True: it had to write.
fn deliver(session: &SessionHandle, numbers: impl IntoIterator<Item = u64>) -> bool {
    let unwritten: Vec<bool> =
        numbers.into_iter().map(|n| session.outbox.push_unwritten(numbered(n).encode(Codec::Msgpack))).collect();
    let writes = unwritten.contains(&true);
    if writes {
        session.outbox.write();
    }
    writes
}

fn number(frame: Result<ServerFrame, u16>) -> u64 {
    match frame {
        Ok(ServerFrame::Pong { now, synced: Some(n) }) if n == "n" => now,
        other => panic!("one with a number: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_is_in_the_socket_before_its_session_runs() {
    let edge = Edge::new();
    let mut client = edge.client("a").await;
    let session = edge.session();
    settle().await;
    for n in 0..10 {
        assert!(deliver(&session, [2 * n, 2 * n + 1]), "asleep again");
        // One thread, and nothing was waited for: nobody else can have written.
        for n in [2 * n, 2 * n + 1] {
            assert_eq!(number(client.next().now_or_never().expect("it is there")), n);
        }
    }
    client.put(&ClientFrame::Ping).await;
    assert!(matches!(client.next().await, Ok(ServerFrame::Pong { synced, .. }) if synced.as_deref() == Some("s1")));
}

#[tokio::test(start_paused = true)]
async fn a_session_at_work_writes_what_comes_meanwhile_itself() {
    let edge = Edge::new();
    let mut client = edge.client("a").await;
    let session = edge.session();
    settle().await;
    // Woken, and has not run yet.
    session.frame(&ServerFrame::Contacts);
    assert!(!deliver(&session, 0..5));
    assert_eq!(client.next().await, Ok(ServerFrame::Contacts));
    for n in 0..5 {
        assert_eq!(number(client.next().await), n);
    }
    settle().await;
    assert!(deliver(&session, [5]));
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_an_answer_is_left_to_the_session() {
    let mut edge = Edge::new();
    let mut client = edge.client("a").await;
    let session = edge.session();
    client.put(&send(1, None)).await;
    let (_, reply) = edge.log.recv().await.unwrap();
    settle().await;
    // Its own event, and the answer right behind it.
    assert!(deliver(&session, [1]));
    assert!(client.next().now_or_never().is_none(), "it is woken, and nothing is written yet");
    reply.send(Ok(MsgId(1))).unwrap();
    assert_eq!(number(client.next().await), 1);
    assert_eq!(client.answer().await, (1, Ok(1)));
    settle().await;
    assert!(deliver(&session, [2]) && number(client.next().now_or_never().unwrap()) == 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_full_socket_does_not_take_is_written_by_its_session() {
    let edge = Edge::new();
    let mut client = edge.client_over("a", 100).await;
    let mut other = edge.client_over("b", 100).await;
    let (session, other_session) = {
        let mut all = edge.sessions.all();
        all.sort_by_key(|s| s.id);
        (all[0].clone(), all[1].clone())
    };
    settle().await;
    // More than the pipe takes: the last of what fits is half a frame.
    assert!(deliver(&session, 0..50));
    settle().await;
    assert!(!deliver(&session, 50..100), "it waits for its socket");
    assert!(deliver(&other_session, [7]) && number(other.next().await) == 7, "it costs nobody else anything");
    for n in 0..100 {
        assert_eq!(number(client.next().await), n);
    }
    settle().await;
    assert!(deliver(&session, [100]) && number(client.next().await) == 100, "it is as before");
}

#[tokio::test(start_paused = true)]
async fn a_close_comes_behind_what_the_dispatcher_has_queued_and_half_written() {
    let edge = Edge::new();
    let mut client = edge.client_over("a", 100).await;
    let session = edge.session();
    settle().await;
    assert!(deliver(&session, 0..20));
    session.outbox.close(close::RESYNC);
    assert!(!deliver(&session, [20]), "nothing is queued behind a close");
    let (frames, code) = client.rest().await;
    assert_eq!(code, close::RESYNC.code);
    assert_eq!(frames.into_iter().map(|f| number(Ok(f))).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());

    let mut client = edge.client("a").await;
    let session = edge.session();
    settle().await;
    assert!(session.outbox.push_unwritten(numbered(1).encode(Codec::Msgpack)));
    session.outbox.close(close::RESYNC);
    assert_eq!(session.outbox.write(), 0, "the session does, and closes");
    assert_eq!(number(client.next().await), 1);
    assert_eq!(client.next().await, Err(close::RESYNC.code));
    settle().await;
    assert_eq!(session.outbox.write(), 0, "there is no socket any more");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_gone_is_found_out() {
    let edge = Edge::new();
    let client = edge.client("a").await;
    let session = edge.session();
    settle().await;
    drop(client);
    deliver(&session, [1]);
    settle().await;
    assert!(edge.sessions.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    /// The dispatcher delivers so many, and its batch goes on.
    Deliver(u8),
    EndOfBatch,
    /// Somebody else queues one.
    Other,
    /// The session has an answer to give.
    Ask,
    Hear,
    /// Whoever can run does.
    Run,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u8..8).prop_map(Step::Deliver),
        3 => Just(Step::EndOfBatch),
        2 => Just(Step::Other),
        1 => Just(Step::Ask),
        3 => Just(Step::Hear),
        3 => Just(Step::Run),
    ]
}

async fn play(steps: Vec<Step>) {
    let edge = Edge::new();
    // A few frames fill it.
    let mut client = edge.client_over("a", 100).await;
    let session = edge.session();
    let (mut queued, mut unwritten, mut heard) = (0, false, Vec::new());
    for step in steps.into_iter().chain([Step::EndOfBatch]) {
        match step {
            Step::Deliver(count) => {
                for n in queued..queued + u64::from(count) {
                    unwritten |= session.outbox.push_unwritten(numbered(n).encode(Codec::Msgpack));
                }
                queued += u64::from(count);
            }
            Step::EndOfBatch if std::mem::take(&mut unwritten) => drop(session.outbox.write()),
            Step::EndOfBatch => {}
            Step::Other => {
                session.frame(&numbered(queued));
                queued += 1;
            }
            Step::Ask => client.put(&ClientFrame::Ping).await,
            Step::Hear => heard.extend(client.next().now_or_never()),
            Step::Run => settle().await,
        }
    }
    let number = |frame: &Result<ServerFrame, u16>| match frame {
        Ok(ServerFrame::Pong { now, synced: Some(n) }) if n == "n" => Some(*now),
        _ => None,
    };
    while heard.iter().filter_map(number).count() < queued as usize {
        // A ping of a session that has forgotten something would not be a frame.
        heard.push(client.next().await);
    }
    assert!(heard.iter().filter_map(number).eq(0..queued), "{heard:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn everything_that_is_queued_is_written_once_and_in_order(steps in prop::collection::vec(any_step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(steps));
    }
}

/// Answers of the session, deliveries, frames of other tasks and control frames at the same time, over a socket that is
/// full all the time: each source's own order stays and no frame is torn.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn frames_of_all_sources_keep_their_order() {
    const EACH: u64 = 3_000;
    let edge = Edge::new();
    let client = edge.client_over_tcp("a").await;
    let session = edge.session();
    let (ended, pause) = (Arc::new(AtomicBool::new(false)), Duration::from_micros(200));
    let dispatcher = tokio::spawn({
        let session = session.clone();
        async move {
            let mut wrote = 0;
            for first in (0..EACH).step_by(3) {
                while session.outbox.is_behind() {
                    tokio::task::yield_now().await;
                }
                wrote += usize::from(deliver(&session, first..first + 3));
                if first % 10 == 0 {
                    // Now and then it finds the session asleep.
                    sleep(pause).await;
                }
            }
            wrote
        }
    });
    let others = tokio::spawn({
        let session = session.clone();
        async move {
            for n in 0..EACH {
                while session.outbox.is_behind() {
                    tokio::task::yield_now().await;
                }
                session.outbox.push(numbered(EACH + n).encode(Codec::Msgpack));
                if n % 10 == 0 {
                    // Or it would be done before the dispatcher has begun.
                    sleep(pause).await;
                }
            }
        }
    });
    let (mut asks, mut hears) = client.into_ws().await.split();
    let asking = tokio::spawn({
        let ended = ended.clone();
        async move {
            let mut n = 0u64;
            while !ended.load(Relaxed) {
                asks.send(Message::Ping(Bytes::copy_from_slice(&n.to_be_bytes()))).await.unwrap();
                if n < 1_000 {
                    asks.send(Message::Binary(ClientFrame::Ping.encode(Codec::Msgpack))).await.unwrap();
                }
                n += 1;
                sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let mut next = [0, EACH];
    let (mut answers, mut pong) = (0, None);
    while next != [EACH, 2 * EACH] {
        match timeout(Duration::from_secs(30), hears.next()).await.expect("nothing gets stuck") {
            Some(Ok(Message::Binary(bytes))) => match ServerFrame::decode(Codec::Msgpack, &bytes).unwrap().unwrap() {
                ServerFrame::Pong { synced: Some(synced), .. } if synced == "s1" => answers += 1,
                frame => {
                    let n = number(Ok(frame));
                    let source = &mut next[usize::from(n >= EACH)];
                    assert_eq!(n, *source);
                    *source += 1;
                }
            },
            Some(Ok(Message::Pong(bytes))) => {
                let n = u64::from_be_bytes(bytes[..].try_into().unwrap());
                assert!(pong.replace(n).is_none_or(|before| before < n));
            }
            other => panic!("a whole frame: {other:?}"),
        }
    }
    ended.store(true, Relaxed);
    asking.await.unwrap();
    others.await.unwrap();
    let wrote = dispatcher.await.unwrap();
    assert!(wrote > 0 && answers > 0 && pong.is_some(), "{wrote}, {answers}, {pong:?}");
}
