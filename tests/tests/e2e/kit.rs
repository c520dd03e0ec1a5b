//! The kit itself: that what it claims to break is broken, and that what it does not touch goes through.

use std::time::Duration;

use natterjack_protocol::{Body, Kind, codec::Codec};
use natterjack_testkit::{Flow, Side, eventually_within, within};
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, Received, next_messages};

const SOON: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_lose_and_break_what_they_are_told_to() {
    let cluster = Cluster::start(ClusterSpec { proxied_edges: true, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(2).await;
    let thread = users[0].dm(&users[1]);
    let (mut a, mut b) =
        (cluster.raw(&users[0], 0, Codec::Json).await, cluster.raw(&users[1], 1, Codec::Msgpack).await);
    a.send_text(&thread, "arrives").await.unwrap();
    while b.event().await.body.text.as_deref() != Some("arrives") {}

    // Only edge 1, only this payload.
    cluster.nats_proxy(1).drop_live(|_, payload| payload.windows(7).any(|w| w == b"gets-lo"));
    a.send_text(&thread, "gets-lost").await.unwrap();
    eventually_within("the proxy has lost it", SOON, async || cluster.nats_proxy(1).lost() > 0).await;
    assert_eq!(cluster.nats_proxy(0).lost(), 0);
    cluster.nats_proxy(1).drop_nothing();

    // Between client and edge.
    let proxy = cluster.proxy_to_edge(0).await;
    let mut through = RawWs::connect(proxy.addr(), Codec::Json).await;
    through.hello(&users[0]).await;
    assert_eq!(proxy.open(), 1);
    proxy.set(Side::FromServer, Flow::Stall);
    through.send(&natterjack_protocol::client::frame::ClientFrame::Ping).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(300), through.next()).await.is_err(),
        "nothing comes through a stall"
    );
    proxy.pass();
    assert!(matches!(through.next().await, Received::Frame(_)), "and then it does");
    proxy.reset();
    assert_eq!(through.until_closed(SOON).await, 1006);
    eventually_within("the connection is gone", SOON, async || proxy.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_edge_answers_after_it_is_woken() {
    let cluster = Cluster::start(ClusterSpec { edges: 1, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(1).await;
    let thread = users[0].dm(&users[0]);
    let mut ws = cluster.raw(&users[0], 0, Codec::Json).await;
    cluster.edge(0).stop();
    // What it said before (that its way to the log is open, say) is on its way.
    while tokio::time::timeout(Duration::from_millis(300), ws.next()).await.is_ok() {}
    ws.send(&natterjack_protocol::client::frame::ClientFrame::Ping).await;
    assert!(tokio::time::timeout(Duration::from_millis(300), ws.next()).await.is_err());
    cluster.edge(0).cont();
    ws.send_text(&thread, "still here").await.unwrap();
    let status = cluster.edge(0).terminate().await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_carry_a_message_and_lose_one_of_them() {
    let cluster =
        Cluster::start(ClusterSpec { nats: 3, alone: true, edge_nodes: vec![1, 2], ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(2).await;
    let thread = users[0].dm(&users[1]);
    let ((a, _a_hears), (_b, mut b_hears)) = (cluster.client(&users[0], 0).await, cluster.client(&users[1], 1).await);
    let limit = Duration::from_secs(40);
    a.send_text(thread.clone(), "before").await.unwrap();
    assert_eq!(next_messages(&mut b_hears, 1, limit).await[0].body.text.as_deref(), Some("before"));
    // Nobody of ours but channel and persister is connected to it first.
    cluster.nats(0).kill9().await;
    within("the ack of what is sent without a leader", limit, a.send_and_wait(thread, Kind::Text, Body::text("after")))
        .await
        .unwrap();
    assert_eq!(next_messages(&mut b_hears, 1, limit).await[0].body.text.as_deref(), Some("after"));
}
