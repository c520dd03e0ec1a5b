//! What one address and one user may do: let in up to the limit, refused by name beyond it, let in again when it says
//! so.

use std::net::SocketAddr;

use natterjack_protocol::{
    Code,
    client::frame::{ClientFrame, Hello, ServerFrame},
    codec::Codec,
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, Received};

use super::common::{Answer, SOON, cid, from, post};

/// Believed when it says for whom it speaks.
const PROXY: &str = "127.8.0.1";
const CONNECTIONS: usize = 40;

async fn get(address: &str, edge: SocketAddr) -> Answer {
    from(address, edge, "GET /health", "", "").await
}

async fn register(address: &str, edge: SocketAddr, forwarded: &str) -> Answer {
    // Refused for its password, and counted; by its name, too, so each has its own.
    let body = format!(r#"{{"name":"alice-{:06x}","password":"short"}}"#, rand::random::<u32>() & 0xff_ffff);
    from(address, edge, "POST /v1/register", &format!("Connection: close\r\nX-Forwarded-For: {forwarded}\r\n"), &body)
        .await
}

async fn upgrade(address: &str, edge: SocketAddr, forwarded: &str) -> Answer {
    let headers = format!(
        "X-Forwarded-For: {forwarded}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: natterjack.v1.json\r\n"
    );
    from(address, edge, "GET /v1/ws", &headers, "").await
}

fn spec() -> ClusterSpec {
    let set = [
        // The test's own ordinary requests come from here.
        ("limits.exempt", "127.0.0.1".to_owned()),
        ("limits.trusted_proxies", PROXY.to_owned()),
        ("limits.connections_per_address", "3".to_owned()),
        ("limits.connects_per_address", "6".to_owned()),
        ("limits.connects_per_user", "3".to_owned()),
        ("limits.registers_per_address", "2".to_owned()),
        ("limits.logins_per_address", "4".to_owned()),
        ("limits.logins_per_name", "2".to_owned()),
        ("limits.logins_per_name_anywhere", "3".to_owned()),
        ("limits.renewals_per_login", "2".to_owned()),
        ("limits.sends_per_user", "5".to_owned()),
        ("limits.requests_per_user", "2".to_owned()),
        ("edge.max_connections", CONNECTIONS.to_string()),
    ];
    ClusterSpec { edges: 1, set: set.map(|(k, v)| (k.to_owned(), v)).into(), ..ClusterSpec::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_let_in_up_to_their_limits() {
    let cluster = Cluster::start(spec()).await;
    let edge = cluster.edge_addr(0);

    // At once, from one address.
    let mut open: Vec<Answer> = Vec::new();
    for _ in 0..3 {
        open.push(get("127.7.0.1", edge).await);
        assert_eq!(open.last().unwrap().status, 200);
    }
    get("127.7.0.1", edge).await.refused(Code::RateLimited);
    assert_eq!(get("127.7.0.2", edge).await.status, 200, "another address is not concerned");
    drop(open.pop());
    eventually_within("a place is free again", SOON, async || {
        (get("127.7.0.1", edge).await.status == 200).then_some(())
    })
    .await;

    // A minute's worth from one address, each closed at once: six and no more.
    for n in 0..6 {
        let answer = eventually_within("the one before is gone", SOON, async || {
            let answer = get("127.7.0.3", edge).await;
            // Still counted as open for a moment: that costs nothing of the rate.
            (answer.status == 200 || !answer.body.contains("close some")).then_some(answer)
        })
        .await;
        assert_eq!(answer.status, 200, "connection {n}: {}", answer.body);
    }
    let ms = eventually_within("over the rate", SOON, async || {
        let answer = get("127.7.0.3", edge).await;
        (!answer.body.contains("close some")).then_some(answer)
    })
    .await
    .refused(Code::RateLimited);
    assert!((5_000..=10_000).contains(&ms), "one in ten seconds: {ms}");

    // Accounts, by who is behind the proxy, and only behind that proxy.
    for _ in 0..2 {
        assert_eq!(register(PROXY, edge, "198.51.100.1").await.status, 400);
    }
    register(PROXY, edge, "198.51.100.1").await.refused(Code::RateLimited);
    register(PROXY, edge, "10.9.9.9, 198.51.100.1").await.refused(Code::RateLimited);
    assert_eq!(register(PROXY, edge, "198.51.100.2").await.status, 400);
    for n in 0..2 {
        assert_eq!(register("127.7.0.4", edge, &format!("198.51.100.{}", 50 + n)).await.status, 400);
    }
    register("127.7.0.4", edge, "198.51.100.60").await.refused(Code::RateLimited);

    // Sockets behind the proxy are counted for who opens them.
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(upgrade(PROXY, edge, "198.51.100.3").await);
        assert_eq!(sockets.last().unwrap().status, 101, "{}", sockets.last().unwrap().body);
    }
    upgrade(PROXY, edge, "198.51.100.3").await.refused(Code::RateLimited);
    sockets.push(upgrade(PROXY, edge, "198.51.100.4").await);
    assert_eq!(sockets.last().unwrap().status, 101);

    // Logins: by address, by name from one address and from anywhere; more of this in `guesses.rs`.
    let login = async |address: &str, name: &str| {
        let body = format!(r#"{{"name":"{name}","password":"wrong horse battery"}}"#);
        from(address, edge, "POST /v1/login", "Connection: close\r\n", &body).await
    };
    for name in ["n1", "n2", "n3", "n4"] {
        let address = if name < "n3" { "127.7.0.5" } else { "127.7.0.6" };
        assert_eq!(login(address, name).await.status, 401);
    }
    for name in ["n5", "n6"] {
        assert_eq!(login("127.7.0.5", name).await.status, 401);
    }
    login("127.7.0.5", "n7").await.refused(Code::RateLimited);
    // What cannot be guessed is no login of that address, and each of it may be used so often.
    for (n, (what, field, status)) in
        [("/v1/login/external", "token", 404), ("/v1/refresh", "refresh", 401), ("/v1/logout", "refresh", 200)]
            .into_iter()
            .enumerate()
    {
        let (what, body) = (format!("POST {what}"), format!(r#"{{"{field}":"a.b.{n}"}}"#));
        let used = async |address: &str| from(address, edge, &what, "Connection: close\r\n", &body).await;
        assert_eq!(used(if n == 0 { "127.7.0.5" } else { "127.7.0.10" }).await.status, status, "{what}");
        assert_eq!(used(&format!("127.7.1.{n}")).await.status, status, "{what}");
        used(&format!("127.7.2.{n}")).await.refused(Code::RateLimited);
    }
    for address in ["127.7.0.6", "127.7.0.7", "127.7.0.8"] {
        assert_eq!(login(address, "victim").await.status, 401);
    }
    login("127.7.0.9", "Victim").await.refused(Code::RateLimited);
    // A registration that comes again tries a password, and is no way around it.
    let again = r#"{"name":"victim","password":"wrong horse battery"}"#;
    from("127.7.0.9", edge, "POST /v1/register", "Connection: close\r\n", again).await.refused(Code::RateLimited);

    // In all. Those that are open here count too.
    let refused = loop {
        let n = sockets.len();
        assert!(n <= CONNECTIONS, "more than {CONNECTIONS} connections");
        let answer = get(&format!("127.6.0.{}", n + 1), edge).await;
        if answer.status != 200 {
            break answer;
        }
        sockets.push(answer);
    };
    refused.refused(Code::Unavailable);
    assert!(sockets.len() > CONNECTIONS / 2, "only {}", sockets.len());
    for answer in sockets.drain(..10) {
        drop(answer.stream);
    }
    eventually_within("there is room again", SOON, async || (get("127.5.0.1", edge).await.status == 200).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_may_so_much() {
    let cluster = Cluster::start(spec()).await;
    let users = cluster.mint_users(4).await;
    let (alice, bob, carol) = (&users[0], &users[1], &users[2]);
    let thread = alice.dm(bob);

    // Five a second, ten at once, over socket and HTTP together. What hangs on a refused one:
    // promises_log/p3_refusals.rs.
    let mut ws = cluster.raw(alice, 0, Codec::Json).await;
    let api = cluster.api(alice, 0);
    let mut stored = 0;
    let refused = loop {
        assert!(stored < 40, "nothing was refused");
        let cid = ws.cid();
        match ws.send_cid(&thread, cid, "on a socket").await {
            Ok(_) => stored += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(stored >= 10, "only {stored}");
    assert_eq!(refused.code, Code::RateLimited);
    let wait = refused.retry_after_ms.unwrap();
    assert!(wait <= 200, "one in 200 ms: {wait}");
    // Several at once: on a slow machine there is room for the next one by now.
    let posts = futures_util::future::join_all((0..10).map(|_| post(&api, &thread, cid(), "over HTTP"))).await;
    let is_refused =
        |(status, body): &(u16, serde_json::Value)| (*status, body["code"].as_str()) == (429, Some("rate_limited"));
    assert!(posts.iter().any(is_refused), "the same user, whichever way: {posts:?}");
    eventually_within("the refused one comes again", SOON, async || {
        ws.send_cid(&thread, refused.cid.unwrap(), "again").await.map_err(|e| e.to_string())
    })
    .await;
    let mut other = cluster.raw(bob, 0, Codec::Msgpack).await;
    other.send_text(&thread, "not concerned").await.unwrap();

    // Requests over HTTP: two a second, twenty at once.
    let api = cluster.api(carol, 0);
    let mut taken = 0;
    let (status, body) = loop {
        match api.get("/v1/sync?wait_ms=0").await {
            (200, _) => taken += 1,
            other => break other,
        }
        assert!(taken < 200, "nothing was refused");
    };
    assert_eq!(
        (status, body["code"].as_str(), body["retry_after_ms"].is_u64()),
        (429, Some("rate_limited"), true),
        "{body}"
    );
    assert!(taken >= 20, "only {taken}");

    // Sessions: three a minute.
    let hello = |user: &natterjack_tests::kit::User| Hello::new(user.tokens.access.clone(), user.tokens.device.clone());
    for _ in 0..3 {
        cluster.raw(&users[3], 0, Codec::Json).await;
    }
    let mut ws = RawWs::connect(cluster.edge_addr(0), Codec::Json).await;
    ws.send(&ClientFrame::Hello(hello(&users[3]))).await;
    let Received::Frame(ServerFrame::Error { refusal, .. }) = ws.next().await else { panic!("let in") };
    assert_eq!(refusal.code, Code::RateLimited);
    assert!(refusal.retry_after_ms.is_some_and(|ms| (10_000..=20_000).contains(&ms)), "{refusal:?}");
    assert_eq!(ws.until_closed(SOON).await, 4009, "come back later");
}
