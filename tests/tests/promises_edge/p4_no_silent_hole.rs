//! P4 at the edge: what is lost between NATS and an edge is found, and shown before anything that comes after it.

use std::time::Duration;

use natterjack_nats::subjects;
use natterjack_protocol::{
    Thread,
    codec::Codec,
    internal::{
        live::LiveMessage,
        rpc::{Heads, HeadsAnswer},
    },
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, User, next_event};

use super::common::{ReadLog, SOON, Traffic, Watcher, new_group, send_through};

/// The bound of the promise for any single loss.
const SINGLE: Duration = Duration::from_secs(2);
const DIVISOR: u32 = 9;
/// A sweep is jittered by a quarter, then the heads have to be asked for and the gap to be fetched.
const DOUBLE: Duration = Duration::from_millis(45_000 / DIVISOR as u64 * 5 / 4 + 1_500);

fn contains(bytes: &[u8], text: &str) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

/// Of the thread: the events that say this.
fn event(payload: &[u8], thread: &Thread, text: &str) -> bool {
    let Ok(LiveMessage::Event { header, frame }) = LiveMessage::parse(payload) else { return false };
    header.thread == thread.to_string() && contains(frame, text)
}

fn head(payload: &[u8], thread: &Thread) -> bool {
    matches!(LiveMessage::parse(payload), Ok(LiveMessage::Head { thread: t, .. }) if t == thread.to_string())
}

fn member(payload: &[u8]) -> bool {
    matches!(LiveMessage::parse(payload), Ok(LiveMessage::Member { .. }))
}

/// Writers on edge 0, readers on edge 1, and between edge 1 and NATS somebody who loses messages.
struct Lossy {
    cluster: Cluster,
    log: ReadLog,
}

impl Lossy {
    async fn start() -> Self {
        let cluster =
            Cluster::start(ClusterSpec { proxied_edges: true, times_divisor: DIVISOR, ..ClusterSpec::default() }).await;
        let log = ReadLog::of(&cluster).await;
        Self { cluster, log }
    }

    async fn writer(&self, user: &User) -> RawWs {
        self.cluster.raw(user, 0, Codec::Msgpack).await
    }

