//! What every store of accounts must do; each store's tests run it on an empty one.

use natterjack_protocol::{
    Token, UserId,
    rpc::{ContactChange, ContactState, Profile},
};

use super::*;
use crate::tokens::RefreshHash;

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

fn family(s: &str) -> Family {
    Family { id: id(s), user: id("u1"), device: id("d1") }
}

pub async fn all<S: Accounts>(store: &S) {
    names(store).await;
    externals(store).await;
    contacts(store).await;
    refresh_tokens(store).await;
    expiry(store).await;
}

async fn names<S: Accounts>(store: &S) {
    assert_eq!(user(store, "u1", "Alice").await, Added::Done);
    assert_eq!(user(store, "u2", "aLICE").await, Added::NameTaken);
    assert_eq!(user(store, "u3", "al-b").await, Added::Done);
    let racing = (10..20).map(|n| user(store, Box::leak(format!("r{n}").into_boxed_str()), if n % 2 == 0 { "Racer" } else { "racer" }));
    let won = futures_util::future::join_all(racing).await.into_iter().filter(|a| *a == Added::Done).count();
    assert_eq!(won, 1);
    let login = store.login(PASSWORD, &name_key("ALICE")).await.unwrap().unwrap();
    assert_eq!((login.user.as_str(), login.name.as_str(), login.secret.as_str()), ("u1", "Alice", "phc of u1"));
    assert!(store.login(PASSWORD, "nobody").await.unwrap().is_none() && store.login("elsewhere", "alice").await.unwrap().is_none());
    let named = |found: Vec<Profile>| found.into_iter().map(|p| p.name).collect::<Vec<_>>();
    assert_eq!(named(store.find("al", 20).await.unwrap()), ["al-b", "Alice"]);
    assert_eq!(named(store.find("al", 1).await.unwrap()), ["al-b"]);
    assert!(store.find("alicex", 20).await.unwrap().is_empty());
    assert_eq!(named(store.profiles(&[id("u1"), id("u2"), id("nobody")]).await.unwrap()), ["Alice"]);
}

async fn externals<S: Accounts>(store: &S) {
    let joined = |profile: (&str, &str), made| Joined { profile: Profile { user: id(profile.0), name: profile.1.into() }, made };
    let join = async |issuer: &str, subject: &str, user: &str, names: &[&str]| {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        store.join(NewExternal { issuer: issuer.into(), subject: subject.into(), user: id(user), names, created: 1 }).await.unwrap()
    };
    let (one, two) = ("https://login", "https://other");
    assert!(store.login(one, "s1").await.unwrap().is_none());
    // "Alice" is somebody's, with a password.
    assert_eq!(join(one, "s1", "e1", &["Alice", "ALICE-e1"]).await, joined(("e1", "ALICE-e1"), true));
    assert_eq!(join(one, "s1", "e2", &["else"]).await, joined(("e1", "ALICE-e1"), false), "the same user ever after");
    let login = store.login(one, "s1").await.unwrap().unwrap();
    assert_eq!((login.user.as_str(), login.name.as_str(), login.secret.as_str()), ("e1", "ALICE-e1", ""));
    assert!(store.find("else", 20).await.unwrap().is_empty() && store.profiles(&[id("e2")]).await.unwrap().is_empty());
    // The one with the password is untouched, and no password fits the other.
    let alice = store.login(PASSWORD, "alice").await.unwrap().unwrap();
    assert_eq!((alice.user.as_str(), alice.secret.is_empty()), ("u1", false));
    assert!(store.login(PASSWORD, "alice-e1").await.unwrap().is_none());
    assert_eq!(user(store, "e3", "alice-E1").await, Added::NameTaken);
    // A subject that is spelled like a name, another issuer with the same subject, and the same letters cut elsewhere.
    assert_eq!(join(one, "alice", "e4", &["alice", "alice-e4"]).await, joined(("e4", "alice-e4"), true));
    assert!(store.login(two, "s1").await.unwrap().is_none());
    assert_eq!(join(two, "s1", "e5", &["Alice", "alice-e1", "alice-e5"]).await, joined(("e5", "alice-e5"), true));
    assert!(store.login("https://logi", "ns1").await.unwrap().is_none());
    assert_eq!(join(one, "S1", "e6", &["alice-e6"]).await, joined(("e6", "alice-e6"), true), "case counts in subjects");
    // Who has taken all names beforehand keeps nobody out.
    assert_eq!(join(one, "s2", "e7", &["alice", "alice-e1"]).await, joined(("e7", "e7"), true));
    assert_eq!(store.find("alice-e1", 20).await.unwrap().len(), 1);
    assert_eq!(store.profiles(&[id("e1")]).await.unwrap()[0].name, "ALICE-e1");
    // The first time, by many at once.
    let ids: Vec<String> = (10..20).map(|n| format!("x{n}")).collect();
    let all = futures_util::future::join_all(ids.iter().map(|new| join(one, "s3", new, &["alice", "Xavier", "other"]))).await;
    assert!(all.iter().all(|j| j.profile.name == "Xavier" && j.profile.user == all[0].profile.user), "{all:?}");
    assert!(all.iter().any(|j| j.made), "{all:?}");
    assert_eq!(store.login(one, "s3").await.unwrap().unwrap().user, all[0].profile.user);
    assert!(store.find("other", 20).await.unwrap().is_empty(), "one name each");
}

