//! P2, the fast path: a resend of the same cid, by any edge, returns the first id, and nobody ever sees a second copy.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use natterjack_client::{Client, ClientEvent, Events, OutboxStore};
use natterjack_nats::{Layout, LeaderReader, subjects};
use natterjack_protocol::{
    Body, Cid, Code, Entry, Kind, MsgId, Thread, Times, client::frame::HistoryQuery, codec::Codec,
};
use natterjack_testkit::{eventually_within, patience};
use natterjack_tests::kit::{Cluster, ClusterSpec, User};
use reqwest::Method;
use tokio::time::sleep;

use natterjack_tests::kit::counters::{LOOKUPS, archived, counter, until_the_direct_path_is_open};
use natterjack_tests::kit::paging::{ask, whole};
use natterjack_tests::kit::witness::{
    Reader, SOON, assert_once_and_in_order, assert_thread, connect, group, heavy, send_all, send_until_sent, texts,
};

/// Windows of a fifth: fresh 4 s, late 8 s, dedupe 12 s, ahead 2 s.
const SCALED: u32 = 5;
const FRESH: Duration = Duration::from_secs(4);
const WINDOW: Duration = Duration::from_secs(12);
const LATE: Duration = Duration::from_secs(8);

fn spec() -> ClusterSpec {
    ClusterSpec { times_divisor: SCALED, ..ClusterSpec::default() }
}

