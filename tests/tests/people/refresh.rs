//! Renewing a login: an answer may be lost, two tabs may renew at the same moment, a persister may die in between; and
//! whoever uses a token after all that ends the login.

use std::time::Duration;

use futures_util::future::join_all;
use natterjack_protocol::{Code, client::http::Tokens, codec::Codec};
use natterjack_testkit::{eventually_within, patience};
use natterjack_tests::kit::{Cluster, ClusterSpec, LossyEdge, User};
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::common::{SOON, all_well, good, refused};

async fn renewed(cluster: &Cluster, edge: usize, refresh: &str) -> Tokens {
    serde_json::from_value(good(cluster.anonymous(edge).post("/v1/refresh", &json!({ "refresh": refresh })).await))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_and_two_tabs_cost_no_login() {
    // Clients here repeat a token until it is answered, without waiting.
    let set = vec![("limits.renewals_per_login".into(), "100000".into())];
    let cluster = Cluster::start(ClusterSpec { persisters: 2, set, ..ClusterSpec::default() }).await;
    let lossy = LossyEdge::start(&cluster, 0).await;
    let alice = cluster.user("alice").await;
    let login = alice.log_in(&cluster, 0).await;
    let mut there = cluster.raw(&login, 1, Codec::Msgpack).await;
    let works = async |t: &Tokens| cluster.anonymous(1).with_token(t.access.clone()).get("/v1/contacts").await.0 == 200;

    // Lost once, twice, three times; and the next answers as well.
    let mut chain = vec![login.tokens.refresh.clone()];
    for round in 0..4 {
        let old = chain[chain.len() - 1].clone();
        for _ in 0..round {
            lossy.lose(None, Method::POST, "/v1/refresh", &json!({ "refresh": old })).await;
        }
        let (a, b) = (renewed(&cluster, 1, &old).await, renewed(&cluster, 0, &old).await);
        assert!(a.refresh == b.refresh && a.refresh != old && works(&a).await && works(&b).await);
        chain.push(a.refresh);
    }
    // Two tabs, and twenty, at once on two edges, again and again.
    for many in [2, 2, 20, 20] {
        let old = chain[chain.len() - 1].clone();
        let all = join_all((0..many).map(|n| renewed(&cluster, n % 2, &old))).await;
        assert!(all.iter().all(|t| t.refresh == all[0].refresh && t.refresh != old), "{many} get the same");
        assert!(works(&all[many - 1]).await);
        chain.push(all[0].refresh.clone());
    }
    a_persister_dies(&cluster, &alice).await;
    there.send_text(&login.dm(&login), "still here").await.unwrap();

    // The last but one but one: the next one was used, so two have it who should not.
    refused(
        cluster.anonymous(0).post("/v1/refresh", &json!({ "refresh": chain[chain.len() - 3] })).await,
        Code::Unauthorized,
    );
    assert_eq!(there.until_closed(SOON).await, 4001);
    for over in [&chain[chain.len() - 1], &chain[chain.len() - 2], &chain[0]] {
        refused(cluster.anonymous(1).post("/v1/refresh", &json!({ "refresh": over })).await, Code::Unauthorized);
    }
    for refresh in &chain {
        cluster.assert_not_logged(refresh);
    }
    all_well(&cluster);
}

/// Clients that renew all the time, each repeating a token until it hears an answer, while one of two persisters is
/// killed again and again.
async fn a_persister_dies(cluster: &Cluster, alice: &User) {
    let logins = join_all((0..3).map(|n| alice.log_in(cluster, n % 2))).await;
    let until = Instant::now() + Duration::from_secs(4);
    let renew = async |n: usize, first: String| {
        let (mut refresh, mut attempts, mut renewals) = (first, n, 0);
        while Instant::now() < until {
            attempts += 1;
            let (api, body) = (cluster.anonymous(attempts % 2), json!({ "refresh": refresh }));
            // What a dead persister had taken is never answered: the next attempt asks the other one.
            let answer = timeout(patience(Duration::from_millis(700)), api.post("/v1/refresh", &body)).await;
            match answer {
                Ok((200, tokens)) => {
                    refresh = serde_json::from_value::<Tokens>(tokens).unwrap().refresh;
                    renewals += 1;
                }
                Ok((503, _)) | Err(_) => {}
                Ok((status, body)) => panic!("{status} {body}"),
            }
        }
        (refresh, renewals)
    };
    let renewing = join_all(logins.into_iter().enumerate().map(|(n, login)| renew(n, login.tokens.refresh)));
    let killing = async {
        while Instant::now() + Duration::from_millis(1_500) < until {
            // Somewhere in a storm of requests.
            tokio::time::sleep(Duration::from_millis(rand::random_range(200..500))).await;
            cluster.persister(0).kill9().await;
            cluster.persister(0).spawn();
            cluster.persister(0).wait_ready().await;
        }
    };
    let (renewed_to, ()) = tokio::join!(renewing, killing);
    for (refresh, renewals) in renewed_to {
        assert!(renewals > 3, "{renewals} renewals");
        eventually_within("it is still a login", SOON, async || {
            let (status, body) = cluster.anonymous(0).post("/v1/refresh", &json!({ "refresh": refresh })).await;
            if status == 200 { Ok(()) } else { Err(body.to_string()) }
        })
        .await;
    }
}
