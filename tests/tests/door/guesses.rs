//! What strangers do with somebody's name, or from somebody's address, keeps nobody out who was there before; and a
//! proxy that nobody has named is said.

use std::net::SocketAddr;

use natterjack_protocol::{Code, client::http::Tokens};
use natterjack_testkit::{eventually_within, programs};
use natterjack_tests::kit::{Cluster, ClusterSpec};
use serde_json::json;

use super::{
    common::{Answer, SOON, from},
    shares,
};

/// As they are by default, but for the last: 300 wrong guesses take a minute on a small machine.
const FROM_ONE: usize = 30;
const ANYWHERE: usize = 45;

fn spec() -> ClusterSpec {
    let set = [("limits.exempt", "127.0.0.1".to_owned()), ("limits.logins_per_name_anywhere", ANYWHERE.to_string())];
    ClusterSpec { edges: 1, set: set.map(|(k, v)| (k.to_owned(), v)).into(), ..ClusterSpec::default() }
}

async fn post(address: &str, edge: SocketAddr, path: &str, body: serde_json::Value) -> Answer {
    from(address, edge, &format!("POST {path}"), "Connection: close\r\n", &body.to_string()).await
}

async fn log_in(address: &str, edge: SocketAddr, name: &str, password: &str, device: Option<&str>) -> Answer {
    let mut body = json!({ "name": name, "password": password });
    if let Some(device) = device {
        body["device"] = device.into();
    }
    post(address, edge, "/v1/login", body).await
}

async fn wrong(address: &str, edge: SocketAddr, name: &str) -> u16 {
    log_in(address, edge, name, "wrong horse battery", None).await.status
}

