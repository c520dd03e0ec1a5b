//! How far this edge has heard of threads live: what is as new as that may be shown in a list to a session that is
//! subscribed to them, for whatever comes later comes to it live.

use natterjack_nats::Layout;
use natterjack_protocol::{UserId, internal::rpc::AskedThread};

use crate::{
    clock::Clock,
    live::{LiveHandle, event::TopicKey},
    sessions::handle::SessionId,
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

    /// Where nothing can be said, the log is to be asked.
    pub async fn tell(&self, session: SessionId, reader: &UserId, threads: &mut [AskedThread]) {
        let topics = threads.iter().map(|asked| (TopicKey::of(&asked.thread, reader), asked.thread.clone()));
        // It ends.
        let Ok(heard) = self.live.heard(session, topics.collect()).await else { return };
        // While a partition is silent, what is in its log may not have come here.
        let beats: Vec<bool> = (0..self.layout.partitions).map(|p| self.clock.alive(p)).collect();
        for (asked, heard) in threads.iter_mut().zip(heard) {
            asked.heard = heard.filter(|_| beats[self.layout.partition(&asked.thread) as usize]);
        }
    }
}
