//! Who is silent is pinged, then closed.

use std::time::Duration;

use natterjack_protocol::{
    MsgId, Refusal,
    client::{
        close,
        frame::{ClientFrame, ServerFrame},
    },
    limits,
};
use tokio::time::{Instant, sleep};

use super::{
    client::{Client, history, send},
    edge::Edge,
    settle,
};

const PING: u8 = 9;
const CLOSE: u8 = 8;

/// A tenth of it is jitter.
fn is_due(took: Duration, after: Duration) -> bool {
    took >= after && took < after.mul_f64(1.1) + Duration::from_millis(5)
}

async fn is_closed(client: &mut Client) {
    let (opcode, payload) = client.raw().await;
    assert_eq!((opcode, u16::from_be_bytes([payload[0], payload[1]])), (CLOSE, close::HEARTBEAT.code));
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_is_pinged_once_and_closed_without_an_answer() {
    let edge = Edge::new();
    let (mut client, begun) = (edge.client("a").await, Instant::now());
    assert_eq!(client.raw().await, (PING, Vec::new()));
    assert!(is_due(begun.elapsed(), edge.times.edge_ping), "{:?}", begun.elapsed());
    is_closed(&mut client).await;
    let (took, allowed) = (begun.elapsed(), edge.times.heartbeat_timeout);
    assert!(took >= allowed && took < allowed + Duration::from_millis(5), "{took:?}");
    client.session.await.unwrap();
    assert!(edge.sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pong_is_a_sign_of_life_and_the_only_one_that_is_needed() {
    let edge = Edge::new();
    let mut client = edge.client("a").await;
    for _ in 0..20 {
        let heard = Instant::now();
        assert_eq!(client.raw().await, (PING, Vec::new()));
        assert!(is_due(heard.elapsed(), edge.times.edge_ping), "one ping for each silence: {:?}", heard.elapsed());
        // The last moment.
        sleep(edge.times.heartbeat_timeout - heard.elapsed() - Duration::from_millis(2)).await;
        client.raw_pong().await;
    }
    assert_eq!(client.raw().await, (PING, Vec::new()));
    is_closed(&mut client).await;
}

#[tokio::test(start_paused = true)]
async fn who_keeps_the_heartbeat_is_not_pinged() {
    let edge = Edge::new();
    let mut client = edge.client("a").await;
    for _ in 0..100 {
        sleep(edge.times.heartbeat.mul_f64(1.4)).await;
        client.put(&ClientFrame::Ping).await;
        assert!(matches!(client.next().await, Ok(ServerFrame::Pong { .. })), "no ping comes before it");
    }
    let heard = Instant::now();
    assert_eq!(client.raw().await, (PING, Vec::new()));
    assert!(is_due(heard.elapsed(), edge.times.edge_ping), "{:?}", heard.elapsed());
}

/// Timers of pages in the background run once a minute.
#[tokio::test(start_paused = true)]
async fn one_frame_a_minute_is_enough_without_a_pong() {
    let edge = Edge::new();
    let mut client = edge.client("a").await;
    for _ in 0..20 {
        sleep(Duration::from_secs(60)).await;
        client.put(&ClientFrame::Ping).await;
        assert_eq!(client.raw().await, (PING, Vec::new()));
        assert!(client.raw().await.0 < CLOSE, "the pong frame");
    }
    assert!(!client.session.is_finished());
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_line_is_not_followed_by_a_ping() {
    let edge = Edge::new();
    let mut client = edge.client_over("a", 256).await;
    let contacts = ServerFrame::Contacts;
    (0..100).for_each(|_| edge.session().frame(&contacts));
    // It takes something before the line is given up, and says nothing.
    sleep(edge.times.heartbeat_timeout.mul_f64(0.8)).await;
    let mut taken = 0;
    while taken < 100 {
        let (opcode, _) = client.raw().await;
        assert_ne!(opcode, PING, "behind {taken} frames");
        taken += 1;
    }
    assert_eq!(client.raw().await, (PING, Vec::new()), "all was taken");
    is_closed(&mut client).await;
}

#[tokio::test(start_paused = true)]
async fn a_silence_begins_when_reads_go_on() {
    let mut edge = Edge::new();
    let mut client = edge.client("a").await;
    // As many as may be under way, and nothing behind them in the socket.
    client.put_all(&(0..limits::INFLIGHT_REQUESTS as u32 - 1).map(history).collect::<Vec<_>>()).await;
    client.put(&send(1, None)).await;
    settle().await;
    sleep(2 * edge.times.heartbeat_timeout).await;
    edge.log(Ok(MsgId(1))).await;
    assert_eq!(client.answer().await.1, Ok(1));
    assert_eq!(client.raw().await.0, PING, "before it is closed it is asked");
    client.raw_pong().await;
    edge.pages.recv().await.unwrap().1.send(Err(Refusal::invalid("no"))).unwrap();
    assert!(client.raw().await.0 < CLOSE, "the answer");
}
