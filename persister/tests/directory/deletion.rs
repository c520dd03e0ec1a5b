//! Deleting and renaming accounts: what is gone, what is held, and what goes on after a crash.

use std::time::Duration;

use natterjack_persister::store::accounts::{Accounts as _, NameHold};
use natterjack_protocol::{
    Code, Times,
    client::http::{ContactChange, Profile, Tokens},
    internal::{
        devices::UserDevices,
        operator::{OperatorAnswer, OperatorRequest},
        presence::UserSettings,
        rpc::{AccountProof, DirectoryAnswer, DirectoryRequest},
    },
};
use natterjack_testkit::eventually_within;

use crate::kit::{self, World, cheap, login, refresh, register};

const SOON: Duration = Duration::from_secs(20);

/// Where nothing that others have begun takes long.
async fn world() -> World {
    World::with(cheap(), Times { publish_deadline: Duration::from_millis(500), ..Times::default() }).await
}

async fn delete(world: &World, t: &Tokens, proof: AccountProof) -> Result<(), Code> {
    let request = DirectoryRequest::DeleteAccount { actor: t.user.clone(), proof };
    world.ask(&request).await.map(drop).map_err(|refusal| refusal.code)
}

fn password(word: &str) -> AccountProof {
    AccountProof::Password(word.into())
}

async fn befriend(world: &World, a: &Tokens, b: &Tokens) {
    for (actor, other, change) in [(a, b, ContactChange::Request), (b, a, ContactChange::Accept)] {
        let request = DirectoryRequest::Contact { actor: actor.user.clone(), other: other.user.clone(), change };
        world.ask(&request).await.unwrap();
    }
}

