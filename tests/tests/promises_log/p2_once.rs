//! P2, the fast path: a resend of the same cid, by any edge, returns the first id, and nobody ever sees a second copy.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use natterjack_nats::{Layout, LeaderReader};
use natterjack_protocol::{Code, MsgId, Thread, Times, client::frame::HistoryQuery, codec::Codec};
use natterjack_testkit::{eventually_within, patience};
use natterjack_tests::kit::{
    Cluster, ClusterSpec,
    counters::{LOOKUPS, counter, until_the_direct_path_is_open},
    paging::ask,
    witness::{Reader, SOON, assert_thread, group, texts},
};
use reqwest::Method;

/// Windows of a fifth: fresh 4 s, late 8 s, dedupe 12 s, ahead 2 s.
const SCALED: u32 = 5;
const FRESH: Duration = Duration::from_secs(4);
const WINDOW: Duration = Duration::from_secs(12);
pub const LATE: Duration = Duration::from_secs(8);

pub fn spec() -> ClusterSpec {
    ClusterSpec { times_divisor: SCALED, ..ClusterSpec::default() }
}

pub fn addrs(cluster: &Cluster, edges: &[usize]) -> Vec<SocketAddr> {
    edges.iter().map(|i| cluster.edge_addr(*i)).collect()
}

