//! Readers that are too slow, and lines that take nothing.

use std::time::Duration;

use natterjack_protocol::client::frame::{ClientFrame, ServerFrame};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep},
};

use super::{edge::Edge, settle};

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_too_slow_is_expelled_and_costs_nobody_else_anything() {
    let edge = Edge::new();
    let mut slow = edge.client_over("a", 256).await;
    let handle = edge.session();
    let mut other = edge.client("b").await;
    // More than its line takes.
    let contacts = ServerFrame::Contacts;
    (0..100).for_each(|_| handle.frame(&contacts));
    settle().await;
    let begun = Instant::now();
    while !handle.outbox.is_closed() {
        handle.frame(&contacts);
    }
    settle().await;
    other.put(&ClientFrame::Ping).await;
    assert!(matches!(other.next().await, Ok(ServerFrame::Pong { .. })));
    (&mut slow.session).await.unwrap();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "a look at it, and the time for a goodbye: {took:?}");
    assert_eq!(edge.sessions.len(), 1, "the other");
    // No close: the line is full. What it had taken is whole frames and the beginning of one.
    let (frames, code) = slow.rest().await;
    assert!(code == 1006 && !frames.is_empty() && frames.iter().all(|f| *f == contacts), "{code}, {frames:?}");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
    let edge = Edge::new();
    let allowed = edge.times.heartbeat_timeout;
    let (mut deaf, mut slow) = (edge.client_over("a", 256).await, edge.client_over("b", 256).await);
    let begun = Instant::now();
    edge.sessions.all().iter().for_each(|s| (0..2_000).for_each(|_| s.frame(&ServerFrame::Contacts)));
    // It pings and takes a few bytes now and then; the deaf one pings only.
    let ping = ClientFrame::Ping;
    while !deaf.session.is_finished() {
        sleep(allowed / 4).await;
        slow.ws().await.get_mut().read_exact(&mut [0; 16]).await.unwrap();
        slow.put(&ping).await;
        if !deaf.session.is_finished() && begun.elapsed() < allowed {
            deaf.put(&ping).await;
        }
    }
    let took = begun.elapsed();
    assert!(took > allowed && took < allowed * 2, "{took:?}");
    for _ in 0..20 {
        sleep(allowed / 4).await;
        slow.ws().await.get_mut().read_exact(&mut [0; 16]).await.unwrap();
        slow.put(&ping).await;
    }
    assert!(!slow.session.is_finished() && edge.sessions.len() == 1);
}
