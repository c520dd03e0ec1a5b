//! How far this edge has heard of threads live: what is as new as that may be shown in a list, for whatever comes later
//! comes live, too.

use natterjack_nats::Layout;
use natterjack_protocol::{Thread, UserId, internal::rpc::HeardOf};

use crate::{
    clock::Clock,
    live::{LiveHandle, event::TopicKey},
};

#[derive(Clone)]
pub struct HeardThreads {
    live: LiveHandle,
    clock: Clock,
    layout: Layout,
}

impl HeardThreads {
    pub fn new(live: &LiveHandle, clock: &Clock, layout: Layout) -> Self {
        Self { live: live.clone(), clock: clock.clone(), layout }
    }

    /// In the order of the question. None: nothing can be said, and the log is to be asked.
    pub async fn of(&self, reader: &UserId, threads: &[Thread]) -> Vec<Option<HeardOf>> {
        let topics = threads.iter().map(|thread| (TopicKey::of(thread, reader), thread.clone()));
        // It ends.
        let Ok(heard) = self.live.heard(topics.collect()).await else { return vec![None; threads.len()] };
        // While a partition is silent, what is in its log may not have come here.
        let beats = |thread: &Thread| self.clock.alive(self.layout.partition(thread));
        heard.into_iter().zip(threads).map(|(heard, thread)| heard.filter(|_| beats(thread))).collect()
    }
}
