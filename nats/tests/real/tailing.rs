use natterjack_nats::{Layout, LeaderReader, Nats, Publisher};
use natterjack_protocol::{Most, MsgId, Thread, Times};
use natterjack_testkit::{NatsServer, thread, thread_in};

use crate::ids;

/// 30 entries of `t`, every fifth a control entry, among as many of another thread of its partition. Returns their ids.
async fn filled(nats: &Nats, layout: Layout, t: &Thread) -> Vec<MsgId> {
    let publisher = Publisher::new(nats, layout, Times::default());
    let p = layout.partition(t);
    let other = (0..).map(|i| thread(&format!("dm.a.z{i}"))).find(|o| layout.partition(o) == p && o != t).unwrap();
    let (mut all, mut control) = (Vec::new(), MsgId::NONE);
    for i in 0..30 {
        publisher.message(&other, &format!("o{i}"), "other".into()).await.unwrap();
        let body = format!("{i}").into();
        let id = if i % 5 == 0 {
            control = publisher.control(t, &format!("c{i}"), body, control).await.unwrap().id;
            control
        } else {
            publisher.message(t, &format!("m{i}"), body).await.unwrap().id
        };
        all.push(id);
    }
    all
}

#[tokio::test]
async fn pages_of_one_thread_in_one_order() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let t = thread_in(&layout, 1);
    let all = filled(&nats, layout, &t).await;
    let tail = LeaderReader::new(&nats, layout);
    let now = tail.bounds(1).await.unwrap().ts_ms;

    let got = tail.after(&t, MsgId::NONE, MsgId::MAX, Most::count(100)).await.unwrap();
    assert_eq!(ids(&got), all);
    assert!(
        got.iter().enumerate().all(|(i, r)| r.control == (i % 5 == 0) && r.payload == i.to_string() && r.thread == t)
    );
    assert!(got.windows(2).all(|w| w[0].ts <= w[1].ts) && got[0].ts.abs_diff(now) < 60_000);
    assert_eq!(ids(&tail.after(&t, all[9], all[14], Most::count(100)).await.unwrap()), all[10..=14]);
    assert_eq!(ids(&tail.after(&t, all[9], MsgId::MAX, Most::count(3)).await.unwrap()), all[10..13]);
    assert!(tail.after(&t, all[29], MsgId::MAX, Most::count(3)).await.unwrap().is_empty());

    assert_eq!(ids(&tail.newest(&t, MsgId::NONE, Most::count(7), now).await.unwrap()), all[23..]);
    assert_eq!(ids(&tail.newest(&t, all[26], Most::count(7), now).await.unwrap()), all[27..]);
    assert_eq!(ids(&tail.newest(&t, MsgId::NONE, Most::count(100), now).await.unwrap()), all);
    assert!(tail.newest(&t, all[29], Most::count(7), now).await.unwrap().is_empty());
    // A clock that is far ahead only makes the windows empty; the last probe and the leader find everything.
    assert_eq!(ids(&tail.newest(&t, MsgId::NONE, Most::count(4), now + (400 << 20)).await.unwrap()), all[26..]);
    assert!(tail.newest(&thread("dm.x.y"), MsgId::NONE, Most::count(7), now).await.unwrap().is_empty());
}

/// However large the entries of either subject are: in order, none left out, and no more than asked for.
#[tokio::test]
async fn pages_end_by_their_bytes() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let t = thread_in(&layout, 1);
    let (publisher, tail) = (Publisher::new(&nats, layout, Times::default()), LeaderReader::new(&nats, layout));
    let (mut all, mut control) = (Vec::new(), MsgId::NONE);
    for i in 0..60usize {
        // Of the control entries every second is large, of the messages every third.
        let (is_control, size) = (i % 4 == 0, if i % 8 == 0 || i % 3 == 0 { 48 << 10 } else { 10 });
        let body = vec![b'x'; size].into();
        let id = if is_control {
            control = publisher.control(&t, &format!("c{i}"), body, control).await.unwrap().id;
            control
        } else {
            publisher.message(&t, &format!("m{i}"), body).await.unwrap().id
        };
        all.push(id);
    }
    let now = tail.bounds(1).await.unwrap().ts_ms;
    for bytes in [1, 10_000, 50_000, 100_000, 300_000, 5_000_000] {
        let most = Most { count: 40, bytes };
        let (mut up, mut after) = (Vec::new(), MsgId::NONE);
        loop {
            let page = tail.after(&t, after, all[59], most).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.id;
            let (_, before) = page.split_last().unwrap();
            assert!(!most.full(before) && (most.full(&page) || after == all[59]), "{bytes}: {} of them", page.len());
            up.extend(ids(&page));
        }
        assert_eq!(up, all, "{bytes}");
        let newest = tail.newest(&t, MsgId::NONE, most, now).await.unwrap();
        assert_eq!(ids(&newest), all[60 - newest.len()..], "{bytes}");
        let (_, behind) = newest.split_first().unwrap();
        assert!(!most.full(behind) && most.full(&newest), "{bytes}: {} of them", newest.len());
    }
}

