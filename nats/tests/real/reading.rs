use std::time::Duration;

use futures_util::TryStreamExt;
use natterjack_nats::{LeaderReader, LogReader, Nats, NatsConfig, Publisher, ReadFrom, Record};
use natterjack_protocol::{MsgId, Thread, Times};
use natterjack_testkit::{NatsServer, raw_jetstream, thread_in};

async fn publish(publisher: &Publisher, t: &Thread, range: std::ops::Range<u32>) {
    for i in range {
        publisher.message(t, &format!("m{i}"), i.to_string().into()).await.unwrap();
    }
}

/// Reads until `n` records; asserts that they are dense.
async fn read(reader: &mut LogReader, n: usize) -> Vec<Record> {
    let mut got = Vec::new();
    while got.len() < n {
        let batch = tokio::time::timeout(Duration::from_secs(20), reader.next_batch(64))
            .await
            .expect("a record in time")
            .unwrap();
        assert_eq!(batch.hole, None);
        assert!(batch.records.len() <= 64);
        got.extend(batch.records);
    }
    assert!(got.windows(2).all(|w| w[1].id() == w[0].id().next()));
    got
}

async fn consumers(nats: &Nats, stream: String) -> Vec<String> {
    let stream = raw_jetstream(nats).await.get_stream(stream).await.unwrap();
    stream.consumer_names().try_collect().await.unwrap()
}

#[tokio::test]
async fn from_the_beginning_from_a_position_and_from_a_time() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let t = thread_in(&layout, 0);
    let publisher = Publisher::new(&nats, layout, Times::default());
    publish(&publisher, &t, 0..200).await;
    let mut reader = LogReader::new(&nats, layout, 0, ReadFrom::After(MsgId::NONE));
    let all = read(&mut reader, 200).await;
    assert_eq!(reader.position(), all[199].id());
    assert!(matches!(&all[7], Record::Entry(r) if r.payload == "7" && r.thread == t && !r.control));

    let mut reader = LogReader::new(&nats, layout, 0, ReadFrom::After(all[99].id()));
    assert_eq!(read(&mut reader, 100).await[0].id(), all[100].id());

    let middle = all[150].ts();
    let mut reader = LogReader::new(&nats, layout, 0, ReadFrom::Time(middle));
    let first = read(&mut reader, 1).await[0].clone();
    assert!(first.ts() >= middle && first.id() <= all[150].id());

    // At the head: waits, then gets what comes. A cancelled wait loses nothing.
    let mut reader = LogReader::new(&nats, layout, 0, ReadFrom::After(all[199].id()));
    for _ in 0..5 {
        assert!(tokio::time::timeout(Duration::from_millis(50), reader.next_batch(10)).await.is_err());
    }
    publish(&publisher, &t, 200..203).await;
    read(&mut reader, 3).await;
}

#[tokio::test]
async fn its_consumer_deleted_under_it_again_and_again() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let t = thread_in(&layout, 0);
    let publisher = Publisher::new(&nats, layout, Times::default());
    let mut reader = LogReader::new(&nats, layout, 0, ReadFrom::After(MsgId::NONE));
    for round in 0..3 {
        publish(&publisher, &t, round * 100..round * 100 + 50).await;
        let before = read(&mut reader, 50).await;
        for name in consumers(&nats, layout.stream(&t)).await {
            raw_jetstream(&nats).await.delete_consumer_from_stream(name, layout.stream(&t)).await.unwrap();
        }
        publish(&publisher, &t, round * 100 + 50..round * 100 + 100).await;
        let after = read(&mut reader, 50).await;
        assert_eq!(after[0].id(), before[49].id().next());
    }
    // The deleted ones do not pile up, nor those the reader left.
    assert_eq!(consumers(&nats, layout.stream(&t)).await.len(), 1);
}

/// All that there is when it comes, four thousand at most; nothing while nobody comes; through deleted consumers and
/// restarts like any other.
#[tokio::test]
async fn fetched_by_the_thousand() {
    const BYTES: usize = 1 << 20;
    let (mut s, nats, layout) = NatsServer::ready().await;
    let t = thread_in(&layout, 0);
    let publisher = Publisher::new(&nats, layout, Times::default());
    let fetch = async |reader: &mut LogReader, bytes: usize| {
        let batch =
            tokio::time::timeout(Duration::from_secs(20), reader.fetch(bytes)).await.expect("a batch in time").unwrap();
        assert_eq!(batch.hole, None);
        assert!(batch.records.windows(2).all(|w| w[1].id() == w[0].id().next()));
        batch
    };
    publish(&publisher, &t, 0..4_500).await;
    let mut reader = LogReader::fetching(&nats, layout, 0, ReadFrom::After(MsgId::NONE));
    let (first, second) = (fetch(&mut reader, BYTES).await, fetch(&mut reader, BYTES).await);
    assert_eq!((first.records.len(), first.pending, second.records.len(), second.pending), (4_000, 500, 500, 0));
    let mut last = second.records[499].id();

    // Nobody waits for these. They come together, or by and by if the payload is more than was wanted.
    let mut at = 4_500;
    for (bytes, fewest) in [(BYTES, 1), (100, 2)] {
        publish(&publisher, &t, at..at + 300).await;
        at += 300;
        let (mut read, mut fetches) = (0, 0);
        while read < 300 {
            let batch = fetch(&mut reader, bytes).await;
            assert_eq!(batch.records[0].id(), last.next());
            last = batch.records.last().unwrap().id();
            (read, fetches) = (read + batch.records.len(), fetches + 1);
        }
        assert!(fetches >= fewest && (bytes < BYTES || fetches == 1), "{fetches} fetches of {bytes} bytes");
    }

    // At the head it waits, and has what comes at once.
    let ((), batch) = tokio::join!(
        async {
            // A reader that does not wait at the head would have come back by now.
            tokio::time::sleep(Duration::from_millis(300)).await;
            publish(&publisher, &t, at..at + 1).await;
        },
        fetch(&mut reader, BYTES)
    );
    assert_eq!((batch.records.len(), batch.records[0].id()), (1, last.next()));
    at += 1;

    for name in consumers(&nats, layout.stream(&t)).await {
        raw_jetstream(&nats).await.delete_consumer_from_stream(name, layout.stream(&t)).await.unwrap();
    }
    publish(&publisher, &t, at..at + 10).await;
    last = fetch(&mut reader, BYTES).await.records.last().unwrap().id();
    s.restart();
    publish(&publisher, &t, at + 10..at + 20).await;
    assert_eq!(fetch(&mut reader, BYTES).await.records[0].id(), last.next());
}

