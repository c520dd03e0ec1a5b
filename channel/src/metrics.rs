//! What a partition measures, in one place with its descriptions.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

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
            unknown_subjects: count("natterjack_channel_unknown_subject_entries_total"),
            late: count("natterjack_channel_late_entries_total"),
            copies: count("natterjack_channel_copies_total"),
            republished: count("natterjack_channel_republished_entries_total"),
            takeovers: count("natterjack_channel_takeovers_total"),
            requests: count("natterjack_channel_heads_requests_total"),
            heads_dropped: count("natterjack_channel_heads_dropped_total"),
            holder: level("natterjack_channel_holder"),
            unconfirmed: level("natterjack_channel_unconfirmed_entries"),
            unconfirmed_bytes: level("natterjack_channel_unconfirmed_bytes"),
            threads: level("natterjack_channel_threads"),
            idle_heads: level("natterjack_channel_idle_heads"),
            lag: level("natterjack_channel_lag_entries"),
        }
    }
}

pub fn describe() {
    describe_counter!("natterjack_channel_published_entries_total", "Log entries published on live subjects, by partition");
    describe_counter!("natterjack_channel_late_entries_total", "Entries stored so long after their cid that they may be copies; looked up");
    describe_counter!("natterjack_channel_copies_total", "Of these the copies of an earlier entry, shown to nobody");
    describe_counter!("natterjack_channel_unreadable_entries_total", "Entries published as kind unknown because they could not be read");
    describe_counter!("natterjack_channel_unknown_subject_entries_total", "Entries under a subject that names no thread; alarm");
    describe_counter!("natterjack_channel_republished_entries_total", "Entries published again after the connection broke");
    describe_counter!("natterjack_channel_takeovers_total", "Times this instance became the publisher of a partition");
    describe_counter!("natterjack_channel_heads_requests_total", "Requests for heads answered");
    describe_counter!("natterjack_channel_heads_dropped_total", "Idle threads that got no head because too many waited");
    describe_counter!("natterjack_channel_fold_retries_total", "Reads or writes of KV repeated while folding control entries");
    describe_counter!(
        "natterjack_channel_fold_abandoned_total",
        "Keys left without a control entry because nobody could bring them back; alarm"
    );
    describe_histogram!("natterjack_channel_fold_seconds", Unit::Seconds, "Folding one run of control entries into KV");
    describe_gauge!("natterjack_channel_holder", "1: this instance publishes the partition, 0: it stands by");
    describe_gauge!("natterjack_channel_unconfirmed_entries", "Entries read and not known to have left; at 65,536 reading pauses");
    describe_gauge!("natterjack_channel_unconfirmed_bytes", Unit::Bytes, "Payload of those entries; at 64 MiB reading pauses");
    describe_gauge!("natterjack_channel_threads", "Threads whose newest id is known, within the horizon");
    describe_gauge!("natterjack_channel_idle_heads", "Events waiting to be an idle thread's head; at 1,048,576 the oldest are dropped");
    describe_gauge!("natterjack_channel_lag_entries", "Entries in the log behind the last one read");
}
