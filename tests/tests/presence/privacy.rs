//! What hides somebody, and from whom: the choice to hide, visibility, blocks. Dot, last seen and typing.

use std::time::Duration;

use natterjack_protocol::{
    Thread,
    client::{
        http::ContactChange,
        presence::{PresenceChange, PresenceChoice, PresenceState, PresenceVisibility},
    },
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Cluster, User, witness::group};

use super::common::{Friend, SOON, spec};

fn choose(choice: PresenceChoice) -> PresenceChange {
    PresenceChange { choice: Some(choice), ..PresenceChange::default() }
}

fn show_to(visibility: PresenceVisibility) -> PresenceChange {
    PresenceChange { visibility: Some(visibility), ..PresenceChange::default() }
}

/// Is `who` shown as typing to `friend`? Says so several times: it may be lost.
async fn types(who: &Friend, friend: &Friend, user: &User) -> bool {
    let thread = who.client.dm(friend.client.user());
    types_in(who, &thread, &[friend], user).await == [true]
}

/// To whom of these?
async fn types_in(who: &Friend, thread: &Thread, friends: &[&Friend], user: &User) -> Vec<bool> {
    for friend in friends {
        friend.typing.lock().unwrap().clear();
    }
    for _ in 0..6 {
        who.client.typing(thread.clone());
        tokio::time::sleep(Duration::from_millis(500)).await; // what was chosen counts after 2 s at the latest
    }
    friends.iter().map(|friend| friend.typing.lock().unwrap().iter().any(|u| u == user.id())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hidden_contacts_only_nobody_and_blocked() {
    let cluster = Cluster::start(spec()).await;
    let (alice, bob, carol) = (cluster.user("alice").await, cluster.user("bob").await, cluster.user("carol").await);
    let bobs = Friend::watching(&cluster, &bob, 1, &[&alice]).await;
    let alices = Friend::watching(&cluster, &alice, 0, &[&bob]).await;
    let carols = Friend::watching(&cluster, &carol, 0, &[&bob]).await;
    // Typing needs a conversation.
    alices.client.send_text(alices.client.dm(bob.id()), "hello").await.unwrap();
    for friend in [&alices, &carols] {
        friend.sees(&bob, PresenceState::Online, SOON).await;
    }
    assert!(types(&bobs, &alices, &bob).await);

    bobs.client.set_presence(choose(PresenceChoice::Hidden)).await.unwrap();
    alices.sees(&bob, PresenceState::Offline, SOON).await;
    assert!(
        !types(&bobs, &alices, &bob).await || !types(&bobs, &alices, &bob).await,
        "who hides is not shown as typing"
    );
    let own = bobs.client.presence(&[bob.id().clone()]).await.unwrap();
    assert_eq!(own[0].state, PresenceState::Offline, "as others see it");
    bobs.client.set_presence(choose(PresenceChoice::Available)).await.unwrap();
    alices.sees(&bob, PresenceState::Online, SOON).await;

    // Alice becomes a contact, carol is none.
    alices.client.contact(bob.id(), ContactChange::Request).await.unwrap();
    bobs.client.contact(alice.id(), ContactChange::Accept).await.unwrap();
    bobs.client.set_presence(show_to(PresenceVisibility::Contacts)).await.unwrap();
    carols.sees(&bob, PresenceState::Offline, SOON).await;
    assert_eq!(carols.last(&bob).unwrap().last_seen, None);
    alices.stays(&bob, PresenceState::Online, Duration::from_secs(1)).await;
    let pulled = carols.client.presence(&[bob.id().clone()]).await.unwrap();
    assert_eq!((pulled[0].state, pulled[0].last_seen), (PresenceState::Offline, None));
    assert!(types(&bobs, &alices, &bob).await, "a contact may see it");
    bobs.client.contact(alice.id(), ContactChange::Remove).await.unwrap();
    alices.sees(&bob, PresenceState::Offline, SOON).await;

    bobs.client.set_presence(show_to(PresenceVisibility::Nobody)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await; // nothing is to be told
    assert_eq!(alices.state(&bob), Some(PresenceState::Offline));
    bobs.client.set_presence(show_to(PresenceVisibility::Everyone)).await.unwrap();
    for friend in [&alices, &carols] {
        friend.sees(&bob, PresenceState::Online, SOON).await;
    }

    // A block hides each from the other, and is not told.
    bobs.sees(&alice, PresenceState::Online, SOON).await;
    bobs.client.block(alice.id()).await.unwrap();
    alices.sees(&bob, PresenceState::Offline, SOON).await;
    bobs.sees(&alice, PresenceState::Offline, SOON).await;
    assert_eq!(alices.last(&bob).unwrap().last_seen, None);
    carols.stays(&bob, PresenceState::Online, Duration::from_millis(500)).await;
    bobs.client.unblock(alice.id()).await.unwrap();
    alices.sees(&bob, PresenceState::Online, SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_group_each_member_sees_the_typing_of_those_whom_they_may_see() {
    let cluster = Cluster::start(spec()).await;
    let (alice, bob, carol) = (cluster.user("alice").await, cluster.user("bob").await, cluster.user("carol").await);
    let thread = group(&cluster, &[&bob, &alice, &carol]).await;
    let bobs = Friend::watching(&cluster, &bob, 1, &[]).await;
    let alices = Friend::watching(&cluster, &alice, 0, &[]).await;
    let carols = Friend::watching(&cluster, &carol, 0, &[]).await;
    let shown = async || types_in(&bobs, &thread, &[&alices, &carols], &bob).await;
    assert_eq!(shown().await, [true, true]);
    alices.client.contact(bob.id(), ContactChange::Request).await.unwrap();
    bobs.client.contact(alice.id(), ContactChange::Accept).await.unwrap();
    bobs.client.set_presence(show_to(PresenceVisibility::Contacts)).await.unwrap();
    shown().await; // the choice counts from then on
    assert_eq!(shown().await, [true, false], "carol is no contact");
    bobs.client.set_presence(show_to(PresenceVisibility::Everyone)).await.unwrap();
    carols.client.block(bob.id()).await.unwrap();
    shown().await;
    assert_eq!(shown().await, [true, false], "carol has blocked bob");
    bobs.client.set_presence(choose(PresenceChoice::Hidden)).await.unwrap();
    shown().await;
    assert_eq!(shown().await, [false, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contacts_are_watched_by_default_as_they_change() {
    let cluster = Cluster::start(spec()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let bobs = Friend::watching(&cluster, &bob, 1, &[]).await;
    let alices = Friend::watching(&cluster, &alice, 0, &[]).await;
    alices.client.watch(None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await; // she has none yet
    assert_eq!(alices.state(&bob), None);
    alices.client.contact(bob.id(), ContactChange::Request).await.unwrap();
    bobs.client.contact(alice.id(), ContactChange::Accept).await.unwrap();
    eventually_within("a new contact is watched", SOON * 2, async || alices.state(&bob) == Some(PresenceState::Online))
        .await;
}