/// The first server of the list answers and is cut off from the others: whatever is asked for there never comes.
#[tokio::test]
async fn a_connection_of_its_own_to_a_server_that_is_cut_off() {
    let (s, _, layout) = NatsServer::ready().await;
    let mut cut_off = NatsServer::start();
    cut_off.kill();
    let urls = [cut_off.config().urls, s.config().urls].concat();
    let nats = Nats::connect(&NatsConfig { urls, ..s.config() }, "test").await.unwrap();
    cut_off.launch();
    eventually_up(&cut_off).await;
    let t = thread_in(&layout, 0);
    publish(&Publisher::new(&nats, layout, Times::default()), &t, 0..10).await;
    let mut reader = LogReader::fetching(&nats, layout, 0, ReadFrom::After(MsgId::NONE));
    assert_eq!(read(&mut reader, 10).await.len(), 10);
}

async fn eventually_up(server: &NatsServer) {
    let up = async { while Nats::connect(&server.config(), "test").await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), up).await.expect("the server is up");
}

#[tokio::test]
async fn through_a_restart_of_the_server() {
    let (mut s, nats, layout) = NatsServer::ready().await;
    let t = thread_in(&layout, 1);
    let publisher = Publisher::new(&nats, layout, Times::default());
    let mut reader = LogReader::new(&nats, layout, 1, ReadFrom::After(MsgId::NONE));
    publish(&publisher, &t, 0..100).await;
    let first = read(&mut reader, 100).await;
    for round in 1..=2 {
        s.restart();
        publish(&publisher, &t, round * 100..round * 100 + 100).await;
        let next = read(&mut reader, 100).await;
        assert_eq!(next[0].id().0, first[0].id().0 + u64::from(round) * 100);
    }
}

/// The position is older than the log: what is missing is named once, then reading goes on.
#[tokio::test]
async fn a_hole_is_named() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let t = thread_in(&layout, 0);
    let publisher = Publisher::new(&nats, layout, Times::default());
    publish(&publisher, &t, 0..3).await;
    let first = LeaderReader::new(&nats, layout).bounds(0).await.unwrap().first;
    let mut reader = LogReader::new(&nats, layout, 0, ReadFrom::After(MsgId(first.0 - 11)));
    let batch = reader.next_batch(10).await.unwrap();
    assert_eq!(batch.hole, Some((MsgId(first.0 - 10), MsgId(first.0 - 1))));
    assert_eq!(batch.records[0].id(), first);
    let read_so_far = batch.records.len();
    read(&mut reader, 3 - read_so_far).await;
}

#[tokio::test]
async fn what_is_not_an_entry_is_handed_on_as_poison() {
    let (_s, nats, layout) = NatsServer::ready().await;
    raw_jetstream(&nats).await.publish("chat.1.0.nonsense", "x".into()).await.unwrap().await.unwrap();
    let mut reader = LogReader::new(&nats, layout, 0, ReadFrom::After(MsgId::NONE));
    let batch = reader.next_batch(10).await.unwrap();
    let Record::UnknownSubject { subject, payload, .. } = &batch.records[0] else { panic!("{:?}", batch.records[0]) };
    assert!(subject == "chat.1.0.nonsense" && payload == "x");
}

/// Faster than one pull's worth, while more is being written.
#[tokio::test]
async fn a_long_log_is_read_densely() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let t = thread_in(&layout, 0);
    let publisher = Publisher::new(&nats, layout, Times::default());
    const N: u32 = 20_000;
    let writer = tokio::spawn(async move {
        for chunk in 0..N / 500 {
            let one = |i: u32| {
                let (publisher, t) = (&publisher, &t);
                async move { publisher.message(t, &format!("m{chunk}.{i}"), "x".into()).await.unwrap() }
            };
            futures_util::future::join_all((0..500).map(one)).await;
        }
    });
    let mut reader = LogReader::new(&nats, layout, 0, ReadFrom::After(MsgId::NONE));
    read(&mut reader, N as usize).await;
    writer.await.unwrap();
}

#[tokio::test]
async fn without_a_stream_it_says_so() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let mut reader = LogReader::new(&nats, layout, 9, ReadFrom::After(MsgId::NONE));
    assert!(reader.next_batch(1).await.is_err());
}
