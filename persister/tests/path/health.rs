//! Ready means that the reader moves: a partition that is stuck is named, whatever the others do.

use std::{sync::atomic::Ordering, time::Duration};

use natterjack_persister::{
    Config, StoreConfig,
    store::{ArchiveStore, Sqlite},
};
use natterjack_protocol::{Thread, thread::partition_of};
use natterjack_runtime::{
    Health,
    admin::Admin,
    health::{Readers, State},
    telemetry,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::kit::*;

/// One thread in each partition.
fn threads(w: &World) -> [Thread; 2] {
    [0, 1].map(|p| {
        let mut all = (0..).map(|n| group(&format!("g{n}")));
        all.find(|t: &Thread| partition_of(t.hash64(), w.layout.partitions) == p).unwrap()
    })
}

fn failing(health: &Health, part: &str) -> Option<String> {
    match health.report().parts.get(part) {
        Some(State::Failing(why)) => Some(why.clone()),
        Some(State::Ok) => None,
        None => panic!("no part {part}: {:?}", health.report()),
    }
}

/// The disk refuses what one thread writes. The other partition goes on, and says nothing for the first one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_writes_fail_is_named_and_the_process_is_not_ready() {
    let w = World::new().await;
    let [stuck, well] = threads(&w);
    let path = w.dir.path().join("role.db");
    let store = Sqlite::open(&path).await.unwrap();
    let (health, stop) = (Health::new(), CancellationToken::new());
    let store_cfg = StoreConfig::Sqlite { path };
    let cfg = Config { nats: w.cfg.clone(), times: w.times.clone(), store: store_cfg, ..Config::default() };
    let role = tokio::spawn(natterjack_persister::run(cfg, health.clone(), stop.clone()));
    eventually("it is ready", async || health.report().ready && health.report().parts.len() == w.parts()).await;

    let metrics =
        telemetry::init(&telemetry::Config { format: telemetry::Format::Text, filter: "warn".into() }).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let admin = Admin::bind(Some(addr)).await.unwrap();
    let _admin = AbortOnDropHandle::new(tokio::spawn(admin.serve(health.clone(), metrics, CancellationToken::new())));
    let ready = async || reqwest::get(format!("http://{addr}/ready")).await.unwrap();
    assert_eq!(ready().await.status(), 200);

    let trigger = format!(
        "CREATE TRIGGER broken BEFORE INSERT ON messages WHEN NEW.thread = '{stuck}' BEGIN SELECT RAISE(ABORT, \
         'broken on purpose'); END"
    );
    store.write(move |tx| tx.execute_batch(&trigger)).await.unwrap();
    w.say(&stuck, "a", "cannot be written").await;
    eventually("it is said", async || failing(&health, "archive.1-0").is_some()).await;
    // The other one writes again and again meanwhile; at each look the first one is still named.
    for n in 0..10 {
        let id = w.say(&well, "a", &n.to_string()).await;
        eventually("the other one goes on", async || {
            store.position(w.key(&well)).await.unwrap().is_some_and(|p| p.id >= id)
        })
        .await;
        assert!(
            failing(&health, "archive.1-0").is_some_and(|why| why.contains("broken on purpose")),
            "{:?}",
            health.report()
        );
        assert_eq!(failing(&health, "archive.1-1"), None);
    }
    let answer = ready().await;
    assert_eq!(answer.status(), 503);
    let body = answer.text().await.unwrap();
    assert!(body.contains("archive.1-0") && body.contains("broken on purpose"), "{body}");
    // The metrics are those of the whole process, and other tests have parts of the same names in it.
    for line in [r#"natterjack_ready{part="archive.1-0"} 0"#, r#"natterjack_ready{part="archive.1-1"} 1"#] {
        let shown = async || reqwest::get(format!("http://{addr}/metrics")).await.unwrap().text().await.unwrap();
        eventually(line, async || shown().await.lines().any(|l| l == line)).await;
    }

    store.write(|tx| tx.execute_batch("DROP TRIGGER broken")).await.unwrap();
    eventually("it is well again", async || health.report().ready).await;
    assert_eq!(ready().await.status(), 200);
    stop.cancel();
    role.await.unwrap().unwrap();
}

/// No error, no answer: nothing but the position tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_never_answers_is_noticed_by_the_reader_that_stands_still() {
    let w = World::new().await;
    let [one, other] = threads(&w);
    let (health, bound) = (Health::new(), Duration::from_secs(1));
    let readers = Readers::bounded(&health, bound);
    let archive = w.archive_watched(readers, "a");
    let id = w.say(&one, "a", "first").await;
    w.archived(&one, id).await;
    eventually("all is well", async || health.report().ready).await;

    w.store.calls_left.store(0, Ordering::SeqCst);
    w.say(&one, "a", "second").await;
    // On a busy machine the end may not be known for a second, which is said of both.
    let stands = |why: String| why.contains(&format!("from {id}")) && why.contains("there is more up to");
    eventually("it is noticed", async || failing(&health, "archive.1-0").is_some_and(stands)).await;
    eventually("the other has read everything there is", async || failing(&health, "archive.1-1").is_none()).await;
    w.say(&other, "a", "third").await;
    eventually("now it has not", async || failing(&health, "archive.1-1").is_some()).await;
    drop(archive);
    eventually("their parts go with them", async || health.report().parts.is_empty()).await;
}

/// What is in the log when it is told to stop is in the file when it has stopped, and nothing stands beside the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_archives_to_the_end_and_leaves_one_file() {
    let w = World::new().await;
    let threads = threads(&w);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive.db");
    let (health, stop) = (Health::new(), CancellationToken::new());
    let store = StoreConfig::Sqlite { path: path.clone() };
    let cfg = Config { nats: w.cfg.clone(), times: w.times.clone(), store, ..Config::default() };
    let role = tokio::spawn(natterjack_persister::run(cfg, health.clone(), stop.clone()));
    eventually("it is ready", async || health.report().ready && health.report().parts.len() == w.parts()).await;
    for n in 0..200 {
        w.say(&threads[n % 2], "a", &n.to_string()).await;
    }
    stop.cancel();
    role.await.unwrap().unwrap();

    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(left, ["archive.db"]);
    let alone = folder.path().join("alone.db");
    std::fs::copy(&path, &alone).unwrap();
    let alone = Sqlite::open(&alone).await.unwrap();
    let rows: i64 = alone.read(|c| c.query_row("SELECT count(*) FROM messages", [], |r| r.get(0))).await.unwrap();
    assert_eq!(rows, 200);
}