async fn is_cleared(world: &World, of: &Tokens, friend: &Tokens) {
    eventually_within("all that hung on it is gone", SOON, async || {
        let left = world.store.deletions().await.unwrap();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert!(world.store.contacts(&of.user).await.unwrap().is_empty());
    assert!(world.store.contacts(&friend.user).await.unwrap().is_empty(), "on both sides");
    assert!(!world.buckets().threads(&of.user).exists().await.unwrap());
    assert!(!world.buckets().devices(&of.user).exists().await.unwrap());
    assert!(!world.buckets().settings(&of.user).exists().await.unwrap());
    assert!(world.store.open_logins(&of.user, None, 1).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_deleted_and_its_name_is_held() {
    let world = world().await;
    let (alice, bob) = (world.register("Alice").await, world.register("Bob").await);
    befriend(&world, &alice, &bob).await;
    world.buckets().devices(&alice.user).create(&UserDevices::default()).await.unwrap();
    world.buckets().settings(&alice.user).create(&UserSettings::default()).await.unwrap();
    assert_eq!(delete(&world, &alice, password("wrong password")).await, Err(Code::Forbidden));
    let no_issuer = AccountProof::Token("a.b.c".into());
    assert_eq!(delete(&world, &alice, no_issuer).await, Err(Code::NotFound));
    assert!(world.tokens(&login("Alice", kit::PASSWORD)).await.is_ok(), "nothing was done");
    assert_eq!(delete(&world, &alice, password(kit::PASSWORD)).await, Ok(()));
    assert_eq!(delete(&world, &alice, password(kit::PASSWORD)).await, Ok(()), "the answer was lost");
    assert_eq!(world.refusal(&refresh(&alice)).await.code, Code::Unauthorized);
    assert_eq!(world.refusal(&login("Alice", kit::PASSWORD)).await.code, Code::Unauthorized);
    let held = world.refusal(&register("aLICE")).await;
    assert_eq!(held.code, Code::Conflict);
    assert_eq!(
        held.message,
        world.refusal(&register("bOB")).await.message,
        "says no more than of a name that is taken"
    );
    is_cleared(&world, &alice, &bob).await;
    let asked = DirectoryRequest::Profiles { users: vec![alice.user.clone(), bob.user.clone()] };
    let Ok(DirectoryAnswer::Profiles(profiles)) = world.ask(&asked).await else { panic!("profiles were asked for") };
    let gone = Profile { user: alice.user.clone(), name: String::new(), deleted: true };
    assert_eq!(profiles, [gone, Profile::named(bob.user.clone(), "Bob")]);
    let again = DirectoryRequest::RebuildThreads { user: alice.user.clone() };
    assert_eq!(world.refusal(&again).await.code, Code::NotFound, "it does not come back");
    let (actor, other) = (bob.user.clone(), alice.user.clone());
    let contact = DirectoryRequest::Contact { actor, other, change: ContactChange::Request };
    assert_eq!(world.refusal(&contact).await.code, Code::NotFound);
    eventually_within("the name is free again", SOON, async || world.tokens(&register("aLICE")).await.map(drop)).await;
    world.end().await;
}

/// An instance has begun a deletion and died: another one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_was_cut_off_goes_on() {
    let world = world().await;
    let (alice, bob) = (world.register("Alice").await, world.register("Bob").await);
    befriend(&world, &alice, &bob).await;
    let hold = NameHold { now: natterjack_testkit::now_ms(), until: u64::MAX >> 11 };
    assert!(world.store.delete_user(&alice.user, hold).await.unwrap());
    is_cleared(&world, &alice, &bob).await;
    assert_eq!(world.refusal(&refresh(&alice)).await.code, Code::Unauthorized);
    world.end().await;
}

/// Logins that are under way when an account is deleted end with the others.
#[tokio::test(flavor = "multi_thread")]
async fn no_login_slips_past_a_deletion() {
    let mut world = world().await;
    world.start_directory(cheap()).await;
    for n in 0..10 {
        let name = format!("alice{n}");
        let alice = world.register(&name).await;
        let logins = vec![login(&name, kit::PASSWORD); 8];
        let all = futures_util::future::join_all(logins.iter().map(|l| world.tokens(l)));
        let (deleted, all) = tokio::join!(delete(&world, &alice, password(kit::PASSWORD)), all);
        assert_eq!(deleted, Ok(()));
        for t in all.into_iter().flatten() {
            assert_eq!(world.refusal(&refresh(&t)).await.code, Code::Unauthorized);
        }
        assert!(world.store.open_logins(&alice.user, None, 1).await.unwrap().is_empty());
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_renames_and_deletes() {
    let world = world().await;
    let (alice, bob) = (world.register("Alice").await, world.register("Bob").await);
    let rename = |name: &str, new: &str| OperatorRequest::Rename { name: name.into(), new: new.into() };
    let deletion = |name: &str| OperatorRequest::Delete { name: name.into() };
    for (new, code) in [("a b", Code::Invalid), ("x", Code::Invalid), ("bOB", Code::Conflict)] {
        assert_eq!(world.operate(&rename("alice", new)).await, Err(code), "{new}");
    }
    let Ok(OperatorAnswer::Done { account, .. }) = world.operate(&rename("alice", "Alicia")).await else {
        panic!("it is renamed")
    };
    assert_eq!((&account.user, account.name.as_str()), (&alice.user, "Alicia"));
    assert_eq!(world.tokens(&login("alicia", kit::PASSWORD)).await.unwrap().user, alice.user);
    assert_eq!(world.tokens(&refresh(&alice)).await.unwrap().name, "Alicia", "logins go on");
    assert_eq!(world.operate(&rename("bob", "Alice")).await, Err(Code::Conflict), "held");
    world.operate(&deletion("Alicia")).await.unwrap();
    is_cleared(&world, &alice, &bob).await;
    assert_eq!(world.operate(&deletion("Alicia")).await, Err(Code::NotFound));
    let again = world.operate(&deletion(alice.user.as_str())).await;
    assert!(matches!(again, Ok(OperatorAnswer::Done { ref account, ended: 0 }) if account.deleted), "{again:?}");
    assert!(world.tokens(&login("bob", kit::PASSWORD)).await.is_ok());
    world.end().await;
}
