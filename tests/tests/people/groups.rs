//! Groups: who may change what in them, and how many they hold.

use natterjack_protocol::{Code, Kind, Thread, codec::Codec, log::Role};
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, paging::whole};
use serde_json::json;

use super::common::{
    add, all_well, gid, good, ids, kinds, leave, members, new_group, refused, remove, role, seen_until,
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
