//! Is anybody there? Pings of one connection, and for how long nothing has come.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use natterjack_protocol::client::frame::ClientFrame;
use tokio::{sync::mpsc, time::Instant};

use super::Lost;

/// Pings; silence over two of them means that nobody is there (a half-open line shows no error).
pub(super) async fn beat(every: Duration, pings: mpsc::WeakSender<ClientFrame>, pulse: &Pulse) -> Lost {
    loop {
        // ±10 %: the clients of one edge shall not ping in step.
        tokio::time::sleep(every.mul_f64(0.9 + 0.2 * rand::random::<f64>())).await;
        if pulse.silence() > every.mul_f64(2.5) {
            return Lost::Broken("the edge is silent".into());
        }
        let Some(pings) = pings.upgrade() else {
            return std::future::pending().await;
        };
        pulse.ping(&pings);
    }
}

/// When something was last heard, and how often was asked.
pub(super) struct Pulse {
    start: Instant,
    heard_ms: AtomicU64,
    /// The driver has not taken what was read: nothing more is read.
    pub busy: AtomicBool,
    pings: AtomicU64,
}

impl Pulse {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            heard_ms: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            pings: AtomicU64::new(0),
        }
    }

    pub fn heard(&self) {
        self.heard_ms.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// A full queue means that the socket does not drain; the silence ends that.
    pub fn ping(&self, outgoing: &mpsc::Sender<ClientFrame>) -> u64 {
        match outgoing.try_send(ClientFrame::Ping) {
            Ok(()) => self.pings.fetch_add(1, Relaxed) + 1,
            Err(_) => self.pings.load(Relaxed) + 1,
        }
    }

    /// While the driver is busy nothing is read, so that is none.
    pub fn silence(&self) -> Duration {
        if self.busy.load(Relaxed) {
            return Duration::ZERO;
        }
        self.start.elapsed().saturating_sub(Duration::from_millis(self.heard_ms.load(Relaxed)))
    }
}