fn addrs(cluster: &Cluster, edges: &[usize]) -> Vec<SocketAddr> {
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

/// 20 times an edge is killed between send and ack with ten sends in flight; all ten are sent again through the other
/// edge. In half of the rounds the acks are lost on purpose: the log has the message and nobody has told the client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_between_send_and_ack() {
    let seed: u64 = std::env::var("NATTERJACK_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("NATTERJACK_SEED={seed}");
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let cluster = Cluster::start(ClusterSpec { edges: 3, proxied_edges: true, ..spec() }).await;
    let users = cluster.mint_users(3).await;
    let [sender, still, mover] = [&users[0], &users[1], &users[2]];
    let mut threads = vec![sender.dm(still), sender.dm(mover)];
    for _ in 0..5 {
        threads.push(group(&cluster, &[sender, still, mover]).await);
    }
    // One stays on an edge that lives, one is thrown from edge to edge.
    let stays = Reader::start(addrs(&cluster, &[2]), still, Codec::Msgpack).await;
    let moves = Reader::start(addrs(&cluster, &[0, 1]), mover, Codec::Json).await;

    let mut acked: HashMap<Cid, MsgId> = HashMap::new();
    let mut sent: Vec<(Thread, Cid, String)> = Vec::new();
    let (mut stored_unacked, mut never_stored) = (0, 0);
    for round in 0..20 {
        let (a, b) = (round % 2, 1 - round % 2);
        cluster.edge(a).wait_ready().await;
        let mut ws = cluster.raw(sender, a, if round % 3 == 0 { Codec::Json } else { Codec::Msgpack }).await;
        // Seven threads, one publish in flight in each; three more wait behind one of them.
        let sends: Vec<(Thread, Cid, String)> =
            (0..10).map(|n| (threads[if n < 7 { n } else { 6 }].clone(), ws.cid(), format!("{round}-{n}"))).collect();
        let mine: HashSet<Cid> = sends.iter().map(|(_, cid, _)| *cid).collect();
        let lossy = round % 4 < 2;
        if lossy {
            cluster.nats_proxy(a).drop_live(|_, payload| payload.starts_with(b"{\"stream\":") && payload.len() < 200);
        }
        let after = Duration::from_micros(rand::Rng::random_range(&mut rng, 0..6_000));
        let kill = async {
            if lossy {
                // Stored: the others have it.
                eventually_within("the log has some of them", SOON, async || {
                    stays.seen().events.iter().rev().take(10).any(|e| mine.contains(&e.cid))
                })
                .await;
            }
            // Somewhere between the send and its acknowledgement, from the seed.
            sleep(after).await;
            cluster.edge(a).kill9().await;
        };
        let (answers, ()) = tokio::join!(send_all(&mut ws, &sends), kill);
        cluster.nats_proxy(a).drop_nothing();
        assert!(answers.refused.is_empty(), "round {round}: {:?}", answers.refused);
        assert!(!lossy || answers.sent.is_empty(), "round {round}: acks came although they were lost");
        cluster.edge(a).spawn();
        if !lossy {
            let stored: HashSet<Cid> = stays.seen().events.iter().map(|e| e.cid).collect();
            stored_unacked += mine.iter().filter(|c| stored.contains(c) && !answers.sent.contains_key(c)).count();
            never_stored += mine.iter().filter(|c| !stored.contains(c)).count();
        }

        let ids = send_until_sent(&addrs(&cluster, &[b]), sender, Codec::Msgpack, &sends).await;
        for (cid, id) in &answers.sent {
            assert_eq!(ids[cid], *id, "round {round}: the resend of an acked message has another id");
        }
        acked.extend(ids);
        sent.extend(sends);
    }
    eprintln!(
        "without lost acks: {stored_unacked} stored and not acked, {never_stored} not stored (or not yet seen) when \
         sent again"
    );

    let expected = |thread: &Thread| {
        let mut all: Vec<(MsgId, String)> =
            sent.iter().filter(|(t, ..)| t == thread).map(|(_, cid, text)| (acked[cid], text.clone())).collect();
        all.sort();
        all
    };
    cluster.edge(0).wait_ready().await;
    cluster.edge(1).wait_ready().await;
    let check = async || {
        for (n, thread) in threads.iter().enumerate() {
            let readers: &[(&str, &Reader)] = match n {
                0 => &[("who stayed", &stays)],
                1 => &[("who moved", &moves)],
                _ => &[("who stayed", &stays), ("who moved", &moves)],
            };
            assert_thread(&cluster, thread, readers, sender, &expected(thread)).await;
        }
    };
    check().await;
    assert!(moves.seen().attached > 10, "the reader that moves has not moved");
    // The first rounds are past the window by now; whoever sends them again is told the same.
    let first = &sent[..20];
    let again = send_until_sent(&addrs(&cluster, &[1, 0]), sender, Codec::Json, first).await;
    for (_, cid, _) in first {
        assert_eq!(again[cid], acked[cid]);
    }
    check().await;
}

/// Reads until everything that was promised has come; whatever comes twice stays twice.
async fn drain(
    events: &mut Events,
    into: &mut Vec<natterjack_protocol::Event>,
    done: impl Fn(&[natterjack_protocol::Event]) -> bool,
) {
    natterjack_testkit::within("all messages at the SDK", Duration::from_secs(60), async {
        while !done(into) {
            match events.next().await.expect("the client ended") {
                ClientEvent::Message(m) if m.body.text.is_some() => into.push(m),
                ClientEvent::Failed { refusal, .. } => panic!("a message failed for good: {refusal:?}"),
                ClientEvent::Skipped { thread, from, to } => panic!("skipped {from}..{to} of {thread}"),
                _ => {}
            }
        }
    })
    .await;
}

/// Two people with the SDK, outboxes in files, edges killed at random, one client that crashes and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_loses_and_doubles_nothing_while_edges_die() {
    let cluster = Cluster::start(ClusterSpec { edges: 3, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(2).await;
    let (alice, bob) = (&users[0], &users[1]);
    let thread = alice.dm(bob);
    let urls: Vec<String> = (0..3).map(|i| cluster.edge_url(i)).collect();
    let folder = cluster.folder();
    let connect = async |user: &User, file: &str| -> (Client, Events) {
        // The file of a client that was just dropped is let go a moment later.
        eventually_within("a client with its file", SOON, async || {
            user.builder(urls.clone()).store(OutboxStore::File(folder.join(file))).connect().await
        })
        .await
    };
    let each = if heavy() { 1_000 } else { 150 };
    let mut alices = Some(connect(alice, "alice.db").await);
    let (b, mut b_events) = connect(bob, "bob.db").await;
    let (mut a_seen, mut b_seen) = (Vec::new(), Vec::new());

    let kills = async {
        for _ in 0..(if heavy() { 30 } else { 8 }) {
            let edge = cluster.edge(rand::random_range(0..3));
            edge.kill9().await;
            // Away for a moment, or for longer than a client waits.
            sleep(Duration::from_millis(rand::random_range(0..300))).await;
            edge.start().await;
        }
    };
    let writing = async {
        let all = 2 * each;
        let bob_writes = async {
            for n in 0..each {
                b.send_text(thread.clone(), format!("b{n}")).await.unwrap();
                // The pace of somebody who writes.
                sleep(Duration::from_millis(rand::random_range(0..40))).await;
            }
        };
        let alice_writes = async {
            for n in 0..each {
                let (a, events) = alices.as_mut().unwrap();
                a.send_text(thread.clone(), format!("a{n}")).await.unwrap();
                let mut read = Vec::new();
                let _ = tokio::time::timeout(
                    Duration::from_millis(rand::random_range(0..40)),
                    drain(events, &mut read, |_| false),
                )
                .await;
                a_seen.extend(read);
                if n == each / 2 {
                    // Without a goodbye: what was not acked is in the file, what was not seen comes again.
                    drop(alices.take());
                    alices = Some(connect(alice, "alice.db").await);
                }
            }
            let (a, _) = alices.as_ref().unwrap();
            a.flushed(patience(Duration::from_secs(40))).await.unwrap_or_else(|n| panic!("{n} messages were not sent"));
        };
        tokio::join!(bob_writes, alice_writes, drain(&mut b_events, &mut b_seen, |seen| seen.len() >= all));
    };
    tokio::join!(kills, writing);
    b.flushed(patience(Duration::from_secs(40))).await.unwrap();
    let log = whole(&cluster.api(bob, 0), &thread, true).await;
    assert_once_and_in_order("history", &log);
    let log = texts(&log);
    for who in ["a", "b"] {
        let order: Vec<&str> = log.iter().map(|(_, t)| t.as_str()).filter(|t| t.starts_with(who)).collect();
        let wanted: Vec<String> = (0..each).map(|n| format!("{who}{n}")).collect();
        assert_eq!(order, wanted, "each once, in the order of sending");
    }
    assert_eq!(texts(&b_seen), log, "bob saw the log, no more and no less");
    // Alice crashed once: her last moments may have come again, in order; nothing is missing.
    let newest = log.last().unwrap().0;
    if a_seen.last().is_none_or(|e: &natterjack_protocol::Event| e.id < newest) {
        let (_, events) = alices.as_mut().unwrap();
        drain(events, &mut a_seen, |seen| seen.last().is_some_and(|e| e.id >= newest)).await;
    }
    let mut a_seen = texts(&a_seen);
    a_seen.sort();
    a_seen.dedup();
    assert_eq!(a_seen, log, "alice saw the log");
}

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
