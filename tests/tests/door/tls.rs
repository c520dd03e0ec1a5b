//! TLS on the edge's own port: people chat over it, a certificate is replaced under them, and whoever gets through no
//! handshake is let go.

use std::{process::Stdio, time::Duration};

use natterjack_protocol::codec::Codec;
use natterjack_testkit::{
    certificates::{Pair, replace},
    eventually_within, patience, programs, within,
};
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, next_event, next_messages};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::Instant,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

use super::common::SOON;

/// A handshake and the head of a request, together, where a test waits for it.
const HANDSHAKE: Duration = Duration::from_secs(5);

fn spec() -> ClusterSpec {
    ClusterSpec { tls: true, ..ClusterSpec::default() }
}

async fn tcp(cluster: &Cluster) -> TcpStream {
    TcpStream::connect(cluster.edge_addr(0)).await.unwrap()
}

async fn handshake(cluster: &Cluster) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::IpAddress(cluster.edge_addr(0).ip().into());
    within("a handshake", SOON, TlsConnector::from(cluster.certificates().client()).connect(name, tcp(cluster).await))
        .await
}

/// Does a new connection get this certificate?
async fn shows(cluster: &Cluster, pair: &Pair) -> bool {
    let stream = handshake(cluster).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec() == pair.der()
}

async fn metric(cluster: &Cluster, line: &str) -> String {
    cluster.edge_metrics(0).await.lines().find_map(|l| l.strip_prefix(line)).unwrap_or("absent").trim().to_owned()
}

