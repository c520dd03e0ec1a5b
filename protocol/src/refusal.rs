//! The closed list of error codes: what went wrong, and whether trying again can help.

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use crate::{
    cid::Cid,
    schema::{Millis, Time},
    thread::Thread,
};

/// What a client may do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request will fail again.
    Never,
    /// The same request, with the same cid, after `retry_after_ms` (or a backoff of its own).
    Later,
    /// After getting a new access token.
    AfterLogin,
    /// With a new cid minted from the `now_ms` of the error, and only if every earlier answer to this message was
    /// `clock_ahead`.
    NewCid,
}

impl Retry {
    /// For the table of the documentation.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Never => "no: the same request fails again",
            Self::Later => "yes, the same request with the same `cid`, after `retry_after_ms` or a backoff",
            Self::AfterLogin => "after a new access token",
            Self::NewCid => "yes, see [Client ids](#client-ids)",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Not a frame, a missing field or a field of the wrong type; the message names it.
    BadFrame,
    /// `t` is none of the frame types of this version.
    UnknownFrame,
    /// A field has the right type and a value outside its limits; the message names limit and unit.
    Invalid,
    /// The token is missing, forged, revoked or of another issuer; or name and password do not fit.
    Unauthorized,
    /// The access token was good and has expired.
    TokenExpired,
    /// The operator has disabled this account.
    AccountDisabled,
    /// Nobody may make an account here.
    RegistrationClosed,
    /// An account is made with an invite here, and this is none.
    BadInvite,
    /// The user may not do this here.
    Forbidden,
    /// The user is not in this thread (any more).
    NotMember,
    /// One of the two blocks the other.
    Blocked,
    NotFound,
    /// It does not go with how things stand, or somebody else was first; read again and decide anew.
    Conflict,
    /// A number of things has reached its limit.
    LimitReached,
    /// As many devices of this class are connected as may be, and none gives way.
    DeviceLimit,
    /// Another device has taken over from this one.
    Displaced,
    RateLimited,
    ClockAhead,
    /// The message before it in its thread was refused, so this one was not stored.
    OutOfOrder,
    /// Too much happened since this cid to know whether it was stored; show "not known whether sent".
    ResendTooOld,
    /// The archive is so far behind that the log may not take more.
    StorageBehind,
    /// A part of the system does not answer; nothing was changed as far as is known, the same request is safe to
    /// resend.
    Unavailable,
    /// A bug of ours, logged on the server.
    Internal,
}

impl Code {
    pub const ALL: [Self; 23] = [
        Self::BadFrame,
        Self::UnknownFrame,
        Self::Invalid,
        Self::Unauthorized,
        Self::TokenExpired,
        Self::AccountDisabled,
        Self::RegistrationClosed,
        Self::BadInvite,
        Self::Forbidden,
        Self::NotMember,
        Self::Blocked,
        Self::NotFound,
        Self::Conflict,
        Self::LimitReached,
        Self::DeviceLimit,
        Self::Displaced,
        Self::RateLimited,
        Self::ClockAhead,
        Self::OutOfOrder,
        Self::ResendTooOld,
        Self::StorageBehind,
        Self::Unavailable,
        Self::Internal,
    ];

