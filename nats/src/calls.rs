//! Questions to other roles, one function each, with the type of the answer. Which variant of a request goes with
//! which of an answer is known here alone.

pub mod directory;
pub mod history;

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{rpc::RpcError, wire::client::Nats};

/// A question that may be asked again and again: its subject, the request, and what of the answers `W` is one to it.
#[derive(Debug, Clone)]
pub struct RpcCall<Q, W, A> {
    subject: &'static str,
    request: Q,
    answer: fn(W) -> Option<A>,
}

impl Nats {
    pub async fn call<Q, W, A>(&self, call: &RpcCall<Q, W, A>, timeout: Duration) -> Result<A, RpcError>
    where
        Q: Serialize,
        W: DeserializeOwned,
    {
        let answer: W = self.request(call.subject, &call.request, timeout).await?;
        (call.answer)(answer).ok_or_else(|| RpcError::InvalidReply("it answers another question".into()))
    }
}