/// What comes until the other side is done.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = within("the edge lets go", HANDSHAKE + SOON, stream.read_to_end(&mut all)).await;
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_chat_over_tls() {
    let cluster = Cluster::start(spec()).await;
    let (alice, bob) = (cluster.user("alice").await, cluster.user("bob").await);
    let (a, mut a_events) = cluster.client(&alice, 0).await;
    let (_b, mut b_events) = cluster.client(&bob, 1).await;
    a.send_text(alice.dm(&bob), "through two locks").await.unwrap();
    let got = next_messages(&mut b_events, 1, SOON).await;
    assert_eq!(got[0].body.text.as_deref(), Some("through two locks"));

    // The other edge is learnt by its wss:// address, and gone to.
    let (_, edges) = cluster.anonymous(0).get("/v1/edges").await;
    let edges = edges["edges"].as_array().unwrap();
    assert!(edges.len() == 2 && edges.iter().all(|e| e.as_str().unwrap().starts_with("wss://")), "{edges:?}");
    cluster.edge(0).terminate().await;
    let connected = |e| match e {
        natterjack_client::ClientEvent::Connected { edge } => Some(edge),
        _ => None,
    };
    let other = cluster.edge_url(1);
    while next_event(&mut a_events, "alice is on the other edge", SOON, connected).await != other {}
    a.send_text(alice.dm(&bob), "from the other one").await.unwrap();
    cluster.edge(0).start().await;

    // A terminal.
    let chat = async |ca: Option<&str>, name: &str| {
        let mut command = Command::new(programs::natterjack());
        command.args([
            "chat",
            "--plain",
            "--edge",
            &cluster.edge_url(0),
            "--name",
            name,
            "--register",
            "--to",
            &bob.name,
        ]);
        command.env("NATTERJACK_PASSWORD", "correct horse battery").env_remove("NATTERJACK_CA");
        command.args(ca.into_iter().flat_map(|file| ["--ca", file]));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // Refused before it reads: then nobody takes this.
        let _ = child.stdin.take().unwrap().write_all(b"from a terminal\n").await;
        let out = within("the chat ends", SOON * 2, child.wait_with_output()).await.unwrap();
        (out.status.success(), String::from_utf8(out.stderr).unwrap())
    };
    let (ok, said) = chat(Some(cluster.certificates().ca_file.to_str().unwrap()), "carol-1").await;
    assert!(ok, "{said}");
    let texts: Vec<_> = next_messages(&mut b_events, 2, SOON).await.into_iter().filter_map(|m| m.body.text).collect();
    assert_eq!(texts, ["from the other one", "from a terminal"]);
    let (ok, said) = chat(None, "carol-2").await;
    assert!(!ok && said.contains("certificate"), "an authority that nobody knows is not believed: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_needs_no_restart_and_a_broken_one_changes_nothing() {
    let cluster = Cluster::start(ClusterSpec { edges: 1, ..spec() }).await;
    let users = cluster.mint_users(1).await;
    let (alice, files) = (&users[0], cluster.certificates());
    let thread = alice.dm(alice);
    let mut socket = cluster.raw(alice, 0, Codec::Json).await;
    let mut http = handshake(&cluster).await.unwrap();
    let mut still_there = async || {
        socket.send_text(&thread, "still here").await.unwrap();
        http.write_all(b"GET /health HTTP/1.1\r\nHost: edge\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        within("an answer", SOON, http.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        // The rest of it; the body ends with this brace.
        let mut end = [0];
        let mut open = 0;
        loop {
            within("the body", SOON, http.read_exact(&mut end)).await.unwrap();
            open += i32::from(end == *b"{") - i32::from(end == *b"}");
            if open == 0 && end == *b"}" {
                return;
            }
        }
    };
    still_there().await;

    let second = files.issue();
    assert!(!shows(&cluster, &second).await);
    files.install(&second);
    eventually_within("new connections get the new one", SOON, async || shows(&cluster, &second).await).await;
    assert_eq!(metric(&cluster, "natterjack_edge_tls_stale").await, "0");
    still_there().await;

    // The key of another certificate, half a file, no file.
    let third = files.issue();
    replace(&files.key, &third.key);
    eventually_within("it is noticed", SOON, async || metric(&cluster, "natterjack_edge_tls_stale").await == "1").await;
    assert!(shows(&cluster, &second).await);
    for (n, broken) in [(2, Some(&third.certificate[..200])), (3, None)] {
        match broken {
            Some(text) => replace(&files.certificate, text),
            None => std::fs::remove_file(&files.certificate).unwrap(),
        }
        eventually_within("it is noticed", SOON, async || {
            let failed = metric(&cluster, "natterjack_edge_tls_reloads_total{result=\"failed\"}").await;
            if failed == n.to_string() { Ok(()) } else { Err(failed) }
        })
        .await;
        assert!(shows(&cluster, &second).await);
    }
    assert!(cluster.edge(0).log().contains("edge.tls.key: the key in"), "the log says what is wrong");
    still_there().await;

    files.install(&third);
    eventually_within("a good one heals it", SOON, async || shows(&cluster, &third).await).await;
    assert_eq!(metric(&cluster, "natterjack_edge_tls_stale").await, "0");
    still_there().await;
    cluster.assert_not_logged("PRIVATE KEY");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_handshakes_end_at_their_deadline_and_do_not_pile_up() {
    const PLACES: usize = 24;
    let set =
        [("edge.max_connections", PLACES.to_string()), ("edge.handshake_seconds", HANDSHAKE.as_secs().to_string())];
    let set = set.map(|(k, v)| (k.to_owned(), v)).into();
    let cluster = Cluster::start(ClusterSpec { edges: 1, set, alone: true, ..spec() }).await;
    // The kit's own question whether it is ready may still hold a place.
    eventually_within("every place is free", SOON, async || {
        drop(handshake(&cluster).await.map_err(|e| e.to_string())?);
        Ok::<_, String>(())
    })
    .await;

    // Silent, in the middle of the hello, in the middle of the record's head, and one that trickles.
    const BEGIN: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    let began = Instant::now();
    let mut half = Vec::new();
    while half.len() < PLACES - 2 {
        let mut stream = tcp(&cluster).await;
        stream.write_all(&BEGIN[..[0, BEGIN.len(), 3][half.len() % 3]]).await.unwrap();
        half.push(stream);
    }
    let mut trickle = tcp(&cluster).await;
    let trickling = tokio::spawn(async move {
        for byte in BEGIN.iter().cycle() {
            if trickle.write_all(&[*byte]).await.is_err() {
                break;
            }
            // Byte by byte, longer than the handshake may take.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    });
    // All places are taken now, or one is left. Whoever comes then is told so in the words of TLS.
    let mut open = Vec::new();
    let refused = loop {
        assert!(open.len() <= 2, "half handshakes hold no places");
        match handshake(&cluster).await {
            Ok(stream) => open.push(stream),
            Err(e) => break e,
        }
    };
    assert!(refused.to_string().contains("AccessDenied"), "{refused}");
    for stream in &mut half {
        assert_eq!(rest(stream).await, b"");
    }
    let took = began.elapsed();
    assert!(took >= HANDSHAKE.mul_f64(0.9) && took <= patience(HANDSHAKE * 2), "{took:?}");
    let took = within("the one that trickles is let go", SOON, trickling).await.unwrap();
    assert!(took <= patience(HANDSHAKE * 2), "{took:?}");
    eventually_within("there is room again", SOON, async || {
        handshake(&cluster).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    let late = metric(&cluster, "natterjack_edge_tls_handshakes_total{result=\"late\"}").await;
    assert!(late.parse::<usize>().is_ok_and(|n| n >= half.len()), "{late}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_tls_gets_a_clear_end() {
    let cluster = Cluster::start(ClusterSpec { edges: 1, ..spec() }).await;
    let mut plain = tcp(&cluster).await;
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: edge\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(rest(&mut plain).await).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://") && answer.contains("\"invalid\""),
        "{answer}"
    );
    match RawWs::try_connect(cluster.edge_addr(0), Codec::Json.subprotocol()).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => assert_eq!(answer.status().as_u16(), 400),
        other => panic!("{:?}", other.err()),
    }
    // The SDK at the wrong door.
    let tried = natterjack_client::Client::builder()
        .edges([format!("ws://{}", cluster.edge_addr(0))])
        .register("dave", "correct horse");
    let refused = tried.connect().await.err().expect("refused").to_string();
    assert!(refused.contains("wss://"), "{refused}");
    // Neither: an alert, and closed.
    let mut noise = tcp(&cluster).await;
    noise.write_all(&[0; 64]).await.unwrap();
    let alert = rest(&mut noise).await;
    assert!(alert.is_empty() || alert[0] == 21, "{alert:?}");
    assert!(handshake(&cluster).await.is_ok());
}

/// Before it has looked for NATS or taken a port.
#[tokio::test]
async fn an_edge_without_a_good_certificate_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let files = natterjack_testkit::Certificates::new(folder.path().to_owned(), vec!["127.0.0.1".to_owned()]);
    let start = async |set: &[String]| {
        let mut command = Command::new(programs::natterjack());
        command
            .args(["edge", "--set", "edge.listen=127.0.0.1:0"])
            .args(set.iter().flat_map(|s| ["--set", s]))
            .kill_on_drop(true);
        let out = within("it ends", SOON, command.output()).await.unwrap();
        assert!(!out.status.success());
        String::from_utf8(out.stderr).unwrap()
    };
    let certificate = format!("edge.tls.certificate={}", files.certificate.display());
    let said = start(std::slice::from_ref(&certificate)).await;
    assert!(said.contains("edge.tls.key: is missing"), "{said}");
    let said = start(&[certificate.clone(), "edge.tls.key=/nowhere/key.pem".into()]).await;
    assert!(said.contains("edge.tls.key: cannot read /nowhere/key.pem"), "{said}");
    std::fs::write(&files.key, files.issue().key).unwrap();
    let said = start(&[certificate, format!("edge.tls.key={}", files.key.display())]).await;
    assert!(said.contains("does not belong to the certificate"), "{said}");
}