/// Whoever comes now is refused, because others have used up what may be tried. On a busy machine one more may be free
/// again between two steps: then once more.
async fn kept_out(used_up: impl AsyncFn() -> u16, comes: impl AsyncFn() -> Answer) {
    for _ in 0..20 {
        while used_up().await == 401 {}
        let answer = comes().await;
        if answer.status == 429 {
            answer.refused(Code::RateLimited);
            return;
        }
    }
    panic!("what others have used up keeps nobody out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_keep_nobody_out() {
    let cluster = Cluster::start(spec()).await;
    let edge = cluster.edge_addr(0);
    let alice = cluster.user("alice").await;
    let (name, password, device) = (alice.name.as_str(), alice.password.as_str(), Some(alice.tokens.device.as_str()));
    let (office, home) = ("127.7.0.1", "127.7.0.2");

    // Thirty wrong ones, as fast as they come: a minute's worth, and then two seconds for each.
    let mut failed = 0;
    let refused = loop {
        let answer = log_in(office, edge, name, "wrong horse battery", None).await;
        match answer.status {
            401 => failed += 1,
            _ => break answer,
        }
        assert!(failed <= FROM_ONE + 10, "nothing was refused");
    };
    assert!(refused.refused(Code::RateLimited) <= 2_000 && failed >= FROM_ONE, "{failed}");
    let office_is_full = async || wrong(office, edge, name).await;
    let shouted = name.to_uppercase();
    kept_out(office_is_full, async || log_in(office, edge, &shouted, password, None).await).await;
    let again = json!({ "name": name, "password": "wrong horse battery" });
    kept_out(office_is_full, async || post(office, edge, "/v1/register", again.clone()).await).await;

    // The user comes in: from elsewhere; from there, by a device that is known. Nobody else comes in so.
    assert_eq!(log_in(home, edge, name, password, None).await.status, 200);
    assert_eq!(log_in(office, edge, name, password, device).await.status, 200);
    assert_eq!(log_in(office, edge, name, "wrong horse battery", device).await.status, 401);
    kept_out(office_is_full, async || log_in(office, edge, name, password, Some("d-made-up")).await).await;
    let bob = cluster.user("bob").await;
    let bobs = Some(bob.tokens.device.as_str());
    kept_out(office_is_full, async || log_in(office, edge, name, password, bobs).await).await;
    assert_eq!(log_in(office, edge, &bob.name, &bob.password, None).await.status, 200, "others from that address");

    // From everywhere, until the name as such is shut; by a device that is known the user still comes in, wherever they
    // are.
    let mut stranger = 0;
    while wrong(&format!("127.7.3.{}", stranger / 10 + 1), edge, name).await == 401 {
        stranger += 1;
        assert!(stranger + failed <= ANYWHERE + 20, "a flood from everywhere is bounded");
    }
    assert!(stranger > 0, "the name was open elsewhere");
    kept_out(async || wrong("127.7.4.1", edge, name).await, async || log_in(home, edge, name, password, None).await)
        .await;
    for address in [home, office, "127.7.0.3"] {
        assert_eq!(log_in(address, edge, name, password, device).await.status, 200, "{address}");
    }

    // A whole address is full: the same.
    let carol = cluster.user("carol").await;
    let mut names = 0;
    while wrong(office, edge, &format!("nobody-{names}")).await == 401 {
        names += 1;
        assert!(names < 200, "nothing was refused");
    }
    let carols = async || log_in(office, edge, &carol.name, &carol.password, None).await;
    kept_out(async || wrong(office, edge, "nobody").await, carols).await;
    assert_eq!(
        log_in(office, edge, &carol.name, &carol.password, Some(carol.tokens.device.as_str())).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_office_renews_its_logins_strangers_fill_their_share_and_a_hidden_proxy_is_said() {
    let cluster = Cluster::start(spec()).await;
    let (edge, office) = (cluster.edge_addr(0), "127.7.0.1");
    let alice = cluster.user("alice").await;
    let mut logins: Vec<Tokens> = Vec::new();
    for _ in 0..8 {
        logins.push(alice.log_in(&cluster, 0).await.tokens);
    }
    // 160 renewals from there, then logins.
    for round in 0..20 {
        for tokens in &mut logins {
            let answer = post(office, edge, "/v1/refresh", json!({ "refresh": tokens.refresh })).await;
            assert_eq!(answer.status, 200, "round {round}: {}", answer.body);
            *tokens = serde_json::from_str(&answer.body).unwrap();
        }
    }
    assert_eq!(log_in(office, edge, &alice.name, &alice.password, None).await.status, 200);
    // One login that is renewed on and on is stopped, and only that one.
    let mut wild = logins.remove(0);
    let mut renewed = 0;
    loop {
        let answer = post("127.7.0.2", edge, "/v1/refresh", json!({ "refresh": wild.refresh })).await;
        if answer.status != 200 {
            answer.refused(Code::RateLimited);
            break;
        }
        wild = serde_json::from_str(&answer.body).unwrap();
        renewed += 1;
        assert!(renewed < 40, "nothing was refused");
    }
    assert_eq!(post(office, edge, "/v1/refresh", json!({ "refresh": logins[0].refresh })).await.status, 200);

    shares::are_kept(&cluster).await;
    proxies(&cluster, edge).await;
}

/// From a proxy that is not trusted: by a header, by the PROXY protocol.
async fn proxies(cluster: &Cluster, edge: SocketAddr) {
    let warnings = || cluster.edge(0).log().matches("limits.trusted_proxies").count();
    assert_eq!((warnings(), doctor(cluster).await.contains("FAIL  proxies met")), (0, false));
    for header in ["X-Forwarded-For: 203.0.113.9\r\n", "Forwarded: for=203.0.113.9\r\n", "X-Real-IP: 203.0.113.9\r\n"] {
        assert_eq!(from("127.7.0.5", edge, "GET /health", header, "").await.status, 200);
    }
    let prefaced = from("127.7.0.6", edge, "PROXY TCP4 203.0.113.9 192.0.2.1 4711 80\r\nGET /health", "", "").await;
    assert!(prefaced.status == 400 && prefaced.body.contains("X-Forwarded-For"), "{}", prefaced.body);
    eventually_within("the edge says it once", SOON, async || {
        let log = cluster.edge(0).log();
        let said = log.lines().find(|l| l.contains("limits.trusted_proxies"));
        said.filter(|l| l.contains("WARN") && l.contains("127.7.0.5") && l.contains("x-forwarded-for")).map(drop)
    })
    .await;
    assert_eq!(warnings(), 1);
    eventually_within("doctor says it", SOON, async || {
        let said = doctor(cluster).await;
        let line = said.lines().find(|l| l.starts_with("FAIL  proxies met")).map(str::to_owned);
        line.filter(|l| l.contains("edge-0") && l.contains("127.7.0.") && l.contains("limits.trusted_proxies"))
            .map(drop)
            .ok_or(said)
    })
    .await;
}

async fn doctor(cluster: &Cluster) -> String {
    let mut command = tokio::process::Command::new(programs::natterjack());
    let out = command.args(["doctor", "--set", &format!("nats.urls={}", cluster.nats_url(0))]).output().await.unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}
