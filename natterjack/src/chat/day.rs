//! Milliseconds since 1970 as day and time of day (UTC: the terminal client asks no time zone data base).

const DAY_MS: u64 = 86_400_000;
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

pub fn number(ms: u64) -> u64 {
    ms / DAY_MS
}

/// For instance `Saturday 21 November 2026`.
pub fn name(ms: u64) -> String {
    let days = number(ms);
    let (year, month, day) = civil(days);
    format!("{} {day} {} {year}", WEEKDAYS[(days % 7) as usize], MONTHS[month - 1])
}

/// `21 Nov`.
pub fn short(ms: u64) -> String {
    let (_, month, day) = civil(number(ms));
    format!("{day} {}", &MONTHS[month - 1][..3])
}

/// `21:05:09`.
pub fn clock(ms: u64) -> String {
    let s = ms % DAY_MS / 1_000;
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

/// Days since 1970 in the proleptic Gregorian calendar; years begin in March, so that the leap day is the last.
fn civil(days: u64) -> (u64, usize, u64) {
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month as usize, day)
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
    }
}
