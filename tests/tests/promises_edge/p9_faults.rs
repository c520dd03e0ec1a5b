//! P9 where something is not as it should be: the bucket is lost, two edges have one id, two installations one device.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use natterjack_client::ClientEvent;
use natterjack_nats::{KvBuckets, Layout, NatsRole, provision, subjects};
use natterjack_protocol::{MsgId, Times, Token, internal::kv::EdgeInfo};
use natterjack_testkit::{Process, eventually_within, process::Ready, programs, raw_jetstream};
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, User};
use tokio::time::{Instant, sleep, timeout};

use super::{
    common::{ReadLog, SOON},
    devices::{Greeted, buckets, phone, say, session, stored, told},
};

const TOGETHER: usize = 8;
/// The bucket is away for so long.
const AWAY: Duration = Duration::from_secs(3);

/// What came in stands under the user's key.
async fn is_claimed(kv: &KvBuckets, user: &User, ws: &RawWs) -> bool {
    let Ok(Some(value)) = kv.devices(user.id()).load().await else { return false };
    value.has(&user.tokens.device, &session(ws).parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_lost_while_phones_come_keeps_nobody_out_and_one_phone_is_in_again() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let users = cluster.mint_users(161).await;
    let (nats, kv) = (cluster.connect_nats().await, buckets(&cluster).await);
    let layout = Layout::load(&nats).await.unwrap();
    let (before, rest) = users.split_at(40);
    let (meanwhile, two) = rest.split_at(120);
    let come = |users: &[User]| {
        let hellos = users.iter().cloned().enumerate().map(|(n, user)| {
            let cluster = &cluster;
            async move { (say(cluster, n % 2, phone(&user, None)).await.inside(), user) }
        });
        stream::iter(hellos.collect::<Vec<_>>()).buffer_unordered(TOGETHER)
    };
    let mut inside: Vec<(RawWs, User)> = come(before).collect().await;
    // Of one user two phones come while nobody can count them.
    let other = cluster.other_device(&two[0], "d-other");
    let lost = async {
        let jetstream = raw_jetstream(&nats).await;
        for shard in 0..layout.kv_shards {
            jetstream.delete_stream(format!("KV_{}", subjects::sessions_bucket(shard))).await.unwrap();
        }
        let both = tokio::join!(say(&cluster, 0, phone(&two[0], None)), say(&cluster, 1, phone(&other, None)));
        sleep(AWAY).await; // hellos come meanwhile
        provision(&nats, &cluster.nats_config(), &Times::default()).await.unwrap();
        [both.0.inside(), both.1.inside()]
    };
    let paced = come(meanwhile).then(async |greeted| {
        sleep(Duration::from_millis(40)).await; // so that hellos come before, during and after
        greeted
    });
    let (came, both) = tokio::join!(paced.collect::<Vec<_>>(), lost);
    inside.extend(came);
    eventually_within("every claim is in the new bucket", SOON * 3, async || {
        let mut missing = 0;
        for (ws, user) in &inside {
            missing += usize::from(!is_claimed(&kv, user, ws).await);
        }
        if missing == 0 { Ok(()) } else { Err(format!("{missing} of {}", inside.len())) }
    })
    .await;
    // Of two who were let in uncounted one stays, and everybody else was left alone.
    let [mut a, mut b] = both;
    let both = tokio::join!(told(&mut a, SOON), told(&mut b, SOON));
    assert!(both.0.is_some() != both.1.is_some(), "{both:?}");
    for (ws, user) in &mut inside {
        ws.send_text(&user.dm(user), "still here").await.unwrap();
    }
    // And a second phone displaces the first, as ever.
    for (ws, user) in inside.iter_mut().take(10) {
        let second = cluster.other_device(user, "d-second");
        let _in = say(&cluster, 0, phone(&second, None)).await.inside();
        assert!(told(ws, SOON).await.is_some());
    }
}

/// Another process with the id of the first edge.
fn twin(cluster: &Cluster) -> Process {
    let (listen, admin) = (cluster.proxy_addr(), cluster.proxy_addr());
    let own = ["edge.id=edge-0".into(), format!("edge.listen={listen}"), format!("admin.listen={admin}")];
    let own = own.into_iter().flat_map(|set| ["--set".to_owned(), set]);
    let args = ["edge".to_owned(), "--die-with-parent".to_owned()];
    let args = args.into_iter().chain(cluster.command_line(NatsRole::Edge)).chain(own).collect();
    let ready = Ready::Http(format!("http://{listen}/ready"));
    Process::new("twin", programs::natterjack(), args, &cluster.folder(), ready)
}

async fn lease(kv: &KvBuckets) -> EdgeInfo {
    kv.edge(&Token::parse("edge-0").unwrap()).load().await.unwrap().expect("somebody has the lease")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_edges_with_one_id_the_second_does_not_start_and_the_first_keeps_its_lease() {
    let cluster = Cluster::start(ClusterSpec { edges: 1, ..ClusterSpec::default() }).await;
    let (kv, one) = (buckets(&cluster).await, &cluster.mint_users(1).await[0]);
    let mut ws = say(&cluster, 0, phone(one, None)).await.inside();
    let first = lease(&kv).await;
    for _ in 0..3 {
        let twin = twin(&cluster);
        twin.spawn();
        let status = twin.wait_exit(SOON * 2).await;
        let log = twin.log();
        assert!(!status.success() && log.contains("edge.id: another edge runs with the id edge-0"), "{log}");
        assert_eq!(lease(&kv).await.incarnation, first.incarnation);
    }
    sleep(Times::default().edge_refresh).await; // a refresh, which finds nobody else's lease
    ws.send_text(&one.dm(one), "still here").await.unwrap();
    assert!(!cluster.edge(0).log().contains("another edge has the same edge.id"));
}

/// Frozen, it cannot say that it is there. Whoever wakes up sees that it has a successor, says so, and stores nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_wakes_up_beside_its_successor_says_so_and_takes_nothing_from_it() {
    let cluster = Cluster::start(ClusterSpec { edges: 1, ..ClusterSpec::default() }).await;
    let (kv, one) = (buckets(&cluster).await, &cluster.mint_users(1).await[0]);
    let thread = one.dm(one);
    let mut ws = say(&cluster, 0, phone(one, None)).await.inside();
    let kept = ws.send_text(&thread, "before").await.unwrap();
    let first = lease(&kv).await;
    cluster.edge(0).stop();
    let twin = twin(&cluster);
    twin.start().await;
    let second = lease(&kv).await;
    assert_ne!(second.incarnation, first.incarnation);
    assert!(twin.log().contains("takes the lease of another one with the same edge.id"), "{}", twin.log());
    cluster.edge(0).cont();
    let says = "another edge has the same edge.id";
    eventually_within("it says so", SOON * 2, async || cluster.edge(0).log().contains(says)).await;
    let end = Instant::now() + Times::default().edge_lease;
    while Instant::now() < end {
        assert_eq!(lease(&kv).await.incarnation, second.incarnation, "its successor's lease stands");
        sleep(Duration::from_millis(200)).await; // between two looks
    }
    // Its own lease has run out by its own clock: whatever it answers, the log has nothing of it.
    let sent = timeout(SOON, ws.send_text(&thread, "zombie")).await;
    assert!(!matches!(sent, Ok(Ok(_))), "{sent:?}");
    cluster.edge(0).terminate().await;
    assert_eq!(lease(&kv).await.incarnation, second.incarnation, "and it deletes its own only");
    assert_eq!(ReadLog::of(&cluster).await.messages(&thread, MsgId::NONE).await, [kept]);
    assert!(twin.is_running());
}

/// A backup that was restored, or a second tab: one device id, two installations, and no end of comings and goings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_installations_with_one_device_id_the_last_one_stays_and_the_other_does_not_come_back() {
    let cluster = Cluster::start(ClusterSpec::default()).await;
    let (kv, users) = (buckets(&cluster).await, cluster.mint_users(2).await);
    // By hand, one after the other, each with the session that the other one has: the value does not grow with that.
    let one = &users[0];
    let mut last: Option<(RawWs, String)> = None;
    for n in 0..8 {
        let held = last.as_ref().map(|(_, held)| held.clone());
        let ws = say(&cluster, n % 2, phone(one, held.as_deref())).await.inside();
        let held = session(&ws);
        if let Some((mut before, _)) = last.replace((ws, held)) {
            assert_eq!(before.until_closed(SOON).await, 4003, "round {n}");
        }
    }
    let settled = async |user: &User| {
        eventually_within("its older sessions are out of the value", SOON, async || {
            let (value, revision) = stored(&kv, user).await;
            let settled = value.unsettled.is_empty() && value.devices.len() == 1;
            if settled { Ok(revision) } else { Err(format!("{value:?}")) }
        })
        .await
    };
    settled(one).await;
    // In the same moment at two edges: both may be greeted, one stays.
    for round in 0..4 {
        let both = tokio::join!(say(&cluster, 0, phone(one, None)), say(&cluster, 1, phone(one, None)));
        let (mut inside, mut stay) = (Vec::new(), 0);
        for greeted in [both.0, both.1] {
            match greeted {
                Greeted::In(ws) => inside.push(ws),
                Greeted::Closed(code) => assert_eq!(code, 4003, "round {round}"),
                Greeted::Displaced(by, _) => panic!("its own device: {by:?}"),
            }
        }
        for ws in &mut inside {
            // A second until the older one is told, and a moment.
            match timeout(Duration::from_millis(2_500), ws.until_closed(SOON)).await {
                Ok(code) => assert_eq!(code, 4003, "round {round}"),
                Err(_) => stay += 1,
            }
        }
        assert_eq!(stay, 1, "round {round}");
    }
    // Two SDKs, each at its edge.
    let (_first, mut events) = cluster.client(&users[1], 0).await;
    let greeted = async |events: &mut natterjack_client::Events| {
        while !matches!(events.next().await, Some(ClientEvent::Connected { .. }) | None) {}
    };
    timeout(SOON, greeted(&mut events)).await.unwrap();
    let (second, mut others) = cluster.client(&users[1], 1).await;
    timeout(SOON, greeted(&mut others)).await.unwrap();
    let ended = async {
        loop {
            match events.next().await {
                Some(ClientEvent::Ended { code, .. }) => return Some(code),
                None => return None,
                Some(_) => {}
            }
        }
    };
    assert_eq!(timeout(SOON, ended).await.unwrap(), Some(4003), "the first one ends");
    let revision = settled(&users[1]).await;
    sleep(Duration::from_secs(3)).await; // who came back would have by now
    assert_eq!(stored(&kv, &users[1]).await.1, revision, "nobody comes and goes");
    second.send_text(second.dm(second.user()), "still here").await.unwrap();
    second.flushed(SOON).await.unwrap();
}
