//! Asking `history`: any instance answers from archive and log together. No answer is a retryable refusal, never a guess.

use std::time::Duration;

use natterjack_nats::{Nats, connect::RpcError, subjects};
use natterjack_protocol::{
    Refusal,
    rpc::{HistoryAnswer, HistoryRequest},
};
use tokio::time::{Instant, sleep};

/// A page takes milliseconds, a slow archive may take a second.
const ONE_TRY: Duration = Duration::from_millis(1_500);

#[derive(Clone)]
pub struct HistoryClient {
    nats: Nats,
    deadline: Duration,
}

impl HistoryClient {
    /// `deadline`: how long to wait for an instance to appear and to answer.
    pub fn new(nats: Nats, deadline: Duration) -> Self {
        Self { nats, deadline }
    }

    pub async fn ask(&self, request: HistoryRequest) -> Result<HistoryAnswer, Refusal> {
        let end = Instant::now() + self.deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.nats.request(subjects::HISTORY, &request, left.min(ONE_TRY)).await {
                Ok(answer) => return Ok(answer),
                Err(RpcError::Refused(refusal)) => return Err(refusal),
                // An instance that is being replaced is back within seconds.
                Err(RpcError::NoResponders) if left > Duration::from_millis(200) => sleep(Duration::from_millis(100)).await,
                // A frozen instance takes its share of the questions until NATS notices: the next try may reach another.
                Err(RpcError::Timeout) if left > ONE_TRY => {}
                Err(e) => {
                    tracing::debug!(error = %e, "history does not answer");
                    return Err(Refusal::unavailable("history does not answer: try again in a moment"));
                }
            }
        }
    }
}
