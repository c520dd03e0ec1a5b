//! The server's time: the clock of the nats-server that leads the control bucket. Everybody can ask for it, so what
//! one role writes down another may judge, whatever the clocks of their machines say: tokens, uses of refresh tokens,
//! the age of accounts (ADR 12).
//!
//! It is carried on by the monotonic clock. It may step, or the bucket may get a leader whose clock differs: for two
//! minutes both times are known, and who judges a lifetime takes the earlier one, so that a step takes nothing away at
//! once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    subjects,
    wire::{
        client::Nats,
        jetstream::{self, JsError},
        rfc3339,
    },
};

/// How often the server is asked: a step of a few seconds is to be seen.
const ASK: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(250);
/// An answer that took longer says too little of what time it is now.
const SLOW: Duration = Duration::from_secs(1);
/// What the time was before a step is known for so long.
const KEEP: Duration = Duration::from_secs(120);
/// Answers that differ by less are of the same clock; most of the difference is the way here.
const SAME_MS: u64 = 1_000;
/// A cid this far ahead of the log's clock is refused, so clocks that differ by more must not go unnoticed.
pub const APART_MS: u64 = 10_000;
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What the answers say. Pure: the moment is an argument.
#[derive(Debug)]
struct Estimates {
    began: Instant,
    /// By how much the server's clock is ahead of the time since `began`, and when it was last so; the newest comes
    /// last. At most one for each question within `KEEP`.
    offsets: Vec<(i64, Instant)>,
}

impl Estimates {
    fn new(began: Instant) -> Self {
        Self { began, offsets: Vec::new() }
    }

    /// By how much the clock has stepped since the last answer, if it has.
    fn learn(&mut self, ms: u64, at: Instant) -> Option<i64> {
        let offset = ms.cast_signed() - self.since(at);
        let step = self.offsets.last().map(|(last, _)| offset - last);
        // What is nearly the same is the same, as it stands now: a drift draws it on.
        self.offsets.retain(|(o, seen)| o.abs_diff(offset) >= SAME_MS && at.saturating_duration_since(*seen) < KEEP);
        self.offsets.push((offset, at));
        step.filter(|step| step.unsigned_abs() > APART_MS)
    }

    fn since(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(i64::MAX)
    }

    fn now(&self, at: Instant) -> u64 {
        self.at(self.offsets.last().map(|(o, _)| *o), at)
    }

    fn earliest(&self, at: Instant) -> u64 {
        let newest = self.offsets.len().saturating_sub(1);
        let alive = self
            .offsets
            .iter()
            .enumerate()
            .filter(|(n, (_, seen))| *n == newest || at.saturating_duration_since(*seen) < KEEP);
        self.at(alive.map(|(_, (o, _))| *o).min(), at)
    }

    fn at(&self, offset: Option<i64>, at: Instant) -> u64 {
        offset.map_or(0, |o| o.saturating_add(self.since(at)).max(0).cast_unsigned())
    }
}

/// Says it once a minute, and in a metric, when a clock is not the server's.
#[derive(Debug)]
pub struct ClockComparison {
    /// In the metric, and in words.
    label: String,
    whose: String,
    said: Option<Instant>,
}

impl ClockComparison {
    pub fn new(label: impl Into<String>, whose: impl Into<String>) -> Self {
        Self { label: label.into(), whose: whose.into(), said: None }
    }

    pub fn look(&mut self, ms: u64, server_ms: u64) {
        let ahead = ms.cast_signed() - server_ms.cast_signed();
        metrics::gauge!(crate::metrics::CLOCK_AHEAD_SECONDS, "clock" => self.label.clone()).set(ahead as f64 / 1_000.0);
        if self.is_due(ahead, Instant::now()) {
            tracing::error!("{}; run a time service (chrony, ntpd) on every machine", apart(&self.whose, ahead));
        }
    }