async fn contacts<S: Accounts>(store: &S) {
    let (a, b): (UserId, UserId) = (id("u1"), id("u3"));
    let side = async |of: &UserId| store.contacts(of).await.unwrap().into_iter().map(|c| (c.user, c.state)).collect::<Vec<_>>();
    let change = async |x: &UserId, y: &UserId, c| store.change_contact(x, y, c).await.unwrap();
    let is = |state, changed| ContactOutcome::Is { state, changed };
    assert_eq!(change(&a, &id("nobody"), ContactChange::Request).await, ContactOutcome::NoSuchUser);
    assert_eq!(change(&a, &b, ContactChange::Request).await, is(Some(ContactState::Requested), true));
    assert_eq!(change(&a, &b, ContactChange::Request).await, is(Some(ContactState::Requested), false));
    assert_eq!(change(&a, &b, ContactChange::Accept).await, ContactOutcome::NothingToAccept);
    assert_eq!((side(&a).await, side(&b).await), (vec![(b.clone(), ContactState::Requested)], vec![(a.clone(), ContactState::Asked)]));
    assert_eq!(change(&b, &a, ContactChange::Accept).await, is(Some(ContactState::Contact), true));
    assert_eq!((side(&a).await, side(&b).await), (vec![(b.clone(), ContactState::Contact)], vec![(a.clone(), ContactState::Contact)]));
    assert_eq!(change(&a, &b, ContactChange::Remove).await, is(None, true));
    assert_eq!(change(&a, &b, ContactChange::Remove).await, is(None, false));
    assert!(side(&a).await.is_empty() && side(&b).await.is_empty());
    // Both ask at once: the second to come accepts.
    let (x, y) = tokio::join!(change(&a, &b, ContactChange::Request), change(&b, &a, ContactChange::Request));
    assert!(x != y && [x, y].contains(&is(Some(ContactState::Contact), true)), "{x:?} {y:?}");
}

async fn refresh_tokens<S: Accounts>(store: &S) {
    let f = family("f1");
    store.open_family(f.clone(), hash(1), 1_000).await.unwrap();
    let done = Rotated::Done { family: f.clone(), name: "Alice".into() };
    assert_eq!(store.rotate(hash(1), hash(2), 10, 2_000).await.unwrap(), done);
    assert_eq!(store.rotate(hash(2), hash(3), 20, 2_000).await.unwrap(), done);
    assert_eq!(store.rotate(hash(9), hash(4), 30, 2_000).await.unwrap(), Rotated::Unknown);
    assert_eq!(store.rotate(hash(1), hash(4), 30, 2_000).await.unwrap(), Rotated::Reused(f.clone()));
    assert_eq!(store.rotate(hash(3), hash(4), 40, 2_000).await.unwrap(), Rotated::Revoked, "the newest one went with its family");
    assert_eq!(store.rotate(hash(4), hash(5), 40, 2_000).await.unwrap(), Rotated::Unknown, "a refused rotation gives nothing");
    // Twice at once: exactly one gets a new one, and then the family is gone.
    store.open_family(family("f2"), hash(20), 1_000).await.unwrap();
    let (a, b) = tokio::join!(store.rotate(hash(20), hash(21), 10, 2_000), store.rotate(hash(20), hash(22), 10, 2_000));
    let outcomes = [a.unwrap(), b.unwrap()];
    assert!(
        outcomes.contains(&Rotated::Reused(family("f2"))) && outcomes.iter().any(|o| matches!(o, Rotated::Done { .. })),
        "{outcomes:?}"
    );
    store.open_family(family("f3"), hash(30), 1_000).await.unwrap();
    assert_eq!(store.revoke(hash(30)).await.unwrap(), Some(family("f3")));
    assert_eq!(store.revoke(hash(99)).await.unwrap(), None);
    assert_eq!(store.rotate(hash(30), hash(31), 10, 2_000).await.unwrap(), Rotated::Revoked);
}

async fn expiry<S: Accounts>(store: &S) {
    store.open_family(family("f4"), hash(40), 5_000).await.unwrap();
    assert_eq!(store.rotate(hash(40), hash(41), 5_000, 9_000).await.unwrap(), Rotated::Expired);
    // A store whose server forgets by itself may do so later.
    store.sweep(6_000).await.unwrap();
    let again = store.rotate(hash(40), hash(41), 6_000, 9_000).await.unwrap();
    assert!(matches!(again, Rotated::Expired | Rotated::Unknown), "{again:?}");
    store.open_family(family("f5"), hash(50), 9_000).await.unwrap();
    store.sweep(6_000).await.unwrap();
    assert!(matches!(store.rotate(hash(50), hash(51), 6_000, 9_000).await.unwrap(), Rotated::Done { .. }), "what is good stays");
}
