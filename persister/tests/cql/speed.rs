//! What the archive makes of the driver's own rate: as many messages of the same size, into the same table, on the same
//! server, in one run.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use natterjack_persister::{
    archive::Archive,
    history::History,
    store::{
        ArchiveStore,
        cql::{Buckets, Cql, CqlConfig},
    },
};
use natterjack_protocol::{MsgId, Thread};
use natterjack_role::RoleSetup;
use natterjack_runtime::{Health, health::Readers};
use scylla::client::{session::Session, session_builder::SessionBuilder};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::kit::{SERVER, server};
use crate::world::{World, cid, eventually, group};

const THREADS: usize = 200;
const EACH: usize = 100;
const ALL: usize = THREADS * EACH;
/// Of the driver's rate.
const FLOOR: f64 = 0.5;
const INSERTS_AT_ONCE: usize = 256;

fn rate(took: Duration) -> f64 {
    ALL as f64 / took.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: a minute of inserts that nothing else may disturb"]
async fn the_archive_writes_at_least_half_as_fast_as_the_driver_alone() {
    let _there = SERVER.write().await;
    let cfg = CqlConfig { buckets: Buckets::default(), ..server().await.config() };
    let store = Cql::connect(&cfg).await.unwrap();
    let session = SessionBuilder::new()
        .known_node(&cfg.contact_points[0])
        .use_keyspace(&cfg.keyspace, false)
        .build()
        .await
        .unwrap();
    let world = World::new().await;
    let threads: Vec<Thread> = (0..THREADS).map(|t| group(&format!("archived-{t}"))).collect();
    let ends = fill(&world, &threads).await;

    // The server compiles what it runs: the first round is for that alone.
    driver_alone(&session, "warming").await;
    let first = rate(driver_alone(&session, "before").await);
    let archived = rate(archive(&world, &store, &ends).await);
    let second = rate(driver_alone(&session, "after").await);
    let ratio = 2.0 * archived / (first + second);
    println!(
        "driver alone {first:.0} and {second:.0} inserts/s, archive {archived:.0} messages/s: {:.0} %",
        100.0 * ratio
    );
    assert!(ratio >= FLOOR, "{ratio:.2} of the driver's rate");
    let last: Vec<MsgId> = store.last_entries(&threads).await.unwrap().iter().map(|e| e.id).collect();
    assert!(
        last.iter().all(|id| *id > MsgId::NONE) && last.iter().max() == ends.iter().map(|(_, id)| id).max(),
        "all of it is there"
    );
}

/// The messages in the log, the threads mixed. The last id of each partition, with a thread of it.
async fn fill(world: &World, threads: &[Thread]) -> Vec<(Thread, MsgId)> {
    let text = "x".repeat(128);
    let sends = (0..ALL).map(|n| world.say(&threads[n % THREADS], "alice", &text));
    let ids: Vec<MsgId> = stream::iter(sends).buffered(500).collect().await;
    let of = |p: u32| {
        let in_it = ids
            .iter()
            .enumerate()
            .map(|(n, id)| (&threads[n % THREADS], *id))
            .filter(|(t, _)| world.layout.partition(t) == p);
        in_it.max_by_key(|(_, id)| *id).map(|(t, id)| (t.clone(), id)).unwrap()
    };
    (0..world.layout.partitions).map(of).collect()
}

/// From nothing to the watermark at the end, over all partitions as a persister does it.
async fn archive(world: &World, store: &Cql, ends: &[(Thread, MsgId)]) -> Duration {
    let begun = Instant::now();
    let history = History::new(&world.nats, world.layout, world.times.clone(), store.clone());
    let setup = RoleSetup {
        nats: world.nats.clone(),
        layout: world.layout,
        times: world.times.clone(),
        instance: "speed".into(),
        readers: Readers::new(&Health::new()),
    };
    let archive = Archive { history, store: store.patient() };
    let _running = AbortOnDropHandle::new(tokio::spawn(natterjack_role::run(archive, setup, CancellationToken::new())));
    for (thread, end) in ends {
        eventually("all is archived", async || {
            store.position(world.key(thread)).await.unwrap().is_some_and(|p| p.id >= *end)
        })
        .await;
    }
    begun.elapsed()
}

/// Prepared single inserts, many at once: what an application without batches would do.
async fn driver_alone(session: &Session, name: &str) -> Duration {
    let insert = "INSERT INTO messages (thread, bucket, id, ts, sender, cid, kind, body, power) VALUES (?, ?, ?, ?, \
                  ?, ?, ?, ?, ?) USING TIMESTAMP ?";
    let insert = session.prepare(insert).await.unwrap();
    let body = vec![b'x'; 140];
    let begun = Instant::now();
    let inserts = (0..ALL as i64).map(async |n| {
        let thread = format!("group.{name}-{}", n % THREADS as i64);
        let cid = uuid::Uuid::from_bytes(*cid().as_bytes());
        let row = (thread, 0_i64, n, n, "alice", cid, "text", &body, false, n);
        session.execute_unpaged(&insert, row).await.unwrap();
    });
    stream::iter(inserts).buffer_unordered(INSERTS_AT_ONCE).collect::<()>().await;
    begun.elapsed()
}
