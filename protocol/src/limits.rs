//! Every limit, once. Clients learn the ones that concern them in `welcome`.

use serde::{Deserialize, Serialize};

/// Characters (Unicode scalar values, not bytes) of a text.
pub const TEXT_CHARS: usize = 10_000;
/// Bytes of a body in MessagePack: 10,000 characters × 4 bytes, and room for the other fields.
pub const BODY_BYTES: usize = 48 * 1024;
/// Bytes of a frame from a client: a hello with 1,000 cursors of 133 + 9 bytes is 142 KB.
pub const FRAME_BYTES: usize = 192 * 1024;
/// Bytes of an upgrade or HTTP request head.
pub const HEAD_BYTES: usize = 16 * 1024;
/// Bytes of an HTTP request body.
pub const HTTP_BODY_BYTES: usize = 256 * 1024;
/// A client reads an HTTP answer at least this fast on average, after the grace time `stall`: a page of 190 kB in 47 s,
/// where a 2G connection takes 40 s. A slower one holds memory and is dropped.
pub const ANSWER_BYTES_PER_SECOND: usize = 4 * 1024;
pub const CURSORS_PER_HELLO: usize = 1_000;
/// Up to so many unread messages are counted: apps show "99+".
pub const UNREAD_MAX: u8 = 100;
pub const HEADS_PER_BATCH: usize = 1_024;
pub const PAGE_MAX: usize = 200;
pub const PAGE_DEFAULT: usize = 50;
/// A page, of events or of threads, ends with what reaches so many bytes of JSON: 200 messages of 600 bytes, 2 s at 64
/// kB/s, and two texts of 10,000 characters that JSON spells with six bytes each.
pub const PAGE_BYTES: usize = 128 * 1024;
/// Bytes of one message in NATS: what a role asks, answers or keeps as a value. `max_payload` of nats-server is 1 MiB
/// unless configured; less is refused by `provision`.
pub const PAYLOAD_BYTES: usize = 1 << 20;
/// What a role asks or answers another for many threads ends with what reaches this. The largest event is an entry of
/// 48 KiB, at six bytes of JSON each 288 KiB: half of a payload is left.
pub const ANSWER_BYTES: usize = PAYLOAD_BYTES / 4;
/// Bytes of a value in KV (a group's state, a user's drafts): beyond it nobody is added. Room for the change that is
/// being made: 500 users of 133 + 60 bytes are 97 KB.
pub const STATE_BYTES: usize = PAYLOAD_BYTES - 128 * 1024;
/// Conversations and groups of a user, those that were left included. An edge keeps about 300 bytes of each while the
/// user is connected.
pub const USER_THREADS: usize = 100_000;
/// What others may fill of them: conversations that they begin, and of that, groups into which they put the user, as
/// one stranger alone can. The rest is for what the user begins.
pub const USER_THREADS_BY_OTHERS: usize = USER_THREADS / 4 * 3;
pub const USER_THREADS_BY_GROUPS: usize = USER_THREADS / 2;
/// Threads that a user pins, and threads in which they have begun to write.
pub const PINNED_THREADS: usize = 50;
pub const DRAFTS: usize = 100;
/// Of the newest event of a thread, as the list of threads shows it: characters of the text, and users.
pub const PREVIEW_CHARS: usize = 200;
pub const PREVIEW_USERS: usize = 10;
/// Live frames and bytes that wait for one slow reader before it is closed with a resumable code. What waits behind its
/// pages while it attaches is counted with them.
pub const OUTBOX_FRAMES: usize = 4_096;
pub const OUTBOX_BYTES: usize = 1 << 20;
/// Bytes of frames after which an answer to a poll is sent: as much as may wait for a socket. What is left comes with
/// the next poll.
pub const POLL_BYTES: usize = OUTBOX_BYTES;
/// Bytes of a snapshot (pages, answers) that a session has asked for or that wait for its socket; beyond them it waits.
/// Eight pages, and as much as may wait of live frames.
pub const SNAPSHOT_BYTES: usize = 8 * PAGE_BYTES;
/// Requests (sends included) of one session that wait for their answer.
pub const INFLIGHT_REQUESTS: usize = 64;
/// Frames a session may send: a bucket of this many, refilled at this rate per second.
pub const FRAMES_BURST: u32 = 2_000;
pub const FRAMES_PER_SECOND: u32 = 1_000;
pub const GROUP_MEMBERS: usize = 500;
/// Members and former members kept in a group's state (they may still read their part): 5,000 × ~80 B = 400 KB of a 1
/// MB value.
pub const GROUP_EVER: usize = 5_000;
/// Users in one control entry.
pub const USERS_PER_CHANGE: usize = GROUP_MEMBERS;
/// How often somebody may join the same group again.
pub const REJOINS: usize = 100;
pub const GROUP_NAME_CHARS: usize = 100;
pub const USER_NAME_CHARS: usize = 32;
pub const USER_NAME_MIN: usize = 2;
pub const DEVICE_NAME_CHARS: usize = 40;
/// Name and version of a client.
pub const APP_CHARS: usize = 32;
/// Devices of a user that are known at once, connected ones and others.
pub const USER_DEVICES: usize = 32;
/// Bytes of all of them in KV: 32 of about 200 bytes, and a few sessions that are being closed. With names of 40
/// characters of four bytes it holds 20.
pub const USER_DEVICES_BYTES: usize = 8 * 1024;
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=256;
/// Numbers on the wire: what a double holds exactly.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;
/// Users that a session may watch, and that may be asked for at once.
pub const WATCHED_USERS: usize = 500;
/// Contacts of a user, and those whom they have asked.
pub const CONTACTS: usize = 5_000;
/// Requests by others that a user has not answered. Apart from the contacts: strangers can fill it.
pub const CONTACT_REQUESTS: usize = 1_000;
pub const FIND_USERS: usize = 20;
pub const MEDIA_URL_BYTES: usize = 2_048;
pub const MEDIA_NAME_CHARS: usize = 255;
pub const MEDIA_MIME_CHARS: usize = 127;
pub const EMOJI_CHARS: usize = 16;
pub const CUSTOM_BYTES: usize = 32 * 1024;
/// A resend older than the dedupe window is looked for among at most this many messages of the thread.
pub const RESEND_ROWS: usize = 10_000;
/// Connections that have not said hello yet, per edge, and of one address: a quarter, so that no single one takes them
/// all.
pub const UNGREETED: usize = 4_096;
pub const UNGREETED_PER_ADDRESS: usize = UNGREETED / 4;
/// Sockets per edge, under the 20,000 open files a process may have on small machines.
pub const CONNECTIONS: usize = 18_000;

