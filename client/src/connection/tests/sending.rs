//! The outbox over a socket: what is handed, again, refused, and settled.

use std::time::Duration;

use natterjack_protocol::{
    Body, Code, Event, Kind, MsgId, Refusal, Token,
    client::frame::{ClientFrame, Page, SendMessage, ServerFrame, ThreadSummary, ThreadsQuery},
    codec::Codec,
};
use tokio::time::timeout;

use super::{a_send, attached, client, event, fake, fake::Fake, sent, thread, until};
use crate::ClientEvent;

#[tokio::test]
async fn a_lost_connection_resends_with_the_same_cid_minted_in_the_servers_time() {
    for codec in Codec::ALL {
        let mut fake = Fake::start().await;
        let (client, mut events) = client(&[&fake]).codec(codec).connect().await.unwrap();
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.send_and_wait(thread(), Kind::Text, Body::text("quak")).await }
        });
        let mut session = attached(&mut fake).await;
        let first = a_send(&mut session).await;
        assert!(first.cid.unix_ms().abs_diff(fake::NOW) < 5_000, "the server's time, not the machine's");
        drop(session);
        let mut session = attached(&mut fake).await;
        let again = a_send(&mut session).await;
        assert_eq!((again.cid, &again.body), (first.cid, &first.body));
        session.say(&sent(&again, 77)).await;
        assert_eq!(waiting.await.unwrap().unwrap(), (first.cid, MsgId(77)));
        until(&mut events, |e| matches!(e, ClientEvent::Sent { id: MsgId(77), .. })).await;
        assert_eq!(client.flushed(Duration::from_secs(5)).await, Ok(()));
    }
}

#[tokio::test]
async fn nothing_is_handed_before_the_session_is_attached() {
    let mut fake = Fake::start().await;
    let (client, _events) = client(&[&fake]).connect().await.unwrap();
    client.send_text(thread(), "early").await.unwrap();
    let mut session = fake.session().await;
    session.welcome().await;
    assert!(
        timeout(Duration::from_millis(200), session.hear()).await.is_err(),
        "the edge does not know the session's threads yet"
    );
    session.say(&ServerFrame::Attached { synced: "1.1".into() }).await;
    a_send(&mut session).await;
}

#[tokio::test]
async fn a_refused_message_fails_and_an_app_that_reads_nothing_stops_nobody() {
    let mut fake = Fake::start().await;
    let (client, events) = client(&[&fake]).connect().await.unwrap();
    drop(events);
    let mut session = attached(&mut fake).await;
    let failing = tokio::spawn({
        let client = client.clone();
        async move { client.send_and_wait(thread(), Kind::Text, Body::text("x")).await }
    });
    let send = a_send(&mut session).await;
    session.say(&ServerFrame::error(Some(send.r), Refusal::new(Code::Blocked, "blocked").with_cid(send.cid))).await;
    assert!(matches!(failing.await.unwrap(), Err(crate::SendError::Refused(r)) if r.code == Code::Blocked));
    assert_eq!(client.unsent(), 0);
    let failed = client.outbox().await.unwrap();
    assert!(failed[0].failed.is_some());
    assert!(client.discard(failed[0].local).await.unwrap());
    for id in 1..3_000 {
        session.say(&event(id, id - 1)).await;
    }
    client.send_text(thread(), "y").await.unwrap();
    a_send(&mut session).await;
    client.close().await;
    assert!(matches!(client.send_text(thread(), "z").await, Err(crate::SendError::Closed)));
}

#[tokio::test]
async fn who_knows_the_local_key_finds_the_message_counted() {
    let fake = Fake::start().await;
    let (client, _events) = client(&[&fake]).connect().await.unwrap();
    for n in 1..=50 {
        client.send_text(thread(), "x").await.unwrap();
        assert_eq!(client.unsent(), n);
    }
    assert_eq!(client.flushed(Duration::from_millis(20)).await, Err(50));
}

#[tokio::test]
async fn own_events_settle_wherever_they_stand() {
    let own = |send: &SendMessage, id: u64, prev: u64| Event {
        thread: thread(),
        id: MsgId(id),
        prev: MsgId(prev),
        ts: id,
        from: Token::parse("a").unwrap(),
        cid: send.cid,
        kind: send.kind,
        body: send.body.clone(),
    };
    let mut fake = Fake::start().await;
    let (client, mut events) = client(&[&fake]).connect().await.unwrap();
    let mut session = attached(&mut fake).await;
    session.say(&event(5, 0)).await;
    let page = |r, events| ServerFrame::Page(Page { r, thread: Some(thread()), events, ..Page::default() });
    for n in 0..4 {
        client.send_text(thread(), n.to_string()).await.unwrap();
        let send = a_send(&mut session).await;
        let event = own(&send, 10 + n, 9 + n);
        match n {
            // After `sync`, or joining.
            0 => session.say(&page(None, vec![event])).await,
            // A gap.
            1 => {
                session.say(&super::event(40, 30)).await;
                let ClientFrame::History(ask) = session.hear().await else { panic!("asks for what is missing") };
                session.say(&page(Some(ask.r), vec![event])).await;
            }
            // Somebody scrolls.
            2 => {
                let (client, thread) = (client.clone(), thread());
                let asked = tokio::spawn(async move { client.history(thread, crate::At::Newest, 10).await });
                let ClientFrame::History(ask) = session.hear().await else { panic!("asks") };
                session.say(&page(Some(ask.r), vec![event])).await;
                assert_eq!(asked.await.unwrap().unwrap().events.len(), 1);
            }
            // The list of threads.
            _ => {
                let client = client.clone();
                let asked = tokio::spawn(async move { client.threads(10, None).await });
                let ClientFrame::Threads(ThreadsQuery { r, .. }) = session.hear().await else { panic!("asks") };
                let summary = ThreadSummary { last: Some(event), ..ThreadSummary::of(thread()) };
                session
                    .say(&ServerFrame::Threads { r, threads: vec![summary], next: None, synced: String::new() })
                    .await;
                assert_eq!(asked.await.unwrap().unwrap().threads.len(), 1);
            }
        }
        until(&mut events, |e| matches!(e, ClientEvent::Sent { id, .. } if id.0 == 10 + n)).await;
    }
}
