//! P6, the planned part: an edge that leaves says so first, finishes what was sent, and goes.

use std::{net::SocketAddr, time::Duration};

use natterjack_protocol::{
    Most, MsgId,
    client::{close, frame::ServerFrame},
    codec::Codec,
};
use natterjack_testkit::{eventually, raw_http::upgrade};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::kit::{World, cid, times};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_sent_is_lost_when_the_edge_leaves() {
    let mut world = World::start(&["ua", "ub"]).await;
    let mut c = world.client("ua", "d1", Codec::Msgpack).await;
    let mut idle = world.client("ub", "d1", Codec::Json).await;
    assert!(c.sent(cid(), "dm.ua.ub", "before").await.is_ok());
    for i in 0..50 {
        c.send(cid(), "dm.ua.ub", &i.to_string()).await;
    }
    // The edge has read them once the first is answered.
    c.until(|f| matches!(f, ServerFrame::Sent { .. })).await;
    let ended = world.stop();
    let (mut answered, mut told) = (1, false);
    let code = loop {
        match c.next().await {
            Ok(ServerFrame::Sent { .. }) => answered += 1,
            Ok(ServerFrame::Draining { .. }) => told = true,
            Ok(ServerFrame::Error { refusal, .. }) => panic!("{refusal}"),
            Ok(_) => {}
            Err(code) => break code,
        }
    };
    assert_eq!((code, told), (close::DRAINING.code, true));
    // What was taken into the log was answered, and the first of all before that.
    let stored =
        world.tail.after(&"dm.ua.ub".parse().unwrap(), MsgId::NONE, MsgId::MAX, Most::count(100)).await.unwrap();
    assert_eq!(stored.iter().filter(|r| !r.control).count(), answered + 1);
    idle.until(|f| matches!(f, ServerFrame::Draining { .. })).await;
    idle.closes_with(close::DRAINING).await;
    timeout(Duration::from_secs(20), ended).await.unwrap().unwrap().unwrap();
    assert!(!world.health.report().parts.contains_key("edge"));
}

/// A new connection and one request. None: nobody listens there any more. Else all that came.
async fn knock(addr: SocketAddr, request: &str) -> Option<String> {
    let mut stream = timeout(Duration::from_secs(10), TcpStream::connect(addr)).await.ok()?.ok()?;
    let mut answer = Vec::new();
    let asked = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    // An error behind the answer is none.
    let _ = timeout(Duration::from_secs(10), asked).await.unwrap();
    Some(String::from_utf8_lossy(&answer).to_ascii_lowercase())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// Knocks until nobody listens, from many sides at once; how often it was answered.
async fn besieged(addr: SocketAddr, requests: &[String]) -> usize {
    let mut all = JoinSet::new();
    for n in 0..12 {
        let requests = requests.to_vec();
        all.spawn(async move {
            for count in 0.. {
                let request = &requests[(n + count) % requests.len()];
                let Some(answer) = knock(addr, request).await else { return count };
                assert!(answer.starts_with("http/1.1 503 "), "{request}: {answer:?}");
                assert!(
                    answer.contains("\r\nretry-after: 1\r\n") && answer.contains("\r\nconnection: close\r\n"),
                    "{request}: {answer:?}"
                );
                let body = answer.split_once("\r\n\r\n").unwrap().1;
                let whole = if request.starts_with("HEAD") {
                    body.is_empty()
                } else {
                    body.contains("\"unavailable\"") && body.ends_with('}')
                };
                assert!(whole, "{request}: {answer:?}");
            }
            unreachable!()
        });
    }
    all.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_while_it_leaves_is_answered_to_the_end() {
    // Body: longer than the whole drain.
    let mut world = World::with(&["ua"], natterjack_protocol::Times { body: Duration::from_secs(60), ..times() }).await;
    let mut kept = world.dial().await;
    kept.say(get("/ready")).await;
    assert_eq!(kept.answer().await.status, 200);
    let mut half = world.dial().await;
    half.say(
        "POST /v1/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n{\"name\":",
    )
    .await;
    let mut silent = world.dial().await;
    let mut socket = world.socket(Codec::Json).await;
    let mut idle = world.client("ua", "d1", Codec::Json).await;
    let (addr, begun) = (world.addr, Instant::now());
    let ended = world.stop();
    idle.until(|f| matches!(f, ServerFrame::Draining { .. })).await;
    socket.closes_with(close::DRAINING).await;

    kept.say(get("/v1/edges")).await;
    let answer = kept.answer().await;
    assert_eq!(
        (answer.status, answer.header("retry-after"), answer.header("connection")),
        (503, Some("1"), Some("close"))
    );
    let post = "POST /v1/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        .to_owned();
    let requests =
        [get("/ready"), get("/v1/edges"), upgrade(""), get("/health"), post, get("/ready").replace("GET", "HEAD")];
    let answered = besieged(addr, &requests).await;
    assert!(answered >= 12 * requests.len(), "each of them from many sides: {answered}");
    let answer = half.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "what is half is answered, too");
    assert_eq!(silent.stream.read(&mut [0]).await.unwrap(), 0, "who has said nothing is told nothing");
    timeout(Duration::from_secs(20), ended).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() > Duration::from_secs(3), "it stays as long as somebody comes, within its time");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_alone_keep_no_edge_and_are_answered() {
    // With more time than anybody needs: that it leaves at once does not hang on how fast this machine is.
    let mut world =
        World::with(&["ua"], natterjack_protocol::Times { drain: Duration::from_secs(60), ..times() }).await;
    // A session that has somewhere to go to, and the time for it, keeps the edge until health checks have seen that it
    // leaves.
    world.another_edge("other", ([0, 0, 0, 0], 9999).into(), "elsewhere".into(), Some("wss://e2.example.org")).await;
    let edges = async || world.http("GET", "/v1/edges", None, "").await.2["edges"].as_array().map_or(0, Vec::len);
    eventually("there is another edge", async || edges().await == 2).await;
    let mut session = world.client("ua", "d1", Codec::Json).await;
    let (addr, begun) = (world.addr, Instant::now());
    let ended = world.stop();
    session.until(|f| matches!(f, ServerFrame::Draining { after_ms: 1.., .. })).await;
    let told = knock(addr, &get("/ready")).await.unwrap();
    assert!(told.starts_with("http/1.1 503 "), "{told}");
    drop(session);
    // Whoever still gets in is answered; it may be gone before anybody does.
    besieged(addr, &[get("/ready"), get("/health")]).await;
    timeout(Duration::from_secs(30), ended).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
