//! Fast batches of nats-server, as far as ADR 7 stands on them: in order, and nothing without all before it.

use std::{
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use natterjack_nats::{Layout, LeaderReader, LogRecord, Nats, NatsConfig, Publisher, provision};
use natterjack_protocol::{Most, MsgId, Thread, Times};
use natterjack_testkit::{NatsServer, eventually, raw_client, raw_jetstream, thread};

const LARGE: usize = 100;

fn batch(numbers: RangeInclusive<u32>) -> Vec<(String, Bytes)> {
    numbers.map(|n| (format!("m{n}"), n.to_string().into())).collect()
}

async fn log_of(nats: &Nats, layout: Layout, t: &Thread) -> Vec<LogRecord> {
    LeaderReader::new(nats, layout).after(t, MsgId::NONE, MsgId(u64::MAX >> 11), Most::count(LARGE)).await.unwrap()
}

fn bodies(log: &[LogRecord]) -> Vec<u32> {
    log.iter().map(|r| std::str::from_utf8(&r.payload).unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn all_of_a_batch_is_stored_in_order_and_once() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let publisher = Publisher::new(&nats, layout, Times::default());
    let (t, other) = (thread("dm.a.b"), thread("dm.a.c"));
    // Two at the same time, and single messages between: batches do not know of each other.
    let (one, two, alone) = tokio::join!(
        publisher.batch(&t, batch(1..=20)),
        publisher.batch(&other, batch(101..=120)),
        publisher.message(&other, "m100", "100".into()),
    );
    assert!(one && two && alone.is_ok());
    assert_eq!(bodies(&log_of(&nats, layout, &t).await), (1..=20).collect::<Vec<_>>());
    let of_other: Vec<u32> = bodies(&log_of(&nats, layout, &other).await).into_iter().filter(|n| *n != 100).collect();
    assert_eq!(of_other, (101..=120).collect::<Vec<_>>());

    // Again, one behind the other, and some of them in another batch: none is stored twice.
    let log = log_of(&nats, layout, &t).await;
    for (r, (msg_id, payload)) in log.iter().zip(batch(1..=20)) {
        let again = publisher.message(&t, &msg_id, payload).await.unwrap();
        assert!(again.duplicate && again.id == r.id, "{again:?} of {}", r.id);
    }
    assert!(publisher.batch(&t, batch(15..=25)).await);
    assert!(publisher.batch(&t, batch(20..=22)).await, "stored already, all of them");
    assert_eq!(bodies(&log_of(&nats, layout, &t).await), (1..=25).collect::<Vec<_>>());
}

/// The log has room for the small ones behind the large one, and must not take them.
#[tokio::test]
async fn what_comes_behind_a_refused_one_is_not_stored() {
    let s = NatsServer::start();
    let nats = s.nats().await;
    let cfg = NatsConfig { max_bytes: Some(64 << 10), ..s.config() };
    let layout = provision(&nats, &cfg, &Times::default()).await.unwrap();
    let publisher = Publisher::new(&nats, layout, Times::default());
    let t = thread("dm.a.b");
    let mut messages = batch(1..=10);
    messages[5].1 = vec![b' '; 70_000].into();
    assert!(!publisher.batch(&t, messages).await);
    assert_eq!(bodies(&log_of(&nats, layout, &t).await), [1, 2, 3, 4, 5]);
    // Nothing of it is left behind: what was refused may come again, in its order.
    assert!(publisher.batch(&t, batch(4..=10)).await);
    assert_eq!(bodies(&log_of(&nats, layout, &t).await), (1..=10).collect::<Vec<_>>());
    assert!(
        !publisher.batch(&t, vec![("x".into(), vec![b' '; 70_000].into()), ("y".into(), "11".into())]).await,
        "the first is refused"
    );
    assert_eq!(bodies(&log_of(&nats, layout, &t).await).len(), 10);
}

/// What an earlier version has provisioned takes no batches. `provision` lets it; until then nothing is lost.
#[tokio::test]
async fn a_log_of_an_earlier_version_is_brought_up_to_date() {
    let (s, nats, layout) = NatsServer::ready().await;
    let js = raw_jetstream(&nats).await;
    let t = thread("dm.a.b");
    let mut found = js.get_stream(layout.stream(&t)).await.unwrap().get_info().await.unwrap().config;
    assert!(found.allow_batch_publish);
    found.allow_batch_publish = false;
    js.update_stream(found).await.unwrap();
    let publisher = Publisher::new(&nats, layout, Times::default());
    assert!(!publisher.batch(&t, batch(1..=3)).await);
    assert!(log_of(&nats, layout, &t).await.is_empty());
    provision(&nats, &s.config(), &Times::default()).await.unwrap();
    assert!(!publisher.batch(&t, batch(1..=3)).await, "an edge that runs asks once only");
    assert!(Publisher::new(&nats, layout, Times::default()).batch(&t, batch(1..=3)).await);
    assert_eq!(bodies(&log_of(&nats, layout, &t).await), [1, 2, 3]);
}

/// Leadership moves again and again, and takes along what the leader before had taken and not stored. What a batch did
/// not bring into the log is published again, one behind the other, as an edge does it.
#[tokio::test(flavor = "multi_thread")]
async fn elections_swap_and_double_nothing() {
    const WRITERS: u32 = 4;
    // At least so many, and on until both have happened: elections, and a batch that one of them broke.
    const EACH: u32 = 1_000;
    let servers = NatsServer::cluster(3);
    let nats = servers[0].nats().await;
    let cfg = NatsConfig { partitions: 1, replicas: 3, ..servers[0].config() };
    let mut layout = None;
    eventually("provisioned", async || {
        layout = provision(&nats, &cfg, &Times::default()).await.ok();
        layout.is_some()
    })
    .await;
    let layout = layout.unwrap();
    let (done, elections, broken) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let shown = || elections.load(Relaxed) > 1 && broken.load(Relaxed) > 0;
    let write = async |w: u32| {
        let publisher = Publisher::new(&nats, layout, Times::default());
        let t = thread(&format!("dm.a.w{w}"));
        let (mut whole, mut written) = (0, 0);
        while written < EACH || (!shown() && written < 10 * EACH) {
            let first = written + 1;
            written += 20;
            let messages = batch(first..=written).into_iter().map(|(m, b)| (format!("{w}-{m}"), b)).collect::<Vec<_>>();
            if publisher.batch(&t, messages.clone()).await {
                whole += 1;
                continue;
            }
            broken.fetch_add(1, Relaxed);
            for (msg_id, payload) in messages {
                publisher.message(&t, &msg_id, payload).await.unwrap();
            }
        }
        (whole, written)
    };
    let disturb = async {
        let stepdown = format!("$JS.API.STREAM.LEADER.STEPDOWN.{}", layout.stream(&thread("dm.a.w0")));
        let raw = raw_client(&nats).await;
        while !done.load(Relaxed) {
            // An election takes its time; the writers have to get on between two of them.
            tokio::time::sleep(Duration::from_millis(100)).await;
            elections.fetch_add(u32::from(raw.request(stepdown.clone(), Bytes::new()).await.is_ok()), Relaxed);
        }
    };
    let writing = async {
        let results = futures_util::future::join_all((0..WRITERS).map(write)).await;
        done.store(true, Relaxed);
        results
    };
    let (results, ()) = tokio::join!(writing, disturb);
    let whole: u32 = results.iter().map(|(whole, _)| whole).sum();
    let said = format!("{whole} batches stored, {broken:?} broken by {elections:?} elections");
    eprintln!("{said}");
    assert!(whole > 0 && shown(), "{said}: nothing was tested");
    for (w, (_, written)) in results.into_iter().enumerate() {
        let t = thread(&format!("dm.a.w{w}"));
        let mut log = Vec::new();
        // From a follower, which may be a moment behind.
        eventually("all of it", async || {
            log = LeaderReader::new(&nats, layout)
                .after(&t, MsgId::NONE, MsgId(u64::MAX >> 11), Most::count(2 * written as usize))
                .await
                .unwrap_or_default();
            log.len() >= written as usize
        })
        .await;
        assert_eq!(bodies(&log), (1..=written).collect::<Vec<_>>(), "writer {w}");
    }
}
