//! Three servers: what a leader that dies must not take with it.

use std::{collections::BTreeMap, time::Duration};

use natterjack_nats::{
    FanIn, FanInEvent, Layout, LayoutError, LeaderReader, LogError, LogReader, NatsConfig, Publisher, ReadFrom,
    SubscriptionSlot, provision,
};
use natterjack_protocol::{Most, MsgId, Times};
use natterjack_testkit::{NatsServer, eventually, eventually_within, raw_client, raw_jetstream, thread_in};

use crate::ids;

/// The server that leads a stream.
async fn leader(nats: &natterjack_nats::Nats, stream: &str) -> usize {
    let js = raw_jetstream(nats).await;
    let info = js.get_stream(stream).await.unwrap().cached_info().clone();
    info.cluster.unwrap().leader.unwrap().trim_start_matches('n').parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_killed_while_we_write_and_read() {
    let mut servers = NatsServer::cluster(3);
    let urls = servers.iter().map(|s| s.config().urls[0].clone()).collect();
    let cfg = NatsConfig { urls, replicas: 3, connect_deadline_ms: 30_000, ..servers[0].config() };
    let nats = natterjack_nats::Nats::connect(&cfg, "test").await.unwrap();
    let layout = eventually("provisioned", async || provision(&nats, &cfg, &Times::default()).await).await;
    let t = thread_in(&layout, 0);
    let stream = layout.stream(&t);
    let publisher = Publisher::new(&nats, layout, Times::default());
    let mut fanin = FanIn::connect(&cfg, "edge").await.unwrap();
    fanin.subscribe("live.user.a.e", SubscriptionSlot(0));

    const N: u32 = 1_000;
    let writer = tokio::spawn({
        let (publisher, t) = (publisher.clone(), t.clone());
        async move {
            let mut acked = BTreeMap::new();
            for i in 0..N {
                let stored = publisher.message(&t, &format!("m{i}"), i.to_string().into()).await.unwrap();
                acked.insert(stored.id, i);
                // So that the leader dies among them.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            acked
        }
    });
    let mut reader = LogReader::new(&nats, layout, 0, ReadFrom::After(MsgId::NONE));
    let mut read: Vec<(MsgId, String)> = Vec::new();
    let mut killed = false;
    while read.len() < N as usize {
        let batch =
            tokio::time::timeout(Duration::from_secs(60), reader.next_batch(100)).await.expect("reads on").unwrap();
        assert_eq!(batch.hole, None);
        for record in batch.records {
            let natterjack_nats::Record::Entry(r) = record else { panic!("poison") };
            read.push((r.id, String::from_utf8(r.payload.to_vec()).unwrap()));
        }
        if !killed && read.len() > 300 {
            let at = leader(&nats, &stream).await;
            servers[at].kill();
            killed = true;
        }
    }
    let acked = writer.await.unwrap();
    assert!(read.windows(2).all(|w| w[1].0 == w[0].0.next()), "dense");
    // One order, nothing lost, nothing twice: every acknowledgement is where it said, in the order of sending.
    assert_eq!(acked.len(), N as usize);
    let expected: Vec<_> = acked.into_iter().map(|(id, i)| (id, i.to_string())).collect();
    assert_eq!(read, expected);

    // The page is complete whoever answers it.
    let tail = LeaderReader::new(&nats, layout);
    let now = tail.bounds(0).await.unwrap().ts_ms;
    for i in 0..50 {
        let id = publisher.message(&t, &format!("after{i}"), "x".into()).await.unwrap().id;
        assert_eq!(tail.newest(&t, MsgId::NONE, Most::count(5), now).await.unwrap().last().unwrap().id, id);
        assert_eq!(
            ids(&tail.after(&t, MsgId(id.0 - 3), id, Most::count(10)).await.unwrap()),
            [MsgId(id.0 - 2), MsgId(id.0 - 1), id]
        );
    }

    // The fan-in reader is on one of those that live, with its subscription.
    let mut events = Vec::new();
    let heard = async {
        loop {
            fanin.publish("live.user.a.e", b"here");
            let _ = tokio::time::timeout(Duration::from_millis(200), fanin.next_batch(&mut events)).await;
            if events.drain(..).any(|e| matches!(e, FanInEvent::Msg { slot: SubscriptionSlot(0), .. })) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), heard).await.expect("heard");

    // The last one alone has no leader, and still answers with its own state of the stream, which may not be all:
    // nobody takes that.
    let leads = leader(&nats, &stream).await;
    let left = (0..servers.len()).find(|i| *i != leads && servers[*i].is_up()).unwrap();
    servers.iter_mut().enumerate().filter(|(i, _)| *i != left).for_each(|(_, s)| s.kill());
    let raw = raw_client(&nats).await;
    eventually_within("it answers in spite of that", Duration::from_secs(60), async || {
        let asked = raw.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await;
        let answer = asked.ok().and_then(|m| serde_json::from_slice::<serde_json::Value>(&m.payload).ok());
        answer.is_some_and(|a| a["state"].is_object() && a["cluster"]["leader"].is_null())
    })
    .await;
    let bounds = tail.bounds(0).await;
    assert!(matches!(bounds, Err(LogError::Unavailable(_))), "{bounds:?}");
    let alone = layout.wait_for_leaders(&nats, Duration::from_secs(1)).await;
    assert!(matches!(&alone, Err(LayoutError::NoLeader { streams, .. }) if streams.contains(&stream)), "{alone:?}");

    // All of them start anew. One alone elects nobody, and a role is told so; with the second it begins as soon as
    // somebody is elected.
    servers.iter_mut().for_each(NatsServer::kill);
    servers[0].launch();
    let role = natterjack_nats::Nats::connect(&cfg, "role").await.unwrap();
    let alone = layout.wait_for_leaders(&role, Duration::from_secs(1)).await;
    assert!(matches!(&alone, Err(LayoutError::NoLeader { streams, .. }) if streams.contains(&stream)), "{alone:?}");
    servers[1].launch();
    assert_eq!(Layout::load_at_start(&role).await.unwrap(), layout);
    publisher.message(&t, "once more", "x".into()).await.unwrap();
}
