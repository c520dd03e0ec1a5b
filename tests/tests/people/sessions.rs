//! A user sees where they are logged in and ends it, at whatever edge it is connected.

use std::time::Duration;

use natterjack_nats::{KvBuckets, Layout};
use natterjack_protocol::{
    Code,
    client::frame::{ClientFrame, DeviceClass, Hello, ServerFrame},
    codec::Codec,
    internal::devices::UserDevices,
};
use natterjack_testkit::{eventually_within, now_ms, patience};
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, RawWs, Received, User};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::common::{SOON, good, refused};

const ENDED: Duration = Duration::from_secs(2);
const UNAUTHORIZED: u16 = 4001;

async fn devices(api: &Api) -> Vec<(String, bool)> {
    let list = good(api.get("/v1/sessions").await);
    let all = list["sessions"].as_array().unwrap().iter();
    all.map(|s| (s["device"].as_str().unwrap().to_owned(), s["this"].as_bool().unwrap())).collect()
}

/// What stands under the user's key.
async fn stored(cluster: &Cluster, user: &User) -> UserDevices {
    let nats = cluster.connect_nats().await;
    let buckets = KvBuckets::new(&nats, Layout::load(&nats).await.unwrap());
    buckets.devices(user.id()).load().await.unwrap().unwrap_or_default()
}

fn phone(user: &User) -> Hello {
    let (name, app) = (Some("Annas Telefon".into()), Some("Teich 1.4.2".into()));
    let hello = Hello::new(user.tokens.access.clone(), user.tokens.device.clone());
    Hello { class: DeviceClass::Phone, name, app, ..hello }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_logins_says_where_each_device_is_and_what_it_is() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let alice = cluster.user("alice").await;
    let other = alice.log_in(&cluster, 1).await;
    let api = cluster.api(&alice, 0);
    let row = async |user: &User| -> Value {
        let list = good(api.get("/v1/sessions").await);
        let rows = list["sessions"].as_array().unwrap();
        rows.iter().find(|row| row["device"] == json!(user.tokens.device)).unwrap().clone()
    };
    let never = row(&other).await;
    assert!(never.get("class").is_none() && never.get("edge").is_none(), "{never}");
    let before = now_ms();
    let mut ws = RawWs::connect(cluster.edge_addr(1), Codec::Json).await;
    ws.hello_with(phone(&other)).await;
    let here = row(&other).await;
    let said = ["name", "class", "app", "edge", "connected", "this"].map(|field| here[field].clone());
    let text = |t: &str| json!(t);
    let expected =
        [text("Annas Telefon"), text("phone"), text("Teich 1.4.2"), text("edge-1"), json!(true), json!(false)];
    assert_eq!(said, expected);
    let active = here["last_active"].as_u64().unwrap();
    assert!((before.saturating_sub(1_000)..now_ms() + 1_000).contains(&active), "{here}");
    ws.send(&ClientFrame::Bye).await;
    eventually_within("it has left", SOON, async || row(&other).await["connected"] == json!(false)).await;
    let left = row(&other).await;
    assert!(
        left.get("edge").is_none() && left["name"] == here["name"] && left["last_active"].as_u64() >= Some(active),
        "{left}"
    );
}

/// The edge is frozen, so nobody but the directory can take the phone out; and a class that refuses has room at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_whose_login_ended_takes_no_place_although_its_edge_is_frozen() {
    let set = vec![("devices.phone_when_full".to_owned(), "refuse".to_owned())];
    let cluster = Cluster::start(ClusterSpec { set, ..ClusterSpec::default() }).await;
    let alice = cluster.user("alice").await;
    let lost = alice.log_in(&cluster, 1).await;
    let mut there = RawWs::connect(cluster.edge_addr(1), Codec::Json).await;
    there.hello_with(phone(&lost)).await;
    cluster.edge(1).stop();
    let mut refused = RawWs::connect(cluster.edge_addr(0), Codec::Json).await;
    refused.send(&ClientFrame::Hello(phone(&alice))).await;
    assert_eq!(refused.until_closed(SOON).await, 4012, "its place is taken");
    let path = format!("/v1/sessions/{}", lost.tokens.device);
    assert_eq!(good(cluster.api(&alice, 0).delete(&path).await), json!({ "ended": 1 }));
    assert!(stored(&cluster, &alice).await.device(&lost.tokens.device).is_none());
    let mut ws = RawWs::connect(cluster.edge_addr(0), Codec::Json).await;
    ws.send(&ClientFrame::Hello(phone(&alice))).await;
    // As long as the frozen edge may still believe that it is in.
    let welcome = tokio::time::timeout(patience(Duration::from_secs(20)), async {
        loop {
            match ws.next_within(SOON * 3).await {
                Received::Frame(ServerFrame::Welcome(_)) => return,
                Received::Closed(code, why) => panic!("closed with {code} {why}"),
                _ => {}
            }
        }
    });
    welcome.await.unwrap();
    cluster.edge(1).cont();
    // What the edge reads first: the end of the login, that somebody has its place, or that it has none.
    let code = there.until_closed(SOON).await;
    assert!([UNAUTHORIZED, 4008, 4011].contains(&code), "closed with {code} when its edge wakes up");
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
    assert!(stored(&cluster, &alice).await.device(&phone.tokens.device).is_none(), "it is no device any more");
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
