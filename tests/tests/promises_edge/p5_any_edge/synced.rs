//! `synced` holds although the channel has forgotten the threads that it speaks of.

use std::{collections::BTreeMap, time::Duration};

use natterjack_protocol::{
    MsgId, Thread,
    client::frame::ClientFrame,
    codec::Codec,
    internal::rpc::{Heads, HeadsAnswer},
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs};

use super::{
    by_hand::{hello, resume_by_hand},
    write,
};
use crate::common::{ReadLog, SOON, assert_log, new_group, send_through};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn synced_is_honoured_beyond_the_horizon_of_the_channel() {
    // The horizon is two minutes; scaled, 6 s.
    let cluster = Cluster::start(ClusterSpec { times_divisor: 20, ..ClusterSpec::default() }).await;
    let log = ReadLog::of(&cluster).await;
    let users = cluster.mint_users(3).await;
    let (alice, reader, fresh) = (&users[0], &users[1], &users[2]);
    let api = cluster.api(alice, 0);
    let mut ws = cluster.raw(alice, 0, Codec::Msgpack).await;
    // Quiet ones, ones that were missed, and one of which the device holds no cursor.
    let mut threads = Vec::new();
    let mut cursors = BTreeMap::new();
    for _ in 0..6 {
        let thread = new_group(&api, &[reader, fresh]).await;
        cursors.insert(thread.clone(), send_through(&mut ws, &thread, "already read").await);
        threads.push(thread);
    }
    let mut bare = RawWs::connect(cluster.edge_addr(0), Codec::Msgpack).await;
    let (_, synced) = resume_by_hand(&mut bare, hello(reader, cursors.clone(), None)).await;
    bare.send(&ClientFrame::Bye).await;
    bare.until_closed(SOON).await;

    let missed = &threads[..3];
    write(&mut ws, missed.iter().map(|t| (t.clone(), 3)).collect()).await;
    let newest = log.last(&threads[2]).await;
    // Until channel has forgotten all of it. Other threads go on, or nothing would ever be old.
    let mut others = vec![new_group(&api, &[]).await, new_group(&api, &[]).await];
    while others.iter().all(|o| o.partition(log.layout.partitions) == others[0].partition(log.layout.partitions)) {
        others.push(new_group(&api, &[]).await);
    }
    let p = |t: &Thread| t.partition(log.layout.partitions);
    eventually_within("the channel forgets", Duration::from_secs(40), async || {
        for other in &others {
            send_through(&mut ws, other, "time goes on").await;
        }
        for partition in 0..log.layout.partitions {
            let hashes: Vec<u64> = threads.iter().filter(|t| p(t) == partition).map(Thread::hash64).collect();
            let question = Heads { threads: hashes };
            let answer: HeadsAnswer = log
                .nats
                .request(&natterjack_nats::subjects::heads(1, partition), &question, Duration::from_secs(2))
                .await
                .map_err(|e| e.to_string())?;
            if answer.heads.iter().any(|h| !h.is_none()) {
                return Err(format!("partition {partition} still knows {:?}", answer.heads));
            }
        }
        Ok(())
    })
    .await;
    assert!(newest > MsgId::NONE);

    // With and without `synced`, and with a cursor lost that the device never needed.
    for (named, synced) in
        [(cursors.clone(), Some(synced.clone())), (cursors.clone(), None), (BTreeMap::new(), Some(synced.clone()))]
    {
        let mut bare = RawWs::connect(cluster.edge_addr(1), Codec::Msgpack).await;
        let without = named.is_empty();
        let (got, _) = resume_by_hand(&mut bare, hello(reader, named, synced)).await;
        for thread in missed {
            let wanted = log.messages(thread, cursors[thread]).await;
            assert_log(thread, got.get(thread).map_or(&[], Vec::as_slice), &wanted);
        }
        for quiet in &threads[3..] {
            assert_eq!(got.get(quiet), None, "nothing is new in {quiet}, cursors: {}", !without);
        }
        bare.send(&ClientFrame::Bye).await;
        bare.until_closed(SOON).await;
    }

    // A fresh device: the newest page of every thread, with where it begins.
    let mut bare = RawWs::connect(cluster.edge_addr(1), Codec::Json).await;
    let (got, synced) = resume_by_hand(&mut bare, hello(fresh, BTreeMap::new(), None)).await;
    assert_eq!(got.len(), threads.len(), "every thread of theirs");
    for thread in &threads {
        assert_log(thread, &got[thread], &log.messages(thread, MsgId::NONE).await);
    }
    assert!(!synced.is_empty(), "a device that has everything is in sync");
}
