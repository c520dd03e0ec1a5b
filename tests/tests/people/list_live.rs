//! The list of threads over a socket is as new as what came on it before; over HTTP, as the log.

use natterjack_protocol::{
    Body, Kind, MsgId,
    client::frame::{ClientFrame, ServerFrame, ThreadSummary, ThreadsQuery},
    codec::Codec,
};
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, RawWs};
use serde_json::json;

use super::common::{all_well, gid, good, new_group, seen_until};

/// The first row of the list.
async fn over_http(api: &Api) -> ThreadSummary {
    serde_json::from_value(good(api.get("/v1/threads").await)["threads"][0].take()).unwrap()
}

async fn over_socket(ws: &mut RawWs) -> ThreadSummary {
    let r = ws.request();
    ws.send(&ClientFrame::Threads(ThreadsQuery { r, ..ThreadsQuery::default() })).await;
    ws.until("the list", |f| match f {
        ServerFrame::Threads { r: to, mut threads, .. } if to == r => Some(threads.remove(0)),
        _ => None,
    })
    .await
}

async fn shown(ws: &mut RawWs, id: MsgId) {
    ws.until("an event", |f| matches!(f, ServerFrame::Event(e) if e.id == id).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_has_what_was_shown_before_it_and_over_http_what_the_log_has() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob, carol) = (cluster.user("alice").await, cluster.user("bob").await, cluster.user("carol").await);
    let owner = cluster.api(&bob, 0);
    let group = new_group(&owner, "before", &[alice.clone(), carol.clone()]).await;
    let (desk, bobs_desk) = (alice.log_in(&cluster, 1).await, bob.log_in(&cluster, 1).await);
    let mut writers = [cluster.raw(&bob, 0, Codec::Json).await, cluster.raw(&bobs_desk, 1, Codec::Msgpack).await];
    let mut readers = [cluster.raw(&alice, 0, Codec::Json).await, cluster.raw(&desk, 1, Codec::Msgpack).await];
    // Carol has no session; others in the group have one at both edges.
    let carols = [0, 1].map(|n| cluster.api(&carol, n));
    let mut unread = 0;
    for n in 0..40_usize {
        let text = format!("text {n}");
        let id = writers[n % 2].send_text(&group, &text).await.unwrap();
        unread += 1;
        for api in &carols {
            let row = over_http(api).await;
            assert_eq!((row.last.unwrap().id, row.unread), (id, Some(unread)), "right after its ack");
        }
        for ws in &mut readers {
            seen_until(ws, &text).await;
            let row = over_socket(ws).await;
            assert_eq!((row.last.unwrap().body.text, row.unread), (Some(text.clone()), Some(unread)));
        }
        match n % 4 {
            0 => {
                let name = format!("name {n}");
                let path = format!("/v1/groups/{}", gid(&group));
                let changed = good(owner.patch(&path, &json!({ "name": name })).await);
                for api in &carols {
                    assert_eq!(over_http(api).await.name.as_ref(), Some(&name));
                }
                for ws in &mut readers {
                    shown(ws, serde_json::from_value(changed["id"].clone()).unwrap()).await;
                    assert_eq!(over_socket(ws).await.name.as_ref(), Some(&name));
                }
            }
            1 => {
                let (cid, body) = (writers[0].cid(), Body { target: Some(id), ..Body::default() });
                let recalled = writers[0].send_kind(&group, cid, Kind::Recall, body).await.unwrap();
                unread -= 1;
                for api in &carols {
                    assert_eq!(over_http(api).await.unread, Some(unread));
                }
                for ws in &mut readers {
                    shown(ws, recalled).await;
                    assert_eq!(over_socket(ws).await.unread, Some(unread));
                }
            }
            _ => {}
        }
    }
    all_well(&cluster);
}