    /// As it is spelled on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::UnknownFrame => "unknown_frame",
            Self::Invalid => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::TokenExpired => "token_expired",
            Self::AccountDisabled => "account_disabled",
            Self::RegistrationClosed => "registration_closed",
            Self::BadInvite => "bad_invite",
            Self::Forbidden => "forbidden",
            Self::NotMember => "not_member",
            Self::Blocked => "blocked",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::LimitReached => "limit_reached",
            Self::DeviceLimit => "device_limit",
            Self::Displaced => "displaced",
            Self::RateLimited => "rate_limited",
            Self::ClockAhead => "clock_ahead",
            Self::OutOfOrder => "out_of_order",
            Self::ResendTooOld => "resend_too_old",
            Self::StorageBehind => "storage_behind",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// For the table of the documentation.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::BadFrame => {
                "Not a frame, a missing field, or a field of the wrong type or form (an id, a thread, a cid, base64, \
                 a number). The message names it."
            }
            Self::UnknownFrame => "`t` is none of the frame types of this version.",
            Self::Invalid => {
                "Type and form are right, and a value is not allowed, or a field that its kind needs is missing. The \
                 message names field and limit."
            }
            Self::Unauthorized => {
                "The token is missing, forged, revoked, or of another issuer or device; or name and password do not \
                 fit; or `hello` has not been said."
            }
            Self::TokenExpired => "The access token was good and has expired.",
            Self::AccountDisabled => "The operator has disabled this account: nobody can log in to it.",
            Self::RegistrationClosed => "The operator lets nobody make an account here.",
            Self::BadInvite => {
                "An account is made with an invite here, and this one is missing, unknown, used up or expired."
            }
            Self::Forbidden => "This user may not do this here.",
            Self::NotMember => "This user is not in this thread, or not any more.",
            Self::Blocked => "One of the two people blocks the other.",
            Self::NotFound => "There is no such thing.",
            Self::Conflict => {
                "It does not go with how things stand, or somebody else was first. Read again and decide anew."
            }
            Self::LimitReached => "A number of things has reached its limit.",
            Self::DeviceLimit => {
                "As many devices of this class are connected as may be, and none of them gives way. Close one of them."
            }
            Self::Displaced => {
                "Another device has taken over from this one. Not by itself: ask its user, and then say `hello` \
                 without `session`."
            }
            Self::RateLimited => "Too much in too short a time.",
            Self::ClockAhead => "The time in the cid is too far ahead of the log's clock, which is in `now_ms`.",
            Self::OutOfOrder => {
                "The message before it in its thread was refused, or is not known here. This one was not stored: send \
                 what is left again, in the old order."
            }
            Self::ResendTooOld => {
                "Too much happened since this cid was minted to find out whether it was stored. Show it as \"not \
                 known whether sent\"."
            }
            Self::StorageBehind => "The archive is so far behind that the log may not take more. Nothing was stored.",
            Self::Unavailable => {
                "A part of the system does not answer. It may or may not have happened: the same request, with the \
                 same `cid`, is safe to send again."
            }
            Self::Internal => "A bug in the server. It is logged there.",
        }
    }

    pub fn retry(self) -> Retry {
        match self {
            Self::TokenExpired | Self::Unauthorized => Retry::AfterLogin,
            Self::RateLimited | Self::OutOfOrder | Self::StorageBehind | Self::Unavailable | Self::Internal => {
                Retry::Later
            }
            Self::ClockAhead => Retry::NewCid,
            _ => Retry::Never,
        }
    }

    /// Does this answer to a message say for certain that this attempt stored nothing?
    pub fn means_not_stored(self) -> bool {
        matches!(self, Self::RateLimited | Self::ClockAhead | Self::OutOfOrder | Self::StorageBehind)
    }

    pub fn http_status(self) -> u16 {
        match self {
            Self::BadFrame | Self::UnknownFrame | Self::Invalid => 400,
            Self::Unauthorized | Self::TokenExpired => 401,
            Self::AccountDisabled | Self::RegistrationClosed | Self::BadInvite => 403,
            Self::Forbidden | Self::NotMember | Self::Blocked | Self::DeviceLimit => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::Displaced | Self::ClockAhead | Self::OutOfOrder => 409,
            Self::LimitReached | Self::ResendTooOld => 422,
            Self::RateLimited => 429,
            Self::StorageBehind | Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

/// An answer of "no", made where the decision falls and passed on unchanged to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// One of a closed list; each says whether a retry can help (docs/protocol.md).
    pub code: Code,
    /// For people: names the field and says what to do. Never a secret, never a message body.
    #[schema(min_length = 1)]
    pub message: String,
    /// Not before. Over HTTP the header `Retry-After` says the same in seconds.
    #[schema(value_type = Option<Millis>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The log's clock, with `clock_ahead`.
    #[schema(value_type = Option<Time>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now_ms: Option<u64>,
    /// Which send this is about, so that a client without `r` can match it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<Cid>,
    /// Which thread this is about, where no request says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<Thread>,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None, now_ms: None, cid: None, thread: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// Something does not answer; try the same thing again in a moment.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { retry_after_ms: Some(1_000), ..Self::new(Code::Unavailable, message) }
    }

    pub fn with_thread(mut self, thread: &Thread) -> Self {
        self.thread = Some(thread.clone());
        self
    }

    pub fn with_cid(mut self, cid: Cid) -> Self {
        self.cid = Some(cid);
        self
    }
}
impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        let about = "What went wrong; docs/protocol.md says of each whether a retry can help.";
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(about))
            .pattern(Some("^[a-z_]+$"))
            .enum_values(Some(Code::ALL.map(Code::name)))
            .examples(["unavailable"])
            .into()
    }
}

impl ToSchema for Code {}
