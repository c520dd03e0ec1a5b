//! Coming into a group and leaving it: what somebody may read of it is the same live, in pages, in history, in a sync.

use natterjack_client::ClientEvent;
use natterjack_protocol::{
    Code, Event as Message, Kind, MsgId, Thread,
    client::frame::{ClientFrame, Hello, HistoryQuery, ServerFrame, TypingIn},
    codec::Codec,
};
use natterjack_testkit::{eventually_within, within};
use natterjack_tests::kit::{
    Cluster, ClusterSpec, RawWs, Received, User, next_event,
    paging::{ask, whole},
};
use serde_json::Value;

use super::common::{
    SOON, add, all_well, good, history_texts, id_of, in_order, kinds, leave, new_group, refused, remove, seen_until,
    texts,
};

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

/// The parts of a conversation in a group that bob leaves and joins again: five messages by the owner in each, and one
/// by bob after each return.
const PARTS: [&str; 5] = ["1 here", "2 away", "3 here", "4 away", "5 here"];
/// Sent by bob after the removal, until bob's edge knows of it. Such a message is valid for everybody.
const IN_THE_LAG: &str = "in the lag";

/// Texts without what an edge may let through for a moment (at most 2 s, as promised).
fn settled(texts: Vec<String>) -> Vec<String> {
    texts.into_iter().filter(|t| t != IN_THE_LAG).collect()
}

/// What of all texts bob may read.
fn of_bob(all: &[String]) -> Vec<String> {
    all.iter().filter(|t| t.contains("here") || *t == "last").cloned().collect()
}

struct Comings {
    cluster: Cluster,
    owner: User,
    bob: User,
    carol: User,
    group: Thread,
}

impl Comings {
    async fn new() -> Self {
        let cluster = Cluster::start(ClusterSpec::default()).await;
        let (owner, bob, carol) = (cluster.user("owner").await, cluster.user("bob").await, cluster.user("carol").await);
        let group = new_group(&cluster.api(&owner, 0), "comings and goings", &[bob.clone(), carol.clone()]).await;
        Self { cluster, owner, bob, carol, group }
    }

    /// Bob is removed and added, leaves and is added, while the owner writes; `near` is bob's socket at edge 1.
    async fn happen(&self, writer: &mut RawWs, near: &mut RawWs) {
        let (owner, bob) = (self.cluster.api(&self.owner, 0), self.cluster.api(&self.bob, 1));
        for part in PARTS {
            match part {
                "2 away" => good(remove(&owner, &self.group, &self.bob).await),
                "4 away" => good(leave(&bob, &self.group).await),
                "3 here" | "5 here" => good(add(&owner, &self.group, &self.bob).await),
                _ => Value::Null,
            };
            let away = part.ends_with("away");
            if away {
                within("the edge knows who has gone", SOON, async {
                    while near.send_text(&self.group, IN_THE_LAG).await.is_ok() {}
                })
                .await;
                assert_eq!(near.send_text(&self.group, "never").await.unwrap_err().code, Code::NotMember);
                near.send(&ClientFrame::Typing(TypingIn { thread: self.group.clone() })).await;
            }
            for i in 0..5 {
                writer.send_text(&self.group, &format!("{part} {i}")).await.unwrap();
            }
            if !away && part != PARTS[0] {
                near.send_text(&self.group, &format!("{part} from bob")).await.unwrap();
            }
        }
        writer.send_text(&self.owner.dm(&self.bob), "end").await.unwrap();
        writer.send_text(&self.group, "last").await.unwrap();
    }

