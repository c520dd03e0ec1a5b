//! What every store of accounts must do; each store's tests run it on an empty one.

use natterjack_protocol::{
    Token, UserId,
    client::http::{ContactChange, ContactState, Profile},
};

use super::*;
use crate::tokens::{InviteHash, RefreshHash, Salt};

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

async fn names<S: Accounts>(store: &S) {
    assert_eq!(user(store, "u1", "Alice").await, Added::Done);
    assert_eq!(user(store, "u2", "aLICE").await, Added::NameTaken);
    assert_eq!(user(store, "u3", "al-b").await, Added::Done);
    let racing = (10..20)
        .map(|n| user(store, Box::leak(format!("r{n}").into_boxed_str()), if n % 2 == 0 { "Racer" } else { "racer" }));
    let won = futures_util::future::join_all(racing).await.into_iter().filter(|a| *a == Added::Done).count();
    assert_eq!(won, 1);
    let login = store.login(PASSWORD, &name_key("ALICE")).await.unwrap().unwrap();
    assert_eq!((login.user.as_str(), login.name.as_str(), login.secret.as_str()), ("u1", "Alice", "phc of u1"));
    assert!(
        store.login(PASSWORD, "nobody").await.unwrap().is_none()
            && store.login("elsewhere", "alice").await.unwrap().is_none()
    );
    assert_eq!(found(store, "al", 20).await, ["al-b", "Alice"]);
    assert_eq!(found(store, "al", 1).await, ["al-b"]);
    assert!(found(store, "alicex", 20).await.is_empty());
    assert_eq!(names_of(store.profiles(&[id("u1"), id("u2"), id("nobody")]).await.unwrap()), ["Alice"]);
}

/// Names that look alike are one name, and a search finds what begins with what was typed, not what looks so.
async fn lookalikes<S: Accounts>(store: &S) {
    for (taken, alike) in [
        ("Mirko", ["rnirko", "Mlrko", "MIRK0"]),
        ("Zoë-L", ["zoe\u{308}-l", "ZOË-I", "zoë-1"]),
        ("сосо", ["coco", "C0C0", "сосO"]),
    ] {
        let key = id(&format!("k{}", name_key(taken).len()));
        assert_eq!(user(store, key.as_str(), taken).await, Added::Done, "{taken}");
        for name in alike {
            assert_eq!(user(store, "k-other", name).await, Added::NameTaken, "{name} looks like {taken}");
            assert_eq!(store.login(PASSWORD, &name_key(name)).await.unwrap().unwrap().name, taken, "{name}");
        }
        assert_eq!(store.profiles(&[id("k-other")]).await.unwrap(), []);
    }
    // An account from elsewhere gets no lookalike either.
    let names = vec!["rnirko".to_owned(), "mirko-2".to_owned()];
    let new = NewExternal { issuer: "https://alike".into(), subject: "s".into(), user: id("k-ext"), names, created: 1 };
    assert_eq!(store.join(new).await.unwrap().profile.name, "mirko-2");
    assert_eq!(found(store, "MI", 20).await, ["Mirko", "mirko-2"]);
    assert!(found(store, "rn", 20).await.is_empty() && found(store, "co", 20).await.is_empty());
    assert_eq!(
        (found(store, "zoe\u{308}", 20).await, found(store, "со", 20).await),
        (vec!["Zoë-L".to_owned()], vec!["сосо".to_owned()])
    );
    // More of the one sort than are read at once before the first of the other.
    for n in 0..40 {
        assert_eq!(user(store, &format!("w{n}"), &format!("wi-a{n}x")).await, Added::Done);
    }
    for n in 2..5 {
        assert_eq!(user(store, &format!("v{n}"), &format!("wl-b{n}x")).await, Added::Done);
    }
    assert_eq!(found(store, "wl", 2).await, ["wl-b2x", "wl-b3x"]);
    assert_eq!(
        (found(store, "wl", 20).await.len(), found(store, "wi", 50).await.len(), found(store, "wi", 20).await.len()),
        (3, 40, 20)
    );
}

