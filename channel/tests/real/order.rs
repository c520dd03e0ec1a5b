//! P3, P4: one order, a true predecessor, nothing left out; whoever publishes.

use std::time::Duration;

use bytes::Bytes;
use natterjack_nats::{KvBuckets, LeaderReader, Position, Positions, subjects, switch};
use natterjack_protocol::{MsgId, Times, internal::live::LiveMessage, limits};
use natterjack_testkit::{NatsServer, eventually, thread};
use tokio::{sync::watch, time::Instant};

use crate::kit::{Instance, Observer, What, Writer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chain_and_order_hold_across_a_restart() {
    let (server, nats, layout) = NatsServer::ready().await;
    let (observer, writer) = (Observer::start(&server).await, Writer::new(&nats, layout));
    let threads = ["dm.a.b", "dm.a.a", "dm.a.c", "group.g", "group.h"].map(thread);
    let send = async |n: usize| {
        for i in 0..n {
            writer.text(&threads[i % threads.len()], "a").await;
        }
    };
    // Before anybody reads: owed all the same.
    send(20).await;
    let first = Instance::start(&server, "one");
    send(100).await;
    observer.has_everything(&writer).await;
    first.health.ready().await;
    first.stop().await;
    send(50).await;
    let second = Instance::start(&server, "two");
    send(50).await;
    let copies = observer.has_everything(&writer).await;
    assert_eq!(copies, 0, "a planned stop hands over exactly");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_within_its_lease() {
    let (server, nats, layout) = NatsServer::ready_alone().await;
    let (observer, writer) = (Observer::start(&server).await, Writer::new(&nats, layout));
    let threads = ["dm.a.b", "group.g", "dm.c.d", "group.h"].map(thread);
    let first = Instance::start(&server, "one");
    let early = writer.text(&threads[0], "a").await;
    eventually("the first event", async || observer.saw_event("live.user.a.e", early)).await;
    let _second = Instance::start(&server, "two");
    let ((stop, over), (wrote, written)) = (watch::channel(false), watch::channel(early));
    let sending = tokio::spawn({
        let writer = writer.clone();
        async move {
            for i in 0.. {
                if *over.borrow() {
                    break;
                }
                wrote.send_replace(writer.text(&threads[i % threads.len()], "a").await);
                // A pace: the longest pause between two events is what is measured.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let published = |from: MsgId| {
        observer.with(|all| {
            all.iter()
                .filter(|s| matches!(s.what, What::Live(LiveMessage::Event { ref header, .. }) if header.id > from))
                .count()
        })
    };
    eventually("the first one publishes", async || published(early) > 100).await;
    first.die();
    let (died, newest) = (Instant::now(), *written.borrow());
    eventually("the second one publishes", async || published(newest) > 100).await;
    stop.send_replace(true);
    sending.await.unwrap();
    let copies = observer.has_everything(&writer).await;
    let pause = observer.with(|all| {
        let events =
            all.iter().filter(|s| matches!(s.what, What::Live(LiveMessage::Event { .. })) && s.at > died).map(|s| s.at);
        let times: Vec<Instant> = std::iter::once(died).chain(events).collect();
        times.windows(2).map(|w| w[1] - w[0]).max().unwrap()
    });
    println!("pause {pause:?}, {copies} copies");
    assert!(pause < Duration::from_millis(3_500), "{pause:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_read_stops_nothing() {
    let (server, nats, layout) = NatsServer::ready().await;
    let (observer, writer) = (Observer::start(&server).await, Writer::new(&nats, layout));
    let instance = Instance::start(&server, "one");
    let t = thread("dm.a.b");
    writer.text(&t, "a").await;
    let poison = writer.message(&t, Bytes::from_static(b"\xc1 nonsense")).await;
    // A subject of the partition that names no thread.
    nats.publish(format!("chat.{}.{}.nonsense", layout.generation, layout.partition(&t)), "x".into()).await.unwrap();
    nats.flush_barrier().await.unwrap();
    // One whose frame would be larger than the server takes.
    let room = nats.max_payload() - 90;
    let large = writer.message(&t, vec![0; room].into()).await;
    writer.text(&t, "a").await;
    observer.has_everything(&writer).await;
    let frames: Vec<(MsgId, usize)> = observer.with(|all| {
        let frames = all.iter().filter(|s| s.subject == subjects::live_user(&"b".parse().unwrap()));
        frames
            .filter_map(|s| match &s.what {
                What::Live(LiveMessage::Event { header, frame }) => Some((header.id, frame.len())),
                _ => None,
            })
            .collect()
    });
    let length = |of| frames.iter().find(|(id, _)| *id == of).unwrap().1;
    assert!(length(poison) < 200, "with its bytes: {frames:?}");
    assert!(
        (limits::BODY_BYTES..limits::BODY_BYTES + 200).contains(&length(large)),
        "with the first of them: {frames:?}"
    );
    instance.stop().await;
}

/// Another number of partitions: whoever publishes, a thread's next event names its last one of the generation before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chain_goes_on_into_a_new_generation() {
    let (server, nats, layout) = NatsServer::ready().await;
    let (observer, writer) = (Observer::start(&server).await, Writer::new(&nats, layout));
    let threads: Vec<_> = (0..9).map(|n| thread(&format!("group.g{n}"))).collect();
    let send = async |writer: &Writer, n: usize| {
        for i in 0..n {
            writer.text(&threads[i % threads.len()], "a").await;
        }
    };
    let (first, second) = (Instance::start(&server, "one"), Instance::start(&server, "two"));
    send(&writer, 100).await;
    let next = switch(&nats, &server.config(), &Times::default(), 3).await.unwrap();
    let writer = writer.follow(&nats, next);
    send(&writer, 100).await;
    assert_eq!(
        observer.has_everything(&writer).await,
        0,
        "everybody is through with the old one before anybody begins with the new one"
    );
    // Whoever starts now finds the old one finished; its last ids still count.
    second.stop().await;
    first.stop().await;
    send(&writer, 7).await;
    let third = Instance::start(&server, "three");
    send(&writer, 20).await;
    observer.has_everything(&writer).await;
    third.health.ready().await;
    // Nobody was there during a switch.
    third.stop().await;
    send(&writer, 5).await;
    for role in ["channel", "persister"] {
        for p in 0..layout.partitions {
            let last = LeaderReader::new(&nats, layout).bounds(p).await.unwrap().last;
            Positions::new(&KvBuckets::new(&nats, layout), role)
                .advance(p, Position { id: last, ts: 1 })
                .await
                .unwrap();
        }
    }
    let last = switch(&nats, &server.config(), &Times::default(), 2).await.unwrap();
    let writer = writer.follow(&nats, last);
    send(&writer, 20).await;
    let fourth = Instance::start(&server, "four");
    observer.has_everything(&writer).await;
    fourth.stop().await;
}
