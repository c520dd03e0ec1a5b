//! Faults under everything: NATS restarts, a full log, an archive that is away, two of each role at once, keys that are
//! lost.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures_util::future::join_all;
use natterjack_client::{Client, ClientEvent, Events};
use natterjack_protocol::{
    Cid, Code, Kind, MsgId, Thread,
    client::frame::{ClientFrame, Hello, HistoryQuery, ServerFrame},
    codec::Codec,
};
use natterjack_testkit::{Process, eventually_within, within};
use natterjack_tests::kit::paging::whole;
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, RawWs, Received, User, next_event};
use serde_json::json;

use super::common::{
    Insight, SOON, add, all_well, gid, good, history_texts, members, new_group, pages_end, refused, seen_until, texts,
};

/// Elections and reconnects are in it.
const LONG: Duration = Duration::from_secs(40);

/// Sends `n` messages in an order, many under way at once, and gives their ids in that order.
async fn write(client: &Client, events: &mut Events, thread: &Thread, name: String, n: usize) -> Vec<MsgId> {
    let put = async {
        let mut locals = Vec::new();
        for i in 0..n {
            locals.push(client.send_text(thread.clone(), format!("{name} {i}")).await.unwrap());
        }
        locals
    };
    let acks = async {
        let mut ids = HashMap::new();
        while ids.len() < n {
            let next = next_event(events, "every send completes", LONG, |e| match e {
                ClientEvent::Sent { local, id, .. } => Some((local, id)),
                ClientEvent::Failed { refusal, .. } => panic!("{refusal}"),
                _ => None,
            });
            let (local, id) = next.await;
            assert!(ids.insert(local, id).is_none(), "confirmed twice");
        }
        ids
    };
    let (locals, ids) = tokio::join!(put, acks);
    locals.iter().map(|local| ids[local]).collect()
}

/// The messages of a thread as an app sees them, until there are `n`.
async fn see(events: &mut Events, thread: &Thread, n: usize) -> Vec<MsgId> {
    let mut seen = Vec::new();
    while seen.len() < n {
        let next = next_event(events, "all the messages", LONG, |e| match e {
            ClientEvent::Message(m) if m.thread == *thread && m.kind == Kind::Text => Some(m.id),
            ClientEvent::Failed { refusal, .. } => panic!("{refusal}"),
            ClientEvent::Ended { code, reason } => panic!("ended with {code} {reason}"),
            _ => None,
        });
        seen.push(next.await);
    }
    seen
}

