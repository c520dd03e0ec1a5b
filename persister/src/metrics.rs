//! What the archive, `history` and `directory` measure: each name, and what it means.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub const ARCHIVED_ENTRIES: &str = "natterjack_persister_archived_entries_total";
pub const UNREADABLE_ENTRIES: &str = "natterjack_persister_unreadable_entries_total";
pub const LAG_ENTRIES: &str = "natterjack_persister_lag_entries";
pub const HOLES: &str = "natterjack_persister_holes_total";
pub const LOST_IDS: &str = "natterjack_persister_lost_ids_total";
pub const STORE_ERRORS: &str = "natterjack_persister_store_errors_total";
pub const STORE_QUEUE_JOBS: &str = "natterjack_persister_store_queue_jobs";
pub const DISK_FREE_BYTES: &str = "natterjack_persister_disk_free_bytes";
pub const LOG_USED_RATIO: &str = "natterjack_persister_log_used_ratio";
pub const CQL_REQUEST_SECONDS: &str = "natterjack_persister_cql_request_seconds";
pub const CQL_ERRORS: &str = "natterjack_persister_cql_errors_total";
pub const CQL_FREE_REQUESTS: &str = "natterjack_persister_cql_free_requests";
pub const CURSORS_COPIED: &str = "natterjack_persister_cursors_copied_total";
pub const HISTORY_ANSWER_SECONDS: &str = "natterjack_history_answer_seconds";
pub const HISTORY_WITHOUT_ARCHIVE: &str = "natterjack_history_without_archive_total";
pub const HISTORY_LATE_COPIES: &str = "natterjack_history_late_copies_total";
pub const HISTORY_LONG_TAILS_UNREAD: &str = "natterjack_history_long_tails_unread_total";
pub const DIRECTORY_QUEUE_DEPTH: &str = "natterjack_directory_queue_depth";
pub const DIRECTORY_QUEUE_REFUSED: &str = "natterjack_directory_queue_refused_total";
pub const DIRECTORY_PASSWORD_SECONDS: &str = "natterjack_directory_password_seconds";
pub const DIRECTORY_REFRESH_REUSED: &str = "natterjack_directory_refresh_reused_total";
pub const DIRECTORY_REFRESH_REPEATED: &str = "natterjack_directory_refresh_repeated_total";
pub const DIRECTORY_EXTERNAL_LOGINS: &str = "natterjack_directory_external_logins_total";
pub const DIRECTORY_ISSUER_FETCHES: &str = "natterjack_directory_issuer_fetches_total";
pub const DIRECTORY_ISSUER_KEYS: &str = "natterjack_directory_issuer_keys";
pub const DIRECTORY_REVOCATIONS_PENDING: &str = "natterjack_directory_revocations_pending";
pub const DIRECTORY_REVOKED: &str = "natterjack_directory_revoked_total";
pub const DIRECTORY_REBUILT: &str = "natterjack_directory_rebuilt_total";

/// Once per process: what `/metrics` says of each.
pub fn describe() {
    describe_counter!(ARCHIVED_ENTRIES, "Entries written to the archive");
    describe_counter!(UNREADABLE_ENTRIES, "Entries that cannot be decoded, kept with their bytes");
    describe_gauge!(LAG_ENTRIES, "Entries of the log behind the last batch, by partition");
    describe_counter!(HOLES, "Gaps in the log: entries that expired before they were archived; alarm");
    describe_counter!(
        LOST_IDS,
        "Ids of entries that may be lost for good: they expired before they were archived, or lay beyond the end \
         that a log lost; alarm"
    );
    describe_counter!(STORE_ERRORS, "Writes to the archive that failed and are tried again");
    describe_gauge!(
        STORE_QUEUE_JOBS,
        "Jobs that wait for the writer of the SQLite archive; when full, whoever writes waits"
    );
    describe_gauge!(DISK_FREE_BYTES, Unit::Bytes, "Free on the disk of the archive, if the archive is a file");
    describe_gauge!(LOG_USED_RATIO, "Part of its allowed size that the fullest partition of the log has, 0 to 1");
    describe_histogram!(CQL_REQUEST_SECONDS, Unit::Seconds, "Time of a request to the CQL servers, by kind");
    describe_counter!(
        CQL_ERRORS,
        "Requests to the CQL servers that failed, by kind and why: unavailable (a later attempt may succeed), refused"
    );
    describe_gauge!(CQL_FREE_REQUESTS, "Requests that may be sent before further ones wait, by kind");
    describe_counter!(
        CURSORS_COPIED,
        "Users whose cursors (how far they have read) were copied from KV to the archive"
    );
    describe_histogram!(HISTORY_ANSWER_SECONDS, Unit::Seconds, "Time to answer a request, by request");
    describe_counter!(HISTORY_WITHOUT_ARCHIVE, "Answers made from the log alone because the archive does not answer");
    describe_counter!(HISTORY_LATE_COPIES, "Late entries that repeat an earlier one and are not shown");
    describe_counter!(
        HISTORY_LONG_TAILS_UNREAD,
        "Pages refused because later edits and recalls could not be read in time"
    );
    describe_gauge!(
        DIRECTORY_QUEUE_DEPTH,
        "Requests that work or wait in a queue before costly work, by queue: password, issuer, rebuild"
    );
    describe_counter!(DIRECTORY_QUEUE_REFUSED, "Requests refused because their queue was full, by queue");
    describe_histogram!(DIRECTORY_PASSWORD_SECONDS, Unit::Seconds, "Time of one password hash");
    describe_counter!(DIRECTORY_REFRESH_REUSED, "Refresh tokens used again too late; each revoked its family");
    describe_counter!(DIRECTORY_REFRESH_REPEATED, "Refresh tokens used again in time; each gave the same next one");
    describe_counter!(DIRECTORY_EXTERNAL_LOGINS, "Logins with tokens of the external issuer, by result");
    describe_counter!(DIRECTORY_ISSUER_FETCHES, "Attempts to fetch the external issuer's keys, by result: ok, failed");
    describe_gauge!(DIRECTORY_ISSUER_KEYS, "Keys of the external issuer that can be used");
    describe_gauge!(
        DIRECTORY_REVOCATIONS_PENDING,
        "Logins that have ended and of which the edges do not know yet, or whose device is still in its user's list"
    );
    describe_counter!(DIRECTORY_REVOKED, "Logins whose end was published to the edges");
    describe_counter!(
        DIRECTORY_REBUILT,
        "Lost KV keys that were built again from archive and log, by key: threads, group, cursors"
    );
}
