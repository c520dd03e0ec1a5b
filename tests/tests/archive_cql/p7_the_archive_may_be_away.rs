//! The faults, one test each. `NATTERJACK_HEAVY=1` (`make test-heavy`): an outage of 60 s, and three nodes.

use std::time::{Duration, Instant};

use natterjack_protocol::Code;
use natterjack_testkit::{Flow, Side, eventually_within};
use natterjack_tests::kit::Cassandra;

use super::common::Chat;
use crate::watching::{SOON, heavy};

/// The longest that a live message may take while the archive is away: it has no part in it.
const LIVE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_stopped_under_load() {
    let cql = Cassandra::one().await;
    let chat = Chat::start(&cql).await;
    let outage = Duration::from_secs(if heavy() { 60 } else { 6 });

    let before = chat.count();
    cql.node(0).stop();
    let begun = Instant::now();
    chat.goes_on(20).await;
    chat.somebody_comes(0).await;
    chat.lasts(outage.saturating_sub(begun.elapsed())).await;
    let ingest = (chat.count() - before) as f64 / begun.elapsed().as_secs_f64();

    cql.node(0).cont();
    // Connections that were given up are made again first; after that at least three times as fast as it comes in.
    let was = chat.archived().await;
    eventually_within("the store is found again", 2 * SOON, async || chat.archived().await > was).await;
    let (from, begun) = (was, Instant::now());
    let took = chat.catches_up().await;
    let rate = (chat.archived().await - from) / begun.elapsed().as_secs_f64().max(0.001);
    eprintln!("ingest {ingest:.0}/s, caught up within {took:?} at {rate:.0}/s");
    // A short outage is over before the rate of its end can be told from its beginning, so the time will do as well.
    let in_time = took < outage / 3 + Duration::from_millis(500);
    assert!(
        rate >= 3.0 * ingest || in_time,
        "caught up with {outage:?} only after {took:?}: {rate:.0}/s, {ingest:.0}/s came in"
    );
    chat.goes_on(20).await;
    chat.nothing_is_missing(LIVE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_takes_two_seconds_for_each_request() {
    let cql = Cassandra::one_behind_a_proxy().await;
    let chat = Chat::start(&cql).await;
    cql.proxy().set(Side::FromServer, Flow::Late(Duration::from_secs(2)));
    let was = chat.archived().await;
    chat.goes_on(20).await;
    chat.somebody_comes(1).await;
    // Pages come from the log, or say that they cannot; nobody waits for long.
    let begun = Instant::now();
    let (status, body) =
        chat.cluster.api(&chat.users[0], 0).get(&format!("/v1/threads/{}/messages?limit=10", chat.group)).await;
    assert!(status == 200 || body["code"].as_str() == Some(Code::Unavailable.name()), "{status} {body}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    chat.lasts(Duration::from_secs(4)).await;
    // It is slow, not away: what is archived grows.
    eventually_within("some is archived all the same", 6 * SOON, async || chat.archived().await > was).await;
    cql.proxy().pass();
    chat.goes_on(20).await;
    chat.nothing_is_missing(LIVE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_persister_is_killed_at_any_moment() {
    let cql = Cassandra::one().await;
    let chat = Chat::start(&cql).await;
    for round in 0..if heavy() { 30 } else { 5 } {
        chat.cluster.persister(0).kill9().await;
        chat.goes_on(10).await;
        chat.cluster.persister(0).start().await;
        // In another step of its loop each time.
        tokio::time::sleep(Duration::from_millis(37 * (round % 11))).await;
    }
    chat.nothing_is_missing(LIVE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: three nodes of 0.9 GB"]
async fn heavy_one_of_three_nodes_is_killed() {
    let cql = Cassandra::three().await;
    let chat = Chat::start(&cql).await;
    for dead in [2, 1] {
        cql.node(dead).kill9().await;
        let was = chat.archived().await;
        // Two of three are a quorum: the archive goes on, and takes what comes in.
        eventually_within("archiving goes on", 2 * SOON, async || chat.archived().await > was + 500.0).await;
        chat.somebody_comes(0).await;
        chat.lasts(Duration::from_secs(5)).await;
        let took = chat.catches_up().await;
        assert!(took < SOON, "{took:?} behind with one of three away");
        cql.node(dead).start().await;
        chat.lasts(Duration::from_secs(5)).await;
    }
    chat.nothing_is_missing(LIVE).await;
}
