//! Step 6, the dispatcher's part: at the end of a batch it writes to the sockets of sessions that sleep, so that none
//! of them has to be woken for a frame (ADR 14).

use tokio::runtime::Handle;

use crate::live::topic::Unwritten;

/// With so few it is done before another thread would have begun: 5 µs each.
const FEW: usize = 8;

pub(super) struct BatchWriter {
    threads: usize,
    frames_out: metrics::Counter,
}

impl BatchWriter {
    /// In a runtime.
    pub fn new() -> Self {
        let threads = Handle::current().metrics().num_workers();
        Self { threads, frames_out: metrics::counter!(crate::metrics::FRAMES_OUT) }
    }

    /// Waits for nobody: what a socket does not take is left to its session.
    pub fn write(&self, sessions: &mut Unwritten) {
        let own = own_share(sessions.len(), self.threads);
        // First, so that other threads begin meanwhile.
        sessions.drain(own..).for_each(|session| session.outbox.wake());
        let frames: usize = sessions.drain(..).map(|session| session.outbox.write()).sum();
        if frames > 0 {
            self.frames_out.increment(frames as u64);
        }
    }
}

/// Of so many sessions the dispatcher writes to these itself. It is one task, and the runtime's other threads write as
/// well as it does: without a share a large group would be as fast as one core.
fn own_share(sessions: usize, threads: usize) -> usize {
    sessions.div_ceil(threads.max(1)).max(FEW).min(sessions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_batch_is_written_at_once_and_a_large_one_by_all_threads() {
        assert_eq!(own_share(0, 8), 0);
        assert_eq!(own_share(5, 8), 5);
        assert_eq!(own_share(500, 1), 500);
        assert_eq!(own_share(500, 8), 63);
    }
}
