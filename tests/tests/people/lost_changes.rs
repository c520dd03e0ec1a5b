//! What the tests of lost answers do, on an installation over either archive: each request is done once and its answer
//! lost, repeated through the other edge it is answered as if it had been the first, and is no second change.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use natterjack_protocol::{Cid, Code, Kind, Most, MsgId, Thread, client::http::Tokens, log::Role};
use natterjack_testkit::{eventually_within, now_ms};
use natterjack_tests::kit::paging::whole;
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, LossyEdge, User};
use reqwest::Method;
use serde_json::{Value, json};

use super::common::{Insight, SOON, gid, good, id_of, ids, kinds, members, refused};

/// Two edges, of which the first loses its answers.
pub struct World {
    pub cluster: Cluster,
    lossy: LossyEdge,
    insight: Insight,
}

fn cid() -> Cid {
    Cid::mint(now_ms(), rand::random())
}

fn thread_of(made: &Value) -> Thread {
    made["thread"].as_str().unwrap().parse().unwrap()
}

impl World {
    /// `set`: of the configuration.
    pub async fn start(set: Vec<(String, String)>) -> Self {
        // A stream that is younger than 3 s (15 without the divisor) takes another way: both are gone.
        let cluster = Cluster::start(ClusterSpec { times_divisor: 5, set, ..ClusterSpec::default() }).await;
        Self { lossy: LossyEdge::start(&cluster, 0).await, insight: Insight::of(&cluster).await, cluster }
    }

    /// The control entries of a thread that the log has.
    async fn changes(&self, thread: &Thread) -> Vec<MsgId> {
        let last = self.insight.tail.last(thread).await.unwrap().map_or(MsgId::NONE, |r| r.id);
        let records = self.insight.tail.after(thread, MsgId::NONE, last, Most::count(1_000)).await.unwrap();
        records.into_iter().filter(|r| r.control).map(|r| r.id).collect()
    }

    /// Done once, with the answer lost; then twice more, through either edge. The answer of the last time.
    async fn once(&self, who: &User, thread: &Thread, method: Method, path: &str, body: Value) -> Value {
        let before = self.changes(thread).await;
        self.lossy.lose(Some(who), method.clone(), path, &body).await;
        let after = self.changes(thread).await;
        assert_eq!(after.len(), before.len() + 1, "{method} {path}: it was done");
        let mut last = Value::Null;
        for edge in [1, 0] {
            last = good(self.cluster.api(who, edge).call(method.clone(), path, Some(&body)).await);
            assert_eq!((id_of(&last), thread_of(&last)), (after[after.len() - 1], thread.clone()), "{method} {path}");
        }
        assert_eq!(self.changes(thread).await, after, "{method} {path}: there is no second change");
        last
    }

    async fn create(&self, who: &User, edge: usize, body: &Value) -> Value {
        good(self.cluster.api(who, edge).post("/v1/groups", body).await)
    }
}

/// Groups, blocks, contacts, messages, and a change of the log's generation.
pub async fn changes_are_made_once(world: &World) {
    let users = world.cluster.mint_users(6).await;
    let group = groups_are_made_once(world, &users).await;
    changes_of_a_group(world, &group, &users).await;
    blocks_and_contacts(world, &users).await;
    // By now the streams are old enough for a group to be made without a lookup.
    many_make_one_group(world, &users[0]).await;
    // Messages have their own tests; here, that nothing of this changed them.
    let dm = users[0].dm(&users[2]);
    let body = json!({ "cid": cid(), "kind": "text", "body": { "text": "once" } });
    let path = format!("/v1/threads/{dm}/messages");
    world.lossy.lose(Some(&users[0]), Method::POST, &path, &body).await;
    good(world.cluster.api(&users[0], 1).post(&path, &body).await);
    let seen = kinds(&whole(&world.cluster.api(&users[2], 0), &dm, false).await);
    assert_eq!(seen, [Kind::DmStarted, Kind::Text]);
    across_generations(world, &users).await;
}

