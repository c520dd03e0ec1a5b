//! What every role measures of NATS and the log: each name, and what it means.

use metrics::{Unit, describe_counter, describe_gauge};

pub const NATS_NOTICES: &str = "natterjack_nats_notices_total";
pub const NATS_DENIED: &str = "natterjack_nats_denied_total";
pub const NATS_TOO_LARGE: &str = "natterjack_nats_too_large_total";
pub const FANIN_MESSAGES: &str = "natterjack_fanin_messages_total";
pub const FANIN_DISCONNECTS: &str = "natterjack_fanin_disconnects_total";
pub const CLOCK_AHEAD_SECONDS: &str = "natterjack_clock_ahead_seconds";
pub const CLOCK_STEPS: &str = "natterjack_clock_steps_total";
pub const READER_JUMPS: &str = "natterjack_reader_jumps_total";
pub const READER_HOLES: &str = "natterjack_reader_holes_total";
pub const READER_RECREATED: &str = "natterjack_reader_recreated_total";
pub const TAIL_STALE: &str = "natterjack_tail_stale_total";
pub const LOG_LOST_ENDS: &str = "natterjack_log_lost_ends_total";
pub const PUBLISH_RETRIES: &str = "natterjack_publish_retries_total";
pub const PUBLISH_BATCHES_GIVEN_UP: &str = "natterjack_publish_batches_given_up_total";
pub const SERVICE_FULL: &str = "natterjack_service_full_total";
pub const SERVICE_UNSENDABLE: &str = "natterjack_service_unsendable_total";

/// With the first connection: what `/metrics` says of each.
pub(crate) fn describe() {
    describe_counter!(
        NATS_NOTICES,
        "Connections to nats-server that were lost or slow, and warnings that one shuts down"
    );
    describe_counter!(NATS_DENIED, "Times nats-server denied a permission; alarm");
    describe_counter!(
        NATS_TOO_LARGE,
        "Messages not sent because they are larger than max_payload of nats-server; alarm"
    );
    describe_counter!(FANIN_MESSAGES, "Live messages that an edge received");
    describe_counter!(FANIN_DISCONNECTS, "Connections of the fan-in or of a log reader that were lost");
    describe_gauge!(
        CLOCK_AHEAD_SECONDS,
        Unit::Seconds,
        "By how much a clock is ahead of the server's time: this machine's (own), and those of the leaders of the log"
    );
    describe_counter!(CLOCK_STEPS, "Times the server's time was set by more than 10 s");
    describe_counter!(READER_JUMPS, "Gaps in the sequence of the log that were read again");
    describe_counter!(READER_HOLES, "Gaps in the sequence of the log that stayed when they were read again; alarm");
    describe_counter!(READER_RECREATED, "Times a log reader made its consumer again");
    describe_counter!(
        TAIL_STALE,
        "Reads of a thread that a replica answered without its newest entries; the leader had them"
    );
    describe_counter!(
        LOG_LOST_ENDS,
        "Partitions whose log ended before what was read of it, by role: the log lost its end with the power, or is an \
         older copy; alarm"
    );
    describe_counter!(PUBLISH_RETRIES, "Publishes to the log that were sent again");
    describe_counter!(
        PUBLISH_BATCHES_GIVEN_UP,
        "Batches that were not acknowledged; their messages are published one by one"
    );
    describe_counter!(SERVICE_FULL, "Requests refused because a service answers as many as it may, by subject");
    describe_counter!(
        SERVICE_UNSENDABLE,
        "Answers that could not be sent, above all for being too large, by subject; alarm"
    );
}
