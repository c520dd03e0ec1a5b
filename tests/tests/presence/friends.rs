//! Coming, leaving, the ten seconds between, and every way to be told.

use std::time::Duration;

use natterjack_protocol::{
    Code,
    client::{
        frame::ServerFrame,
        presence::{PresenceChange, PresenceChoice, PresenceState},
    },
};
use natterjack_tests::kit::{Cluster, truth::DEBOUNCE};
use serde_json::json;
use tokio::time::Instant;

use super::common::{Bare, Friend, SOON, spec, states};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_friend_on_another_edge_comes_flaps_leaves_and_comes_back() {
    let cluster = Cluster::start(spec()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let friend = Friend::watching(&cluster, &alice, 0, &[&bob]).await;
    friend.sees(&bob, PresenceState::Offline, SOON).await;
    let mut first = Bare::connect(&cluster, &bob, 1).await;
    friend.sees(&bob, PresenceState::Online, SOON).await;
    for _ in 0..10 {
        first.bye().await;
        tokio::time::sleep(Duration::from_millis(200)).await; // his network flaps
        first = Bare::connect(&cluster, &bob, 1).await;
    }
    first.bye().await;
    let left = Instant::now();
    friend.stays(&bob, PresenceState::Online, DEBOUNCE - Duration::from_secs(2)).await;
    friend.sees(&bob, PresenceState::Offline, SOON).await;
    assert!(left.elapsed() >= DEBOUNCE - Duration::from_millis(500), "{:?}", left.elapsed());
    assert!(friend.last(&bob).unwrap().last_seen.is_some());
    let known =
        friend.history(&bob).into_iter().map(|(_, state)| state).filter(|state| *state != PresenceState::Unknown);
    let expected = [PresenceState::Offline, PresenceState::Online, PresenceState::Offline];
    assert_eq!(known.collect::<Vec<_>>(), expected, "{:?}", friend.history(&bob));
    let _back = Bare::connect(&cluster, &bob, 0).await;
    friend.sees(&bob, PresenceState::Online, SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_choice_holds_on_every_device_and_polls_and_pulls_see_it() {
    let cluster = Cluster::start(spec()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let friend = Friend::watching(&cluster, &alice, 0, &[&bob]).await;
    let there = Friend::watching(&cluster, &bob, 1, &[]).await;
    let bobs = &there.client;
    friend.sees(&bob, PresenceState::Online, SOON).await;
    let choose = |choice| PresenceChange { choice: Some(choice), ..PresenceChange::default() };
    bobs.set_presence(choose(PresenceChoice::Away)).await.unwrap();
    friend.sees(&bob, PresenceState::Away, SOON).await;
    let pulled = friend.client.presence(&[bob.id().clone(), alice.id().clone()]).await.unwrap();
    assert_eq!(pulled.iter().find(|p| p.user == *bob.id()).unwrap().state, PresenceState::Away);

    // Somebody who polls is told at once what changes, and not what they have.
    let carol = cluster.user("carol").await;
    let api = cluster.api(&carol, 0);
    let ask = |seen: Option<&str>, wait: u64| match seen {
        Some(seen) => json!({ "watch": [bob.id()], "seen": seen, "wait_ms": wait }),
        None => json!({ "watch": [bob.id()], "wait_ms": wait }),
    };
    let (status, first) = api.post("/v1/sync", &ask(None, 20_000)).await;
    assert_eq!(
        (status, states(&first["presence"]).get(bob.id().as_str()).map_or("", String::as_str)),
        (200, "away"),
        "{first}"
    );
    let seen = first["presence"]["seen"].as_str().unwrap().to_owned();
    let (_, same) = api.post("/v1/sync", &ask(Some(&seen), 500)).await;
    assert!(same.get("presence").is_none(), "{same}");
    let begun = Instant::now();
    let (body, change) = (ask(Some(&seen), 20_000), async {
        tokio::time::sleep(Duration::from_secs(1)).await; // the poll waits by now
        bobs.set_presence(choose(PresenceChoice::Dnd)).await.unwrap();
    });
    let ((_, changed), ()) = tokio::join!(api.post("/v1/sync", &body), change);
    let state = states(&changed["presence"]).remove(bob.id().as_str());
    assert_eq!(state.as_deref(), Some("online"), "{changed} {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    friend.sees(&bob, PresenceState::Online, SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_too_many_is_refused_and_an_empty_one_ends_it() {
    let cluster = Cluster::start(spec()).await;
    let users = cluster.mint_users(2).await;
    let mut ws = Bare::connect(&cluster, &users[0], 0).await;
    let many = (0..501).map(|n| format!("u{n}").parse().unwrap()).collect();
    let r = ws.watch(Some(many)).await;
    let refusal = ws.frame(SOON, |f| match f {
        ServerFrame::Error { r: Some(of), refusal } if of == r => Some(refusal),
        _ => None,
    });
    let refusal = refusal.await.unwrap();
    assert_eq!(refusal.code, Code::Invalid);
    assert!(refusal.message.contains("501") && refusal.message.contains("500"), "{}", refusal.message);
    let (status, answer) =
        cluster.api(&users[0], 0).get(&format!("/v1/presence?users={}", vec!["u1"; 501].join(","))).await;
    assert_eq!((status, answer["code"].as_str()), (400, Some("invalid")), "{answer}");
    let watched = |f| match f {
        ServerFrame::Presence { users, .. } => Some(users.len()),
        _ => None,
    };
    ws.watch(Some(vec![users[1].id().clone()])).await;
    assert_eq!(ws.frame(SOON, watched).await, Some(1));
    ws.watch(Some(Vec::new())).await;
    loop {
        // What was learned of the one before may still come.
        if ws.frame(SOON, watched).await.expect("an empty watch is answered") == 0 {
            break;
        }
    }
    let _other = Bare::connect(&cluster, &users[1], 1).await;
    assert_eq!(ws.frame(Duration::from_secs(2), watched).await, None, "nobody is watched");
}
