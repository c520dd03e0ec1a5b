//! Every request that changes something, done once and its answer lost. What is asked is in `lost_changes`; over Apache
//! Cassandra it is asked in `archive_cql`.

use natterjack_client::ClientEvent;
use natterjack_protocol::client::http::Tokens;
use natterjack_testkit::{Flow, Side, eventually_within};
use natterjack_tests::kit::{Cluster, ClusterSpec, User, next_event};

use super::{
    common::{SOON, all_well, gid, good},
    lost_changes::{World, accounts_are_made_and_logins_ended_once, changes_are_made_once},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_is_not_done_again_when_its_answer_was_lost() {
    let world = World::start(Vec::new()).await;
    accounts_are_made_and_logins_ended_once(&world).await;
    changes_are_made_once(&world).await;
    all_well(&world.cluster);
}

/// The SDK repeats by itself what it cannot know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_asks_again_when_an_answer_was_lost() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    // Its renewal is lost first of all. The pause before the only edge is asked again is long enough to mend the way.
    let proxy = cluster.proxy_to_edge(0).await;
    proxy.set(Side::FromServer, Flow::Stall);
    let stale = User { tokens: Tokens { expires_in: 0, ..alice.tokens.clone() }, ..alice.clone() };
    let (client, mut events) = stale.builder([proxy.url()]).connect().await.unwrap();
    eventually_within("the renewal is on its way", SOON, async || proxy.open() > 0).await;
    proxy.set(Side::FromServer, Flow::ResetAfter(0));
    eventually_within("its answer was lost", SOON, async || proxy.open() == 0).await;
    proxy.pass();
    next_event(&mut events, "attached", SOON, |e| match e {
        ClientEvent::LoggedOut { .. } => panic!("logged out by a lost answer"),
        ClientEvent::Attached => Some(()),
        _ => None,
    })
    .await;
    // Then that of a change.
    let open = proxy.open();
    proxy.set(Side::FromServer, Flow::ResetAfter(0));
    let (group, ()) = tokio::join!(client.create_group("once", std::slice::from_ref(bob.id()), None), async {
        eventually_within("an answer was lost", SOON, async || proxy.open() < open).await;
        proxy.pass();
    });
    let group = group.unwrap();
    let list = good(cluster.api(&alice, 1).get("/v1/threads").await);
    assert_eq!(list["threads"].as_array().unwrap().len(), 1, "{list}");
    client.rename_group(&gid(&group), "twice").await.unwrap();
    client.block(bob.id()).await.unwrap();
    assert_eq!(client.blocks().await.unwrap(), [bob.id().clone()]);
    let cid = client.new_cid().await.unwrap();
    let second = client.create_group_as(cid, "second", &[], None).await.unwrap();
    assert_eq!(client.create_group_as(cid, "third", &[], None).await.unwrap(), second);
    client.leave_group(&gid(&second)).await.unwrap();
    client.leave_group(&gid(&second)).await.unwrap();
    client.close().await;
    all_well(&cluster);
}
