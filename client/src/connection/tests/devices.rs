//! One of several devices: what it says of itself, who takes over from it, and a login that somebody ended.

use std::time::Duration;

use natterjack_protocol::{
    Token,
    client::{
        close,
        frame::{DeviceClass, Displaced, OtherDevice, ServerFrame},
    },
};
use tokio::time::timeout;

use super::{a_send, attached, client, fake::Fake, sent, thread, until};
use crate::{Client, ClientEvent, ConnectError, OutboxStore};

fn displaced() -> Displaced {
    let by = OtherDevice { device: Token::parse("d2").unwrap(), name: None, class: DeviceClass::Phone };
    Displaced { by, since: 7 }
}

#[tokio::test]
async fn hello_says_what_the_device_is_and_which_session_it_had() {
    let mut fake = Fake::start().await;
    let phone = client(&[&fake]).class(DeviceClass::Phone).device_name(" Anna's   phone").app("Teich 1.4");
    let (_client, _events) = phone.connect().await.unwrap();
    let session = attached(&mut fake).await;
    let hello = session.hello.clone();
    assert_eq!((hello.class, hello.name.as_deref()), (DeviceClass::Phone, Some("Anna's phone")));
    assert_eq!((hello.app.as_deref(), hello.session), (Some("Teich 1.4"), None), "somebody opened the app");
    drop(session);
    let hello = fake.session().await.hello;
    assert_eq!(hello.session, Some(Token::parse("s1").unwrap()), "it came back by itself");
    assert_eq!(hello.name.as_deref(), Some("Anna's phone"));
    let refused = client(&[&fake]).device_name("two\nlines").connect().await;
    assert!(matches!(refused, Err(ConnectError::Text(_))), "before an edge refuses it");
}

#[tokio::test]
async fn who_was_displaced_stays_away_until_the_app_takes_over() {
    let mut fake = Fake::start().await;
    let (client, mut events) = client(&[&fake]).connect().await.unwrap();
    let mut session = attached(&mut fake).await;
    until(&mut events, |e| matches!(e, ClientEvent::Attached)).await;
    assert!(!client.take_over().await.unwrap(), "it is in");
    session.say(&ServerFrame::Displaced(displaced())).await;
    session.close(close::DISPLACED).await;
    assert_eq!(until(&mut events, |_| true).await, ClientEvent::Displaced(displaced()));
    client.wake();
    client.send_text(thread(), "meanwhile").await.unwrap();
    // Longer than the first wait of the backoff.
    assert!(timeout(Duration::from_millis(900), fake.session()).await.is_err(), "nothing is dialled");

    assert!(client.take_over().await.unwrap());
    let mut session = attached(&mut fake).await;
    assert_eq!(session.hello.session, None, "so that the other one leaves");
    let connected = until(&mut events, |_| true).await;
    assert!(matches!(connected, ClientEvent::Connected { .. }), "{connected:?}");
    let send = a_send(&mut session).await;
    session.say(&sent(&send, 3)).await;
    until(&mut events, |e| matches!(e, ClientEvent::Sent { .. })).await;
}

/// A password is for a login that ran out. Whoever ends one sees it end.
#[tokio::test]
async fn a_login_that_was_ended_is_not_made_again_by_itself() {
    let mut fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = OutboxStore::File(dir.path().join("client.db"));
    let (first, _events) = client(&[&fake]).store(store.clone()).connect().await.unwrap();
    drop(fake.session().await);
    first.close().await;
    let (_client, mut events) =
        Client::builder().edges([fake.url.clone()]).login("a", "secret").store(store).connect().await.unwrap();
    let session = attached(&mut fake).await;
    fake.revoke();
    session.close(close::UNAUTHORIZED).await;
    // This edge answers no login, so one that is tried is tried again for ever.
    until(&mut events, |e| matches!(e, ClientEvent::LoggedOut { .. })).await;
}
