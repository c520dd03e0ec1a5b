//! Who has got and read a message: asked for, and pushed to its author.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use natterjack_protocol::{
    Code, MsgId, Thread,
    client::frame::{Acknowledged, ClientFrame, ServerFrame},
    codec::Codec,
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, User};
use serde_json::json;

use super::{
    common::{SOON, add, all_well, good, leave, new_group, refused, seen_until},
    reading::{ack, told_read},
};

/// How far each reader is, by their names.
async fn receipts(api: &Api, thread: &Thread, id: MsgId, users: &[&User]) -> (u64, Vec<String>) {
    let answer = good(api.get(&format!("/v1/threads/{thread}/messages/{id}/receipts")).await);
    let state = |user: &&User| {
        let mut all = answer["users"].as_array().unwrap().iter();
        let row = all.find(|row| row["user"] == json!(user.id()));
        row.map_or("none".to_owned(), |row| row["state"].as_str().unwrap().to_owned())
    };
    (answer["of"].as_u64().unwrap(), users.iter().map(state).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_got_and_read_a_message_is_told_to_whom_it_may_be() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = ["alice", "bob", "carol", "dave", "eve"].map(|name| cluster.user(name));
    let [alice, bob, carol, dave, eve]: [User; 5] = join_all(users).await.try_into().ok().unwrap();
    let (by_alice, by_carol) = (cluster.api(&alice, 0), cluster.api(&carol, 1));
    let group = new_group(&by_alice, "readers", &[bob.clone(), carol.clone(), dave.clone()]).await;
    let mut a = cluster.raw(&alice, 0, Codec::Json).await;
    let before = a.send_text(&group, "before eve").await.unwrap();
    good(add(&by_alice, &group, &eve).await);
    let id = a.send_text(&group, "who reads this?").await.unwrap();
    let all = [&bob, &carol, &dave, &eve];
    let are = async |states: [&str; 4]| {
        let want = (4, states.map(str::to_owned).to_vec());
        eventually_within("the receipts are so", SOON, async || {
            let is = receipts(&by_alice, &group, id, &all).await;
            if is == want { Ok(()) } else { Err(format!("{is:?}, not {want:?}")) }
        })
        .await;
    };
    are(["sent"; 4]).await;
    // Bob's device has it, carol has read it.
    let mut b = cluster.raw(&bob, 1, Codec::Json).await;
    seen_until(&mut b, "who reads this?").await;
    b.send(&ClientFrame::Ack(Acknowledged { got: [(group.clone(), id)].into(), read: BTreeMap::new() })).await;
    good(by_carol.post("/v1/ack", &json!({ "read": { group.to_string(): id } })).await);
    // The author is told of both, whoever comes first.
    let mut told = BTreeMap::new();
    while told.len() < 2 {
        let some = a.until("receipts", |f| match f {
            ServerFrame::Receipts { thread, receipts } if thread == group => Some(receipts),
            _ => None,
        });
        told.extend(some.await.into_iter().map(|r| (r.user, (r.got, r.read))));
    }
    assert_eq!(told[bob.id()], (id, MsgId::NONE));
    assert_eq!(told[carol.id()], (id, id));
    are(["delivered", "read", "sent", "sent"]).await;
    assert_eq!(receipts(&by_carol, &group, id, &all).await.1[0], "delivered", "any member may ask");
    assert_eq!(
        receipts(&by_alice, &group, before, &all).await,
        (3, ["delivered", "read", "sent", "none"].map(str::to_owned).to_vec())
    );

    // Who gives none gets none; who hides has read nothing; a block shows nothing; who left has read what they had.
    let settings = async |api: &Api, change| good(api.put("/v1/presence/settings", &change).await);
    let shown = settings(&by_carol, json!({ "receipts": false })).await;
    assert_eq!((&shown["receipts"], &shown["choice"]), (&json!(false), &json!("available")));
    are(["delivered", "unknown", "sent", "sent"]).await;
    // Nor does she hear of others, or they of her, by themselves.
    let mut c = cluster.raw(&carol, 1, Codec::Json).await;
    let from_carol = c.send_text(&group, "I tell nobody").await.unwrap();
    seen_until(&mut b, "I tell nobody").await;
    b.send(&ack(&[(&group, from_carol)])).await;
    told_read(&mut b, &group, from_carol).await;
    let quiet = tokio::time::timeout(
        Duration::from_secs(3),
        c.until("receipts", |f| matches!(f, ServerFrame::Receipts { .. }).then_some(())),
    );
    assert!(quiet.await.is_err(), "receipts to one who gives none");
    let path = format!("/v1/threads/{group}/messages/{id}/receipts");
    refused(by_carol.get(&path).await, Code::Forbidden);
    settings(&by_carol, json!({ "receipts": true, "choice": "hidden" })).await;
    are(["read", "unknown", "sent", "sent"]).await;
    settings(&by_carol, json!({ "choice": "available" })).await;
    good(leave(&by_carol, &group).await);
    good(cluster.api(&dave, 0).put(&format!("/v1/blocks/{}", alice.id()), &json!({})).await);
    are(["read", "read", "unknown", "sent"]).await;

    let page = good(by_alice.get(&format!("{path}?limit=3")).await);
    let next = good(by_alice.get(&format!("{path}?limit=3&after={}", page["next"].as_str().unwrap())).await);
    let on = |page: &serde_json::Value| page["users"].as_array().unwrap().len();
    assert_eq!((on(&page), on(&next), next.get("next")), (3, 1, None));

    refused(cluster.api(&eve, 0).get(&format!("/v1/threads/{group}/messages/{before}/receipts")).await, Code::NotFound);
    refused(by_alice.get(&format!("/v1/threads/{group}/messages/{}/receipts", id.0 + 1_000)).await, Code::NotFound);
    let outside = cluster.user("outside").await;
    refused(cluster.api(&outside, 0).get(&path).await, Code::NotMember);
    // Of two.
    let dm = alice.dm(&bob);
    let said = a.send_text(&dm, "and you?").await.unwrap();
    assert_eq!(receipts(&by_alice, &dm, said, &[&bob]).await, (1, vec!["sent".to_owned()]));
    all_well(&cluster);
}
