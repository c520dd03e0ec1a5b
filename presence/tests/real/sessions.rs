//! Who comes, who leaves, and what a bucket says that is new.

use std::time::Duration;

use natterjack_protocol::{
    client::presence::{PresenceChoice, PresenceSettings, PresenceVisibility},
    internal::presence::{Connected, UserSettings},
};
use natterjack_testkit::{eventually, user};

use crate::kit::{Instance, World};

#[tokio::test]
async fn edges_hear_who_comes_and_goes_and_may_ask() {
    let world = World::start().await;
    world.lease("e1", "1").await;
    let here = user("here-before");
    world.connect([here.clone()], "e1", "1").await;
    let role = Instance::start(&world.server, "one");
    role.health.ready().await;
    world.is(&here, Connected::Yes).await;
    assert_eq!(world.heard(&here), None, "what stood at the start is asked for");
    let comes = user("comes");
    world.is(&comes, Connected::No(None)).await;
    world.connect([comes.clone()], "e1", "1").await;
    eventually("edges hear that they came", async || world.heard(&comes) == Some(Connected::Yes)).await;
    world.left(&comes, Duration::from_secs(20)).await;
    eventually("edges hear that they left", async || matches!(world.heard(&comes), Some(Connected::No(Some(_))))).await;
    // Just now: it takes its time.
    world.left(&here, Duration::ZERO).await;
    tokio::time::sleep(Duration::from_secs(2)).await; // nothing may be said for 10 s
    assert_eq!(world.heard(&here), None);
    assert_eq!(world.ask(&here).await.unwrap().connected, Connected::Yes);
    role.stop().await;
    assert!(world.ask(&here).await.is_none(), "nobody speaks");
}

#[tokio::test]
async fn what_somebody_chose_goes_out_with_it() {
    let world = World::start().await;
    world.lease("e1", "1").await;
    let role = Instance::start(&world.server, "one");
    role.health.ready().await;
    let shy = user("shy");
    let presence = PresenceSettings {
        choice: PresenceChoice::Hidden,
        since: 5,
        visibility: PresenceVisibility::Contacts,
        receipts: false,
    };
    world.buckets.settings(&shy).put(&UserSettings { presence }).await.unwrap();
    eventually("it is known", async || world.ask(&shy).await.is_some_and(|u| u.settings == presence)).await;
    role.stop().await;
}

#[tokio::test]
async fn a_bucket_that_was_made_again_says_nothing_until_every_edge_has_put_its_sessions() {
    let world = World::start().await;
    let before = world.buckets.sessions_made_ms().await.unwrap();
    world.lease("e1", "1").await;
    world.lease("e2", "1").await;
    let (one, other) = (user("one"), user("other"));
    world.connect([one.clone(), other.clone()], "e1", "1").await;
    let role = Instance::start(&world.server, "one");
    role.health.ready().await;
    world.is(&one, Connected::Yes).await;
    let known = world.ask(&other).await.unwrap();
    world.lose_sessions().await;
    assert_ne!(world.buckets.sessions_made_ms().await.unwrap(), before);
    world.connect([one.clone()], "e1", "1").await;
    world.lease("e1", "1").await;
    world.lease_with("e2", "1", before.clone()).await;
    world.is(&one, Connected::Yes).await;
    world.is(&other, Connected::Unknown).await;
    assert!(world.ask(&other).await.unwrap().revision > known.revision, "it counts more than what was known before");
    world.lease("e2", "1").await;
    world.is(&other, Connected::No(None)).await;
    role.stop().await;
}
