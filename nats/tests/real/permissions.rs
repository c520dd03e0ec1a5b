//! The permissions that are printed, on a real nats-server: each role may do what it does, and nothing of what the
//! others do.

use std::time::Duration;

use async_nats::{Event, Subject};
use futures_util::StreamExt;
use natterjack_nats::{
    Kv, Layout, LogReader, Nats, NatsConfig, NatsRole, Publisher, ReadFrom, permissions::nats_server, probe, provision,
    subjects,
};
use natterjack_protocol::{MsgId, Times};
use natterjack_testkit::{NatsServer, raw_jetstream, thread_in};
use tokio::sync::mpsc;

use crate::ids_of;

const SHARDS: u32 = 2;

fn server() -> NatsServer {
    let users: String = NatsRole::ALL
        .iter()
        .map(|r| format!("{{ user: {0}, password: p, permissions: ${1} }}\n", r.name(), r.name().to_uppercase()))
        .collect();
    NatsServer::start_with(&format!(
        "authorization {{\n{}\nusers: [ {users} {{ user: all, password: p }} ] }}\n",
        nats_server(SHARDS)
    ))
}

fn as_user(s: &NatsServer, user: &str, role: Option<NatsRole>) -> NatsConfig {
    NatsConfig { user: Some(user.into()), password: Some("p".into()), role, ..s.config() }
}