    /// History through both edges, in pages of any size and from any side.
    async fn history_is(&self, expected: &[String]) {
        let bob = self.cluster.api(&self.bob, 1);
        for edge in [0, 1] {
            let history = whole(&self.cluster.api(&self.bob, edge), &self.group, false).await;
            assert_eq!(settled(texts(&history)), expected);
            assert_eq!(
                history.iter().filter(|e| matches!(e.kind, Kind::MemberRemoved | Kind::MemberLeft)).count(),
                0,
                "who goes does not see the entry that ends it: {:?}",
                kinds(&history)
            );
            let everything = whole(&self.cluster.api(&self.carol, edge), &self.group, false).await;
            let hidden = everything.iter().filter(|e| !history.iter().any(|h| h.id == e.id));
            let by_id =
                hidden.flat_map(|e| ["before", "after", "around"].map(|place| format!("{place}={}&limit=7", e.id)));
            let by_time = everything.iter().map(|e| format!("at={}&limit=3", e.ts));
            for place in by_id.chain(by_time) {
                let page = good(bob.get(&format!("/v1/threads/{}/messages?{place}", self.group)).await);
                assert!(!page.to_string().contains("away"), "{place}: {page}");
            }
        }
    }

    /// A sync from every place where a cursor may stand.
    async fn syncs_give(&self, expected: impl Fn(&[String]) -> Vec<String>) {
        let everything = whole(&self.cluster.api(&self.carol, 0), &self.group, false).await;
        let n = everything.len();
        for cursor in [MsgId::NONE, everything[3].id, everything[n / 2].id, everything[n - 2].id] {
            let mut ws = hello_from(&self.cluster, &self.bob, 1, &[(&self.group, cursor)]).await;
            let pages = settled(texts(&pages_of(&mut ws, &self.group).await));
            let newer: Vec<Message> = everything.iter().filter(|e| e.id > cursor).cloned().collect();
            assert_eq!(pages, expected(&texts(&newer)), "from {cursor}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_left_keeps_what_was_and_joining_again_neither_exposes_nor_erases_the_middle() {
    let w = Comings::new().await;
    let Comings { cluster, owner, bob, carol, group } = &w;
    let mut writer = cluster.raw(owner, 0, Codec::Json).await;
    let mut near = cluster.raw(bob, 1, Codec::Json).await;
    let mut witness = cluster.raw(carol, 1, Codec::Msgpack).await;
    let sdk_device = bob.log_in(cluster, 0).await;
    let (sdk, mut sdk_events) = cluster.client(&sdk_device, 0).await;
    w.happen(&mut writer, &mut near).await;
    let all = texts(&seen_until(&mut witness, "last").await);
    assert_eq!(all.iter().filter(|t| !t.contains("lag")).count(), 5 * 5 + 2 + 1, "who stayed sees all: {all:?}");
    let expected = of_bob(&all);

    // Live, on a bare socket and in the SDK.
    let live: Vec<Message> = seen_until(&mut near, "last").await.into_iter().filter(|e| e.thread == *group).collect();
    assert_eq!(settled(texts(&live)), expected);
    let mut of_sdk = Vec::new();
    while of_sdk.last().is_none_or(|t| t != "last") {
        let next = next_event(&mut sdk_events, "the last message", SOON, |e| match e {
            ClientEvent::Message(m) if m.thread == *group => m.body.text,
            _ => None,
        });
        of_sdk.push(next.await);
    }
    assert_eq!(settled(of_sdk), expected);
    w.history_is(&expected).await;
    w.syncs_give(of_bob).await;

    // And of somebody who is away now: what was theirs, nothing else.
    let b = cluster.api(bob, 1);
    good(leave(&b, group).await);
    writer.send_text(group, "6 away").await.unwrap();
    assert_eq!(settled(history_texts(&b, group).await), expected);
    let mut ws = hello_from(cluster, bob, 0, &[(group, MsgId::NONE)]).await;
    assert_eq!(settled(texts(&pages_of(&mut ws, group).await)), expected);
    assert_eq!(ws.send_text(group, "never").await.unwrap_err().code, Code::NotMember);
    // A stranger reads nothing at all.
    let stranger = cluster.user("stranger").await;
    refused(cluster.api(&stranger, 0).get(&format!("/v1/threads/{group}/messages")).await, Code::NotMember);
    sdk.close().await;
    all_well(cluster);
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
                    let history = HistoryQuery { r, thread: Some(group.clone()), ..HistoryQuery::default() };
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
