//! What every store of accounts must do; each store's tests run it on an empty one.

use natterjack_protocol::{
    Token, UserId,
    client::http::{ContactChange, ContactState, Profile},
};

use super::*;
use crate::tokens::{InviteHash, RefreshHash, Salt};

// By their paths, which hold also where the tests of a backend include this file.
#[path = "conformance/logins.rs"]
mod logins;
#[path = "conformance/names.rs"]
mod names;

use logins::*;
use names::*;

fn id(s: &str) -> Token {
    Token::parse(s).unwrap()
}

async fn user<S: Accounts>(store: &S, user: &str, name: &str) -> Added {
    let new = NewUser { user: id(user), name: name.into(), secret: format!("phc of {user}"), created: 1 };
    store.add_user(new).await.unwrap()
}

/// The `n`th token of a family in these tests.
fn hash(n: u8) -> RefreshHash {
    RefreshHash([n; 32])
}

/// How long a used one may be used again, here.
const AGAIN: u64 = 60_000;

async fn use_token<S: Accounts>(store: &S, old: u8, offered: u8, now: u64) -> Rotated {
    let next = NextToken { hash: hash(offered), salt: Salt([offered; 32]), expires: 200_000 };
    store.rotate(hash(old), next, Use { now, earliest: now, again: AGAIN }).await.unwrap()
}

/// The token `n` stands in the place of the one that was used.
fn gives(family: &Family, n: u8) -> Rotated {
    Rotated::Done { family: family.clone(), name: "Alice".into(), salt: Salt([n; 32]) }
}

async fn opened<S: Accounts>(store: &S, name: &str, first: u8) -> Family {
    let family = family(name);
    open(store, family.clone(), first, 100_000).await;
    family
}

async fn open<S: Accounts>(store: &S, family: Family, first: u8, expires: u64) {
    store.open_family(OpenLogin { family, since: u64::from(first) }, hash(first), expires).await.unwrap();
}

fn family(s: &str) -> Family {
    Family { id: id(s), user: id("u1"), device: id("d1") }
}

pub async fn all<S: Accounts>(store: &S) {
    names(store).await;
    lookalikes(store).await;
    externals(store).await;
    contacts(store).await;
    refresh_tokens(store).await;
    refresh_again(store).await;
    expiry(store).await;
    devices(store).await;
    logins(store).await;
    accounts(store).await;
    invites(store).await;
    renaming(store).await;
    deleting(store).await;
}

async fn contacts<S: Accounts>(store: &S) {
    let (a, b): (UserId, UserId) = (id("u1"), id("u3"));
    let side = async |of: &UserId| {
        store.contacts(of).await.unwrap().into_iter().map(|c| (c.user, c.state)).collect::<Vec<_>>()
    };
    let change = async |x: &UserId, y: &UserId, c| store.change_contact(x, y, c).await.unwrap();
    let is = |state, changed| ContactOutcome::Is { state, changed };
    assert_eq!(change(&a, &id("nobody"), ContactChange::Request).await, ContactOutcome::NoSuchUser);
    assert_eq!(change(&a, &b, ContactChange::Request).await, is(Some(ContactState::Requested), true));
    assert_eq!(change(&a, &b, ContactChange::Request).await, is(Some(ContactState::Requested), false));
    assert_eq!(change(&a, &b, ContactChange::Accept).await, ContactOutcome::NothingToAccept);
    assert_eq!(
        (side(&a).await, side(&b).await),
        (vec![(b.clone(), ContactState::Requested)], vec![(a.clone(), ContactState::Asked)])
    );
    assert_eq!(change(&b, &a, ContactChange::Accept).await, is(Some(ContactState::Contact), true));
    assert_eq!(
        (side(&a).await, side(&b).await),
        (vec![(b.clone(), ContactState::Contact)], vec![(a.clone(), ContactState::Contact)])
    );
    assert_eq!(change(&a, &b, ContactChange::Remove).await, is(None, true));
    assert_eq!(change(&a, &b, ContactChange::Remove).await, is(None, false));
    assert!(side(&a).await.is_empty() && side(&b).await.is_empty());
    // Both ask at once: the second to come accepts.
    let (x, y) = tokio::join!(change(&a, &b, ContactChange::Request), change(&b, &a, ContactChange::Request));
    assert!(x != y && [x, y].contains(&is(Some(ContactState::Contact), true)), "{x:?} {y:?}");
}

