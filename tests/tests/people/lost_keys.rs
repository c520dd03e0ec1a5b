//! Keys of KV that are lost: they are built again out of archive and log, and whoever comes meanwhile misses nothing.

use futures_util::future::join_all;
use natterjack_protocol::{
    Code, MsgId,
    client::frame::{ClientFrame, Hello},
    codec::Codec,
};
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, User};
use serde_json::json;

use super::common::{
    Insight, add, all_well, gid, good, leave, members, new_group, pages_end, refused, seen_until, texts,
};

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
    good(leave(&cluster.api(&bob, 1), &left).await);
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
