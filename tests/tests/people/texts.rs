//! Not empty, visible, one line: every text and number that a client can set, over both codecs and HTTP. What is
//! refused names its field.

use bytes::Bytes;
use natterjack_protocol::{
    Body, Cid, Code, Kind, MsgId, Refusal, Thread,
    client::frame::{ClientFrame, SendMessage, ServerFrame},
    codec::Codec,
    log::Media,
};
use natterjack_tests::kit::paging::whole;
use natterjack_tests::kit::{Api, Cluster, ClusterSpec, RawWs, User, counters::until_the_direct_path_is_open};
use serde_json::{Value, json};

use super::common::{Insight, all_well, gid, good, new_group, refused};

/// Refused as invalid, and the message begins with the field.
#[track_caller]
fn names(answer: (u16, Value), field: &str) {
    let message = answer.1["message"].as_str().unwrap_or_default().to_owned();
    refused(answer, Code::Invalid);
    assert!(message.starts_with(field), "{field}: {message}");
}

async fn send(ws: &mut RawWs, thread: &Thread, cid: Cid, kind: Kind, body: &Body) -> Result<MsgId, Refusal> {
    let r = ws.request();
    ws.send(&ClientFrame::Send(SendMessage { r, cid, thread: thread.clone(), kind, body: body.clone(), behind: None }))
        .await;
    ws.until("sent or a refusal", |f| match f {
        ServerFrame::Sent { r: to, id, .. } if to == r => Some(Ok(id)),
        ServerFrame::Error { r: Some(to), refusal } if to == r => Some(Err(refusal)),
        _ => None,
    })
    .await
}

async fn post(api: &Api, thread: &Thread, cid: Cid, kind: Kind, body: &Body) -> (u16, Value) {
    api.post(&format!("/v1/threads/{thread}/messages"), &json!({ "cid": cid, "kind": kind, "body": body })).await
}

fn on(target: MsgId, body: Body) -> Body {
    Body { target: Some(target), ..body }
}

fn reply(to: MsgId) -> Body {
    Body { reply_to: Some(to), ..Body::text("a reply") }
}

fn emoji(e: &str) -> Body {
    Body { emoji: Some(e.into()), ..Body::default() }
}

fn media(change: impl FnOnce(&mut Media)) -> Body {
    let mut media = Media { url: "https://files.example/a.png".into(), mime: "image/png".into(), ..Media::default() };
    change(&mut media);
    Body { media: Some(media), ..Body::default() }
}

/// What a body may not be, whatever the thread has.
fn bad_bodies() -> Vec<(Kind, Body, &'static str)> {
    vec![
        (Kind::Text, Body::text(" \n\t"), "body.text"),
        (Kind::Text, Body::text("\u{202e}\u{200b}\u{3164}\0"), "body.text"),
        (Kind::Edit, on(MsgId(1), Body::text("")), "body.text"),
        (Kind::Emoji, emoji(""), "body.emoji"),
        (Kind::Reaction, on(MsgId(1), emoji("\n")), "body.emoji"),
        (Kind::Reaction, on(MsgId(1), emoji("look here")), "body.emoji"),
        (Kind::Custom, Body { data: Some(Bytes::new()), ..Body::default() }, "body.data"),
        (Kind::Image, media(|m| m.url = String::new()), "body.media.url"),
        (Kind::Image, media(|m| m.url = "javascript:alert(1)".into()), "body.media.url"),
        (Kind::Image, media(|m| m.url = "https://bank.example@evil.example/".into()), "body.media.url"),
        (Kind::Image, media(|m| m.mime = String::new()), "body.media.mime"),
        (Kind::File, media(|m| m.name = Some("../../.ssh/authorized_keys".into())), "body.media.name"),
        (Kind::File, media(|m| m.name = Some("invoice\u{202e}fdp.exe".into())), "body.media.name"),
        (Kind::Recall, on(MsgId(0), Body::default()), "body.target"),
        (Kind::Text, reply(MsgId(0)), "body.reply_to"),
    ]
}

