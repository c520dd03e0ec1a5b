//! Requests to other roles, in MessagePack; `calls` gives them types, `service` answers them.

use std::time::Duration;

use natterjack_protocol::{Refusal, internal::rpc::Reply};
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
    #[error("the request was not sent: {0}")]
    NotSent(String),
    #[error("invalid reply: {0}")]
    InvalidReply(String),
}

impl From<NatsRequestError> for RpcError {
    fn from(e: NatsRequestError) -> Self {
        match e {
            NatsRequestError::Timeout => Self::Timeout,
            NatsRequestError::NoResponders => Self::NoResponders,
            NatsRequestError::NotSent(s) => Self::NotSent(s),
            NatsRequestError::TooLarge(s) => Self::TooLarge(s),
        }
    }
}

impl Nats {
    /// A request to another role, in MessagePack.
    pub async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: &str,
        q: &Q,
        timeout: Duration,
    ) -> Result<A, RpcError> {
        let payload = rmp_serde::to_vec_named(q).map_err(|e| RpcError::NotSent(e.to_string()))?;
        let message = self.inbox().request(subject, None, payload.into(), timeout).await?;
        match rmp_serde::from_slice::<Reply<A>>(&message.payload).map_err(|e| RpcError::InvalidReply(e.to_string()))? {
            Reply::Ok(answer) => Ok(answer),
            Reply::Refused(refusal) => Err(RpcError::Refused(refusal)),
            Reply::Busy => Err(RpcError::Full),
        }
    }
}
