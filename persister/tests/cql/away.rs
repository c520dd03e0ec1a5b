//! The server away: every call says so soon, nothing hangs, and it is found again by itself.

use std::time::Duration;

use natterjack_persister::store::{
    ArchiveError, ArchiveStore, Order,
    cql::{Cql, CqlConfig},
};
use natterjack_protocol::{Most, MsgId};
use natterjack_testkit::eventually_within;
use tokio::time::Instant;

use super::kit::{SERVER, connected, server};
use crate::store::conformance::{batch, text, thread};

/// The driver's 2 s, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(4);
const LATER: Duration = Duration::from_secs(60);

async fn found_again(store: &Cql) {
    let t = thread("away");
    eventually_within("it is found again", LATER, async || {
        store.append(batch(&t, vec![text(&t, 2, "a", "again")])).await
    })
    .await;
    assert_eq!(store.rows(&t, MsgId(2), MsgId(3), Order::OldestFirst, Most::count(9)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_starts_without_a_server_says_so() {
    let cfg = CqlConfig { contact_points: vec!["127.0.0.1:9".into()], ..CqlConfig::default() };
    let began = Instant::now();
    assert!(matches!(Cql::connect(&cfg).await.map(drop), Err(ArchiveError::Unavailable(_))));
    let store = Cql::open(cfg).await.unwrap();
    let said = store.last_entries(&[thread("t")]).await;
    assert!(matches!(said, Err(ArchiveError::Unavailable(_))), "{said:?}");
    assert!(began.elapsed() < 2 * SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_unavailable_soon_and_found_again() {
    let server = server().await;
    if server.pid.is_none() {
        eprintln!("not our server: it cannot be frozen");
        return;
    }
    let _alone = SERVER.write().await;
    let store = connected().await;
    let t = thread("away");
    store.append(batch(&t, vec![text(&t, 1, "a", "before")])).await.unwrap();
    let late_cfg = server.config();

    server.signal("STOP");
    let began = Instant::now();
    let (wrote, read) = tokio::join!(
        store.append(batch(&t, vec![text(&t, 2, "a", "meanwhile")])),
        store.rows(&t, MsgId::NONE, MsgId::MAX, Order::NewestFirst, Most::count(9))
    );
    let took = began.elapsed();
    let late = Cql::open(late_cfg).await;
    server.signal("CONT");

    assert!(matches!(wrote, Err(ArchiveError::Unavailable(_))), "{wrote:?}");
    assert!(matches!(read, Err(ArchiveError::Unavailable(_))), "{read:?}");
    assert!(took < SOON, "{took:?}");
    found_again(&store).await;
    // One that was opened meanwhile has no connection yet, and makes its schema as soon as it can.
    found_again(&late.unwrap()).await;
}
