use std::time::Duration;

use futures_util::{Stream, StreamExt};
use natterjack_nats::{Kv, KvBuckets, KvError, Position, Positions, WatchEvent, provision};
use natterjack_protocol::{MsgId, Times, Token};
use natterjack_testkit::{NatsServer, eventually, raw_jetstream, thread};

#[tokio::test]
async fn compare_and_set_over_absent_deleted_and_expired_keys() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let buckets = KvBuckets::new(&nats, layout);
    let control = buckets.control();
    assert_eq!(control.get("k").await.unwrap(), None);
    let r1 = control.cas("k", "1".into(), 0).await.unwrap();
    assert!(matches!(control.cas("k", "x".into(), 0).await, Err(KvError::Conflict)));
    let r2 = control.cas("k", "2".into(), r1).await.unwrap();
    assert!(matches!(control.cas("k", "x".into(), r1).await, Err(KvError::Conflict)));
    assert_eq!(control.get("k").await.unwrap(), Some(("2".into(), r2)));
    control.delete("k").await.unwrap();
    assert_eq!(control.get("k").await.unwrap(), None);
    assert!(matches!(control.cas("k", "x".into(), r2).await, Err(KvError::Conflict)), "deleted since");
    let r3 = control.cas("k", "3".into(), 0).await.unwrap();
    assert!(r3 > r2);
    assert!(matches!(control.delete_revision("k", r2).await, Err(KvError::Conflict)));
    control.delete_revision("k", r3).await.unwrap();

    // Expired with a marker (leases) and without one (roles).
    for kv in [buckets.leases(), buckets.roles()] {
        let r = kv.cas("edge.x", "1".into(), 0).await.unwrap();
        eventually("expired", async || kv.get("edge.x").await.unwrap().is_none()).await;
        assert!(matches!(kv.cas("edge.x", "x".into(), r).await, Err(KvError::Conflict)));
        kv.cas("edge.x", "2".into(), 0).await.unwrap();
        assert_eq!(kv.get("edge.x").await.unwrap().unwrap().0, "2");
    }
    assert!(matches!(Kv::new(&nats, "nothing".into()).get("k").await, Err(KvError::NoBucket(_))));
}

#[tokio::test]
async fn of_many_who_create_one_does_and_no_update_is_lost() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let kv = KvBuckets::new(&nats, layout).control();
    let created = futures_util::future::join_all((0..20).map(|i| kv.cas("one", format!("{i}").into(), 0))).await;
    assert_eq!(created.iter().filter(|r| r.is_ok()).count(), 1);
    let add = || {
        kv.update("sum", |old| {
            let n: u32 = old.map_or(0, |v| std::str::from_utf8(v).unwrap().parse().unwrap());
            Some((n + 1).to_string().into())
        })
    };
    for r in futures_util::future::join_all((0..10).map(|_| add())).await {
        r.unwrap();
    }
    assert_eq!(kv.get("sum").await.unwrap().unwrap().0, "10");
}

#[tokio::test]
async fn typed_state_and_positions() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let buckets = KvBuckets::new(&nats, layout);
    let uid = Token::parse("u1").unwrap();
    assert!(buckets.load_threads(&uid).await.unwrap().is_none());
    assert!(!buckets.user_exists(&uid).await.unwrap());
    buckets.create_empty_threads(&uid).await.unwrap();
    let (mut threads, revision) = buckets.load_threads(&uid).await.unwrap().unwrap();
    threads.merge(&thread("dm.a.u1"), natterjack_protocol::log::fold::ThreadItem { v: MsgId(7), ..Default::default() });
    buckets.cas_threads(&uid, &threads, revision).await.unwrap();
    buckets.create_empty_threads(&uid).await.unwrap();
    assert_eq!(buckets.load_threads(&uid).await.unwrap().unwrap().0, threads, "creating again takes nothing away");
    assert!(buckets.user_exists(&uid).await.unwrap());
    // A value that cannot be read is not "absent".
    buckets.users(&uid).put("u1.threads", "rubbish".into()).await.unwrap();
    assert!(buckets.load_threads(&uid).await.is_err());

    let positions = Positions::new(&buckets, "channel");
    assert_eq!(positions.load(0).await.unwrap(), None);
    let at = |id| Position { id: MsgId(id), ts: id };
    positions.advance(0, at(10)).await.unwrap();
    positions.advance(0, at(9)).await.unwrap();
    assert_eq!(positions.load(0).await.unwrap(), Some(at(10)));
    assert_eq!(positions.load(1).await.unwrap(), None);
}