/// What everybody saw and what history says is one and the same, and each message was sent once.
async fn one_order(api: &[Api], thread: &Thread, seen: &[Vec<MsgId>], sent: &[Vec<MsgId>]) {
    let all: HashSet<MsgId> = sent.iter().flatten().copied().collect();
    assert_eq!(all.len(), sent.iter().map(Vec::len).sum::<usize>(), "each send has an id of its own");
    for ids in sent {
        assert!(ids.is_sorted(), "a sender's messages keep their order");
    }
    for api in api {
        let history: Vec<_> = whole(api, thread, false).await.into_iter().filter(|e| e.kind == Kind::Text).collect();
        let cids: HashSet<Cid> = history.iter().map(|e| e.cid).collect();
        assert_eq!(cids.len(), history.len(), "nothing twice");
        let ids: Vec<MsgId> = history.iter().map(|e| e.id).collect();
        assert_eq!(ids.iter().copied().collect::<HashSet<_>>(), all);
        for seen in seen {
            assert_eq!(*seen, ids);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_server_restarts_under_load() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(3).await;
    let group = new_group(&cluster.api(&users[0], 0), "restart", &users[1..]).await;
    let (a, mut a_events) = cluster.client(&users[0], 0).await;
    let (b, mut b_events) = cluster.client(&users[1], 1).await;
    let (c, mut c_events) = cluster.client(&users[2], 1).await;
    const EACH: usize = 150;
    let mut seen = Vec::new();
    let restarts = async {
        for _ in 0..2 {
            seen.extend(see(&mut c_events, &group, 20).await);
            cluster.nats(0).kill9().await;
            cluster.nats(0).start().await;
        }
    };
    let load = async {
        tokio::join!(
            write(&a, &mut a_events, &group, "a".into(), EACH),
            write(&b, &mut b_events, &group, "b".into(), EACH)
        )
    };
    let ((from_a, from_b), ()) = tokio::join!(load, restarts);
    seen.extend(see(&mut c_events, &group, 2 * EACH - seen.len()).await);
    let apis = [cluster.api(&users[0], 0), cluster.api(&users[2], 1)];
    one_order(&apis, &group, &[seen], &[from_a, from_b]).await;
    // All goes on as before: tokens, groups, live.
    let newcomer = cluster.user("newcomer").await;
    good(add(&apis[0], &group, &newcomer).await);
    let mut ws = cluster.raw(&newcomer, 0, Codec::Json).await;
    ws.send_text(&group, "hello").await.unwrap();
    see(&mut c_events, &group, 1).await;
    for client in [a, b, c] {
        client.close().await;
    }
    all_well(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_refuses_and_drops_nothing() {
    let set = vec![("nats.max_bytes".to_owned(), "300000".to_owned())];
    let cluster = Cluster::start(ClusterSpec { set, partitions: 1, alone: true, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(3).await;
    let (alice, bob, carol) = (&users[0], &users[1], &users[2]);
    let dm = alice.dm(bob);
    let mut ws = cluster.raw(alice, 0, Codec::Json).await;
    let mut sent = Vec::new();
    let filler = "full-of-frogs ".repeat(100);
    let (cid, refusal) = within("the log is full", LONG, async {
        loop {
            let cid = ws.cid();
            let text = format!("{} {filler}", sent.len());
            match ws.send_cid(&dm, cid, &text).await {
                Ok(_) => sent.push(text),
                Err(refusal) => break (cid, refusal),
            }
        }
    })
    .await;
    assert_eq!((refusal.code, refusal.cid), (Code::Unavailable, Some(cid)));
    assert!(refusal.retry_after_ms.is_some() && refusal.message.contains("full"), "{refusal:?}");
    // Everything that writes says so, everything that reads is fine, through both edges.
    let mut other = cluster.raw(bob, 1, Codec::Msgpack).await;
    let big = "x".repeat(5_000);
    assert_eq!(other.send_text(&dm, &big).await.unwrap_err().code, Code::Unavailable);
    let mut stranger = cluster.raw(carol, 1, Codec::Json).await;
    let began = tokio::time::Instant::now();
    let first = stranger.send_text(&carol.dm(alice), &big).await.unwrap_err();
    assert_eq!(first.code, Code::Unavailable);
    assert!(
        began.elapsed() < natterjack_testkit::patience(Duration::from_secs(5)),
        "full is told at once, not after the deadline"
    );
    for api in [cluster.api(alice, 0), cluster.api(bob, 1)] {
        assert_eq!(history_texts(&api, &dm).await, sent, "what was acknowledged is there");
        good(api.get("/v1/threads").await);
    }
    // Many small ones, until nothing fits: a control entry is refused like a message.
    let last = loop {
        match ws.send_text(&dm, "x").await {
            Ok(_) => sent.push("x".to_owned()),
            Err(refusal) => break refusal,
        }
    };
    assert!(last.message.contains("full"), "{last:?}");
    // A control entry is refused like a message, or it still fits: then it is there.
    match cluster.api(alice, 0).post("/v1/groups", &json!({ "name": "n".repeat(90) })).await {
        (200, body) => {
            let made: Thread = body["thread"].as_str().unwrap().parse().unwrap();
            assert_eq!(members(&cluster.api(alice, 1), &made).await.len(), 1);
        }
        full => refused(full, Code::Unavailable),
    }

    // Room is made: the same cid goes in, once.
    let insight = Insight::of(&cluster).await;
    let js = natterjack_testkit::raw_jetstream(&insight.nats).await;
    let stream = js.get_stream(natterjack_nats::subjects::stream(insight.layout.generation, 0)).await.unwrap();
    let more = natterjack_testkit::raw_nats::jetstream::stream::Config {
        max_bytes: 50_000_000,
        ..stream.cached_info().config.clone()
    };
    js.update_stream(more).await.unwrap();
    let id =
        eventually_within("it fits now", SOON, async || ws.send_cid(&dm, cid, "at last").await.map_err(|e| e.message))
            .await;
    assert_eq!(ws.send_cid(&dm, cid, "at last").await.unwrap(), id);
    sent.push("at last".to_owned());
    assert_eq!(history_texts(&cluster.api(bob, 1), &dm).await, sent);
    new_group(&cluster.api(alice, 0), "room", &users[1..]).await;
    cluster.assert_not_logged("full-of-frogs");
    all_well(&cluster);
}

async fn ask_history(ws: &mut RawWs, thread: &Thread) -> Result<Vec<String>, Code> {
    let r = ws.request();
    ws.send(&ClientFrame::History(HistoryQuery { r, thread: Some(thread.clone()), ..HistoryQuery::default() })).await;
    ws.until("a page or a refusal", |f| match f {
        ServerFrame::Page(p) if p.r == Some(r) => Some(Ok(texts(&p.events))),
        ServerFrame::Error { r: Some(to), refusal } if to == r => Some(Err(refusal.code)),
        _ => None,
    })
    .await
}

/// `up` has one persister: with it the archive is away, and history and directory, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_archive_is_away_before_a_client_attaches() {
    let cluster = Cluster::start(ClusterSpec { times_divisor: 5, ..ClusterSpec::default() }).await;
    let (alice, bob, carol) = (cluster.user("alice").await, cluster.user("bob").await, cluster.user("carol").await);
    // A log as young as this has forgotten nothing yet, but its dedupe map is empty: until it is older, every send asks
    // the archive (P2 before P7).
    let insight = Insight::of(&cluster).await;
    let young = natterjack_protocol::Times::scaled(5);
    let young = (young.cid_ahead + young.clock_slack + Duration::from_millis(500)).as_millis();
    for p in 0..insight.layout.partitions {
        eventually_within("the log is old enough", SOON, async || {
            insight.tail.bounds(p).await.is_ok_and(|b| u128::from(b.ts_ms - b.created_ms) > young)
        })
        .await;
    }
    let (dm, first_dm) = (alice.dm(&bob), alice.dm(&carol));
    let group = new_group(&cluster.api(&alice, 0), "p7", &[bob.clone(), carol.clone()]).await;
    let mut a = cluster.raw(&alice, 0, Codec::Json).await;
    let mut b = cluster.raw(&bob, 1, Codec::Msgpack).await;
    a.send_text(&group, "before").await.unwrap();
    seen_until(&mut b, "before").await;
    let mut sent = vec!["before".to_owned()];

    for (round, frozen) in [false, true].into_iter().enumerate() {
        let persister = cluster.persister(0);
        if frozen {
            persister.stop()
        } else {
            persister.kill9().await
        }
        // Those who are online go on, in what there is and in what begins now.
        let say = format!("meanwhile {round}");
        a.send_text(&dm, &say).await.unwrap();
        seen_until(&mut b, &say).await;
        b.send_text(&group, &say).await.unwrap();
        seen_until(&mut a, &say).await;
        sent.push(say);
        // Who comes only now: attached, told what is missing, live, and may write, also to somebody new.
        let mut c = RawWs::connect(cluster.edge_addr(round), Codec::Json).await;
        c.send(&ClientFrame::Hello(Hello {
            cursors: [(group.clone(), MsgId::NONE)].into(),
            ..Hello::new(carol.tokens.access.clone(), carol.tokens.device.clone())
        }))
        .await;
        let (_, refusals) = within("attached without the archive", Duration::from_secs(15), pages_end(&mut c)).await;
        assert!(refusals.iter().all(|r| r.code == Code::Unavailable && r.retry_after_ms.is_some()), "{refusals:?}");
        let say = format!("late {round}");
        c.send_text(&group, &say).await.unwrap();
        seen_until(&mut a, &say).await;
        seen_until(&mut c, &say).await;
        sent.push(say);
        let say = format!("hello alice {round}");
        c.send_text(&first_dm, &say).await.unwrap();
        seen_until(&mut a, &say).await;
        // Groups are decided by the log and KV; no archive is asked. (Of people who are not online: a session that
        // joins needs a page, and without history it is closed with 4008 rather than shown a thread with a hole.)
        let offline = cluster.mint_users(2).await;
        let made = new_group(&cluster.api(&offline[0], 1), "made meanwhile", &offline[1..]).await;
        assert_eq!(members(&cluster.api(&offline[1], 0), &made).await.len(), 2);

        // What does need it says so and when to come back.
        assert_eq!(ask_history(&mut c, &group).await, Err(Code::Unavailable));
        let login =
            cluster.anonymous(0).post("/v1/login", &json!({ "name": alice.name, "password": alice.password })).await;
        refused(login, Code::Unavailable);
        refused(cluster.api(&alice, 0).get("/v1/users?prefix=al").await, Code::Unavailable);
        refused(cluster.api(&alice, 0).get(&format!("/v1/threads/{group}/messages")).await, Code::Unavailable);
        assert_eq!(a.send_text(&group, "fine").await.map(drop), Ok(()));
        sent.push("fine".to_owned());

        if frozen {
            persister.cont()
        } else {
            persister.start().await
        }
        let page = async || ask_history(&mut c, &group).await.map_err(Code::name);
        assert_eq!(eventually_within("history is back", LONG, page).await, sent);
        c.send(&ClientFrame::Bye).await;
        c.until_closed(SOON).await;
    }
    // What was sent meanwhile is archived afterwards, in its order.
    insight.archived().await;
    assert_eq!(history_texts(&cluster.api(&carol, 1), &group).await, sent);
    assert_eq!(history_texts(&cluster.api(&carol, 0), &first_dm).await, ["hello alice 0", "hello alice 1"]);
    all_well(&cluster);
}

/// Frozen until `goes_on`, then let go: for a while there are two of it.
async fn frozen_while(process: &Process, goes_on: impl Future<Output = ()>) {
    process.stop();
    goes_on.await;
    process.cont();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_each_on_one_partition_for_a_while() {
    let cluster = Cluster::start(ClusterSpec { channels: 2, persisters: 2, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(4).await;
    let group = new_group(&cluster.api(&users[0], 0), "twins", &users[1..]).await;
    let (a, mut a_events) = cluster.client(&users[0], 0).await;
    let (b, mut b_events) = cluster.client(&users[1], 1).await;
    let other_device = &cluster.mint_users(1).await[0];
    good(add(&cluster.api(&users[0], 0), &group, other_device).await);
    let (c, mut c_events) = cluster.client(other_device, 1).await;
    let mut bare = cluster.raw(&users[2], 0, Codec::Msgpack).await;
    let mut pulse = cluster.raw(&users[3], 1, Codec::Json).await;
    let insight = Insight::of(&cluster).await;
    let mut from_pulse = Vec::new();

    // Whoever holds the partition is one of the two that freeze.
    for round in 0..2 {
        for who in 0..2 {
            let said = format!("while channel {who} is frozen {round}");
            let goes_on = async {
                // It takes 2 s of lease and the warm standby.
                let id = eventually_within("sends go on", LONG, async || {
                    pulse.send_text(&group, &said).await.map_err(|e| e.message)
                })
                .await;
                from_pulse.push(id);
                within("what is sent is shown", LONG, until_event(&mut pulse, id)).await;
            };
            let (sent, ()) = tokio::join!(
                write(&a, &mut a_events, &group, format!("a {round}{who}"), 40),
                frozen_while(cluster.channel(who), goes_on)
            );
            from_pulse.extend(sent);
            let archived = async { within("the archive goes on", LONG, insight.archived()).await };
            let (sent, ()) = tokio::join!(
                write(&b, &mut b_events, &group, format!("b {round}{who}"), 40),
                frozen_while(cluster.persister(who), archived)
            );
            from_pulse.extend(sent);
        }
    }
    let n = from_pulse.len();
    let last = pulse.send_text(&group, "the last").await.unwrap();
    from_pulse.push(last);
    from_pulse.sort();
    let seen = see(&mut c_events, &group, n + 1).await;
    // The bare socket: `seen_until` insists on order and on nothing twice.
    let of_bare = seen_until(&mut bare, "the last").await;
    let of_bare: Vec<MsgId> = of_bare.iter().filter(|e| e.kind == Kind::Text).map(|e| e.id).collect();
    insight.archived().await;
    let apis = [cluster.api(&users[0], 0), cluster.api(&users[1], 1)];
    one_order(&apis, &group, &[seen, of_bare], &[from_pulse]).await;
    // And from the archive alone, the log forgotten.
    let kv = insight.group(&group).await.unwrap();
    assert_eq!(insight.rebuilt_group(&group).await, kv);
    for client in [a, b, c] {
        client.close().await;
    }
    all_well(&cluster);
}

async fn until_event(ws: &mut RawWs, id: MsgId) {
    loop {
        match ws.next_within(LONG).await {
            Received::Frame(ServerFrame::Event(e)) if e.id >= id => return,
            Received::Closed(code, why) => panic!("closed with {code} {why:?}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_keys_are_built_again() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob, carol) = (cluster.user("alice").await, cluster.user("bob").await, cluster.user("carol").await);
    let everybody: Vec<&User> = vec![&alice, &bob, &carol];
    let (dm, blocked) = (alice.dm(&bob), alice.dm(&carol));
    let api = cluster.api(&alice, 0);
    let group = new_group(&api, "losers", &[bob.clone(), carol.clone()]).await;
    let left = new_group(&api, "left", std::slice::from_ref(&bob)).await;
    let mut a = cluster.raw(&alice, 0, Codec::Json).await;
    let mut b = cluster.raw(&bob, 1, Codec::Json).await;
    for (thread, text) in [(&dm, "dm"), (&group, "group"), (&left, "left")] {
        a.send_text(thread, text).await.unwrap();
        seen_until(&mut b, text).await;
    }
    good(super::common::leave(&cluster.api(&bob, 1), &left).await);
    good(api.put(&format!("/v1/blocks/{}", carol.id()), &json!({})).await);
    let insight = Insight::of(&cluster).await;

    // Once with the changes still above the archive's watermark as likely as not, once with all of it archived.
    for round in 0..2 {
        if round == 1 {
            insight.archived().await;
        }
        let before = join_all(everybody.iter().map(async |u| insight.buckets.threads(u.id()).load().await)).await;
        let before: Vec<_> = before.into_iter().map(|t| t.unwrap().unwrap()).collect();
        let group_before = insight.group(&group).await.unwrap();
        for user in &everybody {
            insight.buckets.threads(user.id()).delete().await.unwrap();
        }
        for g in [&group, &left] {
            insight.buckets.group(&gid(g)).delete().await.unwrap();
        }
        // Those who are online do not notice; who attaches gets everything that is theirs.
        let text = format!("all is lost {round}");
        a.send_text(&group, &text).await.unwrap();
        seen_until(&mut b, &text).await;
        let device = bob.log_in(&cluster, 0).await;
        let mut fresh = RawWs::connect(cluster.edge_addr(0), Codec::Json).await;
        let cursors = [&dm, &group, &left].map(|t| (t.clone(), MsgId::NONE));
        let hello =
            Hello { cursors: cursors.into(), ..Hello::new(device.tokens.access.clone(), device.tokens.device.clone()) };
        fresh.send(&ClientFrame::Hello(hello)).await;
        let (pages, refusals) = pages_end(&mut fresh).await;
        assert_eq!(refusals, [], "nothing is unknown");
        for wanted in ["dm", "group", "left", &text] {
            assert!(texts(&pages).iter().any(|t| t == wanted), "{wanted} is missing in {:?}", texts(&pages));
        }
        // A change of the group heals its key; the block still holds.
        good(api.patch(&format!("/v1/groups/{}", gid(&group)), &json!({ "name": format!("found {round}") })).await);
        let text = format!("found again {round}");
        a.send_text(&group, &text).await.unwrap();
        seen_until(&mut fresh, &text).await;
        refused(cluster.api(&bob, 1).get(&format!("/v1/groups/{}", gid(&left))).await, Code::NotMember);
        let mut c = cluster.raw(&carol, 1, Codec::Json).await;
        assert_eq!(c.send_text(&blocked, "let me in").await.unwrap_err().code, Code::Blocked);
        assert_eq!(members(&cluster.api(&carol, 0), &group).await.len(), 3);
        good(cluster.api(&alice, 1).get("/v1/threads").await);

        for (user, before) in everybody.iter().zip(before) {
            let after = insight.buckets.threads(user.id()).load().await.unwrap().expect("there again");
            for (thread, old) in &before.threads {
                let new = &after.threads[thread];
                assert_eq!(
                    (&new.intervals, new.role, new.blocks, new.blocked_by),
                    (&old.intervals, old.role, old.blocks, old.blocked_by),
                    "{thread} of {}",
                    user.name
                );
            }
        }
        let after = insight.group(&group).await.unwrap();
        assert_eq!((after.members, after.history), (group_before.members, group_before.history));
        assert_eq!(after.name, format!("found {round}"));
    }
    // A key that is gone while a change of it is under way: the join is folded, whoever was first.
    let dave = cluster.user("dave").await;
    let mut d = cluster.raw(&dave, 1, Codec::Json).await;
    insight.buckets.threads(dave.id()).delete().await.unwrap();
    good(add(&api, &group, &dave).await);
    a.send_text(&group, "hello dave").await.unwrap();
    seen_until(&mut d, "hello dave").await;
    d.send_text(&group, "hello all").await.unwrap();
    seen_until(&mut b, "hello all").await;
    all_well(&cluster);
}