/// Nothing can have been stored before the very first generation, so nothing is looked up in its first 15 s; and all is
/// stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_installation_looks_nothing_up() {
    // Alone: what is asserted happens in the first 15 s of the log.
    let cluster = Cluster::start(ClusterSpec { alone: true, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(3).await;
    let [alice, bob, carol] = [&users[0], &users[1], &users[2]];
    until_the_direct_path_is_open(&cluster, carol).await;
    let dm = alice.dm(bob);
    let second = cluster.other_device(alice, "second");
    let (mut a, mut b) = (cluster.raw(alice, 0, Codec::Json).await, cluster.raw(&second, 1, Codec::Msgpack).await);
    let lookups = async || counter(&cluster, 0, LOOKUPS).await + counter(&cluster, 1, LOOKUPS).await;
    let before = lookups().await;
    let mut sent = Vec::new();
    for n in 0..20 {
        let cid = a.cid();
        sent.push((a.send_cid(&dm, cid, &n.to_string()).await.unwrap(), n.to_string()));
        assert_eq!(b.send_cid(&dm, cid, "again").await, Ok(sent[n].0));
    }
    let after = lookups().await;
    let nats = cluster.connect_nats().await;
    let layout = Layout::load(&nats).await.unwrap();
    let bounds = LeaderReader::new(&nats, layout).bounds(layout.partition(&dm)).await.unwrap();
    assert_eq!(after, before);
    let seen = Reader::start(addrs(&cluster, &[1]), bob, Codec::Json).await;
    assert_thread(&cluster, &dm, &[("bob", &seen)], bob, &sent).await;
    let age = seen.of(&dm)[0].ts.saturating_sub(bounds.created_ms);
    assert!(
        age < Times::default().young_stream().as_millis() as u64,
        "{age} ms: too late to show anything of the first seconds"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_cid_through_any_edge_is_one_message() {
    let cluster = Cluster::start(spec()).await;
    let users = cluster.mint_users(4).await;
    let [alice, bob, carol, dave] = [&users[0], &users[1], &users[2], &users[3]];
    until_the_direct_path_is_open(&cluster, dave).await;
    let (dm, team) = (alice.dm(bob), group(&cluster, &[carol, alice, bob]).await);
    let live = Reader::start(addrs(&cluster, &[1]), bob, Codec::Msgpack).await;
    let mut a = cluster.raw(alice, 0, Codec::Json).await;
    let mut b = cluster.raw(&cluster.other_device(alice, "second"), 1, Codec::Msgpack).await;
    let mut log: HashMap<Thread, Vec<(MsgId, String)>> = HashMap::new();
    let mut old = Vec::new();

    for thread in [&dm, &team] {
        let expected = log.entry(thread.clone()).or_default();
        // Fresh: the window of the stream dedupes, nobody looks up. The other body is not looked at.
        let cid = a.cid();
        let id = a.send_cid(thread, cid, "fresh").await.unwrap();
        let before = counter(&cluster, 1, LOOKUPS).await;
        assert_eq!(b.send_cid(thread, cid, "fresh").await, Ok(id), "through the other edge");
        assert_eq!(b.send_cid(thread, cid, "another body").await, Ok(id), "with another body");
        assert_eq!(a.send_cid(thread, cid, "fresh").await, Ok(id), "through the same edge again");
        let lookups = counter(&cluster, 1, LOOKUPS).await - before;
        // By the log's clock, which is heard of twice a second.
        let fresh = a.cid().unix_ms() - cid.unix_ms() < (FRESH - Duration::from_secs(1)).as_millis() as u64;
        assert!(lookups == 0.0 || !fresh, "{lookups} lookups of a cid that is fresh");
        expected.push((id, "fresh".into()));
        old.push((thread.clone(), cid, id));

        // Both at once.
        let cid = a.cid();
        let (one, two) = tokio::join!(a.send_cid(thread, cid, "race"), b.send_cid(thread, cid, "race"));
        assert_eq!(one, two);
        expected.push((one.unwrap(), "race".into()));

        // Older than fresh and never stored: looked up, then stored once.
        let cid = a.cid_at(-(FRESH.as_millis() as i64) - 1_500);
        let before = counter(&cluster, 0, LOOKUPS).await;
        let id = a.send_cid(thread, cid, "old and new").await.unwrap();
        assert!(counter(&cluster, 0, LOOKUPS).await > before, "an old cid was published without a lookup");
        assert_eq!(b.send_cid(thread, cid, "old and new").await, Ok(id), "an old one is found");
        expected.push((id, "old and new".into()));

        // From an hour ago, as an outbox that was offline would have it: never too old to be stored once.
        let cid = a.cid_at(-3_600_000);
        let id = b.send_cid(thread, cid, "from an hour ago").await.unwrap();
        assert_eq!(a.send_cid(thread, cid, "from an hour ago").await, Ok(id));
        expected.push((id, "from an hour ago".into()));
        old.push((thread.clone(), cid, id));

        // A clock that is fast: refused with the log's clock, nothing stored; a little fast is no matter.
        let refusal = a.send_cid(thread, a.cid_at(60_000), "of the future").await.unwrap_err();
        assert_eq!(refusal.code, Code::ClockAhead);
        let off = a.cid().unix_ms().abs_diff(refusal.now_ms.expect("clock_ahead says what time it is"));
        assert!(off < patience(Duration::from_secs(3)).as_millis() as u64, "now_ms is off by {off} ms");
        let id = a.send_cid(thread, a.cid_at(1_000), "a little fast").await.unwrap();
        expected.push((id, "a little fast".into()));
    }

    // The same cid by somebody else, and in another thread, is another message.
    let cid = a.cid();
    let first = a.send_cid(&dm, cid, "mine").await.unwrap();
    let mut c = cluster.raw(carol, 0, Codec::Json).await;
    let second = c.send_cid(&team, cid, "carol's").await.unwrap();
    let third = b.send_cid(&team, cid, "mine, elsewhere").await.unwrap();
    assert!(second != third);
    log.get_mut(&dm).unwrap().push((first, "mine".into()));
    log.get_mut(&team).unwrap().extend([(second, "carol's".to_owned()), (third, "mine, elsewhere".to_owned())]);

    // Past the window of the stream, where only the lookup knows.
    let due = old.iter().map(|(_, _, id)| *id).max().unwrap();
    eventually_within("the dedupe window is over", WINDOW * 3, async || {
        let seen = live.seen();
        let at = seen.events.iter().find(|e| e.id == due).map_or(u64::MAX, |e| e.ts);
        natterjack_testkit::now_ms() > at.saturating_add((WINDOW + Duration::from_secs(1)).as_millis() as u64)
    })
    .await;
    for (thread, cid, id) in &old {
        assert_eq!(b.send_cid(thread, *cid, "again").await, Ok(*id), "past the window, through B");
        assert_eq!(a.send_cid(thread, *cid, "again").await, Ok(*id), "past the window, through A");
    }
    // Somebody who comes only now sees it once, too.
    let late = Reader::start(addrs(&cluster, &[0]), bob, Codec::Json).await;
    for (thread, expected) in &log {
        assert_thread(&cluster, thread, &[("bob, live", &live), ("bob, later", &late)], bob, expected).await;
        let own =
            ask(&mut a, HistoryQuery { thread: Some(thread.clone()), limit: Some(200), ..HistoryQuery::default() })
                .await
                .unwrap();
        assert_eq!(&texts(&own.events), expected, "alice's session");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_write_any_more_still_learns_what_became_of_a_message() {
    let cluster = Cluster::start(spec()).await;
    let users = cluster.mint_users(3).await;
    let [alice, bob, carol] = [&users[0], &users[1], &users[2]];
    let (dm, team) = (alice.dm(bob), group(&cluster, &[carol, alice, bob]).await);
    let mut a = cluster.raw(alice, 0, Codec::Json).await;
    let second = cluster.other_device(alice, "second");
    let b = cluster.raw(&second, 1, Codec::Json).await;
    let (cid, dm_cid) = (a.cid(), a.cid());
    let id = a.send_cid(&team, cid, "before").await.unwrap();
    let dm_id = a.send_cid(&dm, dm_cid, "before").await.unwrap();
    let Thread::Group { gid } = &team else { unreachable!("a group") };
    let (status, body) =
        cluster.api(carol, 0).call(Method::DELETE, &format!("/v1/groups/{gid}/members/{}", alice.id()), None).await;
    assert_eq!(status, 200, "removing: {body}");
    let (status, body) = cluster.api(bob, 1).call(Method::PUT, &format!("/v1/blocks/{}", alice.id()), None).await;
    assert_eq!(status, 200, "blocking: {body}");

    // The sessions that saw it happen, and one that begins only now: it replaces the second.
    let mut sockets = vec![a, b];
    for n in 0..3 {
        if n == 2 {
            sockets.push(cluster.raw(&second, 1, Codec::Msgpack).await);
        }
        let ws = &mut sockets[n];
        for (thread, cid, id, code) in [(&team, cid, id, Code::NotMember), (&dm, dm_cid, dm_id, Code::Blocked)] {
            assert_eq!(
                ws.send_cid(thread, cid, "before").await,
                Ok(id),
                "session {n}: the resend of what was stored in {thread}"
            );
            // While the edge has not heard of it a new one could still land; every session must come to refuse it.
            eventually_within("a new message is refused", SOON, async || match ws.send_text(thread, "after").await {
                Err(refusal) if refusal.code == code => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await;
            assert_eq!(ws.send_cid(thread, cid, "before").await, Ok(id), "session {n}, once more");
        }
    }
}