    fn lose(&self, pick: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> usize {
        let before = self.cluster.nats_proxy(1).lost();
        self.cluster.nats_proxy(1).drop_live(move |_, payload| pick(payload));
        before
    }

    async fn lost(&self, before: usize, n: usize) {
        let proxy = self.cluster.nats_proxy(1);
        eventually_within("the chosen messages are lost", SOON, async || proxy.lost() >= before + n).await;
        proxy.drop_nothing();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_message_is_shown_before_what_comes_after_and_a_lost_last_one_within_two_seconds() {
    let l = Lossy::start().await;
    let users = l.cluster.mint_users(2).await;
    let (alice, bob) = (&users[0], &users[1]);
    let mut a = l.writer(alice).await;
    let dm = alice.dm(bob);
    let group = new_group(&l.cluster.api(alice, 0), &[bob]).await;
    let b = Watcher::attach(&l.cluster, bob, 1).await;
    for thread in [dm, group] {
        let first = send_through(&mut a, &thread, "first").await;
        b.shows("the first message", &thread, first, SOON).await;

        // One in the middle, then three together.
        for lost in [1, 3] {
            let (t, proxy) = (thread.clone(), l.cluster.nats_proxy(1).lost());
            l.lose(move |p| event(p, &t, "lost-in-the-middle"));
            for _ in 0..lost {
                send_through(&mut a, &thread, "lost-in-the-middle").await;
            }
            let after = send_through(&mut a, &thread, "after it").await;
            b.shows("what came after a lost message", &thread, after, SINGLE).await;
            b.shows_the_log(&l.log, &thread, Default::default(), SINGLE).await;
            l.lost(proxy, lost).await;
        }

        let t = thread.clone();
        let before = l.lose(move |p| event(p, &t, "lost-last"));
        let last = send_through(&mut a, &thread, "lost-last").await;
        b.shows("a lost last message within two seconds", &thread, last, SINGLE).await;
        l.lost(before, 1).await;
        b.shows_the_log(&l.log, &thread, Default::default(), SOON).await;
    }
    b.assert_open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_first_message_of_an_idle_conversation_is_found_and_lost_heads_by_the_next_sweep() {
    let l = Lossy::start().await;
    let users = l.cluster.mint_users(6).await;
    let alice = &users[0];
    let mut a = l.writer(alice).await;

    // Conversations that the readers' edge has never heard of: they were idle when the reader came.
    let mut readers = Vec::new();
    for reader in &users[1..4] {
        let thread = alice.dm(reader);
        let old = send_through(&mut a, &thread, "long ago").await;
        readers.push((Watcher::attach(&l.cluster, reader, 1).await, thread, old));
    }

    // Lost, and it is the last; found by its head.
    let (b, thread, old) = &readers[0];
    let t = thread.clone();
    let before = l.lose(move |p| event(p, &t, "lost-first"));
    let id = send_through(&mut a, thread, "lost-first").await;
    b.shows("a lost first and last message within two seconds", thread, id, SINGLE).await;
    l.lost(before, 1).await;

    // Lost, and another follows; found by the other's `prev`.
    let (c, other, _) = &readers[1];
    let t = other.clone();
    let before = l.lose(move |p| event(p, &t, "lost-first") || head(p, &t));
    send_through(&mut a, other, "lost-first").await;
    let id = send_through(&mut a, other, "second").await;
    c.shows("what came after a lost first message", other, id, SINGLE).await;
    l.lost(before, 2).await;

    // The event and its head, of a conversation that is known here and of one that is not.
    let (d, idle, _) = &readers[2];
    let (t1, t2) = (thread.clone(), idle.clone());
    let before = l.lose(move |p| [&t1, &t2].into_iter().any(|t| event(p, t, "lost-twice") || head(p, t)));
    let known = send_through(&mut a, thread, "lost-twice").await;
    let unknown = send_through(&mut a, idle, "lost-twice").await;
    l.lost(before, 4).await;
    tokio::join!(
        b.shows("lost with its head, in a known conversation", thread, known, DOUBLE),
        d.shows("lost with its head, in one that was idle", idle, unknown, DOUBLE),
    );
    for (w, t, old) in [(b, thread, *old), (c, other, readers[1].2), (d, idle, readers[2].2)] {
        // The page of the attach has the old one.
        w.shows_the_log(&l.log, t, natterjack_protocol::MsgId(old.0 - 1), SOON).await;
    }

    // A conversation begins, and a group is joined, and the signal of that is lost.
    let (erin, frank) = (&users[4], &users[5]);
    let (e, f) = (Watcher::attach(&l.cluster, erin, 1).await, Watcher::attach(&l.cluster, frank, 1).await);
    let before = l.lose(member);
    let dm = alice.dm(erin);
    let begun = send_through(&mut a, &dm, "hello erin").await;
    e.shows("the first message, its signal lost", &dm, begun, SINGLE).await;
    let group = new_group(&l.cluster.api(alice, 0), &[frank]).await;
    l.lost(before, 2).await;
    let said = send_through(&mut a, &group, "hello frank").await;
    f.shows("a message of a group, the signal of which was lost", &group, said, SINGLE).await;

    // Everything of a beginning but the heads.
    let proxied = l.cluster.mint_users(1).await.remove(0);
    let g = Watcher::attach(&l.cluster, &proxied, 1).await;
    let dm = alice.dm(&proxied);
    let t = dm.clone();
    let before = l.lose(move |p| member(p) || event(p, &t, ""));
    let begun = send_through(&mut a, &dm, "hello").await;
    g.shows("a conversation of which only a head came", &dm, begun, SINGLE).await;
    l.lost(before, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_between_nats_and_an_edge_leaves_no_hole() {
    let l = Lossy::start().await;
    let users = l.cluster.mint_users(3).await;
    let (alice, bob, carol) = (&users[0], &users[1], &users[2]);
    let group = new_group(&l.cluster.api(alice, 0), &[bob]).await;
    let dm = alice.dm(bob);
    let mut a = l.writer(alice).await;
    send_through(&mut a, &dm, "begun").await;
    let b = Watcher::attach(&l.cluster, bob, 1).await;
    let proxy = l.cluster.nats_proxy(1);
    let traffic = Traffic::start(a, vec![dm.clone(), group.clone()], Duration::from_millis(10));

    // Short ones, too short for the beats to be missed.
    for _ in 0..5 {
        traffic.goes_on(20, SOON).await;
        proxy.reset();
    }
    traffic.goes_on(50, SOON).await;

    // A long one; meanwhile somebody new writes to bob, and bob is in a new group.
    proxy.refuse(true);
    proxy.reset();
    eventually_within("bob is told", SOON, async || b.degraded().contains(&true)).await;
    let mut c = l.writer(carol).await;
    let new_dm = carol.dm(bob);
    let hello = send_through(&mut c, &new_dm, "hello bob").await;
    let new_group = new_group(&l.cluster.api(carol, 0), &[bob]).await;
    let welcome = send_through(&mut c, &new_group, "welcome bob").await;
    traffic.goes_on(50, SOON).await;
    proxy.refuse(false);

    b.shows("the first message of somebody new", &new_dm, hello, SOON).await;
    b.shows("the first message of a new group", &new_group, welcome, SOON).await;
    traffic.goes_on(50, SOON).await;
    traffic.stop().await;
    for thread in [&dm, &group, &new_dm, &new_group] {
        b.shows_the_log(&l.log, thread, Default::default(), SOON).await;
    }
    eventually_within("bob is told that it is over", SOON, async || b.degraded().last() == Some(&false)).await;
    b.assert_open();
}

/// The channel remembers two minutes (here 6 s). An edge that hears nothing for longer cannot find out by heads what it
/// missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_longer_than_the_channel_remembers_leaves_no_hole_either() {
    let cluster =
        Cluster::start(ClusterSpec { proxied_edges: true, times_divisor: 20, ..ClusterSpec::default() }).await;
    let log = ReadLog::of(&cluster).await;
    let users = cluster.mint_users(2).await;
    let (alice, bob) = (&users[0], &users[1]);
    let (dm, busy) = (alice.dm(bob), alice.dm(alice));
    let api = cluster.api(alice, 0);
    let mut threads = vec![busy];
    while threads.iter().all(|t| t.partition(log.layout.partitions) != dm.partition(log.layout.partitions)) {
        threads.push(new_group(&api, &[]).await);
    }
    let mut a = cluster.raw(alice, 0, Codec::Msgpack).await;
    let begun = send_through(&mut a, &dm, "begun").await;
    let (client, mut events) = cluster.client(bob, 1).await;
    let mut shown = |m: natterjack_client::ClientEvent| match m {
        natterjack_client::ClientEvent::Message(m) if !m.kind.is_control() => Some(m.id),
        _ => None,
    };
    assert_eq!(next_event(&mut events, "the first", SOON, &mut shown).await, begun);

    // The edge goes on with NATS as a whole; only live subjects and beats do not reach it, as when servers lose sight
    // of each other.
    cluster.nats_proxy(1).drop_live(|subject, _| subject.starts_with("live.") || subject.starts_with("beat."));
    let missed = send_through(&mut a, &dm, "missed").await;
    let p = dm.partition(log.layout.partitions);
    eventually_within("the channel forgets", Duration::from_secs(40), async || {
        for t in &threads {
            send_through(&mut a, t, "time goes on").await;
        }
        let question = Heads { threads: vec![dm.hash64()] };
        let answer: Result<HeadsAnswer, _> =
            log.nats.request(&subjects::heads(1, p), &question, Duration::from_secs(2)).await;
        answer.is_ok_and(|a| a.heads[0].is_none())
    })
    .await;
    cluster.nats_proxy(1).drop_nothing();
    assert_eq!(next_event(&mut events, "what was missed long ago", SOON, &mut shown).await, missed);
    let next = send_through(&mut a, &dm, "next").await;
    assert_eq!(next_event(&mut events, "the next one", SOON, &mut shown).await, next);
    client.close().await;
}
