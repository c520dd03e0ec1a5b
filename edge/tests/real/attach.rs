//! Membership that changes while a device attaches, behind its read of the user's threads.

use natterjack_nats::subjects;
use natterjack_protocol::{
    Body, Entry, Event, Kind, MsgId, Thread,
    client::frame::ServerFrame,
    codec::Codec,
    internal::live::{encode_event, encode_member},
    log::{
        Interval, Intervals,
        fold::{ThreadItem, UserThreads},
    },
};
use natterjack_testkit::eventually;

use crate::kit::{World, cid, id, now_ms};

fn item(v: u64, until: Option<u64>) -> ThreadItem {
    let intervals = Intervals(vec![Interval { since: MsgId(2), until: until.map(MsgId) }]);
    ThreadItem { v: MsgId(v), intervals, ..ThreadItem::default() }
}

async fn threads(world: &World, user: &str, items: &[(&str, ThreadItem)]) {
    let (_, revision) = world.buckets().threads(&id(user)).root().load_with_revision().await.unwrap().unwrap();
    let mut threads = UserThreads::default();
    for (thread, item) in items {
        threads.merge(&thread.parse().unwrap(), item.clone());
    }
    world.buckets().threads(&id(user)).root().compare_and_set(&threads, revision).await.unwrap();
}

/// As `channel` does it: the key first, then the signal.
async fn changed(world: &World, thread: &str, at: u64) {
    let signal = encode_member(thread, MsgId(at));
    world.nats.publish(subjects::live_user(&id("ua")), signal).await.unwrap();
}

async fn event(world: &World, group: &str, at: u64) {
    let thread = Thread::group(&id(group));
    let entry = Entry::new(id("ub"), cid(), Kind::Text, Body::text("hello"));
    let event = Event::new(thread, MsgId(at), MsgId::NONE, now_ms(), entry);
    let live = encode_event(event, false);
    world.nats.publish(subjects::live_group(&id(group)), live).await.unwrap();
}

/// What came is read again before the pages go out: who was removed hears nothing more, who was added has the page
/// before `attached`.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_behind_the_first_read_is_read_again() {
    let world = World::start(&["ua", "ub"]).await;
    threads(&world, "ub", &[("group.elsewhere", item(5, None))]).await;
    let mut elsewhere = world.client("ub", "d1", Codec::Msgpack).await;
    threads(&world, "ua", &[("group.left", item(5, None)), ("group.stays", item(6, None))]).await;
    world.heads.on(true);
    let mut c = world.socket(Codec::Msgpack).await;
    c.hello(&world.token("ua", "d1", 600), "d1").await;
    eventually("the heads of what was read", async || world.heads.asked() > 0).await;

    threads(
        &world,
        "ua",
        &[("group.left", item(9, Some(9))), ("group.stays", item(6, None)), ("group.joined", item(10, None))],
    )
    .await;
    changed(&world, "group.left", 9).await;
    changed(&world, "group.joined", 10).await;
    // What is said behind the signals has arrived, so the signals have.
    event(&world, "elsewhere", 11).await;
    elsewhere.until(|f| matches!(f, ServerFrame::Event(_))).await;
    world.heads.on(false);

    let mut pages = Vec::new();
    c.until(|f| {
        if let ServerFrame::Page(page) = f {
            pages.push(page.thread.as_ref().unwrap().to_string());
        }
        matches!(f, ServerFrame::Attached { .. })
    })
    .await;
    pages.sort();
    assert_eq!(
        pages,
        ["group.joined", "group.left", "group.stays"],
        "of what was left, too: there may be news from before"
    );
    event(&world, "left", 12).await;
    event(&world, "joined", 13).await;
    let first = c.until(|f| matches!(f, ServerFrame::Event(_))).await;
    assert!(matches!(&first, ServerFrame::Event(e) if e.id == MsgId(13)), "{first:?}");
}
