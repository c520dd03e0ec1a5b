//! What every role that reads the log measures.

use metrics::describe_counter;

pub const RESTARTS: &str = "natterjack_role_restarts_total";

/// Once per process: what `/metrics` says of each.
pub fn describe() {
    describe_counter!(RESTARTS, "Times a partition's task failed and was started again, by role; alarm");
}
