//! The archive is away: who is there goes on, who comes is attached, and what needs it is refused for now.

use std::time::Duration;

use natterjack_protocol::{
    Code, MsgId, Thread,
    client::frame::{ClientFrame, Hello, HistoryQuery, ServerFrame},
    codec::Codec,
};
use natterjack_testkit::{eventually_within, within};
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs};
use serde_json::json;

use super::common::{
    Insight, LONG, SOON, all_well, history_texts, members, new_group, pages_end, refused, seen_until, texts,
};

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
