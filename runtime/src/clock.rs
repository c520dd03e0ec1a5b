//! This machine's clock, read in one place. Nothing is judged by it: what is given a lifetime is judged by the server's
//! time (`nats::ServerTime`) or by the monotonic clock. It is compared with the server's, for an alarm, and shown to
//! people and other programs.

use std::time::{SystemTime, UNIX_EPOCH};

/// Names a file that says by how many milliseconds the clock is wrong, read at each look: for tests with clocks that
/// step and drift.
const WRONG_BY: &str = "NATTERJACK_TEST_CLOCK";

/// Milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis().try_into().unwrap_or(u64::MAX));
    let by = std::env::var_os(WRONG_BY).and_then(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok());
    now.saturating_add_signed(by.unwrap_or(0))
}
