//! Groups: every change is decided by the log, folded once, and means the same live, in pages, in history and in KV.

use std::time::Duration;

use futures_util::future::join_all;
use natterjack_client::ClientEvent;
use natterjack_protocol::{
    Code, Event as Message, Kind, MsgId, Thread,
    client::frame::{ClientFrame, Hello, HistoryQuery, ServerFrame, TypingIn},
    codec::Codec,
    log::Role,
};
use natterjack_testkit::{eventually_within, within};
use natterjack_tests::kit::paging::{ask, whole};
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, RawWs, Received, User, next_event};
use serde_json::{Value, json};

use super::common::{
    Insight, SOON, add, all_well, gid, good, history_texts, id_of, ids, in_order, kinds, leave, members, new_group,
    refused, remove, role, seen_until, texts,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_say_who_may_change_what_and_a_group_keeps_an_owner() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(6).await;
    let api: Vec<Api> = users.iter().enumerate().map(|(i, u)| cluster.api(u, i % 2)).collect();
    let [owner, admin, member, other, late, stranger] = [0, 1, 2, 3, 4, 5].map(|i| (&users[i], &api[i]));
    let group = new_group(owner.1, "pond", &users[1..4]).await;
    let path = format!("/v1/groups/{}", gid(&group));

    assert_eq!(members(admin.1, &group).await.len(), 4);
    let shown = good(member.1.get(&path).await);
    assert_eq!((shown["name"].as_str(), shown["history"].as_str()), (Some("pond"), Some("since_joining")));
    refused(stranger.1.get(&path).await, Code::NotMember);
    refused(owner.1.get("/v1/groups/g-of-nobody").await, Code::NotFound);

    // Members may write and leave, nothing else.
    refused(member.1.patch(&path, &json!({ "name": "mine" })).await, Code::Forbidden);
    refused(add(member.1, &group, late.0).await, Code::Forbidden);
    refused(remove(member.1, &group, other.0).await, Code::Forbidden);
    refused(role(member.1, &group, member.0, Role::Owner).await, Code::Forbidden);
    refused(add(stranger.1, &group, stranger.0).await, Code::NotMember);
    refused(leave(stranger.1, &group).await, Code::NotMember);

    // Admins rename, add and remove members; roles and admins are for owners.
    good(role(owner.1, &group, admin.0, Role::Admin).await);
    good(admin.1.patch(&path, &json!({ "name": "big pond 🐸" })).await);
    good(add(admin.1, &group, late.0).await);
    good(add(admin.1, &group, late.0).await);
    refused(role(admin.1, &group, late.0, Role::Admin).await, Code::Forbidden);
    refused(remove(admin.1, &group, owner.0).await, Code::Forbidden);
    refused(remove(admin.1, &group, admin.0).await, Code::Invalid);
    good(remove(admin.1, &group, other.0).await);
    good(remove(admin.1, &group, other.0).await);
    refused(role(owner.1, &group, other.0, Role::Admin).await, Code::NotFound);
    for name in ["", &"x".repeat(101)] {
        refused(admin.1.patch(&path, &json!({ "name": name })).await, Code::Invalid);
    }
    good(admin.1.patch(&path, &json!({ "name": "ü".repeat(100) })).await);
    refused(owner.1.post(&format!("{path}/members"), &json!({ "users": ["u-of-nobody"] })).await, Code::NotFound);
    let nobody = owner.1.post("/v1/groups", &json!({ "name": "x", "users": ["u-of-nobody"] })).await;
    refused(nobody, Code::NotFound);

    // The last owner.
    refused(leave(owner.1, &group).await, Code::Conflict);
    refused(role(owner.1, &group, owner.0, Role::Member).await, Code::Conflict);
    good(role(owner.1, &group, admin.0, Role::Owner).await);
    good(role(admin.1, &group, owner.0, Role::Member).await);
    refused(role(owner.1, &group, owner.0, Role::Owner).await, Code::Forbidden);
    let left = good(leave(owner.1, &group).await);
    assert_eq!(good(leave(owner.1, &group).await), left);
    let now = members(admin.1, &group).await;
    assert_eq!(
        now,
        [
            (admin.0.id().clone(), Role::Owner),
            (member.0.id().clone(), Role::Member),
            (late.0.id().clone(), Role::Member)
        ]
        .into()
    );

    // Everybody else leaves, then the owner may: nobody is left behind.
    good(leave(member.1, &group).await);
    good(leave(late.1, &group).await);
    good(leave(admin.1, &group).await);
    refused(admin.1.get(&path).await, Code::NotMember);

    // What happened stands in the thread, for who was there.
    let of_admin = kinds(&whole(admin.1, &group, false).await);
    assert_eq!(of_admin[0], Kind::GroupCreated);
    assert_eq!(of_admin.iter().filter(|k| **k == Kind::GroupRenamed).count(), 2);
    assert_eq!(of_admin.iter().filter(|k| **k == Kind::RoleChanged).count(), 3);
    let list = good(member.1.get("/v1/threads").await);
    assert_eq!(
        (list["threads"][0]["open"].as_bool(), list["threads"][0]["role"].as_str()),
        (Some(false), None),
        "{list}"
    );
    all_well(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_fit_and_one_more_does_not() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(502).await;
    let (owner, last, late) = (&users[0], &users[499], &users[500]);
    let api = cluster.api(owner, 0);
    let all = |n: usize| json!({ "name": "everybody", "users": ids(&users[1..n]) });
    refused(api.post("/v1/groups", &all(501)).await, Code::LimitReached);
    let group: Thread = good(api.post("/v1/groups", &all(500)).await)["thread"].as_str().unwrap().parse().unwrap();
    assert_eq!(members(&cluster.api(last, 1), &group).await.len(), 500);
    refused(add(&api, &group, late).await, Code::LimitReached);

    // A message reaches the last of them, and who is not in it is not.
    let mut reader = cluster.raw(last, 1, Codec::Msgpack).await;
    let mut writer = cluster.raw(owner, 0, Codec::Json).await;
    writer.send_text(&group, "to all").await.unwrap();
    seen_until(&mut reader, "to all").await;
    let mut outside = cluster.raw(late, 1, Codec::Json).await;
    assert_eq!(outside.send_text(&group, "me too").await.unwrap_err().code, Code::NotMember);

    // One goes, one comes; two at once for the last place: exactly one gets it.
    good(leave(&cluster.api(last, 1), &group).await);
    let other = cluster.api(owner, 1);
    let (a, b) = tokio::join!(add(&api, &group, &users[500]), add(&other, &group, &users[501]));
    let mut statuses = [a.0, b.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 422], "{} {}", a.1, b.1);
    assert_eq!(members(&other, &group).await.len(), 500);
    all_well(&cluster);
}

