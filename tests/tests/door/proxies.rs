//! Behind nginx, HAProxy and Caddy, each configured by its snippet in docs/operations.md: requests and sockets of many
//! clients over the few connections that the proxy keeps, each client counted for itself.

use std::{net::SocketAddr, time::Duration};

use natterjack_protocol::codec::Codec;
use natterjack_testkit::{Certificates, Process, RawHttp, process::Ready, programs, raw_http::upgrade, within};
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, User, next_messages};
use tokio::net::TcpSocket;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use tokio_tungstenite::MaybeTlsStream;

use super::common::SOON;

const CLIENTS: usize = 12;
const PER_ADDRESS: usize = 3;

/// What stands between the marks, without the fence.
fn snippet(name: &str) -> String {
    let text = include_str!("../../../docs/operations.md");
    let (_, rest) =
        text.split_once(&format!("<!-- tested {name} -->\n")).unwrap_or_else(|| panic!("operations.md has no {name}"));
    let (block, _) = rest.split_once("<!-- end -->").unwrap();
    let lines: Vec<&str> = block.lines().filter(|l| !l.starts_with("```")).collect();
    lines.join("\n")
}

/// The snippet with other addresses and files; each of them has to stand in it.
fn filled(name: &str, changes: &[(&str, String)]) -> String {
    changes.iter().fold(snippet(name), |text, (from, to)| {
        assert!(text.contains(from), "{name}: {from:?} does not stand in the document");
        text.replace(from, to)
    })
}

pub struct Proxy {
    pub process: Process,
    pub addr: SocketAddr,
    certificates: Certificates,
}

/// In front of every edge. None: it is not installed.
pub async fn start(cluster: &Cluster, name: &str) -> Option<Proxy> {
    let Some(program) = programs::installed(name) else {
        eprintln!("\n==== SKIPPED: {name} is not installed, so its snippet in docs/operations.md was not run ====\n");
        return None;
    };
    let addr = cluster.proxy_addr();
    let edges: Vec<String> = (0..cluster.spec().edges).map(|i| cluster.edge_addr(i).to_string()).collect();
    let folder = cluster.folder().join(name);
    std::fs::create_dir(&folder).unwrap();
    let certificates = Certificates::new(folder.clone(), vec![addr.ip().to_string()]);
    let (cert, key) = (certificates.certificate.display().to_string(), certificates.key.display().to_string());
    let config = folder.join("config");
    let dir = folder.display();
    let (text, args): (String, &[&str]) = match name {
        "nginx" => {
            let changes = [
                ("server 10.0.0.11:8080;", edges.iter().map(|e| format!("server {e};")).collect()),
                ("listen 443 ssl", format!("listen {addr} ssl")),
                ("chat.example.org", "_".to_owned()),
                ("/etc/ssl/chat.pem", cert),
                ("/etc/ssl/chat.key", key),
            ];
            let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .iter()
                .map(|t| format!("{t}_temp_path {dir}/{t};\n"))
                .collect();
            let own = format!(
                "daemon off; master_process off; pid {dir}/pid; error_log stderr;\nevents {{ }}\nhttp {{ access_log \
                 off;\n{temp}"
            );
            (own + &filled(name, &changes) + "\n}\n", &["-p", ".", "-c"])
        }
        "haproxy" => {
            let both = folder.join("both.pem");
            std::fs::write(
                &both,
                [&certificates.certificate, &certificates.key].map(|f| std::fs::read_to_string(f).unwrap()).concat(),
            )
            .unwrap();
            let servers: Vec<String> =
                edges.iter().enumerate().map(|(n, e)| format!("server edge{n} {e} check")).collect();
            let servers = servers.join("\n    ");
            let changes = [
                ("server edge1 10.0.0.11:8080 check", servers),
                ("bind :443", format!("bind {addr}")),
                ("/etc/ssl/chat.pem", both.display().to_string()),
            ];
            (filled(name, &changes) + "\n", &["-db", "-f"])
        }
        _ => {
            let changes = [
                ("10.0.0.11:8080", edges.join(" ")),
                ("chat.example.org", format!("https://{addr}")),
                ("/etc/ssl/chat.pem", cert),
                ("/etc/ssl/chat.key", key),
            ];
            let own = format!(
                "{{\n\tadmin off\n\tdefault_bind {}\n\tauto_https disable_redirects\n\tstorage file_system {dir}\n}}\n",
                addr.ip()
            );
            (own + &filled(name, &changes) + "\n", &["run", "--adapter", "caddyfile", "--config"])
        }
    };
    std::fs::write(&config, text).unwrap();
    let args = args.iter().map(|a| (*a).to_owned()).chain([config.display().to_string()]).collect();
    let process = Process::new(name, &program, args, &cluster.folder(), Ready::Tcp(addr))
        .env("HOME", &folder.display().to_string());
    process.start().await;
    Some(Proxy { process, addr, certificates })
}

