//! P2 when the log itself got a second copy: it is shown to nobody.

use std::{collections::BTreeMap, time::Duration};

use natterjack_nats::{Layout, subjects};
use natterjack_protocol::{Body, Cid, Entry, Kind, MsgId, Thread, codec::Codec};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{
    Cluster, User,
    counters::{archived, until_the_direct_path_is_open},
    witness::{Reader, SOON, assert_thread},
    writer::connect,
};
use tokio::time::sleep;

use super::p2_once::{LATE, addrs, spec};

/// What a frozen edge or a reconnecting client library does: it writes the publish of a message minutes after everybody
/// gave up on it, when the window has forgotten the resend that went through. Here straight into the log, without the
/// id that the window goes by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_stored_late_is_shown_to_nobody() {
    let cluster = Cluster::start(spec()).await;
    let users = cluster.mint_users(3).await;
    let [alice, bob, dave] = [&users[0], &users[1], &users[2]];
    until_the_direct_path_is_open(&cluster, dave).await;
    let dm = alice.dm(bob);
    let live = Reader::start(addrs(&cluster, &[1]), bob, Codec::Msgpack).await;
    let mut a = cluster.raw(alice, 0, Codec::Json).await;
    let log = Log::of(&cluster).await;

    // Sent at once; and one that was stored late, but of which there is no other copy.
    let direct = a.cid();
    let mut expected = vec![(a.send_cid(&dm, direct, "direct").await.unwrap(), "direct".to_owned())];
    let only = a.cid_at(-(LATE.as_millis() as i64) - 1_000);
    expected.push((log.append(&dm, alice, only, "only copy").await, "only copy".to_owned()));
    // A resend long after: looked up, the same id. Time itself is what this is about, so it has to pass.
    sleep(LATE + Duration::from_millis(500)).await;
    assert_eq!(a.send_cid(&dm, only, "only copy").await, Ok(expected[1].0));
    // The copies: of what is archived by now, and one right behind another.
    for (cid, text) in [(direct, "direct"), (only, "only copy"), (only, "only copy")] {
        log.append(&dm, alice, cid, text).await;
    }
    // The lost entry of a frozen edge is the first; what was resent behind it is its copy, whoever wrote it.
    let frozen = a.cid_at(-(LATE.as_millis() as i64) - 1_000);
    expected.push((log.append(&dm, alice, frozen, "frozen").await, "frozen".to_owned()));
    log.append(&dm, alice, frozen, "frozen").await;
    assert_eq!(a.send_cid(&dm, frozen, "frozen").await, Ok(expected[2].0));
    expected.push((a.send_text(&dm, "last").await.unwrap(), "last".to_owned()));

    assert_thread(&cluster, &dm, &[("bob", &live)], bob, &expected).await;
    // Once more when all is archived, and with a new holder of everything.
    archived(&cluster, &[(dm.clone(), expected[expected.len() - 1].0)]).await;
    for p in cluster.processes() {
        p.kill9().await;
    }
    for p in cluster.processes() {
        p.start().await;
    }
    let after = eventually_within("all is up again", SOON, async || {
        let mut a = connect(cluster.edge_addr(0), alice, Codec::Json, BTreeMap::new()).await.ok_or("no edge")?;
        a.send_text(&dm, "after").await.map_err(|e| format!("{e:?}"))
    })
    .await;
    expected.push((after, "after".to_owned()));
    assert_thread(&cluster, &dm, &[("bob", &live)], bob, &expected).await;
}

/// The log itself, past every edge.
struct Log {
    js: natterjack_testkit::raw_nats::jetstream::Context,
    layout: Layout,
}

impl Log {
    async fn of(cluster: &Cluster) -> Self {
        let nats = cluster.connect_nats().await;
        Self { layout: Layout::load(&nats).await.unwrap(), js: natterjack_testkit::raw_jetstream(&nats).await }
    }

    async fn append(&self, thread: &Thread, from: &User, cid: Cid, text: &str) -> MsgId {
        let subject = subjects::chat(self.layout.generation, self.layout.partition(thread), thread);
        let entry = Entry::new(from.id().clone(), cid, Kind::Text, Body::text(text));
        MsgId(self.js.publish(subject, entry.encode()).await.unwrap().await.unwrap().sequence)
    }
}
