//! An archive that stays away: sends are refused before the log begins to forget what nobody has archived. (On SQLite;
//! the rule is the channel's and the edges'.)

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use natterjack_protocol::{Code, MsgId, codec::Codec};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::paging::whole;
use natterjack_tests::kit::{Cluster, ClusterSpec};
use serde_json::json;

use super::common::{DIVISOR, no_longer_young};
use crate::{
    people::common::Insight,
    watching::{SOON, send_through},
};

/// 36 s. A third of it is kept for repairs, so sends are refused when the archive is 24 s behind.
const LOG_KEEPS_HOURS: &str = "0.01";
const REFUSED_FROM: Duration = Duration::from_secs(24);
/// A beat, and the question behind it.
const NOTICED: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_are_refused_before_the_log_forgets_what_is_not_archived() {
    let set = vec![("times.log_max_age_hours".to_owned(), LOG_KEEPS_HOURS.to_owned())];
    let cluster =
        Cluster::start(ClusterSpec { times_divisor: DIVISOR, set, alone: true, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(2).await;
    let (thread, insight) = (users[0].dm(&users[1]), Insight::of(&cluster).await);
    let mut ws = cluster.raw(&users[0], 0, Codec::Msgpack).await;
    let mut acked = BTreeSet::from([send_through(&mut ws, &thread, "archived").await]);
    no_longer_young(&insight).await;
    insight.archived().await;

    cluster.persister(0).kill9().await;
    let first = ws.send_text(&thread, "the first that is not archived").await.unwrap();
    let begun = Instant::now();
    acked.insert(first);
    let (cid, refusal) = loop {
        let cid = ws.cid();
        match ws.send_cid(&thread, cid, "goes on").await {
            Ok(id) => acked.insert(id),
            Err(refusal) => break (cid, refusal),
        };
        assert!(begun.elapsed() < REFUSED_FROM + NOTICED, "not refused after {:?}", begun.elapsed());
        // A pace: it takes half a minute until the first is refused.
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(refusal.code, Code::StorageBehind, "{refusal:?}");
    assert!(refusal.retry_after_ms.is_some(), "{refusal:?}");
    assert!(begun.elapsed() + Duration::from_secs(1) > REFUSED_FROM, "refused too early: {:?}", begun.elapsed());
    let kept = insight.tail.bounds(insight.layout.partition(&thread)).await.unwrap();
    assert!(kept.first <= first, "the log has forgotten {first} already: it begins at {}", kept.first);
    // The same through the other edge and over HTTP.
    let api = cluster.api(&users[0], 1);
    let (status, body) = api
        .post(
            &format!("/v1/threads/{thread}/messages"),
            &json!({ "cid": ws.cid(), "kind": "text", "body": { "text": "too" } }),
        )
        .await;
    assert_eq!((status, body["code"].as_str()), (503, Some(Code::StorageBehind.name())), "{body}");

    cluster.persister(0).start().await;
    let again =
        eventually_within("sends are taken again", SOON, async || ws.send_cid(&thread, cid, "goes on").await).await;
    acked.insert(again);
    insight.archived().await;
    let ids: Vec<MsgId> =
        whole(&api, &thread, false).await.iter().filter(|e| !e.kind.is_control()).map(|e| e.id).collect();
    assert_eq!(
        ids,
        acked.into_iter().collect::<Vec<_>>(),
        "everything that was acknowledged, once, and nothing that was refused"
    );
}
