//! Step 5, membership: which sessions listen to which groups follows from the users' keys, which are read again at each
//! `member` signal.

use std::{collections::HashSet, sync::Arc, time::Duration};

use natterjack_protocol::{GroupId, MsgId, Thread, UserId, log::fold::ThreadItem};
use tokio::time::sleep;

use super::{Dispatcher, JobResult};
use crate::{
    live::{event::TopicKey, feed::Feed, heads_batch::HeadsWaiter, jobs::Jobs},
    members::{Reading, UserState, member_frame},
    sessions::handle::SessionHandle,
};

/// How often a key is read until it knows what was signalled, each time 50 ms later, up to 550 ms: 8 s in all.
const READS: u32 = 20;

impl<F: Feed, J: Jobs> Dispatcher<F, J> {
    /// A `member` signal: control entry `id` has changed the user's membership of `thread`.
    pub(super) fn membership_changed(&mut self, user: UserId, thread: String, id: MsgId) {
        let Some(state) = self.with.members.get(&user) else { return };
        state.signalled();
        // Every signal is sent twice.
        if !thread.parse().is_ok_and(|t| state.knows(&t, id)) {
            self.reload(user, Some((thread, id)), None);
        }
    }

    /// Reads a user's key from its leader; `at_least`: it must know this control entry of this thread.
    pub(super) fn reload(&mut self, user: UserId, at_least: Option<(String, MsgId)>, expelled: Option<GroupId>) {
        let Some(state) = self.with.members.get(&user) else { return };
        state.signalled();
        let (jobs, reading) = (self.with.jobs.clone(), Reading::of(state));
        self.running.spawn(async move {
            for attempt in 0..READS {
                match jobs.read_threads(&user).await {
                    Ok(threads) => {
                        let reaches = |(t, id): &(String, MsgId)| {
                            threads.threads.iter().any(|(k, i)| i.v >= *id && k.to_string() == *t)
                        };
                        let knows = at_least.as_ref().is_none_or(reaches);
                        reading.load(threads);
                        if knows {
                            break;
                        }
                    }
                    Err(e) => tracing::debug!(%user, error = %e, "the threads of a user cannot be read"),
                }
                sleep(Duration::from_millis(50 * u64::from(attempt.min(10) + 1))).await;
            }
            JobResult::Changed { reading, expelled }
        });
    }

    /// After a loss of the connection anything may have been missed, a new thread too.
    pub(super) fn reload_everybody(&mut self) {
        for state in self.with.members.all() {
            self.reload(state.user.clone(), None, None);
        }
        self.compare_everything();
    }

    /// A user's key was read again: tells their devices what changed, subscribes and unsubscribes their sessions.
    pub(super) fn user_reloaded(&mut self, state: &Arc<UserState>, expelled: Option<GroupId>) {
        let user = &state.user;
        let own = TopicKey::User(user.clone());
        let sessions: Vec<Arc<SessionHandle>> = self.topics.sessions_of(&own);
        let untold = state.untold();
        // What was said in a conversation that began while nothing came here (a lost connection, a lost message) is not
        // lost.
        let begun: Vec<_> = untold
            .iter()
            .filter(|(t, ..)| matches!(t, Thread::Dm { .. }))
            .map(|(t, ..)| (own.clone(), t.clone()))
            .collect();
        let conversations = !begun.is_empty();
        if conversations && !sessions.is_empty() {
            self.heads.wait(HeadsWaiter { slots: Vec::new(), threads: begun, everywhere: false, reply: None });
        }
        if conversations {
            // One of them may have been blocked.
            self.with.presence.blocks_changed(user);
        }
        for (thread, item, audible) in &untold {
            if *audible {
                let frame = member_frame(thread, item);
                sessions.iter().for_each(|s| s.frame(&frame));
            }
        }
        let changed = untold.into_iter().map(|(t, ..)| t).chain(expelled.map(|gid| Thread::group(&gid)));
        let groups: HashSet<Thread> = changed.filter(|t| matches!(t, Thread::Group { .. })).collect();
        for thread in groups {
            let Some(item) = state.item(&thread) else { continue };
            // A session that still attaches follows when it goes live.
            for session in
                sessions.iter().filter(|s| !self.topics.is_catching_up(s.id, &own)).cloned().collect::<Vec<_>>()
            {
                self.follow_membership(&session, &thread, &item);
            }
        }
    }

    /// A session subscribes to a group's topic as long as its user is in the group.
    pub(super) fn follow_membership(&mut self, session: &Arc<SessionHandle>, thread: &Thread, item: &ThreadItem) {
        let Thread::Group { gid } = thread else { return };
        if let Some(until) = item.intervals.0.last().and_then(|i| i.until) {
            self.topics.end(session.id, gid, until);
        } else if item.intervals.open() && !self.topics.is_subscribed(session.id, &TopicKey::Group(gid.clone())) {
            let (jobs, session, thread, item) = (self.with.jobs.clone(), session.clone(), thread.clone(), item.clone());
            let joining = session.joins();
            self.running.spawn(async move {
                jobs.join(&session, &thread, &item).await;
                drop(joining);
                JobResult::Nothing
            });
        }
    }
}
