//! The loop without a socket, in paused time.

mod buffers;
mod client;
mod edge;
mod heartbeat;
mod slow;
mod writing;

use std::time::Duration;

use futures_util::SinkExt;
use natterjack_protocol::{
    Code, MsgId, Refusal,
    client::{
        close,
        frame::{ClientFrame, Page, ServerFrame},
    },
    limits,
};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;

use self::{
    client::{history, send},
    edge::{Edge, PIPE, id},
};

/// Of an error frame.
fn refused(frame: Result<ServerFrame, u16>) -> (Option<u32>, Refusal) {
    match frame {
        Ok(ServerFrame::Error { r, refusal }) => (r, refusal),
        other => panic!("an error: {other:?}"),
    }
}

/// Time stands still while anything can run: all is done that waits for nobody.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn who_says_no_hello_in_time_is_closed() {
    let edge = Edge::new();
    let (mut client, begun) = (edge.connect(), Instant::now());
    assert_eq!(client.next().await, Err(close::HELLO_TIMEOUT.code));
    let took = begun.elapsed();
    assert!(took >= edge.times.hello && took < edge.times.hello + Duration::from_millis(10), "{took:?}");
    client.session.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_frame_is_a_hello_with_a_good_token() {
    let edge = Edge::new();
    let mut client = edge.connect();
    client.put_all(&[history(7), send(1, None)]).await;
    assert_eq!(refused(client.next().await).0, Some(7));
    assert_eq!(client.next().await, Err(close::BAD_FRAME.code));

    let mut client = edge.connect();
    client.hello("no token").await;
    assert_eq!(refused(client.next().await).1.code, Code::Unauthorized);
    assert_eq!(client.next().await, Err(close::UNAUTHORIZED.code));

    let mut client = edge.connect();
    client.put(&ClientFrame::Bye).await;
    assert_eq!(client.next().await, Err(close::BYE.code));
    assert!(edge.sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_drains_takes_nobody_in() {
    let edge = Edge::new();
    let (mut waits, mut comes) = (edge.connect(), edge.connect());
    settle().await;
    edge.status.change(|s| s.draining = true);
    assert_eq!(waits.next().await, Err(close::DRAINING.code));
    comes.hello("a/d/f").await;
    assert_eq!(comes.next().await, Err(close::DRAINING.code));
    assert!(edge.sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pong_vouches_for_what_is_below_it_only_when_all_was_shown() {
    let edge = Edge::new();
    let pong = async || {
        let mut client = edge.client("a").await;
        client.put(&ClientFrame::Ping).await;
        let Ok(ServerFrame::Pong { synced, .. }) = client.next().await else { panic!("a pong") };
        synced
    };
    assert_eq!(pong().await.as_deref(), Some("s1"));
    edge.attach_ends_with(Ok(false));
    assert_eq!(pong().await, None, "a thread could not be read");
}

#[tokio::test(start_paused = true)]
async fn an_attach_that_fails_closes_behind_its_reason() {
    let edge = Edge::new();
    for (refusal, why) in
        [(Refusal::unavailable("later"), close::UNAVAILABLE), (Refusal::invalid("cursors"), close::BAD_FRAME)]
    {
        edge.attach_ends_with(Err(refusal.clone()));
        let mut client = edge.connect();
        client.hello("a/d/f").await;
        assert!(matches!(client.next().await, Ok(ServerFrame::Welcome(_))));
        assert_eq!(refused(client.next().await), (None, refusal));
        assert_eq!(client.next().await, Err(why.code));
    }
}

#[tokio::test(start_paused = true)]
async fn frames_over_the_rate_are_refused_then_taken_again() {
    let mut edge = Edge::new();
    let mut client = edge.client("a").await;
    let burst = limits::FRAMES_BURST as usize;
    client.put_all(&vec![ClientFrame::Ping; burst]).await;
    client.put_all(&[send(1, None), send(2, Some(1))]).await;
    for n in 0..burst {
        assert!(matches!(client.next().await, Ok(ServerFrame::Pong { .. })), "frame {n} is within the burst");
    }
    for r in [1, 2] {
        let (of, refusal) = refused(client.next().await);
        assert_eq!((of, refusal.code, refusal.cid), (Some(r), Code::RateLimited, Some(edge::cid(r as u8))));
        // A quarter of the burst is there again by then.
        assert_eq!(refusal.retry_after_ms, Some(500));
    }
    assert!(edge.log.try_recv().is_err(), "what was refused is not sent");
    sleep(Duration::from_millis(500)).await;
    client.put_all(&vec![ClientFrame::Ping; burst / 4 - 2]).await;
    client.put_all(&[send(2, Some(1)), send(1, None)]).await;
    for _ in 0..burst / 4 - 2 {
        assert!(matches!(client.next().await, Ok(ServerFrame::Pong { .. })));
    }
    assert_eq!(client.answer().await, (2, Err(Code::OutOfOrder)), "it hangs on what was refused");
    assert_eq!(edge.log(Ok(MsgId(9))).await, [1]);
    assert_eq!(client.answer().await, (1, Ok(9)));
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_over_the_rate_is_closed() {
    let edge = Edge::new();
    let mut client = edge.client("a").await;
    let burst = limits::FRAMES_BURST as usize;
    client.put_all(&vec![ClientFrame::Ping; 2 * burst + 1]).await;
    let (frames, code) = client.rest().await;
    assert_eq!(code, close::FLOOD.code);
    let pongs = frames.iter().filter(|f| matches!(f, ServerFrame::Pong { .. })).count();
    assert_eq!((pongs, frames.len()), (burst, 2 * burst), "a whole burst of refusals before that");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_frame_is_told_so_and_in_the_end_closed() {
    let edge = Edge::new();
    let mut client = edge.client("a").await;
    client.ws().await.send(Message::Text("{}".into())).await.unwrap();
    assert_eq!(refused(client.next().await).1.code, Code::BadFrame);
    assert_eq!(client.next().await, Err(close::BAD_FRAME.code), "the other codec's frames");

    let mut client = edge.client("a").await;
    for _ in 0..11 {
        client.ws().await.feed(Message::Binary(b"\xff\xff"[..].into())).await.unwrap();
    }
    client.put(&ClientFrame::Ping).await;
    let (frames, code) = client.rest().await;
    assert_eq!(
        (frames.len(), code),
        (11, close::BAD_FRAME.code),
        "ten are forgiven, and nothing behind the last is taken"
    );
    assert!(frames.into_iter().all(|f| refused(Ok(f)).1.code == Code::BadFrame));
}

#[tokio::test(start_paused = true)]
async fn what_came_together_is_published_together_and_answered_in_order() {
    let mut edge = Edge::new();
    let mut client = edge.client("a").await;
    client.put_all(&[send(1, None), send(2, Some(1)), send(3, Some(2))]).await;
    settle().await;
    client.put(&send(4, Some(3))).await;
    assert_eq!(edge.log(Ok(MsgId(20))).await, [1, 2, 3], "one batch");
    assert_eq!(edge.log(Ok(MsgId(30))).await, [4], "what came meanwhile");
    for answer in [(1, Ok(20)), (2, Ok(21)), (3, Ok(22)), (4, Ok(30))] {
        assert_eq!(client.answer().await, answer);
    }
    // Its own messages are in the history that it asks for.
    client.put(&history(5)).await;
    let (min_id, reply) = edge.pages.recv().await.unwrap();
    assert_eq!(min_id, MsgId(30));
    reply.send(Ok(Page::default())).unwrap();
    assert!(matches!(client.next().await, Ok(ServerFrame::Page(p)) if p.r == Some(5)));
}

#[tokio::test(start_paused = true)]
async fn nothing_overtakes_a_refused_message() {
    let mut edge = Edge::new();
    let mut client = edge.client("a").await;
    client.put_all(&[send(1, None), send(2, Some(1)), send(3, None)]).await;
    let (batch, reply) = edge.log.recv().await.unwrap();
    assert_eq!(batch, [1, 2, 3]);
    // In the pipe when the refusal is made: it was written before anybody could know.
    client.put(&send(4, None)).await;
    reply.send(Err(Refusal::unavailable("later"))).unwrap();
    assert_eq!(client.answer().await, (1, Err(Code::Unavailable)));
    for r in [2, 3, 4] {
        assert_eq!(client.answer().await, (r, Err(Code::OutOfOrder)));
    }
    assert!(edge.log.try_recv().is_err());
    // All come again behind the refusals.
    client.put_all(&[send(1, None), send(2, Some(1)), send(3, Some(2)), send(4, Some(3))]).await;
    assert_eq!(edge.log(Ok(MsgId(5))).await, [1, 2, 3, 4]);
    for n in 1..=4 {
        assert_eq!(client.answer().await, (n, Ok(u64::from(n) + 4)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_pipelined_beyond_the_limit_waits_in_the_socket() {
    let mut edge = Edge::new();
    let mut client = edge.client("a").await;
    // As many as there is room for in the outbox are asked for at once, so one page after the other is answered.
    let most = limits::INFLIGHT_REQUESTS as u32;
    client.put_all(&(0..most).map(history).collect::<Vec<_>>()).await;
    client.put(&ClientFrame::Ping).await;
    settle().await;
    assert_eq!(edge.pages.len(), limits::SNAPSHOT_BYTES / limits::PAGE_BYTES, "room in its outbox is asked for first");
    sleep(2 * edge.times.heartbeat_timeout).await;
    assert!(!client.session.is_finished(), "reads are paused, so its silence is ours");
    edge.pages.recv().await.unwrap().1.send(Err(Refusal::invalid("no"))).unwrap();
    assert_eq!(refused(client.next().await).0, Some(0));
    assert!(matches!(client.next().await, Ok(ServerFrame::Pong { .. })), "there is room for one more");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_asked_to_leave_finishes_what_it_has_begun() {
    let mut edge = Edge::new();
    let (mut client, mut idle) = (edge.client("a").await, edge.client("b").await);
    client.put(&send(1, None)).await;
    let (_, reply) = edge.log.recv().await.unwrap();
    edge.sessions.all().iter().for_each(|s| s.outbox.leave());
    assert_eq!(idle.next().await, Err(close::DRAINING.code), "nothing holds it");
    client.put_all(&[send(2, Some(1)), ClientFrame::Ping]).await;
    settle().await;
    assert!(!client.session.is_finished(), "its message has no answer yet");
    reply.send(Ok(MsgId(3))).unwrap();
    assert_eq!(client.answer().await, (1, Ok(3)));
    assert_eq!(client.next().await, Err(close::DRAINING.code), "and what came behind is not taken");
    settle().await;
    assert!(edge.log.try_recv().is_err() && edge.sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_over_sends_nothing_more_and_opens_nothing() {
    let mut edge = Edge::new();
    let mut client = edge.client("a").await;
    edge.sessions.revoke(id("a"), id("d"), &id("a"));
    client.put(&send(1, None)).await;
    let (of, refusal) = refused(client.next().await);
    assert_eq!((of, refusal.code), (None, Code::Unauthorized));
    assert_eq!(client.next().await, Err(close::UNAUTHORIZED.code));
    settle().await;
    assert!(edge.log.try_recv().is_err() && edge.sessions.is_empty());

    // Revoked between the check of its token and its session.
    edge.revoked.put(id("a"), u64::MAX, 0);
    let mut client = edge.connect();
    client.hello("a/d/a").await;
    assert_eq!(refused(client.next().await).1.code, Code::Unauthorized);
    assert_eq!(client.next().await, Err(close::UNAUTHORIZED.code));
    assert!(edge.sessions.is_empty());
    edge.client("b").await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_session_of_the_device_replaces_the_older() {
    let mut edge = Edge::new();
    let mut old = edge.client("a").await;
    old.put(&send(1, None)).await;
    let (_, reply) = edge.log.recv().await.unwrap();
    let mut new = edge.client("a").await;
    assert_eq!(old.next().await, Err(close::REPLACED.code));
    reply.send(Ok(MsgId(1))).unwrap();
    new.put(&send(2, None)).await;
    assert_eq!(edge.log(Ok(MsgId(2))).await, [2]);
    assert_eq!(new.answer().await, (2, Ok(2)));
    assert_eq!(edge.sessions.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn bye_comes_behind_what_is_queued_and_an_end_without_a_word_clears_up_too() {
    let edge = Edge::new();
    let mut client = edge.client_over("a", PIPE).await;
    edge.session().frame(&ServerFrame::Contacts);
    client.put_all(&[ClientFrame::Ping, ClientFrame::Bye, ClientFrame::Ping]).await;
    let (frames, code) = client.rest().await;
    assert!(matches!(&frames[..], [ServerFrame::Contacts, ServerFrame::Pong { .. }]), "{frames:?}");
    assert_eq!(code, close::BYE.code);

    drop(edge.client("a").await);
    settle().await;
    assert!(edge.sessions.is_empty(), "its connection is lost");
    let gone = edge.client("b").await;
    let handle = edge.sessions.all().into_iter().find(|s| s.user == id("b")).unwrap();
    gone.session.abort();
    settle().await;
    assert!(
        handle.outbox.is_closed() && edge.sessions.all().iter().all(|s| s.user != id("b")),
        "also when it is dropped"
    );
}
