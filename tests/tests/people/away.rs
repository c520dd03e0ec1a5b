//! What happened to a user's own memberships while a device was away: told when it comes back, the same to sockets and
//! to polls. And what is not told: that somebody blocks them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use natterjack_client::{ClientEvent, OutboxStore};
use natterjack_protocol::{
    Code, Kind, MsgId, Thread,
    client::frame::{ClientFrame, Hello, ServerFrame},
    codec::Codec,
    log::Role,
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::paging::whole;
use natterjack_tests::kit::{Cluster, ClusterSpec, Poller, RawWs, User, next_event};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::common::{SOON, add, all_well, good, kinds, new_group, remove, role, seen_until};

/// A membership as a device is told: may write, role, intervals.
type Told = BTreeMap<Thread, (bool, Option<Role>, usize)>;

fn told<'a>(frames: impl IntoIterator<Item = &'a ServerFrame>) -> Told {
    let member = |f: &ServerFrame| match f {
        ServerFrame::Member { thread, open, role, intervals, .. } => {
            Some((thread.clone(), (*open, *role, intervals.0.len())))
        }
        _ => None,
    };
    frames.into_iter().filter_map(member).collect()
}

/// What comes between `hello` and `attached`.
async fn attach(
    cluster: &Cluster,
    user: &User,
    codec: Codec,
    cursors: BTreeMap<Thread, MsgId>,
    synced: Option<String>,
) -> Vec<ServerFrame> {
    let mut ws = RawWs::connect(cluster.edge_addr(0), codec).await;
    let (token, device) = (user.tokens.access.clone(), user.tokens.device.clone());
    ws.send(&ClientFrame::Hello(Hello { cursors, synced, ..Hello::new(token, device) })).await;
    let mut frames = Vec::new();
    ws.until("attached", |f| {
        let over = matches!(f, ServerFrame::Attached { .. });
        frames.push(f);
        over.then_some(())
    })
    .await;
    frames
}

async fn block(cluster: &Cluster, who: &User, whom: &User, on: bool) {
    let (api, path) = (cluster.api(who, 1), format!("/v1/blocks/{}", whom.id()));
    good(if on { api.put(&path, &json!({})).await } else { api.delete(&path).await });
}