async fn groups_are_made_once(world: &World, users: &[User]) -> Thread {
    let (owner, others) = (&users[0], &users[1..4]);
    let body = json!({ "cid": cid(), "name": "pond", "users": ids(others) });
    world.lossy.lose(Some(owner), Method::POST, "/v1/groups", &body).await;
    let made = world.create(owner, 1, &body).await;
    let group = thread_of(&made);
    assert_eq!(world.changes(&group).await, [id_of(&made)]);
    assert_eq!(world.create(owner, 0, &body).await, made);
    // The first body counts, whatever stands in a later one.
    let other = json!({ "cid": body["cid"], "name": "", "users": ["u-of-nobody"], "history": "everything" });
    assert_eq!(world.create(owner, 1, &other).await, made);
    let shown = good(world.cluster.api(owner, 0).get(&format!("/v1/groups/{}", gid(&group))).await);
    assert_eq!((shown["name"].as_str(), shown["history"].as_str()), (Some("pond"), Some("since_joining")));
    assert_eq!(members(&world.cluster.api(owner, 1), &group).await.len(), 4);
    // Somebody else's cid is another one, and without one each attempt is a group.
    assert_ne!(thread_of(&world.create(&users[1], 1, &body).await), group);
    let nameless = json!({ "name": "pond" });
    assert_ne!(world.create(owner, 0, &nameless).await["thread"], world.create(owner, 0, &nameless).await["thread"]);
    many_make_one_group(world, owner).await;
    // A cid of long ago, and one of the future.
    let old = json!({ "cid": Cid::mint(now_ms() - 3_600_000, rand::random()), "name": "late" });
    assert_eq!(world.create(owner, 0, &old).await, world.create(owner, 1, &old).await);
    let api = world.cluster.api(owner, 0);
    let (status, ahead) =
        api.post("/v1/groups", &json!({ "cid": Cid::mint(now_ms() + 60_000, rand::random()), "name": "x" })).await;
    assert!(status == 409 && ahead["code"] == "clock_ahead" && ahead["now_ms"].is_u64(), "{ahead}");
    for bad in [json!("x"), json!("00000000-0000-4000-8000-000000000000"), json!(7)] {
        assert_eq!(api.post("/v1/groups", &json!({ "cid": bad, "name": "x" })).await.0, 400, "{bad}");
    }
    group
}

/// Twenty at once, through both edges.
async fn many_make_one_group(world: &World, owner: &User) {
    let cid = cid();
    let all = join_all((0..20).map(async |n| {
        let body = json!({ "cid": cid, "name": format!("attempt {n}") });
        world.create(owner, n % 2, &body).await
    }))
    .await;
    assert!(all.iter().all(|made| *made == all[0]), "{all:?}");
    assert_eq!(world.changes(&thread_of(&all[0])).await, [id_of(&all[0])]);
}