async fn hello_from(cluster: &Cluster, user: &User, edge: usize, cursors: &[(&Thread, MsgId)]) -> RawWs {
    let device = user.log_in(cluster, edge).await;
    let mut ws = RawWs::connect(cluster.edge_addr(edge), Codec::Json).await;
    let hello = Hello {
        cursors: cursors.iter().map(|(t, id)| ((*t).clone(), *id)).collect(),
        ..Hello::new(device.tokens.access.clone(), device.tokens.device.clone())
    };
    ws.send(&ClientFrame::Hello(hello)).await;
    ws
}

/// What a new session gets of one thread until it is attached.
async fn pages_of(ws: &mut RawWs, thread: &Thread) -> Vec<Message> {
    let mut events = Vec::new();
    loop {
        match ws.next().await {
            Received::Frame(ServerFrame::Page(p)) if p.thread.as_ref() == Some(thread) => events.extend(p.events),
            Received::Frame(ServerFrame::Attached { .. }) => return events,
            Received::Closed(code, why) => panic!("closed with {code} {why:?}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_left_keeps_what_was_and_joining_again_neither_exposes_nor_erases_the_middle() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (owner, bob, carol) = (cluster.user("owner").await, cluster.user("bob").await, cluster.user("carol").await);
    let (o, b) = (cluster.api(&owner, 0), cluster.api(&bob, 1));
    let group = new_group(&o, "comings and goings", &[bob.clone(), carol.clone()]).await;
    let mut writer = cluster.raw(&owner, 0, Codec::Json).await;
    let mut near = cluster.raw(&bob, 1, Codec::Json).await;
    let mut witness = cluster.raw(&carol, 1, Codec::Msgpack).await;
    let sdk_device = bob.log_in(&cluster, 0).await;
    let (sdk, mut sdk_events) = cluster.client(&sdk_device, 0).await;
    let dm = owner.dm(&bob);

    for part in ["1 here", "2 away", "3 here", "4 away", "5 here"] {
        let away = part.ends_with("away");
        match part {
            // Removed by somebody; leaves by himself.
            "2 away" => good(remove(&o, &group, &bob).await),
            "4 away" => good(leave(&b, &group).await),
            "3 here" | "5 here" => good(add(&o, &group, &bob).await),
            _ => Value::Null,
        };
        if away {
            // His edge may let something through until it knows (≤ 2 s by promise), and that would be valid for all;
            // then never again.
            within("the edge knows who has gone", SOON, async {
                while near.send_text(&group, "in the lag").await.is_ok() {}
            })
            .await;
            assert_eq!(near.send_text(&group, "never").await.unwrap_err().code, Code::NotMember);
            near.send(&ClientFrame::Typing(TypingIn { thread: group.clone() })).await;
        }
        for i in 0..5 {
            writer.send_text(&group, &format!("{part} {i}")).await.unwrap();
        }
        if !away && part != "1 here" {
            near.send_text(&group, &format!("{part} from bob")).await.unwrap();
        }
    }
    writer.send_text(&dm, "end").await.unwrap();
    writer.send_text(&group, "last").await.unwrap();

    let allowed = |text: &str| text.contains("here") || text == "last" || text == "in the lag";
    let expected =
        |all: &[String]| all.iter().filter(|t| t.contains("here") || *t == "last").cloned().collect::<Vec<_>>();
    let all = texts(&seen_until(&mut witness, "last").await);
    assert_eq!(all.iter().filter(|t| !t.contains("lag")).count(), 5 * 5 + 2 + 1, "who stayed sees all: {all:?}");

    // Live, on a bare socket and in the SDK.
    let live = seen_until(&mut near, "last").await;
    let of_group: Vec<Message> = live.into_iter().filter(|e| e.thread == group).collect();
    assert!(texts(&of_group).iter().all(|t| allowed(t)), "shown too much: {:?}", texts(&of_group));
    let of_live: Vec<String> = texts(&of_group).into_iter().filter(|t| t != "in the lag").collect();
    assert_eq!(of_live, expected(&all));
    let mut of_sdk = Vec::new();
    while of_sdk.last().is_none_or(|t| t != "last") {
        let next = next_event(&mut sdk_events, "the last message", SOON, |e| match e {
            ClientEvent::Message(m) if m.thread == group => m.body.text,
            _ => None,
        });
        of_sdk.push(next.await);
    }
    of_sdk.retain(|t| t != "in the lag");
    assert_eq!(of_sdk, expected(&all));

    // History through both edges, in pages of any size and from any side.
    for edge in [0, 1] {
        let history = whole(&cluster.api(&bob, edge), &group, false).await;
        assert_eq!(texts(&history).into_iter().filter(|t| t != "in the lag").collect::<Vec<_>>(), expected(&all));
        assert_eq!(
            history.iter().filter(|e| matches!(e.kind, Kind::MemberRemoved | Kind::MemberLeft)).count(),
            0,
            "who goes does not see the entry that ends it: {:?}",
            kinds(&history)
        );
        let everything = whole(&cluster.api(&carol, edge), &group, false).await;
        let hidden: Vec<MsgId> =
            everything.iter().filter(|e| !history.iter().any(|h| h.id == e.id)).map(|e| e.id).collect();
        for id in hidden {
            for place in ["before", "after", "around"] {
                let page = good(b.get(&format!("/v1/threads/{group}/messages?{place}={id}&limit=7")).await);
                assert!(!page.to_string().contains("away"), "{place} {id}: {page}");
            }
        }
        for ts in everything.iter().map(|e| e.ts) {
            let page = good(b.get(&format!("/v1/threads/{group}/messages?at={ts}&limit=3")).await);
            assert!(!page.to_string().contains("away"), "at {ts}: {page}");
        }
    }

    // Sync, from every place where a cursor may stand.
    let everything = whole(&cluster.api(&carol, 0), &group, false).await;
    for cursor in
        [MsgId::NONE, everything[3].id, everything[everything.len() / 2].id, everything[everything.len() - 2].id]
    {
        let mut ws = hello_from(&cluster, &bob, 1, &[(&group, cursor)]).await;
        let pages: Vec<String> =
            texts(&pages_of(&mut ws, &group).await).into_iter().filter(|t| t != "in the lag").collect();
        let newer: Vec<String> = texts(&everything.iter().filter(|e| e.id > cursor).cloned().collect::<Vec<_>>());
        assert_eq!(pages, expected(&newer), "from {cursor}");
    }
    // And of somebody who is away now: what was his, nothing else.
    good(leave(&b, &group).await);
    writer.send_text(&group, "6 away").await.unwrap();
    assert_eq!(
        history_texts(&b, &group).await.into_iter().filter(|t| t != "in the lag").collect::<Vec<_>>(),
        expected(&all)
    );
    let mut ws = hello_from(&cluster, &bob, 0, &[(&group, MsgId::NONE)]).await;
    let pages = texts(&pages_of(&mut ws, &group).await);
    assert_eq!(pages.into_iter().filter(|t| t != "in the lag").collect::<Vec<_>>(), expected(&all));
    assert_eq!(ws.send_text(&group, "never").await.unwrap_err().code, Code::NotMember);
    // A stranger reads nothing at all.
    let stranger = cluster.user("stranger").await;
    refused(cluster.api(&stranger, 0).get(&format!("/v1/threads/{group}/messages")).await, Code::NotMember);
    sdk.close().await;
    all_well(&cluster);
}

/// Reads what comes until `last`, downwards too if the first page does not reach the join.
async fn joined_until(ws: &mut RawWs, group: &Thread, last: &str) -> (Vec<Message>, bool) {
    let (mut events, mut told): (Vec<Message>, bool) = (Vec::new(), false);
    while !events.iter().any(|e| e.body.text.as_deref() == Some(last)) {
        match ws.next().await {
            Received::Frame(ServerFrame::Event(e)) if e.thread == *group => events.push(*e),
            Received::Frame(ServerFrame::Page(p)) if p.thread.as_ref() == Some(group) => {
                let mut prev = p.prev;
                let mut older = p.events;
                while !prev.is_none() {
                    let first = older[0].id;
                    let below =
                        HistoryQuery { thread: Some(group.clone()), before: Some(first), ..HistoryQuery::default() };
                    ws.passed_over.clear();
                    let page = ask(ws, below).await.unwrap();
                    prev = page.prev;
                    older.splice(0..0, page.events);
                    // Live events go on meanwhile.
                    older.extend(
                        ws.passed_over
                            .drain(..)
                            .filter_map(|f| if let ServerFrame::Event(e) = f { Some(*e) } else { None }),
                    );
                }
                events.extend(older);
            }
            Received::Frame(ServerFrame::Member { thread, open, .. }) if thread == *group => told |= open,
            Received::Closed(code, why) => panic!("closed with {code} {why:?}"),
            _ => {}
        }
    }
    (in_order(events), told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_added_while_online_misses_nothing_from_the_join_on() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    const ROUNDS: usize = 10;
    let users = cluster.mint_users(2 + ROUNDS).await;
    let (owner, writer) = (&users[0], &users[1]);
    let api = cluster.api(owner, 0);
    for (round, newcomer) in users[2..].iter().enumerate() {
        let group = new_group(&api, "busy", &users[1..2]).await;
        let mut new = cluster.raw(newcomer, 1, Codec::Msgpack).await;
        let mut pen = cluster.raw(writer, round % 2, Codec::Json).await;
        let write = async {
            for i in 0..30 {
                pen.send_text(&group, &format!("{i}")).await.unwrap();
            }
        };
        let join = async {
            // At another moment in each round.
            eventually_within("some messages are there", SOON, async || {
                history_texts(&api, &group).await.len() >= round
            })
            .await;
            id_of(&good(add(&api, &group, newcomer).await))
        };
        let ((), joined_at) = tokio::join!(write, join);
        pen.send_text(&group, "last").await.unwrap();
        let (seen, told) = joined_until(&mut new, &group, "last").await;
        let all = whole(&api, &group, false).await;
        let expected: Vec<MsgId> = all.iter().map(|e| e.id).filter(|id| *id >= joined_at).collect();
        assert_eq!(seen.iter().map(|e| e.id).collect::<Vec<_>>(), expected, "round {round}");
        assert!(told, "a member frame says so");
        assert_eq!(
            whole(&cluster.api(newcomer, 0), &group, false).await.iter().map(|e| e.id).collect::<Vec<_>>(),
            expected
        );
    }
    all_well(&cluster);
}

/// Somebody who has been told by another way that they are in it now, and writes or reads before their edge has heard
/// of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_at_the_moment_of_joining_is_listening_too() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    const ROUNDS: usize = 24;
    let users = cluster.mint_users(1 + ROUNDS).await;
    let api = cluster.api(&users[0], 0);
    let mut pen = cluster.raw(&users[0], 0, Codec::Json).await;
    for (round, newcomer) in users[1..].iter().enumerate() {
        let group = new_group(&api, "quick", &[]).await;
        let mut new = cluster.raw(newcomer, 1, Codec::Json).await;
        let asked = async {
            eventually_within("it is let in", SOON, async || match round % 2 {
                0 => new.send_text(&group, "here I am").await.map(drop).map_err(|e| e.message),
                _ => {
                    let r = new.request();
                    let history = natterjack_protocol::client::frame::HistoryQuery {
                        r,
                        thread: Some(group.clone()),
                        ..Default::default()
                    };
                    new.send(&ClientFrame::History(history)).await;
                    new.until("an answer", |f| match f {
                        ServerFrame::Page(p) if p.r == Some(r) => Some(Ok(())),
                        ServerFrame::Error { r: Some(to), refusal } if to == r => Some(Err(refusal.message)),
                        _ => None,
                    })
                    .await
                }
            })
            .await;
        };
        let added = async { good(add(&api, &group, newcomer).await) };
        tokio::join!(asked, added);
        pen.send_text(&group, "welcome").await.unwrap();
        let heard =
            within("the newcomer hears the others", SOON, async { joined_until(&mut new, &group, "welcome").await });
        heard.await;
    }
    all_well(&cluster);
}

/// The same group by every way there is.
async fn same_everywhere(cluster: &Cluster, insight: &Insight, group: &Thread, reader: &User) {
    let (zero, one) = (members(&cluster.api(reader, 0), group).await, members(&cluster.api(reader, 1), group).await);
    assert_eq!(zero, one, "both edges");
    let kv = insight.group(group).await.unwrap();
    assert_eq!(
        kv.present().map(|(u, r)| (u.clone(), r)).collect::<std::collections::BTreeMap<_, _>>(),
        zero,
        "KV and edges"
    );
    insight.archived().await;
    assert_eq!(insight.rebuilt_group(group).await, kv, "archive and KV");
    // Each member's own key says the same of them.
    for (user, member) in &kv.members {
        let threads = insight.buckets.threads(user).load().await.unwrap().unwrap();
        let item = &threads.threads[group];
        assert_eq!((item.role, &item.intervals), (member.role, &member.intervals), "{user}");
    }
}

/// Two owners change the group at once, each through an edge of their own; in every way in which they can get in each
/// other's way.
async fn races(cluster: &Cluster, group: &Thread, owners: [&User; 2], others: &[User], rounds: usize) {
    let [a, b] = [cluster.api(owners[0], 0), cluster.api(owners[1], 1)];
    let path = format!("/v1/groups/{}", gid(group));
    let (x, y) = (&others[0], &others[1]);
    let mut both = 0;
    for round in 0..rounds {
        let before = members(&a, group).await;
        let name = json!({ "name": format!("round {round}") });
        let (left, right) = match round % 4 {
            // The same person twice: both are told the one entry that adds them, that removes them.
            0 => tokio::join!(add(&a, group, x), add(&b, group, x)),
            1 => tokio::join!(remove(&a, group, x), remove(&b, group, x)),
            // Different things: both happen, in some order.
            2 => tokio::join!(add(&a, group, y), b.patch(&path, &name)),
            _ => tokio::join!(remove(&a, group, y), add(&b, group, &others[2 + round / 4])),
        };
        let after = members(&b, group).await;
        if round % 4 < 2 {
            assert_eq!(good(left), good(right), "round {round}");
            assert_eq!(before.contains_key(x.id()), round % 4 == 1);
            assert_eq!(after.contains_key(x.id()), round % 4 == 0);
        } else {
            let (left, right) = (id_of(&good(left)), id_of(&good(right)));
            assert_ne!(left, right);
            assert_eq!(after.contains_key(y.id()), round % 4 == 2);
            both += 1;
        }
    }
    assert_eq!(both, rounds / 2);
    // Each makes the other a member: exactly one is an owner afterwards.
    let (left, right) =
        tokio::join!(role(&a, group, owners[1], Role::Member), role(&b, group, owners[0], Role::Member));
    let statuses = [left.0, right.0];
    assert!(statuses == [200, 403] || statuses == [403, 200], "{} {}", left.1, right.1);
    let (standing, fallen) = if left.0 == 200 { (&a, owners[1]) } else { (&b, owners[0]) };
    good(role(standing, group, fallen, Role::Owner).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_admins_at_once_one_wins_or_both_in_an_order() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let heavy = std::env::var_os("NATTERJACK_HEAVY").is_some();
    let rounds = if heavy { 400 } else { 48 };
    let users = cluster.mint_users(4 + rounds / 4 + 1).await;
    let (a, b) = (&users[0], &users[1]);
    let api = cluster.api(a, 0);
    let group = new_group(&api, "two captains", &users[1..2]).await;
    good(role(&api, &group, b, Role::Owner).await);
    let insight = Insight::of(&cluster).await;
    races(&cluster, &group, [a, b], &users[2..], rounds).await;
    same_everywhere(&cluster, &insight, &group, a).await;

    // A crowd: ten at once through both edges, each adds one; all of them are in it.
    let crowd = cluster.mint_users(10).await;
    let adding = crowd.iter().enumerate().map(async |(i, user)| {
        let api = cluster.api(if i % 3 == 0 { b } else { a }, i % 2);
        eventually_within("added", SOON, async || match add(&api, &group, user).await {
            (200, _) => Ok(()),
            (503, body) => Err(body.to_string()),
            (status, body) => panic!("{status} {body}"),
        })
        .await;
    });
    join_all(adding).await;
    let now = members(&api, &group).await;
    assert!(crowd.iter().all(|u| now.contains_key(u.id())));
    same_everywhere(&cluster, &insight, &group, a).await;
    all_well(&cluster);
}

/// A day later: the group's last change has left the log, so the next one is appended on the condition that there is
/// none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_admins_a_day_after_the_last_change() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(10).await;
    let (a, b) = (&users[0], &users[1]);
    let api = cluster.api(a, 0);
    let group = new_group(&api, "sleepers", &users[1..2]).await;
    good(role(&api, &group, b, Role::Owner).await);
    let mut ws = cluster.raw(a, 0, Codec::Json).await;
    ws.send_text(&group, "good night").await.unwrap();
    let insight = Insight::of(&cluster).await;

    for day in 0..3 {
        age(&insight, &group).await;
        assert!(insight.tail.last_control(&group).await.unwrap().is_none());
        let others = [users[2].clone(), users[3].clone(), users[4 + day].clone()];
        races(&cluster, &group, [a, b], &others, if day == 0 { 0 } else { 4 }).await;
        same_everywhere(&cluster, &insight, &group, b).await;
        // Written while it was away from the log, and before: all there.
        ws.send_text(&group, &format!("day {day}")).await.unwrap();
    }
    age(&insight, &group).await;
    // With the key lost as well there is only the archive.
    insight.buckets.group(&gid(&group)).delete().await.unwrap();
    let other = cluster.api(b, 1);
    let (left, right) = tokio::join!(add(&api, &group, &users[9]), add(&other, &group, &users[9]));
    assert_eq!(good(left), good(right), "one entry adds them");
    same_everywhere(&cluster, &insight, &group, a).await;
    assert_eq!(history_texts(&api, &group).await, ["good night", "day 0", "day 1", "day 2"]);
    all_well(&cluster);
}

/// Lets everything that is in the log now grow too old for it, archived before.
async fn age(insight: &Insight, group: &Thread) {
    insight.archived().await;
    let js = natterjack_testkit::raw_jetstream(&insight.nats).await;
    for p in 0..insight.layout.partitions {
        let stream = js.get_stream(natterjack_nats::subjects::stream(insight.layout.generation, p)).await.unwrap();
        let usual = stream.cached_info().config.clone();
        let short = Duration::from_millis(200);
        let config = natterjack_testkit::raw_nats::jetstream::stream::Config {
            max_age: short,
            duplicate_window: short,
            ..usual.clone()
        };
        js.update_stream(config).await.unwrap();
        eventually_within("the log has forgotten", Duration::from_secs(20), async || {
            insight.tail.bounds(p).await.map(|b| b.entries == 0).unwrap_or(false)
        })
        .await;
        js.update_stream(usual).await.unwrap();
    }
    assert!(insight.tail.last_control(group).await.unwrap().is_none());
}
