//! A new generation of the log while everything runs: what is in the old one, what is not, and in which order it all
//! happens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use natterjack_nats::{
    ClockMarks, KvBuckets, Layout, LeaderReader, LogReader, NatsConfig, Position, Positions, ProvisionError,
    PublishError, Publisher, ReadFrom, Record, ThreadLog, provision, subjects, switch,
};
use natterjack_protocol::{Most, MsgId, Thread, Times};
use natterjack_testkit::{NatsServer, eventually, raw_jetstream, thread, thread_in};

use crate::ids;

/// Gives up soon.
fn hasty() -> Times {
    Times { publish_deadline: Duration::from_millis(300), ..Times::default() }
}

/// Gives up when there is nobody, not when the machine is slow.
fn patient() -> Times {
    Times { publish_deadline: Duration::from_millis(1_500), ..Times::default() }
}

/// Everything up to the end mark, one partition after the other; the mark has to be the last.
async fn to_the_end(nats: &natterjack_nats::Nats, layout: Layout) -> Vec<(Thread, MsgId)> {
    let mut all = Vec::new();
    for p in 0..layout.partitions {
        let mut reader = LogReader::new(nats, layout, p, ReadFrom::After(MsgId::NONE));
        let last = LeaderReader::new(nats, layout).bounds(p).await.unwrap().last;
        let mut over = None;
        while reader.position() < last {
            for record in reader.next_batch(100).await.unwrap().records {
                assert_eq!(over, None, "something behind the end");
                match record {
                    Record::Entry(r) => all.push((r.thread, r.id)),
                    Record::End { id, .. } => over = Some(id),
                    Record::UnknownSubject { .. } => panic!("{record:?}"),
                }
            }
        }
        assert_eq!(over, Some(last), "the end mark is the last entry");
    }
    all
}

/// A clock that was set back is not known to streams that are made after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_streams_are_told_how_far_the_clock_has_been() {
    let (s, nats, old) = NatsServer::ready().await;
    let clocks = |layout| ClockMarks::new(&KvBuckets::new(&nats, layout));
    let group = thread("group.g");
    Publisher::new(&nats, old, patient()).message(&group, "m", "x".into()).await.unwrap();
    let stored = ThreadLog::new(&nats, old).last(&group).await.unwrap().unwrap();
    assert_eq!(clocks(old).of(0).await.unwrap(), 0);
    let new = switch(&nats, &s.config(), &Times::default(), 5).await.unwrap();
    let told = clocks(new).of(4).await.unwrap();
    assert!(
        told >= stored.ts && told <= LeaderReader::new(&nats, new).bounds(0).await.unwrap().ts_ms,
        "{told}, {stored:?}"
    );
    let ahead = told + 3_600_000;
    clocks(new).note(4, ahead).await.unwrap();
    clocks(new).note(4, ahead - 1).await.unwrap();
    for p in 0..old.partitions {
        Positions::new(&KvBuckets::new(&nats, old), "persister")
            .advance(p, Position { id: MsgId::MAX, ts: 0 })
            .await
            .unwrap();
        Positions::new(&KvBuckets::new(&nats, old), "channel")
            .advance(p, Position { id: MsgId::MAX, ts: 0 })
            .await
            .unwrap();
    }
    let newest = switch(&nats, &s.config(), &Times::default(), 3).await.unwrap();
    for p in 0..newest.partitions {
        assert_eq!(clocks(newest).of(p).await.unwrap(), ahead, "partition {p}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_during_a_switch_is_in_one_of_both_and_ids_only_rise() {
    let (s, nats, old) = NatsServer::ready().await;
    let threads: Vec<Thread> = (0..8).map(|n| thread(&format!("group.g{n}"))).collect();
    let stop = Arc::new(AtomicBool::new(false));
    // Of each writer: acknowledgements in the old generation, and in the new one.
    let progress: Arc<Vec<[AtomicUsize; 2]>> = Arc::new(threads.iter().map(|_| Default::default()).collect());
    let everybody = async |generation: usize, wrote: usize| {
        let what = format!("{wrote} acknowledgements for each writer");
        eventually(&what, async || progress.iter().all(|p| p[generation].load(Ordering::SeqCst) >= wrote)).await;
    };
    let writers: Vec<_> = threads
        .iter()
        .cloned()
        .enumerate()
        .map(|(w, t)| {
            let (nats, stop, progress) = (nats.clone(), stop.clone(), progress.clone());
            tokio::spawn(async move {
                let (mut layout, mut acked) = (old, Vec::new());
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    match Publisher::new(&nats, layout, patient()).message(&t, &format!("{t}-{n}"), "x".into()).await {
                        Ok(stored) => {
                            acked.push(stored.id);
                            progress[w][usize::from(layout != old)].fetch_add(1, Ordering::SeqCst);
                        }
                        // Without a responder: somebody else has to say how it goes on.
                        Err(PublishError::Deadline(_)) => layout = Layout::load(&nats).await.unwrap(),
                        Err(e) => panic!("{e}"),
                    }
                }
                (t, acked)
            })
        })
        .collect();
    everybody(0, 5).await;
    let new = switch(&nats, &s.config(), &Times::default(), 5).await.unwrap();
    assert_eq!((new.generation, new.partitions, new.previous()), (2, 5, Some(old)));
    assert_eq!(Layout::load(&nats).await.unwrap(), new);
    everybody(1, 20).await;
    stop.store(true, Ordering::SeqCst);
    let before = to_the_end(&nats, old).await;
    let highest = before.iter().map(|(_, id)| *id).max().unwrap();
    let log = ThreadLog::new(&nats, new);
    for writer in writers {
        let (t, acked) = writer.await.unwrap();
        assert!(acked.windows(2).all(|w| w[0] < w[1]), "{t}: {acked:?}");
        let stored = ids(&log.after(&t, MsgId::NONE, MsgId::MAX, Most::count(100_000)).await.unwrap());
        assert_eq!(stored, acked, "{t}");
        assert_eq!(before.iter().filter(|(of, _)| *of == t).count(), acked.iter().filter(|id| **id <= highest).count());
        assert!(acked.last() > Some(&highest), "{t} went on");
        // The same from every side.
        let last = log.last(&t).await.unwrap().unwrap();
        assert_eq!(Some(&last.id), acked.last());
        assert_eq!(log.last_entries(std::slice::from_ref(&t)).await.unwrap()[0].id, last.id);
        let n = acked.iter().filter(|id| **id > highest).count() + 3;
        let newest = log.newest(&t, MsgId::NONE, Most::count(n), log.bounds(&t).await.unwrap().ts_ms).await.unwrap();
        assert_eq!(ids(&newest), acked[acked.len() - n..]);
        let middle = acked[acked.len() / 2];
        assert_eq!(
            ids(&log.after(&t, middle, last.id, Most::count(10)).await.unwrap()),
            acked[acked.len() / 2 + 1..][..10.min(acked.len() - acked.len() / 2 - 1)]
        );
        let at = log.first_at(&t, log.extent(&t).await.unwrap().first, last.id, newest[0].ts).await.unwrap();
        assert!(
            at <= newest[0].id
                && log.after(&t, MsgId(at.0 - 1), last.id, Most::count(1)).await.unwrap()[0].ts >= newest[0].ts
        );
    }
}

