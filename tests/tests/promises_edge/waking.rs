//! P5, on a phone: its network is another one, and nothing says that the old connection is dead; or it slept, and its
//! clock stood still.

use std::time::Duration;

use natterjack_client::{Client, ClientEvent, Events};
use natterjack_testkit::{Flow, Proxy, Side, patience};
use natterjack_tests::kit::{Cluster, ClusterSpec, next_event, next_messages};
use tokio::time::{Instant, timeout};

use super::common::SOON;

/// Left to its heartbeat a client takes half a minute to notice that an edge is silent.
const NOTICED: Duration = Duration::from_secs(2);

async fn attached(events: &mut Events) {
    next_event(events, "attached", SOON, |e| matches!(e, ClientEvent::Attached).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_flow_again_soon_after_the_network_changed() {
    // Alone: that it is dialled within two seconds is asserted.
    let cluster = Cluster::start(ClusterSpec { alone: true, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(2).await;
    let proxies = [cluster.proxy_to_edge(0).await, cluster.proxy_to_edge(1).await];
    let (phone, mut events) = users[0].builder(proxies.each_ref().map(Proxy::url)).connect().await.unwrap();
    let (other, mut others) = cluster.client(&users[1], 0).await;
    let connected = |e: ClientEvent| if let ClientEvent::Connected { edge } = e { Some(edge) } else { None };
    let at = next_event(&mut events, "connected", SOON, connected).await;
    attached(&mut events).await;
    attached(&mut others).await;

    let dead = proxies.iter().find(|p| p.url() == at).expect("through one of them");
    for side in [Side::FromClient, Side::FromServer] {
        dead.set(side, Flow::Discard);
    }
    let thread = users[0].dm(&users[1]);
    phone.send_text(thread.clone(), "from the train").await.unwrap();
    other.send_text(thread, "are you there?").await.unwrap();
    let changed = Instant::now();
    phone.network_changed();
    next_event(&mut events, "another connection", SOON, connected).await;
    assert!(changed.elapsed() <= patience(NOTICED), "{:?}", changed.elapsed());
    let mut texts: Vec<_> = next_messages(&mut events, 2, SOON).await.into_iter().filter_map(|m| m.body.text).collect();
    texts.sort();
    assert_eq!(texts, ["are you there?", "from the train"]);
    assert_eq!(next_messages(&mut others, 2, SOON).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_sleep_nothing_is_sent_before_the_servers_time_is_known() {
    // Alone: the wait below ends before the second in which an edge may answer.
    let cluster = Cluster::start(ClusterSpec { edges: 1, alone: true, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(2).await;
    let proxy = cluster.proxy_to_edge(0).await;
    let (phone, mut events): (Client, Events) = users[0].builder([proxy.url()]).connect().await.unwrap();
    let (_other, mut others) = cluster.client(&users[1], 0).await;
    attached(&mut events).await;
    attached(&mut others).await;

    // What the phone says arrives, what the edge says does not: without asking first, the message would be there.
    proxy.set(Side::FromServer, Flow::Stall);
    phone.wake();
    phone.send_text(users[0].dm(&users[1]), "good morning").await.unwrap();
    let heard = timeout(Duration::from_millis(500), next_messages(&mut others, 1, SOON)).await;
    assert!(heard.is_err(), "sent with a cid of yesterday: {heard:?}");
    proxy.pass();
    assert_eq!(next_messages(&mut others, 1, SOON).await[0].body.text.as_deref(), Some("good morning"));
    phone.flushed(SOON).await.unwrap();
}
