//! Counts lies. In seeded episodes edges are killed, frozen and cut off while users come and go; nobody may be shown as
//! online for longer than a lease and ten seconds after their last socket died, and nobody as offline while they are
//! connected to an edge that is reached.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use natterjack_tests::kit::{
    Cluster, ClusterSpec, User,
    truth::{DEBOUNCE, LEASE, SLACK, Truth},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::common::{Bare, Friend, spec};

const USERS: usize = 6;
/// Edges beside the watcher's, which nothing happens to.
const EDGES: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Freeze,
    CutOff,
    Nothing,
}

async fn episode(seed: u64) -> Vec<String> {
    eprintln!("episode with seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = Cluster::start(ClusterSpec { edges: 1 + EDGES, proxied_edges: true, ..spec() }).await;
    let began = Instant::now();
    let users = cluster.mint_users(USERS + 1).await;
    let others: Vec<&User> = users[1..].iter().collect();
    let friend = Friend::watching(&cluster, &users[0], 0, &others).await;
    let mut truths: Vec<Truth> = (0..USERS).map(|_| Truth::default()).collect();
    let mut held: BTreeMap<usize, (usize, AbortOnDropHandle<()>)> = BTreeMap::new();
    let mut faulty: BTreeMap<usize, Fault> = BTreeMap::new();
    let (end, fault_at) = (Instant::now() + Duration::from_secs(16), rng.random_range(2..6));
    let fault = [Fault::Kill, Fault::Freeze, Fault::CutOff, Fault::Nothing][rng.random_range(0..4)];
    let (victim, mut second) = (1 + rng.random_range(0..EDGES), 0);
    while Instant::now() < end {
        // Users come and go at edges that are well.
        let user = rng.random_range(0..USERS);
        let edge = 1 + rng.random_range(0..EDGES);
        if let Some((_, socket)) = held.remove(&user) {
            drop(socket);
            truths[user].goes(began.elapsed());
        } else if !faulty.contains_key(&edge) {
            // It may be shown before the greeting is read.
            truths[user].comes(began.elapsed());
            let socket = Bare::connect(&cluster, others[user], edge).await.hold();
            held.insert(user, (edge, socket));
        }
        second += 1;
        if second == fault_at {
            let at = began.elapsed();
            match fault {
                Fault::Kill => cluster.edge(victim).kill9().await,
                Fault::Freeze => cluster.edge(victim).stop(),
                Fault::CutOff => {
                    cluster.nats_proxy(victim).refuse(true);
                    cluster.nats_proxy(victim).reset();
                }
                Fault::Nothing => {}
            }
            if !matches!(fault, Fault::Nothing) {
                faulty.insert(victim, fault);
                for (user, (_, _)) in held.iter().filter(|(_, (edge, _))| *edge == victim) {
                    truths[*user].goes(at);
                }
                held.retain(|_, (edge, _)| *edge != victim);
            }
        }
        sleep(Duration::from_millis(rng.random_range(600..1_400))).await; // the pace of the episode
    }
    // What is left is told.
    sleep(LEASE + DEBOUNCE + SLACK).await;
    let over = began.elapsed();
    if faulty.values().any(|f| matches!(f, Fault::Freeze)) {
        cluster.edge(victim).cont();
    }
    let lies = others.iter().zip(&truths).flat_map(|(user, truth)| {
        let history = friend.history(user).into_iter().map(|(at, state)| (at.duration_since(began), state));
        let lies = truth.lies(&history.collect::<Vec<_>>(), over, |_, _| true);
        lies.into_iter().map(move |(state, at)| {
            let (id, truth) = (user.id(), &truth.connected);
            format!("seed {seed}, {fault:?}: {id} was shown as {state:?} at {at:?}; connected {truth:?}")
        })
    });
    lies.collect()
}

/// One after the other; what is found is said at once, and in the end.
async fn episodes(seeds: impl IntoIterator<Item = u64>) {
    let (mut lies, mut played) = (Vec::new(), 0);
    for seed in seeds {
        let found = episode(seed).await;
        played += 1;
        eprintln!("episode with seed {seed} is over: {found:#?}");
        lies.extend(found);
    }
    assert!(lies.is_empty(), "in {played} episodes: {lies:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_lies_in_ten_episodes() {
    // Nine that are always the same, and one that nobody has seen.
    let fresh = rand::random_range(0..1_000_000);
    join_all([[0, 1], [2, 3], [4, 5], [6, 7], [8, fresh]].map(episodes)).await;
}

/// As many at once as clusters may run: a fourth would wait for its turn, and might not get one in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "an hour; make test-heavy"]
async fn nobody_lies_in_two_hundred_episodes() {
    join_all((0..3).map(|part| episodes((1_000..1_200).skip(part).step_by(3)))).await;
}
