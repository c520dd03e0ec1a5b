//! Waiting for a condition under a generous deadline. No test sleeps for a fixed time and hopes.

use std::{fmt::Display, future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// All deadlines of all tests, times this: for slow machines.
const VARIABLE: &str = "NATTERJACK_TEST_PATIENCE";

pub fn patience(d: Duration) -> Duration {
    let factor = std::env::var(VARIABLE).ok().and_then(|s| s.parse::<f64>().ok()).filter(|f| *f > 0.0).unwrap_or(1.0);
    d.mul_f64(factor)
}

/// `future`, or a panic that says what was waited for.
#[track_caller]
pub fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let at = std::panic::Location::caller();
    async move {
        let limit = patience(limit);
        timeout(limit, future).await.unwrap_or_else(|_| panic!("{at}: not within {limit:?}: {what}"))
    }
}

/// What a probe found: `bool`, `Option` and `Result` say whether it is there yet.
pub trait Probe {
    type Found;
    /// The value, or why not yet.
    fn found(self) -> Result<Self::Found, String>;
}

impl Probe for bool {
    type Found = ();
    fn found(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("not so".into()) }
    }
}

impl<T> Probe for Option<T> {
    type Found = T;
    fn found(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".into())
    }
}

impl<T, E: Display> Probe for Result<T, E> {
    type Found = T;
    fn found(self) -> Result<T, String> {
        self.map_err(|e| e.to_string())
    }
}

/// Asks again every 20 ms until there is an answer; a panic with what was seen last, long after it should have been
/// there.
pub async fn eventually<P: Probe>(what: &str, probe: impl AsyncFnMut() -> P) -> P::Found {
    eventually_within(what, Duration::from_secs(30), probe).await
}

/// Likewise, for what may take longer, or must not take as long.
pub async fn eventually_within<P: Probe>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> P) -> P::Found {
    let (limit, began) = (patience(limit), Instant::now());
    let mut last = "the first probe did not return".to_owned();
    loop {
        match timeout(limit.saturating_sub(began.elapsed()), probe()).await.map(Probe::found) {
            Ok(Ok(found)) => return found,
            Ok(Err(why)) => last = why,
            Err(_) => panic!("not within {limit:?}: {what} (a probe did not return; before: {last})"),
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what} (last: {last})");
        // The one place that asks again and again.
        sleep(Duration::from_millis(20)).await;
    }
}
