//! What an edge measures, described once for `/metrics`. Counters in the frame path are bumped per drain, not per recipient.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub fn describe() {
    let counters = [
        ("natterjack_edge_sends_total", "sends decided, by result"),
        ("natterjack_edge_cid_lookups_total", "sends looked up before or after publishing, because of their age"),
        (
            "natterjack_edge_reference_lookups_total",
            "messages named by an edit, recall, reaction or reply that the log alone did not tell about",
        ),
        ("natterjack_edge_references_unchecked_total", "such messages that nobody could look up; taken without"),
        ("natterjack_edge_late_acks_total", "acks so late that the message was looked up before `sent`"),
        ("natterjack_edge_control_conflicts_total", "changes of a thread that lost a race and were judged again"),
        ("natterjack_edge_frames_in_total", "frames from clients"),
        ("natterjack_edge_frames_out_total", "frames written to clients"),
        ("natterjack_edge_closes_total", "sockets closed by this edge, by close code"),
        ("natterjack_edge_sessions_replaced_total", "sessions closed because their device connected again"),
        ("natterjack_edge_sessions_revoked_total", "sessions closed because their login was revoked"),
        ("natterjack_edge_outbox_overflows_total", "outboxes dropped because their reader was too slow"),
        ("natterjack_edge_connections_refused_total", "connections over the limit of this edge"),
        ("natterjack_edge_limited_total", "connections, logins, sends and requests refused for their number, by limit"),
        ("natterjack_edge_half_heads_total", "connections that ended before the head of a request was whole"),
        (
            "natterjack_edge_answers_dropped_total",
            "HTTP answers given up with their connection, by why: stalled (nobody took them), bytes_per_address (too many of one address)",
        ),
        (
            "natterjack_edge_tls_handshakes_total",
            "TLS handshakes, by result: ok, failed, late (not done in time), plain (HTTP without TLS)",
        ),
        ("natterjack_edge_tls_reloads_total", "changes of the certificate's files, by result: ok, failed (the old one stays)"),
        ("natterjack_edge_http_requests_total", "HTTP answers, by path pattern and status"),
        ("natterjack_edge_polls_total", "long polls taken"),
        ("natterjack_edge_posts_refused_total", "messages over HTTP refused before they could wait: over the rate, or too many waiting"),
        ("natterjack_edge_fanin_disconnects_total", "disconnects of the reader of live subjects"),
        ("natterjack_edge_sends_batched_total", "sends published in a batch with others of their device and thread"),
        ("natterjack_edge_stale_heads_total", "heads of a holder that was replaced; asked again"),
        ("natterjack_edge_gaps_total", "gaps found in threads, filled before what comes after was shown"),
        ("natterjack_edge_gaps_given_up_total", "gaps that could not be filled; the sessions were told to resume"),
    ];
    for (name, text) in counters {
        describe_counter!(name, Unit::Count, text);
    }
    describe_gauge!("natterjack_edge_connections", Unit::Count, "open connections, WebSocket and HTTP");
    describe_gauge!("natterjack_edge_tls_stale", Unit::Count, "1 while the files of the certificate cannot be used, and an older one is");
    describe_gauge!("natterjack_edge_sessions", Unit::Count, "sessions");
    describe_gauge!(
        "natterjack_edge_posts_waiting",
        Unit::Count,
        "messages over HTTP that wait for an earlier one of their device and thread"
    );
    describe_gauge!("natterjack_edge_topics", Unit::Count, "live subjects with a session here");
    describe_gauge!("natterjack_edge_degraded", Unit::Count, "1 while this edge is cut off from the log or from its lease");
    describe_histogram!("natterjack_edge_publish_seconds", Unit::Seconds, "from a publish to its acknowledgement");
}