impl Proxy {
    /// A client with an address of its own.
    pub async fn dial(&self, from: &str) -> RawHttp<TlsStream<tokio::net::TcpStream>> {
        let connected = async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
            let tcp = socket.connect(self.addr).await.unwrap();
            let name = ServerName::IpAddress(self.addr.ip().into());
            TlsConnector::from(self.certificates.client()).connect(name, tcp).await.unwrap()
        };
        RawHttp::new(within("a connection to the proxy", SOON, connected).await)
    }

    /// Caddy looks at the host.
    pub fn to(&self, request: &str) -> String {
        request.replace("Host: edge", &format!("Host: {}", self.addr))
    }

    pub async fn socket(&self, from: &str, user: &User) -> RawWs {
        let mut http = self.dial(from).await;
        http.say(self.to(&upgrade(""))).await;
        let answer = http.answer().await;
        assert_eq!(answer.status, 101, "{}: {answer:?}", self.process.name());
        let mut ws = RawWs::over(MaybeTlsStream::Rustls(http.stream), http.read, Codec::Json).await;
        ws.hello(user).await;
        ws
    }
}

/// Connections that the edge has now.
async fn connections(cluster: &Cluster) -> usize {
    let text = cluster.edge_metrics(0).await;
    let line =
        text.lines().find_map(|l| l.strip_prefix("natterjack_edge_connections ")).unwrap_or_else(|| panic!("{text}"));
    line.trim().parse::<f64>().unwrap() as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_sockets_share_the_connections_of_a_proxy() {
    let set = [
        // The proxies come from here, and the test's own requests.
        ("limits.trusted_proxies", "127.0.0.1".to_owned()),
        ("limits.exempt", "127.0.0.1".to_owned()),
        ("limits.connections_per_address", PER_ADDRESS.to_string()),
        // What clients are told of where to come is the proxy's address, and that from the requests alone.
        ("edge.url", String::new()),
    ];
    let set = set.map(|(k, v)| (k.to_owned(), v)).into();
    let cluster = Cluster::start(ClusterSpec { edges: 1, set, ..ClusterSpec::default() }).await;
    for name in ["nginx", "haproxy", "caddy"] {
        if let Some(proxy) = start(&cluster, name).await {
            through(&cluster, &proxy).await;
            proxy.process.kill9().await;
        }
    }
}

async fn through(cluster: &Cluster, proxy: &Proxy) {
    let name = proxy.process.name();
    let users = cluster.mint_users(CLIENTS + 2).await;
    let before = connections(cluster).await;
    // Many at once: a pool of connections to the edge is left.
    let requests = (0..CLIENTS).map(async |n| {
        let mut http = proxy.dial(&format!("127.9.0.{}", n + 1)).await;
        let token = &users[n].tokens.access;
        for (request, status) in [
            (format!("GET /v1/threads HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {token}\r\n\r\n"), 200),
            (
                "POST /v1/groups HTTP/1.1\r\nHost: edge\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}"
                    .to_owned(),
                401,
            ),
            ("DELETE /v1/threads HTTP/1.1\r\nHost: edge\r\n\r\n".to_owned(), 405),
            (
                format!(
                    "GET /v1/sync?wait_ms=300&synced=x HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {token}\r\n\r\n"
                ),
                200,
            ),
        ] {
            http.say(proxy.to(&request)).await;
            let answer = http.answer().await;
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            assert!(answer.header("natterjack-now").is_some(), "from the edge: {answer:?}");
        }
        http
    });
    let mut clients = futures_util::future::join_all(requests).await;
    let pool = connections(cluster).await - before;
    assert!(pool > 0, "{name} keeps no connection: nothing is shown");

    // Each becomes a socket, half of them on the connection that it has to the proxy already.
    let mut sockets = Vec::new();
    for (n, mut http) in clients.drain(..).enumerate() {
        let ws = if n % 2 == 0 {
            http.say(proxy.to(&upgrade(""))).await;
            let answer = http.answer().await;
            assert_eq!(answer.status, 101, "{name}: {answer:?}");
            let mut ws = RawWs::over(MaybeTlsStream::Rustls(http.stream), http.read, Codec::Json).await;
            ws.hello(&users[n]).await;
            ws
        } else {
            proxy.socket(&format!("127.9.0.{}", n + 1), &users[n]).await
        };
        sockets.push(ws);
    }
    let mut http = proxy.dial("127.9.0.1").await;
    http.say(proxy.to(
        "GET /v1/edges HTTP/1.1\r\nHost: edge\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: http\r\n\r\n",
    ))
    .await;
    assert_eq!(http.answer().await.body, format!(r#"{{"edges":["wss://{}"]}}"#, proxy.addr), "{name}");
    drop(http);
    let all = connections(cluster).await - before;
    // Caddy has other connections for sockets than for requests, the other two have not.
    let shared = all < pool + CLIENTS;
    assert!(
        shared || name == "caddy",
        "{name} opened a connection for every socket ({all}, pool {pool}): nothing is shown"
    );

    // They chat.
    for n in 0..CLIENTS {
        let thread = users[n].dm(&users[(n + 1) % CLIENTS]);
        let id = sockets[n].send_text(&thread, &format!("{n} says hello")).await.unwrap();
        loop {
            let event = sockets[(n + 1) % CLIENTS].event().await;
            if event.id == id {
                break;
            }
        }
    }
    // So does the SDK.
    let ca = proxy.certificates.ca.as_str();
    let connect = async |user: &User| {
        let url = format!("wss://{}", proxy.addr);
        user.builder([url]).root_certificates(ca).connect().await.unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let (alice, bob) = (&users[CLIENTS], &users[CLIENTS + 1]);
    let ((one, _kept), (two, mut events)) = (connect(alice).await, connect(bob).await);
    one.send(alice.dm(bob), natterjack_protocol::Kind::Text, natterjack_protocol::Body::text("through a proxy"))
        .await
        .unwrap();
    let got = next_messages(&mut events, 1, SOON).await;
    assert_eq!(got[0].body.text.as_deref(), Some("through a proxy"));
    one.close().await;
    two.close().await;

    // Each client has its own places, and a refusal is the edge's.
    let mut own = Vec::new();
    for _ in 0..PER_ADDRESS {
        own.push(proxy.socket("127.9.1.1", &users[0]).await);
    }
    let mut http = proxy.dial("127.9.1.1").await;
    http.say(proxy.to(&upgrade(""))).await;
    let refused = http.answer().await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"), "{name}");
    drop(own);
    drop(proxy.socket("127.9.1.2", &users[1]).await);
    // Places come back when the edge hears of the end from the proxy.
    natterjack_testkit::eventually_within("a place is free again", Duration::from_secs(15), async || {
        let mut http = proxy.dial("127.9.1.1").await;
        http.say(proxy.to(&upgrade(""))).await;
        http.answer().await.status == 101
    })
    .await;
}
