//! A time as reports for people show it.

use time::OffsetDateTime;

/// For instance `2026-11-21 11:25:09 UTC`.
pub fn utc(ms: u64) -> String {
    match i64::try_from(ms / 1_000).map(OffsetDateTime::from_unix_timestamp) {
        Ok(Ok(t)) => format!("{} {:02}:{:02}:{:02} UTC", t.date(), t.hour(), t.minute(), t.second()),
        _ => format!("{ms} ms after 1970"),
    }
}
