//! The client against a small edge of these tests: real sockets, both sides in one process. (Real edges: the end-to-end
//! tests.)

mod devices;
mod fake;
mod scenarios;
mod sending;
mod waking;

use std::{collections::BTreeMap, time::Duration};

use fake::{Fake, Session, tokens};
use natterjack_protocol::{
    Body, Cid, Code, Event, Kind, MsgId, Refusal, Thread, Token,
    client::{
        close::{self, Close},
        frame::{ClientFrame, Page, SendMessage, ServerFrame},
    },
};
use tokio::time::timeout;

use crate::{Builder, Client, ClientEvent, Events, OutboxStore};

fn thread() -> Thread {
    "dm.a.b".parse().unwrap()
}

fn client(fakes: &[&Fake]) -> Builder {
    Client::builder().edges(fakes.iter().map(|f| f.url.clone())).tokens(tokens("good"))
}

async fn until(events: &mut Events, wanted: impl Fn(&ClientEvent) -> bool) -> ClientEvent {
    let find = async {
        loop {
            let event = events.next().await.expect("the stream goes on");
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(Duration::from_secs(10), find).await.expect("the event comes")
}

async fn attached(fake: &mut Fake) -> Session {
    let mut session = fake.session().await;
    session.welcome().await;
    session.say(&ServerFrame::Attached { synced: "1.1".into() }).await;
    session
}

async fn a_send(session: &mut Session) -> SendMessage {
    loop {
        if let ClientFrame::Send(send) = session.hear().await {
            return send;
        }
    }
}

fn sent(send: &SendMessage, id: u64) -> ServerFrame {
    ServerFrame::Sent { r: send.r, cid: send.cid, thread: send.thread.clone(), id: MsgId(id) }
}

fn event(id: u64, prev: u64) -> ServerFrame {
    let (from, cid) = (Token::parse("b").unwrap(), Cid::mint(id, [1; 10]));
    let body = Body::text(id.to_string());
    ServerFrame::Event(Box::new(Event {
        thread: thread(),
        id: MsgId(id),
        prev: MsgId(prev),
        ts: id,
        from,
        cid,
        kind: Kind::Text,
        body,
    }))
}

#[tokio::test]
async fn a_page_that_leaves_a_gap_is_filled_and_the_cursor_is_said_next_time() {
    let mut fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = OutboxStore::File(dir.path().join("client.db"));
    let (first, mut events) = client(&[&fake]).store(store.clone()).connect().await.unwrap();
    let mut session = attached(&mut fake).await;
    session.say(&event(5, 0)).await;
    until(&mut events, |e| matches!(e, ClientEvent::Message(m) if m.id == MsgId(5))).await;
    session.say(&event(9, 7)).await;
    let ClientFrame::History(ask) = session.hear().await else { panic!("asks for what is missing") };
    assert_eq!((ask.after, ask.thread), (Some(MsgId(5)), Some(thread())));
    let ServerFrame::Event(seven) = event(7, 5) else { unreachable!() };
    session
        .say(&ServerFrame::Page(Page {
            r: Some(ask.r),
            thread: Some(thread()),
            events: vec![*seven],
            ..Page::default()
        }))
        .await;
    for id in [7, 9] {
        until(&mut events, |e| matches!(e, ClientEvent::Message(m) if m.id == MsgId(id))).await;
    }
    drop(events);
    first.close().await;

    let (_second, _events) = client(&[&fake]).store(store).connect().await.unwrap();
    let session = fake.session().await;
    assert_eq!(session.hello.cursors, BTreeMap::from([(thread(), MsgId(9))]));
    assert_eq!(session.hello.synced.as_deref(), Some("1.1"));
}

/// Said until the server has it, through connections and runs; and what other devices read is told once.
#[tokio::test]
async fn what_was_read_is_said_until_it_is_stored() {
    let mut fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = OutboxStore::File(dir.path().join("client.db"));
    let (first, mut events) = client(&[&fake]).store(store.clone()).connect().await.unwrap();
    let mut session = attached(&mut fake).await;
    session.say(&event(5, 0)).await;
    until(&mut events, |e| matches!(e, ClientEvent::Message(m) if m.id == MsgId(5))).await;
    let ClientFrame::Ack(acked) = session.hear_any().await else { panic!("says what it has got") };
    assert_eq!((acked.got, acked.read), (BTreeMap::from([(thread(), MsgId(5))]), BTreeMap::new()));
    first.read(thread(), MsgId(5)).await.unwrap();
    let ClientFrame::Ack(acked) = session.hear().await else { panic!("says what was read") };
    assert_eq!(acked.read, BTreeMap::from([(thread(), MsgId(5))]));
    // The edge dies before it has written it.
    drop(session);
    let mut session = attached(&mut fake).await;
    let ClientFrame::Ack(acked) = session.hear().await else { panic!("says it again") };
    assert_eq!(acked.read, BTreeMap::from([(thread(), MsgId(5))]));
    drop(events);
    first.close().await;

    let (second, mut events) = client(&[&fake]).store(store.clone()).connect().await.unwrap();
    let mut session = attached(&mut fake).await;
    let ClientFrame::Ack(acked) = session.hear().await else { panic!("the next run says it, too") };
    assert_eq!(acked.read, BTreeMap::from([(thread(), MsgId(5))]));
    let read = |id| ServerFrame::Read { threads: [(thread(), MsgId(id))].into() };
    session.say(&read(5)).await;
    session.say(&read(5)).await;
    session.say(&read(4)).await;
    session.say(&read(9)).await;
    let mut told = Vec::new();
    while told.last() != Some(&MsgId(9)) {
        if let ClientEvent::Read { id, .. } = timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap() {
            told.push(id);
        }
    }
    assert_eq!(told, [MsgId(5), MsgId(9)], "forward, and each once");
    // Flushed a moment later.
    second.close().await;
    let (_third, _events) = client(&[&fake]).store(store).connect().await.unwrap();
    let mut session = attached(&mut fake).await;
    let said = timeout(Duration::from_millis(700), session.hear()).await;
    assert!(said.is_err(), "it is stored: {said:?}");
}

#[tokio::test]
async fn a_draining_edge_is_left_before_it_goes() {
    let (mut old, mut new) = (Fake::start().await, Fake::start().await);
    let (client, mut events) = client(&[&old]).connect().await.unwrap();
    let mut session = attached(&mut old).await;
    session.say(&ServerFrame::Draining { after_ms: 1_000, edges: vec![new.url.clone()] }).await;
    let mut next = attached(&mut new).await;
    until(&mut events, |e| matches!(e, ClientEvent::Connected { edge } if *edge == new.url)).await;
    client.send_text(thread(), "on the new one").await.unwrap();
    let send = a_send(&mut next).await;
    next.say(&sent(&send, 3)).await;
    loop {
        let event = timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
        assert!(!matches!(event, ClientEvent::Reconnecting { .. }), "nobody notices");
        if matches!(event, ClientEvent::Sent { .. }) {
            break;
        }
    }
    assert!(matches!(session.hear().await, ClientFrame::Bye), "the old one is told");
}

#[tokio::test]
async fn another_edge_is_taken_when_one_is_gone_or_silent() {
    let (mut a, mut b) = (Fake::start().await, Fake::start().await);
    let (_client, mut events) = client(&[&a, &b]).heartbeat(Duration::from_millis(50)).connect().await.unwrap();
    // Neither answers a ping: each is left for the other.
    let (mut on_a, mut on_b) = (0, 0);
    let mut silent = Vec::new();
    while on_a < 2 || on_b < 2 {
        let mut session = tokio::select! {
            s = a.session() => { on_a += 1; s }
            s = b.session() => { on_b += 1; s }
        };
        session.welcome().await;
        silent.push(session);
        assert!(silent.len() < 20);
    }
    until(&mut events, |e| matches!(e, ClientEvent::Reconnecting { .. })).await;
}

#[tokio::test]
async fn close_codes_decide_whether_to_come_back() {
    let closed = async |code: Close| {
        let mut fake = Fake::start().await;
        let (_client, mut events) = client(&[&fake]).connect().await.unwrap();
        attached(&mut fake).await.close(code).await;
        let after =
            until(&mut events, |e| matches!(e, ClientEvent::Reconnecting { .. } | ClientEvent::Ended { .. })).await;
        (after, timeout(Duration::from_millis(900), fake.session()).await.is_ok())
    };
    let (event, back) = closed(close::REPLACED).await;
    assert!(matches!(event, ClientEvent::Ended { code: 4003, .. }) && !back, "{event:?}");
    for code in [close::RESYNC, close::SLOW_READER, close::UNAVAILABLE] {
        let (event, back) = closed(code).await;
        assert!(matches!(event, ClientEvent::Reconnecting { .. }) && back, "{code:?}: {event:?}");
    }
}

#[tokio::test]
async fn an_expired_token_is_renewed_once_and_stored() {
    let mut fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.db");
    let (client, mut events) = client(&[&fake]).store(OutboxStore::File(path.clone())).connect().await.unwrap();
    let mut session = fake.session().await;
    assert_eq!(session.hello.token, "good");
    session.say(&ServerFrame::error(None, Refusal::new(Code::TokenExpired, "expired"))).await;
    session.close(close::UNAUTHORIZED).await;
    let session = fake.session().await;
    assert_eq!(session.hello.token, "renewed-1");
    // The next refusal finds the refresh token revoked.
    fake.revoke();
    session.close(close::UNAUTHORIZED).await;
    until(&mut events, |e| matches!(e, ClientEvent::LoggedOut { .. })).await;
    client.close().await;
    let (_, stored) = crate::store::Store::open(&OutboxStore::File(path)).await.unwrap();
    assert_eq!(stored.tokens.unwrap().access, "renewed-1");
}

#[tokio::test]
async fn a_slow_app_can_still_send() {
    let mut fake = Fake::start().await;
    let (client, mut events) = client(&[&fake]).connect().await.unwrap();
    let mut session = attached(&mut fake).await;
    for id in 1..1_000 {
        session.say(&event(id, id - 1)).await;
    }
    client.send_text(thread(), "y").await.unwrap();
    let send = a_send(&mut session).await;
    session.say(&sent(&send, 5_000)).await;
    assert_eq!(client.flushed(Duration::from_secs(5)).await, Ok(()));
    until(&mut events, |e| matches!(e, ClientEvent::Message(m) if m.id == MsgId(999))).await;
}

/// Also over the list of a draining edge, where nothing waits for a backoff.
#[tokio::test]
async fn a_refusing_edge_is_not_dialled_again_before_its_time() {
    let mut old = Fake::start().await;
    let (url, mut dials, _tasks) = fake::scripted().await;
    let (_client, _events) = client(&[&old]).connect().await.unwrap();
    let mut session = attached(&mut old).await;
    session.say(&ServerFrame::Draining { after_ms: 20_000, edges: vec![url] }).await;
    let first = timeout(Duration::from_secs(10), dials.recv()).await.unwrap().unwrap();
    first.answer(503, &[("Retry-After".into(), "20".into())], "").await;
    // Leaving is tried again meanwhile, and here is nobody else but the old one.
    let again = tokio::select! {
        dial = dials.recv() => dial.is_some(),
        _ = old.session() => false,
        () = tokio::time::sleep(Duration::from_secs(3)) => false,
    };
    assert!(!again, "dialled again before its time");
}

/// The edge may wait for another one that is frozen, until the lease of that has run out.
#[tokio::test]
async fn a_welcome_that_takes_as_long_as_an_edge_may_need_is_waited_for() {
    let mut fake = Fake::start().await;
    let (_client, mut events) = client(&[&fake]).connect().await.unwrap();
    let mut slow = fake.session().await;
    let (longest, s) = (natterjack_protocol::Times::default().welcome, Duration::from_secs);
    let later = async |time: Duration| {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    };
    later(longest - s(1)).await;
    let again = timeout(Duration::from_millis(200), fake.session()).await;
    assert!(again.is_err(), "it has said hello again");
    slow.welcome().await;
    until(&mut events, |e| matches!(e, ClientEvent::Connected { .. })).await;
    // One that never comes is not waited for without end.
    drop(slow);
    let _silent = fake.session().await;
    later(longest).await;
    timeout(s(10), fake.session()).await.expect("says hello again");
}

#[tokio::test]
async fn who_replaces_itself_comes_back() {
    let (mut old, mut new) = (Fake::start().await, Fake::start().await);
    let (_client, mut events) = client(&[&old]).connect().await.unwrap();
    let mut session = attached(&mut old).await;
    session.say(&ServerFrame::Draining { after_ms: 1_000, edges: vec![new.url.clone()] }).await;
    // Its welcome is on the way when the old one is closed because of it.
    let _next = new.session().await;
    session.close(close::REPLACED).await;
    until(&mut events, |e| matches!(e, ClientEvent::Reconnecting { .. })).await;
    let again = tokio::select! {
        s = old.session() => s,
        s = new.session() => s,
    };
    drop(again);
}
