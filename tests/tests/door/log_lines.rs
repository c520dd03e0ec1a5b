//! Log lines of one session carry its id, and that of the connection it came over, so that they can be found among
//! those of all others.

use natterjack_protocol::codec::Codec;
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Cluster, ClusterSpec};

use super::common::SOON;

/// `what{id=7 …`: 7.
fn id<'a>(line: &'a str, what: &str) -> Option<&'a str> {
    line.split_once(&format!("{what}{{id="))?.1.split([' ', '}']).next()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_one_session_carry_its_id_and_that_of_its_connection() {
    let log_filter = "info,natterjack_edge=debug,async_nats=warn".to_owned();
    let cluster = Cluster::start(ClusterSpec { edges: 1, log_filter, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(2).await;
    let mut sessions = Vec::new();
    // The second session of a device closes its first one.
    for user in users.iter().chain(&users) {
        sessions.push(cluster.raw(user, 0, Codec::Json).await);
    }
    for user in &users {
        let of_user = |what: &str| {
            let log = cluster.edge(0).log();
            let lines = log
                .lines()
                .filter(|l| l.contains(what) && l.contains(&format!("user={}", user.id())))
                .map(str::to_owned);
            lines.collect::<Vec<_>>()
        };
        let closed = eventually_within("the first session is closed, and the log says so", SOON, async || {
            of_user("session closed").pop()
        })
        .await;
        let opened = of_user("session opened");
        assert_eq!(opened.len(), 2, "{opened:?}");
        let ids: Vec<_> = opened.iter().map(|l| id(l, "session").expect(l)).collect();
        assert_ne!(ids[0], ids[1], "each session has an id of its own: {opened:?}");
        assert_eq!(id(&closed, "session"), Some(ids[0]), "{closed}\n{opened:?}");
        let connections: Vec<_> = opened.iter().map(|l| id(l, "connection").expect(l)).collect();
        assert_ne!(connections[0], connections[1], "{opened:?}");
    }
}
