//! Kept connections on a whole system, plain and over TLS: an upgrade behind other requests, and readers that stop.

use std::time::Duration;

use natterjack_protocol::{codec::Codec, limits};
use natterjack_testkit::{RawHttp, eventually, eventually_within, raw_http::upgrade, within};
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tokio_tungstenite::MaybeTlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::common::SOON;

/// As a client with a pool does it: log in, look around, poll, and then a socket, all over one connection.
async fn as_a_pool_does<S>(cluster: &Cluster, stream: S, wrap: impl FnOnce(S) -> MaybeTlsStream<TcpStream>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let users = cluster.mint_users(2).await;
    let (user, peer) = (&users[0], &users[1]);
    let mut witness = cluster.raw(peer, 0, Codec::Json).await;
    let mut http = RawHttp::new(stream);
    let token = &user.tokens.access;
    let post = |path: &str, body: &serde_json::Value| {
        let (body, json) = (body.to_string(), "Content-Type: application/json; charset=utf-8");
        format!(
            "POST {path} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {token}\r\n{json}\r\nContent-Length: \
             {}\r\n\r\n{body}",
            body.len()
        )
    };
    let dm = user.dm(peer);
    http.say(post(&format!("/v1/threads/{dm}/messages"), &super::common::text(super::common::cid(), "over HTTP")))
        .await;
    assert_eq!(http.answer().await.status, 200);
    http.say(post("/v1/sync", &json!({ "wait_ms": 100 }))).await;
    assert_eq!(http.answer().await.status, 200);
    http.say(post("/v1/sync", &json!({ "wait_ms": 100, "more": "\u{1F438}".repeat(20_000) }))).await;
    http.answer().await;
    http.say(format!("{}{}", post("/v1/groups", &json!({ "name": 5 })), upgrade(""))).await;
    assert_eq!(http.answer().await.status, 400);
    assert_eq!(http.answer().await.status, 101);
    let mut ws = RawWs::over(wrap(http.stream), http.read, Codec::Json).await;
    ws.hello(user).await;
    let id = ws.send_text(&dm, "over the same connection").await.unwrap();
    loop {
        if witness.event().await.id == id {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooled_connection_becomes_a_socket_over_tls() {
    let cluster = Cluster::start(ClusterSpec { edges: 1, tls: true, ..ClusterSpec::default() }).await;
    for _ in 0..2 {
        let name = ServerName::IpAddress(cluster.edge_addr(0).ip().into());
        let tcp = TcpStream::connect(cluster.edge_addr(0)).await.unwrap();
        let connected = TlsConnector::from(cluster.certificates().client()).connect(name, tcp);
        let stream = within("a handshake", SOON, connected).await.unwrap();
        as_a_pool_does(&cluster, stream, MaybeTlsStream::Rustls).await;
    }
}

fn resident_kb(cluster: &Cluster) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.edge(0).pid())).unwrap();
    status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap()
}

async fn connections(cluster: &Cluster) -> f64 {
    cluster
        .edge_metrics(0)
        .await
        .lines()
        .find_map(|l| l.strip_prefix("natterjack_edge_connections ")?.trim().parse().ok())
        .unwrap()
}

/// 24 connections that pipeline the largest pages and read nothing, or a KiB a second: they cost one page each at most,
/// and not for long.
async fn readers_cost_little_and_not_for_long(stall: u64, trickle: bool) {
    const READERS: usize = 24;
    // One user asks for all of it: what is refused for their number would be small.
    let set = vec![
        ("edge.stall_seconds".to_owned(), stall.to_string()),
        ("limits.requests_per_user".to_owned(), "0".to_owned()),
    ];
    let cluster = Cluster::start(ClusterSpec { edges: 1, set, ..ClusterSpec::default() }).await;
    as_a_pool_does(&cluster, TcpStream::connect(cluster.edge_addr(0)).await.unwrap(), MaybeTlsStream::Plain).await;

    let users = cluster.mint_users(2).await;
    let dm = users[0].dm(&users[1]);
    let mut ws = cluster.raw(&users[0], 0, Codec::Json).await;
    for n in 0..16 {
        ws.send_text(&dm, &format!("{n} {}", "\u{1F438}".repeat(9_990))).await.unwrap();
    }
    let path = format!("/v1/threads/{dm}/messages?limit=16");
    let page = eventually_within("the largest page", SOON, async || {
        let (status, page) = cluster.api(&users[0], 0).get(&path).await;
        let size = page.to_string().len();
        (status == 200 && size >= limits::PAGE_BYTES).then_some(size)
    })
    .await;
    let ask = format!("GET {path} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {}\r\n\r\n", users[0].tokens.access);

    // As many that read: what the edge needs to make so many pages at once is no matter of who stops.
    let (open, api) = (connections(&cluster).await, cluster.api(&users[0], 0));
    futures_util::future::join_all((0..READERS).map(|_| api.get(&path))).await;
    drop(api);
    eventually("their connections are closed", async || connections(&cluster).await < open + 5.0).await;
    let before = resident_kb(&cluster);
    let began = std::time::Instant::now();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        let mut http = RawHttp::new(socket.connect(cluster.edge_addr(0)).await.unwrap());
        http.say(ask.repeat(60)).await;
        readers.push(http);
    }
    let stall = Duration::from_secs(stall);
    let last = stall + Duration::from_secs_f64(page as f64 / limits::ANSWER_BYTES_PER_SECOND as f64);
    let tasks = if trickle { readers.drain(..).map(take_a_little).collect() } else { Vec::new() };
    let mut most = 0;
    eventually_within("all are let go", last + Duration::from_secs(30), async || {
        most = most.max(resident_kb(&cluster) - before);
        connections(&cluster).await < open + 5.0
    })
    .await;
    assert!(began.elapsed() >= stall.mul_f64(0.8), "not before their time");
    drop(tasks);
    let one_each = i64::try_from(READERS * page / 1024).unwrap();
    eprintln!(
        "{READERS} readers of pages of {page} bytes that stopped: {most} kB more at most, gone after {:?}",
        began.elapsed()
    );
    assert!(most < 2 * one_each, "{most} kB more, one page each is {one_each} kB");
    assert!(ws.send_text(&dm, "the others did not notice").await.is_ok());
}

/// A KiB a second, until it is let go.
fn take_a_little(mut http: RawHttp<TcpStream>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; 128];
        while matches!(http.stream.read(&mut buffer).await, Ok(1..)) {
            // 128 bytes each time: a KiB a second.
            tokio::time::sleep(Duration::from_millis(125)).await;
        }
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_cost_little_and_not_for_long() {
    readers_cost_little_and_not_for_long(4, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute and a half; make test-heavy"]
async fn heavy_readers_that_trickle_cost_little_and_not_for_long() {
    readers_cost_little_and_not_for_long(30, true).await;
}
