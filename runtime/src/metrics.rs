//! What every process measures of itself: each name, and what it means.

use metrics::{Unit, describe_gauge};

pub const READY: &str = "natterjack_ready";
pub const READER_STUCK_SECONDS: &str = "natterjack_reader_stuck_seconds";

/// Once per process: what `/metrics` says of each.
pub fn describe() {
    describe_gauge!(
        READY,
        "1 while this part of the process is healthy, 0 while it is not (`/health` says why), by part; alarm at 0"
    );
    describe_gauge!(
        READER_STUCK_SECONDS,
        Unit::Seconds,
        "How long a reader has not moved while there is more to read, by part; 0 for one that moves or has read \
         everything"
    );
}
