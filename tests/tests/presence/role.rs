//! The role itself is killed, frozen and there twice; its bucket is lost; NATS has no leader.

use std::time::Duration;

use natterjack_nats::{KvBuckets, Layout, provision, subjects};
use natterjack_protocol::{Times, client::presence::PresenceState};
use natterjack_testkit::raw_jetstream;
use natterjack_tests::kit::{Cluster, ClusterSpec};

use super::common::{Bare, Friend, SOON, spec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_presence_everybody_is_unknown_and_nobody_offline() {
    let cluster = Cluster::start(spec()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let friend = Friend::watching(&cluster, &alice, 0, &[&bob]).await;
    let _bob = Bare::connect(&cluster, &bob, 1).await.hold();
    friend.sees(&bob, PresenceState::Online, SOON).await;
    cluster.presence(0).kill9().await;
    friend.sees(&bob, PresenceState::Unknown, SOON).await;
    cluster.presence(0).start().await;
    friend.sees(&bob, PresenceState::Online, SOON).await;
    cluster.presence(0).stop();
    friend.sees(&bob, PresenceState::Unknown, SOON).await;
    cluster.presence(0).cont();
    friend.sees(&bob, PresenceState::Online, SOON).await;
    // Before the first answer nothing was known, and bob had not come yet.
    let history = friend.history(&bob);
    let after = history.iter().skip_while(|(_, s)| *s != PresenceState::Online);
    assert!(after.clone().all(|(_, s)| *s != PresenceState::Offline), "{history:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_instances_one_takes_over_within_seconds() {
    let cluster = Cluster::start(ClusterSpec { presences: 2, ..spec() }).await;
    let (alice, bob, carol) = (cluster.user("alice").await, cluster.user("bob").await, cluster.user("carol").await);
    let friend = Friend::watching(&cluster, &alice, 0, &[&bob, &carol]).await;
    let _bob = Bare::connect(&cluster, &bob, 1).await.hold();
    friend.sees(&bob, PresenceState::Online, SOON).await;
    // Whoever speaks is frozen, so both will think that they do.
    cluster.presence(0).stop();
    let _carol = Bare::connect(&cluster, &carol, 1).await.hold();
    friend.sees(&carol, PresenceState::Online, SOON * 2).await;
    cluster.presence(0).cont();
    friend.stays(&carol, PresenceState::Online, Duration::from_secs(3)).await;
    friend.stays(&bob, PresenceState::Online, Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nats_has_no_leader_nobody_is_swept() {
    let cluster = Cluster::start(ClusterSpec { nats: 3, ..spec() }).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let friend = Friend::watching(&cluster, &alice, 0, &[&bob]).await;
    let _bob = Bare::connect(&cluster, &bob, 1).await.hold();
    friend.sees(&bob, PresenceState::Online, SOON).await;
    cluster.nats(1).stop();
    cluster.nats(2).stop();
    tokio::time::sleep(Duration::from_secs(14)).await; // longer than every lease
    cluster.nats(1).cont();
    cluster.nats(2).cont();
    friend.sees(&bob, PresenceState::Online, Duration::from_secs(40)).await;
    let history = friend.history(&bob);
    let after = history.iter().skip_while(|(_, s)| *s != PresenceState::Online);
    assert!(after.clone().all(|(_, s)| *s != PresenceState::Offline), "{history:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_lost_under_load_makes_nobody_offline() {
    let cluster = Cluster::start(spec()).await;
    let users = cluster.mint_users(21).await;
    let others: Vec<_> = users[1..].iter().collect();
    let friend = Friend::watching(&cluster, &users[0], 0, &others).await;
    let mut held = Vec::new();
    for (n, user) in others.iter().enumerate() {
        held.push(Bare::connect(&cluster, user, n % 2).await.hold());
    }
    for user in &others {
        friend.sees(user, PresenceState::Online, SOON).await;
    }
    let nats = cluster.connect_nats().await;
    let layout = Layout::load(&nats).await.unwrap();
    let before = KvBuckets::new(&nats, layout).sessions_made_ms().await.unwrap();
    for shard in 0..layout.kv_shards {
        raw_jetstream(&nats).await.delete_stream(format!("KV_{}", subjects::sessions_bucket(shard))).await.unwrap();
    }
    provision(&nats, &cluster.nats_config(), &Times::default()).await.unwrap();
    assert_ne!(KvBuckets::new(&nats, layout).sessions_made_ms().await.unwrap(), before);
    tokio::time::sleep(Duration::from_secs(3)).await; // it is noticed
    for user in &others {
        friend.sees(user, PresenceState::Online, Duration::from_secs(30)).await;
        let history = friend.history(user);
        let after = history.iter().skip_while(|(_, s)| *s != PresenceState::Online);
        assert!(after.clone().all(|(_, s)| *s != PresenceState::Offline), "{history:?}");
    }
}
