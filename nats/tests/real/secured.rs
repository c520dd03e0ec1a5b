//! Servers that let in only whom they know, and show who they are: the client that a process shares, and connections
//! of our own.

use std::time::Duration;

use natterjack_nats::{
    FanIn, FanInEvent, LogReader, Nats, NatsConfig, NatsConnectError, Publisher, ReadFrom, SubscriptionSlot, TlsFiles,
    check_servers, provision,
};
use natterjack_protocol::{MsgId, Times};
use natterjack_testkit::{
    NatsServer,
    certificates::{Certificates, replace},
    eventually,
    nats_login::{Operator, logins},
    thread_in,
};

use crate::{
    fanin::{collect, connected, message, sizes_of_whole},
    ids_of,
};

fn quick(cfg: NatsConfig) -> NatsConfig {
    NatsConfig { connect_deadline_ms: 300, ..cfg }
}

/// A message through the log, read over a connection of the reader's own, and one through a subscription.
async fn works(cfg: &NatsConfig) {
    let nats = Nats::connect(cfg, "test").await.unwrap();
    let layout = provision(&nats, cfg, &Times::default()).await.unwrap();
    let t = thread_in(&layout, 0);
    let id = Publisher::new(&nats, layout, Times::default()).message(&t, "m", "x".into()).await.unwrap().id;
    let mut reader = LogReader::new(&nats, layout, 0, ReadFrom::After(MsgId::NONE));
    assert_eq!(ids_of(&reader.next_batch(10).await.unwrap()), [id]);
    let mut f = FanIn::connect(cfg, "edge").await.unwrap();
    f.subscribe("live.user.a.e", SubscriptionSlot(0));
    connected(&mut f).await;
    nats.publish("live.user.a.e", "here".into()).await.unwrap();
    assert_eq!(collect(&mut f, 1, message).await[0].2, "here");
    // The reader's and the fan-in's are beside the client's.
    assert!(check_servers(cfg, "test").await.unwrap().iter().all(|(_, found)| found.is_ok()));
}

async fn refusals(cfg: NatsConfig) -> [NatsConnectError; 2] {
    let cfg = quick(cfg);
    [Nats::connect(&cfg, "test").await.err().unwrap(), FanIn::connect(&cfg, "test").await.err().unwrap()]
}

#[tokio::test]
async fn every_way_to_log_in() {
    let dir = tempfile::tempdir().unwrap();
    for login in logins(dir.path()) {
        let s = NatsServer::start_with(&login.server);
        let with_login = |cfg: NatsConfig| match login.in_url {
            Some(user) => {
                NatsConfig { urls: cfg.urls.iter().map(|u| u.replace("//", &format!("//{user}"))).collect(), ..cfg }
            }
            None => cfg,
        };
        works(&with_login(s.config_of(login.client.clone()))).await;
        let Some(wrong) = login.wrong.clone() else { continue };
        for e in refusals(s.config_of(wrong)).await {
            assert!(
                matches!(&e, NatsConnectError::Refused { .. }) && e.to_string().contains(login.advice),
                "{}: {e}",
                login.name
            );
        }
    }
}

/// As the short ones of managed servers: the file is replaced, and what is open goes on with the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_expire_are_read_again() {
    let (dir, operator) = (tempfile::tempdir().unwrap(), Operator::new());
    let (s, file) = (NatsServer::start_with(&operator.server()), dir.path().join("user.creds"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    std::fs::write(&file, operator.user(serde_json::json!({ "exp": now + 4 }))).unwrap();
    let cfg = s.config_of(NatsConfig { creds: Some(file.clone()), ..NatsConfig::default() });
    let nats = Nats::connect(&cfg, "test").await.unwrap();
    let mut f = FanIn::connect(&cfg, "edge").await.unwrap();
    f.subscribe("live.user.a.e", SubscriptionSlot(0));
    connected(&mut f).await;
    replace(&file, &operator.user(serde_json::json!({})));
    assert_eq!(connected(&mut f).await, 2);
    eventually("the shared one is back, too", async || nats.flush_barrier().await.is_ok()).await;
    nats.publish("live.user.a.e", "here".into()).await.unwrap();
    assert_eq!(collect(&mut f, 1, message).await[0].2, "here");
}

/// An authority, the server's configuration, and what a client has to believe.
struct Secure {
    _dir: tempfile::TempDir,
    certificates: Certificates,
    other: Certificates,
}

impl Secure {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            Certificates::new(folder, vec!["localhost".into()])
        };
        Self { certificates: at("ours"), other: at("other"), _dir: dir }
    }

    /// A `tls` block with a certificate of `by` for these hosts.
    fn block(by: &Certificates, hosts: &[String], more: &str, old: bool) -> String {
        let dates = |p: &mut rcgen::CertificateParams| {
            if old {
                (p.not_before, p.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
            }
        };
        let name = format!("{}-{old}", hosts[0]);
        let (certificate, key) = by.write(&name, &by.issue_for(hosts, dates));
        format!("tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {:?}\n {more} }}\n", by.ca_file)
    }

    fn server(&self, more: &str) -> NatsServer {
        NatsServer::start_as(|host| Self::block(&self.certificates, &[host.to_owned()], more, false))
    }

    fn client(&self) -> NatsConfig {
        NatsConfig {
            tls: TlsFiles { ca: Some(self.certificates.ca_file.clone()), ..TlsFiles::default() },
            ..NatsConfig::default()
        }
    }

    /// That shows a certificate, too.
    fn known_client(&self, by: &Certificates) -> NatsConfig {
        let (certificate, key) = by.write("client", &by.issue_for(&["natterjack".into()], |_| {}));
        let tls = TlsFiles { certificate: Some(certificate), key: Some(key), ..self.client().tls };
        NatsConfig { tls, ..NatsConfig::default() }
    }
}

