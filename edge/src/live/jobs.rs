//! Step 5, what the dispatcher has others do: each of these waits for the archive, a bucket or a client, so none runs
//! in its own task.

use std::sync::Arc;

use natterjack_protocol::{
    Refusal, Thread, UserId,
    log::fold::{ThreadItem, UserThreads},
};

use super::event::{Gap, LiveEvent};
use crate::sessions::handle::SessionHandle;

pub trait Jobs: Clone + Send + Sync + 'static {
    /// The events of a gap, oldest first, or a first part of them. An error: they could not be read in time.
    fn fetch(&self, gap: &Gap) -> impl Future<Output = Result<Vec<LiveEvent>, Refusal>> + Send;

    /// The user's threads as the leader of their key has them.
    fn read_threads(&self, user: &UserId) -> impl Future<Output = Result<UserThreads, Refusal>> + Send;

    /// A session that is live joins a group: subscribes, gets the page since it joined, goes live. Closes the session
    /// if that fails.
    fn join(&self, session: &Arc<SessionHandle>, thread: &Thread, item: &ThreadItem)
    -> impl Future<Output = ()> + Send;
}
