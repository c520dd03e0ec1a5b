//! The HTTP side: typed errors, the log's time, discovery, readiness.

use natterjack_protocol::codec::Codec;

use crate::kit::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_typed_and_tells_the_time() {
    let world = World::start(&["ua", "ub"]).await;
    let token = world.token("ua", "d1", 600);
    let big = format!(r#"{{"name":"{}"}}"#, "x".repeat(300_000));
    for (method, path, with, body, status, code) in [
        ("GET", "/v1/threads", false, "", 401, "unauthorized"),
        ("GET", "/v1/nothing", true, "", 404, "not_found"),
        ("POST", "/v1/threads", true, "", 405, "not_found"),
        ("POST", "/v1/groups", true, "{", 400, "bad_frame"),
        ("POST", "/v1/groups", true, r#"{"users":[]}"#, 400, "bad_frame"),
        ("POST", "/v1/groups", true, r#"{"name":"g","users":["a.b"]}"#, 400, "bad_frame"),
        ("POST", "/v1/groups", true, r#"{"name":"","users":[]}"#, 400, "invalid"),
        ("POST", "/v1/groups", true, r#"{"name":"g","users":["nobody"]}"#, 404, "not_found"),
        ("POST", "/v1/groups", true, &big, 413, "invalid"),
        ("GET", "/v1/groups/nope", true, "", 404, "not_found"),
        ("POST", "/v1/groups/nope/leave", true, "", 404, "not_found"),
        ("GET", "/v1/groups/a.b", true, "", 400, "invalid"),
        ("GET", "/v1/threads/dm.ub.uc/messages", true, "", 403, "not_member"),
        ("GET", "/v1/threads/dm.*.uc/messages", true, "", 400, "invalid"),
        ("GET", "/v1/threads/dm.ua.ub/messages?before=1&at=2", true, "", 400, "invalid"),
        ("GET", "/v1/threads?limit=many", true, "", 400, "invalid"),
        ("PUT", "/v1/blocks/ua", true, "", 400, "invalid"),
        ("PUT", "/v1/blocks/nobody", true, "", 404, "not_found"),
        ("GET", "/v1/users/nobody", true, "", 404, "not_found"),
        ("POST", "/v1/login", false, r#"{"name":"x"}"#, 400, "bad_frame"),
    ] {
        let (got, head, answer) = world.http(method, path, with.then_some(token.as_str()), body).await;
        let shown = format!("{method} {path}: {answer}");
        assert_eq!((got, answer["code"].as_str().unwrap_or_default()), (status, code), "{shown}");
        assert!(!answer["message"].as_str().unwrap().is_empty(), "{shown}");
        assert!(head.contains("natterjack-now: 1") && head.contains("access-control-allow-origin: *"), "{head}");
    }
    let (status, _, list) = world.http("GET", "/v1/threads", Some(&token), "").await;
    assert_eq!((status, list["threads"].as_array().map(Vec::len)), (200, Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_readiness_description_and_preflight() {
    let world = World::start(&["ua"]).await;
    // The host that these requests name.
    let own = "ws://h";
    natterjack_testkit::eventually("the edge's own lease is listed", async || {
        world.http("GET", "/v1/edges", None, "").await.2["edges"] == serde_json::json!([own])
    })
    .await;
    assert_eq!(world.http("GET", "/ready", None, "").await.0, 200);
    for path in ["/ready", "/health"] {
        assert_eq!(
            world.http("GET", path, None, "").await.2,
            serde_json::json!({ "ok": true }),
            "no details for strangers"
        );
    }
    assert_eq!(world.http("GET", "/metrics", None, "").await.2["code"], "not_found");
    assert_eq!(world.http("GET", "/v1/openapi.json", None, "").await.2["info"]["title"], "Natterjack");
    let (status, head, _) = world.http("OPTIONS", "/v1/groups", None, "").await;
    assert!(status == 204 && head.contains("access-control-allow-headers: authorization"), "{head}");

    world.beats.send_replace(false);
    natterjack_testkit::eventually("not ready without beats", async || {
        world.http("GET", "/ready", None, "").await.0 == 503
    })
    .await;
    drop(world.client("ua", "d1", Codec::Json).await);
}

/// The log decides: the change is stored, with the conversation's place in the order, also when nobody folds it in
/// time.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_a_control_entry() {
    let world = World::start(&["ua", "ub"]).await;
    let token = world.token("ua", "d1", 600);
    let (status, _, answer) = world.http("PUT", "/v1/blocks/ub", Some(&token), "").await;
    let last = world.tail.last_control(&"dm.ua.ub".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((status, &answer), (200, &serde_json::json!({ "thread": "dm.ua.ub", "id": last.id, "blocked": true })));
    let entry = natterjack_protocol::Entry::decode(&last.payload).unwrap();
    assert_eq!((entry.kind, entry.from.as_str()), (natterjack_protocol::Kind::Blocked, "ua"));
}
