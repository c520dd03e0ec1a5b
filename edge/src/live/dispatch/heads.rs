//! Step 5, heads: asks the holders of the partitions, judges their answers, and compares what they know with what came
//! here.

use std::{collections::HashSet, sync::Arc, time::Duration};

use natterjack_nats::subjects;
use natterjack_protocol::{
    Thread,
    internal::rpc::{Heads, HeadsAnswer, Reply},
};
use tokio::time::{Instant, sleep};

use super::{Dispatcher, JobResult};
use crate::{
    live::{
        event::TopicKey,
        feed::Feed,
        heads_batch::{HeadsRequest, HeadsWaiter},
        jobs::Jobs,
    },
    members::UserState,
};

/// The pause before a request that was answered by nobody, or by the wrong holder, is sent again.
const HEADS_PAUSE: Duration = Duration::from_millis(100);

impl<F: Feed, J: Jobs> Dispatcher<F, J> {
    pub(super) fn heads_answer(&mut self, token: u64, payload: &[u8], no_responders: bool) {
        let answer = if no_responders { None } else { rmp_serde::from_slice::<Reply<HeadsAnswer>>(payload).ok() };
        let Some(Reply::Ok(answer)) = answer else {
            // Between two holders of the partition: the next one answers. Those who wait have a deadline of their own.
            self.ask_again(token);
            return;
        };
        if let Some(p) = self.heads.partition(token) {
            // A beat, too, says what some holder has published, also of threads that nobody here has.
            let beaten = self.with.clock.frontier(p).is_none_or(|known| known <= answer.frontier);
            let covers = beaten && self.topics.covered_by(p, answer.frontier);
            if !self.doubts.accepts(p, covers, Instant::now()) {
                metrics::counter!(crate::metrics::STALE_HEADS).increment(1);
                self.ask_again(token);
                return;
            }
        }
        if let Some(answer) = self.heads.answered(token, &answer) {
            let (p, horizon) = (answer.p, answer.horizon);
            if let Some(whole) = self.doubts.compared(p, horizon) {
                tracing::warn!(
                    partition = p, %whole, %horizon,
                    "beats were missing for longer than channel remembers heads; all sessions resume from their cursors"
                );
                self.topics.give_up_all();
            }
            self.topics.attached(&answer.slots, p, answer.frontier);
            for (key, thread, head) in answer.heads {
                self.topics.head(&key, &thread, head);
            }
        }
        for (reply, barrier) in self.heads.finished() {
            // A session that has ended does not wait for it any more.
            let _ = reply.send(barrier);
        }
    }

    fn ask_again(&mut self, token: u64) {
        self.running.spawn(async move {
            sleep(HEADS_PAUSE).await;
            JobResult::AskAgain(token)
        });
    }

    pub(super) fn ask(&mut self, request: HeadsRequest) {
        let payload = rmp_serde::to_vec_named(&Heads { threads: request.hashes.clone() }).expect("a list of numbers");
        let token = self.with.feed.request(&subjects::heads(self.with.generation, request.p), &payload);
        self.heads.sent(token, request);
    }

    /// Compares the heads of everything that somebody here is in, at once.
    pub(super) fn compare_everything(&mut self) {
        self.compare_heads(self.with.members.all(), self.topics.active());
    }

    pub(super) fn compare_heads(&mut self, users: Vec<Arc<UserState>>, active: Vec<(TopicKey, Thread)>) {
        let of = |s: Arc<UserState>| {
            s.snapshot().into_iter().map(move |(t, _)| (TopicKey::of(&t, &s.user), t)).collect::<Vec<_>>()
        };
        let threads: HashSet<_> = users.into_iter().flat_map(of).chain(active).collect();
        if !threads.is_empty() {
            // Every partition: one that was silent must have answered before it is trusted again.
            self.heads.wait(HeadsWaiter {
                slots: Vec::new(),
                threads: threads.into_iter().collect(),
                everywhere: true,
                reply: None,
            });
        }
    }
}