/// Polls until there is nothing more.
async fn in_sync(cluster: &Cluster, user: &User) -> Poller {
    let mut poller = Poller::new(cluster, user, [1]);
    eventually_within("nothing is new", SOON, async || {
        let answer = poller.poll(0).await?;
        answer["frames"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    poller
}

/// What each kind of device is told that was in sync at `before`: they all hear the same. `left`: told each time
/// without `synced`.
async fn told_to_all(cluster: &Cluster, user: &User, before: &Poller, left: Option<&Thread>) -> Told {
    let (cursors, synced) = (before.cursors.clone(), before.synced.clone());
    let by_socket = told(&attach(cluster, user, Codec::Json, cursors.clone(), synced.clone()).await);
    let mut without_synced = told(&attach(cluster, user, Codec::Msgpack, cursors.clone(), None).await);
    let with_left = without_synced.clone();
    assert!(left.is_none_or(|left| without_synced.remove(left).is_some_and(|(open, ..)| !open)));
    assert_eq!(by_socket, without_synced, "by the cursors alone");
    for (synced, want) in [(synced, &by_socket), (None, &with_left)] {
        let mut poller = Poller::new(cluster, user, [0]);
        (poller.cursors, poller.synced) = (cursors.clone(), synced);
        poller.poll(0).await.unwrap();
        assert_eq!(told(&poller.told), *want, "to a poll");
    }
    assert!(
        told(&attach(cluster, user, Codec::Msgpack, BTreeMap::new(), None).await).is_empty(),
        "a new device has nothing to correct"
    );
    by_socket
}

fn listed(list: &Value, thread: &Thread) -> Option<bool> {
    let row = list["threads"].as_array().unwrap().iter().find(|t| t["thread"] == thread.to_string())?;
    row["open"].as_bool()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_was_away_hears_what_became_of_its_memberships_and_of_no_block_by_others() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let alice = &cluster.user("alice").await;
    let users = cluster.mint_users(4).await;
    let [bob, carol, dave, erin] = [&users[0], &users[1], &users[2], &users[3]];
    let owner = cluster.api(bob, 1);
    let mut groups = Vec::new();
    for name in ["promoted", "removed", "readded", "as it was"] {
        groups.push(new_group(&owner, name, std::slice::from_ref(alice)).await);
    }
    let (with_bob, with_carol, with_dave) = (alice.dm(bob), alice.dm(carol), alice.dm(dave));
    let mut ws = cluster.raw(alice, 0, Codec::Json).await;
    for thread in [&with_bob, &with_carol] {
        ws.send_text(thread, "hello").await.unwrap();
    }
    let before = in_sync(&cluster, alice).await;
    // An app on a device of its own, with a file.
    let phone = alice.log_in(&cluster, 0).await;
    let file = OutboxStore::File(cluster.folder().join("phone.db"));
    let app = async || cluster.client_with(&phone, 0, |b| b.store(file.clone())).await;
    let (client, mut events) = app().await;
    next_event(&mut events, "attached", SOON, |e| matches!(e, ClientEvent::Attached).then_some(())).await;
    // What the app has seen is stored when it closes.
    eventually_within("the app has everything", SOON, async || {
        timeout(Duration::from_millis(200), events.next()).await.is_err().then_some(())
    })
    .await;
    client.close().await;
    drop(ws);

    good(role(&owner, &groups[0], alice, Role::Admin).await);
    good(remove(&owner, &groups[1], alice).await);
    good(remove(&owner, &groups[2], alice).await);
    good(add(&owner, &groups[2], alice).await);
    block(&cluster, alice, bob, true).await;
    block(&cluster, carol, alice, true).await;
    block(&cluster, dave, alice, true).await;
    // Both ends of it while the device is away.
    block(&cluster, erin, alice, true).await;
    block(&cluster, erin, alice, false).await;

    let want: Told = [
        (groups[0].clone(), (true, Some(Role::Admin), 1)),
        (groups[1].clone(), (false, None, 1)),
        (groups[2].clone(), (true, Some(Role::Member), 2)),
        (with_bob.clone(), (false, None, 1)),
    ]
    .into();
    assert_eq!(told_to_all(&cluster, alice, &before, None).await, want);
    let (client, mut events) = app().await;
    let mut heard = Told::new();
    next_event(&mut events, "attached", SOON, |e| match e {
        ClientEvent::Member { thread, open, role, intervals, .. } => {
            heard.insert(thread, (open, role, intervals.0.len()));
            None
        }
        ClientEvent::Attached => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(heard, want, "to the app");
    client.close().await;

    // Who is blocked sees a conversation like any other, and one that never was does not begin to be.
    let api = cluster.api(alice, 0);
    let list = good(api.get("/v1/threads").await);
    assert_eq!((listed(&list, &with_carol), listed(&list, &with_bob)), (Some(true), Some(false)), "{list}");
    assert_eq!((listed(&list, &with_dave), listed(&list, &alice.dm(erin))), (None, None), "{list}");
    let of_dave = good(cluster.api(dave, 0).get("/v1/threads").await);
    assert_eq!(listed(&of_dave, &with_dave), Some(false), "the blocker sees it");
    // As of any conversation with somebody that has not begun.
    let page = good(api.get(&format!("/v1/threads/{with_dave}/messages")).await);
    assert_eq!((page["events"].as_array().map(Vec::len), &page["prev"]), (Some(0), &json!(0)), "{page}");
    let mut ws = cluster.raw(alice, 1, Codec::Msgpack).await;
    for thread in [&with_carol, &with_dave] {
        assert_eq!(ws.send_text(thread, "may I?").await.unwrap_err().code, Code::Blocked);
    }
    let after = in_sync(&cluster, alice).await;
    block(&cluster, alice, bob, false).await;
    block(&cluster, carol, alice, false).await;
    block(&cluster, dave, alice, false).await;
    let want: Told = [(with_bob.clone(), (true, None, 1))].into();
    assert_eq!(told_to_all(&cluster, alice, &after, Some(&groups[1])).await, want, "only one's own");

    // The first word to somebody who blocked and does not any more begins the conversation, for both.
    let mut d = cluster.raw(dave, 0, Codec::Json).await;
    // The device has been elsewhere since.
    let mut ws = cluster.raw(alice, 1, Codec::Msgpack).await;
    eventually_within("writing works", SOON, async || {
        ws.send_text(&with_dave, "at last").await.map_err(|e| e.code.name())
    })
    .await;
    let seen = seen_until(&mut d, "at last").await;
    assert!(kinds(&seen).contains(&Kind::DmStarted), "{:?}", kinds(&seen));
    let history = whole(&api, &with_dave, false).await;
    assert_eq!(kinds(&history), [Kind::DmStarted, Kind::Text]);
    assert_eq!(listed(&good(api.get("/v1/threads").await), &with_dave), Some(true));
    all_well(&cluster);
}

/// A new device, more threads than it hears of at once, and two partitions that count differently.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_device_hears_of_the_threads_that_were_active_last_whatever_their_ids() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, users) = (&cluster.user("alice").await, cluster.mint_users(140).await);
    let mut ws = cluster.raw(alice, 0, Codec::Msgpack).await;
    let of = |p: u32| users.iter().map(|u| alice.dm(u)).filter(|t| t.partition(2) == p).collect::<Vec<_>>();
    let parts = [of(0), of(1)];
    // The partition with the larger ids has the threads that fall quiet first.
    let first = [ws.send_text(&parts[0][0], "x").await.unwrap(), ws.send_text(&parts[1][0], "x").await.unwrap()];
    let high = usize::from(first[1] > first[0]);
    let mut last = MsgId::NONE;
    for n in 0..400 {
        last = ws.send_text(&parts[high][0], &format!("busy {n}")).await.unwrap();
    }
    let mut order = Vec::new();
    for thread in parts[high].iter().chain(&parts[1 - high]) {
        let id = ws.send_text(thread, "hello").await.unwrap();
        assert!(parts[high].contains(thread) || id < last, "ids of the other partition are smaller");
        order.push(thread.clone());
    }
    let second = alice.log_in(&cluster, 1).await;
    let frames = attach(&cluster, &second, Codec::Json, BTreeMap::new(), None).await;
    let pages: BTreeSet<Thread> =
        frames.into_iter().filter_map(|f| if let ServerFrame::Page(p) = f { p.thread } else { None }).collect();
    assert_eq!(pages, order[order.len() - 100..].iter().cloned().collect());
    all_well(&cluster);
}