/// Each use counts once, whoever comes at the same moment and whatever is repeated.
async fn invites<S: Accounts>(store: &S) {
    let code = |n: u8| InviteHash([n; 32]);
    let add = async |n: u8, uses| store.add_invite(NewInvite { code: code(n), uses, expires: 1_000 }).await.unwrap();
    let take = async |n: u8, key: &str, user: &str, now| store.take_invite(code(n), key, &id(user), now).await.unwrap();
    add(1, 2).await;
    assert_eq!(take(9, "anna", "i1", 1).await, None, "unknown");
    assert_eq!(take(1, "anna", "i1", 1_000).await, None, "expired");
    assert_eq!(take(1, "anna", "i1", 999).await, Some(id("i1")));
    assert_eq!(take(1, "anna", "i2", 2_000).await, Some(id("i1")), "it goes on with the use that it has, also later");
    assert_eq!(take(1, "berta", "i3", 1).await, Some(id("i3")));
    assert_eq!(take(1, "clara", "i4", 1).await, None, "used up");
    for _ in 0..2 {
        store.give_invite_back(code(1), "berta").await.unwrap();
    }
    store.give_invite_back(code(9), "berta").await.unwrap();
    assert_eq!(take(1, "clara", "i4", 1).await, Some(id("i4")), "given back once");
    assert_eq!(take(1, "dora", "i5", 1).await, None);
    // Many at once for a few uses.
    add(2, 3).await;
    let names: Vec<(String, String)> = (0..12).map(|n| (format!("name{n}"), format!("n{n}"))).collect();
    let all = futures_util::future::join_all(names.iter().map(|(key, user)| take(2, key, user, 1))).await;
    assert_eq!(all.iter().flatten().count(), 3, "{all:?}");
    // The same name at once: one account, one use.
    add(3, 1).await;
    let all =
        futures_util::future::join_all((0..8).map(|n| format!("m{n}")).map(async |u| take(3, "emma", &u, 1).await))
            .await;
    assert!(all[0].is_some() && all.iter().all(|u| *u == all[0]), "{all:?}");
    let made = all[0].clone().unwrap();
    assert_eq!(user(store, made.as_str(), "Emma").await, Added::Done);
    let twice = NewUser { user: made.clone(), name: "Emma".into(), secret: "another hash".into(), created: 1 };
    assert_eq!(store.add_user(twice).await.unwrap(), Added::NameTaken);
    let login = store.login(PASSWORD, &name_key("emma")).await.unwrap().unwrap();
    assert_eq!((login.user, login.secret), (made.clone(), format!("phc of {made}")), "the first one's");
    assert!(store.account(&made).await.unwrap().is_some());
}

/// What an operator sees and sets.
async fn accounts<S: Accounts>(store: &S) {
    let mut all = Vec::new();
    while let Some(last) =
        store.accounts(all.last().map(|a: &Account| &a.profile.user), 7).await.unwrap().into_iter().last()
    {
        let more = store.accounts(all.last().map(|a| &a.profile.user), 7).await.unwrap();
        assert!(more.len() <= 7 && more.last() == Some(&last), "the same each time");
        all.extend(more);
    }
    let mut ids: Vec<_> = all.iter().map(|a| a.profile.user.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all.len(), "each once");
    assert!(ids.len() > 50 && ids.contains(&"u1") && ids.contains(&"e1") && !ids.contains(&"u2"));
    let account = async |user: &str| store.account(&id(user)).await.unwrap();
    let alice = Account { profile: Profile::named(id("u1"), "Alice"), created: 1, disabled: false };
    assert_eq!((account("u1").await.as_ref(), account("nobody").await), (Some(&alice), None));
    for disabled in [true, true, false] {
        store.set_disabled(&id("u1"), disabled).await.unwrap();
        assert_eq!(account("u1").await, Some(Account { disabled, ..alice.clone() }));
        assert!(all.contains(&alice) && !account("u3").await.unwrap().disabled);
    }
    let secret = async |name: &str| store.login(PASSWORD, &name_key(name)).await.unwrap().map(|l| l.secret);
    assert!(store.set_secret(&id("u1"), "another").await.unwrap());
    assert_eq!(
        (secret("alice").await.as_deref(), secret("al-b").await.as_deref()),
        (Some("another"), Some("phc of u3"))
    );
    assert!(store.set_secret(&id("u1"), "phc of u1").await.unwrap());
    assert!(!store.set_secret(&id("nobody"), "x").await.unwrap());
    assert!(!store.set_secret(&id("e1"), "x").await.unwrap(), "its login is elsewhere");
    assert_eq!(secret("alice-e1").await, None);
}
