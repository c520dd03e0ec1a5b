//! Milliseconds since 1970 as day and time of day, in UTC: the terminal client needs no time zone database.

use time::OffsetDateTime;

const DAY_MS: u64 = 86_400_000;

/// Days since 1970.
pub fn number(ms: u64) -> u64 {
    ms / DAY_MS
}

/// For instance `Saturday 21 November 2026`.
pub fn name(ms: u64) -> String {
    let t = utc(ms);
    format!("{} {} {} {}", t.weekday(), t.day(), t.month(), t.year())
}

/// `21 Nov`.
pub fn short(ms: u64) -> String {
    let t = utc(ms);
    format!("{} {}", t.day(), &t.month().to_string()[..3])
}

/// `21 Nov at 21:05:09`.
pub fn and_clock(ms: u64) -> String {
    format!("{} at {}", short(ms), clock(ms))
}

/// `21:05:09`.
pub fn clock(ms: u64) -> String {
    let t = utc(ms);
    format!("{:02}:{:02}:{:02}", t.hour(), t.minute(), t.second())
}

/// A server's number may be any; beyond the year 9999 it is shown as 1970.
fn utc(ms: u64) -> OffsetDateTime {
    let seconds = i64::try_from(ms / 1_000).unwrap_or_default();
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        assert_eq!(name(0), "Thursday 1 January 1970");
        assert_eq!(name(951_782_400_000), "Tuesday 29 February 2000");
        assert_eq!(name(1_795_260_309_000), "Saturday 21 November 2026");
        assert_eq!(short(1_795_260_309_000), "21 Nov");
        assert_eq!(clock(1_795_260_309_000), "11:25:09");
        assert_eq!(name(u64::MAX), "Thursday 1 January 1970");
    }
}
