//! Step 5, the dispatcher's jobs, done with history, buckets and the client's own reading.

use std::{sync::Arc, time::Duration};

use natterjack_protocol::{
    Refusal, Thread, UserId,
    log::fold::{ThreadItem, UserThreads},
};

use super::repair;
use crate::{
    attach::Attach,
    history::HistoryClient,
    live::{
        event::{Gap, LiveEvent},
        jobs::Jobs,
    },
    sessions::handle::SessionHandle,
};

#[derive(Clone)]
pub struct DispatcherJobs {
    pub attach: Attach,
    pub history: HistoryClient,
    /// How long a gap may take.
    pub deadline: Duration,
}

impl Jobs for DispatcherJobs {
    async fn fetch(&self, gap: &Gap) -> Result<Vec<LiveEvent>, Refusal> {
        repair::fetch(&self.history, gap, self.deadline).await
    }

    async fn read_threads(&self, user: &UserId) -> Result<UserThreads, Refusal> {
        self.attach.read_threads(user).await
    }

    async fn join(&self, session: &Arc<SessionHandle>, thread: &Thread, item: &ThreadItem) {
        self.attach.join(session, thread, item).await;
    }
}
