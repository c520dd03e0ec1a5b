//! Accounts are deleted and renamed: what everybody sees of it, what stays, and that it is finished whoever dies.

use std::time::Duration;

use futures_util::future::join_all;
use natterjack_client::RequestError;
use natterjack_protocol::{
    Body, Code, Event, Kind, Thread,
    client::{
        frame::{ClientFrame, SendMessage, ServerFrame},
        http::AccountDeletion,
    },
    codec::Codec,
    log::Role,
};
use natterjack_testkit::{cid, eventually_within, patience};
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, Poller, Received, User, paging::whole};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    accounts::{ENDED, UNAUTHORIZED, log_in, user_command},
    common::{Insight, SOON, add, good, kinds, members, new_group, refused, role, texts},
};

/// Groups are folded, conversations closed, contacts taken away.
const CLEARED: Duration = Duration::from_secs(30);

async fn delete(api: &Api, password: &str) -> (u16, Value) {
    api.post("/v1/account/delete", &json!({ "password": password })).await
}

async fn befriend(cluster: &Cluster, one: &User, other: &User) {
    let ask = |change| json!({ "change": change });
    good(cluster.api(one, 0).post(&format!("/v1/contacts/{}", other.id()), &ask("request")).await);
    good(cluster.api(other, 1).post(&format!("/v1/contacts/{}", one.id()), &ask("accept")).await);
}

async fn register(cluster: &Cluster, edge: usize, name: &str) -> (u16, Value) {
    cluster.anonymous(edge).post("/v1/register", &json!({ "name": name, "password": "correct horse battery" })).await
}

