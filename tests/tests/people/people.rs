//! Accounts, tokens, contacts: found, asked, accepted, removed; a stolen refresh token ends its family; a forged token
//! opens nothing.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use natterjack_client::ClientEvent;
use natterjack_protocol::{
    Code, Token,
    client::{
        frame::{ClientFrame, Hello, ServerFrame},
        http::Tokens,
    },
    codec::Codec,
    internal::claims::{Claims, ISSUER},
};
use natterjack_testkit::now_ms;
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, Received, User, mint::Mint, next_event};
use serde_json::{Value, json};

use super::common::{SOON, all_well, good, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_find_each_other_and_become_contacts() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob, carol) = (cluster.user("Zebra").await, cluster.user("zebra").await, cluster.user("yak").await);
    let (a, b) = (cluster.api(&alice, 0), cluster.api(&bob, 1));

    // By the beginning of the name, whatever its case; through any edge.
    for api in [&a, &b] {
        let found = good(api.get("/v1/users?prefix=zEbR").await);
        let mut names: Vec<&str> =
            found["users"].as_array().unwrap().iter().map(|u| u["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        let mut expected = [alice.name.as_str(), &bob.name];
        expected.sort_unstable();
        assert_eq!(names, expected);
    }
    let whole = good(a.get(&format!("/v1/users?prefix={}", carol.name)).await);
    assert_eq!(whole["users"][0]["user"], carol.id().to_string());
    assert_eq!(good(a.get("/v1/users?prefix=nobody-of-this-name").await)["users"], json!([]));
    // `%` and `_` are letters like all others, not patterns.
    assert_eq!(good(a.get("/v1/users?prefix=%25%25").await)["users"], json!([]));
    assert_eq!(good(a.get("/v1/users?prefix=_ebra").await)["users"], json!([]));
    refused(a.get("/v1/users?prefix=z").await, Code::Invalid);
    refused(cluster.anonymous(0).get("/v1/users?prefix=ze").await, Code::Unauthorized);
    refused(a.get("/v1/users/u-of-nobody").await, Code::NotFound);
    assert_eq!(good(a.get(&format!("/v1/users/{}", bob.id())).await)["name"], bob.name.as_str());

    // Asked, with a hint to both; shown from both sides.
    let (a_client, mut a_events) = cluster.client(&alice, 0).await;
    let (b_client, mut b_events) = cluster.client(&bob, 1).await;
    let change = async |of: &natterjack_tests::kit::Api, other: &User, change: &str| {
        good(of.post(&format!("/v1/contacts/{}", other.id()), &json!({ "change": change })).await)["state"].clone()
    };
    let listed = async |of: &natterjack_tests::kit::Api| -> Vec<(String, String)> {
        let list = good(of.get("/v1/contacts").await);
        let of = |c: &Value, key: &str| c[key].as_str().unwrap().to_owned();
        list["contacts"].as_array().unwrap().iter().map(|c| (of(c, "name"), of(c, "state"))).collect()
    };
    let hint = |e: ClientEvent| matches!(e, ClientEvent::Contacts).then_some(());
    // Who attaches later reads the list; a hint is for who is there.
    for events in [&mut a_events, &mut b_events] {
        next_event(events, "attached", SOON, |e| matches!(e, ClientEvent::Attached).then_some(())).await;
    }
    assert_eq!(change(&a, &bob, "request").await, "requested");
    next_event(&mut a_events, "the asker's hint", SOON, hint).await;
    next_event(&mut b_events, "the hint of who was asked", SOON, hint).await;
    assert_eq!(listed(&a).await, [(bob.name.clone(), "requested".to_owned())]);
    assert_eq!(listed(&b).await, [(alice.name.clone(), "asked".to_owned())]);
    // Who has asked cannot accept in the other's place.
    assert_ne!(
        a.post(&format!("/v1/contacts/{}", bob.id()), &json!({ "change": "accept" })).await.1["state"],
        "contact"
    );
    assert_eq!(change(&b, &alice, "accept").await, "contact");
    next_event(&mut a_events, "the hint of the acceptance", SOON, hint).await;
    assert_eq!(listed(&a).await, [(bob.name.clone(), "contact".to_owned())]);
    assert_eq!(listed(&b).await, [(alice.name.clone(), "contact".to_owned())]);
    // Asking who has asked accepts.
    let (c, d) = (cluster.api(&carol, 0), cluster.api(&bob, 0));
    assert_eq!(change(&c, &bob, "request").await, "requested");
    assert_eq!(change(&d, &carol, "request").await, "contact");
    // Ended by one, ended for both; strangers can ask again.
    assert_eq!(change(&b, &alice, "remove").await, Value::Null);
    next_event(&mut a_events, "the hint of the end", SOON, hint).await;
    assert_eq!(listed(&a).await, []);
    assert_eq!(listed(&b).await, [(carol.name.clone(), "contact".to_owned())]);
    assert_eq!(change(&b, &alice, "request").await, "requested");
    assert_eq!(change(&a, &bob, "remove").await, Value::Null, "declined");
    assert_eq!(listed(&b).await.len(), 1);

    let (status, body) = a.post(&format!("/v1/contacts/{}", alice.id()), &json!({ "change": "request" })).await;
    assert_eq!((status, body["code"].as_str()), (400, Some("invalid")), "nobody is their own contact: {body}");
    refused(a.post("/v1/contacts/u-of-nobody", &json!({ "change": "request" })).await, Code::NotFound);
    refused(a.post(&format!("/v1/contacts/{}", bob.id()), &json!({ "change": "marry" })).await, Code::BadFrame);
    a_client.close().await;
    b_client.close().await;
    all_well(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_rotate_and_a_bad_one_opens_nothing() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let nobody = cluster.anonymous(0);
    refresh_tokens(&cluster, &alice).await;

    // Wrong name or password: the same answer, so that names cannot be found out; and the password is nowhere in it.
    let wrong = nobody.post("/v1/login", &json!({ "name": alice.name, "password": "hunter2hunter2" })).await;
    let unknown = nobody.post("/v1/login", &json!({ "name": "no-such-name", "password": "hunter2hunter2" })).await;
    assert!(!wrong.1.to_string().contains("hunter2"));
    assert_eq!(wrong.1["message"], unknown.1["message"]);
    refused(wrong, Code::Unauthorized);
    refused(unknown, Code::Unauthorized);
    let taken = nobody
        .post("/v1/register", &json!({ "name": alice.name.to_uppercase(), "password": "long enough for it" }))
        .await;
    refused(taken, Code::Conflict);
    for (name, password) in [
        ("x", "long enough for it"),
        ("good-name-1", "short"),
        (" ", "long enough for it"),
        ("a\u{0}b", "long enough for it"),
    ] {
        refused(nobody.post("/v1/register", &json!({ "name": name, "password": password })).await, Code::Invalid);
    }

    bad_tokens(&cluster, &alice).await;

    // A good token of one device does not open a session for another.
    let mut ws = RawWs::connect(cluster.edge_addr(0), Codec::Json).await;
    let stolen = hello(&alice.tokens.access, bob.tokens.device.clone());
    ws.send(&stolen).await;
    assert_eq!(refusal_and_close(&mut ws).await, (Code::Unauthorized, 4001));

    for secret in [&alice.password, &alice.tokens.access, &alice.tokens.refresh, &bob.tokens.refresh] {
        cluster.assert_not_logged(secret);
    }
    cluster.assert_not_logged("hunter2");
    all_well(&cluster);
}

async fn refresh_tokens(cluster: &Cluster, alice: &User) {
    let refresh = async |edge: usize, token: &str| {
        cluster.anonymous(edge).post("/v1/refresh", &json!({ "refresh": token })).await
    };
    let tokens = |body: Value| serde_json::from_value::<Tokens>(body).unwrap();
    let me = async |t: &Tokens| cluster.anonymous(1).with_token(t.access.clone()).get("/v1/contacts").await.0;

    // Rotation, through any edge: each use gives a new one.
    let login = alice.log_in(cluster, 0).await.tokens;
    assert_ne!(login.device, alice.tokens.device, "a login without a device is a new one");
    let second = tokens(good(refresh(1, &login.refresh).await));
    assert_eq!((&second.user, &second.device), (&login.user, &login.device));
    assert_ne!(second.refresh, login.refresh);
    assert_eq!(me(&second).await, 200);
    let third = tokens(good(refresh(0, &second.refresh).await));
    // The first was used already: somebody else has it. The whole family ends, the newest with it.
    refused(refresh(1, &login.refresh).await, Code::Unauthorized);
    refused(refresh(0, &third.refresh).await, Code::Unauthorized);
    // Another login is another family.
    let other = tokens(good(refresh(0, &alice.tokens.refresh).await));

    // Logged out: nothing more comes of it. Twice is no error worth telling, and no other family ends.
    let third_login = alice.log_in(cluster, 1).await.tokens;
    good(cluster.anonymous(0).post("/v1/logout", &json!({ "refresh": third_login.refresh })).await);
    refused(refresh(1, &third_login.refresh).await, Code::Unauthorized);
    good(refresh(1, &other.refresh).await);
    for forged in ["", "none", "r.a.b", &"x".repeat(5_000), &format!("{}x", other.refresh)] {
        let (status, body) = refresh(0, forged).await;
        assert!(matches!(status, 400 | 401) && body["code"].is_string(), "{forged:.20}: {status} {body}");
    }
}

/// Forged, expired, `alg: none`, of another issuer, …: the same refusal on HTTP and WebSocket, and an expired one says
/// so.
async fn bad_tokens(cluster: &Cluster, alice: &User) {
    let good_token = &alice.tokens.access;
    let mint = Mint::new(cluster).await;
    let now = now_ms() / 1_000;
    let claims = Claims {
        iss: ISSUER.into(),
        sub: alice.id().clone(),
        device: alice.tokens.device.clone(),
        fam: "test".into(),
        iat: now - 10,
        exp: now + 600,
    };
    let (header, rest) = good_token.split_once('.').unwrap();
    let payload = rest.split_once('.').unwrap().0;
    // {"alg":"none","typ":"JWT"} and {"alg":"HS256","typ":"JWT"}.
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let kid = jsonwebtoken::decode_header(good_token).unwrap().kid.unwrap();
    let signed =
        |header: Header, key: &[u8]| jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(key)).unwrap();
    let mut flipped = good_token.clone().into_bytes();
    let middle = flipped.len() - 20;
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    let cases = [
        ("nothing", String::new(), Code::Unauthorized),
        ("no token", "a.b.c".into(), Code::Unauthorized),
        ("alg none", format!("{none}.{payload}."), Code::Unauthorized),
        ("alg none with a signature", format!("{none}.{rest}"), Code::Unauthorized),
        ("no signature", format!("{header}.{payload}."), Code::Unauthorized),
        ("a changed signature", String::from_utf8(flipped).unwrap(), Code::Unauthorized),
        (
            "HS256 under a known kid",
            signed(Header { kid: Some(kid), ..Header::new(Algorithm::HS256) }, b"secret"),
            Code::Unauthorized,
        ),
        ("another issuer", mint.sign(&Claims { iss: "somebody".into(), ..claims.clone() }), Code::Unauthorized),
        (
            "a kid that is no name",
            signed(Header { kid: Some("*.>".into()), ..Header::new(Algorithm::HS256) }, b"x"),
            Code::Unauthorized,
        ),
        ("endless", "x".repeat(12_000), Code::Unauthorized),
        ("expired", mint.sign(&Claims { exp: now - 1, ..claims.clone() }), Code::TokenExpired),
    ];
    // The same claims, in order, do open.
    good(cluster.anonymous(0).with_token(mint.sign(&claims)).get("/v1/contacts").await);
    for (what, token, code) in cases {
        let (status, body) = cluster.anonymous(0).with_token(token.clone()).get("/v1/contacts").await;
        assert_eq!((status, body["code"].as_str()), (401, Some(code.name())), "{what}: {body}");
        let mut ws = RawWs::connect(cluster.edge_addr(1), Codec::Msgpack).await;
        ws.send(&hello(&token, alice.tokens.device.clone())).await;
        assert_eq!(refusal_and_close(&mut ws).await, (code, 4001), "{what}");
        if token.len() > 10 {
            cluster.assert_not_logged(&token);
        }
    }
    refused(cluster.anonymous(0).get("/v1/contacts").await, Code::Unauthorized);
}

fn hello(token: &str, device: Token) -> ClientFrame {
    ClientFrame::Hello(Hello::new(token.to_owned(), device))
}

async fn refusal_and_close(ws: &mut RawWs) -> (Code, u16) {
    let code = match ws.next().await {
        Received::Frame(ServerFrame::Error { refusal, .. }) => refusal.code,
        other => panic!("no refusal but {other:?}"),
    };
    (code, ws.until_closed(SOON).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_that_is_served_is_the_one_in_the_tree() {
    let cluster = Cluster::start(ClusterSpec { edges: 1, ..ClusterSpec::default() }).await;
    let served = good(cluster.anonymous(0).get("/v1/openapi.json").await);
    let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let written: Value = serde_json::from_str(&std::fs::read_to_string(tree).unwrap()).unwrap();
    assert_eq!(served, written, "docs/openapi.json is not what the edge serves");
    // Each path of it exists: an edge knows it, whatever it thinks of the question.
    for (path, methods) in served["paths"].as_object().unwrap() {
        let concrete = path.replace("{user}", "u1").replace("{group}", "g1").replace("{thread}", "group.g1");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase().parse().unwrap();
            let (status, body) = cluster.anonymous(0).call(method, &concrete, None).await;
            assert!(!body.to_string().contains("no such path"), "{path}: {status} {body}");
        }
    }
    refused(cluster.anonymous(0).get("/v1/nothing").await, Code::NotFound);
}
