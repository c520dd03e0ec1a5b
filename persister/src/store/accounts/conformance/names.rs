//! Who has which name: made, looked for, given up.

use super::*;

pub(super) async fn names<S: Accounts>(store: &S) {
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
pub(super) async fn lookalikes<S: Accounts>(store: &S) {
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

pub(super) async fn externals<S: Accounts>(store: &S) {
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

/// A name that was given up is held for a while, from everybody but who had it.
pub(super) async fn renaming<S: Accounts>(store: &S) {
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

pub(super) async fn deleting<S: Accounts>(store: &S) {
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

fn names_of(found: Vec<Profile>) -> Vec<String> {
    found.into_iter().map(|p| p.name).collect()
}

async fn found<S: Accounts>(store: &S, prefix: &str, limit: usize) -> Vec<String> {
    names_of(store.find(&Prefix::of(prefix).unwrap().unwrap(), limit).await.unwrap())
}
