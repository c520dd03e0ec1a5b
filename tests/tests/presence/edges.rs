//! Edges that are killed, frozen and cut off.

use std::time::Duration;

use natterjack_protocol::client::presence::PresenceState;
use natterjack_tests::kit::{
    Cluster, ClusterSpec, User,
    truth::{DEBOUNCE, LEASE},
};
use tokio::time::Instant;

use super::common::{Bare, Friend, SOON, spec};

/// Users on the second edge whose sockets do not come back, and somebody on the first who watches them.
async fn crowd(cluster: &Cluster, count: usize) -> (Vec<User>, Friend, Vec<tokio_util::task::AbortOnDropHandle<()>>) {
    let users = cluster.mint_users(count + 1).await;
    let others: Vec<&User> = users[1..].iter().collect();
    let friend = Friend::watching(cluster, &users[0], 0, &others).await;
    let mut held = Vec::new();
    for user in &others {
        held.push(Bare::connect(cluster, user, 1).await.hold());
    }
    for user in &others {
        friend.sees(user, PresenceState::Online, SOON).await;
    }
    (users, friend, held)
}

async fn all_offline(users: &[User], friend: &Friend, died: Instant) {
    for user in &users[1..] {
        friend.sees(user, PresenceState::Offline, LEASE + DEBOUNCE).await;
        let history = friend.history(user);
        let (at, _) = history.last().unwrap();
        assert!(at.duration_since(died) <= LEASE + DEBOUNCE, "{:?}: {history:?}", at.duration_since(died));
        assert!(history.iter().all(|(_, s)| *s != PresenceState::Away));
    }
    eprintln!("everybody of the edge was offline after {:?}", died.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_of_a_killed_edge_is_offline_in_time() {
    let cluster = Cluster::start(spec()).await;
    let (users, friend, _held) = crowd(&cluster, 100).await;
    let died = Instant::now();
    cluster.edge(1).kill9().await;
    all_offline(&users, &friend, died).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_of_a_frozen_edge_is_offline_in_time_and_whoever_is_elsewhere_stays() {
    let cluster = Cluster::start(spec()).await;
    let (users, friend, _held) = crowd(&cluster, 5).await;
    let both = cluster.user("both").await;
    let second = cluster.other_device(&both, "d2");
    let watcher = Friend::watching(&cluster, &cluster.user("watcher").await, 0, &[&both]).await;
    let _there = Bare::connect(&cluster, &both, 1).await.hold();
    let _here = Bare::connect(&cluster, &second, 0).await.hold();
    watcher.sees(&both, PresenceState::Online, SOON).await;
    let died = Instant::now();
    cluster.edge(1).stop();
    all_offline(&users, &friend, died).await;
    assert_eq!(watcher.state(&both), Some(PresenceState::Online), "{:?}", watcher.history(&both));
    cluster.edge(1).cont();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_is_cut_off_knows_nothing_and_its_users_are_offline_elsewhere() {
    let cluster = Cluster::start(ClusterSpec { proxied_edges: true, ..spec() }).await;
    let (users, friend, _held) = crowd(&cluster, 5).await;
    let inside = Friend::watching(&cluster, &cluster.user("inside").await, 1, &[&users[0]]).await;
    inside.sees(&users[0], PresenceState::Online, SOON).await;
    let died = Instant::now();
    cluster.nats_proxy(1).refuse(true);
    cluster.nats_proxy(1).reset();
    inside.sees(&users[0], PresenceState::Unknown, Duration::from_secs(8)).await;
    all_offline(&users, &friend, died).await;
    assert!(
        inside.history(&users[0]).iter().all(|(_, s)| *s != PresenceState::Offline),
        "{:?}",
        inside.history(&users[0])
    );
}