async fn changes_of_a_group(world: &World, group: &Thread, users: &[User]) {
    let [owner, admin, member, other, late, _] = users else { panic!("six users") };
    let path = format!("/v1/groups/{}", gid(group));
    let of = |user: &User| format!("{path}/members/{}", user.id());
    let role = |user: &User, role: Role| (format!("{}/role", of(user)), json!({ "role": role }));
    let (to_admin, to_owner, to_member) =
        (role(admin, Role::Admin), role(admin, Role::Owner), role(owner, Role::Member));
    world.once(owner, group, Method::PUT, &to_admin.0, to_admin.1).await;
    world.once(admin, group, Method::PATCH, &path, json!({ "name": "big pond" })).await;
    world.once(admin, group, Method::POST, &format!("{path}/members"), json!({ "users": ids([late]) })).await;
    // Half of it is so already.
    world.once(admin, group, Method::DELETE, &of(other), json!({})).await;
    world.once(admin, group, Method::POST, &format!("{path}/members"), json!({ "users": ids([other, late]) })).await;
    let history = whole(&world.cluster.api(owner, 1), group, false).await;
    let added = history.iter().rfind(|e| e.kind == Kind::MemberAdded).unwrap();
    assert_eq!(added.body.users, [other.id().clone()], "nobody is said to have joined who was there");
    // Who gives their own right away by it is not refused for that when it comes again.
    world.once(owner, group, Method::PUT, &to_owner.0, to_owner.1).await;
    world.once(owner, group, Method::PUT, &to_member.0, to_member.1).await;
    world.once(owner, group, Method::POST, &format!("{path}/leave"), json!({})).await;
    world.once(admin, group, Method::POST, &format!("{path}/members"), json!({ "users": ids([owner]) })).await;
    world.once(owner, group, Method::POST, &format!("{path}/leave"), json!({})).await;
    // Who was never in it has not left; who may not do it may not do it twice.
    let api = world.cluster.api(&users[5], 0);
    refused(api.post(&format!("{path}/leave"), &json!({})).await, Code::NotMember);
    let (status, body) = world.cluster.api(member, 0).patch(&path, &json!({ "name": "big pond" })).await;
    assert_eq!((status, body["code"].as_str()), (403, Some("forbidden")), "{body}");
    refused(world.cluster.api(admin, 0).post(&format!("{path}/members"), &json!({ "users": [] })).await, Code::Invalid);
}

async fn blocks_and_contacts(world: &World, users: &[User]) {
    let (a, b) = (&users[0], &users[1]);
    let (dm, path) = (a.dm(b), format!("/v1/blocks/{}", b.id()));
    let blocked = async |edge| good(world.cluster.api(a, edge).get("/v1/blocks").await)["blocks"].clone();
    assert_eq!(blocked(0).await, json!([]));
    for _ in 0..2 {
        assert_eq!(world.once(a, &dm, Method::PUT, &path, json!({})).await["blocked"], true);
        for edge in [0, 1] {
            assert_eq!(blocked(edge).await, json!([{ "user": b.id() }]));
        }
        assert_eq!(world.once(a, &dm, Method::DELETE, &path, json!({})).await["blocked"], false);
        assert_eq!(blocked(1).await, json!([]));
    }
    // Blocked by somebody is no block of one's own, and a group is none. Nor does what there is to take back tell of
    // it.
    let back = format!("/v1/blocks/{}", a.id());
    let was = good(world.cluster.api(b, 0).delete(&back).await);
    good(world.cluster.api(a, 0).put(&path, &json!({})).await);
    assert_eq!(good(world.cluster.api(b, 1).delete(&back).await), was);
    good(world.cluster.api(a, 1).delete(&path).await);
    assert_eq!(good(world.cluster.api(b, 0).get("/v1/blocks").await), json!({ "blocks": [] }));
    assert_eq!(world.cluster.anonymous(0).get("/v1/blocks").await.0, 401);

    let (c, d) = (world.cluster.user("carol").await, world.cluster.user("dora").await);
    let change = async |who: &User, other: &User, change: &str| {
        let (path, body) = (format!("/v1/contacts/{}", other.id()), json!({ "change": change }));
        world.lossy.lose(Some(who), Method::POST, &path, &body).await;
        let again = good(world.cluster.api(who, 1).post(&path, &body).await);
        assert_eq!(good(world.cluster.api(who, 0).post(&path, &body).await), again);
        let state = again["state"].as_str().map(str::to_owned);
        let list = good(world.cluster.api(who, 1).get("/v1/contacts").await)["contacts"].as_array().unwrap().len();
        assert_eq!(list, usize::from(state.is_some()), "{change}");
        state
    };
    assert_eq!(change(&c, &d, "request").await.as_deref(), Some("requested"));
    assert_eq!(change(&d, &c, "accept").await.as_deref(), Some("contact"));
    assert_eq!(change(&c, &d, "request").await.as_deref(), Some("contact"), "it was accepted meanwhile");
    assert_eq!(change(&c, &d, "remove").await, None);
    assert_eq!(change(&d, &c, "request").await.as_deref(), Some("requested"));
}

