//! The service `directory` against a real nats-server and a SQLite file: accounts, contacts, lost keys, and a storm of
//! logins.

#![allow(clippy::unwrap_used)]

mod deletion;
mod invites;
mod kit;
mod operators;
mod passwords;
mod rebuild;
mod sessions;

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, future::join_all};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use kit::{World, cheap, login, refresh, register};
use natterjack_nats::{ServerTime, subjects};
use natterjack_persister::{
    directory::keys::Keys,
    password::Cost,
    store::accounts::{Accounts as _, NextToken, Rotated, Use},
    tokens::{KeyTimes, RefreshSecret, Salt},
};
use natterjack_protocol::{
    Code, Times, UserId,
    client::http::{ContactChange, ContactState, Tokens},
    internal::{
        claims::{Claims, ISSUER},
        kv::PublicKey,
        live::Ephemeral,
        rpc::{DirectoryAnswer, DirectoryRequest},
    },
};
use natterjack_runtime::clock::wall_ms;

/// As an edge does it: the key by its id from the control bucket.
async fn claims(world: &World, access: &str) -> Claims {
    let kid = jsonwebtoken::decode_header(access).unwrap().kid.unwrap();
    let key =
        world.buckets().signing_key(&kid.parse().unwrap()).load().await.unwrap().expect("published before it signs");
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&[ISSUER]);
    jsonwebtoken::decode(access, &DecodingKey::from_ed_der(&key.ed25519), &validation).unwrap().claims
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_from_registration_to_logout() {
    let world = World::new(cheap()).await;
    let first = world.register("Alice").await;
    assert_eq!((first.name.as_str(), first.device.as_str()), ("Alice", "phone-1"));
    let c = claims(&world, &first.access).await;
    assert_eq!((&c.sub, &c.device, c.exp - c.iat), (&first.user, &first.device, first.expires_in));
    let threads = world.buckets().threads(&first.user).load().await.unwrap().expect("present = the user exists");
    assert!(threads.threads.is_empty());

    let second = world.tokens(&login("aLiCe", kit::PASSWORD)).await.unwrap();
    assert_eq!(second.user, first.user);
    assert_ne!(claims(&world, &second.access).await.fam, c.fam, "a family for each login");
    let wrong = world.refusal(&login("alice", "wrong password")).await;
    assert_eq!(wrong.code, Code::Unauthorized);
    assert_eq!(
        wrong,
        world.refusal(&login("nobody", "wrong password")).await,
        "no word about which of the two was wrong"
    );
    assert_eq!(wrong, world.refusal(&login("alice", "short")).await);

    let third = world.tokens(&refresh(&first)).await.unwrap();
    assert_eq!((&third.user, third.name.as_str()), (&first.user, "Alice"));
    assert_eq!(claims(&world, &third.access).await.fam, c.fam);
    let fourth = world.tokens(&refresh(&third)).await.unwrap();
    // The first one again: whoever has it, the whole family ends, the newest token included. The other login lives.
    assert_eq!(world.refusal(&refresh(&first)).await.code, Code::Unauthorized);
    assert_eq!(world.refusal(&refresh(&fourth)).await.code, Code::Unauthorized);
    let fifth = world.tokens(&refresh(&second)).await.unwrap();

    let logout = |t: &Tokens| DirectoryRequest::Logout { refresh: t.refresh.clone() };
    assert!(matches!(world.ask(&logout(&fifth)).await, Ok(DirectoryAnswer::Done)));
    assert_eq!(world.refusal(&refresh(&fifth)).await.code, Code::Unauthorized);
    assert!(matches!(world.ask(&logout(&fifth)).await, Ok(DirectoryAnswer::Done)), "again is no harm");
    for bad in [String::new(), "x".repeat(43), RefreshSecret::mint().unwrap().into_secret()] {
        assert_eq!(world.refusal(&DirectoryRequest::Refresh { refresh: bad }).await.code, Code::Unauthorized);
    }
    world.end().await;
}