async fn left(api: &Api, group: &Thread, gone: &User, owner: &User) {
    eventually_within("they have left, and somebody owns it", CLEARED, async || {
        let now = members(api, group).await;
        let owned = now.get(owner.id()) == Some(&Role::Owner);
        if owned && !now.contains_key(gone.id()) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

/// Both by a message and before the first one.
async fn nobody_to_write_to(api: &Api, thread: &Thread) {
    eventually_within("nobody takes messages there", CLEARED, async || {
        let body = json!({ "cid": cid(), "kind": "text", "body": { "text": "are you there?" } });
        let (status, answer) = api.post(&format!("/v1/threads/{thread}/messages"), &body).await;
        // The conversation is closed a moment before the account is gone.
        if status == 200 || answer["code"] == Code::Blocked.name() {
            return Err(answer.to_string());
        }
        refused((status, answer), Code::NotFound);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_deleted_everywhere_and_what_it_wrote_stays() {
    // Alone: that logins end within two seconds is asserted.
    let cluster = Cluster::start(ClusterSpec { alone: true, presences: 1, ..ClusterSpec::default() }).await;
    let (alice, bob, carol) = (cluster.user("alice").await, cluster.user("bob").await, cluster.user("carol").await);
    let (api, bobs) = (cluster.api(&alice, 0), cluster.api(&bob, 1));
    befriend(&cluster, &alice, &bob).await;
    // She alone owns one group, in which carol is an admin, and is in another.
    let own = new_group(&api, "hers", &[bob.clone(), carol.clone()]).await;
    good(role(&api, &own, &carol, Role::Admin).await);
    let other = new_group(&bobs, "his", std::slice::from_ref(&alice)).await;
    let mut at = (
        cluster.raw(&alice, 0, Codec::Json).await,
        cluster.raw(&alice.log_in(&cluster, 1).await, 1, Codec::Json).await,
    );
    let dm = alice.dm(&bob);
    for thread in [&own, &dm] {
        at.0.send_text(thread, "I was here").await.unwrap();
    }
    let mut friend = cluster.raw(&bob, 1, Codec::Json).await;
    let mut poller = Poller::new(&cluster, &carol, [0]);
    poller.poll(0).await.unwrap();

    refused(delete(&api, "wrong password").await, Code::Forbidden);
    refused(api.post("/v1/account/delete", &json!({})).await, Code::Invalid);
    let began = Instant::now();
    assert_eq!(good(delete(&api, &alice.password).await), json!({ "deleted": true }));
    assert_eq!(tokio::join!(at.0.until_closed(SOON), at.1.until_closed(SOON)), (UNAUTHORIZED, UNAUTHORIZED));
    assert!(began.elapsed() <= patience(ENDED), "{:?}", began.elapsed());
    for edge in 0..2 {
        refused(cluster.api(&alice, edge).get("/v1/threads").await, Code::Unauthorized);
        let renewal = json!({ "refresh": alice.tokens.refresh });
        refused(cluster.anonymous(edge).post("/v1/refresh", &renewal).await, Code::Unauthorized);
        refused(log_in(&cluster, edge, &alice, &alice.password).await, Code::Unauthorized);
        let (status, held) = register(&cluster, edge, &alice.name).await;
        let (_, taken) = register(&cluster, edge, &bob.name.to_uppercase()).await;
        assert_eq!(held, taken, "held, or somebody's: the same is said");
        refused((status, held), Code::Conflict);
    }
    // By id there is a profile without a name; by name nobody is found.
    let gone = json!({ "user": alice.id(), "deleted": true });
    assert_eq!(good(bobs.get(&format!("/v1/users/{}", alice.id())).await), gone);
    assert_eq!(good(bobs.get(&format!("/v1/users?ids={}", alice.id())).await), json!({ "users": [gone] }));
    assert_eq!(good(bobs.get(&format!("/v1/users?prefix={}", alice.name)).await), json!({ "users": [] }));

    // A friend who is here is told.
    friend.until("contacts have changed", |f| matches!(f, ServerFrame::Contacts).then_some(())).await;
    eventually_within("contacts are gone", CLEARED, async || {
        let contacts = good(bobs.get("/v1/contacts").await);
        if contacts["contacts"] == json!([]) { Ok(()) } else { Err(contacts.to_string()) }
    })
    .await;
    left(&bobs, &own, &alice, &carol).await;
    left(&bobs, &other, &alice, &bob).await;
    nobody_to_write_to(&bobs, &dm).await;
    nobody_to_write_to(&cluster.api(&carol, 0), &carol.dm(&alice)).await;
    assert_eq!(friend.send_text(&dm, "and here?").await.unwrap_err().code, Code::NotFound, "on a socket as well");
    // What she wrote stays, also for whoever was not here; that she has closed the conversation is no event of his.
    for thread in [&own, &dm] {
        assert!(texts(&whole(&bobs, thread, false).await).contains(&"I was here".to_owned()), "{thread}");
    }
    assert_eq!(kinds(&whole(&bobs, &dm, false).await), [Kind::DmStarted, Kind::Text]);
    // A poll has what stands in the group's log: she made somebody an owner, and left.
    let departed = |e: &&Event| e.thread == own && e.from == *alice.id() && e.kind.is_control();
    eventually_within("a poll says that she has left", SOON, async || {
        poller.poll(0).await;
        let seen: Vec<Kind> = poller.shown.iter().filter(departed).map(|e| e.kind).collect();
        if seen.ends_with(&[Kind::RoleChanged, Kind::MemberLeft]) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    eventually_within("she is nobody who could be added", CLEARED, async || {
        let (status, body) = add(&bobs, &other, &alice).await;
        if status == 404 { Ok(()) } else { Err(body.to_string()) }
    })
    .await;
    let wish = json!({ "change": "request" });
    refused(bobs.post(&format!("/v1/contacts/{}", alice.id()), &wish).await, Code::NotFound);
    eventually_within("she is not here", CLEARED, async || {
        let shown = good(bobs.get(&format!("/v1/presence?users={}", alice.id())).await);
        let now = &shown["users"][0];
        if now["state"] == "offline" && now.get("last_seen").is_none() { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    let insight = Insight::of(&cluster).await;
    assert!(!insight.buckets.threads(alice.id()).exists().await.unwrap());
    assert!(!insight.buckets.devices(alice.id()).exists().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_renames_and_deletes_and_a_name_is_free_after_the_cool_down() {
    // Of 8.6 s.
    let set = vec![("accounts.name_hold_days".to_owned(), "0.0001".to_owned())];
    let cluster = Cluster::start(ClusterSpec { set, ..ClusterSpec::default() }).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    befriend(&cluster, &alice, &bob).await;
    let bobs = cluster.api(&bob, 1);
    let mut friend = cluster.raw(&bob, 1, Codec::Json).await;
    let mut hers = cluster.raw(&alice, 0, Codec::Json).await;
    let new = format!("{}-2", alice.name);
    assert!(user_command(&cluster, &["rename", &alice.name, &bob.name], "").await.unwrap_err().contains("taken"));
    let given_up = Instant::now();
    assert!(user_command(&cluster, &["rename", &alice.name, &new], "").await.unwrap().starts_with(&new));
    friend.until("contacts have changed", |f| matches!(f, ServerFrame::Contacts).then_some(())).await;
    assert_eq!(good(bobs.get("/v1/contacts").await)["contacts"][0]["name"], new.as_str());
    assert_eq!(good(bobs.get(&format!("/v1/users/{}", alice.id())).await)["name"], new.as_str());
    hers.send_text(&alice.dm(&bob), "still here").await.unwrap();
    let renamed = User { name: new.clone(), ..alice.clone() };
    good(log_in(&cluster, 1, &renamed, &alice.password).await);
    refused(log_in(&cluster, 0, &alice, &alice.password).await, Code::Unauthorized);
    refused(register(&cluster, 0, &alice.name).await, Code::Conflict);
    let free = eventually_within("the name is free", CLEARED, async || {
        let (status, body) = register(&cluster, 0, &alice.name).await;
        if status == 200 { Ok(Instant::now()) } else { Err(body.to_string()) }
    });
    let free = free.await;
    assert!(free - given_up >= Duration::from_millis(8_640), "{:?}", free - given_up);

    let said = user_command(&cluster, &["delete", &new], "").await.unwrap();
    assert!(said.contains("deleted; 2 logins ended"), "{said}");
    assert_eq!(hers.until_closed(SOON).await, UNAUTHORIZED);
    refused(log_in(&cluster, 1, &renamed, &alice.password).await, Code::Unauthorized);
    assert!(user_command(&cluster, &["show", &new], "").await.unwrap_err().contains("there is no account"));
    // By its id, also once more.
    let id = alice.id().as_str();
    assert!(user_command(&cluster, &["delete", id], "").await.unwrap().contains("0 logins ended"));
    assert!(user_command(&cluster, &["show", id], "").await.unwrap().trim_end().ends_with("deleted"));
    assert!(user_command(&cluster, &["rename", id, "somebody"], "").await.unwrap_err().contains("was deleted"));
    nobody_to_write_to(&bobs, &bob.dm(&alice)).await;
}

/// Ten groups and ten conversations; the persister dies with the first answer, and an edge with the question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_is_finished_whoever_dies() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (others, friend) = (cluster.mint_users(10).await, cluster.user("friend").await);
    for who_dies in ["persister", "edge"] {
        let gone = cluster.user(who_dies).await;
        let api = cluster.api(&gone, 0);
        let groups = join_all(others.iter().map(|o| new_group(&api, "ours", std::slice::from_ref(o)))).await;
        let mut ws = cluster.raw(&gone, 1, Codec::Json).await;
        for other in &others {
            ws.send_text(&gone.dm(other), "hello").await.unwrap();
        }
        befriend(&cluster, &gone, &friend).await;
        if who_dies == "persister" {
            good(delete(&api, &gone.password).await);
            cluster.persister(0).kill9().await;
            cluster.persister(0).restart().await;
        } else {
            let asked = json!({ "password": gone.password });
            let asking = api.try_call(Method::POST, "/v1/account/delete", Some(&asked));
            let dying = async {
                sleep(Duration::from_millis(30)).await; // the request is somewhere on its way
                cluster.edge(0).kill9().await;
            };
            let _ = tokio::join!(asking, dying);
            eventually_within("it is asked again elsewhere", SOON, async || {
                match delete(&cluster.api(&gone, 1), &gone.password).await {
                    (200 | 401, _) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
            cluster.edge(0).restart().await;
        }
        assert_eq!(ws.until_closed(SOON).await, UNAUTHORIZED);
        for (other, group) in others.iter().zip(&groups) {
            let theirs = cluster.api(other, 1);
            left(&theirs, group, &gone, other).await;
            nobody_to_write_to(&theirs, &gone.dm(other)).await;
        }
        eventually_within("contacts are gone", CLEARED, async || {
            let contacts = good(cluster.api(&friend, 1).get("/v1/contacts").await);
            if contacts["contacts"] == json!([]) { Ok(()) } else { Err(contacts.to_string()) }
        })
        .await;
    }
}

/// What was acknowledged is kept, and the rest ends with the session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_session_sends_while_the_account_is_deleted() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let dm = alice.dm(&bob);
    let phone = alice.log_in(&cluster, 1).await;
    let mut sends = cluster.raw(&phone, 1, Codec::Json).await;
    let sending = async {
        let mut acknowledged = Vec::new();
        for n in 0.. {
            let r = sends.request();
            let (cid, body) = (sends.cid(), Body::text(format!("{n}")));
            let message = SendMessage { r, cid, thread: dm.clone(), kind: Kind::Text, body, behind: None };
            if sends.try_send_bytes(&ClientFrame::Send(message).encode(Codec::Json)).await.is_err() {
                return acknowledged;
            }
            loop {
                match sends.next().await {
                    Received::Frame(ServerFrame::Sent { r: to, id, .. }) if to == r => {
                        acknowledged.push(id);
                        break;
                    }
                    Received::Frame(ServerFrame::Error { refusal, .. }) => {
                        assert_eq!(refusal.code, Code::Unauthorized, "{refusal:?}");
                        break;
                    }
                    Received::Closed(code, why) => {
                        assert_eq!(code, UNAUTHORIZED, "{why:?}");
                        return acknowledged;
                    }
                    _ => {}
                }
            }
        }
        acknowledged
    };
    let deleting = async {
        sleep(Duration::from_millis(300)).await; // some messages are sent first
        good(delete(&cluster.api(&alice, 0), &alice.password).await);
    };
    let (acknowledged, ()) = tokio::join!(sending, deleting);
    assert!(!acknowledged.is_empty());
    let bobs = cluster.api(&bob, 0);
    nobody_to_write_to(&bobs, &dm).await;
    let kept: Vec<_> = whole(&bobs, &dm, false).await.iter().map(|e| e.id).collect();
    assert!(acknowledged.iter().all(|id| kept.contains(id)), "what was acknowledged stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_deletes_its_account_with_the_right_password_only_and_is_closed() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let zoe = cluster.user("zoe").await;
    let (client, mut events) = zoe.builder([cluster.edge_url(0)]).connect().await.unwrap();
    let proof = |password: &str| AccountDeletion { password: Some(password.into()), token: None };
    let wrong = client.delete_account(proof("wrong password")).await;
    assert!(matches!(&wrong, Err(RequestError::Refused(no)) if no.code == Code::Forbidden), "{wrong:?}");
    client.send_text(client.dm(client.user()), "still here").await.unwrap();
    client.flushed(SOON).await.unwrap();
    client.delete_account(proof(&zoe.password)).await.unwrap();
    let end = async { while events.next().await.is_some() {} };
    tokio::time::timeout(SOON, end).await.expect("the client is closed, and says nothing more");
    refused(cluster.api(&zoe, 1).get("/v1/sessions").await, Code::Unauthorized);
}
