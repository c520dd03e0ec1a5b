//! Counts lies. In seeded episodes edges are killed, frozen and cut off while users come and go; nobody may be shown as
//! online for longer than a lease and ten seconds after their last socket died, and nobody as offline while they are
//! connected to an edge that is reached.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use natterjack_protocol::client::presence::PresenceState;
use natterjack_tests::kit::{Cluster, ClusterSpec, User};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::common::{Bare, DEBOUNCE, Friend, LEASE, spec};

const USERS: usize = 6;
/// How long what is true takes to be shown, besides lease and debounce.
const SLACK: Duration = Duration::from_secs(3);
/// Edges beside the watcher's, which nothing happens to.
const EDGES: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Freeze,
    CutOff,
    Nothing,
}

/// When each user was connected to an edge that could be reached, as far as the test knows.
#[derive(Default)]
struct Truth {
    /// From, to (none: still).
    spans: Vec<(Instant, Option<Instant>)>,
}

impl Truth {
    fn end(&mut self, at: Instant) {
        if let Some((_, to @ None)) = self.spans.last_mut() {
            *to = Some(at);
        }
    }

    /// Surely connected at that moment, and for a while before.
    fn here(&self, at: Instant) -> bool {
        self.spans.iter().any(|(from, to)| *from + SLACK <= at && to.is_none_or(|to| at <= to))
    }

    /// Connected at that moment, or so shortly before that it may still be shown.
    fn may_be_online(&self, at: Instant) -> bool {
        self.spans.iter().any(|(from, to)| *from <= at && to.is_none_or(|to| at <= to + LEASE + DEBOUNCE + SLACK))
    }
}

async fn episode(seed: u64) -> Vec<String> {
    eprintln!("episode with seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = Cluster::start(ClusterSpec { edges: 1 + EDGES, proxied_edges: true, ..spec() }).await;
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
            truths[user].end(Instant::now());
        } else if !faulty.contains_key(&edge) {
            // It may be shown before the greeting is read.
            truths[user].spans.push((Instant::now(), None));
            let socket = Bare::connect(&cluster, others[user], edge).await.hold();
            held.insert(user, (edge, socket));
        }
        second += 1;
        if second == fault_at {
            let at = Instant::now();
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
                    truths[*user].end(at);
                }
                held.retain(|_, (edge, _)| *edge != victim);
            }
        }
        sleep(Duration::from_millis(rng.random_range(600..1_400))).await; // the pace of the episode
    }
    // What is left is told.
    sleep(LEASE + DEBOUNCE + SLACK).await;
    let over = Instant::now();
    if faulty.values().any(|f| matches!(f, Fault::Freeze)) {
        cluster.edge(victim).cont();
    }
    let mut lies = Vec::new();
    for (user, truth) in others.iter().zip(&truths) {
        let history = friend.history(user);
        let ends = history.iter().skip(1).map(|(at, _)| *at).chain([over]);
        for ((from, state), to) in history.iter().zip(ends) {
            let (from, mut at) = (*from, *from);
            while at < to {
                let since = at.duration_since(from);
                match state {
                    PresenceState::Online if !truth.may_be_online(at) => {
                        lies.push(format!(
                            "seed {seed}, {fault:?}: {} was shown as online and was not there, {since:?} on",
                            user.id()
                        ));
                        break;
                    }
                    PresenceState::Offline if truth.here(at) => {
                        lies.push(format!(
                            "seed {seed}, {fault:?}: {} was shown as offline and was there, {since:?} on",
                            user.id()
                        ));
                        break;
                    }
                    _ => {}
                }
                at += Duration::from_millis(100);
            }
        }
    }
    lies
}

async fn episodes(seeds: impl IntoIterator<Item = u64>) {
    let mut lies = Vec::new();
    for seed in seeds {
        lies.extend(episode(seed).await);
    }
    assert!(lies.is_empty(), "{lies:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_lies_in_ten_episodes() {
    // Nine that are always the same, and one that nobody has seen.
    let fresh = rand::random_range(0..1_000_000);
    join_all([[0, 1], [2, 3], [4, 5], [6, 7], [8, fresh]].map(episodes)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "an hour; make test-heavy"]
async fn nobody_lies_in_two_hundred_episodes() {
    join_all((0..4u64).map(|part| episodes(1_000 + part * 50..1_050 + part * 50))).await;
}
