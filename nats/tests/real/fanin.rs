use std::time::Duration;

use natterjack_nats::{FanIn, FanInEvent, LiveKind, NatsConfig, NatsConnectError, SubscriptionSlot, serve};
use natterjack_testkit::NatsServer;

/// Events until `n` of those that `pick` maps.
pub async fn collect<T>(f: &mut FanIn, n: usize, mut pick: impl FnMut(FanInEvent) -> Option<T>) -> Vec<T> {
    let (mut got, mut batch) = (Vec::new(), Vec::new());
    while got.len() < n {
        tokio::time::timeout(Duration::from_secs(20), f.next_batch(&mut batch)).await.expect("an event in time");
        got.extend(batch.drain(..).filter_map(&mut pick));
    }
    got
}

/// The sizes of so many messages, each byte of which is its place.
pub async fn sizes_of_whole(f: &mut FanIn, n: usize) -> Vec<usize> {
    collect(f, n, |e| match e {
        FanInEvent::Msg { payload, .. } => {
            assert!(payload.iter().enumerate().all(|(i, b)| *b == i as u8));
            Some(payload.len())
        }
        other => panic!("{other:?}"),
    })
    .await
}

pub async fn connected(f: &mut FanIn) -> u64 {
    collect(f, 1, |e| if let FanInEvent::Connected { epoch } = e { Some(epoch) } else { None }).await[0]
}

pub fn message(e: FanInEvent) -> Option<(u32, LiveKind, String)> {
    match e {
        FanInEvent::Msg { slot, kind, payload } => Some((slot.0, kind, String::from_utf8(payload.to_vec()).unwrap())),
        _ => None,
    }
}

#[tokio::test]
async fn messages_come_to_their_slots_and_stop_when_unsubscribed() {
    let (s, nats, _) = NatsServer::ready().await;
    let mut f = FanIn::connect(&s.config(), "edge").await.unwrap();
    f.subscribe("live.user.a.*", SubscriptionSlot(3));
    f.subscribe("live.group.g.*", SubscriptionSlot(0));
    f.subscribe("beat.*", SubscriptionSlot(1));
    assert_eq!(connected(&mut f).await, 1);
    for (subject, body) in [("live.user.a.e", "1"), ("live.group.g.x", "2"), ("beat.0", "3"), ("live.user.b.e", "no")] {
        nats.publish(subject, body.into()).await.unwrap();
    }
    let got = collect(&mut f, 3, message).await;
    assert_eq!(
        got,
        [(3, LiveKind::Event, "1".into()), (0, LiveKind::Ephemeral, "2".into()), (1, LiveKind::Other, "3".into())]
    );

    // The slot goes to another subject; what its former subject still sends is not the new one's.
    f.subscribe("live.user.c.*", SubscriptionSlot(3));
    f.publish("live.user.a.e", b"former");
    f.publish("live.user.c.e", b"new");
    assert_eq!(collect(&mut f, 1, message).await, [(3, LiveKind::Event, "new".into())]);
    f.unsubscribe(SubscriptionSlot(0));
    f.publish("live.group.g.e", b"unheard");
    f.publish("live.user.c.x", b"last");
    assert_eq!(collect(&mut f, 1, message).await, [(3, LiveKind::Ephemeral, "last".into())]);
    assert_eq!(f.subscriptions(), 2);
}

/// The answer to a request comes behind everything the answerer published before it, to subscriptions made before the
/// request.
#[tokio::test]
async fn a_request_is_a_barrier() {
    let (s, nats, _) = NatsServer::ready().await;
    let publishing = nats.clone();
    let _service = serve(&nats, "svc.channel.heads.0".into(), None, 8, move |n: u32| {
        let nats = publishing.clone();
        async move {
            nats.publish(format!("live.user.u{n}.e"), "before".into()).await.unwrap();
            Ok(n)
        }
    })
    .await
    .unwrap();
    nats.flush_barrier().await.unwrap();
    let mut f = FanIn::connect(&s.config(), "edge").await.unwrap();
    connected(&mut f).await;
    for n in 0..50u32 {
        f.subscribe(&format!("live.user.u{n}.*"), SubscriptionSlot(n));
        let token = f.request("svc.channel.heads.0", &rmp_serde::to_vec(&n).unwrap());
        let events = collect(&mut f, 2, Some).await;
        assert!(matches!(&events[0], FanInEvent::Msg { slot, .. } if *slot == SubscriptionSlot(n)), "{events:?}");
        assert!(
            matches!(&events[1], FanInEvent::Reply { token: t, no_responders: false, .. } if *t == token),
            "{events:?}"
        );
    }
    let token = f.request("svc.channel.heads.7", b"");
    let events = collect(&mut f, 1, Some).await;
    assert!(matches!(&events[0], FanInEvent::Reply { token: t, no_responders: true, .. } if *t == token), "{events:?}");
}

