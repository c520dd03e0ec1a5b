//! What a shard measures: each name, and what it means.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

pub const HOLDER: &str = "natterjack_presence_holder";
pub const USERS: &str = "natterjack_presence_users";
pub const PUBLISHED_USERS: &str = "natterjack_presence_published_users_total";
pub const BATCHES: &str = "natterjack_presence_batches_total";
pub const ASKED_USERS: &str = "natterjack_presence_asked_users_total";
pub const DEAD_EDGES: &str = "natterjack_presence_dead_edges_total";
pub const SUSPECTS_ANSWERED: &str = "natterjack_presence_suspects_answered_total";
pub const SWEPT_SESSIONS: &str = "natterjack_presence_swept_sessions_total";
pub const SWEEPS_FAILED: &str = "natterjack_presence_sweeps_failed_total";
pub const BUCKETS_LOST: &str = "natterjack_presence_buckets_lost_total";
pub const LOAD_SECONDS: &str = "natterjack_presence_load_seconds";

/// The handles of one shard.
pub struct Metrics {
    pub holder: Gauge,
    pub users: Gauge,
    pub published: Counter,
    pub batches: Counter,
    pub asked: Counter,
    pub dead_edges: Counter,
    pub answered: Counter,
    pub swept: Counter,
    pub sweeps_failed: Counter,
}

impl Metrics {
    pub fn new(shard: u32) -> Self {
        let shard = shard.to_string();
        let count = |name: &'static str| counter!(name, "shard" => shard.clone());
        let level = |name: &'static str| gauge!(name, "shard" => shard.clone());
        Self {
            holder: level(HOLDER),
            users: level(USERS),
            published: count(PUBLISHED_USERS),
            batches: count(BATCHES),
            asked: count(ASKED_USERS),
            dead_edges: count(DEAD_EDGES),
            answered: count(SUSPECTS_ANSWERED),
            swept: count(SWEPT_SESSIONS),
            sweeps_failed: count(SWEEPS_FAILED),
        }
    }
}

/// Once per process: what `/metrics` says of each.
pub fn describe() {
    describe_gauge!(HOLDER, "1 while this instance says who is here in the shard, 0 while another one does, by shard");
    describe_gauge!(USERS, "Users with devices or settings that are known, by shard");
    describe_counter!(PUBLISHED_USERS, "Changes of users told to the edges, by shard");
    describe_counter!(BATCHES, "Batches of changes told to the edges, by shard");
    describe_counter!(ASKED_USERS, "Users that edges asked for, by shard");
    describe_counter!(DEAD_EDGES, "Edges given up: no lease, and no answer to a ping; by shard");
    describe_counter!(SUSPECTS_ANSWERED, "Edges without a lease that answered a ping, by shard");
    describe_counter!(SWEPT_SESSIONS, "Sessions of edges given up that were taken out of KV, by shard");
    describe_counter!(SWEEPS_FAILED, "Sessions that could not be taken out of KV yet, by shard");
    describe_counter!(BUCKETS_LOST, "Times the bucket of a shard's sessions was found to be another one; alarm");
    describe_histogram!(LOAD_SECONDS, Unit::Seconds, "Time to read a shard until it is spoken for");
}
