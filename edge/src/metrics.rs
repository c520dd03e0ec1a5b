//! What the edge measures: each name, and what it means. Counters of the frame path are handles made once per session.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub const CONNECTIONS: &str = "natterjack_edge_connections";
pub const CONNECTIONS_REFUSED: &str = "natterjack_edge_connections_refused_total";
pub const INCOMPLETE_HEADS: &str = "natterjack_edge_incomplete_heads_total";
pub const TLS_HANDSHAKES: &str = "natterjack_edge_tls_handshakes_total";
pub const TLS_RELOADS: &str = "natterjack_edge_tls_reloads_total";
pub const TLS_STALE: &str = "natterjack_edge_tls_stale";
pub const LIMITED: &str = "natterjack_edge_limited_total";
pub const UNTRUSTED_FORWARDED: &str = "natterjack_edge_untrusted_forwarded_total";
pub const HTTP_REQUESTS: &str = "natterjack_edge_http_requests_total";
pub const ANSWERS_DROPPED: &str = "natterjack_edge_answers_dropped_total";
pub const LONG_POLLS: &str = "natterjack_edge_long_polls_total";
pub const POLL_PLACES: &str = "natterjack_edge_poll_places";
pub const SESSIONS: &str = "natterjack_edge_sessions";
pub const SESSIONS_REPLACED: &str = "natterjack_edge_sessions_replaced_total";
pub const SESSIONS_REVOKED: &str = "natterjack_edge_sessions_revoked_total";
pub const SESSIONS_TAKEN_OVER: &str = "natterjack_edge_sessions_taken_over_total";
pub const SESSIONS_UNCLAIMED: &str = "natterjack_edge_sessions_unclaimed_total";
pub const RELEASES_WAITING: &str = "natterjack_edge_releases_waiting";
pub const RELEASES_DROPPED: &str = "natterjack_edge_releases_dropped_total";
pub const CLOSES: &str = "natterjack_edge_closes_total";
pub const FRAMES_IN: &str = "natterjack_edge_frames_in_total";
pub const FRAMES_OUT: &str = "natterjack_edge_frames_out_total";
pub const OUTBOX_OVERFLOWS: &str = "natterjack_edge_outbox_overflows_total";
pub const PRESENCE_USERS: &str = "natterjack_edge_presence_users";
pub const PRESENCE_WATCHERS: &str = "natterjack_edge_presence_watchers";
pub const PRESENCE_PAIRS: &str = "natterjack_edge_presence_pairs";
pub const PRESENCE_FRAMES: &str = "natterjack_edge_presence_frames_total";
pub const PRESENCE_ASKED_ANEW: &str = "natterjack_edge_presence_asked_anew_total";
pub const SENDS: &str = "natterjack_edge_sends_total";
pub const SENDS_BATCHED: &str = "natterjack_edge_sends_batched_total";
pub const PUBLISH_SECONDS: &str = "natterjack_edge_publish_seconds";
pub const CURSOR_WRITES: &str = "natterjack_edge_cursor_writes_total";
pub const RECEIPTS_DROPPED: &str = "natterjack_edge_receipts_dropped_total";
pub const LATE_ACKS: &str = "natterjack_edge_late_acks_total";
pub const CID_LOOKUPS: &str = "natterjack_edge_cid_lookups_total";
pub const REFERENCE_LOOKUPS: &str = "natterjack_edge_reference_lookups_total";
pub const REFERENCES_UNCHECKED: &str = "natterjack_edge_references_unchecked_total";
pub const HTTP_SENDS_WAITING: &str = "natterjack_edge_http_sends_waiting";
pub const HTTP_SENDS_REFUSED: &str = "natterjack_edge_http_sends_refused_total";
pub const CONTROL_CONFLICTS: &str = "natterjack_edge_control_conflicts_total";
pub const TOPICS: &str = "natterjack_edge_topics";
pub const FANIN_DISCONNECTS: &str = "natterjack_edge_fanin_disconnects_total";
pub const STALE_HEADS: &str = "natterjack_edge_stale_heads_total";
pub const GAPS: &str = "natterjack_edge_gaps_total";
pub const GAPS_UNFILLED: &str = "natterjack_edge_gaps_unfilled_total";
pub const DEGRADED: &str = "natterjack_edge_degraded";

