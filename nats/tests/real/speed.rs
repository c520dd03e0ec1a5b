//! Not a promise, a look: `cargo test --profile fast -p natterjack-nats --test real speed -- --ignored --nocapture`.

use std::time::Instant;

use natterjack_nats::{FanIn, FanInEvent, LeaderReader, LogReader, Publisher, ReadFrom, SubscriptionSlot};
use natterjack_protocol::{Most, MsgId, Times};
use natterjack_testkit::{NatsServer, thread, thread_in};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures of this machine"]
async fn figures() {
    let (s, nats, layout) = NatsServer::ready().await;
    let publisher = Publisher::new(&nats, layout, Times::default());
    let t = thread_in(&layout, 0);
    const N: u32 = 100_000;
    let begun = Instant::now();
    for chunk in 0..N / 1_000 {
        let one = |i: u32| {
            let (publisher, t) = (&publisher, &t);
            async move { publisher.message(t, &format!("m{chunk}.{i}"), vec![0u8; 150].into()).await.unwrap() }
        };
        futures_util::future::join_all((0..1_000).map(one)).await;
    }
    println!("publish: {:.0}/s", f64::from(N) / begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let mut reader = LogReader::new(&nats, layout, 0, ReadFrom::After(MsgId::NONE));
    let mut read = 0;
    while read < N as usize {
        read += reader.next_batch(1_000).await.unwrap().records.len();
    }
    println!("read: {:.0}/s", f64::from(N) / begun.elapsed().as_secs_f64());

    let mut took = Vec::new();
    for i in 0..2_000 {
        let begun = Instant::now();
        publisher.message(&t, &format!("one{i}"), vec![0u8; 150].into()).await.unwrap();
        took.push(begun.elapsed());
    }
    took.sort();
    println!("one publish at a time: p50 {:?} p99 {:?}", took[1_000], took[1_980]);

    let mut took = Vec::new();
    for i in 0..1_000 {
        let begun = Instant::now();
        publisher.message(&t, &format!("lat{i}"), vec![0u8; 150].into()).await.unwrap();
        let mut seen = false;
        while !seen {
            seen = reader.next_batch(1_000).await.unwrap().records.last().is_some_and(|r| r.id().0 > 0);
        }
        took.push(begun.elapsed());
    }
    took.sort();
    println!("publish until read: p50 {:?} p99 {:?}", took[500], took[990]);

    let tail = LeaderReader::new(&nats, layout);
    let now = tail.bounds(0).await.unwrap().ts_ms;
    let quiet = thread("dm.quiet.zz");
    for i in 0..10 {
        publisher.message(&quiet, &format!("q{i}"), "x".into()).await.unwrap();
    }
    let begun = Instant::now();
    for _ in 0..200 {
        tail.newest(&quiet, MsgId::NONE, Most::count(10), now).await.unwrap();
    }
    println!("newest page of a quiet thread: {:?}", begun.elapsed() / 200);
    let begun = Instant::now();
    tail.newest(&t, MsgId::NONE, Most::count(50), now).await.unwrap();
    println!("newest page of a thread with 100,000 entries in the window: {:?}", begun.elapsed());

    let mut f = FanIn::connect(&s.config(), "edge").await.unwrap();
    for i in 0..10_000 {
        f.subscribe(&format!("live.user.u{i}.*"), SubscriptionSlot(i));
    }
    const M: usize = 300_000;
    let mut batch = Vec::new();
    f.next_batch(&mut batch).await;
    let publishing = nats.clone();
    let writer = tokio::spawn(async move {
        let body = bytes::Bytes::from(vec![0u8; 200]);
        for i in 0..M {
            publishing.publish(format!("live.user.u{}.e", i % 10_000), body.clone()).await.unwrap();
        }
    });
    let begun = Instant::now();
    let (mut got, mut batches) = (0, 0);
    while got < M {
        batch.clear();
        f.next_batch(&mut batch).await;
        batches += 1;
        got += batch.iter().filter(|e| matches!(e, FanInEvent::Msg { .. })).count();
    }
    println!("fan-in: {:.0}/s in {batches} batches", M as f64 / begun.elapsed().as_secs_f64());
    writer.await.unwrap();
}
