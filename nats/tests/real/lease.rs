use std::time::{Duration, Instant};

use natterjack_nats::{EdgeLease, KvBuckets, LeaseHolder, LeaseStanding, LeaseState, RoleLease};
use natterjack_protocol::{Times, Token, internal::kv::EdgeInfo};
use natterjack_testkit::{NatsServer, edge_info, eventually};

fn times() -> Times {
    Times::default()
}

#[tokio::test]
async fn a_standby_takes_over_within_three_seconds() {
    let (_s, nats, layout) = NatsServer::ready_alone().await;
    let buckets = KvBuckets::new(&nats, layout);
    let mut first = RoleLease::new(&buckets, "channel", 0, "a", &times());
    first.acquire().await;
    let mut other_partition = RoleLease::new(&buckets, "channel", 1, "b", &times());
    other_partition.acquire().await;
    let mut second = RoleLease::new(&buckets, "channel", 0, "b", &times());
    // Refreshes keep it well beyond its lifetime.
    assert!(tokio::time::timeout(Duration::from_secs(4), second.acquire()).await.is_err());
    assert!(*first.held().borrow());
    // The holder dies without a word.
    drop(first);
    let begun = Instant::now();
    second.acquire().await;
    assert!(begun.elapsed() < Duration::from_millis(3_500), "{:?}", begun.elapsed());
    // Given up on purpose it is free at once.
    let mut third = RoleLease::new(&buckets, "channel", 0, "c", &times());
    second.release().await;
    let begun = Instant::now();
    third.acquire().await;
    assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
}

/// A holder goes on until it sees another one, and gets its own lease back after the server was away.
#[tokio::test]
async fn a_holder_steps_back_only_for_a_newer_one() {
    let (mut s, nats, layout) = NatsServer::ready().await;
    let buckets = KvBuckets::new(&nats, layout);
    let (key, a) = (buckets.role_lease("channel", 0), LeaseHolder("a".into()));
    let mut first = RoleLease::new(&buckets, "channel", 0, "a", &times());
    first.acquire().await;
    let mut held = first.held();
    s.kill();
    assert!(tokio::time::timeout(Duration::from_secs(3), held.changed()).await.is_err(), "nobody answers: it goes on");
    s.launch();
    eventually("the lease is written again", async || key.load().await.is_ok_and(|held| held == Some(a.clone()))).await;
    assert!(*held.borrow_and_update());
    key.put(&LeaseHolder("b".into())).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), held.changed()).await.expect("sees the newer holder").unwrap();
    assert!(!*held.borrow());
}

#[tokio::test]
async fn an_edges_lease_is_held_suspect_lost_and_held_again() {
    let (mut s, nats, layout) = NatsServer::ready().await;
    let buckets = KvBuckets::new(&nats, layout);
    let times = Times { edge_refresh: Duration::from_millis(300), edge_lease: Duration::from_secs(3), ..times() };
    let value = edge_info("i");
    let id = Token::parse("e1").unwrap();
    let standing = LeaseStanding::default();
    let lease = EdgeLease::start(&buckets, &id, value.clone(), standing.clone(), &times);
    let mut state = lease.state();
    let read = async || buckets.edge(&id).load().await.ok().flatten();
    let until = async |state: &mut tokio::sync::watch::Receiver<LeaseState>, wanted| {
        tokio::time::timeout(Duration::from_secs(20), state.wait_for(|s| *s == wanted))
            .await
            .expect("in time")
            .map(|_| ())
            .unwrap();
    };
    until(&mut state, LeaseState::Held).await;
    assert_eq!(read().await, Some(value.clone()));
    assert!(standing.stands());
    lease.set(EdgeInfo { draining: true, ..value });
    eventually("draining shows", async || read().await.is_some_and(|v| v.draining)).await;
    s.kill();
    until(&mut state, LeaseState::Suspect).await;
    until(&mut state, LeaseState::Lost).await;
    assert!(!standing.stands());
    s.launch();
    until(&mut state, LeaseState::Held).await;
    assert!(!standing.stands(), "others may have its sessions");
    let lapse = *standing.lapses().borrow();
    standing.confirm(lapse);
    assert!(standing.stands());
    lease.release().await;
    assert_eq!(read().await, None);
}

#[tokio::test]
async fn an_edge_that_wakes_up_does_not_take_the_lease_of_its_successor_and_does_not_delete_it() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let (buckets, id) = (KvBuckets::new(&nats, layout), Token::parse("e1").unwrap());
    let times = Times { edge_refresh: Duration::from_millis(100), ..times() };
    let (old_stands, new_stands) = (LeaseStanding::default(), LeaseStanding::default());
    let old = EdgeLease::start(&buckets, &id, edge_info("old"), old_stands.clone(), &times);
    let mut state = old.state();
    state.wait_for(|s| *s == LeaseState::Held).await.unwrap();
    let new = EdgeLease::start(&buckets, &id, edge_info("new"), new_stands.clone(), &times);
    tokio::time::timeout(Duration::from_secs(20), state.wait_for(|s| *s != LeaseState::Held)).await.unwrap().unwrap();
    old.release().await;
    assert_eq!(buckets.edge(&id).load().await.unwrap().map(|e| e.incarnation), Some("new".into()));
    assert!(new_stands.stands());
    new.release().await;
    assert_eq!(buckets.edge(&id).load().await.unwrap(), None);
}
