//! Chaos: people chat over several edges while everything is killed, frozen, cut off and drained by a seeded schedule;
//! then a checker compares what was promised with what is there.
//!
//! `cargo test --test chaos`: 38 s of faults from one seed, the same every time, and 22 s from a fresh one.
//! `make chaos`: fresh seeds, minutes, three nats-servers. Each run prints its seed; `NATTERJACK_SEED=n` replays its
//! schedule.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests: a panic with its place is the report")]

mod asking;
mod checker;
mod faults;
mod planted;
mod raw;
mod record;
mod rules;
mod run;
mod sdk;

use rules::Form;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .map_or(default, |s| s.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {s:?}")))
}

fn seed() -> Option<u64> {
    std::env::var("NATTERJACK_SEED").is_ok().then(|| number("NATTERJACK_SEED", 0))
}

/// Its schedule has found faults of ours before.
const EVERY_TIME: u64 = 773_440_457;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_out_of_order_whatever_dies() {
    let form = Form { edges: 2, channels: 2, persisters: 1, presences: 1, nats: 1, millis: 38_000 };
    run::run(EVERY_TIME, form, "cargo test --profile fast --workspace --test chaos nothing").await;
}

/// So that `make test` is not the same every time. Shorter: the seed above is what each change is held against.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_seed_each_time() {
    let form = Form { edges: 2, channels: 2, persisters: 1, presences: 1, nats: 1, millis: 22_000 };
    let seed = seed().unwrap_or_else(|| u64::from(rand::random::<u32>()));
    run::run(seed, form, "cargo test --profile fast --workspace --test chaos a_fresh_seed -- --nocapture").await;
}

/// `make chaos`.
#[ignore = "takes minutes: make chaos"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy() {
    let nats = usize::try_from(number("NATTERJACK_CHAOS_NATS", 3)).unwrap();
    let millis = 1_000 * number("NATTERJACK_CHAOS_SECONDS", 120);
    let form = Form { edges: 3, channels: 2, persisters: 2, presences: 2, nats, millis };
    let seeds = match seed() {
        Some(seed) => vec![seed],
        None => (0..number("NATTERJACK_CHAOS_SEEDS", 5)).map(|_| u64::from(rand::random::<u32>())).collect(),
    };
    for seed in seeds {
        run::run(seed, form, "make chaos").await;
    }
}