    fn is_due(&mut self, ahead: i64, at: Instant) -> bool {
        let due = ahead.unsigned_abs() > APART_MS
            && self.said.is_none_or(|said| at.saturating_duration_since(said) >= SAY_AGAIN);
        if due {
            self.said = Some(at);
        }
        due
    }
}

/// "X is 3600 s ahead of …"
pub fn apart(whose: &str, ahead_ms: i64) -> String {
    let way = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!(
        "{whose} is {} s {way} the server's time (that of the nats-server that leads the control bucket)",
        (ahead_ms.unsigned_abs() + 500) / 1_000
    )
}

/// Clones share it.
#[derive(Clone)]
pub struct ServerTime(Arc<Inner>);

struct Inner {
    estimates: Arc<Mutex<Estimates>>,
    _task: Option<AbortOnDropHandle<()>>,
}

impl ServerTime {
    /// Waits for the first answer. `wall` is this machine's own clock, which is compared with the server's.
    pub async fn start(nats: &Nats, wall: fn() -> u64) -> Self {
        let mut estimates = Estimates::new(Instant::now());
        let ms = loop {
            match ask(nats).await {
                Ok(ms) => break ms,
                Err(e) => tracing::debug!(error = %e, "the server's time is not known yet"),
            }
            tokio::time::sleep(RETRY).await;
        };
        estimates.learn(ms, Instant::now());
        let estimates = Arc::new(Mutex::new(estimates));
        let task = keep_asking(nats.clone(), estimates.clone(), wall);
        Self(Arc::new(Inner { estimates, _task: Some(AbortOnDropHandle::new(tokio::spawn(task))) }))
    }

    /// One that stands at this moment and goes on by the monotonic clock, for tests and for what runs without a server.
    pub fn fixed(ms: u64) -> Self {
        let mut estimates = Estimates::new(Instant::now());
        estimates.learn(ms, Instant::now());
        Self(Arc::new(Inner { estimates: Arc::new(Mutex::new(estimates)), _task: None }))
    }

    /// Milliseconds since 1970: to write down, and to give lifetimes from.
    pub fn now_ms(&self) -> u64 {
        self.0.estimates.lock().now(Instant::now())
    }

    /// The earliest that it may be, if the clock has stepped within two minutes: to judge what was written down.
    pub fn earliest_ms(&self) -> u64 {
        self.0.estimates.lock().earliest(Instant::now())
    }
}

async fn keep_asking(nats: Nats, estimates: Arc<Mutex<Estimates>>, wall: fn() -> u64) {
    let mut own = ClockComparison::new("own", "this machine's clock");
    loop {
        tokio::time::sleep(ASK).await;
        let asked = Instant::now();
        let Ok(ms) = ask(&nats).await else { continue };
        let at = Instant::now();
        if at.saturating_duration_since(asked) > SLOW {
            continue;
        }
        if let Some(step) = estimates.lock().learn(ms, at) {
            metrics::counter!(crate::metrics::CLOCK_STEPS).increment(1);
            let way = if step > 0 { "forward" } else { "back" };
            tracing::error!(
                "the server's time was set {way} by {} s, or another nats-server gives it now",
                step.unsigned_abs() / 1_000
            );
        }
        own.look(wall(), ms);
    }
}

/// What time it is there now. Also for who asks only once.
pub async fn ask(nats: &Nats) -> Result<u64, ServerTimeError> {
    let stream = subjects::bucket_stream(subjects::CONTROL);
    let info = jetstream::stream_info(nats, &stream).await?.ok_or(ServerTimeError::NoBucket)?;
    rfc3339::parse_ms(&info.ts).ok_or_else(|| JsError::Broken(format!("time `{}`", info.ts)).into())
}

