use std::{collections::HashSet, time::Duration};

use futures_util::{Stream, StreamExt, future::join_all};
use natterjack_nats::{
    BucketRevision, Kv, KvBuckets, KvError, LeaseHolder, Position, Positions, WatchEvent, provision,
};
use natterjack_protocol::{
    MsgId, Times, Token,
    internal::kv::PublicKey,
    log::fold::{ThreadItem, UserThreads},
};
use natterjack_testkit::{NatsServer, edge_info, eventually, raw_jetstream, thread};
use tokio::time::timeout;

fn token(s: &str) -> Token {
    s.parse().unwrap()
}

#[tokio::test]
async fn compare_and_set_over_absent_deleted_and_expired_keys() {
    let (_s, nats, _) = NatsServer::ready().await;
    let control = Kv::new(&nats, "control".into());
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
    for kv in ["leases", "roles"].map(|bucket| Kv::new(&nats, bucket.into())) {
        let r = kv.cas("edge.x", "1".into(), 0).await.unwrap();
        eventually("expired", async || kv.get("edge.x").await.unwrap().is_none()).await;
        assert!(matches!(kv.cas("edge.x", "x".into(), r).await, Err(KvError::Conflict)));
        kv.cas("edge.x", "2".into(), 0).await.unwrap();
        assert_eq!(kv.get("edge.x").await.unwrap().unwrap().0, "2");
    }
    assert!(matches!(Kv::new(&nats, "nothing".into()).get("k").await, Err(KvError::NoBucket(_))));
}

/// A position that grows by one with each merge.
fn next_position(found: Option<Position>) -> Option<Position> {
    let id = found.map_or(0, |p| p.id.0) + 1;
    Some(Position { id: MsgId(id), ts: 0 })
}

#[tokio::test]
async fn of_many_who_create_one_does_and_no_merge_is_lost() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let key = KvBuckets::new(&nats, layout).role_lease("channel", 0);
    let holders: Vec<_> = (0..20).map(|i| LeaseHolder(format!("{i}"))).collect();
    let created = join_all(holders.iter().map(|holder| key.create(holder))).await;
    assert_eq!(created.iter().filter(|r| r.is_ok()).count(), 1);
    assert!(created.iter().all(|r| matches!(r, Ok(_) | Err(KvError::Conflict))), "{created:?}");

    let key = KvBuckets::new(&nats, layout).position("channel", 0);
    for merged in join_all((0..10).map(|_| key.merge(next_position))).await {
        merged.unwrap();
    }
    assert_eq!(key.load().await.unwrap().unwrap().id, MsgId(10));
    let far = Position { id: MsgId(100), ts: 1 };
    let near = Position { id: MsgId(99), ts: 2 };
    for merged in join_all([far, near].iter().map(|at| key.merge_max(at))).await {
        merged.unwrap();
    }
    assert_eq!(key.load().await.unwrap(), Some(far), "whoever was first");
}

/// As a session in its slot is: made anew where one was deleted or has expired, and ended only by whoever knows its
/// revision.
#[tokio::test]
async fn a_key_is_created_again_where_one_ended() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let key = KvBuckets::new(&nats, layout).edge(&token("e1"));
    let one = edge_info("one");
    let first = key.create(&one).await.unwrap();
    assert!(matches!(key.create(&edge_info("two")).await, Err(KvError::Conflict)));
    key.create_if_absent(&edge_info("two")).await.unwrap();
    assert_eq!(key.load_with_revision().await.unwrap(), Some((one.clone(), first)));
    let second = key.compare_and_set(&edge_info("two"), first).await.unwrap();
    assert!(matches!(key.delete_revision(first).await, Err(KvError::Conflict)), "it is another's by now");
    key.delete_revision(second).await.unwrap();
    assert_eq!(key.load().await.unwrap(), None);
    key.create(&one).await.unwrap();
    eventually("it expires", async || !key.exists().await.unwrap()).await;
    let last = key.create(&one).await.unwrap();
    assert!(last > second);
}

#[tokio::test]
async fn typed_state_and_positions() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let buckets = KvBuckets::new(&nats, layout);
    let uid = token("u1");
    let key = buckets.threads(&uid).root();
    assert!(key.load().await.unwrap().is_none() && !key.exists().await.unwrap());
    key.create_if_absent(&UserThreads::default()).await.unwrap();
    let (mut threads, revision) = key.load_with_revision().await.unwrap().unwrap();
    threads.merge(&thread("dm.a.u1"), ThreadItem { v: MsgId(7), ..ThreadItem::default() });
    key.compare_and_set(&threads, revision).await.unwrap();
    key.create_if_absent(&UserThreads::default()).await.unwrap();
    assert_eq!(key.load().await.unwrap(), Some(threads), "creating again takes nothing away");
    // A value that cannot be read is not "absent", and is not written over.
    let shard = Kv::new(&nats, format!("users-{}", layout.shard("u1")));
    shard.put("u1.threads.0", "rubbish".into()).await.unwrap();
    assert!(matches!(key.load().await, Err(KvError::Corrupt { .. })));
    assert!(matches!(key.merge(|_| Some(UserThreads::default())).await, Err(KvError::Corrupt { .. })));
    assert_eq!(key.size().await.unwrap(), Some("rubbish".len()));

    let positions = Positions::new(&buckets, "channel");
    assert_eq!(positions.load(0).await.unwrap(), None);
    let at = |id| Position { id: MsgId(id), ts: id };
    positions.advance(0, at(10)).await.unwrap();
    positions.advance(0, at(9)).await.unwrap();
    assert_eq!(positions.load(0).await.unwrap(), Some(at(10)));
    assert_eq!(positions.load(1).await.unwrap(), None);
    // One that is written again anyhow counts as absent.
    buckets.control().put(&format!("positions.channel.{}.0", layout.generation), "rubbish".into()).await.unwrap();
    assert_eq!(positions.load(0).await.unwrap(), None);
    positions.advance(0, at(3)).await.unwrap();
    assert_eq!(positions.load(0).await.unwrap(), Some(at(3)));
}

