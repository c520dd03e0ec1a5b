//! Too much at once: sends without reading, sockets that never say hello, an edge that is full. Who floods is held back
//! or closed; everybody else goes on.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use natterjack_protocol::{
    Body, Code, Kind, MsgId,
    client::{
        close::{self, Back},
        frame::{ClientFrame, SendMessage, ServerFrame},
    },
    codec::Codec,
};
use natterjack_testkit::within;
use natterjack_tests::kit::{Cluster, ClusterSpec, Received, paging::whole};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::common::{SOON, all_well, good, history_texts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_sends_without_reading() {
    let cluster = Cluster::start(ClusterSpec { alone: true, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(4).await;
    let (flooder, peer) = (&users[0], &users[1]);
    let dm = flooder.dm(peer);
    let mut flood = cluster.raw(flooder, 0, Codec::Json).await;
    flood.send_text(&dm, "first").await.unwrap();
    let calm_dm = users[2].dm(&users[3]);
    let mut calm = cluster.raw(&users[2], 0, Codec::Json).await;
    calm.send_text(&calm_dm, "begin").await.unwrap();

    let writing = async {
        for i in 0..4_000u32 {
            let (r, cid) = (flood.request(), flood.cid());
            let body = Body::text(format!("flood {i}"));
            let frame =
                ClientFrame::Send(SendMessage { r, cid, thread: dm.clone(), kind: Kind::Text, body, behind: None })
                    .encode(Codec::Json);
            // The edge stops reading, or closes: both are its right.
            if !matches!(tokio::time::timeout(Duration::from_secs(2), flood.try_send_bytes(&frame)).await, Ok(Ok(()))) {
                return i;
            }
        }
        4_000
    };
    let others = async {
        let mut slowest = Duration::ZERO;
        for i in 0..40 {
            let began = Instant::now();
            calm.send_text(&calm_dm, &format!("calm {i}")).await.unwrap();
            slowest = slowest.max(began.elapsed());
        }
        slowest
    };
    let (written, slowest) = tokio::join!(writing, others);
    assert!(slowest < natterjack_testkit::patience(Duration::from_secs(2)), "the neighbour waited {slowest:?}");

    // Now it reads: each answered once, or a close that says how to go on.
    let (mut sent, mut answered) = (Vec::new(), std::collections::HashSet::new());
    let mut ended = None;
    while answered.len() < written as usize {
        match flood.next().await {
            Received::Frame(ServerFrame::Sent { r, id, .. }) => {
                assert!(answered.insert(r), "{r} is answered twice");
                sent.push(id);
            }
            Received::Frame(ServerFrame::Error { r: Some(r), refusal }) => {
                assert!(answered.insert(r), "{r} is answered twice");
                // Or one that came behind a refused one, when the rate would have let it through.
                let told = refusal.code == Code::RateLimited && refusal.retry_after_ms.is_some()
                    || refusal.code == Code::OutOfOrder;
                assert!(told && refusal.cid.is_some(), "{refusal:?}");
            }
            Received::Closed(code, reason) => {
                ended = Some((code, reason));
                break;
            }
            _ => {}
        }
    }
    if let Some((code, reason)) = ended {
        assert!([close::SLOW_READER.code, close::FLOOD.code].contains(&code), "{code} {reason}");
        assert_ne!(close::back(code), Back::Never);
    }
    assert!(sent.len() > 1_000 && sent.is_sorted(), "{} of {written} sent", sent.len());
    // Whatever was acknowledged is there, once, in the order of sending.
    let history = whole(&cluster.api(peer, 1), &dm, false).await;
    let stored: std::collections::HashSet<MsgId> = history.iter().map(|e| e.id).collect();
    assert!(sent.iter().all(|id| stored.contains(id)));
    let numbers: Vec<u32> =
        history.iter().filter_map(|e| e.body.text.as_deref()?.strip_prefix("flood ")?.parse().ok()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "in the order of sending, once");
    let mut again = cluster.raw(flooder, 0, Codec::Json).await;
    again.send_text(&dm, "calm now").await.unwrap();
    cluster.assert_not_logged("flood 17");
    all_well(&cluster);
}

const UPGRADE: &str = "GET /v1/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: \
                       Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
                       dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: natterjack.v1.json\r\n\r\n";

async fn silent(edge: SocketAddr, says: &[u8]) -> TcpStream {
    let mut tcp = within("a connection", SOON, TcpStream::connect(edge)).await.unwrap();
    tcp.write_all(says).await.unwrap();
    tcp
}

/// Everything until the other side closes.
async fn rest(mut tcp: TcpStream, limit: Duration) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = within("the edge closes", limit, tcp.read_to_end(&mut bytes)).await;
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_that_never_say_hello() {
    let set = vec![("edge.handshake_seconds".to_owned(), "5".to_owned())];
    let cluster = Cluster::start(ClusterSpec { set, alone: true, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(2).await;
    let dm = users[0].dm(&users[1]);
    let edge = cluster.edge_addr(0);
    let mut calm = cluster.raw(&users[0], 0, Codec::Json).await;
    calm.send_text(&dm, "before").await.unwrap();

    // Half a handshake, nothing at all, an upgrade without a hello.
    let began = Instant::now();
    let half = &UPGRADE.as_bytes()[..60];
    let says = |i: usize| match i % 8 {
        0 => half,
        1 => b"",
        _ => UPGRADE.as_bytes(),
    };
    let crowd: Vec<TcpStream> = stream::iter(0..2_000).map(|i| silent(edge, says(i))).buffered(64).collect().await;
    // The others notice nothing, those who are here and those who come.
    let mut slowest = Duration::ZERO;
    for i in 0..20 {
        let at = Instant::now();
        calm.send_text(&dm, &format!("meanwhile {i}")).await.unwrap();
        slowest = slowest.max(at.elapsed());
    }
    assert!(slowest < natterjack_testkit::patience(Duration::from_secs(2)), "waited {slowest:?}");
    let mut newcomer = cluster.raw(&users[1], 0, Codec::Json).await;
    newcomer.send_text(&dm, "there is room").await.unwrap();
    good(cluster.api(&users[0], 0).get("/v1/contacts").await);

    // All are put out after 5 s; who spoke WebSocket is told why.
    let ends = join_all(crowd.into_iter().map(|tcp| rest(tcp, Duration::from_secs(20)))).await;
    let lasted = began.elapsed();
    assert!(lasted > Duration::from_secs(4), "they had their time: {lasted:?}");
    let code = close::HELLO_TIMEOUT.code.to_be_bytes();
    let told = ends.iter().filter(|b| b.starts_with(b"HTTP/1.1 101") && b.windows(2).any(|w| w == code)).count();
    assert_eq!(told, 1_500);
    assert!(ends.iter().all(|b| !String::from_utf8_lossy(b).to_lowercase().contains("permessage-deflate")));
    all_well(&cluster);

    // Compression that is offered is not taken, so nobody sends a bomb by agreement.
    let offering = UPGRADE.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
    let mut tcp = silent(edge, offering.as_bytes()).await;
    let mut head = vec![0; 512];
    let n = within("an answer", SOON, tcp.read(&mut head)).await.unwrap();
    let head = String::from_utf8_lossy(&head[..n]).to_lowercase();
    assert!(head.starts_with("http/1.1 101") && !head.contains("extensions"), "{head}");
    // Heads that are none: a typed answer, then gone.
    for nonsense in [
        &b"\x16\x03\x01\x02\x00 hello, I am TLS\r\n\r\n"[..],
        b"GET /v1/ws HTTP/1.1\r\nHost: h\r\n\r\n",
        &[b'x'; 20_000],
    ] {
        let answer = String::from_utf8_lossy(&rest(silent(edge, nonsense).await, SOON).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("\"code\":\"invalid\""), "{answer:?}");
    }
    assert_eq!(history_texts(&cluster.api(&users[0], 1), &dm).await.len(), 22);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_edge_says_so_and_the_other_takes_them() {
    // `set` is for all: so the crowd fills edge 0 only.
    let set = vec![("edge.max_connections".to_owned(), "100".to_owned())];
    let cluster = Cluster::start(ClusterSpec { set, ..ClusterSpec::default() }).await;
    let users = cluster.mint_users(2).await;
    let mut inside = cluster.raw(&users[0], 0, Codec::Json).await;
    let crowd: Vec<TcpStream> =
        stream::iter(0..300).map(|_| silent(cluster.edge_addr(0), UPGRADE.as_bytes())).buffered(32).collect().await;
    // Who is inside stays, who comes is told; the other edge has room.
    inside.send_text(&users[0].dm(&users[1]), "inside").await.unwrap();
    let (client, mut events) = users[1]
        .builder([cluster.edge_url(0), cluster.edge_url(1)])
        .connect()
        .await
        .unwrap_or_else(|e| panic!("no edge: {e}"));
    natterjack_tests::kit::next_message(&mut events, Duration::from_secs(15)).await;
    client.close().await;
    let ends = join_all(crowd.into_iter().map(|tcp| rest(tcp, Duration::from_secs(20)))).await;
    let refused = ends
        .iter()
        .filter(|b| b.starts_with(b"HTTP/1.1 503"))
        .map(|b| String::from_utf8_lossy(b).into_owned())
        .collect::<Vec<_>>();
    assert!(refused.len() >= 200, "{} of 300 were refused", refused.len());
    assert!(
        refused.iter().all(|r| r.contains("\r\nretry-after: 5\r\n") && r.contains("\"unavailable\"")),
        "{:?}",
        refused[0]
    );
    // They are gone, there is room again.
    let mut ws = cluster.raw(&users[1], 0, Codec::Json).await;
    ws.send_text(&users[0].dm(&users[1]), "room again").await.unwrap();
    all_well(&cluster);
}