#[derive(Debug, thiserror::Error)]
pub enum ServerTimeError {
    #[error("the control bucket is not there; run `natterjack provision`")]
    NoBucket,
    #[error(transparent)]
    JetStream(#[from] JsError),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_step_takes_nothing_away_for_two_minutes() {
        let began = Instant::now();
        let at = |s| began + Duration::from_secs(s);
        let mut e = Estimates::new(began);
        assert_eq!(e.learn(NOW, at(0)), None);
        assert_eq!(e.learn(NOW + 1_000, at(1)), None);
        assert_eq!(e.learn(NOW + 2_000 + 2 * HOUR, at(2)), Some(2 * HOUR.cast_signed()));
        assert_eq!((e.now(at(3)), e.earliest(at(3))), (NOW + 3_000 + 2 * HOUR, NOW + 3_000));
        // And back: the other one is not the earlier one.
        assert_eq!(e.learn(NOW + 5_000, at(5)), Some(-2 * HOUR.cast_signed()));
        assert_eq!((e.now(at(6)), e.earliest(at(6))), (NOW + 6_000, NOW + 6_000));
        // For good.
        e.learn(NOW + 7_000 + HOUR, at(7));
        assert_eq!(e.earliest(at(100)), NOW + 100_000);
        assert_eq!(e.earliest(at(125)), NOW + 125_000 + HOUR);
        e.learn(NOW + 200_000 + HOUR, at(200));
        assert_eq!(e.offsets.len(), 1);
        assert_eq!(e.earliest(at(10_000)), NOW + 10_000_000 + HOUR, "without an answer it goes on");
    }

    #[test]
    fn a_drift_is_no_step_and_is_followed() {
        let began = Instant::now();
        let mut e = Estimates::new(began);
        // A tenth too fast: 60 s in 10 minutes.
        for s in 0..600 {
            assert_eq!(e.learn(NOW + s * 1_100, began + Duration::from_secs(s)), None);
        }
        let at = began + Duration::from_secs(599);
        assert_eq!((e.now(at), e.earliest(at)), (NOW + 599 * 1_100, NOW + 599 * 1_100));
        assert_eq!(e.offsets.len(), 1);
    }

    #[test]
    fn said_once_a_minute() {
        let (mut c, began) = (ClockComparison::new("own", "this machine's clock"), Instant::now());
        let at = |s| began + Duration::from_secs(s);
        assert!(
            !c.is_due(10_000, at(0))
                && c.is_due(10_001, at(1))
                && !c.is_due(-7_200_000, at(60))
                && c.is_due(-7_200_000, at(61))
        );
        let said = apart("this machine's clock", -7_199_800);
        assert!(said.contains("this machine's clock is 7200 s behind"), "{said}");
    }

    proptest! {
        /// Whatever the clock does: what is given a lifetime by it is never judged too old before that lifetime is
        /// over by the monotonic clock, or the clock has been ahead for two minutes.
        #[test]
        fn who_judges_never_takes_away_too_early(
            steps in prop::collection::vec((1u64..40, -8_000_000i64..8_000_000), 1..40),
            given in 0usize..40,
        ) {
            let began = Instant::now();
            let (mut e, mut s, mut offset, mut at_giving) = (Estimates::new(began), 0, 0, None);
            let mut history: Vec<(u64, i64)> = Vec::new();
            for (n, (after, to)) in steps.iter().enumerate() {
                // Answers once a second.
                for _ in 0..*after {
                    e.learn((NOW + s * 1_000).saturating_add_signed(offset), began + Duration::from_secs(s));
                    history.push((s, offset));
                    s += 1;
                }
                if n == given % steps.len() {
                    at_giving = Some((s, e.now(began + Duration::from_secs(s))));
                }
                offset = *to;
            }
            let (since, written) = at_giving.unwrap();
            let now = began + Duration::from_secs(s);
            let lowest = history.iter().filter(|(t, _)| s - t < 119).map(|(_, o)| *o).min().unwrap();
            let judged = e.earliest(now);
            prop_assert!(judged <= (NOW + s * 1_000).saturating_add_signed(lowest) + SAME_MS);
            // Without a step nothing but the time that has passed counts.
            if history.iter().all(|(_, o)| *o == history[0].1) {
                prop_assert!(judged.abs_diff(written + (s - since) * 1_000) <= SAME_MS);
            }
        }
    }
}