/// The answer is lost in one generation of the log, and the request comes again in the next.
async fn across_generations(world: &World, users: &[User]) {
    let body = json!({ "cid": cid(), "name": "moved", "users": ids(&users[1..3]) });
    world.lossy.lose(Some(&users[0]), Method::POST, "/v1/groups", &body).await;
    let before = world.create(&users[0], 1, &body).await;
    eventually_within("another number of partitions", SOON, async || world.cluster.switch(3).await).await;
    let api = world.cluster.api(&users[0], 1);
    let group = thread_of(&before);
    let renamed = eventually_within("the edge is on the new log", SOON, async || {
        let (status, body) = api.patch(&format!("/v1/groups/{}", gid(&group)), &json!({ "name": "moved twice" })).await;
        if status == 200 { Ok(body) } else { Err(body.to_string()) }
    })
    .await;
    let again = world.create(&users[0], 1, &body).await;
    assert_eq!((thread_of(&again), id_of(&again)), (group.clone(), id_of(&renamed)), "the group's last change");
    assert_eq!(members(&api, &group).await.len(), 3);
}

/// Accounts, logins and their ends.
pub async fn accounts_are_made_and_logins_ended_once(world: &World) {
    let (cluster, lossy) = (&world.cluster, &world.lossy);
    let (here, there) = (cluster.anonymous(0), cluster.anonymous(1));
    let name = format!("newt-{:06x}", rand::random::<u32>() & 0xff_ffff);
    let credentials = json!({ "name": name, "password": "correct horse battery", "device": "phone-1" });
    let tokens = |body: Value| serde_json::from_value::<Tokens>(body).unwrap();
    lossy.lose(None, Method::POST, "/v1/register", &credentials).await;
    let first = tokens(good(there.post("/v1/register", &credentials).await));
    assert_eq!((first.name.as_str(), first.device.as_str()), (name.as_str(), "phone-1"));
    good(here.with_token(first.access.clone()).get("/v1/threads").await);
    let wrong = json!({ "name": name, "password": "a wrong horse battery" });
    refused(here.post("/v1/register", &wrong).await, Code::Conflict);
    // At once, through both edges.
    let racer = json!({ "name": format!("{name}-2"), "password": "correct horse battery" });
    let all = join_all(
        (0..6).map(|n| if n % 2 == 0 { here.post("/v1/register", &racer) } else { there.post("/v1/register", &racer) }),
    )
    .await;
    let users: BTreeSet<_> = all.into_iter().map(|answer| tokens(good(answer)).user).collect();
    assert_eq!(users.len(), 1);

    lossy.lose(None, Method::POST, "/v1/login", &credentials).await;
    let login = tokens(good(there.post("/v1/login", &credentials).await));
    assert_eq!(login.user, first.user);
    let log_out = |api: &Api, refresh: &str| {
        let (api, body) = (api.clone(), json!({ "refresh": refresh }));
        async move { api.post("/v1/logout", &body).await }
    };
    // Twice, by a token that was used, by one that nobody was given, and by what is none.
    let body = json!({ "refresh": login.refresh });
    let next = tokens(good(there.post("/v1/refresh", &body).await));
    lossy.lose(None, Method::POST, "/v1/logout", &body).await;
    let unknown = "A".repeat(43);
    for (api, refresh) in [
        (&there, &login.refresh),
        (&here, &login.refresh),
        (&there, &next.refresh),
        (&here, &unknown),
        (&there, &String::new()),
    ] {
        assert_eq!(log_out(api, refresh).await, (200, json!({ "logged_out": true })));
    }
    refused(here.post("/v1/refresh", &json!({ "refresh": next.refresh })).await, Code::Unauthorized);
    good(there.post("/v1/refresh", &json!({ "refresh": first.refresh })).await);
}
