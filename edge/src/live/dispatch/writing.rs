//! Step 6, the dispatcher's part: behind a batch it writes to the sockets of sessions that sleep, so that none of them
//! has to be woken for a frame (ADR 14). After a long round it pauses, and what comes meanwhile for one session is one
//! write.

use std::time::Duration;

use tokio::{runtime::Handle, time::Instant};

use crate::live::topic::Unwritten;

/// With so few it is done before another thread would have begun: 5 µs each.
const FEW: usize = 8;
/// A pause is so many times as long as the round before it.
const PAUSE: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
/// Timers are no finer. So after a round of some twenty writes or fewer there is no pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

pub(super) struct BatchWriter {
    threads: usize,
    /// When the next round may begin.
    due: Instant,
    frames_out: metrics::Counter,
}

impl BatchWriter {
    /// In a runtime.
    pub fn new() -> Self {
        let threads = Handle::current().metrics().num_workers();
        Self { threads, due: Instant::now(), frames_out: metrics::counter!(crate::metrics::FRAMES_OUT) }
    }

    /// When what waits is to be written: `write` leaves it until then.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Waits for nobody: what a socket does not take is left to its session.
    pub fn write(&mut self, sessions: &mut Unwritten) {
        if sessions.is_empty() {
            return;
        }
        let began = Instant::now();
        if began < self.due {
            return;
        }
        let own = own_share(sessions.len(), self.threads);
        // First, so that other threads begin meanwhile.
        sessions.drain(own..).for_each(|session| session.outbox.wake());
        let frames: usize = sessions.drain(..).map(|session| session.outbox.write()).sum();
        if frames > 0 {
            self.frames_out.increment(frames as u64);
        }
        let end = Instant::now();
        self.due = end + pause_after(end - began);
    }
}

/// While rounds are rare nobody waits for a pause. When they follow each other, each write brings more: rounds of up to
/// a hundred writes take a tenth of the time, and longer ones are never more than 5 ms apart.
fn pause_after(round: Duration) -> Duration {
    let pause = (round * PAUSE).min(LONGEST_PAUSE);
    if pause < SHORTEST_PAUSE { Duration::ZERO } else { pause }
}

/// Of so many sessions the dispatcher writes to these itself. It is one task, and the runtime's other threads write as
/// well as it does: without a share a large group would be as fast as one core.
fn own_share(sessions: usize, threads: usize) -> usize {
    sessions.div_ceil(threads.max(1)).max(FEW).min(sessions)
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{UserId, codec::Codec};

    use super::*;
    use crate::{
        members::Members,
        sessions::handle::{SessionHandle, SessionId},
    };

    #[test]
    fn a_small_batch_is_written_at_once_and_a_large_one_by_all_threads() {
        assert_eq!(own_share(0, 8), 0);
        assert_eq!(own_share(5, 8), 5);
        assert_eq!(own_share(500, 1), 500);
        assert_eq!(own_share(500, 8), 63);
    }

    #[test]
    fn a_short_round_is_followed_by_no_pause_and_no_pause_is_long() {
        let [us, ms] = [Duration::from_micros(1), Duration::from_millis(1)];
        assert_eq!(pause_after(99 * us), Duration::ZERO);
        assert_eq!(pause_after(100 * us), ms);
        assert_eq!(pause_after(500 * us), 5 * ms);
        assert_eq!(pause_after(Duration::from_secs(1)), 5 * ms);
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_pause_what_comes_waits_for_its_end() {
        let user = UserId::parse("a").unwrap();
        let state = Members::default().enter(&user);
        let id = SessionId(1);
        let session = SessionHandle::new(id, user.clone(), user.clone(), user, Codec::Json, state, Default::default());
        let mut writer = BatchWriter::new();
        writer.due = Instant::now() + pause_after(Duration::from_secs(1));
        let mut unwritten = vec![session];
        writer.write(&mut unwritten);
        assert_eq!(unwritten.len(), 1);
        tokio::time::advance(LONGEST_PAUSE).await;
        assert!(writer.due() <= Instant::now());
        writer.write(&mut unwritten);
        assert!(unwritten.is_empty());
    }
}
