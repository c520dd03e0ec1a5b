use natterjack_nats::{Layout, LeaderReader, NatsConfig, ProvisionError, Publisher, provision, provision as again};
use natterjack_protocol::{MsgId, Times};
use natterjack_testkit::{NatsServer, raw_jetstream, thread};

#[tokio::test]
async fn twice_is_once_and_a_restart_keeps_it() {
    let (mut s, nats, layout) = NatsServer::ready().await;
    assert_eq!(layout, Layout::new(1, 2, 2));
    assert_eq!(again(&nats, &s.config(), &Times::default()).await.unwrap(), layout);
    assert_eq!(Layout::load(&nats).await.unwrap(), layout);
    s.restart();
    let nats = s.nats().await;
    assert_eq!(provision(&nats, &s.config(), &Times::default()).await.unwrap(), layout);
}

#[tokio::test]
async fn what_differs_is_named_and_left_alone() {
    let (s, nats, layout) = NatsServer::ready().await;
    let times = Times { log_max_age: Times::default().log_max_age * 2, ..Times::default() };
    let e = provision(&nats, &s.config(), &times).await.unwrap_err();
    assert!(matches!(&e, ProvisionError::Drift { name, .. } if name == "CHAT-1-0"), "{e}");
    assert!(e.to_string().contains("max_age"), "{e}");
    let cfg = NatsConfig { kv_shards: 3, ..s.config() };
    let e = provision(&nats, &cfg, &Times::default()).await.unwrap_err();
    assert!(e.to_string().contains("kv_shards is 2, wanted 3"), "{e}");
    // The number of partitions is the layout's.
    let cfg = NatsConfig { partitions: 3, ..s.config() };
    assert_eq!(provision(&nats, &cfg, &Times::default()).await.unwrap(), layout);
    let cfg = NatsConfig { max_bytes: Some(1 << 30), ..s.config() };
    let e = provision(&nats, &cfg, &Times::default()).await.unwrap_err();
    assert!(e.to_string().contains("max_bytes"), "{e}");
    provision(&nats, &s.config(), &Times::default()).await.unwrap();
}

#[tokio::test]
async fn a_clock_before_2026_is_refused_and_nothing_is_made() {
    let s = NatsServer::start();
    let nats = s.nats().await;
    let e = natterjack_nats::provision::provision_at(&nats, &s.config(), &Times::default(), 1_700_000_000_000)
        .await
        .unwrap_err();
    assert!(matches!(e, ProvisionError::Clock(_)), "{e}");
    assert!(Layout::load(&nats).await.is_err());
}

#[tokio::test]
async fn ids_begin_at_the_time_of_creation_and_never_go_back() {
    let (s, nats, layout) = NatsServer::ready().await;
    let tail = LeaderReader::new(&nats, layout);
    let bounds = tail.bounds(0).await.unwrap();
    let expected = natterjack_nats::first_seq(bounds.created_ms, 0);
    assert!(bounds.first.0.abs_diff(expected) < 60_000 << 12, "{bounds:?}");
    assert!(bounds.first.0 < 1 << 53);
    let t = thread("dm.a.b");
    let p = layout.partition(&t);
    let stored = Publisher::new(&nats, layout, Times::default()).message(&t, "m1", "x".into()).await.unwrap();
    assert_eq!(stored.id, tail.bounds(p).await.unwrap().first);
    // The stream is lost and made again with a clock that went back: its ids are above those of its neighbour, at
    // least.
    let other = 1 - p;
    let js = raw_jetstream(&nats).await;
    js.delete_stream(format!("CHAT-1-{other}")).await.unwrap();
    natterjack_nats::provision::provision_at(&nats, &s.config(), &Times::default(), natterjack_nats::EPOCH_MS)
        .await
        .unwrap();
    assert_eq!(tail.bounds(other).await.unwrap().first, MsgId(stored.id.0 + 1));
}

#[tokio::test]
async fn a_log_can_be_neither_purged_nor_shortened() {
    let (_s, nats, layout) = NatsServer::ready().await;
    let t = thread("dm.a.b");
    Publisher::new(&nats, layout, Times::default()).message(&t, "m1", "x".into()).await.unwrap();
    let js = raw_jetstream(&nats).await;
    let stream = js.get_stream(layout.stream(&t)).await.unwrap();
    assert!(stream.purge().await.is_err());
    assert!(stream.delete_message(stream.cached_info().state.first_sequence).await.is_err());
}

/// The files for people are files the server accepts, and agree with what `up` writes where it matters.
#[test]
fn the_shipped_configuration_files_are_valid() {
    for name in ["single.conf", "cluster.conf"] {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("server").join(name);
        let out = std::process::Command::new(natterjack_testkit::programs::nats_server())
            .arg("-t")
            .arg("-c")
            .arg(&file)
            .output()
            .unwrap();
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        let text = std::fs::read_to_string(&file).unwrap();
        let written = natterjack_nats::server_config::single_config(
            "/x".as_ref(),
            "h",
            1,
            natterjack_nats::server_config::DiskSync::Interval,
        );
        for line in written.lines().filter(|l| {
            ["max_payload", "ping_interval", "ping_max", "max_connections"].iter().any(|k| l.starts_with(k))
        }) {
            assert!(text.contains(line), "{name} lacks `{line}`");
        }
    }
}
