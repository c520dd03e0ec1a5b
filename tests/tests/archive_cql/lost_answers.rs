//! Lost answers over an archive on CQL servers, whose accounts and rows are written in another way than SQLite's; and
//! the one answer that only such an archive gives.

use natterjack_protocol::{
    Body, Cid, Code, Kind, MsgId, Thread,
    client::frame::{ClientFrame, SendMessage, ServerFrame},
    codec::Codec,
    limits,
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Cassandra, RawWs, User};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep_until};

use super::common::no_longer_young;
use crate::{
    people::{
        common::{Insight, all_well, refused},
        lost_changes::{World, accounts_are_made_and_logins_ended_once, changes_are_made_once},
    },
    watching::SOON,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "10,000 messages over Apache Cassandra; make test-heavy"]
async fn heavy_what_was_done_is_not_done_again_when_its_answer_was_lost() {
    let cql = Cassandra::one().await;
    let set = [cql.settings(), vec![("limits.sends_per_user".to_owned(), "0".to_owned())]].concat();
    let world = World::start(set).await;
    accounts_are_made_and_logins_ended_once(&world).await;
    a_resend_is_too_old_after_so_many_later_messages(&world).await;
    changes_are_made_once(&world).await;
    all_well(&world.cluster);
}

/// All of it in one thread, one behind the other, below the rate of frames that a session may have.
async fn crowd(ws: &mut RawWs, thread: &Thread, many: usize) -> MsgId {
    let (mut open, mut last, mut left, began) = (0, MsgId::NONE, many, Instant::now());
    let pace = Duration::from_secs(1) / (limits::FRAMES_PER_SECOND * 9 / 10);
    while left > 0 || open > 0 {
        let room = (limits::INFLIGHT_REQUESTS - open).min(left);
        let frames: Vec<ClientFrame> = (0..room)
            .map(|_| {
                let (r, cid, body) = (ws.request(), ws.cid(), Body::text("x"));
                ClientFrame::Send(SendMessage { r, cid, thread: thread.clone(), kind: Kind::Text, body, behind: None })
            })
            .collect();
        sleep_until(began + pace * (many - left) as u32).await;
        ws.send_together(&frames).await;
        (open, left) = (open + room, left - room);
        let id = ws.until("sent", |f| match f {
            ServerFrame::Sent { id, .. } => Some(id),
            ServerFrame::Error { refusal, .. } => panic!("{refusal:?}"),
            _ => None,
        });
        last = last.max(id.await);
        open -= 1;
        ws.passed_over.clear();
    }
    last
}

/// The bound is the one of docs/protocol.md, to the message.
async fn a_resend_is_too_old_after_so_many_later_messages(world: &World) {
    let (cluster, insight) = (&world.cluster, Insight::of(&world.cluster).await);
    no_longer_young(&insight).await;
    let users = cluster.mint_users(2).await;
    let (a, b): (&User, &User) = (&users[0], &users[1]);
    let dm = a.dm(b);
    let mut ws = cluster.raw(a, 0, Codec::Msgpack).await;
    let cid: Cid = ws.cid();
    let first = ws.send_cid(&dm, cid, "whose answer was lost").await.unwrap();
    // With `dm_started`, which is in the same seconds, one fewer than may be searched.
    crowd(&mut ws, &dm, limits::RESEND_ROWS - 2).await;
    insight.archived().await;
    let path = format!("/v1/threads/{dm}/messages");
    let body = json!({ "cid": cid, "kind": "text", "body": { "text": "whose answer was lost" } });
    let (status, again) = cluster.api(a, 1).post(&path, &body).await;
    assert_eq!((status, again["id"].as_u64()), (200, Some(first.0)), "{again}");
    crowd(&mut ws, &dm, 2).await;
    insight.archived().await;
    eventually_within("too old over HTTP", SOON, async || {
        let answer = cluster.api(a, 1).post(&path, &body).await;
        if answer.0 == 503 {
            return Err(answer.1.to_string());
        }
        refused(answer, Code::ResendTooOld);
        Ok(())
    })
    .await;
    assert_eq!(ws.send_cid(&dm, cid, "whose answer was lost").await.unwrap_err().code, Code::ResendTooOld);
}