#[tokio::test]
async fn typed_keys_are_listed_and_watched_by_name_and_unreadable_ones_left_out() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let buckets = KvBuckets::new(&nats, layout);
    let keys = buckets.signing_keys();
    let value = |n| PublicKey { ed25519: vec![n; 32], until: u64::from(n) };
    keys.key("a").put(&value(1)).await.unwrap();
    buckets.signing_key(&token("b")).put(&value(2)).await.unwrap();
    buckets.control().put("keys.bad", "rubbish".into()).await.unwrap();
    assert_eq!(keys.list().await.unwrap(), [("a".to_owned(), value(1)), ("b".to_owned(), value(2))].into());

    let (mut changes, progress) = keys.watch_with_progress().await.unwrap();
    let mut change = async || {
        let c = timeout(Duration::from_secs(20), changes.next()).await.expect("an event in time").unwrap();
        (c.name, c.value)
    };
    assert_eq!([change().await, change().await], [("a".into(), Some(value(1))), ("b".into(), Some(value(2)))]);
    buckets.signing_key(&token("a")).delete().await.unwrap();
    assert_eq!(change().await, ("a".into(), None));
    assert_eq!(progress.seen(), progress.newest().await.unwrap());
    assert!(progress.seen() > 0);
}

async fn next(w: &mut (impl Stream<Item = WatchEvent> + Unpin)) -> (String, Option<String>) {
    let e = timeout(Duration::from_secs(20), w.next()).await.expect("an event in time").unwrap();
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
    assert!(timeout(Duration::from_secs(6), begun.as_mut()).await.is_err(), "gave up");
    s.launch();
    let mut w = timeout(Duration::from_secs(20), begun).await.expect("in time").unwrap();
    assert_eq!(w.next().await.unwrap().key, "keys.k");
}

/// An edge's lease expires: its watchers are told. A bucket is lost and made again: what it had is reported as gone.
#[tokio::test]
async fn a_watch_of_leases_is_told_of_expiry_and_loss() {
    let s = NatsServer::start();
    let nats = s.nats().await;
    let times = Times { edge_lease: Duration::from_secs(2), ..Times::default() };
    provision(&nats, &s.config(), &times).await.unwrap();
    let kv = Kv::new(&nats, "leases".into());
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

/// The watch of a bucket in which much changes.
#[tokio::test]
async fn a_gathered_watch_brings_what_stands_and_every_change_through_a_restart_and_a_loss() {
    const STAND: u8 = 120;
    let (mut s, nats, layout) = NatsServer::ready().await;
    let keys = KvBuckets::new(&nats, layout).signing_keys();
    let value = |n: u8| PublicKey { ed25519: vec![n; 32], until: u64::from(n) };
    join_all((0..STAND).map(async |n| keys.key(&format!("k{n}")).put(&value(n)).await.unwrap())).await;
    let (mut changes, progress) =
        keys.watch_gathered(Duration::from_millis(50), BucketRevision::default()).await.unwrap();
    let mut change = async || timeout(Duration::from_secs(20), changes.next()).await.expect("in time").unwrap();
    let mut names = HashSet::new();
    for _ in 0..STAND {
        names.insert(change().await.name);
    }
    assert_eq!(names.len(), usize::from(STAND));
    // One by one, and many at once.
    for n in 0..3 {
        keys.key("one").put(&value(n)).await.unwrap();
        assert_eq!(change().await.value, Some(value(n)));
    }
    keys.key("one").delete().await.unwrap();
    assert_eq!(change().await.value, None);
    join_all((0..STAND).map(async |n| keys.key(&format!("k{n}")).put(&value(n + 1)).await.unwrap())).await;
    for _ in 0..STAND {
        let c = change().await;
        assert_eq!(format!("k{}", c.value.unwrap().until - 1), c.name);
    }
    s.restart();
    eventually("written after the restart", async || keys.key("late").put(&value(1)).await.is_ok()).await;
    assert_eq!(change().await.name, "late");
    let made = progress.created_ms();
    raw_jetstream(&nats).await.delete_stream("KV_control").await.unwrap();
    provision(&nats, &s.config(), &Times::default()).await.unwrap();
    eventually("written into the new bucket", async || keys.key("new").put(&value(1)).await.is_ok()).await;
    assert_eq!(change().await.name, "new");
    assert_ne!(progress.created_ms(), made, "how its watcher sees that the bucket was lost");
}
