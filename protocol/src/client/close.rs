//! WebSocket close codes: one table. Each says whether the client may come back, and after how long.

/// What a client does after the socket was closed with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// Connect again at once, to another edge if there is one, resuming from the cursors.
    Now,
    /// Connect again with backoff and jitter (full jitter between 0 and min(30 s, 0.5 s × 2^n)).
    Backoff,
    /// Get a new access token first.
    AfterLogin,
    /// The end, if the client has said `bye`. Else somebody on the way has said it: a lost connection.
    AfterBye,
    /// Do not come back by itself: it would happen again.
    Never,
}

impl Back {
    /// For the table of the documentation.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Now => "yes, at once, to another edge if there is one",
            Self::Backoff => "yes, with backoff",
            Self::AfterLogin => "after a new access token",
            Self::AfterBye => "after your own `bye` it is the end; otherwise yes, with backoff",
            Self::Never => "not by itself",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: &'static str,
    pub back: Back,
}

const fn close(code: u16, reason: &'static str, back: Back) -> Close {
    Close { code, reason, back }
}

pub const BYE: Close = close(1000, "bye", Back::AfterBye);
pub const PROTOCOL: Close =
    close(1002, "not WebSocket as RFC 6455 has it: mask, reserved bit, opcode or fragments", Back::Backoff);
pub const NOT_UTF8: Close = close(1007, "a text frame is not UTF-8", Back::Backoff);
pub const BAD_FRAME: Close = close(4000, "not a frame of this subprotocol", Back::Never);
pub const UNAUTHORIZED: Close = close(4001, "token refused", Back::AfterLogin);
pub const HELLO_TIMEOUT: Close = close(4002, "no hello within 5 s", Back::Backoff);
pub const REPLACED: Close = close(4003, "this device has a newer connection", Back::Never);
pub const SLOW_READER: Close = close(4004, "reads slower than its messages come; resume", Back::Now);
pub const DRAINING: Close = close(4005, "this edge is leaving; resume on another", Back::Now);
pub const HEARTBEAT: Close = close(4006, "silent for too long; resume", Back::Now);
pub const TOO_LARGE: Close = close(4007, "frame over the size limit", Back::Never);
pub const RESYNC: Close = close(4008, "the edge lost its place; resume from the cursors", Back::Now);
pub const UNAVAILABLE: Close = close(4009, "a part of the system does not answer", Back::Backoff);
pub const FLOOD: Close = close(4010, "kept sending over the rate limit", Back::Backoff);
pub const DISPLACED: Close = close(4011, "another device has taken over", Back::Never);
pub const DEVICE_LIMIT: Close = close(4012, "too many devices of this class are connected", Back::Never);

pub const ALL: [Close; 16] = [
    BYE,
    PROTOCOL,
    NOT_UTF8,
    BAD_FRAME,
    UNAUTHORIZED,
    HELLO_TIMEOUT,
    REPLACED,
    SLOW_READER,
    DRAINING,
    HEARTBEAT,
    TOO_LARGE,
    RESYNC,
    UNAVAILABLE,
    FLOOD,
    DISPLACED,
    DEVICE_LIMIT,
];

/// What to do after `code`; an unknown code (a proxy's 1006, a newer server's) is a lost connection.
pub fn back(code: u16) -> Back {
    ALL.iter().find(|c| c.code == code).map_or(Back::Backoff, |c| c.back)
}
