//! Groups into which strangers put somebody, and conversations that they begin, leave room for what one does oneself.

use natterjack_nats::{KvBuckets, Layout};
use natterjack_protocol::{
    MsgId, Thread, Token,
    codec::Codec,
    limits,
    log::{
        Intervals,
        fold::{ThreadItem, UserThreads},
    },
    size,
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Cluster, User};
use serde_json::json;

use super::common::{SOON, cid, post};

/// As many groups as it takes until this says yes; all of them left.
fn filled(full: impl Fn(&UserThreads) -> bool) -> UserThreads {
    let mut all = UserThreads::default();
    while !full(&all) {
        for _ in 0..100 {
            let mut intervals = Intervals::default();
            intervals.enter(MsgId(7));
            let item = ThreadItem { v: MsgId(7), intervals, ..ThreadItem::default() };
            all.threads.insert(Thread::group(&Token::mint('g', rand::random())), item);
        }
    }
    all
}

pub async fn are_kept(cluster: &Cluster) {
    let users = cluster.mint_users(4).await;
    let (alice, stranger, other) = (&users[0], &users[1], &users[2]);
    let nats = cluster.connect_nats().await;
    let buckets = KvBuckets::new(&nats, Layout::load(&nats).await.unwrap());
    let fill = async |threads: &UserThreads| {
        eventually_within("her threads are written", SOON, async || {
            let (_, revision) = buckets.threads(alice.id()).load_with_revision().await.unwrap().unwrap();
            buckets.threads(alice.id()).compare_and_set(threads, revision).await
        })
        .await;
    };
    let group = async |creator: &User, member: &User| {
        let body = json!({ "cid": cid(), "name": "come in", "users": [member.id()] });
        cluster.api(creator, 0).post("/v1/groups", &body).await
    };

    fill(&filled(|t| Codec::Msgpack.encode(t).len() > limits::STATE_BYTES_BY_GROUPS)).await;
    let (status, body) = group(stranger, alice).await;
    assert_eq!((status, body["code"].as_str()), (422, Some("limit_reached")), "{body}");
    assert_eq!(group(alice, stranger).await.0, 200);
    assert_eq!(post(&cluster.api(stranger, 0), &stranger.dm(alice), cid(), "hello").await.0, 200);

    fill(&filled(|t| size::json(t) > limits::STATE_BYTES_BY_OTHERS)).await;
    let (status, body) = post(&cluster.api(other, 0), &other.dm(alice), cid(), "hello").await;
    assert_eq!((status, body["code"].as_str()), (422, Some("limit_reached")), "{body}");
    assert_eq!(post(&cluster.api(alice, 0), &alice.dm(other), cid(), "hello").await.0, 200, "what she begins herself");
    assert_eq!(group(alice, other).await.0, 200);
}
