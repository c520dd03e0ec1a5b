//! A log that is full: writes are refused with the reason, what was acknowledged stays, and reads go on.

use std::time::Duration;

use natterjack_protocol::{Code, Thread, codec::Codec};
use natterjack_testkit::{eventually_within, within};
use natterjack_tests::kit::{Cluster, ClusterSpec};
use serde_json::json;

use super::common::{Insight, LONG, SOON, all_well, good, history_texts, members, new_group, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_refuses_and_drops_nothing() {
    let set = vec![("nats.max_bytes".to_owned(), "300000".to_owned())];
    let cluster = Cluster::start(ClusterSpec { set, partitions: 1, alone: true, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(3).await;
    let (alice, bob, carol) = (&users[0], &users[1], &users[2]);
    let dm = alice.dm(bob);
    let mut ws = cluster.raw(alice, 0, Codec::Json).await;
    let mut sent = Vec::new();
    let filler = "full-of-frogs ".repeat(100);
    let (cid, refusal) = within("the log is full", LONG, async {
        loop {
            let cid = ws.cid();
            let text = format!("{} {filler}", sent.len());
            match ws.send_cid(&dm, cid, &text).await {
                Ok(_) => sent.push(text),
                Err(refusal) => break (cid, refusal),
            }
        }
    })
    .await;
    assert_eq!((refusal.code, refusal.cid), (Code::Unavailable, Some(cid)));
    assert!(refusal.retry_after_ms.is_some() && refusal.message.contains("full"), "{refusal:?}");
    // Everything that writes says so, everything that reads is fine, through both edges.
    let mut other = cluster.raw(bob, 1, Codec::Msgpack).await;
    let big = "x".repeat(5_000);
    assert_eq!(other.send_text(&dm, &big).await.unwrap_err().code, Code::Unavailable);
    let mut stranger = cluster.raw(carol, 1, Codec::Json).await;
    let began = tokio::time::Instant::now();
    let first = stranger.send_text(&carol.dm(alice), &big).await.unwrap_err();
    assert_eq!(first.code, Code::Unavailable);
    assert!(
        began.elapsed() < natterjack_testkit::patience(Duration::from_secs(5)),
        "full is told at once, not after the deadline"
    );
    for api in [cluster.api(alice, 0), cluster.api(bob, 1)] {
        assert_eq!(history_texts(&api, &dm).await, sent, "what was acknowledged is there");
        good(api.get("/v1/threads").await);
    }
    // Many small ones, until nothing fits: a control entry is refused like a message.
    let last = loop {
        match ws.send_text(&dm, "x").await {
            Ok(_) => sent.push("x".to_owned()),
            Err(refusal) => break refusal,
        }
    };
    assert!(last.message.contains("full"), "{last:?}");
    // A control entry is refused like a message, or it still fits: then it is there.
    match cluster.api(alice, 0).post("/v1/groups", &json!({ "name": "n".repeat(90) })).await {
        (200, body) => {
            let made: Thread = body["thread"].as_str().unwrap().parse().unwrap();
            assert_eq!(members(&cluster.api(alice, 1), &made).await.len(), 1);
        }
        full => refused(full, Code::Unavailable),
    }

    // Room is made: the same cid goes in, once.
    let insight = Insight::of(&cluster).await;
    let js = natterjack_testkit::raw_jetstream(&insight.nats).await;
    let stream = js.get_stream(natterjack_nats::subjects::stream(insight.layout.generation, 0)).await.unwrap();
    let more = natterjack_testkit::raw_nats::jetstream::stream::Config {
        max_bytes: 50_000_000,
        ..stream.cached_info().config.clone()
    };
    js.update_stream(more).await.unwrap();
    let id =
        eventually_within("it fits now", SOON, async || ws.send_cid(&dm, cid, "at last").await.map_err(|e| e.message))
            .await;
    assert_eq!(ws.send_cid(&dm, cid, "at last").await.unwrap(), id);
    sent.push("at last".to_owned());
    assert_eq!(history_texts(&cluster.api(bob, 1), &dm).await, sent);
    new_group(&cluster.api(alice, 0), "room", &users[1..]).await;
    cluster.assert_not_logged("full-of-frogs");
    all_well(&cluster);
}