#[tokio::test]
async fn every_subscription_is_back_before_connected_is_said() {
    let (mut s, nats, _) = NatsServer::ready().await;
    let mut f = FanIn::connect(&s.config(), "edge").await.unwrap();
    const N: u32 = 20_000;
    for n in 0..N {
        f.subscribe(&format!("live.user.u{n}.*"), SubscriptionSlot(n));
    }
    assert_eq!(connected(&mut f).await, 1);
    for round in 2..=3 {
        s.kill();
        collect(&mut f, 1, |e| matches!(e, FanInEvent::Disconnected).then_some(())).await;
        // Without a connection a request is answered at once, a subscription is remembered.
        let token = f.request("svc.none", b"");
        f.subscribe(&format!("live.group.g{round}.*"), SubscriptionSlot(N + round));
        let first = collect(&mut f, 1, Some).await;
        assert!(
            matches!(&first[0], FanInEvent::Reply { token: t, no_responders: true, .. } if *t == token),
            "{first:?}"
        );
        // A caller that cancels all the time gets its connection nevertheless.
        s.launch();
        let mut batch = Vec::new();
        let epoch = loop {
            let _ = tokio::time::timeout(Duration::from_millis(5), f.next_batch(&mut batch)).await;
            if let Some(FanInEvent::Connected { epoch }) =
                batch.drain(..).find(|e| matches!(e, FanInEvent::Connected { .. }))
            {
                break epoch;
            }
        };
        assert_eq!(epoch, u64::from(round));
        natterjack_testkit::eventually("the publisher is back too", async || nats.flush_barrier().await.is_ok()).await;
        for n in [0, 1, N / 2, N - 1] {
            nats.publish(format!("live.user.u{n}.e"), n.to_string().into()).await.unwrap();
        }
        nats.publish(format!("live.group.g{round}.e"), "g".into()).await.unwrap();
        let got: Vec<u32> = collect(&mut f, 5, message).await.into_iter().map(|m| m.0).collect();
        assert_eq!(got, [0, 1, N / 2, N - 1, N + round]);
    }
}

/// More than any buffer holds, in sizes from nothing to 300 KB: nothing is dropped, nothing out of order.
#[tokio::test]
async fn a_flood_arrives_whole() {
    let (s, nats, _) = NatsServer::ready().await;
    let mut f = FanIn::connect(&s.config(), "edge").await.unwrap();
    f.subscribe("live.user.a.e", SubscriptionSlot(9));
    connected(&mut f).await;
    const N: usize = 100_000;
    let size = |i: usize| if i.is_multiple_of(2_000) { 300_000 } else { i % 300 };
    let writer = tokio::spawn(async move {
        let big = bytes::Bytes::from((0..300_000usize).map(|i| i as u8).collect::<Vec<_>>());
        for i in 0..N {
            nats.publish("live.user.a.e", big.slice(..size(i))).await.unwrap();
        }
        nats.flush_barrier().await.unwrap();
    });
    let lengths = sizes_of_whole(&mut f, N).await;
    assert!(lengths.iter().enumerate().all(|(i, l)| *l == size(i)));
    writer.await.unwrap();
}

/// A server that is stopped, not closed: noticed by its silence.
#[tokio::test]
async fn a_frozen_server_is_noticed_and_another_is_taken() {
    let (a, b) = (NatsServer::start(), NatsServer::start());
    let _ready = (a.nats().await, b.nats().await);
    let cfg = NatsConfig { urls: vec![a.config().urls[0].clone(), b.config().urls[0].clone()], ..a.config() };
    let mut f = FanIn::connect(&cfg, "edge").await.unwrap();
    f.subscribe("live.user.a.e", SubscriptionSlot(0));
    connected(&mut f).await;
    a.freeze();
    let seen = collect(&mut f, 2, |e| match e {
        FanInEvent::Disconnected => Some(0),
        FanInEvent::Connected { epoch } => Some(epoch),
        _ => None,
    })
    .await;
    assert_eq!(seen, [0, 2]);
    f.publish("live.user.a.e", b"here");
    assert_eq!(collect(&mut f, 1, message).await, [(0, LiveKind::Event, "here".into())]);
}

#[tokio::test]
async fn what_it_cannot_speak_or_reach_is_said() {
    let web = NatsConfig { urls: vec!["ws://127.0.0.1:1".into()], ..NatsConfig::default() };
    assert!(matches!(FanIn::connect(&web, "edge").await, Err(NatsConnectError::Config(_))));
    let nobody =
        NatsConfig { urls: vec!["nats://127.0.0.1:1".into()], connect_deadline_ms: 300, ..NatsConfig::default() };
    assert!(matches!(FanIn::connect(&nobody, "edge").await, Err(NatsConnectError::Unreachable { .. })));
}
