//! "Bring your own login": tokens of another issuer become logins here, one account for each person, whatever that
//! issuer does meanwhile.

use std::{collections::BTreeSet, time::Instant};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use natterjack_client::{Client, ConnectError, OutboxStore};
use natterjack_protocol::client::http::Tokens;
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{
    Cluster, ClusterSpec, Issuer, LossyEdge,
    issuer::{Key, Mood, claims},
    next_messages,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::common::SOON;

async fn start(issuer: &Issuer) -> Cluster {
    // Talkative, so that a token that gets into the logs is found there.
    let mut set = issuer.settings();
    // The same tokens come again and again here; the limit itself is tested in guesses.rs.
    set.push(("limits.renewals_per_login".into(), "100000".into()));
    Cluster::start(ClusterSpec { set, log_filter: "debug,async_nats=warn".into(), ..ClusterSpec::default() }).await
}

async fn log_in(cluster: &Cluster, edge: usize, token: &str) -> (u16, Value) {
    cluster.anonymous(edge).post("/v1/login/external", &json!({ "token": token })).await
}

#[track_caller]
fn tokens((status, body): (u16, Value)) -> Tokens {
    assert_eq!(status, 200, "{body}");
    serde_json::from_value(body).unwrap()
}

/// With 401, now or when the keys may be asked for again.
async fn refused_for_good(cluster: &Cluster, token: &str) {
    eventually_within("it is refused for good", SOON, async || match refused(cluster, token).await {
        (401, code, message) => {
            assert!(code == "unauthorized" && message.contains("`kid`"), "{code} {message}");
            Ok(())
        }
        (503, _, message) => Err(message),
        other => panic!("{other:?}"),
    })
    .await;
}

/// Its code, and a word of its message.
async fn refused(cluster: &Cluster, token: &str) -> (u16, String, String) {
    let (status, body) = log_in(cluster, 0, token).await;
    (
        status,
        body["code"].as_str().unwrap_or_default().to_owned(),
        body["message"].as_str().unwrap_or_default().to_owned(),
    )
}

fn with(key: &str, value: Value) -> Value {
    let mut all = claims("s-1", "Alice");
    all[key] = value;
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_issuer_is_a_login_and_an_account() {
    let (ed, ec) = (Key::ed25519("ed"), Key::p256("ec"));
    let issuer = Issuer::start(&[&ed, &ec]).await;
    let cluster = start(&issuer).await;

    let token = ed.sign(&claims("s-1", "Alice"));
    let first = tokens(log_in(&cluster, 0, &token).await);
    assert_eq!(first.name, "Alice");
    // Again, at another edge, with a key of another sort and another name: the same user, on another device.
    let second = tokens(log_in(&cluster, 1, &ec.sign(&claims("s-1", "Alicia"))).await);
    assert_eq!((&second.user, second.name.as_str()), (&first.user, "Alice"));
    assert_ne!(second.device, first.device);

    // Somebody who was never here, from everywhere at once.
    let token_of_zoe = ed.sign(&claims("s-2", "Zoe"));
    let all = join_all((0..8).map(|n| log_in(&cluster, n % 2, &token_of_zoe))).await;
    let all: BTreeSet<_> = all.into_iter().map(|a| tokens(a).user).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    let api = cluster.anonymous(0).with_token(&first.access);
    let found = api.get("/v1/users?prefix=zo").await.1;
    assert_eq!(found["users"].as_array().unwrap().len(), 1, "{found}");

    // A name that somebody has: another account with something behind the name. With a password it is nobody's.
    let other = tokens(log_in(&cluster, 0, &ed.sign(&claims("s-3", "alice"))).await);
    assert!(other.user != first.user && other.name.starts_with("alice-"), "{}", other.name);
    let credentials = json!({ "name": "Alice", "password": "correct horse battery" });
    assert_eq!(cluster.anonymous(0).post("/v1/login", &credentials).await.0, 401);
    assert_eq!(cluster.anonymous(0).post("/v1/register", &credentials).await.0, 409);

    // A login like any other: it chats, it is renewed, it ends.
    let bob = cluster.user("bob").await;
    let (_bob, mut events) = cluster.client(&bob, 1).await;
    let file = OutboxStore::File(cluster.folder().join("alice.sqlite"));
    let sdk = || Client::builder().edges([cluster.edge_url(0)]).store(file.clone());
    let (alice, _) = sdk().login_external(&token).connect().await.unwrap();
    alice.send_text(alice.dm(bob.id()), "with a token of somebody else").await.unwrap();
    assert_eq!(next_messages(&mut events, 1, SOON).await[0].from, first.user);
    alice.close().await;
    // Its file is hers: she needs no token again, and nobody comes in with another's.
    let again = eventually_within("the file is let go", SOON, async || sdk().connect().await).await.0;
    assert_eq!(again.user(), &first.user);
    again.close().await;
    let other = eventually_within("the file is let go", SOON, async || {
        match sdk().login_external(&token_of_zoe).connect().await {
            Err(e @ ConnectError::OtherUser { .. }) => Ok(e.to_string()),
            Err(e) => Err(e.to_string()),
            Ok(_) => panic!("somebody else's file was opened"),
        }
    })
    .await;
    assert!(other.contains("Alice") && other.contains("Zoe"), "{other}");

    let (status, renewed) = cluster.anonymous(1).post("/v1/refresh", &json!({ "refresh": second.refresh })).await;
    assert_eq!((status, renewed["user"].as_str()), (200, Some(first.user.as_str())), "{renewed}");
    assert_eq!(cluster.anonymous(1).post("/v1/logout", &json!({ "refresh": renewed["refresh"] })).await.0, 200);
    eventually_within("it is over", SOON, async || {
        cluster.anonymous(0).with_token(&second.access).get("/v1/threads").await.0 == 401
    })
    .await;
    for secret in [&token, &token_of_zoe, &first.access, &first.refresh] {
        cluster.assert_not_logged(secret);
    }
}

/// The login is made and its answer lost, alone and in a crowd: the same token again is a login of the same account.
/// With a token that was made a moment ago, and about whom it is; whoever comes back is somebody new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_of_the_issuer_is_deleted_with_a_fresh_token() {
    let ed = Key::ed25519("ed");
    let issuer = Issuer::start(&[&ed]).await;
    let cluster = start(&issuer).await;
    let alice = tokens(log_in(&cluster, 0, &ed.sign(&claims("s-1", "Alice"))).await);
    let api = cluster.anonymous(1).with_token(&alice.access);
    let delete = async |proof: Value| {
        let (status, body) = api.post("/v1/account/delete", &proof).await;
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    let (old, nameless) = (with("iat", json!(1_700_000_000)), with("iat", Value::Null));
    for (claims, answer) in [(old, is(403, "forbidden")), (nameless, is(403, "forbidden"))] {
        assert_eq!(delete(json!({ "token": ed.sign(&claims) })).await, answer);
    }
    tokens(log_in(&cluster, 0, &ed.sign(&claims("s-2", "Zoe"))).await);
    assert_eq!(delete(json!({ "token": ed.sign(&claims("s-2", "Zoe")) })).await, is(403, "forbidden"), "of another");
    assert_eq!(delete(json!({ "password": "correct horse battery" })).await, is(409, "conflict"), "there is none");
    let token = ed.sign(&claims("s-1", "Alice"));
    assert_eq!(delete(json!({ "token": token, "password": "x" })).await, is(400, "invalid"), "one of them");
    assert_eq!(delete(json!({ "token": token })).await.0, 200);
    eventually_within("its login is over", SOON, async || api.get("/v1/threads").await.0 == 401).await;
    let back = tokens(log_in(&cluster, 0, &token).await);
    assert!(back.user != alice.user && back.name.starts_with("Alice-"), "her name is held: {}", back.name);
    cluster.assert_not_logged(&token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_whose_answer_was_lost_made_one_account() {
    let key = Key::ed25519("ed");
    let issuer = Issuer::start(&[&key]).await;
    let cluster = start(&issuer).await;
    let lossy = LossyEdge::start(&cluster, 0).await;
    let path = "/v1/login/external";
    let login = |of: &str, name: &str| json!({ "token": key.sign(&claims(of, name)), "device": "phone-1" });
    let (alice, zoe) = (login("s-1", "Alice"), login("s-2", "Zoe"));
    for _ in 0..2 {
        lossy.lose(None, Method::POST, path, &alice).await;
    }
    let mut logins = Vec::new();
    for edge in [1, 0] {
        logins.push(tokens(cluster.anonymous(edge).post(path, &alice).await));
    }
    assert_eq!((logins[0].name.as_str(), logins[0].device.as_str()), ("Alice", "phone-1"));
    assert_eq!((&logins[0].user, &logins[0].device), (&logins[1].user, &logins[1].device));
    // Somebody new, whose answers are lost while others come through.
    let lost = join_all((0..3).map(|_| lossy.lose(None, Method::POST, path, &zoe)));
    let through = join_all((0..3).map(|_| async { tokens(cluster.anonymous(1).post(path, &zoe).await) }));
    logins.extend(tokio::join!(lost, through).1);
    assert_eq!(logins.iter().map(|l| &l.user).collect::<BTreeSet<_>>().len(), 2);
    for prefix in ["ali", "zo"] {
        let found =
            cluster.anonymous(0).with_token(&logins[0].access).get(&format!("/v1/users?prefix={prefix}")).await.1;
        assert_eq!(found["users"].as_array().unwrap().len(), 1, "{found}");
    }
    // Each of them is a login, and those that nobody heard of take nothing from it.
    for login in logins {
        assert_eq!(cluster.anonymous(0).post("/v1/refresh", &json!({ "refresh": login.refresh })).await.0, 200);
    }
    cluster.assert_not_logged(alice["token"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_good_is_refused_by_name() {
    let (key, stranger) = (Key::ed25519("k1"), Key::ed25519("k1"));
    let issuer = Issuer::start(&[&key]).await;
    let cluster = start(&issuer).await;
    let b64 = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let unsigned = |alg: &str| format!("{}.{}.", b64(json!({ "alg": alg, "kid": "k1" })), b64(claims("s-1", "Alice")));
    let hmac = jsonwebtoken::encode(
        &jsonwebtoken::Header { kid: Some("k1".into()), ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256) },
        &claims("s-1", "Alice"),
        &jsonwebtoken::EncodingKey::from_secret(
            &BASE64_URL_SAFE_NO_PAD.decode(key.jwk["x"].as_str().unwrap()).unwrap(),
        ),
    )
    .unwrap();
    let good = key.sign(&claims("s-1", "Alice"));
    for (token, code, word) in [
        (key.sign(&with("iss", json!("https://elsewhere"))), "unauthorized", "issuer"),
        (key.sign(&with("aud", json!("another-app"))), "unauthorized", "audience"),
        (key.sign(&with("exp", json!(1_700_000_000))), "token_expired", "expired"),
        (key.sign(&with("nbf", json!(4_000_000_000u64))), "unauthorized", "not good yet"),
        (key.sign(&with("sub", json!(null))), "unauthorized", "\"sub\""),
        (unsigned("none"), "unauthorized", "algorithm"),
        (hmac, "unauthorized", "algorithm"),
        (stranger.sign(&claims("s-1", "Alice")), "unauthorized", "signature"),
        (key.sign(&with("exp", json!(null))), "unauthorized", "`exp`"),
        (good[..good.len() - 4].to_owned(), "unauthorized", "signature"),
        ("nonsense".to_owned(), "unauthorized", "JWT"),
        (String::new(), "unauthorized", "JWT"),
        ("x".repeat(100_000), "unauthorized", "16384 bytes"),
    ] {
        let (status, got, message) = refused(&cluster, &token).await;
        assert!((status, got.as_str()) == (401, code) && message.contains(word), "{word}: {status} {got} {message}");
    }
    refused_for_good(&cluster, &Key::ed25519("k2").sign(&claims("s-1", "Alice"))).await;
    assert_eq!(cluster.anonymous(0).post("/v1/login/external", &json!({ "jwt": good })).await.0, 400);
    // One of our own is not one of theirs.
    let ours = cluster.user("bob").await;
    refused_for_good(&cluster, &ours.tokens.access).await;
    let api = cluster.api(&ours, 0);
    assert_eq!(api.get("/v1/users?prefix=alice").await.1["users"], json!([]), "nobody was made");
    assert_eq!(api.with_token(&good).get("/v1/threads").await.0, 401, "theirs is none of ours: it has to be exchanged");
    cluster.assert_not_logged(&good);
    cluster.assert_not_logged(good.split_once('.').unwrap().1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_and_may_be_away() {
    let (old, new, newest) = (Key::ed25519("k1"), Key::p256("k2"), Key::ed25519("k3"));
    let issuer = Issuer::start(&[&old]).await;
    let cluster = start(&issuer).await;
    let works = async |key: &Key| log_in(&cluster, 0, &key.sign(&claims("s-1", "Alice"))).await;
    let user = tokens(works(&old).await).user;

    // A new key is looked for when a token names it, not at the next look every five minutes.
    issuer.publish(&[&old, &new]);
    eventually_within(
        "the new key is known",
        SOON,
        async || if works(&new).await.0 == 200 { Ok(()) } else { Err("refused") },
    )
    .await;
    assert_eq!(tokens(works(&new).await).user, user);
    // Made-up ones do not make us a storm at the issuer, and keep nobody out who has a good one.
    storm(&cluster, &issuer, &[401, 503]).await;
    assert_eq!(tokens(works(&new).await).user, user);

    // Away in every way: what is known goes on, what is not is told to come back.
    issuer.publish(&[&old, &new, &newest]);
    for mood in [Mood::Away, Mood::Broken, Mood::Silent, Mood::Huge, Mood::Moved] {
        issuer.mood(mood);
        let before = issuer.asked();
        eventually_within("the issuer is asked", SOON, async || {
            let (status, code, message) = refused(&cluster, &newest.sign(&claims("s-1", "Alice"))).await;
            assert_eq!((status, code.as_str()), (503, "unavailable"), "{mood:?}: {message}");
            if issuer.asked() > before { Ok(()) } else { Err(message) }
        })
        .await;
        let (status, _, message) = refused(&cluster, &newest.sign(&claims("s-1", "Alice"))).await;
        assert!(status == 503 && message.contains("cannot be read"), "{mood:?}: {status} {message}");
        assert_eq!(tokens(works(&old).await).user, user, "{mood:?}");
    }
    storm(&cluster, &issuer, &[503]).await;

    // A process that is started meanwhile has no keys, but serves everything else, and gets them later.
    cluster.persister(0).restart().await;
    let (status, code, _) = refused(&cluster, &old.sign(&claims("s-1", "Alice"))).await;
    assert_eq!((status, code.as_str()), (503, "unavailable"));
    cluster.user("bob").await;
    issuer.publish(&[&newest]);
    issuer.mood(Mood::Well);
    eventually_within("the newest key is known", SOON * 2, async || {
        if works(&newest).await.0 == 200 { Ok(()) } else { Err("refused") }
    })
    .await;
    assert_eq!(tokens(works(&newest).await).user, user);
    refused_for_good(&cluster, &old.sign(&claims("s-1", "Alice"))).await;
}

/// A hundred tokens at once whose keys nobody has, answered so.
async fn storm(cluster: &Cluster, issuer: &Issuer, answers: &[u16]) {
    let (before, began) = (issuer.asked(), Instant::now());
    let all = join_all((0..100).map(|n| async move {
        let token = Key::ed25519(&format!("made-up-{n}")).sign(&claims("s-1", "Alice"));
        log_in(cluster, n % 2, &token).await.0
    }))
    .await;
    assert!(all.iter().all(|status| answers.contains(status)), "{all:?}");
    // Once in 5 s because of them, and once because it was time.
    let (asked, allowed) = (issuer.asked() - before, 2 + began.elapsed().as_secs() as usize / 5);
    assert!(asked <= allowed, "the issuer was asked {asked} times");
}
