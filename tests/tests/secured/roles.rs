//! The whole system where each role has a user of its own, on three servers of which one has a certificate that nobody
//! believes.

use std::time::Duration;

use natterjack_nats::{Layout, NatsRole, check_servers};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Cluster, ClusterSpec, LetsIn, next_messages, secured_nats::STRANGER};

use crate::doctor;

const SOON: Duration = Duration::from_secs(20);

fn spec(lets_in: LetsIn) -> ClusterSpec {
    ClusterSpec {
        nats: 3,
        channels: 2,
        persisters: 2,
        presences: 2,
        secured_nats: Some(lets_in),
        ..ClusterSpec::default()
    }
}

/// Two people on two edges, live and in history; then a later generation of the log.
async fn chat(cluster: &Cluster) {
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let (a, _a_events) = cluster.client(&alice, 0).await;
    let (_b, mut b_events) = cluster.client(&bob, 1).await;
    let thread = alice.dm(&bob);
    a.send_text(thread.clone(), "past the guard").await.unwrap();
    let got = next_messages(&mut b_events, 1, SOON).await;
    assert_eq!(got[0].body.text.as_deref(), Some("past the guard"));
    let (status, group) =
        cluster.api(&alice, 0).post("/v1/groups", &serde_json::json!({ "name": "g", "users": [bob.id()] })).await;
    assert!(status < 300, "{status} {group}");
    cluster.switch(3).await.unwrap();
    a.send_text(thread.clone(), "in another generation").await.unwrap();
    let got = next_messages(&mut b_events, 1, SOON * 2).await;
    assert_eq!(got[0].body.text.as_deref(), Some("in another generation"));
    eventually_within("history has both", SOON, async || {
        let (_, page) = cluster.api(&bob, 1).get(&format!("/v1/threads/{thread}/messages?limit=10")).await;
        let texts = page["events"].as_array().map_or(0, Vec::len);
        if texts >= 2 { Ok(()) } else { Err(page.to_string()) }
    })
    .await;
}

/// Nobody was kept from what it needs.
fn nothing_was_denied(cluster: &Cluster) {
    for p in cluster.processes().filter(|p| !p.name().starts_with("nats-")) {
        let log = p.log();
        assert!(!log.contains("does not let this user"), "{}: {}", p.name(), p.log_tail(40));
        // A reader of the log has a connection of its own also over TLS.
        assert!(!log.contains("no connection of its own"), "{}: {}", p.name(), p.log_tail(40));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_has_a_user_and_no_more_than_it_needs() {
    let cluster = Cluster::start(spec(LetsIn::Roles)).await;
    let layout = Layout::load(&cluster.connect_nats().await).await.unwrap();
    assert_eq!(layout.generation, 1);
    let found = check_servers(&cluster.nats_config(), "test").await.unwrap();
    assert!(found.iter().enumerate().all(|(i, (_, found))| found.is_err() == (i == STRANGER)), "{found:?}");
    chat(&cluster).await;
    nothing_was_denied(&cluster);
    doctor::says_what_is_wrong(&cluster).await;
}

/// Every kind of login, each over TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-heavy"]
async fn every_role_starts_with_every_kind_of_login() {
    for lets_in in ["password", "password in the URL", "token", "nkey", "creds"]
        .map(LetsIn::With)
        .into_iter()
        .chain([LetsIn::Certificates])
    {
        eprintln!("{lets_in:?}");
        let cluster = Cluster::start(spec(lets_in)).await;
        chat(&cluster).await;
        nothing_was_denied(&cluster);
        assert!(
            doctor::run(&cluster.command_line(NatsRole::Doctor)).await.contains("FAIL  NATS"),
            "of the server with the other certificate"
        );
    }
}
