//! A value that grows beyond one key, written by many at once.

use std::time::Duration;

use futures_util::future::join_all;
use natterjack_nats::{Kv, KvBuckets, KvError, KvTree, TreeChange};
use natterjack_protocol::{
    MsgId, Thread, Token,
    internal::cursors::UserCursors,
    log::fold::{ThreadItem, UserThreads},
};
use natterjack_testkit::NatsServer;

fn thread(n: usize) -> Thread {
    Thread::group(&format!("g{n:060}").parse::<Token>().unwrap())
}

fn item(v: u64) -> ThreadItem {
    ThreadItem { v: MsgId(v), ..ThreadItem::default() }
}

fn threads(of: std::ops::Range<usize>) -> UserThreads {
    of.map(|n| (thread(n), item(7))).collect()
}

/// As `channel` does it: again after a conflict.
async fn add(tree: &KvTree<UserThreads>, n: usize, v: u64) {
    loop {
        let change = vec![(thread(n).hash64(), (thread(n), item(v)))];
        let apply = |part: &mut UserThreads, all: &[(u64, (Thread, ThreadItem))]| {
            all.iter().fold(false, |new, (_, (thread, item))| part.merge(thread, item.clone()) | new)
        };
        match tree.change(None, change, apply).await {
            Ok(TreeChange::Done { .. }) => return,
            Ok(TreeChange::Lost) => panic!("a part is lost"),
            // Many who come at once come at different times.
            Err(KvError::Conflict) => tokio::time::sleep(Duration::from_millis(rand::random_range(0..5))).await,
            Err(e) => panic!("{e}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_a_key_is_cut() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let tree = KvBuckets::new(&nats, layout).threads(&"u1".parse().unwrap());
    assert!(tree.load().await.unwrap().is_none() && tree.load_part(7).await.unwrap().is_none());
    tree.create_if_absent(&UserThreads::default()).await.unwrap();
    assert!(matches!(tree.change(None, vec![(5, ())], |_, _| true).await, Ok(TreeChange::Done { whole: Some(_) })));
    // Twenty at once, of which the first ones fit and the others cut.
    for round in 0..70 {
        let added = (0..20).map(|n| add(&tree, round * 20 + n, 7));
        let read = async {
            let all = tree.load().await.unwrap().expect("whole at any moment");
            assert!(all.threads.len() >= round * 20, "{} of {}", all.threads.len(), round * 20);
        };
        tokio::join!(join_all(added), read);
    }
    let all = tree.load().await.unwrap().unwrap();
    assert_eq!(all.threads, threads(0..1_400).threads);
    let (part, parts) = tree.load_part(thread(5).hash64()).await.unwrap().unwrap();
    assert!(part.threads.contains_key(&thread(5)) && parts == 16, "{parts}");
    add(&tree, 5, 9).await;
    add(&tree, 5, 8).await;
    assert_eq!(tree.load().await.unwrap().unwrap().threads[&thread(5)], item(9));
}

/// A part that is lost is told from one that is empty, and comes back with what is merged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_was_lost_is_seen_and_comes_back() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let buckets = KvBuckets::new(&nats, layout);
    let tree = buckets.threads(&"u1".parse().unwrap());
    // Far too much for one key: cut at once, twice.
    tree.merge(threads(0..20_000)).await.unwrap();
    assert_eq!(tree.load().await.unwrap().unwrap().threads.len(), 20_000);
    let (_, parts) = tree.load_part(thread(1).hash64()).await.unwrap().unwrap();
    assert_eq!(parts, 256);
    let users = Kv::new(&nats, format!("users-{}", layout.shard("u1")));
    let hash = thread(1).hash64();
    users.delete(&format!("u1.threads.0{:x}{:x}", hash >> 60, hash >> 56 & 15)).await.unwrap();
    assert!(tree.load().await.unwrap().is_none() && tree.load_part(hash).await.unwrap().is_none());
    let change = vec![(hash, ())];
    assert!(matches!(tree.change(None, change, |_, _| true).await, Ok(TreeChange::Lost)));
    tree.merge(threads(0..20_000)).await.unwrap();
    assert_eq!(tree.load().await.unwrap().unwrap().threads.len(), 20_000);
    tree.delete().await.unwrap();
    assert!(!tree.exists().await.unwrap());
    assert!(tree.load_part(hash).await.unwrap().is_none() && users.get("u1.threads.00").await.unwrap().is_none());
}

/// What an edge remembers of a key saves a reading, and costs nothing but one when somebody else was faster.
#[tokio::test]
async fn a_change_may_begin_from_what_was_known() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let tree = KvBuckets::new(&nats, layout).cursors(&"u1".parse().unwrap());
    tree.create_if_absent(&UserCursors::default()).await.unwrap();
    let read = |id: u64| {
        move |part: &mut UserCursors, _: &[(u64, ())]| {
            part.add_read(&thread(1), MsgId(id), 1);
            true
        }
    };
    let change = || vec![(thread(1).hash64(), ())];
    let Ok(TreeChange::Done { whole }) = tree.change(None, change(), read(5)).await else { panic!("not written") };
    let stale = whole.clone();
    let Ok(TreeChange::Done { whole: Some((stands, _)) }) = tree.change(whole, change(), read(6)).await else {
        panic!("not written")
    };
    assert_eq!(stands.read(&thread(1)), MsgId(6));
    assert!(matches!(tree.change(stale, change(), read(9)).await, Err(KvError::Conflict)));
    assert_eq!(tree.load().await.unwrap().unwrap().read(&thread(1)), MsgId(6));
}
