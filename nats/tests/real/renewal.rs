//! A log that lost its end: ids that were ever given are not given again, whoever begins the new generation, and
//! however much is gone.

use std::time::Duration;

use natterjack_nats::{
    IdFloor, KvBuckets, Layout, LeaderReader, LogReader, NatsConfig, Position, Positions, ProvisionError, Publisher,
    ReadError, ReadFrom, ThreadLog, provision, renew, switch,
};
use natterjack_protocol::{Most, MsgId, Thread, Times};
use natterjack_testkit::{NatsServer, thread_in};

use crate::ids;

async fn write(nats: &natterjack_nats::Nats, layout: Layout, thread: &Thread, name: &str, many: usize) -> Vec<MsgId> {
    let publisher = Publisher::new(nats, layout, Times::default());
    let mut ids = Vec::new();
    for n in 0..many {
        ids.push(publisher.message(thread, &format!("{name}{n}"), vec![b'x'; 100].into()).await.unwrap().id);
    }
    ids
}

/// Both roles have read the former generation to its end.
async fn is_read(nats: &natterjack_nats::Nats, layout: Layout, next: Layout) {
    let origin = LeaderReader::new(nats, next).bounds(0).await.unwrap().origin;
    for p in 0..layout.partitions {
        let last = LeaderReader::new(nats, layout).bounds(p).await.unwrap().last;
        // The archive stands right below what follows when the mark of what may be lost is written.
        for (role, id) in [("channel", last), ("persister", MsgId(origin.0 - 1))] {
            Positions::new(&KvBuckets::new(nats, layout), role).advance(p, Position { id, ts: 1 }).await.unwrap();
        }
    }
}

/// A few bytes, some entries, all of it: the blocks are cut off behind what the server says it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_every_loss_the_next_id_is_above_all_that_were_given() {
    let mut s = NatsServer::start();
    let nats = s.nats().await;
    let cfg = NatsConfig { partitions: 1, ..s.config() };
    let mut layout = provision(&nats, &cfg, &Times::default()).await.unwrap();
    let thread = thread_in(&layout, 0);
    let (mut given, mut kept) = (Vec::new(), Vec::new());
    for (round, lost) in [1, 700, 2_000, 1 << 40].into_iter().enumerate() {
        let acked = write(&nats, layout, &thread, &format!("r{round}-"), 20).await;
        assert!(acked.first() > given.last(), "{round}: {acked:?}");
        let position = Position { id: *acked.last().unwrap(), ts: 1 };
        // Somebody who has read everything, and comes too late to find the loss.
        let mut reader = LogReader::new(&nats, layout, 0, ReadFrom::After(acked[0]));
        while reader.position() < position.id {
            reader.next_batch(64).await.unwrap();
        }
        given.extend(acked);
        s.kill();
        s.cut(&natterjack_nats::subjects::stream(layout.generation, 0), lost);
        s.launch();
        // As a role that had read it all finds it.
        let bounds = loop {
            if let Ok(bounds) = LeaderReader::new(&nats, layout).bounds(0).await {
                break bounds;
            }
        };
        assert!(bounds.last < position.id, "{round}: nothing was lost: {bounds:?}");
        let above = IdFloor { generation: layout.generation, id: position.id };
        let (a, b) = tokio::join!(renew(&nats, layout.generation, above), renew(&nats, layout.generation, above));
        let new = a.unwrap();
        assert_eq!(
            (b.unwrap(), new.generation, new.previous()),
            (new, layout.generation + 1, Some(Layout { former: None, ..layout }))
        );
        assert_eq!(
            provision(&nats, &cfg, &Times::default()).await.unwrap(),
            new,
            "it is as if it had been provisioned"
        );
        let closed = LeaderReader::new(&nats, layout).bounds(0).await.unwrap();
        assert!(closed.over, "{closed:?}");
        let read = tokio::time::timeout(Duration::from_secs(10), reader.next_batch(64))
            .await
            .expect("it is not waited for ever");
        assert!(matches!(read, Err(ReadError::LostEnd { .. })), "{round}: {read:?}");
        let log = ThreadLog::new(&nats, new);
        kept.extend(ids(&log
            .after(&thread, *given.get(round * 20).unwrap_or(&MsgId::NONE), MsgId::MAX, Most::count(100))
            .await
            .unwrap()));
        is_read(&nats, layout, new).await;
        layout = new;
    }
    assert!(!kept.is_empty() && kept.iter().all(|id| given.contains(id)), "what was kept has the ids it had");
    assert!(write(&nats, layout, &thread, "last", 1).await[0] > *given.last().unwrap());
}

/// The clock of this machine is no help: it may be behind. And an archive may know of generations that an older copy
/// has not heard of.
#[tokio::test]
async fn an_older_copy_goes_on_above_everything_the_archive_knows() {
    let (s, nats, old) = NatsServer::ready().await;
    let thread = thread_in(&old, 0);
    write(&nats, old, &thread, "m", 3).await;
    let above = IdFloor { generation: 5, id: MsgId(1 << 52) };
    let new = renew(&nats, old.generation, above).await.unwrap();
    assert_eq!((new.generation, new.partitions, new.previous()), (6, old.partitions, Some(old)));
    let next = write(&nats, new, &thread, "n", 1).await[0];
    assert!(next.0 - above.id.0 > 1 << 31, "also above what was given and never archived");
    assert_eq!(renew(&nats, old.generation, above).await.unwrap(), new, "whoever finds it a little later");
    // Whoever looks later still, when the archive has come to the new generation.
    assert_eq!(renew(&nats, old.generation, IdFloor { generation: 6, id: next }).await.unwrap(), new);
    assert!(
        matches!(renew(&nats, new.generation, above).await, Err(ProvisionError::Unread { generation: 1, .. })),
        "two generations are named, no more"
    );
    is_read(&nats, old, new).await;
    let third = renew(&nats, new.generation, IdFloor::default()).await.unwrap();
    assert_eq!((third.generation, third.previous().map(|l| l.generation)), (7, Some(6)));
    is_read(&nats, new, third).await;
    let fourth = switch(&nats, &s.config(), &Times::default(), 3).await.unwrap();
    assert_eq!((fourth.generation, fourth.partitions), (8, 3), "and the number of partitions may change as ever");
}

/// What is left of a stream may be nothing at all.
#[tokio::test]
async fn a_partition_whose_folder_is_gone_ends_all_the_same() {
    let (mut s, nats, old) = NatsServer::ready().await;
    let threads = [thread_in(&old, 0), thread_in(&old, 1)];
    let given = write(&nats, old, &threads[0], "a", 3).await;
    let kept = write(&nats, old, &threads[1], "b", 3).await;
    s.kill();
    std::fs::remove_dir_all(s.folder().join("jetstream/$G/streams").join(natterjack_nats::subjects::stream(1, 0)))
        .unwrap();
    s.launch();
    let nats = s.nats().await;
    let new = renew(&nats, 1, IdFloor { generation: 1, id: given[2] }).await.unwrap();
    let log = ThreadLog::new(&nats, new);
    for (n, thread) in threads.iter().enumerate() {
        let next = write(&nats, new, thread, "n", 1).await;
        assert!(next[0] > given[2].max(kept[2]));
        let all = ids(&log.after(thread, MsgId::NONE, MsgId::MAX, Most::count(10)).await.unwrap());
        assert_eq!(all, if n == 0 { next } else { [kept.clone(), next].concat() });
    }
}
