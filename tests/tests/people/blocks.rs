//! Blocks and the start of a conversation: decided by the log, seen by the blocker's own devices only.

use natterjack_client::ClientEvent;
use natterjack_protocol::{
    Code, Kind, Thread,
    client::frame::{ClientFrame, ServerFrame, TypingIn},
    codec::Codec,
};
use natterjack_testkit::{eventually_within, within};
use natterjack_tests::kit::paging::whole;
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, User, next_event};
use serde_json::json;

use super::common::{SOON, all_well, frames_until, good, history_texts, kinds, new_group, refused, seen_until};

async fn until_member(ws: &mut RawWs, of: &Thread) -> bool {
    ws.until("a member frame", |f| match f {
        ServerFrame::Member { thread, open, .. } if thread == *of => Some(open),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_blocked_cannot_write_and_never_sees_the_block() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let second = alice.log_in(&cluster, 1).await;
    let dm = alice.dm(&bob);
    let (a_api, b_api) = (cluster.api(&alice, 0), cluster.api(&bob, 1));
    let mut a = cluster.raw(&alice, 0, Codec::Json).await;
    let mut a2 = cluster.raw(&second, 1, Codec::Msgpack).await;
    let mut b = cluster.raw(&bob, 1, Codec::Json).await;
    let before = b.send_text(&dm, "before").await.unwrap();
    seen_until(&mut a, "before").await;
    seen_until(&mut a2, "before").await;
    seen_until(&mut b, "before").await;

    good(a_api.put(&format!("/v1/blocks/{}", bob.id()), &json!({})).await);
    good(a_api.put(&format!("/v1/blocks/{}", bob.id()), &json!({})).await);
    refused(a_api.put(&format!("/v1/blocks/{}", alice.id()), &json!({})).await, Code::Invalid);
    refused(a_api.put("/v1/blocks/u-of-nobody", &json!({})).await, Code::NotFound);
    // Both devices of the blocker see it, in the thread's order.
    for ws in [&mut a, &mut a2] {
        let kind = ws.event().await.kind;
        assert_eq!(kind, Kind::Blocked);
    }
    // Neither can write; within the edge's lag a message may still pass, and then everybody has it.
    let mut slipped = 0;
    within("the block is known at the other's edge", SOON, async {
        loop {
            match b.send_text(&dm, "slipped through").await {
                Ok(_) => slipped += 1,
                Err(e) => break assert_eq!(e.code, Code::Blocked),
            }
        }
    })
    .await;
    eventually_within("the block is known at the blocker's other edge", SOON, async || {
        let refusal = a2.send_text(&dm, "to whom I block").await.err();
        refusal.map(|e| assert_eq!(e.code, Code::Blocked))
    })
    .await;
    assert_eq!(a.send_text(&dm, "to whom I block").await.unwrap_err().code, Code::Blocked);
    // Nobody has deleted anything, and writing is hidden.
    b.send(&ClientFrame::Typing(TypingIn { thread: dm.clone() })).await;
    b.until("typing is refused", |f| match f {
        ServerFrame::Error { r: None, refusal } => {
            assert_eq!(refusal.code, Code::Blocked);
            Some(())
        }
        _ => None,
    })
    .await;
    // Also who comes only now, and through the other edge.
    let bob2 = bob.log_in(&cluster, 0).await;
    let mut late = cluster.raw(&bob2, 0, Codec::Json).await;
    assert_eq!(late.send_text(&dm, "and now?").await.unwrap_err().code, Code::Blocked);

    good(a_api.delete(&format!("/v1/blocks/{}", bob.id())).await);
    good(a_api.delete(&format!("/v1/blocks/{}", bob.id())).await);
    eventually_within("writing works again", SOON, async || b.send_text(&dm, "after").await.map_err(|e| e.code.name()))
        .await;
    let (seen, others) = frames_until(&mut b, "after").await;
    assert!(seen.iter().all(|e| e.kind == Kind::Text), "the blocked one sees {:?}", kinds(&seen));
    // That the conversation has begun may be told as late as this.
    let tells = |f: &&ServerFrame| match f {
        ServerFrame::Typing { .. } => true,
        ServerFrame::Member { id, .. } => *id > before,
        _ => false,
    };
    assert_eq!(others.iter().filter(tells).count(), 0, "nobody tells the blocked one: {others:?}");
    let (seen, others) = frames_until(&mut a, "after").await;
    assert!(kinds(&seen).contains(&Kind::Unblocked), "the blocker sees the end of it: {:?}", kinds(&seen));
    assert!(!others.iter().any(|f| matches!(f, ServerFrame::Typing { .. })), "typing of the blocked one is hidden");

    // Pages and history say the same as the live path.
    let of_alice = whole(&a_api, &dm, false).await;
    let of_bob = whole(&b_api, &dm, false).await;
    assert_eq!(kinds(&of_alice).iter().filter(|k| matches!(k, Kind::Blocked | Kind::Unblocked)).count(), 2);
    assert!(of_bob.iter().all(|e| !e.kind.only_for_its_author()), "{:?}", kinds(&of_bob));
    assert_eq!(of_bob.len() + 2, of_alice.len());
    assert_eq!(of_bob.iter().filter(|e| e.body.text.as_deref() == Some("slipped through")).count(), slipped);
    let bob3 = bob.log_in(&cluster, 0).await;
    let mut paged = cluster.raw(&bob3, 0, Codec::Msgpack).await;
    paged.send_text(&dm, "end").await.unwrap();
    let mut fresh = RawWs::connect(cluster.edge_addr(1), Codec::Msgpack).await;
    let bob4 = bob.log_in(&cluster, 1).await;
    let token = natterjack_protocol::client::frame::Hello {
        cursors: [(dm.clone(), natterjack_protocol::MsgId::NONE)].into(),
        ..natterjack_protocol::client::frame::Hello::new(bob4.tokens.access.clone(), bob4.tokens.device.clone())
    };
    fresh.send(&ClientFrame::Hello(token)).await;
    let pages = seen_until(&mut fresh, "end").await;
    assert!(pages.iter().all(|e| !e.kind.only_for_its_author()), "{:?}", kinds(&pages));
    all_well(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_can_be_blocked_before_the_first_word_and_groups_are_not_touched() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(3).await;
    let [alice, bob, carol] = [&users[0], &users[1], &users[2]];
    let dm = alice.dm(bob);
    let group = new_group(&cluster.api(carol, 0), "all three", &users[..2]).await;
    good(cluster.api(alice, 0).put(&format!("/v1/blocks/{}", bob.id()), &json!({})).await);
    let mut a = cluster.raw(alice, 0, Codec::Json).await;
    let mut b = cluster.raw(bob, 1, Codec::Json).await;
    assert_eq!(b.send_text(&dm, "hello stranger").await.unwrap_err().code, Code::Blocked);
    assert_eq!(history_texts(&cluster.api(alice, 1), &dm).await, Vec::<String>::new());
    // A block is of the two of them, not of the group they share.
    b.send_text(&group, "hello everybody").await.unwrap();
    seen_until(&mut a, "hello everybody").await;
    // What the other does is shown to whoever is not blocked, and to the blocker nowhere.
    let mut c = cluster.raw(carol, 1, Codec::Json).await;
    b.send(&ClientFrame::Typing(TypingIn { thread: dm.clone() })).await;
    b.send(&ClientFrame::Typing(TypingIn { thread: group.clone() })).await;
    let shown = |f: ServerFrame| match f {
        ServerFrame::Typing { thread, .. } => Some(thread),
        _ => None,
    };
    assert_eq!(c.until("typing", shown).await, group);
    b.send_text(&group, "no more to say").await.unwrap();
    let (_, others) = frames_until(&mut a, "no more to say").await;
    assert_eq!(others.into_iter().find_map(shown), None, "the blocker does not see that the other types");
    good(cluster.api(alice, 1).delete(&format!("/v1/blocks/{}", bob.id())).await);
    assert!(until_member(&mut a, &dm).await, "the blocker's device is told that the conversation is open");
    eventually_within("writing works", SOON, async || b.send_text(&dm, "at last").await.map_err(|e| e.code.name()))
        .await;
    seen_until(&mut a, "at last").await;
    all_well(&cluster);
}

/// The block falls while the other writes: whatever was acknowledged before, during or after, both read the same
/// messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_start_a_conversation_at_the_same_moment() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    const ROUNDS: usize = 12;
    let users = cluster.mint_users(2 * ROUNDS).await;
    for pair in users.chunks(2) {
        let [x, y]: &[User; 2] = pair.try_into().unwrap();
        let dm = x.dm(y);
        let (xc, mut xe) = cluster.client(x, 0).await;
        let (yc, mut ye) = cluster.client(y, 1).await;
        let (sx, sy) = tokio::join!(xc.send_text(dm.clone(), "from x"), yc.send_text(dm.clone(), "from y"));
        sx.unwrap();
        sy.unwrap();
        let both = async |events: &mut natterjack_client::Events| {
            let mut seen: Vec<(natterjack_protocol::MsgId, Kind, Option<String>)> = Vec::new();
            while seen.iter().filter(|(_, k, _)| *k == Kind::Text).count() < 2 {
                let next = next_event(events, "both first messages", SOON, |e| match e {
                    ClientEvent::Message(m) => Some((m.id, m.kind, m.body.text)),
                    ClientEvent::Failed { refusal, .. } => panic!("{refusal}"),
                    _ => None,
                });
                seen.push(next.await);
            }
            seen
        };
        let (x_saw, y_saw) = (both(&mut xe).await, both(&mut ye).await);
        assert_eq!(x_saw, y_saw, "both sides see one order");
        let begun = whole(&cluster.api(x, 1), &dm, false).await;
        assert_eq!(begun.iter().filter(|e| e.kind == Kind::DmStarted).count(), 1, "it began once: {:?}", kinds(&begun));
        assert_eq!(begun[0].kind, Kind::DmStarted);
        assert_eq!(begun, whole(&cluster.api(y, 0), &dm, false).await);
        let ids: Vec<_> = begun.iter().map(|e| e.id).collect();
        assert_eq!(ids, x_saw.iter().map(|s| s.0).collect::<Vec<_>>(), "live and history are one");
        tokio::join!(xc.close(), yc.close());
    }
    // With oneself: once, not twice.
    let me = &users[0];
    let notes = Thread::dm(me.id(), me.id());
    let mut ws = cluster.raw(me, 0, Codec::Json).await;
    ws.send_text(&notes, "note one").await.unwrap();
    ws.send_text(&notes, "note two").await.unwrap();
    let seen = seen_until(&mut ws, "note two").await;
    let notes_seen = seen.iter().filter(|e| e.thread == notes && e.kind == Kind::Text).count();
    assert_eq!(notes_seen, 2);
    assert_eq!(history_texts(&cluster.api(me, 1), &notes).await, ["note one", "note two"]);
    refused(cluster.api(&users[1], 0).get(&format!("/v1/threads/{notes}/messages")).await, Code::NotMember);
    all_well(&cluster);
}