fn names_of(found: Vec<Profile>) -> Vec<String> {
    found.into_iter().map(|p| p.name).collect()
}

async fn found<S: Accounts>(store: &S, prefix: &str, limit: usize) -> Vec<String> {
    names_of(store.find(&Prefix::of(prefix).unwrap().unwrap(), limit).await.unwrap())
}

async fn externals<S: Accounts>(store: &S) {
    let joined = |profile: (&str, &str), made| Joined { profile: Profile::named(id(profile.0), profile.1), made };
    let join = async |issuer: &str, subject: &str, user: &str, names: &[&str]| {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        store
            .join(NewExternal { issuer: issuer.into(), subject: subject.into(), user: id(user), names, created: 1 })
            .await
            .unwrap()
    };
    let (one, two) = ("https://login", "https://other");
    assert!(store.login(one, "s1").await.unwrap().is_none());
    // "Alice" is somebody's, with a password.
    assert_eq!(join(one, "s1", "e1", &["Alice", "ALICE-e1"]).await, joined(("e1", "ALICE-e1"), true));
    assert_eq!(join(one, "s1", "e2", &["else"]).await, joined(("e1", "ALICE-e1"), false), "the same user ever after");
    let login = store.login(one, "s1").await.unwrap().unwrap();
    assert_eq!((login.user.as_str(), login.name.as_str(), login.secret.as_str()), ("e1", "ALICE-e1", ""));
    assert!(found(store, "else", 20).await.is_empty() && store.profiles(&[id("e2")]).await.unwrap().is_empty());
    // The one with the password is untouched, and no password fits the other.
    let alice = store.login(PASSWORD, &name_key("alice")).await.unwrap().unwrap();
    assert_eq!((alice.user.as_str(), alice.secret.is_empty()), ("u1", false));
    assert!(store.login(PASSWORD, &name_key("alice-e1")).await.unwrap().is_none());
    assert_eq!(user(store, "e3", "alice-E1").await, Added::NameTaken);
    // A subject that is spelled like a name, another issuer with the same subject, and the same letters cut elsewhere.
    assert_eq!(join(one, "alice", "e4", &["alice", "alice-e4"]).await, joined(("e4", "alice-e4"), true));
    assert!(store.login(two, "s1").await.unwrap().is_none());
    assert_eq!(join(two, "s1", "e5", &["Alice", "alice-e1", "alice-e5"]).await, joined(("e5", "alice-e5"), true));
    assert!(store.login("https://logi", "ns1").await.unwrap().is_none());
    assert_eq!(join(one, "S1", "e6", &["alice-e6"]).await, joined(("e6", "alice-e6"), true), "case counts in subjects");
    // Who has taken all names beforehand keeps nobody out.
    assert_eq!(join(one, "s2", "e7", &["alice", "alice-e1"]).await, joined(("e7", "e7"), true));
    assert_eq!(found(store, "alice-e1", 20).await.len(), 1);
    assert_eq!(store.profiles(&[id("e1")]).await.unwrap()[0].name, "ALICE-e1");
    // The first time, by many at once.
    let ids: Vec<String> = (10..20).map(|n| format!("x{n}")).collect();
    let all =
        futures_util::future::join_all(ids.iter().map(|new| join(one, "s3", new, &["alice", "Xavier", "other"]))).await;
    assert!(all.iter().all(|j| j.profile.name == "Xavier" && j.profile.user == all[0].profile.user), "{all:?}");
    assert!(all.iter().any(|j| j.made), "{all:?}");
    assert_eq!(store.login(one, "s3").await.unwrap().unwrap().user, all[0].profile.user);
    assert!(found(store, "other", 20).await.is_empty(), "one name each");
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

async fn refresh_tokens<S: Accounts>(store: &S) {
    let f = opened(store, "f1", 1).await;
    assert_eq!(use_token(store, 1, 2, 10).await, gives(&f, 2));
    assert_eq!(use_token(store, 2, 3, 20).await, gives(&f, 3));
    assert_eq!(use_token(store, 9, 4, 30).await, Rotated::Unknown);
    assert_eq!(use_token(store, 1, 4, 30).await, Rotated::Reused(f.clone()), "the one in its place was used");
    assert_eq!(use_token(store, 3, 4, 40).await, Rotated::Revoked, "the newest one went with its family");
    assert_eq!(use_token(store, 1, 4, 40).await, Rotated::Revoked);
    assert_eq!(use_token(store, 4, 5, 40).await, Rotated::Unknown, "a refused rotation gives nothing");
    let f = opened(store, "f3", 30).await;
    assert_eq!(store.revoke(hash(30)).await.unwrap(), Some(f.clone()));
    assert_eq!(store.revoke(hash(30)).await.unwrap(), Some(f), "again");
    assert_eq!(store.revoke(hash(99)).await.unwrap(), None);
    assert_eq!(use_token(store, 30, 31, 10).await, Rotated::Revoked);
    let f = opened(store, "f8", 32).await;
    assert_eq!(use_token(store, 32, 33, 10).await, gives(&f, 33));
    assert_eq!(store.revoke(hash(32)).await.unwrap(), Some(f), "by one that was used");
    assert_eq!(use_token(store, 33, 34, 20).await, Rotated::Revoked);
    assert_eq!(use_token(store, 32, 34, 20).await, Rotated::Revoked, "in time, but the login is over");
}

/// An answer was lost, so the same token comes again.
async fn refresh_again<S: Accounts>(store: &S) {
    let f = opened(store, "f6", 60).await;
    for (offered, now) in [(61, 1_000), (62, 1_000), (63, 1_000 + AGAIN), (64, 5)] {
        assert_eq!(use_token(store, 60, offered, now).await, gives(&f, 61), "at {now}");
    }
    for never_given in [62, 63, 64] {
        assert_eq!(use_token(store, never_given, 65, 2_000).await, Rotated::Unknown);
    }
    // The next answer is lost as well, and the one after it.
    for (old, next) in [(61, 66), (66, 67), (67, 68)] {
        assert_eq!(use_token(store, old, next, 80_000).await, gives(&f, next));
        assert_eq!(use_token(store, old, 69, 80_001).await, gives(&f, next));
    }
    assert_eq!(
        use_token(store, 66, 69, 80_002).await,
        Rotated::Reused(f),
        "in time, but the one in its place was used"
    );
    assert_eq!(use_token(store, 68, 69, 80_003).await, Rotated::Revoked);
    // Too late.
    let f = opened(store, "f7", 70).await;
    assert_eq!(use_token(store, 70, 71, 1_000).await, gives(&f, 71));
    assert_eq!(use_token(store, 70, 72, 1_001 + AGAIN).await, Rotated::Reused(f), "the time counts from its first use");
    assert_eq!(use_token(store, 71, 72, 1_001 + AGAIN).await, Rotated::Revoked);
    // It was good when it was used.
    let f = opened(store, "f9", 75).await;
    assert_eq!(use_token(store, 75, 76, 99_999).await, gives(&f, 76));
    assert_eq!(use_token(store, 75, 77, 100_001).await, gives(&f, 76));
    // Many at once: all of them get the same, and that one is good.
    let f = opened(store, "f2", 100).await;
    let all = futures_util::future::join_all((101..121).map(|offered| use_token(store, 100, offered, 1_000))).await;
    let Rotated::Done { salt, .. } = all[0] else { panic!("{all:?}") };
    let given = salt.0[0];
    assert!((101..121).contains(&given) && all.iter().all(|r| *r == gives(&f, given)), "{all:?}");
    for offered in (101..121).filter(|n| *n != given) {
        assert_eq!(use_token(store, offered, 130, 2_000).await, Rotated::Unknown, "nobody was given {offered}");
    }
    let all = futures_util::future::join_all((131..151).map(|offered| use_token(store, given, offered, 2_000))).await;
    assert!(all.iter().all(|r| *r == all[0] && matches!(r, Rotated::Done { .. })), "{all:?}");
}

async fn devices<S: Accounts>(store: &S) {
    let knows = async |user: &str, device: &str| store.has_device(&id(user), &id(device)).await.unwrap();
    assert!(!knows("u1", "phone").await);
    open(store, Family { id: id("f10"), user: id("u1"), device: id("phone") }, 200, 100_000).await;
    assert!(knows("u1", "phone").await);
    for (user, device) in [("u3", "phone"), ("u1", "phon"), ("u1p", "hone"), ("nobody", "phone"), ("u1", "PHONE")] {
        assert!(!knows(user, device).await, "{user} {device}");
    }
    assert!(matches!(use_token(store, 200, 201, 1_000).await, Rotated::Done { .. }));
    assert!(store.revoke(hash(201)).await.unwrap().is_some());
    assert!(knows("u1", "phone").await, "who has logged out may log in again");
}

/// Which logins are not over, and ending them.
async fn logins<S: Accounts>(store: &S) {
    let listed = async |device: Option<&str>, now| {
        let device = device.map(id);
        let mut all = store.open_logins(&id("u3"), device.as_ref(), now).await.unwrap();
        all.sort_by_key(|l| l.since);
        all.into_iter().map(|l| (l.family.id.to_string(), l.family.device.to_string(), l.since)).collect::<Vec<_>>()
    };
    let one = |f: &str, d: &str, since| (f.to_owned(), d.to_owned(), since);
    let family = |f: &str, d: &str| Family { id: id(f), user: id("u3"), device: id(d) };
    assert_eq!(listed(None, 1).await, []);
    for (f, d, n) in [("l1", "phone", 210), ("l2", "phone", 211), ("l3", "web", 212)] {
        open(store, family(f, d), n, 100_000).await;
    }
    let (l1, l2, l3) = (one("l1", "phone", 210), one("l2", "phone", 211), one("l3", "web", 212));
    assert_eq!(listed(None, 1).await, [l1.clone(), l2.clone(), l3.clone()]);
    assert_eq!(listed(Some("phone"), 1).await, [l1, l2.clone()]);
    assert_eq!((listed(Some("phon"), 1).await, listed(Some("tablet"), 1).await), (vec![], vec![]));
    store.end_login(&family("l1", "phone")).await.unwrap();
    assert_eq!(use_token(store, 210, 220, 10).await, Rotated::Revoked);
    assert_eq!(listed(None, 1).await, [l2.clone(), l3.clone()], "nobody else's ends");
    // Renewed, it lives on, since the same time.
    assert!(matches!(use_token(store, 212, 221, 10).await, Rotated::Done { .. }));
    assert_eq!(
        (listed(None, 99_999).await, listed(None, 100_000).await),
        (vec![l2.clone(), l3.clone()], vec![l3.clone()])
    );
    assert_eq!(listed(None, 200_000).await, [], "the next one expires, too");
    // Stolen: over as well. And what is over stays so.
    assert!(matches!(use_token(store, 221, 222, 20).await, Rotated::Done { .. }));
    assert!(matches!(use_token(store, 212, 223, 30).await, Rotated::Reused(_)));
    store.revoke(hash(211)).await.unwrap();
    assert_eq!(listed(None, 1).await, []);
    store.end_login(&family("l1", "phone")).await.unwrap();
    store.end_login(&family("never", "phone")).await.unwrap();
    assert_eq!(listed(None, 1).await, []);
}

async fn expiry<S: Accounts>(store: &S) {
    open(store, family("f4"), 40, 5_000).await;
    assert_eq!(use_token(store, 40, 41, 5_000).await, Rotated::Expired);
    // A store whose server forgets by itself may do so later.
    store.sweep(6_000).await.unwrap();
    let again = use_token(store, 40, 41, 6_000).await;
    assert!(matches!(again, Rotated::Expired | Rotated::Unknown), "{again:?}");
    let f = opened(store, "f5", 50).await;
    store.sweep(6_000).await.unwrap();
    assert_eq!(use_token(store, 50, 51, 6_000).await, gives(&f, 51), "what is good stays");
}

/// A name that was given up is held for a while, from everybody but who had it.
async fn renaming<S: Accounts>(store: &S) {
    let rename = async |user: &str, name: &str, now| {
        store.rename(&id(user), name, NameHold { now, until: now + 100 }).await.unwrap()
    };
    let with = async |user: &str, name: &str, created| {
        let new = NewUser { user: id(user), name: name.into(), secret: "phc".into(), created };
        store.add_user(new).await.unwrap()
    };
    assert_eq!((with("h1", "Hanna", 1).await, with("h2", "Heidi", 1).await), (Added::Done, Added::Done));
    let (h1, h2): (UserId, UserId) = (id("h1"), id("h2"));
    store.change_contact(&h1, &h2, ContactChange::Request).await.unwrap();
    assert_eq!(rename("nobody", "Nora", 10).await, Renamed::NoSuchUser);
    assert_eq!(rename("h1", "hEIDI", 10).await, Renamed::NameTaken);
    for _ in 0..2 {
        assert_eq!(rename("h1", "Johanna", 10).await, Renamed::Done);
    }
    let login = store.login(PASSWORD, &name_key("johanna")).await.unwrap().unwrap();
    assert_eq!((login.user.as_str(), login.name.as_str(), login.secret.as_str()), ("h1", "Johanna", "phc"));
    assert!(store.login(PASSWORD, &name_key("hanna")).await.unwrap().is_none());
    assert_eq!((found(store, "Han", 20).await.len(), found(store, "Joh", 20).await), (0, vec!["Johanna".to_owned()]));
    assert_eq!(store.contacts(&h2).await.unwrap()[0].name, "Johanna", "who knows them sees the new name");
    assert!(store.set_secret(&h1, "another").await.unwrap());
    let at_the_edge = (with("h3", "hanna", 109).await, rename("h2", "Hanna", 109).await);
    assert_eq!(at_the_edge, (Added::NameTaken, Renamed::NameTaken));
    assert_eq!(found(store, "Han", 20).await.len(), 0, "and it is nobody's");
    let theirs = (rename("h1", "Hanna", 50).await, rename("h1", "HANNA", 50).await);
    assert_eq!(theirs, (Renamed::Done, Renamed::Done), "their own, and another spelling of it");
    let login = store.login(PASSWORD, &name_key("hanna")).await.unwrap().unwrap();
    assert_eq!((login.name.as_str(), login.secret.as_str()), ("HANNA", "another"));
    assert_eq!(store.account(&h1).await.unwrap().unwrap().profile.name, "HANNA");
    assert_eq!(with("h4", "johanna", 149).await, Added::NameTaken);
    assert_eq!(with("h5", "johanna", 150).await, Added::Done, "free again");
    // Of somebody whose login is elsewhere.
    assert_eq!(rename("e1", "Elsewhere", 10).await, Renamed::Done);
    assert_eq!(store.login("https://login", "s1").await.unwrap().unwrap().name, "Elsewhere");
    assert!(store.login(PASSWORD, &name_key("elsewhere")).await.unwrap().is_none());
}

async fn deleting<S: Accounts>(store: &S) {
    let hold = NameHold { now: 400, until: 500 };
    let delete = async |user: &str| store.delete_user(&id(user), hold).await.unwrap();
    let (z1, z2): (UserId, UserId) = (id("z1"), id("z2"));
    assert_eq!((user(store, "z1", "Zara").await, user(store, "z2", "Zelda").await), (Added::Done, Added::Done));
    store.change_contact(&z2, &z1, ContactChange::Request).await.unwrap();
    assert!(!delete("nobody").await);
    for _ in 0..2 {
        assert!(delete("z1").await);
        assert_eq!(store.deletions().await.unwrap(), [Deletion { user: z1.clone(), since: 400 }]);
    }
    let gone = store.profiles(&[z1.clone(), z2.clone()]).await.unwrap();
    assert_eq!(
        gone,
        [Profile { user: z1.clone(), name: String::new(), deleted: true }, Profile::named(z2.clone(), "Zelda")]
    );
    assert!(store.account(&z1).await.unwrap().unwrap().profile.deleted);
    assert!(store.login(PASSWORD, &name_key("zara")).await.unwrap().is_none());
    assert!(found(store, "zara", 20).await.is_empty());
    assert!(!store.set_secret(&z1, "x").await.unwrap());
    let change = async |c| store.change_contact(&z2, &z1, c).await.unwrap();
    assert_eq!(change(ContactChange::Request).await, ContactOutcome::NoSuchUser);
    let removed = ContactOutcome::Is { state: None, changed: true };
    assert_eq!(change(ContactChange::Remove).await, removed, "that is always possible");
    assert!(store.contacts(&z1).await.unwrap().is_empty() && store.contacts(&z2).await.unwrap().is_empty());
    let again =
        |created| NewUser { user: id(&format!("z{created}")), name: "zARA".into(), secret: "phc".into(), created };
    assert_eq!(store.add_user(again(499)).await.unwrap(), Added::NameTaken);
    assert_eq!(store.rename(&z2, "Zara", NameHold { now: 499, until: 600 }).await.unwrap(), Renamed::NameTaken);
    store.sweep(499).await.unwrap();
    assert_eq!(store.add_user(again(498)).await.unwrap(), Added::NameTaken, "still held");
    assert_eq!(store.add_user(again(500)).await.unwrap(), Added::Done);
    assert_eq!(store.rename(&z1, "Zora", hold).await.unwrap(), Renamed::NoSuchUser);
    let id_again = NewUser { user: z1.clone(), name: "Zora".into(), secret: "phc".into(), created: 900 };
    assert_eq!(store.add_user(id_again).await.unwrap(), Added::NameTaken, "an id is of one account");
    assert!(store.profiles(std::slice::from_ref(&z1)).await.unwrap()[0].deleted);
    store.end_deletion(&z1).await.unwrap();
    assert_eq!(store.deletions().await.unwrap(), []);
    assert!(delete("z1").await, "it is so");
    assert_eq!(store.deletions().await.unwrap(), [], "and nothing is under way");
    // Whose login is elsewhere may come back, as somebody new.
    let join = async |user: &str| {
        let names = vec!["Zoe".to_owned()];
        let new = NewExternal { issuer: "https://z".into(), subject: "s".into(), user: id(user), names, created: 450 };
        store.join(new).await.unwrap()
    };
    assert_eq!(join("zx1").await, Joined { profile: Profile::named(id("zx1"), "Zoe"), made: true });
    assert!(delete("zx1").await);
    assert!(store.login("https://z", "s").await.unwrap().is_none());
    assert_eq!(join("zx2").await, Joined { profile: Profile::named(id("zx2"), "zx2"), made: true }, "Zoe is held");
    assert_eq!(join("zx3").await.profile.user.as_str(), "zx2");
    store.end_deletion(&id("zx1")).await.unwrap();
    // Two names are given up: that of before, and this one.
    assert_eq!(user(store, "z3", "Zita").await, Added::Done);
    assert_eq!(store.rename(&id("z3"), "Zenta", NameHold { now: 100, until: 500 }).await.unwrap(), Renamed::Done);
    assert!(delete("z3").await);
    store.end_deletion(&id("z3")).await.unwrap();
    for name in ["zita", "zenta"] {
        let new = NewUser { user: id("z4"), name: name.into(), secret: "phc".into(), created: 499 };
        assert_eq!(store.add_user(new).await.unwrap(), Added::NameTaken, "{name}");
    }
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
