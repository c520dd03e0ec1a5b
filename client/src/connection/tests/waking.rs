//! A device that slept, or whose network is another one.

use std::time::{Duration, Instant};

use natterjack_protocol::client::frame::{ClientFrame, ServerFrame};
use tokio::time::timeout;

use super::{a_send, attached, client, fake, fake::Fake, thread, until};
use crate::ClientEvent;

const HOUR: u64 = 3_600_000;

fn pong(now: u64) -> ServerFrame {
    ServerFrame::Pong { now, synced: None }
}

#[tokio::test]
async fn a_silent_edge_is_left_within_two_seconds() {
    let (mut dead, mut other) = (Fake::start().await, Fake::start().await);
    let (client, mut events) = client(&[&dead, &other]).connect().await.unwrap();
    // Whichever is dialled first says nothing more.
    let _silent = tokio::select! {
        mut s = dead.session() => { s.welcome().await; s }
        mut s = other.session() => { s.welcome().await; s }
    };
    until(&mut events, |e| matches!(e, ClientEvent::Connected { .. })).await;
    let begun = Instant::now();
    client.network_changed();
    let next = async {
        tokio::select! { s = dead.session() => s, s = other.session() => s }
    };
    timeout(Duration::from_secs(2), next).await.expect("dialled anew");
    assert!(begun.elapsed() >= Duration::from_millis(900), "an edge has a second to answer: {:?}", begun.elapsed());
}

#[tokio::test]
async fn after_a_sleep_the_first_message_waits_for_the_servers_time() {
    let mut fake = Fake::start().await;
    let (client, mut events) = client(&[&fake]).connect().await.unwrap();
    let mut session = attached(&mut fake).await;
    until(&mut events, |e| matches!(e, ClientEvent::Attached)).await;
    client.wake();
    assert_eq!(session.hear_any().await, ClientFrame::Ping, "asked at once");
    client.send_text(thread(), "good morning").await.unwrap();
    assert!(timeout(Duration::from_millis(300), session.hear_any()).await.is_err(), "what time it is, is not known");
    session.say(&pong(fake::NOW + HOUR)).await;
    let send = a_send(&mut session).await;
    assert!(send.cid.unix_ms().abs_diff(fake::NOW + HOUR) < 5_000);
}

/// An answer that waited in the device while it slept is as old as the sleep.
#[tokio::test]
async fn a_pong_for_an_older_ping_says_nothing() {
    let mut fake = Fake::start().await;
    let (client, mut events) = client(&[&fake]).heartbeat(Duration::from_millis(400)).connect().await.unwrap();
    let mut session = attached(&mut fake).await;
    until(&mut events, |e| matches!(e, ClientEvent::Attached)).await;
    assert_eq!(session.hear_any().await, ClientFrame::Ping, "its heartbeat");
    client.wake();
    assert_eq!(session.hear_any().await, ClientFrame::Ping);
    session.say(&pong(fake::NOW)).await;
    client.send_text(thread(), "good morning").await.unwrap();
    assert!(timeout(Duration::from_millis(150), session.hear_any()).await.is_err(), "one of two is answered");
    session.say(&pong(fake::NOW + HOUR)).await;
    assert!(a_send(&mut session).await.cid.unix_ms().abs_diff(fake::NOW + HOUR) < 5_000);
}

#[tokio::test]
async fn an_edge_that_answers_is_kept() {
    let mut fake = Fake::start().await;
    let (client, mut events) = client(&[&fake]).connect().await.unwrap();
    let mut session = attached(&mut fake).await;
    until(&mut events, |e| matches!(e, ClientEvent::Attached)).await;
    for _ in 0..3 {
        client.network_changed();
        assert_eq!(session.hear_any().await, ClientFrame::Ping);
        session.say(&pong(fake::NOW)).await;
    }
    assert!(timeout(Duration::from_secs(2), fake.session()).await.is_err(), "nothing is dialled");
}

/// The server's time decides when a token is renewed: nothing was refused, and the device's clocks have not moved.
#[tokio::test]
async fn a_token_that_ran_out_during_a_sleep_is_renewed_before_it_is_shown() {
    let mut fake = Fake::start().await;
    let (client, mut events) = client(&[&fake]).connect().await.unwrap();
    let mut session = attached(&mut fake).await;
    assert_eq!(session.hello.token, "good");
    until(&mut events, |e| matches!(e, ClientEvent::Attached)).await;
    client.wake();
    assert_eq!(session.hear_any().await, ClientFrame::Ping);
    session.say(&pong(fake::NOW + 2 * HOUR)).await;
    client.send_text(thread(), "good morning").await.unwrap();
    a_send(&mut session).await;
    drop(session);
    assert_eq!(fake.session().await.hello.token, "renewed-1");
}
