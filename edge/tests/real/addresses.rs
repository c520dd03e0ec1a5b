//! An edge that listens on every address and was told of none: each client hears of addresses that it can reach itself.

use std::time::Duration;

use natterjack_edge::lease;
use natterjack_protocol::client::frame::ServerFrame;
use natterjack_testkit::{
    eventually,
    raw_http::{RawHttp, upgrade},
};
use serde_json::json;

use crate::kit::{Client, World};

const PROXY: &str = "127.0.0.9";

async fn edges(mut http: RawHttp<tokio::net::TcpStream>, headers: &str) -> Vec<String> {
    http.say(format!("GET /v1/edges HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")).await;
    let body: serde_json::Value = serde_json::from_str(&http.answer().await.body).unwrap();
    let mut edges: Vec<String> = serde_json::from_value(body["edges"].clone()).unwrap();
    edges.sort();
    edges
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_hears_of_addresses_that_it_can_reach() {
    let mut world = World::configured(&["ua", "ub"], crate::kit::times(), |cfg| {
        cfg.listen.set_ip([0, 0, 0, 0].into());
        cfg.limits.trusted_proxies = vec![PROXY.parse().unwrap()];
    })
    .await;
    let port = world.addr.port();
    world.another_edge("beside", ([0, 0, 0, 0], 9999).into(), lease::machine(), None).await;
    world.another_edge("loopback", ([127, 0, 0, 1], 7777).into(), lease::machine(), None).await;
    world.another_edge("named", ([0, 0, 0, 0], 8888).into(), "elsewhere".into(), Some("wss://e3.example.org")).await;
    world.another_edge("unknown", ([0, 0, 0, 0], 6666).into(), "elsewhere".into(), None).await;

    // As a phone in the same network says it.
    let phone = format!("192.168.1.5:{port}");
    let all = ["ws://192.168.1.5:9999".to_owned(), format!("ws://{phone}"), "wss://e3.example.org".into()];
    eventually("all leases are seen", async || {
        let mut all = all.to_vec();
        all.sort();
        edges(world.dial().await, &format!("Host: {phone}\r\n")).await == all
    })
    .await;
    let here = edges(world.dial().await, &format!("Host: 127.0.0.1:{port}\r\n")).await;
    let mut expected =
        vec!["ws://127.0.0.1:7777".to_owned(), "ws://127.0.0.1:9999".into(), format!("ws://127.0.0.1:{port}")];
    expected.extend(["wss://e3.example.org".to_owned()]);
    expected.sort();
    assert_eq!(here, expected);
    let forwarded = "Host: upstream\r\nX-Forwarded-Host: chat.example.org\r\nX-Forwarded-Proto: https\r\n";
    assert_eq!(
        edges(world.dial_from(PROXY).await, forwarded).await,
        ["wss://chat.example.org", "wss://e3.example.org"]
    );
    assert_eq!(
        edges(world.dial().await, forwarded).await,
        ["ws://upstream", "wss://e3.example.org"],
        "from somebody else"
    );
    assert_eq!(edges(world.dial().await, "Host: 0.0.0.0\r\n").await, ["wss://e3.example.org"]);

    // The same when it leaves, each over its own way.
    let mut sockets = Vec::new();
    for (user, from, host) in [("ua", "127.0.0.1", phone.as_str()), ("ub", PROXY, "chat.example.org")] {
        let mut http = world.dial_from(from).await;
        http.say(upgrade("").replace("Host: edge", &format!("Host: {host}"))).await;
        assert_eq!(http.answer().await.status, 101);
        let mut client = Client::over(http).await;
        client.hello(&world.token(user, "d1", 600), "d1").await;
        client.until(|f| matches!(f, ServerFrame::Attached { .. })).await;
        sockets.push(client);
    }
    let ended = world.stop();
    for (client, expected) in sockets
        .iter_mut()
        .zip([json!(["ws://192.168.1.5:9999", "wss://e3.example.org"]), json!(["wss://e3.example.org"])])
    {
        let ServerFrame::Draining { mut edges, after_ms } =
            client.until(|f| matches!(f, ServerFrame::Draining { .. })).await
        else {
            unreachable!()
        };
        edges.sort();
        assert_eq!(json!(edges), expected);
        assert!(after_ms > 0, "there is somewhere to go");
        client.closed().await;
    }
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap().unwrap().unwrap();
}
