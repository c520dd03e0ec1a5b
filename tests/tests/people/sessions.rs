//! A user sees where they are logged in and ends it, at whatever edge it is connected.

use std::time::Duration;

use natterjack_protocol::{Code, codec::Codec};
use natterjack_testkit::patience;
use natterjack_tests::kit::{Api, Cluster, ClusterSpec};
use serde_json::json;
use tokio::time::Instant;

use super::common::{SOON, good, refused};

const ENDED: Duration = Duration::from_secs(2);
const UNAUTHORIZED: u16 = 4001;

async fn devices(api: &Api) -> Vec<(String, bool)> {
    let list = good(api.get("/v1/sessions").await);
    let all = list["sessions"].as_array().unwrap().iter();
    all.map(|s| (s["device"].as_str().unwrap().to_owned(), s["this"].as_bool().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_ended_closes_at_every_edge() {
    // Alone: that it takes no longer than two seconds is asserted.
    let cluster = Cluster::start(ClusterSpec { alone: true, ..ClusterSpec::default() }).await;
    let alice = cluster.user("alice").await;
    let bob = cluster.user("bob").await;
    let (phone, web) = (alice.log_in(&cluster, 0).await, alice.log_in(&cluster, 1).await);
    let api = cluster.api(&alice, 0);
    let id = |u: &natterjack_tests::kit::User| u.tokens.device.to_string();
    let listed = devices(&api).await;
    assert_eq!((listed.len(), &listed[0]), (3, &(id(&alice), true)), "{listed:?}");
    assert!(listed.contains(&(id(&phone), false)) && listed.contains(&(id(&web), false)));

    // The phone is at the other edge.
    let mut at = cluster.raw(&phone, 1, Codec::Json).await;
    let mut stays = cluster.raw(&web, 1, Codec::Json).await;
    let path = |device: &str| format!("/v1/sessions/{device}");
    refused(cluster.api(&bob, 0).delete(&path(&id(&phone))).await, Code::NotFound);
    refused(api.delete(&path("nowhere")).await, Code::NotFound);
    let began = Instant::now();
    assert_eq!(good(api.delete(&path(&id(&phone))).await), json!({ "ended": 1 }));
    assert_eq!(at.until_closed(SOON).await, UNAUTHORIZED);
    assert!(began.elapsed() <= patience(ENDED), "{:?}", began.elapsed());
    refused(
        cluster.anonymous(1).post("/v1/refresh", &json!({ "refresh": phone.tokens.refresh })).await,
        Code::Unauthorized,
    );
    refused(cluster.api(&phone, 1).get("/v1/sessions").await, Code::Unauthorized);
    assert_eq!(good(api.delete(&path(&id(&phone))).await), json!({ "ended": 0 }), "again is no harm");
    assert_eq!(devices(&api).await.len(), 2);
    stays.send_text(&web.dm(&web), "still here").await.unwrap();

    // All others, over the SDK; its own login goes on.
    let (client, events) = alice.builder([cluster.edge_url(0)]).connect().await.unwrap();
    let sessions = client.list_sessions().await.unwrap();
    assert_eq!((sessions.len(), sessions[0].this, &sessions[0].device), (2, true, &alice.tokens.device));
    let began = Instant::now();
    assert_eq!(client.end_other_sessions().await.unwrap(), 1);
    assert_eq!(stays.until_closed(SOON).await, UNAUTHORIZED);
    assert!(began.elapsed() <= patience(ENDED), "{:?}", began.elapsed());
    assert_eq!(client.end_other_sessions().await.unwrap(), 0);
    client.send_text(client.dm(client.user()), "alone now").await.unwrap();
    client.flushed(SOON).await.unwrap();
    // Its own: the same as logging out.
    assert_eq!(client.end_session(&alice.tokens.device).await.unwrap(), 1);
    refused(api.get("/v1/sessions").await, Code::Unauthorized);
    drop(events);
    client.close().await;
    assert!(good(cluster.api(&bob, 1).get("/v1/sessions").await)["sessions"].as_array().unwrap().len() == 1);
}