fn of(s: &NatsServer, role: NatsRole) -> NatsConfig {
    as_user(s, role.name(), Some(role))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_do_what_it_does() {
    let s = server();
    let cfg = of(&s, NatsRole::Provision);
    let admin = Nats::connect(&cfg, "provision").await.unwrap();
    let layout = provision(&admin, &cfg, &Times::default()).await.unwrap();
    assert_eq!(provision(&admin, &cfg, &Times::default()).await.unwrap(), layout);
    for role in NatsRole::ALL {
        assert_eq!(probe::missing(&of(&s, role), role).await.unwrap(), Vec::<String>::new(), "{role:?}");
        for other in NatsRole::ALL.into_iter().filter(|r| *r != role && *r != NatsRole::Doctor) {
            let missing = probe::missing(&NatsConfig { role: Some(other), ..of(&s, role) }, other).await.unwrap();
            assert!(
                !missing.is_empty() && missing.iter().all(|m| m.contains("Permissions Violation")),
                "{role:?} as {other:?}: {missing:?}"
            );
        }
    }
    // Nothing of that was stored.
    let edge = Nats::connect(&of(&s, NatsRole::Edge), "edge").await.unwrap();
    let persister = Nats::connect(&of(&s, NatsRole::Persister), "persister").await.unwrap();
    let t = thread_in(&layout, 0);
    let id = Publisher::new(&edge, layout, Times::default()).message(&t, "m", "x".into()).await.unwrap().id;
    let mut reader = LogReader::new(&persister, layout, 0, ReadFrom::After(MsgId::NONE));
    assert_eq!(ids_of(&reader.next_batch(10).await.unwrap()), [id]);
    // Over its own connection, also into a generation that nobody knew when the permissions were made.
    let next = natterjack_nats::switch(&admin, &cfg, &Times::default(), 3).await.unwrap();
    assert_eq!((next.generation, next.partitions), (2, 3));
    let id =
        Publisher::new(&edge, next, Times::default()).message(&thread_in(&next, 2), "m2", "x".into()).await.unwrap().id;
    let mut reader = LogReader::fetching(&persister, next, 2, ReadFrom::After(MsgId::NONE));
    assert_eq!(ids_of(&reader.next_batch(10).await.unwrap()), [id]);
    assert_eq!(Layout::load(&Nats::connect(&of(&s, NatsRole::Doctor), "doctor").await.unwrap()).await.unwrap(), next);
}

/// A client without our names, and what the server forbids it.
async fn raw(s: &NatsServer, role: NatsRole) -> (async_nats::Client, mpsc::Receiver<String>) {
    let (tx, rx) = mpsc::channel(256);
    let options = async_nats::ConnectOptions::with_user_and_password(role.name().into(), "p".into()).event_callback(
        move |event| {
            let tx = tx.clone();
            async move {
                if let Event::ServerError(e) = event {
                    let _ = tx.try_send(e.to_string());
                }
            }
        },
    );
    (options.connect(&s.config().urls[0]).await.unwrap(), rx)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_role_may_do_what_is_anothers() {
    use NatsRole::{Channel, Doctor, Edge, Persister, Presence, Provision};
    let s = server();
    let all = Nats::connect(&as_user(&s, "all", None), "test").await.unwrap();
    provision(&all, &s.config(), &Times::default()).await.unwrap();
    let buckets = ["control", "roles", "leases"].map(|bucket| Kv::new(&all, bucket.into()));
    for bucket in &buckets {
        bucket.put("standing", "x".into()).await.unwrap();
    }
    let t = "dm.a.b".parse().unwrap();
    let user = "a".parse().unwrap();
    // A family of subjects, one of it, and who may publish there.
    let said: Vec<(String, &[NatsRole])> = vec![
        (subjects::chat(1, 0, &t), &[Edge]),
        (subjects::ctl(1, 0, &t), &[Edge, Persister]),
        (subjects::end(1, 0), &[Channel, Persister, Provision]),
        (subjects::live_user(&user), &[Channel]),
        (subjects::live_group(&"g".parse().unwrap()), &[Channel]),
        (subjects::beat(0), &[Channel]),
        (subjects::live_user_x(&user), &[Edge, Persister]),
        (subjects::live_group_x(&"g".parse().unwrap()), &[Edge]),
        (subjects::heads(1, 0), &[Edge]),
        (subjects::HISTORY.into(), &[Edge, Channel]),
        (subjects::LOSSES.into(), &[Doctor]),
        (subjects::DIRECTORY.into(), &[Edge, Channel]),
        (subjects::OPERATORS.into(), &[Provision]),
        ("$KV.control.generation".into(), &[Channel, Persister, Provision]),
        ("$KV.control.keys.k".into(), &[Persister]),
        ("$KV.control.revoked.f".into(), &[Persister]),
        ("$KV.control.positions.channel.1.0".into(), &[Channel]),
        ("$KV.control.positions.persister.1.0".into(), &[Persister]),
        ("$KV.roles.channel.1.0".into(), &[Channel]),
        ("$KV.roles.persister.1.0".into(), &[Persister]),
        ("$KV.roles.persister.1".into(), &[Persister]),
        ("$KV.users-0.a.cursors.0".into(), &[Edge, Persister]),
        ("$KV.leases.edge.e".into(), &[Edge]),
        ("$KV.users-0.a.threads.0".into(), &[Channel, Persister]),
        ("$KV.groups-1.g".into(), &[Channel, Persister]),
        ("$JS.API.STREAM.DELETE.CHAT-1-0".into(), &[]),
        ("$JS.API.STREAM.PURGE.CHAT-1-0".into(), &[]),
        ("$JS.API.STREAM.MSG.DELETE.CHAT-1-0".into(), &[]),
        ("$JS.API.STREAM.DELETE.KV_users-0".into(), &[]),
        ("$JS.API.STREAM.SNAPSHOT.KV_users-0".into(), &[]),
        ("$JS.API.STREAM.UPDATE.CHAT-1-0".into(), &[Channel, Persister, Provision]),
        ("$JS.API.STREAM.CREATE.MINE".into(), &[Channel, Persister, Provision]),
        ("$JS.API.STREAM.MSG.GET.KV_roles".into(), &[Channel, Persister, Presence]),
        ("$JS.API.STREAM.MSG.GET.KV_leases".into(), &[Edge, Presence, Doctor]),
        ("$JS.API.DIRECT.GET.KV_roles".into(), &[Channel, Persister, Presence]),
        ("$JS.API.DIRECT.GET.KV_leases.$KV.leases.x".into(), &[]),
        ("$JS.API.CONSUMER.CREATE.KV_leases.c".into(), &[]),
        ("$JS.API.CONSUMER.CREATE.CHAT-1-0.c".into(), &[Channel, Persister]),
        ("$JS.API.CONSUMER.CREATE.KV_users-0.c.$KV.users-0.>".into(), &[Persister, Presence]),
        ("$JS.API.CONSUMER.CREATE.KV_leases.c.$KV.leases.edge.*".into(), &[Edge, Presence, Doctor]),
        ("$JS.API.CONSUMER.DURABLE.CREATE.CHAT-1-0.c".into(), &[]),
        ("_INBOX.x.1".into(), &[]),
        ("_INBOX_edge.x.1".into(), &[Edge, Channel, Persister, Presence]),
        ("_INBOX_channel.x.1".into(), &[Channel, Persister]),
        ("_INBOX_persister.x.1".into(), &[Persister]),
        ("presence.0".into(), &[Presence]),
        ("svc.presence.0".into(), &[Edge, Doctor]),
        ("svc.edge.e".into(), &[Edge, Presence]),
        ("$KV.sessions-0.a".into(), &[Edge, Persister, Presence]),
        ("$KV.users-0.a.settings".into(), &[Edge, Persister]),
        ("$SYS.REQ.SERVER.PING".into(), &[]),
    ];
    let heard: Vec<(&str, &[NatsRole])> = vec![
        ("live.user.a.*", &[Edge]),
        ("live.group.g.*", &[Edge]),
        ("beat.*", &[Edge, Persister]),
        ("svc.history", &[Persister]),
        ("svc.losses", &[Persister]),
        ("svc.directory", &[Persister]),
        ("svc.channel.heads.1.0", &[Channel]),
        ("presence.*", &[Edge]),
        ("svc.presence.0", &[Presence]),
        ("chat.>", &[]),
        ("$KV.>", &[]),
        ("$JS.API.>", &[]),
        (">", &[]),
        ("_INBOX.>", &[]),
        ("_INBOX_edge.>", &[Edge]),
        ("_INBOX_channel.>", &[Channel]),
        ("_INBOX_persister.>", &[Persister]),
        ("_INBOX_presence.>", &[Presence]),
        ("_INBOX_provision.>", &[Provision]),
        ("_INBOX_doctor.>", &[Doctor]),
    ];
    for role in NatsRole::ALL {
        let (client, mut forbidden) = raw(&s, role).await;
        let mut expected = Vec::new();
        for (subject, who) in &said {
            // Where it may, it must not change anything: this is for a stream that is not there.
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Expected-Stream", "nobody");
            client.publish_with_headers(Subject::from(subject.as_str()), headers, "".into()).await.unwrap();
            expected.extend((!who.contains(&role)).then(|| format!("publish to \"{}\"", subject.to_lowercase())));
        }
        let mut subscriptions = Vec::new();
        for (subject, who) in &heard {
            subscriptions.push(client.subscribe(Subject::from(*subject)).await.unwrap());
            expected.extend((!who.contains(&role)).then(|| format!("subscription to \"{}\"", subject.to_lowercase())));
        }
        client.flush().await.unwrap();
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let said = tokio::time::timeout(Duration::from_secs(10), forbidden.recv()).await;
            got.push(
                said.unwrap_or_else(|_| panic!("{role:?} is told only {got:?}, not {expected:?}"))
                    .unwrap()
                    .to_lowercase(),
            );
        }
        for e in &expected {
            assert!(got.iter().any(|g| g.contains(e)), "{role:?}: {e} is allowed; forbidden is {got:?}");
        }
        // And nothing else.
        let more = tokio::time::timeout(Duration::from_millis(100), forbidden.recv()).await;
        assert!(more.is_err(), "{role:?}: {more:?}");
    }
    // All streams are there, with what was in them.
    assert_eq!(buckets[1].get("standing").await.unwrap().unwrap().0, "x");
    let names = raw_jetstream(&all).await.stream_names().count().await;
    assert_eq!(names, 2 + 3 + 3 * SHARDS as usize);
}

/// As docs/operations.md says: who may ask JetStream for something also says where the answer goes.
#[tokio::test]
async fn what_permissions_do_not_stop() {
    let s = server();
    let all = Nats::connect(&as_user(&s, "all", None), "test").await.unwrap();
    provision(&all, &s.config(), &Times::default()).await.unwrap();
    let mut heard = all.subscribe("live.user.a.e").await.unwrap();
    all.flush_barrier().await.unwrap();
    let (edge, mut forbidden) = raw(&s, NatsRole::Edge).await;
    edge.publish("live.user.a.e", "forged".into()).await.unwrap();
    assert!(forbidden.recv().await.unwrap().to_lowercase().contains("live.user.a.e"));
    edge.publish_with_reply(
        "$JS.API.STREAM.MSG.GET.KV_control",
        "live.user.a.e",
        r#"{"last_by_subj":"$KV.control.generation"}"#.into(),
    )
    .await
    .unwrap();
    let got = tokio::time::timeout(Duration::from_secs(10), heard.next()).await.expect("heard").unwrap();
    assert!(got.payload.starts_with(b"{\"type\":\"io.nats.jetstream.api.v1.stream_msg_get_response"), "{got:?}");
}
