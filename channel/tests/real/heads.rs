//! The answer to a heads request is a barrier: what it speaks of was written to the connection before it.

use std::{collections::BTreeSet, time::Duration};

use natterjack_nats::{RpcError, subjects};
use natterjack_protocol::{
    MsgId, Thread,
    internal::{
        live::LiveMessage,
        rpc::{Heads, HeadsAnswer, Reply},
    },
};
use natterjack_testkit::{NatsServer, eventually, thread};

use crate::kit::{Instance, Observer, What, Writer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_up_to_the_frontier_comes_before_the_answer() {
    let (server, nats, layout) = NatsServer::ready().await;
    let nobody =
        nats.request::<_, HeadsAnswer>(&subjects::heads(1, 0), &Heads::default(), Duration::from_secs(1)).await;
    assert!(matches!(nobody, Err(RpcError::NoResponders)), "{nobody:?}");
    // One subscription to everything, in the order of its connection.
    let (observer, writer) = (Observer::of(&server, &[">"]).await, Writer::new(&nats, layout));
    let instance = Instance::start(&server, "one");
    let threads: Vec<Thread> = (0..20).map(|i| thread(&format!("group.g{i}"))).collect();
    let ask =
        |p: u32| Heads { threads: threads.iter().filter(|t| layout.partition(t) == p).map(Thread::hash64).collect() };
    for p in 0..layout.partitions {
        eventually("somebody answers heads", async || {
            nats.request::<_, HeadsAnswer>(&subjects::heads(1, p), &ask(p), Duration::from_secs(1)).await.is_ok()
        })
        .await;
    }
    let sending = tokio::spawn({
        let (writer, threads) = (writer.clone(), threads.clone());
        async move {
            for i in 0..1_500 {
                writer.text(&threads[i % threads.len()], "a").await;
            }
        }
    });
    let mut asked = 0;
    while !sending.is_finished() {
        let p = asked % layout.partitions;
        asked += 1;
        let request = rmp_serde::to_vec_named(&ask(p)).unwrap();
        observer
            .nats
            .publish_with_reply(subjects::heads(1, p), format!("test.{p}.{asked}"), request.into())
            .await
            .unwrap();
        // A pace: hundreds of questions among the messages, not tens of thousands.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    sending.await.unwrap();
    observer.has_everything(&writer).await;
    let answers = || {
        observer.with(|all| {
            all.iter().filter(|s| s.subject.starts_with("test.") && matches!(s.what, What::Other(_))).count()
        })
    };
    eventually("all answers", async || answers() >= asked as usize).await;

    let truth = writer.truth();
    let mut spoke_of_something = 0;
    observer.with(|all| {
        let mut seen: BTreeSet<MsgId> = BTreeSet::new();
        for s in all {
            match &s.what {
                What::Live(LiveMessage::Event { header, .. }) => drop(seen.insert(header.id)),
                What::Other(message) => {
                    let p: u32 = s.subject.split('.').nth(1).unwrap().parse().unwrap();
                    let answer: Reply<HeadsAnswer> = rmp_serde::from_slice(&message.payload).unwrap();
                    let Reply::Ok(HeadsAnswer { frontier, heads, .. }) = answer else { panic!("{answer:?}") };
                    let mine: Vec<&Thread> = threads.iter().filter(|t| layout.partition(t) == p).collect();
                    for (t, head) in mine.iter().zip(&heads) {
                        let promised: Vec<MsgId> = truth[*t].iter().copied().filter(|id| *id <= frontier).collect();
                        assert!(
                            promised.iter().all(|id| seen.contains(id)),
                            "{t}: not everything up to {frontier} came before the answer"
                        );
                        assert!(
                            promised.last().is_none_or(|id| head >= id),
                            "{t}: head {head} is behind the frontier {frontier}"
                        );
                    }
                    spoke_of_something += u32::from(frontier > MsgId::NONE);
                }
                _ => {}
            }
        }
    });
    assert!(spoke_of_something > 20, "{spoke_of_something} of {asked}");
    instance.stop().await;
}