/// Numbers that no frame may have.
fn large_numbers() -> Vec<(Kind, Body, &'static str)> {
    vec![
        (Kind::Video, media(|m| m.size = Some(u64::MAX)), "body.media.size"),
        (Kind::Video, media(|m| m.duration_ms = Some(1 << 53)), "body.media.duration_ms"),
        (Kind::Text, reply(MsgId(u64::MAX)), "body.reply_to"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_text_and_number_has_its_rule() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(4).await;
    bodies(&cluster, &users).await;
    references(&cluster, &users).await;
    without_the_archive(&cluster, &users).await;
    groups(&cluster, &users).await;
    accounts(&cluster, &users[0]).await;
    all_well(&cluster);
}

async fn bodies(cluster: &Cluster, users: &[User]) {
    let dm = users[0].dm(&users[1]);
    let api = cluster.api(&users[0], 1);
    for codec in Codec::ALL {
        let mut ws = cluster.raw(&users[0], 0, codec).await;
        for (kind, body, field) in bad_bodies() {
            let cid = ws.cid();
            let refusal = send(&mut ws, &dm, cid, kind, &body).await.expect_err(field);
            assert_eq!((refusal.code, refusal.cid), (Code::Invalid, Some(cid)), "{field}: {refusal}");
            assert!(refusal.message.starts_with(field), "{field}: {refusal}");
            if codec == Codec::Json {
                names(post(&api, &dm, cid, kind, &body).await, field);
            }
        }
    }
    for codec in Codec::ALL {
        let mut ws = cluster.raw(&users[0], 0, codec).await;
        for (kind, body, field) in large_numbers() {
            let cid = ws.cid();
            let refusal = send(&mut ws, &dm, cid, kind, &body).await.expect_err(field);
            assert!(
                refusal.code == Code::BadFrame && refusal.message.contains(&format!(" {field}: ")),
                "{field}: {refusal}"
            );
            let (status, answer) = post(&api, &dm, cid, kind, &body).await;
            let named = answer["message"].as_str().is_some_and(|m| m.contains(&format!(" {field}: ")));
            assert!((status, answer["code"].as_str()) == (400, Some("bad_frame")) && named, "{field}: {answer}");
        }
    }
    for query in
        ["before=9007199254740992", "after=9007199254740992", "around=9007199254740992", "at=18446744073709551615"]
    {
        let field = query.split('=').next().unwrap();
        names(api.get(&format!("/v1/threads/{dm}/messages?{query}")).await, &format!("query: {field}: "));
    }
}

/// An edit, a recall, a reaction and a reply speak of a message of their own thread.
async fn references(cluster: &Cluster, users: &[User]) {
    let dm = users[0].dm(&users[1]);
    let layout = Insight::of(cluster).await.layout;
    let mut ws = cluster.raw(&users[0], 0, Codec::Msgpack).await;
    let mut json = cluster.raw(&users[1], 1, Codec::Json).await;
    let api = cluster.api(&users[1], 0);
    let first = ws.send_text(&dm, "first").await.unwrap();
    // Of the same partition: in another one it might have the id of a message here.
    let elsewhere = loop {
        let other = new_group(&cluster.api(&users[0], 0), "elsewhere", &[]).await;
        if layout.partition(&other) == layout.partition(&dm) {
            break ws.send_text(&other, "elsewhere").await.unwrap();
        }
    };
    // Just acknowledged, by the same edge and by another.
    let cid = ws.cid();
    let edit = send(&mut ws, &dm, cid, Kind::Edit, &on(first, Body::text("first, edited"))).await.unwrap();
    let cid = json.cid();
    let answer = send(&mut json, &dm, cid, Kind::Text, &reply(first)).await.unwrap();
    good(post(&api, &dm, json.cid(), Kind::Reaction, &on(answer, emoji("👍"))).await);
    let gone = ws.send_text(&dm, "gone").await.unwrap();
    let cid = ws.cid();
    send(&mut ws, &dm, cid, Kind::Recall, &on(gone, Body::default())).await.unwrap();
    let cid = json.cid();
    send(&mut json, &dm, cid, Kind::Text, &reply(gone)).await.expect("what was recalled is still a message");

    let started = whole(&api, &dm, false).await[0].clone();
    assert_eq!(started.kind, Kind::DmStarted);
    let last = whole(&api, &dm, false).await.last().unwrap().id;
    for (what, id) in [
        ("of another thread", elsewhere),
        ("of the future", MsgId(last.0 + 1_000_000)),
        ("the next one", MsgId(last.0 + 1)),
        ("beyond all", MsgId((1 << 53) - 1)),
        ("a change of the thread", started.id),
        ("an operation", edit),
        ("of nobody", MsgId(1)),
    ] {
        for (kind, body, field) in [
            (Kind::Text, reply(id), "body.reply_to"),
            (Kind::Edit, on(id, Body::text("x")), "body.target"),
            (Kind::Recall, on(id, Body::default()), "body.target"),
            (Kind::Reaction, on(id, emoji("👍")), "body.target"),
            (Kind::Image, Body { reply_to: Some(id), ..media(|_| {}) }, "body.reply_to"),
        ] {
            let cid = ws.cid();
            let refusal = send(&mut ws, &dm, cid, kind, &body).await.expect_err(what);
            assert!(refusal.code == Code::Invalid && refusal.message.starts_with(field), "{what}: {refusal}");
            names(post(&api, &dm, json.cid(), kind, &body).await, field);
        }
    }
    // A resend is the same message, whatever its body says now.
    let cid = ws.cid();
    let id = ws.send_cid(&dm, cid, "once").await.unwrap();
    assert_eq!(send(&mut ws, &dm, cid, Kind::Text, &reply(elsewhere)).await, Ok(id));
    assert_eq!(good(post(&cluster.api(&users[0], 1), &dm, cid, Kind::Text, &reply(elsewhere)).await)["id"], id.0);
    // What is refused begins no conversation.
    let fresh = users[1].dm(&users[3]);
    let cid = json.cid();
    let refusal = send(&mut json, &fresh, cid, Kind::Text, &reply(answer)).await.unwrap_err();
    assert!(refusal.code == Code::Invalid && refusal.message.starts_with("body.reply_to"), "{refusal}");
    let threads = good(cluster.api(&users[1], 0).get("/v1/threads").await);
    assert!(!threads.to_string().contains(&fresh.to_string()), "{threads}");
    // In a thread of others nothing is said about what is there.
    let mut stranger = cluster.raw(&users[3], 0, Codec::Json).await;
    let cid = stranger.cid();
    assert_eq!(send(&mut stranger, &dm, cid, Kind::Text, &reply(first)).await.unwrap_err().code, Code::NotMember);
    // Nor about what was said before somebody joined.
    let group = new_group(&cluster.api(&users[0], 0), "late", &users[1..2]).await;
    let before = ws.send_text(&group, "before").await.unwrap();
    good(
        cluster
            .api(&users[0], 0)
            .post(&format!("/v1/groups/{}/members", gid(&group)), &json!({ "users": [users[3].id()] }))
            .await,
    );
    names(post(&cluster.api(&users[3], 1), &group, ws.cid(), Kind::Text, &reply(before)).await, "body.reply_to");
    good(post(&cluster.api(&users[1], 1), &group, ws.cid(), Kind::Text, &reply(before)).await);
}

/// The log says it alone: with the archive and `history` away too, whoever answers somebody is not kept waiting, and
/// nonsense is refused.
async fn without_the_archive(cluster: &Cluster, users: &[User]) {
    let dm = users[2].dm(&users[3]);
    // Until then each send is looked for first.
    until_the_direct_path_is_open(cluster, &users[2]).await;
    let mut ws = cluster.raw(&users[2], 0, Codec::Json).await;
    let first = ws.send_text(&dm, "first").await.unwrap();
    cluster.persister(0).stop();
    let cid = ws.cid();
    let answered = send(&mut ws, &dm, cid, Kind::Text, &reply(first)).await;
    let cid = ws.cid();
    let reacted = send(&mut ws, &dm, cid, Kind::Reaction, &on(first, emoji("👍"))).await;
    cluster.persister(0).cont();
    assert!(answered.is_ok() && reacted.is_ok(), "{answered:?} {reacted:?}");
}

async fn groups(cluster: &Cluster, users: &[User]) {
    let api = cluster.api(&users[0], 0);
    let group = new_group(&api, "  Zoe\u{308}\u{a0} & \u{3000}co ", &users[1..2]).await;
    let path = format!("/v1/groups/{}", gid(&group));
    assert_eq!(good(cluster.api(&users[1], 1).get(&path).await)["name"], "Zoë & co", "as it is kept");
    for bad in [
        "",
        " ",
        "\u{a0}\u{3164}",
        "a\0b",
        "a\nb",
        "a\u{1b}[2J",
        "a\u{202e}b",
        "\u{2066}a",
        "a\u{200b}b",
        &"x".repeat(101),
    ] {
        names(api.post("/v1/groups", &json!({ "name": bad })).await, "name");
        names(api.patch(&path, &json!({ "name": bad })).await, "name");
    }
    good(api.patch(&path, &json!({ "name": "👨\u{200d}👩\u{200d}👧 می\u{200c}خواهم" })).await);
    assert_eq!(good(api.get(&path).await)["name"], "👨\u{200d}👩\u{200d}👧 می\u{200c}خواهم");
}

async fn accounts(cluster: &Cluster, user: &User) {
    let nobody = cluster.anonymous(0);
    let register = async |name: &str, password: &str| {
        nobody.post("/v1/register", &json!({ "name": name, "password": password })).await
    };
    let login = async |name: &str, password: &str| {
        nobody.post("/v1/login", &json!({ "name": name, "password": password })).await
    };
    // Typed on a Mac (decomposed, a space with the option key), then on Windows.
    let made = good(register("Zoe\u{308}mila", "pa\u{308}ss\u{a0}wort").await);
    assert_eq!(made["name"], "Zoëmila");
    assert_eq!(good(login("zoëmila", "p\u{e4}ss wort").await)["user"], made["user"]);
    assert_eq!(good(login("ZOE\u{308}MILA", "pa\u{308}ss wort").await)["user"], made["user"]);
    refused(login("zoëmila", "pass wort").await, Code::Unauthorized);
    // A capital i for an l, rn for m, another script, full width: nobody is taken for somebody else.
    for alike in ["zoëmiIa", "Zoëmi1a", "zoërnila", "ZOËMILA", "Ｚoëmila"] {
        refused(register(alike, "another password").await, Code::Conflict);
    }
    refused(login("zoërnila", "p\u{e4}ss wort").await, Code::Unauthorized);
    let long = "x".repeat(33);
    for bad in ["", "a", "a b", "..", "a\nb", "а\u{200b}b", "ab\u{202e}", "zoëmilа", "🐸🐸", "a/b", long.as_str()]
    {
        names(register(bad, "long enough for it").await, "name");
    }
    for bad in ["", "seven 7", "e\u{301}e\u{301}e\u{301}e\u{301}", "tab\tpassword", "password\u{200b}", "password\0"] {
        names(register("somebody-else", bad).await, "password");
    }
    let api = cluster.api(user, 1);
    let found = async |prefix: &str| {
        good(api.get(&format!("/v1/users?prefix={prefix}")).await)["users"].as_array().unwrap().clone()
    };
    for prefix in ["zo%C3%AB", "ZOE%CC%88m", "%EF%BC%BAo%C3%ABmila"] {
        assert_eq!(found(prefix).await.iter().map(|u| u["name"].clone()).collect::<Vec<_>>(), ["Zoëmila"], "{prefix}");
    }
    assert!(found("zo%C3%ABrn").await.is_empty());
    for short in ["", "z", "%CC%88", "%20"] {
        names(api.get(&format!("/v1/users?prefix={short}")).await, "prefix");
    }
    cluster.assert_not_logged("ss wort");
}
