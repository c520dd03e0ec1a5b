//! How long a server, or whoever stands before it, says to stay away (pure).

use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// `Retry-After` in milliseconds: seconds, or a date, which is taken by the answer's own `Date` and never by the
/// device's clock.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let value = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let date = |s: &str| httpdate::parse_http_date(s).ok();
    let after = value(RETRY_AFTER)?;
    if let Ok(seconds) = after.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000));
    }
    let now = value(DATE).and_then(date)?;
    let wait = date(after)?.duration_since(now).unwrap_or_default();
    Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

/// Header and body may say it with different care: whoever comes by the longer one comes too early for neither.
pub(crate) fn longer(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.max(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[(&'static str, &str)]) -> Option<u64> {
        retry_after(&lines.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect())
    }

    #[test]
    fn seconds_or_a_date_by_the_servers_clock() {
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[("retry-after", " 20 ")]), Some(20_000));
        assert_eq!(told(&[("retry-after", "0")]), Some(0));
        assert_eq!(told(&[("retry-after", "18446744073709551615")]), Some(u64::MAX));
        assert_eq!(
            told(&[("retry-after", "Tue, 15 Nov 1994 08:13:01 GMT")]),
            None,
            "nobody says what time it is there"
        );
        assert_eq!(
            told(&[("retry-after", "Tue, 15 Nov 1994 08:13:01 GMT"), ("date", "Tue, 15 Nov 1994 08:12:51 GMT")]),
            Some(10_000)
        );
        assert_eq!(
            told(&[("retry-after", "Tue, 15 Nov 1994 08:00:00 GMT"), ("date", "Tue, 15 Nov 1994 08:12:51 GMT")]),
            Some(0),
            "past"
        );
        for nonsense in ["", "soon", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(told(&[("retry-after", nonsense)]), None, "{nonsense:?}");
        }
        assert_eq!(longer(Some(1), Some(2)), Some(2));
        assert_eq!((longer(Some(1), None), longer(None, None)), (Some(1), None));
    }
}
