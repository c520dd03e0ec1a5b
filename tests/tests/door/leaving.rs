//! An edge leaves under load, behind nginx and HAProxy with their health checks: every request through them is
//! answered, and by no error of theirs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use natterjack_testkit::{eventually_within, raw_http::upgrade, within};
use natterjack_tests::kit::{Cluster, ClusterSpec, User};

use super::{
    common::SOON,
    proxies::{Proxy, start},
};

const WORKERS: usize = 6;

/// How often each status came.
type Seen = BTreeMap<u16, usize>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_leaves_under_load_fails_nobody() {
    let set = [
        ("limits.trusted_proxies", "127.0.0.1"),
        ("limits.exempt", "127.0.0.0/8"),
        ("process.drain_seconds", "8"),
        ("edge.url", ""),
    ];
    let set = set.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let cluster = Cluster::start(ClusterSpec { set, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(WORKERS).await;
    for name in ["nginx", "haproxy"] {
        let Some(proxy) = start(&cluster, name).await else { continue };
        let seen = leaves(&cluster, &proxy, &users).await;
        eprintln!("{name}: {seen:?}");
        let strange = seen.keys().find(|status| ![200, 101, 503].contains(*status));
        assert_eq!(strange, None, "{name}: {seen:?}");
        assert!(seen[&200] > 100 && seen[&101] > 10, "{name}: too few to show anything: {seen:?}");
        proxy.process.kill9().await;
        cluster.edge(0).start().await;
        eventually_within("the edge is back", SOON, async || cluster.anonymous(0).get("/ready").await.0 == 200).await;
    }
}

async fn leaves(cluster: &Cluster, proxy: &Proxy, users: &[User]) -> Seen {
    let (over, gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let workers = users.iter().enumerate().map(|(n, user)| {
        let over = over.clone();
        async move {
            let mut seen = Seen::new();
            while !over.load(Relaxed) {
                once(proxy, user, n, &mut seen).await;
            }
            seen
        }
    });
    let leaves = async {
        // Some sockets make it a drain that takes its time.
        let mut held = Vec::new();
        for user in users {
            held.push(proxy.socket("127.9.2.1", user).await);
        }
        let status = within("the edge leaves", SOON, cluster.edge(0).terminate()).await;
        assert!(status.success(), "{status}");
        gone.store(true, Relaxed);
        // And goes on without it: also connections of the proxy's pool that were its own.
        tokio::time::sleep(Duration::from_millis(500)).await;
        over.store(true, Relaxed);
    };
    let (seen, ()) = tokio::join!(futures_util::future::join_all(workers), leaves);
    let mut all = Seen::new();
    seen.into_iter().flatten().for_each(|(status, n)| *all.entry(status).or_default() += n);
    all
}

/// One connection: two requests that read, one that changes something, one that becomes a socket.
async fn once(proxy: &Proxy, user: &User, n: usize, seen: &mut Seen) {
    let mut http = proxy.dial(&format!("127.9.3.{}", n + 1)).await;
    let token = &user.tokens.access;
    let requests = [
        format!("GET /v1/threads HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {token}\r\n\r\n"),
        "GET /ready HTTP/1.1\r\nHost: edge\r\n\r\n".to_owned(),
        format!(
            "PUT /v1/blocks/{} HTTP/1.1\r\nHost: edge\r\nContent-Length: 0\r\nAuthorization: Bearer {token}\r\n\r\n",
            "nobody"
        ),
        upgrade(""),
    ];
    for request in requests {
        http.say(proxy.to(&request)).await;
        let answer = http.answer().await;
        let status = if request.starts_with("PUT") && answer.status == 404 { 200 } else { answer.status };
        *seen.entry(status).or_default() += 1;
        if status == 503 {
            assert!(
                answer.header("retry-after").is_some() && answer.code() == "unavailable",
                "{}: {answer:?}",
                proxy.process.name()
            );
        }
        if answer.header("connection") == Some("close") {
            return;
        }
    }
}
