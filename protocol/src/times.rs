//! Every duration in one value, so that tests may scale them together. NATS elections do not scale.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Copied from process to process through the configuration (`times.scale`), never changed while running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// A cid further ahead of the log's clock is refused.
    pub cid_ahead: Duration,
    /// A cid of at most this age is published without a lookup.
    pub cid_fresh: Duration,
    /// Assumed bound on the difference of the clocks of two NATS nodes.
    pub clock_slack: Duration,
    /// An entry stored later than this after max(cid, seen) is looked up by every reader.
    pub late: Duration,
    /// Duplicate window of the log. Two stored copies are at least this far apart.
    pub dedupe_window: Duration,
    /// One attempt to publish waits this long for its acknowledgement. Elections take 4–9 s.
    pub ack_timeout: Duration,
    /// Attempts with the same Msg-Id go on until this long after the first.
    pub publish_deadline: Duration,
    /// First frame of a connection.
    pub hello: Duration,
    /// A client waits so long for the answer to its hello. Usually it takes milliseconds; another device that has to
    /// leave may be at an edge that is frozen.
    pub welcome: Duration,
    /// TLS, and the head of a connection's first request, together.
    pub handshake: Duration,
    /// The head of a later request, from its first byte.
    pub head: Duration,
    /// The body of a request.
    pub body: Duration,
    /// An HTTP connection without a request. Longer than proxies keep one they do not use (nginx and ALB 60 s, Caddy
    /// 120 s): else they send a request into a connection that is being closed.
    pub http_idle: Duration,
    /// An HTTP answer of which nothing is taken for so long is dropped with its connection.
    pub stall: Duration,
    /// A client sends something at least this often.
    pub heartbeat: Duration,
    /// An edge pings a client that it has heard nothing from for this long, up to a tenth later. NATs and proxies
    /// forget a connection that carries nothing for 60 s.
    pub edge_ping: Duration,
    /// Without a byte from the client for this long its socket is closed. Browsers let the timers of a page in the
    /// background run once in 60 s.
    pub heartbeat_timeout: Duration,
    /// A device that polls keeps its place for so long after a poll.
    pub poll_grace: Duration,
    /// An attach or a repair that takes longer gives up with a retryable code.
    pub attach: Duration,
    /// `channel` repeats a quiet thread's head once after this long.
    pub head_after: Duration,
    /// `channel` publishes its clock and frontier this often.
    pub beat: Duration,
    /// Silence of a partition's beats after which it is suspect.
    pub beat_silence: Duration,
    /// Edges compare heads this often (jittered).
    pub sweep: Duration,
    /// How far back `channel` knows each thread's last id.
    pub horizon: Duration,
    /// Lifetime of a role lease without a refresh, and how often it is refreshed.
    pub role_lease: Duration,
    pub role_refresh: Duration,
    /// Lifetime of an edge's lease, and how often it is refreshed.
    pub edge_lease: Duration,
    pub edge_refresh: Duration,
    /// A suspended edge closes its sockets after this long.
    pub suspend: Duration,
    /// A draining edge has left after this long.
    pub drain: Duration,
    /// The persister reads the log this often, all that came meanwhile; five times as often while that is little.
    pub batch: Duration,
    /// How long the log keeps entries; longer than the longest outage of the archive.
    pub log_max_age: Duration,
    /// Edges refuse sends (`storage_behind`) when the archive is this close to `log_max_age`: the time to repair it.
    pub storage_margin: Duration,
    /// Lifetime of an access token.
    pub access_token: Duration,
    /// Lifetime of a refresh token without use.
    pub refresh_token: Duration,
    /// A used refresh token gives the same next one again for so long, as long as that is not used.
    pub refresh_again: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let (s, ms) = (Duration::from_secs, Duration::from_millis);
        Self {
            cid_ahead: s(10),
            cid_fresh: s(20),
            clock_slack: s(5),
            late: s(40),
            dedupe_window: s(60),
            ack_timeout: s(2),
            publish_deadline: s(15),
            hello: s(5),
            welcome: s(20),
            handshake: s(10),
            head: s(10),
            body: s(30),
            http_idle: s(150),
            stall: s(30),
            heartbeat: s(25),
            edge_ping: s(45),
            heartbeat_timeout: s(75),
            poll_grace: s(30),
            attach: s(5),
            head_after: s(1),
            beat: s(1),
            beat_silence: s(3),
            sweep: s(45),
            horizon: s(120),
            role_lease: s(2),
            role_refresh: ms(500),
            edge_lease: s(10),
            edge_refresh: s(3),
            suspend: s(60),
            drain: s(20),
            batch: ms(500),
            log_max_age: s(24 * 3600),
            storage_margin: s(2 * 3600),
            access_token: s(3600),
            refresh_token: s(30 * 24 * 3600),
            refresh_again: s(60),
        }
    }
}

impl Times {
    /// A stream this young may be younger than what a cid stands for: it does not know what was stored before it.
    pub fn young_stream(&self) -> Duration {
        self.cid_ahead + self.clock_slack
    }

    /// The durations that make a test wait, divided: what sleeps in real time and depends on nobody's election.
    pub fn scaled(divisor: u32) -> Self {
        let t = Self::default();
        let d = divisor.max(1);
        Self {
            cid_ahead: t.cid_ahead / d,
            cid_fresh: t.cid_fresh / d,
            clock_slack: t.clock_slack / d,
            late: t.late / d,
            dedupe_window: t.dedupe_window / d,
            sweep: t.sweep / d,
            // Not below what a takeover and the sweep behind it need.
            horizon: (t.horizon / d).max(t.horizon.min(Duration::from_secs(6))),
            suspend: t.suspend / d,
            poll_grace: t.poll_grace / d,
            refresh_again: t.refresh_again / d,
            ..t
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The proof of exactly-once needs these inequalities; scaling must keep them (all but the publish deadline,
    /// which waits for elections: with scaled times a test must not hold a leader election and a resend at once).
    #[test]
    fn the_arithmetic_of_exactly_once() {
        let t = Times::default();
        assert!(t.cid_ahead + t.cid_fresh + t.publish_deadline + t.clock_slack * 2 < t.dedupe_window);
        assert!(t.late <= t.dedupe_window - t.cid_ahead - t.clock_slack * 2);
        assert!(t.cid_fresh + t.publish_deadline < t.late, "a normal send is never late");
        let t = Times::scaled(5);
        assert!(t.late <= t.dedupe_window - t.cid_ahead - t.clock_slack * 2);
    }

    /// A client that speaks is not pinged; one that sleeps is pinged before the network forgets it, and has the time
    /// for an answer before it is given up.
    #[test]
    fn the_arithmetic_of_heartbeats() {
        let (t, s) = (Times::default(), Duration::from_secs);
        let latest_ping = t.edge_ping.mul_f64(1.1);
        assert!(t.heartbeat + s(10) < t.edge_ping, "a heartbeat that is late by a slow line makes no ping");
        assert!(latest_ping + s(10) <= s(60), "NATs and proxies forget a silent connection after 60 s or more");
        assert!(latest_ping + s(20) < t.heartbeat_timeout, "a ping that is sent again by TCP is answered in time");
        assert!(t.heartbeat_timeout >= s(60) + s(15), "the timers of a sleeping page run once in 60 s");
        assert!(t.heartbeat + s(5) <= t.poll_grace, "who polls without waiting, as often as others ping, stays in");
        assert!(
            t.heartbeat_timeout < t.edge_ping * 2,
            "an answer moves the timer, see session/heartbeat.rs of the edge"
        );
    }
}
