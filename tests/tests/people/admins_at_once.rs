//! Two who change a group at once: the log decides, and edges, KV and the archive agree on what it decided.

use std::{ops::Range, time::Duration};

use futures_util::future::join_all;
use natterjack_protocol::{MsgId, Thread, codec::Codec, log::Role};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Cluster, ClusterSpec, User};
use serde_json::{Value, json};

use super::common::{Insight, SOON, add, all_well, gid, good, history_texts, id_of, members, new_group, remove, role};

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
/// other's way. No round comes twice in a group: a name that it has already is no change, and is answered with the id
/// of the last one, which may be the other owner's.
async fn races(cluster: &Cluster, group: &Thread, owners: [&User; 2], others: &[User], rounds: Range<usize>) {
    let [a, b] = [cluster.api(owners[0], 0), cluster.api(owners[1], 1)];
    let path = format!("/v1/groups/{}", gid(group));
    let (x, y) = (&others[0], &others[1]);
    let mut both = 0;
    let half = rounds.len() / 2;
    for round in rounds {
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
            assert_ne!(left, right, "round {round}");
            assert_eq!(after.contains_key(y.id()), round % 4 == 2);
            both += 1;
        }
    }
    assert_eq!(both, half);
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
    races(&cluster, &group, [a, b], &users[2..], 0..rounds).await;
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
        // On the first day their roles come first, with no entry before them in the log.
        let rounds = if day == 0 { 0..0 } else { 4 * day..4 * (day + 1) };
        races(&cluster, &group, [a, b], &users[2..], rounds).await;
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

/// The log's answer to the first change, through edge 0, is lost until the second one is behind it. The ids of both.
async fn behind_a_lost_answer(
    cluster: &Cluster,
    first: impl Future<Output = (u16, Value)>,
    second: impl Future<Output = (u16, Value)>,
) -> [MsgId; 2] {
    let proxy = cluster.nats_proxy(0);
    let lost = proxy.lost();
    // The edge tries again after 2 s, and gives up after 15.
    proxy.drop_live(|_, answer| String::from_utf8_lossy(answer).contains("\"stream\":\"CHAT-"));
    let second = async {
        eventually_within("an answer is lost", SOON, async || proxy.lost() > lost).await;
        let answer = second.await;
        proxy.drop_nothing();
        answer
    };
    let (first, second) = tokio::join!(first, second);
    [first, second].map(|answer| id_of(&good(answer)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_the_log_has_is_not_made_again_when_another_came_behind_it() {
    let cluster = Cluster::start(ClusterSpec { proxied_edges: true, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(3).await;
    let (a, b, x) = (cluster.api(&users[0], 0), cluster.api(&users[1], 1), &users[2]);
    let group = new_group(&a, "lossy", &users[1..2]).await;
    good(role(&a, &group, &users[1], Role::Owner).await);
    let insight = Insight::of(&cluster).await;
    let both_are_the_last = async |[first, second]: [MsgId; 2]| {
        let next = async |after| insight.tail.next_control(&group, after).await.unwrap().map(|record| record.id);
        assert_eq!((next(first).await, next(second).await), (Some(second), None));
    };
    // Made again, it would undo what came behind it.
    both_are_the_last(behind_a_lost_answer(&cluster, add(&a, &group, x), remove(&b, &group, x)).await).await;
    assert!(!members(&b, &group).await.contains_key(x.id()));
    // Judged again, it would be no change, as of the one behind it.
    let (path, name) = (format!("/v1/groups/{}", gid(&group)), json!({ "name": "lossless" }));
    both_are_the_last(behind_a_lost_answer(&cluster, a.patch(&path, &name), add(&b, &group, x)).await).await;
    same_everywhere(&cluster, &insight, &group, &users[1]).await;
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
