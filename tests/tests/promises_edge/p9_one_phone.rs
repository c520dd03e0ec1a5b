//! P9: of the devices of one class as many are in as the installation says, over all edges, whatever freezes.

use std::time::Duration;

use natterjack_protocol::{
    Kind,
    client::frame::{ClientFrame, DeviceClass, Hello, SendMessage},
};
use natterjack_tests::kit::{Cluster, ClusterSpec, User};
use tokio::time::Instant;

use super::{
    common::{ReadLog, SOON},
    devices::{Greeted, phone, say, session, told},
};

#[tokio::test]
async fn two_phones_at_the_same_moment_at_two_edges_and_one_is_in() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let one = &cluster.mint_users(1).await[0];
    let other = cluster.other_device(one, "d-other");
    for round in 0..50 {
        let (a, b) = tokio::join!(say(&cluster, 0, phone(one, None)), say(&cluster, 1, phone(&other, None)));
        let (mut inside, mut out) = (Vec::new(), 0);
        for greeted in [a, b] {
            match greeted {
                Greeted::In(ws) => inside.push(*ws),
                Greeted::Displaced(_, code) => {
                    assert_eq!(code, 4011);
                    out += 1;
                }
                Greeted::Closed(code) => panic!("closed with {code}"),
            }
        }
        // Who was greeted first may have been displaced since.
        let mut left = 0;
        let many = inside.len();
        for ws in &mut inside {
            let wait = if many == 1 { Duration::from_millis(10) } else { Duration::from_millis(400) };
            left += usize::from(told(ws, wait).await.is_none());
        }
        assert_eq!(left, 1, "round {round}: {many} were greeted, {out} were not");
    }
}

#[tokio::test]
async fn a_phone_that_was_displaced_learns_by_whom_and_comes_back_only_for_its_user() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let one = &cluster.mint_users(1).await[0];
    let other = cluster.other_device(one, "d-other");
    let mut a = say(&cluster, 0, phone(one, None)).await.inside();
    let before = session(&a);
    let mut b = say(&cluster, 1, phone(&other, None)).await.inside();
    let by = told(&mut a, SOON).await.expect("the older one is told");
    assert_eq!((by.by.name.as_deref(), by.by.class), (Some("phone d-other"), DeviceClass::Phone));
    // By itself: it was away, and could not be told.
    match say(&cluster, 0, phone(one, Some(&before))).await {
        Greeted::Displaced(by, code) => assert_eq!((by.by.device.as_str(), code), ("d-other", 4011)),
        _ => panic!("let in"),
    }
    // The same device at another edge replaces itself, and comes back by itself.
    let held = session(&b);
    let again = say(&cluster, 0, phone(&other, Some(&held))).await.inside();
    assert_eq!(b.until_closed(SOON).await, 4003);
    // A message over HTTP takes no place, and a displaced device sends none.
    let thread = one.dm(one).to_string();
    let message = serde_json::json!({ "cid": again.cid(), "kind": "text", "body": { "text": "x" } });
    let path = format!("/v1/threads/{thread}/messages");
    let (status, answer) = cluster.api(one, 1).post(&path, &message).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("displaced")), "{answer}");
    // "Use here."
    let mut again = again;
    let _here = say(&cluster, 1, phone(one, None)).await.inside();
    assert!(told(&mut again, SOON).await.is_some());
}

#[tokio::test]
async fn a_frozen_edge_keeps_nobody_in_and_what_it_had_is_not_stored() {
    let cluster = Cluster::start(ClusterSpec { times_divisor: 5, ..ClusterSpec::default() }).await;
    let one = &cluster.mint_users(1).await[0];
    let other = cluster.other_device(one, "d-other");
    let mut a = say(&cluster, 0, phone(one, None)).await.inside();
    let thread = one.dm(one);
    let first = a.send_text(&thread, "before").await.unwrap();
    cluster.edge(0).stop();
    // What its client goes on to write lies in the socket.
    for n in 0..20 {
        let (r, cid, body) = (a.request(), a.cid(), natterjack_protocol::Body::text(format!("zombie {n}")));
        let send = SendMessage { r, cid, thread: thread.clone(), kind: Kind::Text, body, behind: None };
        a.send(&ClientFrame::Send(send)).await;
    }
    let asked = Instant::now();
    let mut b = say(&cluster, 1, phone(&other, None)).await.inside();
    assert!(asked.elapsed() > Duration::from_secs(4), "it was waited for: {:?}", asked.elapsed());
    let last = b.send_text(&thread, "after").await.unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await; // frozen for a minute, scaled: the lease is over long since
    cluster.edge(0).cont();
    assert!(told(&mut a, SOON).await.is_some(), "it is told when its edge wakes up");
    let stored = ReadLog::of(&cluster).await.messages(&thread, natterjack_protocol::MsgId::NONE).await;
    assert!(stored.contains(&first) && stored.contains(&last));
    let between: Vec<_> = stored.iter().filter(|id| **id > first && **id != last).collect();
    assert!(between.is_empty(), "a zombie wrote {between:?}");
    assert!(told(&mut b, Duration::from_millis(500)).await.is_none());
}

#[tokio::test]
async fn a_class_that_refuses_is_full_until_one_leaves() {
    let set =
        [("devices.tablet", "2"), ("devices.tablet_when_full", "refuse")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let cluster = Cluster::start(ClusterSpec { set: set.into(), ..ClusterSpec::default() }).await;
    let one = &cluster.mint_users(1).await[0];
    let tablet = |user: &User| Hello { class: DeviceClass::Tablet, ..phone(user, None) };
    let mut inside = Vec::new();
    for n in 0..2 {
        let user = cluster.other_device(one, &format!("d-{n}"));
        inside.push(say(&cluster, n % 2, tablet(&user)).await.inside());
    }
    match say(&cluster, 0, tablet(one)).await {
        Greeted::Closed(code) => assert_eq!(code, 4012),
        _ => panic!("a third tablet"),
    }
    drop(inside.pop());
    // Its place is given back in the background.
    let end = Instant::now() + SOON;
    let _third = loop {
        match say(&cluster, 0, tablet(one)).await {
            Greeted::In(ws) => break ws,
            _ => assert!(Instant::now() < end, "the place is not given back"),
        }
    };
}