#[tokio::test]
async fn an_old_generation_takes_nothing_and_gives_everything() {
    let (s, nats, old) = NatsServer::ready().await;
    let t = thread("dm.a.b");
    let publisher = Publisher::new(&nats, old, hasty());
    let said = publisher.message(&t, "m1", "x".into()).await.unwrap().id;
    let control = publisher.control(&t, "op1", "y".into(), MsgId::NONE).await.unwrap().id;
    let new = switch(&nats, &s.config(), &Times::default(), 3).await.unwrap();
    assert!(matches!(publisher.message(&t, "m2", "x".into()).await, Err(PublishError::Deadline(_))), "no responder");
    let bounds = LeaderReader::new(&nats, old).bounds(old.partition(&t)).await.unwrap();
    assert!(bounds.over && bounds.max_age == Times::default().log_max_age, "what is in it still expires");
    assert!(!LeaderReader::new(&nats, new).bounds(0).await.unwrap().over);
    let log = ThreadLog::new(&nats, new);
    assert_eq!(log.last(&t).await.unwrap().map(|r| r.id), Some(control));
    let (last, guard) = log.last_control(&t).await.unwrap();
    assert_eq!(
        (last.map(|r| r.id), guard),
        (Some(control), MsgId::NONE),
        "the next change is guarded by the stream it goes to"
    );
    assert_eq!(log.next_control(&t, said).await.unwrap().map(|r| r.id), Some(control));
    let publisher = Publisher::new(&nats, new, hasty());
    let next = publisher.control(&t, "op2", "z".into(), guard).await.unwrap().id;
    assert!(next > control);
    assert_eq!(log.last_control(&t).await.unwrap().1, next);
    assert_eq!(ids(&log.after(&t, MsgId::NONE, next, Most::count(10)).await.unwrap()), [said, control, next]);
    assert_eq!(ids(&log.newest(&t, said, Most::count(10), bounds.ts_ms).await.unwrap()), [control, next]);
    let extent = log.extent(&t).await.unwrap();
    assert_eq!(
        (extent.first, extent.last),
        (said, LeaderReader::new(&nats, new).bounds(new.partition(&t)).await.unwrap().last)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_be_repeated_and_two_at_once_are_one() {
    let (s, nats, old) = NatsServer::ready().await;
    let (cfg, times) = (s.config(), Times::default());
    let (a, b) = tokio::join!(switch(&nats, &cfg, &times, 4), switch(&nats, &cfg, &times, 4));
    let new = a.unwrap();
    assert_eq!((b.unwrap(), new.generation, new.previous()), (new, 2, Some(old)));
    assert_eq!(switch(&nats, &cfg, &times, 4).await.unwrap(), new, "nothing to do");
    // With another number in the configuration, as after a restart of everything.
    assert_eq!(provision(&nats, &cfg, &times).await.unwrap(), new);
    to_the_end(&nats, old).await;
}

/// Whoever began it died; the next one to provision goes through with it.
#[tokio::test]
async fn what_was_begun_is_finished() {
    let (s, nats, old) = NatsServer::ready().await;
    let js = raw_jetstream(&nats).await;
    // After the first step, and with one of the old streams closed.
    let kv = js.get_key_value("control").await.unwrap();
    let wanted = serde_json::json!({ "partitions": 3, "max_bytes": 64 << 20 });
    let next = serde_json::json!([1, { "generation": 1, "partitions": 2, "kv_shards": 2, "next": wanted }]);
    kv.put("generation", rmp_serde::to_vec_named(&next).unwrap().into()).await.unwrap();
    let mut stream = js.get_stream(subjects::stream(1, 0)).await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.subjects = vec![subjects::end(1, 0)];
    js.update_stream(config).await.unwrap();
    let new = provision(&nats, &s.config(), &Times::default()).await.unwrap();
    assert_eq!((new.generation, new.partitions, new.previous(), new.next), (2, 3, Some(old), None));
    to_the_end(&nats, old).await;
    Publisher::new(&nats, new, hasty()).message(&thread("dm.a.b"), "m", "x".into()).await.unwrap();
}

#[tokio::test]
async fn a_further_switch_waits_until_the_former_generation_is_read_to_its_end() {
    let (s, nats, old) = NatsServer::ready().await;
    let (cfg, times) = (s.config(), Times::default());
    let t = thread_in(&old, 1);
    Publisher::new(&nats, old, hasty()).message(&t, "m1", "x".into()).await.unwrap();
    let second = switch(&nats, &cfg, &times, 3).await.unwrap();
    let refused = switch(&nats, &cfg, &times, 2).await.unwrap_err();
    assert!(matches!(refused, ProvisionError::Unread { generation: 1, .. }), "{refused}");
    assert_eq!(Layout::load(&nats).await.unwrap(), second);
    for p in 0..old.partitions {
        let last = LeaderReader::new(&nats, old).bounds(p).await.unwrap().last;
        for role in ["channel", "persister"] {
            assert!(switch(&nats, &cfg, &times, 2).await.is_err());
            Positions::new(&KvBuckets::new(&nats, old), role).advance(p, Position { id: last, ts: 1 }).await.unwrap();
        }
    }
    let third = switch(&nats, &cfg, &times, 2).await.unwrap();
    assert_eq!((third.generation, third.partitions, third.previous().map(|l| l.generation)), (3, 2, Some(2)));
}

/// A full log is a reason for a switch, not one against it. What the old streams had reserved and do not need is free
/// for the new ones.
#[tokio::test]
async fn a_full_log_can_be_switched() {
    let s = NatsServer::start_with("");
    let nats = s.nats().await;
    let cfg = NatsConfig { partitions: 1, default_max_bytes: Some(128 << 20), ..s.config() };
    let old = provision(&nats, &cfg, &Times::default()).await.unwrap();
    let js = raw_jetstream(&nats).await;
    let t = thread("dm.a.b");
    let publisher = Publisher::new(&nats, old, hasty());
    publisher.message(&t, "m", vec![0; 10_000].into()).await.unwrap();
    // Full is what it says it is.
    let mut stream = js.get_stream(subjects::stream(1, 0)).await.unwrap();
    let config = stream.info().await.unwrap().config.clone();
    js.update_stream(async_nats::jetstream::stream::Config { max_bytes: 11_000, ..config }).await.unwrap();
    assert!(matches!(publisher.message(&t, "n", vec![0; 10_000].into()).await, Err(PublishError::StreamFull)));
    let new = switch(&nats, &NatsConfig { max_bytes: Some(100 << 20), ..cfg }, &Times::default(), 2).await.unwrap();
    Publisher::new(&nats, new, hasty()).message(&t, "n", vec![0; 10_000].into()).await.unwrap();
    assert_eq!(to_the_end(&nats, old).await.len(), 1);
    let kept = stream.info().await.unwrap().config.max_bytes;
    assert!(kept < 32 << 20, "{kept}");
}
