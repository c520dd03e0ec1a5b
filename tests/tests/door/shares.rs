//! Groups into which strangers put somebody, and conversations that they begin, leave room for what one does oneself.

use natterjack_nats::{KvBuckets, Layout};
use natterjack_protocol::{
    MsgId, Thread, Token, limits,
    log::{
        Intervals,
        fold::{ThreadItem, UserThreads},
    },
};
use natterjack_tests::kit::{Cluster, User};
use serde_json::json;

use super::common::{cid, post};

/// So many groups; all of them left.
fn groups(count: usize) -> UserThreads {
    let item = || {
        let mut intervals = Intervals::default();
        intervals.enter(MsgId(7));
        ThreadItem { v: MsgId(7), intervals, ..ThreadItem::default() }
    };
    (0..count).map(|_| (Thread::group(&Token::mint('g', rand::random())), item())).collect()
}

pub async fn are_kept(cluster: &Cluster) {
    let users = cluster.mint_users(4).await;
    let (alice, stranger, other) = (&users[0], &users[1], &users[2]);
    let nats = cluster.connect_nats().await;
    let buckets = KvBuckets::new(&nats, Layout::load(&nats).await.unwrap());
    let fill_to = async |count: usize| {
        let there = buckets.threads(alice.id()).load().await.unwrap().unwrap().threads.len();
        buckets.threads(alice.id()).merge(groups(count - there)).await.unwrap();
    };
    let group = async |creator: &User, member: &User| {
        let body = json!({ "cid": cid(), "name": "come in", "users": [member.id()] });
        cluster.api(creator, 0).post("/v1/groups", &body).await
    };

    fill_to(limits::USER_THREADS_BY_GROUPS - 1).await;
    assert_eq!(group(stranger, alice).await.0, 200, "the last one that fits");
    let (status, body) = group(stranger, alice).await;
    assert_eq!((status, body["code"].as_str()), (422, Some("limit_reached")), "{body}");
    assert_eq!(group(alice, stranger).await.0, 200);
    assert_eq!(post(&cluster.api(stranger, 0), &stranger.dm(alice), cid(), "hello").await.0, 200);

    fill_to(limits::USER_THREADS_BY_OTHERS).await;
    let (status, body) = post(&cluster.api(other, 0), &other.dm(alice), cid(), "hello").await;
    assert_eq!((status, body["code"].as_str()), (422, Some("limit_reached")), "{body}");
    assert_eq!(post(&cluster.api(alice, 0), &alice.dm(other), cid(), "hello").await.0, 200, "what she begins herself");
    assert_eq!(group(alice, other).await.0, 200);
}
