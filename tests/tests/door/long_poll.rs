//! The long poll and messages over HTTP keep the promises of the socket, beside devices on sockets.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use natterjack_client::ClientEvent;
use natterjack_protocol::{Body, Code, Kind, MsgId, Thread, client::frame::ServerFrame, codec::Codec};
use natterjack_testkit::{eventually, eventually_within, within};
use natterjack_tests::kit::{
    Cluster, ClusterSpec, Poller, User,
    counters::{POLLS, counted, counter},
};
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::common::{SOON, cid, id_of, log_of, post};

/// Polls until it has shown as many messages of each thread as wanted.
async fn poll_until(poller: &mut Poller, what: &str, limit: Duration, done: impl Fn(&Poller) -> bool) {
    within(what, limit, async {
        while !done(poller) {
            if poller.poll(5_000).await.is_none() {
                // As a client does it between two edges.
                sleep(Duration::from_millis(100)).await;
            }
        }
    })
    .await;
}

/// Sends until it is stored, always with the same cid, at whatever edge answers.
async fn post_through(cluster: &Cluster, user: &User, edge: &mut usize, thread: &Thread, words: &str) -> MsgId {
    let (cid, path) = (cid(), format!("/v1/threads/{thread}/messages"));
    loop {
        let message = super::common::text(cid, words);
        match cluster.api(user, *edge).try_call(Method::POST, &path, Some(&message)).await {
            Ok(answer @ (200, _)) => return id_of(&answer),
            Ok((503 | 429, _)) | Err(_) => {
                *edge = (*edge + 1) % cluster.spec().edges;
                // As a client does it between two edges.
                sleep(Duration::from_millis(50)).await;
            }
            Ok((status, body)) => panic!("{status} {body}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poller_and_a_socket_of_one_user_see_one_log_while_an_edge_is_killed() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let alice = cluster.user("alice").await;
    let phone = alice.log_in(&cluster, 0).await;
    let bob = cluster.user("bob").await;
    let dm = alice.dm(&bob);
    let (status, made) =
        cluster.api(&bob, 0).post("/v1/groups", &json!({ "name": "pond", "users": [alice.id()] })).await;
    assert_eq!(status, 200, "{made}");
    let group: Thread = made["thread"].as_str().unwrap().parse().unwrap();
    let threads = [dm, group];

    // The phone is on a socket, the SDK finds its way.
    let (client, mut events) =
        cluster.client_with(&phone, 0, |b| b.edges([cluster.edge_url(0), cluster.edge_url(1)])).await;
    let seen = Arc::<Mutex<BTreeMap<Thread, Vec<MsgId>>>>::default();
    let write = seen.clone();
    let reader = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let ClientEvent::Message(m) = event
                && !m.kind.is_control()
            {
                write.lock().unwrap().entry(m.thread).or_default().push(m.id);
            }
        }
    });
    // Bob writes over HTTP, Alice from both devices; the first edge is killed among it.
    let stop = Arc::new(AtomicBool::new(false));
    let mut poller = Poller::new(&cluster, &alice, [0, 1]);
    let (bobs, alices, phones, polled) = tokio::join!(
        async {
            let (mut ids, mut edge) = (Vec::new(), 0);
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let id = post_through(&cluster, &bob, &mut edge, &threads[n % 2], &format!("bob {n}")).await;
                ids.push((n % 2, id));
            }
            ids
        },
        async {
            let (mut ids, mut edge) = (Vec::new(), 0);
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let id = post_through(&cluster, &alice, &mut edge, &threads[n % 2], &format!("alice {n}")).await;
                ids.push((n % 2, id));
                // A pace, so that the log stays readable in a few pages.
                sleep(Duration::from_millis(20)).await;
            }
            ids
        },
        async {
            let mut ids = Vec::new();
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let (_, id) =
                    client.send_and_wait(threads[n % 2].clone(), Kind::Text, Body::text("phone")).await.unwrap();
                ids.push((n % 2, id));
                // A pace, so that the log stays readable in a few pages.
                sleep(Duration::from_millis(20)).await;
            }
            ids
        },
        async {
            poll_until(&mut poller, "messages before the kill", SOON, |p| p.messages(&threads[0]).len() > 30).await;
            cluster.edge(0).kill9().await;
            let so_far = poller.messages(&threads[1]).len();
            poll_until(&mut poller, "messages after the kill", SOON * 2, |p| {
                p.messages(&threads[1]).len() > so_far + 60
            })
            .await;
            stop.store(true, Ordering::Relaxed);
        },
    );
    let () = polled;
    for (i, thread) in threads.iter().enumerate() {
        let log = log_of(&cluster, thread).await;
        poll_until(&mut poller, "the end of the log", SOON, |p| p.messages(thread).last() == log.last()).await;
        assert_eq!(poller.messages(thread), log, "the poller shows the log, in order, each once");
        let of = |seen: &Arc<Mutex<BTreeMap<Thread, Vec<MsgId>>>>| {
            seen.lock().unwrap().get(thread).cloned().unwrap_or_default()
        };
        eventually_within("the phone is at the end of the log", SOON, async || of(&seen).last() == log.last()).await;
        assert_eq!(of(&seen), log, "the phone shows the same");
        for sent in [&bobs, &alices, &phones] {
            let own: Vec<MsgId> = sent.iter().filter(|(t, _)| *t == i).map(|(_, id)| *id).collect();
            assert!(
                own.is_sorted() && own.iter().all(|id| log.contains(id)),
                "acknowledged, kept, in the order of sending"
            );
        }
        assert_eq!(
            log.len(),
            [&bobs, &alices, &phones].iter().flat_map(|s| s.iter()).filter(|(t, _)| *t == i).count(),
            "nothing twice"
        );
    }
    // Nothing new: an answer after the wait, without frames, and `synced` to go on with.
    poller.poll(0).await.expect("an edge answers");
    let began = Instant::now();
    let quiet = poller.poll(300).await.expect("an edge answers");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(
        (quiet["frames"].as_array().unwrap().len(), quiet["cursors"].as_object().unwrap().len()),
        (0, 0),
        "{quiet}"
    );
    assert!(quiet["synced"].is_string(), "{quiet}");
    client.close().await;
    reader.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_poll_is_answered_by_what_happens_and_a_resend_gets_its_first_id() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(3).await;
    let (alice, bob, carol) = (&users[0], &users[1], &users[2]);
    let dm = alice.dm(bob);
    let (first, second) = (cluster.api(bob, 0), cluster.api(bob, 1));

    // A message that begins the conversation ends the wait; it comes within the linger and a moment.
    let mut poller = Poller::new(&cluster, alice, [0]);
    poller.poll(0).await.unwrap();
    let (posted, polls) = (cid(), counter(&cluster, 0, POLLS).await);
    let (answer, id) = tokio::join!(poller.poll(20_000), async {
        counted(&cluster, 0, POLLS, polls).await;
        id_of(&post(&second, &dm, posted, "hello").await)
    });
    assert!(answer.is_some());
    poll_until(&mut poller, "the first message", SOON, |p| p.messages(&dm) == [id]).await;

    // The same cid, again and again, by any edge, by a socket too, and with another body: the first id, one copy.
    assert_eq!(id_of(&post(&first, &dm, posted, "hello").await), id);
    assert_eq!(id_of(&post(&second, &dm, posted, "hello, edited").await), id);
    let mut ws = cluster.raw(bob, 0, Codec::Msgpack).await;
    assert_eq!(ws.send_cid(&dm, posted, "hello").await, Ok(id));
    let (a, b) = (cid(), cid());
    let (one, two, three) =
        tokio::join!(post(&first, &dm, a, "x"), post(&second, &dm, a, "x"), post(&first, &dm, b, "y"));
    assert_eq!(id_of(&one), id_of(&two));
    assert_eq!(log_of(&cluster, &dm).await.len(), 3);
    let last = id_of(&one).max(id_of(&three));
    poll_until(&mut poller, "all of it", SOON, |p| p.messages(&dm).last() == Some(&last)).await;
    assert_eq!(poller.messages(&dm), log_of(&cluster, &dm).await);

    // Joining a group and being removed from it, also when that happens between two polls.
    let (status, made) =
        cluster.api(carol, 1).post("/v1/groups", &json!({ "name": "reeds", "users": [alice.id()] })).await;
    assert_eq!(status, 200, "{made}");
    let group: Thread = made["thread"].as_str().unwrap().parse().unwrap();
    let open = |p: &Poller, want: bool| {
        let of_group = |f: &&ServerFrame| matches!(f, ServerFrame::Member { thread, .. } if *thread == group);
        matches!(p.told.iter().rfind(of_group), Some(ServerFrame::Member { open, .. }) if *open == want)
    };
    poll_until(&mut poller, "told of the group", SOON, |p| open(p, true)).await;
    let api = cluster.api(carol, 0);
    let in_group = id_of(&post(&api, &group, cid(), "welcome").await);
    poll_until(&mut poller, "a message of the group", SOON, |p| p.messages(&group) == [in_group]).await;
    let gid = group.to_string().replace("group.", "");
    let (status, _) = api.delete(&format!("/v1/groups/{gid}/members/{}", alice.id())).await;
    assert_eq!(status, 200);
    poll_until(&mut poller, "told of being removed", SOON, |p| open(p, false)).await;
    id_of(&post(&api, &group, cid(), "without her").await);
    poller.poll(300).await.unwrap();
    assert_eq!(poller.messages(&group), [in_group], "nothing from after");
    let (status, body) = post(&cluster.api(alice, 0), &group, cid(), "me too").await;
    assert_eq!((status, body["code"].as_str()), (403, Some("not_member")), "{body}");

    // A backlog larger than a page: the answer says that there is a gap by not moving the cursor, and the poller fills
    // it.
    let mut away = Poller::new(&cluster, alice, [1]);
    (away.cursors, away.synced) = (poller.cursors.clone(), poller.synced.clone());
    for n in 0..70 {
        ws.send_text(&dm, &format!("backlog {n}")).await.unwrap();
    }
    let before = away.cursors[&dm];
    poll_until(&mut away, "the backlog", SOON, |p| p.messages(&dm).len() >= 70).await;
    let log = log_of(&cluster, &dm).await;
    assert_eq!(away.messages(&dm), log.into_iter().filter(|id| *id > before).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_a_waiting_poll_with_where_to_go() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(1).await;
    let mut poller = Poller::new(&cluster, &users[0], [0, 1]);
    eventually_within("both edges are listed", SOON, async || {
        let (_, body) = cluster.anonymous(0).get("/v1/edges").await;
        body["edges"].as_array().is_some_and(|e| e.len() == 2)
    })
    .await;
    poller.poll(0).await.unwrap();
    let (began, polls) = (Instant::now(), counter(&cluster, 0, POLLS).await);
    let (answer, ()) = tokio::join!(poller.poll(25_000), async {
        counted(&cluster, 0, POLLS, polls).await;
        cluster.edge(0).sigterm();
    });
    let answer = answer.expect("a draining edge answers who waits");
    // Long before the end of the wait, on any machine.
    assert!(began.elapsed() < Duration::from_secs(20), "after {:?}", began.elapsed());
    let frame = answer["frames"].as_array().unwrap().iter().find(|f| f["t"] == "draining").expect("it says so").clone();
    assert_eq!(frame["edges"], json!([cluster.edge_url(1)]));
    assert!(cluster.edge(0).wait_exit(Duration::from_secs(20)).await.success());
    poller.go_elsewhere();
    let thread = users[0].dm(&users[0]);
    let id = id_of(&post(poller.api(), &thread, cid(), "here now").await);
    poll_until(&mut poller, "its message by the other edge", SOON, |p| p.messages(&thread) == [id]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_by_name() {
    let cluster = Cluster::start(ClusterSpec { edges: 1, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(2).await;
    let (alice, bob) = (&users[0], &users[1]);
    let api = cluster.api(alice, 0);
    let dm = alice.dm(bob);
    let refused = |(status, body): (u16, serde_json::Value), code: Code| {
        assert_eq!((status, body["code"].as_str()), (code.http_status(), Some(code.name())), "{body}");
        body
    };
    refused(cluster.anonymous(0).post("/v1/sync", &json!({})).await, Code::Unauthorized);
    refused(cluster.anonymous(0).post(&format!("/v1/threads/{dm}/messages"), &json!({})).await, Code::Unauthorized);
    let many: BTreeMap<String, u64> = (0..1_001).map(|n| (format!("group.g{n}"), 1)).collect();
    refused(api.post("/v1/sync", &json!({ "cursors": many })).await, Code::Invalid);
    refused(api.post("/v1/sync", &json!({ "cursors": { "dm.x": 1 } })).await, Code::BadFrame);
    refused(api.post("/v1/sync", &json!({ "cursors": { dm.to_string(): -1 } })).await, Code::BadFrame);
    refused(api.get("/v1/sync?cursors=dm.a.b&wait_ms=0").await, Code::Invalid);
    refused(api.get("/v1/sync?wait_ms=soon").await, Code::Invalid);

    let path = format!("/v1/threads/{dm}/messages");
    refused(api.post(&path, &json!({ "kind": "text", "body": { "text": "no cid" } })).await, Code::BadFrame);
    refused(api.post(&path, &json!({ "cid": cid(), "kind": "text", "body": {} })).await, Code::Invalid);
    refused(
        api.post(&path, &json!({ "cid": cid(), "kind": "group_renamed", "body": { "name": "x" } })).await,
        Code::Invalid,
    );
    refused(
        api.post(&path, &json!({ "cid": cid(), "kind": "text", "body": { "text": "x".repeat(10_001) } })).await,
        Code::Invalid,
    );
    refused(api.post("/v1/threads/group.nobodys/messages", &super::common::text(cid(), "x")).await, Code::NotMember);
    refused(api.post("/v1/threads/nothing/messages", &super::common::text(cid(), "x")).await, Code::Invalid);
    let ahead = natterjack_protocol::Cid::mint(natterjack_testkit::now_ms() + 60_000, rand::random());
    let body = refused(post(&api, &dm, ahead, "from the future").await, Code::ClockAhead);
    assert!(body["now_ms"].is_u64() && body["cid"] == json!(ahead), "{body}");

    // A cursor ahead of the log and one of somebody else's thread are named, and hurt nobody else.
    let id = id_of(&post(&api, &dm, cid(), "one").await);
    // A conversation that has just begun is known a moment after its first message.
    eventually("the conversation is listed", async || {
        let (_, listed) = api.get("/v1/threads").await;
        if listed.to_string().contains(&dm.to_string()) { Ok(()) } else { Err(listed.to_string()) }
    })
    .await;
    let (status, answer) = api.get(&format!("/v1/sync?cursors={dm}:{},group.nobodys:5&wait_ms=0", 1u64 << 52)).await;
    assert_eq!(status, 200, "{answer}");
    let frames = answer["frames"].as_array().unwrap();
    let of = |code: &str| frames.iter().find(|f| f["t"] == "error" && f["code"] == code).map(|f| f["thread"].clone());
    assert_eq!((of("invalid"), of("not_member")), (Some(json!(dm)), Some(json!("group.nobodys"))), "{answer}");
    assert_eq!(answer["cursors"][dm.to_string()], json!(id), "and the thread begins again: {answer}");

    // The newest poll of a device wins.
    let ask = |wait_ms: u64| json!({ "cursors": { dm.to_string(): id }, "wait_ms": wait_ms });
    let (long, short) = (ask(20_000), ask(0));
    let polls = counter(&cluster, 0, POLLS).await;
    let (old, new) = tokio::join!(api.post("/v1/sync", &long), async {
        counted(&cluster, 0, POLLS, polls).await;
        api.post("/v1/sync", &short).await
    });
    refused(old, Code::Conflict);
    assert_eq!(new.0, 200, "{}", new.1);
}