/// Once per process: what `/metrics` says of each.
pub fn describe() {
    describe_gauge!(CONNECTIONS, "Open connections, WebSocket and HTTP");
    describe_counter!(CONNECTIONS_REFUSED, "Connections refused because this edge has as many as it may");
    describe_counter!(
        INCOMPLETE_HEADS,
        "Connections that ended or timed out before the head of a request was complete"
    );
    describe_counter!(
        TLS_HANDSHAKES,
        "TLS handshakes, by result: ok, failed, late (deadline passed), plain (HTTP without TLS)"
    );
    describe_counter!(
        TLS_RELOADS,
        "Changes of the certificate's files, by result: ok, failed (the old certificate stays in use)"
    );
    describe_gauge!(
        TLS_STALE,
        "1 while the certificate's files cannot be used and an older certificate is in use; alarm"
    );
    describe_counter!(LIMITED, "Connections, logins, sends and requests refused by a rate or count limit, by limit");
    describe_counter!(
        UNTRUSTED_FORWARDED,
        "Requests whose forwarding headers were ignored because the peer is not in limits.trusted_proxies, by \
         peer: near, far"
    );
    describe_counter!(HTTP_REQUESTS, "HTTP responses, by path pattern and status");
    describe_counter!(
        ANSWERS_DROPPED,
        "HTTP responses given up with their connection, by why: stalled (the client does not read), \
         bytes_per_address (too many bytes wait for one address)"
    );
    describe_counter!(LONG_POLLS, "Long polls accepted");
    describe_gauge!(POLL_PLACES, "Places kept for devices that poll, between two polls");
    describe_gauge!(SESSIONS, "Sessions");
    describe_counter!(SESSIONS_REPLACED, "Sessions closed because their device connected again");
    describe_counter!(SESSIONS_REVOKED, "Sessions closed because their login was revoked");
    describe_counter!(
        SESSIONS_TAKEN_OVER,
        "Sessions closed because they are not among the user's devices any more, by close code"
    );
    describe_counter!(
        SESSIONS_UNCLAIMED,
        "Sessions let in while the bucket of sessions did not answer; they are claimed later"
    );
    describe_gauge!(RELEASES_WAITING, "Ended sessions that wait to be taken out of the user's devices");
    describe_counter!(
        RELEASES_DROPPED,
        "Ended sessions that were not taken out of the user's devices: too many waited, or no answer"
    );
    describe_counter!(CLOSES, "WebSockets closed by this edge, by close code");
    describe_counter!(FRAMES_IN, "Frames received from clients");
    describe_counter!(FRAMES_OUT, "Frames written to clients");
    describe_counter!(OUTBOX_OVERFLOWS, "Outboxes dropped because the client reads too slowly");
    describe_gauge!(PRESENCE_USERS, "Users who are watched by somebody on this edge");
    describe_gauge!(PRESENCE_WATCHERS, "Sessions that watch somebody");
    describe_gauge!(PRESENCE_PAIRS, "Pairs of a session and a user it watches");
    describe_counter!(PRESENCE_FRAMES, "Frames with changes of presence queued for sessions");
    describe_counter!(
        PRESENCE_ASKED_ANEW,
        "Times everybody watched of a shard was asked for, because something was not heard or another instance speaks"
    );
    describe_counter!(SENDS, "Sends decided, by result");
    describe_counter!(SENDS_BATCHED, "Sends published in one batch with others of their device and thread");
    describe_histogram!(PUBLISH_SECONDS, Unit::Seconds, "Time from a publish to its acknowledgement");
    describe_counter!(CURSOR_WRITES, "Writes of a user's cursors (how far they have read, and their devices have got)");
    describe_counter!(RECEIPTS_DROPPED, "Receipts of a thread that were not pushed because too many waited");
    describe_counter!(LATE_ACKS, "Acknowledgements so late that the message was looked up before `sent`");
    describe_counter!(CID_LOOKUPS, "Sends looked up by cid before or after publishing, because of their age");
    describe_counter!(
        REFERENCE_LOOKUPS,
        "Messages named by an edit, recall, reaction or reply that had to be looked up outside the log"
    );
    describe_counter!(REFERENCES_UNCHECKED, "References accepted without a check because history did not answer");
    describe_gauge!(HTTP_SENDS_WAITING, "Sends over HTTP that wait for an earlier one of their device and thread");
    describe_counter!(
        HTTP_SENDS_REFUSED,
        "Sends over HTTP refused before they were queued: over the rate, or too many waiting"
    );
    describe_counter!(CONTROL_CONFLICTS, "Control entries that lost a race for their thread and were judged again");
    describe_gauge!(TOPICS, "Live subjects with a subscriber on this edge");
    describe_counter!(FANIN_DISCONNECTS, "Disconnects of the reader of live subjects, as the dispatcher sees them");
    describe_counter!(STALE_HEADS, "Heads answered by a lease holder that has been replaced; asked again");
    describe_counter!(GAPS, "Gaps found in threads; each is filled before what comes after it is shown");
    describe_counter!(GAPS_UNFILLED, "Gaps that could not be filled; the sessions were told to resume");
    describe_gauge!(DEGRADED, "1 while this edge has no connection to the log or no lease");
}