/// A persister has used the token up and died before it answered, or an answer was lost further on: the next one has
/// the same to give.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_whose_answer_was_lost_is_good_for_a_while() {
    let times = Times { refresh_again: Duration::from_millis(1_500), ..Times::default() };
    let mut world = World::with(cheap(), times).await;
    world.start_directory(cheap()).await;
    let first = world.register("Alice").await;
    let (old, salt) = (RefreshSecret::parse(&first.refresh).unwrap(), Salt::mint().unwrap());
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let next = NextToken { hash: old.next(&salt).hash(), salt, expires: now + 1_000_000 };
    let died = world.store.rotate(old.hash(), next, Use { now, earliest: now, again: 0 }).await.unwrap();
    assert!(matches!(died, Rotated::Done { .. }), "{died:?}");
    let second = world.tokens(&refresh(&first)).await.unwrap();
    assert_eq!(second.refresh, old.next(&salt).into_secret());
    // Until the time is over, from whatever instance; then it ends the login.
    let used = Instant::now();
    while used.elapsed() < Duration::from_millis(300) {
        assert_eq!(world.tokens(&refresh(&first)).await.unwrap().refresh, second.refresh);
    }
    let fam = claims(&world, &second.access).await.fam;
    tokio::time::sleep_until((used + Duration::from_millis(1_600)).into()).await;
    assert_eq!(world.refusal(&refresh(&first)).await.code, Code::Unauthorized);
    assert_eq!(world.refusal(&refresh(&second)).await.code, Code::Unauthorized);
    assert!(world.buckets().revoked_login(&fam.parse().unwrap()).exists().await.unwrap(), "every edge is told");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_whose_answer_was_lost_is_answered_again() {
    let mut world = World::new(cheap()).await;
    world.start_directory(cheap()).await;
    let first = world.register("Alice").await;
    let again = world.register("Alice").await;
    assert_eq!(again.user, first.user);
    assert_ne!(claims(&world, &again.access).await.fam, claims(&world, &first.access).await.fam);
    // By nobody else: another password, another spelling, and no word about which.
    let other = DirectoryRequest::Register {
        name: "Alice".into(),
        password: "another password".into(),
        device: kit::device(),
        invite: None,
    };
    let taken = world.refusal(&other).await;
    assert_eq!(taken.code, Code::Conflict);
    assert_eq!(taken, world.refusal(&register("aLICE")).await);
    // At once.
    let requests = vec![register("Bob"); 8];
    let all = join_all(requests.iter().map(|r| world.tokens(r))).await;
    let users: std::collections::BTreeSet<UserId> = all.into_iter().map(|t| t.unwrap().user).collect();
    assert_eq!(users.len(), 1);
    // A crash before the list of threads was made.
    world.buckets().threads(&first.user).delete().await.unwrap();
    assert_eq!(world.register("Alice").await.user, first.user);
    assert!(world.buckets().threads(&first.user).exists().await.unwrap());
    // An account that is not new is tried by logins only.
    let user = first.user.to_string();
    let aged =
        world.store.write(move |tx| tx.execute("UPDATE users SET created = created - 601000 WHERE user = ?1", [user]));
    assert_eq!(aged.await.unwrap(), 1);
    assert_eq!(world.refusal(&register("Alice")).await, taken);
    assert_eq!(world.tokens(&login("Alice", kit::PASSWORD)).await.unwrap().user, first.user);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_account_is_refused() {
    let world = World::new(cheap()).await;
    for bad in ["", "a", "a b", "аlice", "a*", "a\0b", &"x".repeat(33)] {
        assert_eq!(world.refusal(&register(bad)).await.code, Code::Invalid, "{bad:?}");
    }
    for bad in ["", "seven 7", &"x".repeat(257)] {
        let request = DirectoryRequest::Register {
            name: "alice".into(),
            password: bad.to_owned(),
            device: kit::device(),
            invite: None,
        };
        assert_eq!(world.refusal(&request).await.code, Code::Invalid);
    }
    world.end().await;
}

/// Two instances, two handles on the file, names that differ in case only.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_a_name_exactly_one_gets_it() {
    let mut world = World::new(cheap()).await;
    world.start_directory(cheap()).await;
    for round in 0..5 {
        let name = |n: usize| if n.is_multiple_of(2) { format!("Wanted{round}") } else { format!("wanteD{round}") };
        let with_password = |n| DirectoryRequest::Register {
            name: name(n),
            password: format!("{} {n}", kit::PASSWORD),
            device: kit::device(),
            invite: None,
        };
        let requests: Vec<DirectoryRequest> = (0..16).map(with_password).collect();
        let outcomes = join_all(requests.iter().map(|r| world.tokens(r))).await;
        let refused = outcomes.iter().filter_map(|o| o.as_ref().err()).collect::<Vec<_>>();
        assert_eq!(refused.len(), 15);
        assert!(refused.iter().all(|r| r.code == Code::Conflict && r.message.contains("taken")), "{refused:?}");
    }
    let elsewhere = DirectoryRequest::LoginExternal { token: "a.b.c".into(), device: kit::device() };
    assert_eq!(world.refusal(&elsewhere).await.code, Code::NotFound, "no issuer is configured");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_ask_accept_and_part() {
    let world = World::new(cheap()).await;
    let (a, b) = (world.user("alice").await, world.user("bob").await);
    let mut hints = world.nats.subscribe(subjects::live_user_x(&b)).await.unwrap();
    world.nats.flush_barrier().await.unwrap();
    let change = |actor: &UserId, other: &UserId, change| DirectoryRequest::Contact {
        actor: actor.clone(),
        other: other.clone(),
        change,
    };
    let state = async |request: DirectoryRequest| match world.ask(&request).await {
        Ok(DirectoryAnswer::Contact(state)) => state,
        Ok(_) => panic!("another answer"),
        Err(e) => panic!("{e}"),
    };
    let list =
        async |actor: &UserId| match world.ask(&DirectoryRequest::Contacts { actor: actor.clone(), after: None }).await
        {
            Ok(DirectoryAnswer::Contacts { contacts, .. }) => {
                contacts.into_iter().map(|c| (c.name, c.state)).collect::<Vec<_>>()
            }
            _ => panic!("no contacts"),
        };
    assert_eq!(state(change(&a, &b, ContactChange::Request)).await, Some(ContactState::Requested));
    let hint = tokio::time::timeout(Duration::from_secs(20), hints.next()).await.unwrap().unwrap();
    assert_eq!(Ephemeral::decode(&hint.payload).unwrap(), Ephemeral::Contacts);
    assert_eq!(list(&b).await, [("alice".to_owned(), ContactState::Asked)]);
    assert_eq!(world.refusal(&change(&a, &b, ContactChange::Accept)).await.code, Code::NotFound);
    assert_eq!(state(change(&b, &a, ContactChange::Accept)).await, Some(ContactState::Contact));
    assert_eq!(list(&a).await, [("bob".to_owned(), ContactState::Contact)]);
    assert_eq!(state(change(&a, &b, ContactChange::Remove)).await, None);
    assert!(list(&a).await.is_empty() && list(&b).await.is_empty());
    assert_eq!(world.refusal(&change(&a, &a, ContactChange::Request)).await.code, Code::Invalid);
    let nobody = UserId::parse("nobody").unwrap();
    assert_eq!(world.refusal(&change(&a, &nobody, ContactChange::Request)).await.code, Code::NotFound);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_found_by_the_beginning_of_their_names() {
    let world = World::new(cheap()).await;
    let a = world.user("Anna").await;
    for n in 0..25 {
        world.user(&format!("ann-{n:02}")).await;
    }
    let find =
        async |prefix: &str| match world.ask(&DirectoryRequest::Find { actor: a.clone(), prefix: prefix.into() }).await
        {
            Ok(DirectoryAnswer::Profiles(p)) => p.into_iter().map(|p| p.name).collect::<Vec<_>>(),
            _ => panic!("no profiles"),
        };
    assert_eq!(find("ANNA").await, ["Anna"]);
    assert_eq!(find("an").await.len(), 20);
    assert_eq!(find("ann-0").await.len(), 10);
    for none in ["bo", "an%", "a_", "an*", "än"] {
        assert!(find(none).await.is_empty(), "{none}");
    }
    let short = DirectoryRequest::Find { actor: a.clone(), prefix: "a".into() };
    assert_eq!(world.refusal(&short).await.code, Code::Invalid);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_and_expired_ones_are_cleared_away() {
    let world = World::new(cheap()).await;
    let (buckets, kdead) = (world.buckets(), "kdead".parse().unwrap());
    let dead = PublicKey { ed25519: vec![0; 32], until: 1_000 };
    buckets.signing_key(&kdead).put(&dead).await.unwrap();
    let times = KeyTimes { rotation: 400, access: 60_000, grace: 1_000 };
    let keys = Keys::start(&buckets, times, ServerTime::start(&world.nats, wall_ms).await).await.unwrap();
    let before = keys.current().unwrap();
    let watch = async {
        while keys.current().is_ok_and(|key| key.kid == before.kid)
            || buckets.signing_key(&kdead).exists().await.unwrap()
        {
            // Asks again.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = keys.run() => unreachable!("it never ends"),
        done = tokio::time::timeout(Duration::from_secs(10), watch) => done.expect("rotated and cleared"),
    }
    for key in [before, keys.current().unwrap()] {
        assert!(buckets.signing_key(&key.kid).exists().await.unwrap(), "the old one verifies what it signed");
    }
    world.end().await;
}

/// The real cost of argon2: 200 people at once, of whom the line takes what it can; all others are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_logins_starves_nobody() {
    let world = World::alone(Cost::default()).await;
    let user = world.user("alice").await;
    let attempt = login("alice", kit::PASSWORD);
    let storm = async {
        let outcomes = join_all((0..200).map(|_| world.tokens(&attempt))).await;
        let good = outcomes.iter().filter(|o| o.is_ok()).count();
        for refused in outcomes.iter().filter_map(|o| o.as_ref().err()) {
            assert_eq!(refused.code, Code::RateLimited);
            assert!(refused.retry_after_ms.is_some_and(|ms| ms >= 1_000));
        }
        good
    };
    let done = std::cell::Cell::new(false);
    let others = async {
        let mut times = Vec::new();
        while !done.get() {
            let before = Instant::now();
            let answer = world.ask(&DirectoryRequest::Profiles { users: vec![user.clone()] }).await;
            assert!(matches!(answer, Ok(DirectoryAnswer::Profiles(p)) if p.len() == 1));
            times.push(before.elapsed());
            // A pace.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        times.sort();
        times
    };
    let logins = async {
        let good = storm.await;
        done.set(true);
        good
    };
    let began = Instant::now();
    let (good, times) = tokio::join!(logins, others);
    let storm = began.elapsed();
    assert!(good >= 100, "{good} of 200");
    assert!(times.len() > 10, "the storm was over at once");
    let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
    // Whoever waits behind the storm waits for a good part of it, also on a slow machine.
    let (typical, longest) = (Duration::from_millis(100).max(storm / 50), Duration::from_secs(1).max(storm / 10));
    assert!(median < typical && last < longest, "{median:?} {last:?} in a storm of {storm:?}");
    world.end().await;
}
