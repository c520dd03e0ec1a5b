//! Asking `history`: any instance answers from archive and log together. No answer is a retryable refusal, never a
//! guess.

use std::{sync::Arc, time::Duration};

use natterjack_nats::{Nats, RpcError, calls::history::HistoryCall};
use natterjack_protocol::Refusal;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};

use crate::refusals::{EdgeError, RoleService, refuse};

/// A page takes milliseconds, a slow archive may take a second.
const ONE_TRY: Duration = Duration::from_millis(1_500);
/// Questions of an edge under way that have a whole crowd behind them: everybody who was on an edge that died attaches
/// here at once.
const IN_TURN: usize = 24;
/// All instances are full. Doubled each time, up to half a second.
const FULL: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub struct HistoryClient {
    nats: Nats,
    deadline: Duration,
    places: Arc<Semaphore>,
}

impl HistoryClient {
    /// `deadline`: how long to wait for an instance to appear, to have room and to answer.
    pub fn new(nats: Nats, deadline: Duration) -> Self {
        Self { nats, deadline, places: Arc::new(Semaphore::new(IN_TURN)) }
    }

    pub async fn ask<A>(&self, call: HistoryCall<A>) -> Result<A, Refusal> {
        self.ask_until(call, Instant::now() + self.deadline).await
    }

    /// Behind those who came before: a crowd waits here, where it costs nobody anything, and not in front of who
    /// repairs or sends again.
    pub async fn ask_in_turn<A>(&self, call: HistoryCall<A>) -> Result<A, Refusal> {
        let end = Instant::now() + self.deadline;
        match timeout_at(end, self.places.acquire()).await {
            Ok(Ok(_place)) => self.ask_until(call, end).await,
            _ => Err(failed(RpcError::Full)),
        }
    }

    async fn ask_until<A>(&self, call: HistoryCall<A>, end: Instant) -> Result<A, Refusal> {
        let mut full = FULL;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.nats.call(&call, left.min(ONE_TRY)).await {
                Ok(answer) => return Ok(answer),
                Err(RpcError::Full) if left > full => {
                    sleep(full.mul_f64(rand::random_range(0.5..1.0))).await;
                    full = (full * 2).min(Duration::from_millis(500));
                }
                // An instance that is being replaced is back within seconds.
                Err(RpcError::NoResponders) if left > Duration::from_millis(200) => {
                    sleep(Duration::from_millis(100)).await
                }
                // A frozen instance takes its share of the questions until NATS notices: the next try may reach
                // another.
                Err(RpcError::Timeout) if left > ONE_TRY => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }
}

/// An answer of the right type that cannot be one to what was asked.
pub fn invalid_reply(why: &str) -> Refusal {
    failed(RpcError::InvalidReply(why.to_owned()))
}

fn failed(e: RpcError) -> Refusal {
    refuse(EdgeError::Ask(RoleService::History, e))
}
