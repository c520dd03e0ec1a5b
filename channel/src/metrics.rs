//! What a partition measures: each name, and what it means.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

pub const PUBLISHED_ENTRIES: &str = "natterjack_channel_published_entries_total";
pub const LATE_ENTRIES: &str = "natterjack_channel_late_entries_total";
pub const DUPLICATE_ENTRIES: &str = "natterjack_channel_duplicate_entries_total";
pub const UNREADABLE_ENTRIES: &str = "natterjack_channel_unreadable_entries_total";
pub const UNKNOWN_SUBJECTS: &str = "natterjack_channel_unknown_subject_entries_total";
pub const REPUBLISHED_ENTRIES: &str = "natterjack_channel_republished_entries_total";
pub const TAKEOVERS: &str = "natterjack_channel_takeovers_total";
pub const HEADS_REQUESTS: &str = "natterjack_channel_heads_requests_total";
pub const HEADS_DROPPED: &str = "natterjack_channel_heads_dropped_total";
pub const FOLD_RETRIES: &str = "natterjack_channel_fold_retries_total";
pub const FOLD_ABANDONED: &str = "natterjack_channel_fold_abandoned_total";
pub const FOLD_SECONDS: &str = "natterjack_channel_fold_seconds";
pub const HOLDER: &str = "natterjack_channel_holder";
pub const UNCONFIRMED_ENTRIES: &str = "natterjack_channel_unconfirmed_entries";
pub const UNCONFIRMED_BYTES: &str = "natterjack_channel_unconfirmed_bytes";
pub const THREADS: &str = "natterjack_channel_threads";
pub const IDLE_HEADS: &str = "natterjack_channel_idle_heads";
pub const LAG_ENTRIES: &str = "natterjack_channel_lag_entries";

/// The handles of one partition.
pub struct Metrics {
    pub unknown_subjects: Counter,
    pub late: Counter,
    pub copies: Counter,
    pub republished: Counter,
    pub takeovers: Counter,
    pub requests: Counter,
    pub heads_dropped: Counter,
    pub holder: Gauge,
    pub unconfirmed: Gauge,
    pub unconfirmed_bytes: Gauge,
    pub threads: Gauge,
    pub idle_heads: Gauge,
    pub lag: Gauge,
}

impl Metrics {
    pub fn new(p: u32) -> Self {
        let p = p.to_string();
        let count = |name: &'static str| counter!(name, "partition" => p.clone());
        let level = |name: &'static str| gauge!(name, "partition" => p.clone());
        Self {
            unknown_subjects: count(UNKNOWN_SUBJECTS),
            late: count(LATE_ENTRIES),
            copies: count(DUPLICATE_ENTRIES),
            republished: count(REPUBLISHED_ENTRIES),
            takeovers: count(TAKEOVERS),
            requests: count(HEADS_REQUESTS),
            heads_dropped: count(HEADS_DROPPED),
            holder: level(HOLDER),
            unconfirmed: level(UNCONFIRMED_ENTRIES),
            unconfirmed_bytes: level(UNCONFIRMED_BYTES),
            threads: level(THREADS),
            idle_heads: level(IDLE_HEADS),
            lag: level(LAG_ENTRIES),
        }
    }
}

/// Once per process: what `/metrics` says of each.
pub fn describe() {
    describe_counter!(PUBLISHED_ENTRIES, "Log entries published on live subjects, by partition");
    describe_counter!(
        LATE_ENTRIES,
        "Entries stored so long after their cid's timestamp that they may be duplicates and are looked up, by \
         partition"
    );
    describe_counter!(DUPLICATE_ENTRIES, "Late entries that repeat an earlier one and are not published, by partition");
    describe_counter!(
        UNREADABLE_ENTRIES,
        "Entries published as kind unknown because they could not be decoded, by partition"
    );
    describe_counter!(UNKNOWN_SUBJECTS, "Entries under a subject that names no thread, by partition; alarm");
    describe_counter!(REPUBLISHED_ENTRIES, "Entries published again after the connection broke, by partition");
    describe_counter!(TAKEOVERS, "Times this instance became the publisher of a partition");
    describe_counter!(HEADS_REQUESTS, "Requests for heads answered, by partition");
    describe_counter!(HEADS_DROPPED, "Idle threads that got no head because too many waited, by partition");
    describe_counter!(FOLD_RETRIES, "KV reads and writes repeated while folding control entries");
    describe_counter!(
        FOLD_ABANDONED,
        "KV keys left without a control entry because the key could not be rebuilt; alarm"
    );
    describe_histogram!(FOLD_SECONDS, Unit::Seconds, "Time to fold one run of control entries into KV");
    describe_gauge!(HOLDER, "1 while this instance publishes the partition, 0 while it stands by, by partition");
    describe_gauge!(
        UNCONFIRMED_ENTRIES,
        "Entries read whose publish is not confirmed, by partition; at 65,536 reading pauses"
    );
    describe_gauge!(UNCONFIRMED_BYTES, Unit::Bytes, "Payload of those entries, by partition; at 64 MiB reading pauses");
    describe_gauge!(THREADS, "Threads whose newest id is known, by partition");
    describe_gauge!(
        IDLE_HEADS,
        "Events that wait to become the head of an idle thread, by partition; at 1,048,576 the oldest are dropped"
    );
    describe_gauge!(LAG_ENTRIES, "Entries in the log behind the last one read, by partition");
}