#[tokio::test]
async fn leader_reads_see_what_was_acknowledged() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let t = thread_in(&layout, 0);
    let tail = LeaderReader::new(&nats, layout);
    assert_eq!(tail.last(&t).await.unwrap(), None);
    assert_eq!(tail.last_control(&t).await.unwrap(), None);
    let all = filled(&nats, layout, &t).await;
    assert_eq!(tail.last(&t).await.unwrap().unwrap().id, all[29]);
    assert_eq!(tail.last_control(&t).await.unwrap().unwrap().id, all[25]);
    assert_eq!(tail.get(0, all[3]).await.unwrap().unwrap().payload, "3");
    assert_eq!(tail.get(0, MsgId(5)).await.unwrap(), None);
    let bounds = tail.bounds(0).await.unwrap();
    assert_eq!((bounds.last, bounds.entries, bounds.max_age), (all[29], 60, Times::default().log_max_age));
}

#[tokio::test]
async fn last_entries_of_many_threads_at_once() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let publisher = Publisher::new(&nats, layout, Times::default());
    let mut threads = Vec::new();
    let mut expected = Vec::new();
    for i in 0..1_300 {
        let t = thread(&format!("group.many{i}"));
        threads.push(t.clone());
        if i % 3 == 0 {
            expected.push(MsgId::NONE);
            continue;
        }
        let mut last = publisher.message(&t, &format!("a{i}"), "x".into()).await.unwrap().id;
        if i % 7 == 0 {
            last = publisher.control(&t, &format!("b{i}"), "x".into(), MsgId::NONE).await.unwrap().id;
        }
        expected.push(last);
    }
    threads.push(threads[1].clone());
    expected.push(expected[1]);
    let last = LeaderReader::new(&nats, layout).last_entries(&threads).await.unwrap();
    assert_eq!(last.iter().map(|e| e.id).collect::<Vec<_>>(), expected);
    assert!(last.iter().all(|e| e.id.is_none() == (e.ts == 0)));
    let newest = LeaderReader::new(&nats, layout).newest_of(&threads).await.unwrap();
    assert_eq!(newest.iter().map(|n| n.last.as_ref().map_or(MsgId::NONE, |r| r.id)).collect::<Vec<_>>(), expected);
    assert!(newest.iter().all(|n| n.certain), "the only server has everything");
    let controlled = |i: usize| i < 1_300 && !i.is_multiple_of(3) && i.is_multiple_of(7);
    assert!(newest.iter().enumerate().all(|(i, n)| n.control.is_none() != controlled(i)));
}

/// Whatever was acknowledged before the question is in the answer, however many ask at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_entries_are_never_behind_what_was_acknowledged() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let (publisher, reader) = (Publisher::new(&nats, layout, Times::default()), LeaderReader::new(&nats, layout));
    let asks = (0..20).map(|n| {
        let (publisher, reader) = (&publisher, &reader);
        async move {
            let t = thread(&format!("group.asks{n}"));
            for m in 0..30 {
                let id = publisher.message(&t, &format!("{n}.{m}"), "x".into()).await.unwrap().id;
                let newest = reader.newest_of(std::slice::from_ref(&t)).await.unwrap().remove(0);
                assert_eq!((newest.last.map(|r| r.id), newest.certain), (Some(id), true));
            }
        }
    });
    futures_util::future::join_all(asks).await;
}

/// More than one batch request can hold, by count and by bytes.
#[tokio::test]
async fn a_long_thread_comes_in_many_batches() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let t = thread_in(&layout, 0);
    let publisher = Publisher::new(&nats, layout, Times::default());
    let body = bytes::Bytes::from(vec![1u8; 20_000]);
    let mut all = Vec::new();
    for chunk in 0..25 {
        let one = |i: u32| {
            let (publisher, t, body) = (&publisher, &t, body.clone());
            async move { publisher.message(t, &format!("m{chunk}.{i}"), body).await.unwrap().id }
        };
        all.extend(futures_util::future::join_all((0..100).map(one)).await);
    }
    all.sort();
    let tail = LeaderReader::new(&nats, layout);
    let now = tail.bounds(0).await.unwrap().ts_ms;
    assert_eq!(ids(&tail.after(&t, MsgId::NONE, MsgId::MAX, Most::count(10_000)).await.unwrap()), all);
    assert_eq!(ids(&tail.newest(&t, MsgId::NONE, Most::count(50), now).await.unwrap()), all[2_450..]);
}
