//! Step 2: may this user write into this thread? Known without a look-up where the user has a session; a conversation
//! of two begins here.

use std::sync::Arc;

use natterjack_protocol::{
    Body, Code, Kind, Refusal, Thread, limits,
    log::fold::{self, ThreadItem},
};

use super::log_condition::LogCondition;
use crate::{
    control::{ControlAppender, ThreadChange},
    members::UserState,
    people::People,
};

pub struct Membership {
    pub people: People,
    pub control: ControlAppender,
    pub log: LogCondition,
}

impl Membership {
    /// Takes all of the user's threads from the leader: no signal keeps them fresh where the user has no session.
    pub async fn load(&self, state: &UserState) -> Result<(), Refusal> {
        state.load(self.people.threads(&state.user).await?);
        Ok(())
    }

    /// May this user write here? A thread unknown to this edge is asked for at the leader; an unknown DM begins.
    pub async fn may_send(&self, state: &Arc<UserState>, thread: &Thread) -> Result<(), Refusal> {
        let known = state.item(thread);
        if known.as_ref().is_some_and(|i| !i.not_begun && fold::may_send(i).is_ok()) {
            return Ok(());
        }
        // What this edge knows may lag behind what the sender has just been told over HTTP.
        if known.is_some() || matches!(thread, Thread::Group { .. }) {
            self.refresh(state, thread).await?;
        }
        match state.item(thread) {
            Some(item) if item.not_begun => {
                fold::may_send(&item)?;
                self.start_dm(state, thread).await
            }
            Some(item) if item.blocked_by => {
                // Whoever has deleted their account takes nothing more either.
                if let Some(peer) = thread.peer(&state.user) {
                    self.people.exist(std::slice::from_ref(peer)).await?;
                }
                fold::may_send(&item)
            }
            Some(item) => fold::may_send(&item),
            None if matches!(thread, Thread::Dm { .. }) => self.start_dm(state, thread).await,
            None => Err(not_member()),
        }
    }

    /// Takes the user's item from the leader.
    async fn refresh(&self, state: &Arc<UserState>, thread: &Thread) -> Result<(), Refusal> {
        if let Some(item) = self.people.thread(&state.user, thread).await? {
            state.merge(thread, item);
        }
        Ok(())
    }

    /// The first message between two people: `dm_started` is in the log, acknowledged, before the message is published.
    async fn start_dm(&self, state: &Arc<UserState>, thread: &Thread) -> Result<(), Refusal> {
        let peer = thread.peer(&state.user).ok_or_else(not_member)?;
        self.log.may_publish(thread, self.log.layout.partition(thread))?;
        let theirs = self.people.thread_with_room(peer, thread, limits::USER_THREADS_BY_OTHERS).await?;
        // They may have blocked, or begun, before this edge heard of it.
        if theirs.is_some_and(|item| item.blocks) {
            return Err(Refusal::new(Code::Blocked, "this person does not take messages from you"));
        }
        let change = ThreadChange {
            thread: thread.clone(),
            actor: state.user.clone(),
            kind: Kind::DmStarted,
            body: Body::default(),
            cid: None,
        };
        match self.control.append(&change).await {
            Ok(id) => {
                // A block that ended may have left an item.
                let known = state.item(thread).unwrap_or_default();
                let mut item = ThreadItem { v: id, not_begun: false, known: None, ..known };
                item.intervals.enter(id);
                state.merge(thread, item);
                Ok(())
            }
            Err(e) if e.code == Code::Conflict => {
                self.refresh(state, thread).await?;
                state.item(thread).map_or(Err(e), |item: ThreadItem| fold::may_send(&item))
            }
            Err(e) => Err(e),
        }
    }
}

fn not_member() -> Refusal {
    Refusal::new(Code::NotMember, "you are not in this thread")
}
