//! A login that is over is over everywhere: at every edge, for sockets, polls and tokens, also at an edge that could
//! not hear of it.

use std::time::Duration;

use natterjack_protocol::{
    client::frame::{ClientFrame, Hello},
    codec::Codec,
};
use natterjack_testkit::{eventually_within, patience};
use natterjack_tests::kit::{
    Cluster, ClusterSpec, RawWs, User,
    counters::{POLLS, counted, counter},
};
use serde_json::json;
use tokio::time::Instant;

use super::common::{SOON, cid, post};

/// What is promised for 99 of 100.
const REVOKED: Duration = Duration::from_secs(2);
const UNAUTHORIZED: u16 = 4001;

async fn log_out(cluster: &Cluster, user: &User, edge: usize) -> Instant {
    let (status, body) = cluster.anonymous(edge).post("/v1/logout", &json!({ "refresh": user.tokens.refresh })).await;
    assert_eq!(status, 200, "{body}");
    Instant::now()
}

/// The close code for a new session with this token.
async fn greeted(cluster: &Cluster, user: &User, edge: usize) -> u16 {
    let mut ws = RawWs::connect(cluster.edge_addr(edge), Codec::Json).await;
    let hello = Hello::new(user.tokens.access.clone(), user.tokens.device.clone());
    ws.send(&ClientFrame::Hello(hello)).await;
    ws.until_closed(SOON).await
}

async fn assert_over(cluster: &Cluster, user: &User, edge: usize) {
    assert_eq!(greeted(cluster, user, edge).await, UNAUTHORIZED, "a socket at edge {edge}");
    let (status, body) = cluster.api(user, edge).get("/v1/threads").await;
    assert_eq!((status, body["code"].as_str()), (401, Some("unauthorized")), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_closes_the_sockets_of_that_login_at_every_edge() {
    // Alone: that it takes no longer than two seconds is asserted.
    let cluster = Cluster::start(ClusterSpec { alone: true, ..ClusterSpec::default() }).await;
    let alice = cluster.user("alice").await;
    let stays = alice.log_in(&cluster, 0).await;
    let stays_too = alice.log_in(&cluster, 1).await;
    let mut kept = (cluster.raw(&stays, 0, Codec::Msgpack).await, cluster.raw(&stays_too, 1, Codec::Msgpack).await);

    // Twenty devices, each with a socket at the edge by which it logs out, or at the other one.
    let mut took = Vec::new();
    let mut gone = Vec::new();
    for n in 0..20 {
        let device = alice.log_in(&cluster, n % 2).await;
        let mut socket = cluster.raw(&device, n / 2 % 2, Codec::Json).await;
        let at = log_out(&cluster, &device, n % 2).await;
        assert_eq!(socket.until_closed(SOON).await, UNAUTHORIZED);
        took.push(at.elapsed());
        gone.push(device);
    }
    took.sort();
    eprintln!(
        "{} sockets closed after a logout: p50 {:?} max {:?}",
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1]
    );
    assert!(took[took.len() - 1] <= patience(REVOKED), "{took:?}");
    for edge in 0..2 {
        assert_over(&cluster, &gone[0], edge).await;
    }
    // Logging out twice is as good as once.
    log_out(&cluster, &gone[0], 1).await;

    // A stolen refresh token: whoever uses it when the next one is in use ends it for both.
    let robbed = alice.log_in(&cluster, 0).await;
    let mut ws = cluster.raw(&robbed, 1, Codec::Json).await;
    let refresh = json!({ "refresh": robbed.tokens.refresh });
    let (status, next) = cluster.anonymous(0).post("/v1/refresh", &refresh).await;
    assert_eq!(status, 200, "{next}");
    assert_eq!(cluster.anonymous(0).post("/v1/refresh", &json!({ "refresh": next["refresh"] })).await.0, 200);
    assert_eq!(cluster.anonymous(1).post("/v1/refresh", &refresh).await.0, 401);
    let began = Instant::now();
    assert_eq!(ws.until_closed(SOON).await, UNAUTHORIZED);
    assert!(began.elapsed() <= patience(REVOKED), "{:?}", began.elapsed());

    // A poll that waits, and a message behind it.
    let poller = alice.log_in(&cluster, 0).await;
    let api = cluster.api(&poller, 1);
    assert_eq!(api.get("/v1/sync?wait_ms=0").await.0, 200);
    let (synced, ask) = (
        api.get("/v1/sync?wait_ms=0").await.1,
        |synced: &serde_json::Value| json!({ "synced": synced, "wait_ms": 20_000 }),
    );
    let ask = ask(&synced["synced"]);
    let polls = counter(&cluster, 1, POLLS).await;
    let (poll, _) = tokio::join!(api.post("/v1/sync", &ask), async {
        counted(&cluster, 1, POLLS, polls).await;
        log_out(&cluster, &poller, 0).await
    });
    assert_eq!(poll.0, 401, "{}", poll.1);
    let (status, _) = post(&api, &poller.dm(&poller), cid(), "still here?").await;
    assert_eq!(status, 401);

    // An edge that is started afterwards knows it too; and nobody else was ever concerned.
    cluster.edge(1).restart().await;
    eventually_within("the new edge knows", REVOKED, async || {
        let (status, _) = cluster.api(&gone[1], 1).get("/v1/threads").await;
        if status == 401 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    assert_over(&cluster, &gone[1], 1).await;
    kept.0.send_text(&stays.dm(&stays), "still here").await.unwrap();
    assert_eq!(cluster.api(&stays, 1).get("/v1/threads").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_was_cut_off_hears_of_it_when_it_is_back() {
    let cluster = Cluster::start(ClusterSpec { proxied_edges: true, ..ClusterSpec::default() }).await;
    let alice = cluster.user("alice").await;
    let proxy = cluster.nats_proxy(1);
    // First the connection is refused, then it is dead and nobody says so.
    for dead in [false, true] {
        let device = alice.log_in(&cluster, 0).await;
        let mut ws = cluster.raw(&device, 1, Codec::Json).await;
        if dead {
            proxy.stall();
        } else {
            proxy.refuse(true);
            proxy.reset();
        }
        log_out(&cluster, &device, 0).await;
        let refused = async || cluster.api(&device, 0).get("/v1/threads").await.0 == 401;
        eventually_within("the others are not held up by it", SOON, refused).await;
        let still = tokio::time::timeout(Duration::from_millis(500), ws.until_closed(SOON)).await;
        assert!(still.is_err(), "it cannot know yet");
        let back = Instant::now();
        if dead {
            proxy.pass();
        } else {
            proxy.refuse(false);
        }
        assert_eq!(ws.until_closed(SOON).await, UNAUTHORIZED);
        eprintln!("dead {dead}: closed {:?} after the way was open again", back.elapsed());
        eventually_within("its token is no good there", SOON, async || {
            cluster.api(&device, 1).get("/v1/threads").await.0 == 401
        })
        .await;
        eventually_within("the edge is well again", SOON, async || cluster.anonymous(1).get("/ready").await.0 == 200)
            .await;
    }
}