async fn next(w: &mut (impl Stream<Item = WatchEvent> + Unpin)) -> (String, Option<String>) {
    let e = tokio::time::timeout(Duration::from_secs(20), w.next()).await.expect("an event in time").unwrap();
    (e.key, e.value.map(|v| String::from_utf8(v.to_vec()).unwrap()))
}

fn ev(key: &str, value: Option<&str>) -> (String, Option<String>) {
    (key.into(), value.map(Into::into))
}

#[tokio::test]
async fn a_watch_gives_what_stands_then_changes_through_a_restart() {
    let (mut s, nats, layout) = NatsServer::ready().await;
    let kv = KvBuckets::new(&nats, layout).control();
    kv.put("keys.a", "1".into()).await.unwrap();
    kv.put("keys.b", "1".into()).await.unwrap();
    kv.put("keys.a", "2".into()).await.unwrap();
    kv.put("other", "x".into()).await.unwrap();
    let mut w = kv.watch("keys.*").await.unwrap();
    assert_eq!([next(&mut w).await, next(&mut w).await], [ev("keys.b", Some("1")), ev("keys.a", Some("2"))]);
    kv.delete("keys.b").await.unwrap();
    assert_eq!(next(&mut w).await, ev("keys.b", None));
    s.restart();
    eventually("written after the restart", async || kv.put("keys.c", "3".into()).await.is_ok()).await;
    assert_eq!(next(&mut w).await, ev("keys.c", Some("3")));
}

/// An edge that begins while a server is away would otherwise end.
#[tokio::test]
async fn a_watch_begun_in_an_outage_waits_for_its_end() {
    let (mut s, nats, layout) = NatsServer::ready().await;
    let kv = KvBuckets::new(&nats, layout).control();
    kv.put("keys.k", "1".into()).await.unwrap();
    s.kill();
    let mut begun = std::pin::pin!(kv.watch("keys.*"));
    // Longer than a question to a server takes to give up.
    assert!(tokio::time::timeout(Duration::from_secs(6), begun.as_mut()).await.is_err(), "gave up");
    s.launch();
    let mut w = tokio::time::timeout(Duration::from_secs(20), begun).await.expect("in time").unwrap();
    assert_eq!(w.next().await.unwrap().key, "keys.k");
}

/// An edge's lease expires: its watchers are told. A bucket is lost and made again: what it had is reported as gone.
#[tokio::test]
async fn a_watch_of_leases_is_told_of_expiry_and_loss() {
    let s = NatsServer::start();
    let nats = s.nats().await;
    let times = Times { edge_lease: Duration::from_secs(2), ..Times::default() };
    let layout = provision(&nats, &s.config(), &times).await.unwrap();
    let kv = KvBuckets::new(&nats, layout).leases();
    let mut w = kv.watch("edge.*").await.unwrap();
    kv.put("edge.a", "1".into()).await.unwrap();
    assert_eq!(next(&mut w).await, ev("edge.a", Some("1")));
    assert_eq!(next(&mut w).await, ev("edge.a", None), "expired");
    kv.put("edge.b", "1".into()).await.unwrap();
    assert_eq!(next(&mut w).await, ev("edge.b", Some("1")));
    raw_jetstream(&nats).await.delete_stream("KV_leases").await.unwrap();
    provision(&nats, &s.config(), &times).await.unwrap();
    assert_eq!(next(&mut w).await, ev("edge.b", None), "gone with its bucket");
    eventually("written after the restart", async || kv.put("edge.c", "1".into()).await.is_ok()).await;
    assert_eq!(next(&mut w).await, ev("edge.c", Some("1")));
}