/// A row of the table of limits in the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitRow {
    pub name: &'static str,
    pub value: usize,
    pub unit: &'static str,
    pub of: &'static str,
}

const fn limit(name: &'static str, value: usize, unit: &'static str, of: &'static str) -> LimitRow {
    LimitRow { name, value, unit, of }
}

/// Every limit that somebody outside can run into. A test holds that it is complete.
pub const TABLE: [LimitRow; 56] = [
    limit("TEXT_CHARS", TEXT_CHARS, "characters", "a text or caption; Unicode scalar values, not bytes"),
    limit("EMOJI_CHARS", EMOJI_CHARS, "characters", "an emoji or a reaction"),
    limit("CUSTOM_BYTES", CUSTOM_BYTES, "bytes", "the data of a `custom` message, before base64"),
    limit("MEDIA_URL_BYTES", MEDIA_URL_BYTES, "bytes", "the URL of an attachment"),
    limit("MEDIA_NAME_CHARS", MEDIA_NAME_CHARS, "characters", "the file name of an attachment"),
    limit("MEDIA_MIME_CHARS", MEDIA_MIME_CHARS, "characters", "the media type of an attachment"),
    limit("BODY_BYTES", BODY_BYTES, "bytes", "a message as the log keeps it, in MessagePack"),
    limit("FRAME_BYTES", FRAME_BYTES, "bytes", "a frame from a client"),
    limit("FRAMES_BURST", FRAMES_BURST as usize, "frames", "what a session may send at once"),
    limit("FRAMES_PER_SECOND", FRAMES_PER_SECOND as usize, "frames per second", "what a session may send on and on"),
    limit(
        "INFLIGHT_REQUESTS",
        INFLIGHT_REQUESTS,
        "requests",
        "requests of a session without an answer, sends included; the edge reads no more frames until one is answered",
    ),
    limit(
        "CURSORS_PER_HELLO",
        CURSORS_PER_HELLO,
        "cursors",
        "one `hello` or one `sync`; `got` and `read` of one `ack`, each",
    ),
    limit("UNREAD_MAX", UNREAD_MAX as usize, "messages", "unread messages that are counted in a thread"),
    limit("PAGE_DEFAULT", PAGE_DEFAULT, "events", "a page of history, or threads of a list, without `limit`"),
    limit("PAGE_MAX", PAGE_MAX, "events", "the largest `limit` of `history` and `threads`"),
    limit(
        "PAGE_BYTES",
        PAGE_BYTES,
        "bytes",
        "a page, of events or of threads, ends with what reaches so many bytes of JSON",
    ),
    limit("OUTBOX_FRAMES", OUTBOX_FRAMES, "frames", "live frames that wait at the edge for a slow reader"),
    limit("OUTBOX_BYTES", OUTBOX_BYTES, "bytes", "live frames that wait at the edge for a slow reader"),
    limit("SNAPSHOT_BYTES", SNAPSHOT_BYTES, "bytes", "pages and answers under way to a session; the next ones wait"),
    limit("PAYLOAD_BYTES", PAYLOAD_BYTES, "bytes", "what nats-server has to carry in one message (`max_payload`)"),
    limit("ANSWER_BYTES", ANSWER_BYTES, "bytes", "what one role answers another for many threads at once"),
    limit("STATE_BYTES", STATE_BYTES, "bytes", "the state of a group, or the drafts of a user"),
    limit("USER_THREADS", USER_THREADS, "threads", "conversations and groups of a user, also those they have left"),
    limit(
        "USER_THREADS_BY_OTHERS",
        USER_THREADS_BY_OTHERS,
        "threads",
        "the threads of a user with whom others begin a conversation",
    ),
    limit(
        "USER_THREADS_BY_GROUPS",
        USER_THREADS_BY_GROUPS,
        "threads",
        "the threads of a user whom others put into a group",
    ),
    limit("PINNED_THREADS", PINNED_THREADS, "threads", "threads that a user pins"),
    limit("DRAFTS", DRAFTS, "threads", "threads in which a user has begun to write"),
    limit("PREVIEW_CHARS", PREVIEW_CHARS, "characters", "the text of a thread's last event in the list of threads"),
    limit("PREVIEW_USERS", PREVIEW_USERS, "people", "those whom such an event names"),
    limit("POLL_BYTES", POLL_BYTES, "bytes", "frames after which a poll is answered; the rest comes with the next one"),
    limit("HEADS_PER_BATCH", HEADS_PER_BATCH, "threads", "one question of an edge for the newest ids"),
    limit(
        "RESEND_ROWS",
        RESEND_ROWS,
        "messages",
        "how many messages of a thread are searched for an old cid, where the archive has no index of them",
    ),
    limit("GROUP_MEMBERS", GROUP_MEMBERS, "people", "a group, unless configured otherwise"),
    limit("GROUP_EVER", GROUP_EVER, "people", "members and former members of a group"),
    limit("USERS_PER_CHANGE", USERS_PER_CHANGE, "people", "one change of a group"),
    limit("REJOINS", REJOINS, "times", "how often somebody may join the same group"),
    limit("GROUP_NAME_CHARS", GROUP_NAME_CHARS, "characters", "the name of a group, at least 1"),
    limit("USER_NAME_MIN", USER_NAME_MIN, "characters", "the shortest name of a user"),
    limit("USER_NAME_CHARS", USER_NAME_CHARS, "characters", "the longest name of a user"),
    limit("PASSWORD_CHARS", *PASSWORD_CHARS.start(), "characters", "the shortest password"),
    limit("PASSWORD_CHARS", *PASSWORD_CHARS.end(), "characters", "the longest password"),
    limit("DEVICE_NAME_CHARS", DEVICE_NAME_CHARS, "characters", "the name of a device"),
    limit("APP_CHARS", APP_CHARS, "characters", "name and version of a client"),
    limit(
        "USER_DEVICES",
        USER_DEVICES,
        "devices",
        "devices of a user that are known; of those not connected the one goes that was active longest ago",
    ),
    limit("USER_DEVICES_BYTES", USER_DEVICES_BYTES, "bytes", "what is kept of a user's devices; likewise"),
    limit("WATCHED_USERS", WATCHED_USERS, "users", "whom a session watches, and whom `GET /v1/presence` may name"),
    limit("CONTACTS", CONTACTS, "people", "contacts of a user, and those whom they have asked"),
    limit("CONTACT_REQUESTS", CONTACT_REQUESTS, "people", "those who have asked a user and wait for the answer"),
    limit("FIND_USERS", FIND_USERS, "people", "the answer to a search by name"),
    limit("HEAD_BYTES", HEAD_BYTES, "bytes", "the head of an HTTP request, the upgrade included"),
    limit("HTTP_BODY_BYTES", HTTP_BODY_BYTES, "bytes", "the body of an HTTP request"),
    limit(
        "ANSWER_BYTES_PER_SECOND",
        ANSWER_BYTES_PER_SECOND,
        "bytes per second",
        "an HTTP answer is taken at least so fast on the whole",
    ),
    limit("UNGREETED", UNGREETED, "connections", "connections of an edge that have not said hello"),
    limit("UNGREETED_PER_ADDRESS", UNGREETED_PER_ADDRESS, "connections", "those of one address"),
    limit("CONNECTIONS", CONNECTIONS, "connections", "connections of an edge"),
    limit("ID_CHARS", crate::ids::TOKEN_MAX, "characters", "an id of a user, group, device, session or edge"),
];

/// The limits a client needs to know, as they stand in `welcome`.
/// One that an older edge does not know has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct ClientLimits {
    pub text_chars: usize,
    pub body_bytes: usize,
    pub frame_bytes: usize,
    pub cursors_per_hello: usize,
    pub page_max: usize,
    pub inflight_requests: usize,
    pub frames_per_second: u32,
    pub group_members: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            text_chars: TEXT_CHARS,
            body_bytes: BODY_BYTES,
            frame_bytes: FRAME_BYTES,
            cursors_per_hello: CURSORS_PER_HELLO,
            page_max: PAGE_MAX,
            inflight_requests: INFLIGHT_REQUESTS,
            frames_per_second: FRAMES_PER_SECOND,
            group_members: GROUP_MEMBERS,
        }
    }
}
