//! The log goes on with another number of partitions while people write: P1, P2 and P3 across the switch, and
//! afterwards.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use natterjack_nats::{Layout, LeaderReader, subjects};
use natterjack_protocol::{Cid, MsgId, Retry, Thread, codec::Codec};
use natterjack_testkit::{Flow, Side, eventually, eventually_within, now_ms};
use natterjack_tests::kit::{Cassandra, Cluster, ClusterSpec, RawWs, User};
use reqwest::Method;
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use natterjack_tests::kit::counters::{FRAMES_IN, counted, counter, until_the_direct_path_is_open};
use natterjack_tests::kit::witness::{Reader, SOON, assert_thread, group, texts};
use natterjack_tests::kit::writer::{connect, send_all, send_until_sent};

const WRITERS: usize = 4;

/// What was sent: thread, cid, text, and the id of its acknowledgement, in the order of sending.
type Sent = Vec<(Thread, Cid, String, MsgId)>;

/// All clocks here are one.
fn cid() -> Cid {
    Cid::mint(now_ms(), rand::random())
}

async fn session(edge: SocketAddr, user: &User, codec: Codec) -> RawWs {
    eventually_within("a session", SOON, async || connect(edge, user, codec, BTreeMap::new()).await).await
}

/// Six at a time, into two threads, until told to stop; what fails comes again, in its order, before anything newer.
async fn write(
    edge: SocketAddr,
    user: User,
    codec: Codec,
    (w, threads): (usize, [Thread; 2]),
    stop: watch::Receiver<bool>,
) -> Sent {
    let (mut ws, mut sent) = (session(edge, &user, codec).await, Sent::new());
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    for part in 0.. {
        if *stop.borrow() {
            break;
        }
        let sends: Vec<(Thread, Cid, String)> =
            (0..6).map(|n| (threads[n % 2].clone(), cid(), format!("w{w}-{}", part * 6 + n))).collect();
        let (mut left, mut ids) = (sends.clone(), HashMap::new());
        while !left.is_empty() {
            let answers = send_all(&mut ws, &left).await;
            if answers.closed.is_some() {
                ws = session(edge, &user, codec).await;
            }
            for refusal in answers.refused.values() {
                assert_eq!(refusal.code.retry(), Retry::Later, "{refusal:?}");
            }
            if answers.sent.is_empty() {
                // As a client does it between two tries.
                sleep(Duration::from_millis(30)).await;
            }
            if !answers.sent.is_empty() {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            left.retain(|(_, cid, _)| !answers.sent.contains_key(cid));
            ids.extend(answers.sent);
        }
        sent.extend(sends.into_iter().map(|(thread, cid, text)| (thread, cid, text, ids[&cid])));
    }
    eprintln!("writer {w}: {} messages, the longest wait for acknowledgements was {longest:?}", sent.len());
    sent
}

/// The thread as its acknowledgements have it; each sender's in the order of sending.
fn expected(sent: &[Sent], thread: &Thread) -> Vec<(MsgId, String)> {
    let mut all = Vec::new();
    for one in sent {
        let of: Vec<(MsgId, String)> =
            one.iter().filter(|(t, ..)| t == thread).map(|(_, _, text, id)| (*id, text.clone())).collect();
        assert!(of.windows(2).all(|w| w[0].0 < w[1].0), "acknowledged in another order than sent: {of:?}");
        all.extend(of);
    }
    all.sort();
    all
}

async fn layout(cluster: &Cluster) -> Layout {
    Layout::load(&cluster.connect_nats().await).await.unwrap()
}

/// Nothing lies behind the end of the old streams.
async fn assert_closed(cluster: &Cluster, old: Layout) {
    let nats = cluster.connect_nats().await;
    let js = natterjack_testkit::raw_jetstream(&nats).await;
    for p in 0..old.partitions {
        let bounds = LeaderReader::new(&nats, old).bounds(p).await.unwrap();
        let stream = js.get_stream(subjects::stream(old.generation, p)).await.unwrap();
        let last = stream.get_raw_message(bounds.last.0).await.unwrap();
        assert_eq!(last.subject.as_str(), subjects::end(old.generation, p));
    }
}

fn spec() -> ClusterSpec {
    ClusterSpec {
        edges: 3,
        channels: 2,
        persisters: 2,
        proxied_edges: true,
        times_divisor: 5,
        ..ClusterSpec::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_number_of_partitions_under_load() {
    Box::pin(the_log_goes_on_with_others(spec())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: three nats-servers"]
async fn heavy_another_number_of_partitions_with_three_replicas() {
    Box::pin(the_log_goes_on_with_others(ClusterSpec { nats: 3, ..spec() })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: a CQL server"]
async fn heavy_another_number_of_partitions_over_a_cql_archive() {
    let cql = Cassandra::one().await;
    Box::pin(the_log_goes_on_with_others(ClusterSpec { set: cql.settings(), ..spec() })).await;
}

async fn the_log_goes_on_with_others(spec: ClusterSpec) {
    let cluster = Cluster::start(spec).await;
    let users = cluster.mint_users(WRITERS + 4).await;
    let (writers, others) = users.split_at(WRITERS);
    let [still, mover, held, late] = [&others[0], &others[1], &others[2], &others[3]];
    let team = group(
        &cluster,
        &[&users[..WRITERS], &[still.clone(), mover.clone(), held.clone()]].concat().iter().collect::<Vec<_>>(),
    )
    .await;
    until_the_direct_path_is_open(&cluster, late).await;
    let old = layout(&cluster).await;
    let addrs: Vec<SocketAddr> = (0..3).map(|i| cluster.edge_addr(i)).collect();
    let stays = Reader::start(vec![addrs[0]], still, Codec::Json).await;
    let moves = Reader::start(addrs[..2].to_vec(), mover, Codec::Msgpack).await;
    let threads: Vec<[Thread; 2]> = writers.iter().map(|w| [team.clone(), w.dm(still)]).collect();

    let (tell, told) = watch::channel(false);
    let writing = futures_util::future::join_all(writers.iter().enumerate().map(|(w, user)| {
        let codec = if w / 2 == 0 { Codec::Json } else { Codec::Msgpack };
        write(addrs[w % 2], user.clone(), codec, (w, threads[w].clone()), told.clone())
    }));
    let meanwhile = async {
        stays.wait_for("everybody writes", &team, 60).await;
        // A third edge has published into a line that does not move, and is frozen on top of that.
        let mut ws = session(addrs[2], held, Codec::Json).await;
        let first = ws.send_text(&team, "w9-0").await.unwrap();
        let one = (team.clone(), cid(), "w9-0".to_owned());
        cluster.nats_proxy(2).set(Side::FromClient, Flow::Stall);
        let sends: Vec<(Thread, Cid, String)> = (1..=6)
            .map(|n| (if n % 2 == 0 { held.dm(still) } else { team.clone() }, cid(), format!("w9-{n}")))
            .collect();
        let read = counter(&cluster, 2, FRAMES_IN).await;
        for (thread, cid, text) in &sends {
            let frame = natterjack_protocol::client::frame::SendMessage {
                r: ws.request(),
                cid: *cid,
                thread: thread.clone(),
                kind: natterjack_protocol::Kind::Text,
                body: natterjack_protocol::Body::text(text.clone()),
                behind: None,
            };
            ws.send(&natterjack_protocol::client::frame::ClientFrame::Send(frame)).await;
        }
        // The edge has read all six, and something of it stands in the line.
        counted(&cluster, 2, FRAMES_IN, read + 5.5).await;
        eventually("the line holds something back", async || cluster.nats_proxy(2).waiting(Side::FromClient) > 0).await;
        cluster.edge(2).stop();

        cluster.switch(5).await.unwrap();

        moves.hang_up().await;
        // Who sent them goes elsewhere with them.
        let ids = send_until_sent(&addrs[..2], held, Codec::Msgpack, &sends).await;
        // Only now what the frozen edge had published gets through, and the edge goes on.
        cluster.nats_proxy(2).set(Side::FromClient, Flow::Pass);
        eventually("the line is empty", async || cluster.nats_proxy(2).waiting(Side::FromClient) == 0).await;
        cluster.edge(2).cont();
        let again = send_until_sent(&addrs[2..], held, Codec::Json, &sends).await;
        assert_eq!(again, ids, "through the edge that was frozen");
        moves.hang_up().await;
        let so_far = texts(&stays.of(&team)).len();
        stays.wait_for("everybody goes on writing", &team, so_far + 60).await;
        tell.send_replace(true);
        let mut sent = vec![(one.0, one.1, one.2, first)];
        sent.extend(sends.into_iter().map(|(thread, cid, text)| (thread, cid, text, ids[&cid])));
        sent
    };
    let (mut sent, held_sent) = tokio::join!(writing, meanwhile);
    sent.push(held_sent);
    let new = layout(&cluster).await;
    assert_eq!((new.generation, new.partitions, new.previous()), (2, 5, Some(old)));
    assert_closed(&cluster, old).await;
    let highest_old =
        LeaderReader::new(&cluster.connect_nats().await, old).bounds(old.partition(&team)).await.unwrap().last;
    let (before, after): (Vec<MsgId>, Vec<MsgId>) =
        expected(&sent, &team).iter().map(|(id, _)| *id).partition(|id| *id <= highest_old);
    assert!(before.len() > 50 && after.len() > 20, "{} before the switch, {} after it", before.len(), after.len());

    let check = async |sent: &[Sent]| {
        let readers: &[(&str, &Reader)] = &[("who stayed", &stays), ("who moved", &moves)];
        assert_thread(&cluster, &team, readers, still, &expected(sent, &team)).await;
        for dm in threads.iter().map(|t| &t[1]).chain([&held.dm(still)]) {
            assert_thread(&cluster, dm, &readers[..1], still, &expected(sent, dm)).await;
        }
        // All of it in pages.
        let later = Reader::start(vec![addrs[1]], &writers[0], Codec::Json).await;
        let all = expected(sent, &team);
        later.wait_for("all of it, later", &team, all.len()).await;
        assert_eq!(texts(&later.of(&team)), all);
        later.assert_nothing_wrong("who came later");
    };
    check(&sent).await;

    // The first ones again, from the former generation; each edge says the same.
    for edge in 0..3 {
        let first: Vec<_> = sent[0][..6].iter().map(|(t, c, text, _)| (t.clone(), *c, text.clone())).collect();
        let again = send_until_sent(&addrs[edge..=edge], &writers[0], Codec::Json, &first).await;
        for (_, cid, _, id) in &sent[0][..6] {
            assert_eq!(again[cid], *id, "through edge {edge}");
        }
    }

    // The group goes on: its next change is the first in its new stream, judged on all that came before.
    let Thread::Group { gid } = &team else { unreachable!("a group") };
    let members = format!("/v1/groups/{gid}/members");
    let (status, body) = cluster.api(&users[1], 1).post(&members, &json!({ "users": [late.id()] })).await;
    assert_eq!(status, 403, "only the owner may: {body}");
    let (status, body) = cluster.api(&users[0], 1).post(&members, &json!({ "users": [late.id()] })).await;
    assert_eq!(status, 200, "{body}");
    let mut ws = session(addrs[2], late, Codec::Json).await;
    let one = (team.clone(), cid(), "w8-0".to_owned());
    let id = eventually_within("the new member writes", SOON, async || {
        ws.send_cid(&team, one.1, "w8-0").await.map_err(|e| format!("{e:?}"))
    })
    .await;
    sent.push(vec![(one.0, one.1, one.2, id)]);
    let (status, body) =
        cluster.api(&users[0], 0).call(Method::DELETE, &format!("{members}/{}", late.id()), None).await;
    assert_eq!(status, 200, "{body}");
    // And a conversation begins.
    let dm = late.dm(still);
    let (cid_of_dm, text) = (cid(), "w7-0".to_owned());
    let id = ws.send_cid(&dm, cid_of_dm, &text).await.unwrap();
    stays.wait_for("a new conversation", &dm, 1).await;
    sent.push(vec![(dm.clone(), cid_of_dm, text, id)]);
    check(&sent).await;

    // Everything dies and is started again, the former generation perhaps not archived.
    for p in cluster.processes() {
        p.kill9().await;
    }
    let (servers, roles): (Vec<_>, Vec<_>) = cluster.processes().partition(|p| p.name().starts_with("nats"));
    for p in servers {
        p.start().await;
    }
    // Before the three servers have elected anybody: roles wait for that.
    for p in roles {
        p.start().await;
    }
    let more = [(team.clone(), cid(), "w6-0".to_owned())];
    let ids = send_until_sent(&addrs, &writers[1], Codec::Json, &more).await;
    let [(thread, cid_of_more, text)] = more;
    let id = ids[&cid_of_more];
    sent.push(vec![(thread, cid_of_more, text, id)]);
    check(&sent).await;

    // When the former one is archived, the log can be changed again; to fewer, this time.
    eventually_within("a further switch", SOON, async || cluster.switch(1).await).await;
    let third = layout(&cluster).await;
    assert_eq!((third.generation, third.partitions, third.previous().map(|l| l.partitions)), (3, 1, Some(5)));
    let more = [(team.clone(), cid(), "w5-0".to_owned()), (threads[0][1].clone(), cid(), "w0-1000000".to_owned())];
    let ids = send_until_sent(&addrs, &writers[0], Codec::Msgpack, &more).await;
    sent.push(more.into_iter().map(|(thread, cid, text)| (thread, cid, text, ids[&cid])).collect());
    check(&sent).await;
    assert_closed(&cluster, new).await;
}
