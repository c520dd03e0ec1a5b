//! What every store must do, on this one; and how its schema comes to be.

use natterjack_persister::store::{ArchiveError, ArchiveStore, Order, accounts::Accounts, cql::Cql};
use natterjack_protocol::{Most, MsgId};

use super::kit::{SERVER, server};
use crate::store::{
    accounts, conformance,
    conformance::{batch, text, thread},
};

/// Three at once, as persisters start: one makes the schema, the others wait for it, and all of them work with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_a_keyspace_that_three_opened_at_once() {
    let _there = SERVER.read().await;
    let cfg = server().await.config();
    let (a, b, c) = tokio::join!(Cql::connect(&cfg), Cql::connect(&cfg), Cql::connect(&cfg));
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    // What is true of the store, however slow the machine is.
    Box::pin(conformance::all(&a.patient())).await;
    Box::pin(accounts::conformance::all(&b.patient())).await;
    c.append(batch(&thread("third"), vec![text(&thread("third"), 1, "a", "x")])).await.unwrap();
    // Opened again, with another idea of buckets: what the keyspace was made with counts.
    let mut other = cfg.clone();
    other.buckets.rows = 50_000;
    let again = Cql::connect(&other).await.unwrap();
    let t = thread("pages");
    assert_eq!(again.rows(&t, MsgId::NONE, MsgId::MAX, Order::OldestFirst, Most::count(9)).await.unwrap().len(), 5);
    // As the first version of the schema was: what came later is made now.
    let session = scylla::client::session_builder::SessionBuilder::new()
        .known_node(&cfg.contact_points[0])
        .build()
        .await
        .unwrap();
    for table in [
        "logins",
        "refresh_uses",
        "refresh_salts",
        "login_devices",
        "thread_falls",
        "lost",
        "open_logins",
        "held_names",
        "deletions",
        "user_cursors",
        "cursor_shards",
    ] {
        session.query_unpaged(format!("DROP TABLE {}.{table}", cfg.keyspace), ()).await.unwrap();
    }
    session
        .query_unpaged(format!("UPDATE {}.meta SET version = 1 WHERE key = 'schema'", cfg.keyspace), ())
        .await
        .unwrap();
    assert_eq!(Cql::schema_version(&cfg).await.unwrap(), Some((1, 9)));
    let newer = Cql::connect(&cfg).await.unwrap().patient();
    assert!(newer.login("https://login", "s1").await.unwrap().is_none());
    assert_eq!(Cql::schema_version(&cfg).await.unwrap(), Some((9, 9)));
    // A later build was here.
    session
        .query_unpaged(format!("UPDATE {}.meta SET version = 999 WHERE key = 'schema'", cfg.keyspace), ())
        .await
        .unwrap();
    let refused = Cql::connect(&cfg).await.map(drop);
    assert!(matches!(&refused, Err(ArchiveError::Failed(why)) if why.contains("999")), "{refused:?}");
    session.query_unpaged(format!("DROP KEYSPACE {}", cfg.keyspace), ()).await.unwrap();
}
