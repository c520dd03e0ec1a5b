//! P9 for clients without a WebSocket: a device that polls has a place like any other, also between two polls.

use std::time::Duration;

use natterjack_protocol::client::frame::DeviceClass;
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{
    Api, Cluster, ClusterSpec, User,
    counters::{POLLS, counted, counter},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    common::SOON,
    devices::{Greeted, buckets, phone, say, stored, told},
};

/// One that takes no longer than this waited for no lease.
const AT_ONCE: Duration = Duration::from_secs(3);

fn ask(user: &User, session: Option<&Value>, wait_ms: u64) -> Value {
    let name = format!("phone {}", user.tokens.device);
    let mut ask = json!({ "class": "phone", "name": name, "app": "Teich 1.4", "wait_ms": wait_ms });
    if let Some(session) = session {
        ask["session"] = session.clone();
    }
    ask
}

async fn poll(api: &Api, user: &User, session: Option<&Value>, wait_ms: u64) -> Value {
    let (status, answer) = api.post("/v1/sync", &ask(user, session, wait_ms)).await;
    assert_eq!(status, 200, "{answer}");
    answer["session"].clone()
}

#[track_caller]
fn displaced_by((status, answer): (u16, Value), name: &str) {
    assert_eq!((status, answer["code"].as_str()), (409, Some("displaced")), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains(name), "{answer}");
}

#[tokio::test]
async fn polls_that_follow_each_other_write_nothing_and_another_edge_takes_the_place_over() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let one = &cluster.mint_users(1).await[0];
    let (kv, first, second) = (buckets(&cluster).await, cluster.api(one, 0), cluster.api(one, 1));
    let session = poll(&first, one, None, 0).await;
    let (value, revision) = stored(&kv, one).await;
    let held = value.device(&one.tokens.device).unwrap();
    assert_eq!((held.class, held.app.as_deref()), (DeviceClass::Phone, Some("Teich 1.4")));
    assert_eq!(held.session.as_ref().map(|s| json!(s.session)), Some(session.clone()));
    for wait_ms in [0, 50, 0, 200, 0] {
        assert_eq!(poll(&first, one, Some(&session), wait_ms).await, session);
    }
    assert_eq!(stored(&kv, one).await.1, revision, "a poll that goes on writes nothing");
    // With another edge, and back; the answer in between may be lost.
    let there = poll(&second, one, Some(&session), 0).await;
    assert_ne!(there, session);
    let (value, _) = stored(&kv, one).await;
    let place = value.device(&one.tokens.device).and_then(|d| d.session.clone()).unwrap();
    assert_eq!((place.edge.as_str(), json!(place.session), value.devices.len()), ("edge-1", there.clone(), 1));
    let back = poll(&first, one, Some(&there), 0).await;
    assert_ne!(back, session);
    poll(&second, one, Some(&session), 0).await;
    // What was replaced is out of the value when its edge has given it back.
    eventually_within("nothing is left unsettled", SOON, async || stored(&kv, one).await.0.unsettled.is_empty()).await;
}

#[tokio::test]
async fn a_phone_that_polls_is_displaced_at_once_during_a_poll_and_between_two() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let one = &cluster.mint_users(1).await[0];
    let other = cluster.other_device(one, "d-other");
    let api = cluster.api(one, 0);
    for during in [false, true] {
        let session = poll(&api, one, None, 0).await;
        let asked = Instant::now();
        let mut ws = if during {
            let polls = counter(&cluster, 0, POLLS).await;
            let waits = ask(one, Some(&session), 20_000);
            let (polled, ws) = tokio::join!(api.post("/v1/sync", &waits), async {
                counted(&cluster, 0, POLLS, polls).await;
                say(&cluster, 1, phone(&other, None)).await.inside()
            });
            displaced_by(polled, "phone d-other");
            ws
        } else {
            say(&cluster, 1, phone(&other, None)).await.inside()
        };
        assert!(asked.elapsed() < AT_ONCE, "the edge of the poll answers for it: {:?}", asked.elapsed());
        for edge in [0, 1] {
            displaced_by(cluster.api(one, edge).post("/v1/sync", &ask(one, Some(&session), 0)).await, "phone d-other");
        }
        // "Use here", and the one on the socket is told.
        let session = poll(&api, one, None, 0).await;
        let by = told(&mut ws, SOON).await.expect("the socket is told");
        assert_eq!(by.by.device, one.tokens.device);
        // By itself the socket's client does not come back, and the poll goes on.
        let held = ws.welcome.as_ref().unwrap().session.to_string();
        assert!(matches!(say(&cluster, 1, phone(&other, Some(&held))).await, Greeted::Displaced(_, 4011)));
        assert_eq!(poll(&api, one, Some(&session), 0).await, session);
    }
}

#[tokio::test]
async fn who_polls_no_more_has_left_and_comes_back_by_itself_while_there_is_room() {
    // A place is kept for 6 s after a poll.
    let cluster = Cluster::start(ClusterSpec { times_divisor: 5, ..ClusterSpec::default() }).await;
    let one = &cluster.mint_users(1).await[0];
    let (kv, api) = (buckets(&cluster).await, cluster.api(one, 0));
    let connected = async || stored(&kv, one).await.0.device(&one.tokens.device).is_some_and(|d| d.session.is_some());
    let session = poll(&api, one, None, 0).await;
    let polled = Instant::now();
    eventually_within("its place is given back", SOON * 2, async || !connected().await).await;
    assert!(polled.elapsed() >= Duration::from_secs(5), "{:?}", polled.elapsed());
    let again = poll(&api, one, Some(&session), 0).await;
    assert!(again != session && connected().await);
    // An edge that leaves gives the places back that it keeps.
    assert!(cluster.edge(0).terminate().await.success());
    assert!(!connected().await);
}
