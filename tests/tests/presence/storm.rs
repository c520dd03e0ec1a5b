//! Thousands of sessions that come and go within the ten seconds in which nobody is shown as offline.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use natterjack_nats::{KvBuckets, Layout};
use natterjack_protocol::client::presence::PresenceState;
use natterjack_testkit::{eventually_within, process::resident_mib};
use natterjack_tests::kit::{Cluster, User, truth::DEBOUNCE};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::common::{Bare, Friend, SOON, spec};

const USERS: usize = 250;
const ROUNDS: usize = 20;
/// Hellos on their way at once: two cores do no more together.
const TOGETHER: usize = 32;
/// A user's value: one device of about 200 bytes.
const VALUE_BYTES: usize = 400;
/// What a process may have grown by, with an allocator that keeps some of it.
const GROWN_MIB: u64 = 64;

/// When a user was connected: from the hello to the goodbye.
type Spans = Vec<(Instant, Instant)>;

/// The user says hello and goodbye again and again; every other one stays at the end.
async fn come_and_go(cluster: &Cluster, user: &User, n: usize) -> (Spans, Option<AbortOnDropHandle<()>>) {
    let mut spans = Spans::new();
    for round in 0..ROUNDS {
        let from = Instant::now();
        let mut bare = Bare::connect(cluster, user, (n + round) % 2).await;
        if round + 1 == ROUNDS && n.is_multiple_of(2) {
            spans.push((from, from + Duration::from_secs(3_600)));
            return (spans, Some(bare.hold()));
        }
        bare.bye().await;
        spans.push((from, Instant::now()));
    }
    (spans, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_sessions_that_come_and_go_leave_the_truth_behind_and_nothing_else() {
    let cluster = Cluster::start(spec()).await;
    let users = cluster.mint_users(USERS + 1).await;
    let others: Vec<&User> = users[1..].iter().collect();
    let friend = Friend::watching(&cluster, &users[0], 0, &others).await;
    let processes = || [cluster.edge(0), cluster.edge(1), cluster.presence(0)];
    let before = processes().map(|p| resident_mib(p.pid()));
    let began = Instant::now();
    let each = others.iter().enumerate().map(|(n, user)| come_and_go(&cluster, user, n)).collect::<Vec<_>>();
    let done: Vec<(Spans, Option<AbortOnDropHandle<()>>)> = stream::iter(each).buffered(TOGETHER).collect().await;
    let took = began.elapsed();
    let sessions: usize = done.iter().map(|(spans, _)| spans.len()).sum();
    eprintln!("{sessions} sessions came and went in {took:?}");
    assert_eq!(sessions, USERS * ROUNDS);

    for (n, user) in others.iter().enumerate() {
        let state = if n.is_multiple_of(2) { PresenceState::Online } else { PresenceState::Offline };
        friend.sees(user, state, DEBOUNCE + SOON).await;
    }
    // Nobody was shown as offline while they came and went, nor as online for longer than ten seconds afterwards.
    let over = Instant::now();
    for (user, (spans, _)) in others.iter().zip(&done) {
        let history = friend.history(user);
        let ends = history.iter().skip(1).map(|(at, _)| *at).chain([over]);
        for ((from, state), to) in history.iter().zip(ends) {
            let online = |at: Instant, more: Duration| spans.iter().any(|(a, b)| *a <= at && at <= *b + more);
            match state {
                PresenceState::Online => assert!(online(to, DEBOUNCE + SOON), "{}: {history:?} {spans:?}", user.id()),
                // What was known before the first hello may still be on its way.
                PresenceState::Offline if from.duration_since(spans[0].0) > SOON => {
                    assert!(!online(*from, DEBOUNCE - Duration::from_secs(1)), "{}: {history:?} {spans:?}", user.id());
                }
                _ => {}
            }
        }
    }

    // A value per user, small, with nothing that is not settled; and no process has kept what is over.
    let nats = cluster.connect_nats().await;
    let layout = Layout::load(&nats).await.unwrap();
    let kv = KvBuckets::new(&nats, layout);
    eventually_within("every session that is over is out of its user's value", SOON, async || {
        let (mut values, mut wrong) = (0, Vec::new());
        for shard in 0..layout.kv_shards {
            for (user, value) in kv.devices_of_shard(shard).list().await.map_err(|e| e.to_string())? {
                values += 1;
                if value.devices.len() != 1 || !value.unsettled.is_empty() {
                    wrong.push(user);
                }
            }
        }
        if values == USERS + 1 && wrong.is_empty() { Ok(()) } else { Err(format!("{values} values; {wrong:?}")) }
    })
    .await;
    for user in &others {
        let size = kv.devices(user.id()).size().await.unwrap().unwrap_or_default();
        assert!((1..=VALUE_BYTES).contains(&size), "{size} bytes");
    }
    sleep(Duration::from_secs(1)).await; // what is dropped is freed
    for ((process, before), after) in processes().iter().zip(before).zip(processes().map(|p| resident_mib(p.pid()))) {
        eprintln!("{}: {before} MiB, then {after} MiB", process.name());
        assert!(after <= before + GROWN_MIB, "{}: {before} MiB, then {after} MiB", process.name());
    }
}
