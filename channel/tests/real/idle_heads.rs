//! P4's last message: an idle thread repeats its head once; and each partition's beat.

use std::time::Duration;

use natterjack_nats::{Beginning, ClockMarks, KvBuckets, Position, Positions};
use natterjack_protocol::{
    Times,
    internal::live::{Beat, LiveMessage},
};
use natterjack_testkit::{NatsServer, eventually, thread};

use crate::kit::{Instance, Observer, What, Writer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_thread_gets_one_head_and_every_partition_beats() {
    let (server, nats, layout) = NatsServer::ready().await;
    let (observer, writer) = (Observer::start(&server).await, Writer::new(&nats, layout));
    let instance = Instance::start(&server, "one");
    let t = thread("dm.a.b");
    let p = layout.partition(&t);
    writer.text(&t, "a").await;
    let last = writer.text(&t, "b").await;
    let heads = |subject: &str| {
        observer.with(|all| {
            let on = all.iter().filter(|s| s.subject == subject);
            on.filter_map(
                |s| if let What::Live(LiveMessage::Head { id, .. }) = s.what { Some((s.at, id)) } else { None },
            )
            .collect::<Vec<_>>()
        })
    };
    for subject in ["live.user.a.e", "live.user.b.e"] {
        eventually("a head", async || !heads(subject).is_empty()).await;
        let event = observer.with(|all| {
            let mut on = all.iter().filter(|s| s.subject == subject);
            on.find(|s| matches!(s.what, What::Live(LiveMessage::Event { header, .. }) if header.id == last))
                .unwrap()
                .at
        });
        let (at, id) = heads(subject)[0];
        assert_eq!(id, last);
        assert!((Duration::from_millis(900)..Duration::from_millis(1_900)).contains(&(at - event)), "{:?}", at - event);
    }

    let beats = |p: u32| -> Vec<Beat> {
        observer.with(|all| {
            all.iter()
                .filter_map(|s| if let What::Beat(b) = s.what { Some(b) } else { None })
                .filter(|b| b.p == p)
                .collect()
        })
    };
    eventually("the frontier in a beat", async || beats(p).last().is_some_and(|b| b.frontier == last)).await;
    assert_eq!(beats(p).last().unwrap().archive_lag_ms, None, "nobody has said how far the archive is");
    let positions = Positions::new(&KvBuckets::new(&nats, layout), "persister");
    positions.advance(p, Position { id: last, ts: 0 }).await.unwrap();
    eventually("an archive that has everything", async || beats(p).last().is_some_and(|b| b.archive_lag_ms == Some(0)))
        .await;
    writer.text(&t, "a").await;
    eventually("an archive that is behind", async || beats(p).last().is_some_and(|b| b.archive_lag_ms > Some(500)))
        .await;
    for p in 0..layout.partitions {
        let beats = beats(p);
        assert!(beats.len() >= 3);
        assert!(
            beats
                .windows(2)
                .all(|w| w[0].ts < w[1].ts && w[0].frontier <= w[1].frontier && w[0].dedupe_since == w[1].dedupe_since)
        );
        assert!(beats.iter().all(|b| b.dedupe_since > 0 && b.dedupe_since <= b.ts));
    }
    // Who comes later says how far the clock had been, too.
    instance.stop().await;
    let ahead = beats(p).last().unwrap().ts + 3_600_000;
    ClockMarks::new(&KvBuckets::new(&nats, layout)).note(p, ahead).await.unwrap();
    let instance = Instance::start(&server, "two");
    eventually("beats with the mark", async || beats(p).last().is_some_and(|b| b.dedupe_since == ahead)).await;
    assert_eq!(heads("live.user.a.e").iter().filter(|(_, id)| *id == last).count(), 1, "once");
    instance.stop().await;
}

/// As soon as it is written down, and for a holder that comes later; not for streams that were made at another time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_first_streams_there_was_nothing() {
    let (server, nats, layout) = NatsServer::ready().await;
    let buckets = KvBuckets::new(&nats, layout);
    let beginning = Beginning::find(&nats, layout, &Times::default()).await.unwrap().expect("just made");
    let observer = Observer::start(&server).await;
    let since = |p: u32| -> Option<u64> {
        observer.with(|all| {
            let mut beats = all.iter().rev().filter_map(|s| if let What::Beat(b) = s.what { Some(b) } else { None });
            beats.find(|b| b.p == p).map(|b| b.dedupe_since)
        })
    };
    let instance = Instance::start(&server, "one");
    eventually("beats", async || since(0).is_some_and(|ms| ms > 0)).await;
    buckets.beginning().put(&beginning).await.unwrap();
    for p in 0..layout.partitions {
        eventually("beats that know it", async || since(p) == Some(0)).await;
    }
    instance.stop().await;
    buckets.beginning().put(&Beginning { created_ms: vec![1; 8] }).await.unwrap();
    let instance = Instance::start(&server, "two");
    eventually("beats of other streams", async || since(0).is_some_and(|ms| ms > 0)).await;
    instance.stop().await;
}
