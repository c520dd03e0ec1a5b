//! Two people chat across two edges, and everything is there after a restart of everything.

use std::time::Duration;

use natterjack_client::At;
use natterjack_protocol::codec::Codec;
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Cluster, ClusterSpec, next_messages};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dm_through_two_edges_is_there_after_a_restart_of_everything() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let thread = alice.dm(&bob);
    let (a, mut a_events) = cluster.client(&alice, 0).await;
    let (b, mut b_events) = cluster.client(&bob, 1).await;

    a.send_text(thread.clone(), "hello bob, body-of-a-message").await.unwrap();
    let got = next_messages(&mut b_events, 1, SOON).await;
    assert_eq!(got[0].body.text.as_deref(), Some("hello bob, body-of-a-message"));
    b.send_text(thread.clone(), "hello alice").await.unwrap();
    let seen = next_messages(&mut a_events, 2, SOON).await;
    assert_eq!(
        seen.iter().map(|m| m.body.text.as_deref().unwrap()).collect::<Vec<_>>(),
        ["hello bob, body-of-a-message", "hello alice"]
    );
    assert!(seen[0].id < seen[1].id);
    a.close().await;
    b.close().await;

    // All of it at once, without a word of warning.
    for p in cluster.processes() {
        p.kill9().await;
    }
    for p in cluster.processes() {
        p.start().await;
    }
    let (a, _events) = cluster.client(&alice, 1).await;
    let page =
        eventually_within("history is back", SOON, async || a.history(thread.clone(), At::Newest, 10).await).await;
    let texts: Vec<_> = page.events.iter().filter_map(|e| e.body.text.as_deref()).collect();
    assert_eq!(texts, ["hello bob, body-of-a-message", "hello alice"]);
    cluster.assert_not_logged("body-of-a-message");
    cluster.assert_not_logged(&alice.password);
    cluster.assert_not_logged(&alice.tokens.access);
    cluster.assert_not_logged(&alice.tokens.refresh);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_codecs_say_the_same() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(2).await;
    let thread = users[0].dm(&users[1]);
    let mut json = cluster.raw(&users[0], 0, Codec::Json).await;
    let mut msgpack = cluster.raw(&users[1], 1, Codec::Msgpack).await;
    let sent = json.send_text(&thread, "grüß dich 🐸").await.unwrap();
    let text = |ws_event: natterjack_protocol::Event| (ws_event.id, ws_event.body.text);
    let got = loop {
        let e = msgpack.event().await;
        if e.body.text.is_some() {
            break e;
        }
    };
    assert_eq!(text(got), (sent, Some("grüß dich 🐸".to_owned())));
    let back = msgpack.send_text(&thread, "dich auch").await.unwrap();
    assert!(back > sent);
}
