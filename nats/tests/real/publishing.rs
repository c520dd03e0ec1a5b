use std::time::{Duration, Instant};

use natterjack_nats::{NatsConfig, PublishError, Publisher, ThreadLog, provision};
use natterjack_protocol::{MsgId, Times};
use natterjack_testkit::{NatsServer, thread, within};

#[tokio::test]
async fn the_same_msg_id_is_stored_once() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let publisher = Publisher::new(&nats, layout, Times::default());
    let t = thread("dm.a.b");
    let first = publisher.message(&t, "m1", "one".into()).await.unwrap();
    let again = publisher.message(&t, "m1", "other".into()).await.unwrap();
    assert_eq!((first.duplicate, again.duplicate, first.id), (false, true, again.id));
    assert_eq!(publisher.message(&t, "m2", "two".into()).await.unwrap().id, first.id.next());
}

#[tokio::test]
async fn of_two_control_entries_one_wins() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let publisher = Publisher::new(&nats, layout, Times::default());
    let t = thread("group.g");
    let created = publisher.control(&t, "op1", "a".into(), MsgId::NONE).await.unwrap();
    // A message between does not count.
    publisher.message(&t, "m1", "x".into()).await.unwrap();
    let (a, b) = tokio::join!(
        publisher.control(&t, "op2", "b".into(), created.id),
        publisher.control(&t, "op3", "c".into(), created.id)
    );
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    assert!(matches!(a.and(b), Err(PublishError::Conflict)));
    assert!(matches!(publisher.control(&t, "op4", "d".into(), MsgId::NONE).await, Err(PublishError::Conflict)));
}

/// Its answer was lost. The server compares what is expected before it looks for the Msg-Id, so whoever gets a conflict
/// has to look whether an earlier attempt was stored.
#[tokio::test]
async fn a_control_entry_that_was_stored_conflicts_with_itself_and_is_not_stored_again() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let publisher = Publisher::new(&nats, layout, Times::default());
    let (t, log) = (thread("group.g"), ThreadLog::new(&nats, layout));
    let created = publisher.control(&t, "op1", "a".into(), MsgId::NONE).await.unwrap().id;
    let stored = publisher.control(&t, "op2", "b".into(), created).await.unwrap().id;
    let again = async || publisher.control(&t, "op2", "b".into(), created).await;
    assert!(matches!(again().await, Err(PublishError::Conflict)));
    let behind = publisher.control(&t, "op3", "c".into(), stored).await.unwrap().id;
    assert!(matches!(again().await, Err(PublishError::Conflict)));
    let next = async |after| log.next_control(&t, after).await.unwrap().map(|record| record.id);
    assert_eq!((next(created).await, next(stored).await, next(behind).await), (Some(stored), Some(behind), None));
}

/// The server is away for a while: every publish waits, and is then stored once.
#[tokio::test]
async fn a_restart_of_the_server_is_waited_for() {
    let (mut s, nats, layout) = NatsServer::ready().await;
    let publisher = Publisher::new(&nats, layout, Times::default());
    let t = thread("dm.a.b");
    let before = publisher.message(&t, "m0", "x".into()).await.unwrap();
    let epoch = nats.epoch();
    s.kill();
    let sending: Vec<_> = (1..=50)
        .map(|i| {
            let (publisher, t) = (publisher.clone(), t.clone());
            tokio::spawn(async move { publisher.message(&t, &format!("m{i}"), "y".into()).await })
        })
        .collect();
    // They give up an attempt after a while, and begin another one: some of that happens with nobody there.
    tokio::time::sleep(Duration::from_millis(700)).await;
    s.launch();
    let mut seen = std::collections::BTreeSet::new();
    for handle in sending {
        let stored = handle.await.unwrap().unwrap();
        assert!(stored.id > before.id);
        assert!(seen.insert(stored.id), "two entries under one id");
    }
    assert!(nats.epoch() > epoch);
    // None of them twice.
    let last = publisher.message(&t, "last", "z".into()).await.unwrap();
    assert_eq!(last.id.0 - before.id.0, 51);
}

#[tokio::test]
async fn a_full_log_refuses_and_keeps_what_it_has() {
    let s = NatsServer::start();
    let nats = s.nats().await;
    let cfg = NatsConfig { max_bytes: Some(64 << 10), ..s.config() };
    let layout = provision(&nats, &cfg, &Times::default()).await.unwrap();
    let publisher = Publisher::new(&nats, layout, Times::default());
    let t = thread("dm.a.b");
    let body = bytes::Bytes::from(vec![7u8; 10_000]);
    let mut stored = 0;
    let refused = loop {
        match publisher.message(&t, &format!("m{stored}"), body.clone()).await {
            Ok(_) => stored += 1,
            Err(e) => break e,
        }
        assert!(stored < 10);
    };
    assert!(matches!(refused, PublishError::StreamFull), "{refused}");
    let bounds = natterjack_nats::LeaderReader::new(&nats, layout).bounds(layout.partition(&t)).await.unwrap();
    assert_eq!(bounds.entries, stored);
}

#[tokio::test]
async fn nobody_there_ends_at_the_deadline() {
    let (mut s, nats, layout) = NatsServer::ready().await;
    let times =
        Times { ack_timeout: Duration::from_millis(200), publish_deadline: Duration::from_secs(1), ..Times::default() };
    let publisher = Publisher::new(&nats, layout, times);
    s.kill();
    let (t, begun) = (thread("dm.a.b"), Instant::now());
    let e = within("the deadline", Duration::from_secs(20), publisher.message(&t, "m", "x".into())).await.unwrap_err();
    assert!(matches!(e, PublishError::Deadline(_)), "{e}");
    assert!(begun.elapsed() >= Duration::from_millis(900), "not before its time");
}

#[tokio::test]
async fn the_barrier_sees_a_lost_connection() {
    let (mut s, nats, _) = NatsServer::ready().await;
    nats.flush_barrier().await.unwrap();
    let epoch = nats.epoch();
    s.restart();
    nats.publish("beat.0", "x".into()).await.unwrap();
    natterjack_testkit::eventually("barrier after the restart", async || nats.flush_barrier().await.is_ok()).await;
    assert!(nats.epoch() > epoch, "what was published before may be lost, and that shows");
}
