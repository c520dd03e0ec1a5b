//! Step 2: how the log stands, as far as this edge knows: its clock, and whether anything may be published into a
//! partition now.

use natterjack_nats::Layout;
use natterjack_protocol::{Code, Refusal, Thread, Times};

use crate::{
    clock::Clock,
    refusals::{EdgeError, refuse},
    status::StatusWatch,
};

/// Clones share it.
#[derive(Clone)]
pub struct LogCondition {
    pub clock: Clock,
    pub status: StatusWatch,
    pub layout: Layout,
    pub times: Times,
}

impl LogCondition {
    /// The time of a partition, and since when the log knows by itself what is stored. None: nothing was heard of it
    /// yet.
    pub fn window(&self, p: u32) -> Option<(u64, u64)> {
        self.clock.now_ms(p).zip(self.clock.dedupe_since_ms(p))
    }

    /// Is the way into this partition of the log open?
    pub fn may_publish(&self, thread: &Thread, p: u32) -> Result<(), Refusal> {
        self.status.now().may_send(thread)?;
        if !self.clock.alive(p) {
            return Err(refuse(EdgeError::NoBeats));
        }
        self.archive_keeps_up(p)
    }

    /// DiscardNew guards the log's bytes; nothing else guards its age.
    fn archive_keeps_up(&self, p: u32) -> Result<(), Refusal> {
        let allowed = self.times.log_max_age.saturating_sub(self.times.storage_margin);
        match self.clock.archive_lag_ms(p) {
            Some(lag) if u128::from(lag) >= allowed.as_millis() => Err(Refusal {
                retry_after_ms: Some(30_000),
                ..Refusal::new(Code::StorageBehind, "the archive is too far behind the log; nothing was stored")
            }),
            _ => Ok(()),
        }
    }
}
