//! Requests to other roles, in MessagePack; `service` answers them.

use std::time::Duration;

use natterjack_protocol::{Code, Refusal, internal::rpc::Reply};
use serde::{Serialize, de::DeserializeOwned};

use crate::wire::{client::Nats, inbox::NatsRequestError};

/// An answer that is not what was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RpcError {
    #[error("nobody answers requests of this kind now")]
    NoResponders,
    #[error("no answer in time")]
    Timeout,
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("too many requests at once")]
    Full,
    #[error("the request is too large: {0}")]
    TooLarge(String),
    #[error("{0}")]
    Broken(String),
}

impl From<NatsRequestError> for RpcError {
    fn from(e: NatsRequestError) -> Self {
        match e {
            NatsRequestError::Timeout => Self::Timeout,
            NatsRequestError::NoResponders => Self::NoResponders,
            NatsRequestError::NotSent(s) => Self::Broken(s),
            NatsRequestError::TooLarge(s) => Self::TooLarge(s),
        }
    }
}

impl From<RpcError> for Refusal {
    fn from(e: RpcError) -> Self {
        match e {
            RpcError::Refused(refusal) => refusal,
            RpcError::Full => Refusal::unavailable("too many requests at once; try again"),
            RpcError::TooLarge(_) => Refusal::new(Code::Internal, "a part of the system was asked for too much; the operator has to look"),
            RpcError::NoResponders | RpcError::Timeout => Refusal::unavailable("a part of the system does not answer; try again"),
            RpcError::Broken(_) => Refusal::unavailable("a part of the system answered nonsense; try again"),
        }
    }
}

impl Nats {
    /// A request to another role, in MessagePack.
    pub async fn request<Q: Serialize, A: DeserializeOwned>(&self, subject: &str, q: &Q, timeout: Duration) -> Result<A, RpcError> {
        let payload = rmp_serde::to_vec_named(q).map_err(|e| RpcError::Broken(format!("request: {e}")))?;
        let message = self.inbox().request(subject, None, payload.into(), timeout).await?;
        match rmp_serde::from_slice::<Reply<A>>(&message.payload).map_err(|e| RpcError::Broken(format!("answer: {e}")))? {
            Reply::Ok(answer) => Ok(answer),
            Reply::Refused(refusal) => Err(RpcError::Refused(refusal)),
            Reply::Busy => Err(RpcError::Full),
        }
    }
}
