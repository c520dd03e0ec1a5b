//! What a client is told when something inside fails: the one place where an error becomes a refusal. The details stay
//! in the edge's log.
//!
//! What a client did wrong is no failure, and is refused where it is found.

use natterjack_nats::{KvError, LogError, PublishError, RpcError};
use natterjack_protocol::{Code, Refusal};

/// A role that answers questions of edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleService {
    /// Newest ids of threads.
    Channel,
    /// Messages.
    History,
    /// Accounts, logins, contacts.
    Directory,
    /// Who is here.
    Presence,
}

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    #[error("publishing: {0}")]
    Publish(#[from] PublishError),
    #[error("reading the log: {0}")]
    ReadLog(#[from] LogError),
    #[error("reading membership: {0}")]
    State(#[from] KvError),
    #[error("asking {0:?}: {1}")]
    Ask(RoleService, RpcError),
    #[error("{reason}")]
    Token { expired: bool, reason: String },
    #[error("the login was revoked")]
    Revoked,
    #[error("the edge is stopping")]
    Stopping,
    #[error("no beats of the partition")]
    NoBeats,
    #[error("the outcome of a publish is not known")]
    OutcomeOpen,
}

/// The refusal for it, and a line in the log where an operator has to know.
pub fn refuse(e: impl Into<EdgeError>) -> Refusal {
    let e = e.into();
    match &e {
        EdgeError::Publish(PublishError::StreamFull | PublishError::Rejected(_))
        | EdgeError::Ask(_, RpcError::InvalidReply(_) | RpcError::TooLarge(_)) => {
            tracing::error!(error = %e, "a request is refused");
        }
        EdgeError::Publish(PublishError::Deadline(_)) | EdgeError::ReadLog(_) | EdgeError::State(_) => {
            tracing::warn!(error = %e, "a request is refused");
        }
        EdgeError::Ask(_, RpcError::Refused(_) | RpcError::Full) | EdgeError::Token { .. } | EdgeError::Revoked => {}
        _ => tracing::debug!(error = %e, "a request is refused"),
    }
    e.into()
}

impl From<EdgeError> for Refusal {
    fn from(e: EdgeError) -> Self {
        match e {
            EdgeError::Publish(e) => of_publish(&e),
            EdgeError::ReadLog(_) => Self::unavailable("the log does not answer; send the same again in a moment"),
            EdgeError::State(_) => Self::unavailable("membership cannot be read now; try again in a moment"),
            EdgeError::Ask(_, RpcError::Refused(refusal)) => refusal,
            EdgeError::Ask(_, RpcError::Full) => Self::unavailable("too many requests at once; try again"),
            EdgeError::Ask(_, RpcError::TooLarge(_)) => {
                Self::new(Code::Internal, "an internal service was asked for too much")
            }
            EdgeError::Ask(_, RpcError::InvalidReply(_)) => {
                Self::new(Code::Internal, "invalid reply from an internal service")
            }
            EdgeError::Ask(RoleService::Channel, _) => {
                Self::unavailable("the channel service does not answer; try again in a moment")
            }
            EdgeError::Ask(RoleService::History, _) => {
                Self::unavailable("history does not answer; try again in a moment")
            }
            EdgeError::Ask(RoleService::Directory, _) => {
                Self::unavailable("accounts cannot be reached; try again in a moment")
            }
            EdgeError::Ask(RoleService::Presence, _) => {
                Self::unavailable("nobody knows who is here now; try again in a moment")
            }
            EdgeError::Token { expired: true, reason } => Self::new(Code::TokenExpired, reason),
            EdgeError::Token { reason, .. } => Self::new(Code::Unauthorized, reason),
            EdgeError::Revoked => Self::new(Code::Unauthorized, "this login was revoked: log in again"),
            EdgeError::Stopping => Self::unavailable("this edge is stopping"),
            EdgeError::NoBeats => Self::unavailable("this edge is cut off from the log; try again in a moment"),
            EdgeError::OutcomeOpen => {
                Self::unavailable("not known yet whether the message was stored; send the same cid again")
            }
        }
    }
}

fn of_publish(e: &PublishError) -> Refusal {
    match e {
        PublishError::StreamFull => {
            Refusal { retry_after_ms: Some(5_000), ..Refusal::unavailable("the log is full; nothing was stored") }
        }
        PublishError::Deadline(_) => {
            Refusal::unavailable("the log did not acknowledge in time; send the same cid again")
        }
        PublishError::NoLease => {
            Refusal::unavailable("this edge was cut off from the cluster; send the same cid again in a moment")
        }
        PublishError::Closed => Refusal::unavailable("this edge is leaving; send the same cid to another"),
        PublishError::Conflict => {
            Refusal::new(Code::Conflict, "somebody else changed this at the same time; read it again")
        }
        PublishError::Rejected(_) => Refusal::new(Code::Internal, "the log refused the entry"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_one_code_one_sentence_and_says_when_to_come_back() {
        let reason = || String::from("nats: 10.0.0.7:4222 secret");
        let again = Refusal::unavailable("").retry_after_ms;
        let ask = |service| EdgeError::Ask(service, RpcError::Timeout);
        let kv = || KvError::Unavailable { bucket: "users".into(), reason: reason() };
        let limited = Refusal { retry_after_ms: Some(77), ..Refusal::new(Code::RateLimited, "slow down") };
        for (error, code, sentence, retry_after_ms) in [
            (PublishError::StreamFull.into(), Code::Unavailable, "the log is full; nothing was stored", Some(5_000)),
            (
                PublishError::Deadline(reason()).into(),
                Code::Unavailable,
                "the log did not acknowledge in time; send the same cid again",
                again,
            ),
            (
                PublishError::NoLease.into(),
                Code::Unavailable,
                "this edge was cut off from the cluster; send the same cid again in a moment",
                again,
            ),
            (
                PublishError::Closed.into(),
                Code::Unavailable,
                "this edge is leaving; send the same cid to another",
                again,
            ),
            (
                PublishError::Conflict.into(),
                Code::Conflict,
                "somebody else changed this at the same time; read it again",
                None,
            ),
            (PublishError::Rejected(reason()).into(), Code::Internal, "the log refused the entry", None),
            (
                LogError::Unavailable(reason()).into(),
                Code::Unavailable,
                "the log does not answer; send the same again in a moment",
                again,
            ),
            (kv().into(), Code::Unavailable, "membership cannot be read now; try again in a moment", again),
            (
                ask(RoleService::Channel),
                Code::Unavailable,
                "the channel service does not answer; try again in a moment",
                again,
            ),
            (ask(RoleService::History), Code::Unavailable, "history does not answer; try again in a moment", again),
            (
                ask(RoleService::Directory),
                Code::Unavailable,
                "accounts cannot be reached; try again in a moment",
                again,
            ),
            (
                EdgeError::Ask(RoleService::History, RpcError::Full),
                Code::Unavailable,
                "too many requests at once; try again",
                again,
            ),
            (
                EdgeError::Ask(RoleService::Directory, RpcError::Refused(limited)),
                Code::RateLimited,
                "slow down",
                Some(77),
            ),
            (
                EdgeError::Ask(RoleService::History, RpcError::TooLarge(reason())),
                Code::Internal,
                "an internal service was asked for too much",
                None,
            ),
            (
                EdgeError::Ask(RoleService::History, RpcError::InvalidReply(reason())),
                Code::Internal,
                "invalid reply from an internal service",
                None,
            ),
            (EdgeError::Token { expired: false, reason: "forged".into() }, Code::Unauthorized, "forged", None),
            (EdgeError::Token { expired: true, reason: "old".into() }, Code::TokenExpired, "old", None),
            (EdgeError::Revoked, Code::Unauthorized, "this login was revoked: log in again", None),
            (EdgeError::Stopping, Code::Unavailable, "this edge is stopping", again),
            (EdgeError::NoBeats, Code::Unavailable, "this edge is cut off from the log; try again in a moment", again),
            (
                EdgeError::OutcomeOpen,
                Code::Unavailable,
                "not known yet whether the message was stored; send the same cid again",
                again,
            ),
        ] {
            let refusal = refuse(error);
            assert_eq!(
                (refusal.code, refusal.message.as_str(), refusal.retry_after_ms),
                (code, sentence, retry_after_ms)
            );
        }
    }
}
