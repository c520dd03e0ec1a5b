//! What a role keeps in memory when a crowd is gone: password hashes, attaches, large pages, sockets that come and go at once.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};
use natterjack_protocol::codec::Codec;
use natterjack_tests::kit::{Cluster, ClusterSpec, eventually};
use serde_json::json;

use super::common::{SOON, cid, id_of, post};

/// Of messages in the thread that is read, and of one page.
const PAGE: usize = 200;
/// At once.
const LOGINS: usize = 64;
const ATTACHES: usize = 64;
const PAGES: usize = 16;

struct Load {
    logins: usize,
    sockets: usize,
    /// All sockets are closed at once and opened again, so often.
    storms: usize,
    pages: usize,
}

/// MiB of each role above what it has when it has done nothing yet. A hash takes 19 MiB, a page 2 MB: what is kept of each shows.
const MOST: [(&str, u64); 3] = [("persister-0", 60), ("channel-0", 30), ("edge-0", 60)];

fn resident(cluster: &Cluster) -> BTreeMap<String, u64> {
    cluster.processes().map(|p| (p.name().to_owned(), p.resident_mib())).collect()
}

async fn holds(load: Load, most: [(&str, u64); 3]) {
    let set = [("limits.requests_per_user", "0"), ("limits.connects_per_user", "0")];
    let set = set.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let cluster = Cluster::start(ClusterSpec { edges: 1, set, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(load.sockets.max(2)).await;
    let idle = resident(&cluster);
    eprintln!("idle, MiB: {idle:?}");
    let after = |what: &str| eprintln!("after {what}, MiB: {:?}", resident(&cluster));

    let anonymous = cluster.anonymous(0);
    stream::iter(0..load.logins)
        .for_each_concurrent(LOGINS, async |n| {
            let login = json!({ "name": format!("nobody-{n}"), "password": "wrong horse battery" });
            let (status, body) = anonymous.post("/v1/login", &login).await;
            assert_eq!(status, 401, "{body}");
        })
        .await;
    after("logins");

    for _ in 0..load.storms {
        let attach = users.iter().take(load.sockets).map(|user| cluster.raw(user, 0, Codec::Msgpack));
        let open: Vec<_> = stream::iter(attach).buffer_unordered(ATTACHES).collect().await;
        assert_eq!(open.len(), load.sockets);
        // All at once.
        drop(open);
    }
    after("storms");

    let (thread, api) = (users[0].dm(&users[1]), cluster.api(&users[0], 0));
    let long = "ü".repeat(10_000);
    for _ in 0..PAGE {
        id_of(&post(&api, &thread, cid(), &long).await);
    }
    stream::iter(0..load.pages)
        .for_each_concurrent(PAGES, async |_| {
            let (status, page) = api.get(&format!("/v1/threads/{thread}/messages?limit={PAGE}")).await;
            assert_eq!(status, 200, "{page}");
        })
        .await;
    after("pages");

    // What is left behind closed connections goes a moment later.
    eventually("no role keeps more than it says", SOON.max(Duration::from_secs(20)), async || {
        let now = resident(&cluster);
        let over = |(role, most): &(&str, u64)| now[*role] > idle[*role] + most;
        if most.iter().any(over) { Err(format!("idle {idle:?}, now {now:?}, allowed {most:?}")) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crowd_took_is_given_back() {
    holds(Load { logins: 100, sockets: 150, storms: 2, pages: 30 }, MOST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: 10,000 of each; in make test-heavy"]
async fn what_a_large_crowd_took_is_given_back() {
    holds(Load { logins: 10_000, sockets: 10_000, storms: 3, pages: 2_000 }, MOST).await;
}
