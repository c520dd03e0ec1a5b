//! Whom a device sees, and how long its edge was heard.

use std::time::{Duration, Instant};

use natterjack_protocol::client::presence::PresenceOf;

use super::Raw;

/// Its edge answers a ping every second: after a longer pause it stood still, or something between.
const PAUSE: Duration = Duration::from_secs(2);

impl Raw {
    pub(super) fn hears(&self) -> Instant {
        self.record.with_connection(self.connection, |c, now| match c.heard.last_mut() {
            Some((_, to)) if now - *to <= PAUSE.as_micros() as u64 => *to = now,
            _ => c.heard.push((now, now)),
        });
        Instant::now()
    }

    pub(super) fn sees(&mut self, r: Option<u32>, users: Vec<PresenceOf>) {
        if let Some(r) = r {
            self.requests.remove(&r);
        }
        self.record.with_connection(self.connection, |c, now| {
            c.presence.extend(users.into_iter().map(|p| (now, p.user.to_string(), p.state)));
        });
    }
}
