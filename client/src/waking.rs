//! A device that slept, or whose network is another one: is the edge still there, and what time is it? `driver` asks
//! with a ping; until its pong has come nothing is sent.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Notify;

use crate::{backoff, clock::now};

/// An edge that is there answers a ping within this time. With the wait before a first dial (half a second at most) a
/// client that was woken dials anew within two.
pub(crate) const PROBE: Duration = Duration::from_secs(1);

/// By how much the clock on the wall has to run ahead of the monotonic one between two looks. One that is only set
/// right is adjusted by less than a thousandth.
const PARTED: Duration = Duration::from_secs(2);

/// Notices that the device slept: its monotonic clock stands still then, that of the wall goes on. Setting the clock
/// forward looks the same and costs a ping; one that is set back during a sleep hides it, and the app says `wake`.
#[derive(Debug)]
pub(crate) struct SleepWatch {
    seen: (Instant, SystemTime),
}

impl SleepWatch {
    pub fn start() -> Self {
        Self { seen: (now(), SystemTime::now()) }
    }

    /// Since the last look?
    pub fn has_slept(&mut self) -> bool {
        self.looks(now(), SystemTime::now())
    }

    fn looks(&mut self, monotonic: Instant, wall: SystemTime) -> bool {
        let (before, wall_before) = std::mem::replace(&mut self.seen, (monotonic, wall));
        let awake = monotonic.saturating_duration_since(before);
        wall.duration_since(wall_before).is_ok_and(|passed| passed > awake + PARTED)
    }
}

/// The pings and pongs of one connection.
#[derive(Debug, Default)]
pub(crate) struct EdgeProbe {
    pongs: u64,
    asked: Option<OpenProbe>,
}

#[derive(Debug)]
struct OpenProbe {
    /// Which pong answers it. Earlier ones may have waited in the device while it slept.
    pong: u64,
    until: Instant,
}

impl EdgeProbe {
    /// A ping was sent that this pong of the connection answers. Asking again gives no more time.
    pub fn ask(&mut self, pong: u64, now: Instant) {
        let until = self.asked.as_ref().map_or(now + PROBE, |asked| asked.until);
        self.asked = Some(OpenProbe { pong, until });
    }

    /// A pong has come. Is the time in it fresh?
    pub fn pong(&mut self) -> bool {
        self.pongs += 1;
        self.asked.take_if(|asked| asked.pong <= self.pongs);
        !self.is_open()
    }

    /// An answer is waited for.
    pub fn is_open(&self) -> bool {
        self.asked.is_some()
    }

    pub fn due(&self) -> Option<Instant> {
        self.asked.as_ref().map(|asked| asked.until)
    }

    /// No answer has come in time. It gets half as much again, in case the pong waits behind something.
    pub fn is_overdue(&mut self, now: Instant) -> bool {
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.until <= now) else { return false };
        asked.until = now + PROBE / 2;
        true
    }
}

/// None: the app woke the client meanwhile, and it did not end soon; it may hang on a network that is gone. A refresh
/// token whose answer is lost by that is used again at once.
pub(crate) async fn unless_woken<T>(dial: impl Future<Output = T>, woken: Arc<Notify>) -> Option<T> {
    let hangs = async {
        woken.notified().await;
        tokio::time::sleep(PROBE).await;
    };
    // Order: what came is used.
    tokio::select! {
        biased;
        done = dial => Some(done),
        () = hangs => None,
    }
}

/// Before the next dial. Once the app woke the client it is at once, but not before the time an edge has `told`.
pub(crate) async fn pause(wait: Duration, woken: Arc<Notify>, told: impl FnOnce() -> Instant) {
    let end = now() + wait;
    if tokio::time::timeout(wait, woken.notified()).await.is_ok() {
        let soon = now() + backoff::woken(rand::random());
        tokio::time::sleep_until(soon.max(told()).min(end).into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_noticed_once() {
        let s = Duration::from_secs;
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut watch = SleepWatch { seen: (start, wall) };
        assert!(!watch.looks(start + s(3_600), wall + s(3_601)), "slow by a second in an hour");
        assert!(watch.looks(start + s(3_601), wall + s(3_601) + s(60)), "a minute");
        assert!(!watch.looks(start + s(3_602), wall + s(3_602) + s(60)));
        assert!(!watch.looks(start + s(3_603), wall), "set back");
        assert!(watch.looks(start + s(3_604), wall + s(4)));
    }

    #[test]
    fn only_the_pong_to_the_last_ping_answers() {
        let (start, mut probe) = (Instant::now(), EdgeProbe::default());
        assert!(probe.pong() && probe.due().is_none(), "nobody asks");
        probe.ask(3, start);
        assert!(!probe.pong() && probe.is_open());
        probe.ask(4, start + PROBE / 2);
        assert!(!probe.pong());
        assert!(!probe.is_overdue(start + PROBE / 2));
        assert!(probe.is_overdue(start + PROBE), "who asks again waits no longer");
        assert!(!probe.is_overdue(start + PROBE));
        assert!(probe.pong() && !probe.is_open());
        assert!(!probe.is_overdue(start + 9 * PROBE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_that_hangs_is_given_up_a_second_after_the_client_was_woken() {
        let (woken, begun) = (Arc::new(Notify::new()), now());
        let hour = || tokio::time::sleep(Duration::from_secs(3_600));
        let dial = unless_woken(hour(), woken.clone());
        tokio::join!(async { assert_eq!(dial.await, None) }, async {
            tokio::time::sleep(5 * PROBE).await;
            woken.notify_one();
        });
        assert_eq!((now() - begun).as_secs(), 6);
        assert_eq!(unless_woken(hour(), woken.clone()).await, Some(()), "nobody woke it");
        woken.notify_one();
        assert_eq!(unless_woken(tokio::time::sleep(PROBE / 2), woken).await, Some(()), "it does not hang");
    }

    #[tokio::test(start_paused = true)]
    async fn a_woken_client_waits_only_where_an_edge_said_so() {
        let (woken, wait) = (Arc::new(Notify::new()), Duration::from_secs(30));
        for (told, after) in [(0, 0), (20, 20), (90, 30)] {
            woken.notify_one();
            let begun = now();
            pause(wait, woken.clone(), || begun + Duration::from_secs(told)).await;
            assert_eq!((now() - begun).as_secs(), after);
        }
        let begun = now();
        pause(wait, woken, || begun).await;
        assert_eq!((now() - begun).as_secs(), 30);
    }
}