fn first(cfg: NatsConfig) -> NatsConfig {
    NatsConfig { tls: TlsFiles { first: true, ..cfg.tls.clone() }, ..cfg }
}

#[tokio::test]
async fn over_tls_also_first_and_with_a_certificate_of_ours() {
    let secure = Secure::new();
    let plain = secure.server("");
    works(&plain.config_of(secure.client())).await;
    let at_first = secure.server("handshake_first: true");
    works(&at_first.config_of(first(secure.client()))).await;
    let mutual = secure.server("verify: true");
    works(&mutual.config_of(secure.known_client(&secure.certificates))).await;
}

#[tokio::test]
async fn what_is_wrong_with_tls_is_said() {
    let secure = Secure::new();
    let (ours, other) = (&secure.certificates, &secure.other);
    let says = async |cfg: NatsConfig, what: &str| {
        for e in refusals(cfg).await {
            assert!(matches!(&e, NatsConnectError::Tls { .. }) && e.to_string().contains(what), "{what}: {e}");
        }
    };
    let good = secure.server("");
    let unknown = TlsFiles { ca: Some(other.ca_file.clone()), ..TlsFiles::default() };
    says(
        good.config_of(NatsConfig { tls: unknown, ..NatsConfig::default() }),
        "name the file with the authority's certificate",
    )
    .await;
    // Asked for by the server alone, and believed by nobody here.
    says(good.config(), "name the file with the authority's certificate").await;
    says(good.config_of(first(secure.client())), "unset nats.tls.first").await;
    let old = NatsServer::start_as(|host| Secure::block(ours, &[host.to_owned()], "", true));
    says(old.config_of(secure.client()), "has expired").await;
    let elsewhere = NatsServer::start_as(|_| Secure::block(ours, &["elsewhere.example".into()], "", false));
    says(elsewhere.config_of(secure.client()), "for another name than 127.").await;
    let mutual = secure.server("verify: true");
    says(mutual.config_of(secure.client()), "nats.tls.certificate").await;
    says(mutual.config_of(secure.known_client(other)), "does not take our certificate").await;
    // The password is not told to whoever speaks no TLS.
    says(NatsServer::start().config_of(secure.client()), "speaks no TLS").await;
    let none =
        NatsConfig { tls: TlsFiles { ca: Some("/none.pem".into()), ..TlsFiles::default() }, ..NatsConfig::default() };
    for e in refusals(good.config_of(none)).await {
        assert!(e.to_string().contains("nats.tls.ca: cannot read /none.pem"), "{e}");
    }
}

/// More than any buffer holds, in both directions at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_over_tls_arrives_whole() {
    let secure = Secure::new();
    let s = secure.server("");
    let mut f = FanIn::connect(&s.config_of(secure.client()), "edge").await.unwrap();
    f.subscribe("live.user.a.e", SubscriptionSlot(9));
    connected(&mut f).await;
    const N: usize = 10_000;
    let big: Vec<u8> = (0..300_000usize).map(|i| i as u8).collect();
    let size = |i: usize| if i.is_multiple_of(500) { 300_000 } else { i % 3_000 };
    for i in 0..N {
        f.publish("live.user.a.e", &big[..size(i)]);
    }
    let lengths = sizes_of_whole(&mut f, N).await;
    assert!(lengths.iter().enumerate().all(|(i, l)| *l == size(i)));
}

/// Its certificate is of an authority that nobody believes: whoever knows it by the configuration or by INFO goes on
/// to the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_one_with_another_certificate() {
    let secure = Secure::new();
    let by = |i: usize| if i == 1 { &secure.other } else { &secure.certificates };
    let mut servers = NatsServer::cluster_as(3, |i, host| Secure::block(by(i), &[host.to_owned()], "", false));
    let url = |i: usize| servers[i].config().urls[0].clone();
    let cfg = NatsConfig {
        urls: vec![url(1), url(0)],
        replicas: 3,
        connect_deadline_ms: 30_000,
        ..servers[0].config_of(secure.client())
    };
    // A client learns of the others when it connects.
    eventually("the first one names the third", async || servers[0].named() == 3).await;
    let nats = Nats::connect(&cfg, "test").await.unwrap();
    eventually("provisioned", async || provision(&nats, &cfg, &Times::default()).await.is_ok()).await;
    let layout = natterjack_nats::Layout::load_at_start(&nats).await.unwrap();
    let mut f = FanIn::connect(&cfg, "edge").await.unwrap();
    f.subscribe("live.user.a.e", SubscriptionSlot(0));
    connected(&mut f).await;
    let found = check_servers(&cfg, "test").await.unwrap();
    assert!(matches!(&found[0].1, Err(NatsConnectError::Tls { .. })) && found[1].1.is_ok(), "{found:?}");

    // The third one is known from the first one's INFO only.
    servers[0].kill();
    assert_eq!(connected(&mut f).await, 2);
    let heard = async {
        let mut events = Vec::new();
        loop {
            let _ = nats.publish("live.user.a.e", "here".into()).await;
            let _ = tokio::time::timeout(Duration::from_millis(200), f.next_batch(&mut events)).await;
            if events.drain(..).any(|e| matches!(e, FanInEvent::Msg { .. })) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), heard).await.expect("heard");
    // Its stream may be without a leader for a moment.
    let publisher = Publisher::new(&nats, layout, Times::default());
    eventually("stored", async || publisher.message(&thread_in(&layout, 0), "m", "x".into()).await.is_ok()).await;
}
