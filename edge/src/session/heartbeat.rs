//! Is the client still there? Whoever says nothing for `edge_ping` is pinged, and closed if no answer comes until
//! `heartbeat_timeout`.
//!
//! One timer per session, set to the next ping, or after a ping to the close. A frame that arrives does not move it,
//! unless the timer would fire soon: a client that keeps its own heartbeat is never woken for, one that is pinged is
//! woken for once per ping.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use natterjack_protocol::client::close;
use tokio::time::{Instant, Sleep};

use super::{End, Session, Turn, backend::Backend};

impl<B: Backend> Session<B> {
    /// When the timer fires if nothing more is heard. Jitter, so that a thousand sessions that came together are not
    /// pinged together.
    pub(super) fn next_ping(&self) -> Instant {
        self.heard + self.services.times.edge_ping.mul_f64(rand::random_range(1.0..1.1))
    }

    pub(super) fn check_silence(&mut self, cx: &mut Context<'_>, mut deadline: Pin<&mut Sleep>) -> Result<Turn, End> {
        let (ping, timeout) = (self.services.times.edge_ping, self.services.times.heartbeat_timeout);
        // After a ping the timer stands at `timeout` behind what was heard before it, so any answer moves it. Moving it
        // later takes no lock; what is left of it is not moved for each frame.
        if deadline.deadline() < self.heard + timeout.saturating_sub(ping) {
            deadline.as_mut().reset(self.next_ping());
        }
        if deadline.as_mut().poll(cx) == Poll::Pending {
            return Ok(Turn::Wait);
        }
        // Its silence is ours while reads are paused. And while bytes are on their way a ping would wait behind them:
        // `stall` judges whether it takes them.
        if !self.reads() || !self.socket.is_flushed() {
            self.heard = Instant::now();
        }
        let silence = self.heard.elapsed();
        if silence >= timeout {
            return Err(End::Close(close::HEARTBEAT));
        }
        if silence >= ping {
            self.socket.ping()?;
            deadline.reset(self.heard + timeout);
        } else {
            deadline.reset(self.next_ping());
        }
        Ok(Turn::Again)
    }
}
