//! Membership is decided by the log, at append (docs/guarantees.md). An edge judges on the state at the thread's last
//! control entry and appends on the condition that this still is the last one: of two admins racing exactly one wins,
//! the other judges again.

use std::time::Duration;

use natterjack_nats::{PublishError, Publisher, ThreadLog};
use natterjack_protocol::{
    Body, Cid, Code, Entry, Kind, MsgId, Refusal, Thread, Times, UserId,
    cid::Age,
    limits,
    log::fold::{self, GroupState, ThreadItem, Verdict},
};
use tokio::time::{Instant, sleep};

use crate::{clock::Clock, people::People, refusals::refuse};

/// Races lost in a row before giving up: with n admins at once, n - 1 at most.
const TRIES: u32 = 12;
/// How long `channel` may take to fold an entry that is in the log (20–60 ms for a group of 500).
const FOLD: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub struct ControlAppender {
    log: ThreadLog,
    publisher: Publisher,
    people: People,
    clock: Clock,
    times: Times,
    max_members: usize,
}

/// One change of a thread that somebody asks for.
#[derive(Debug, Clone)]
pub struct ThreadChange {
    pub thread: Thread,
    pub actor: UserId,
    pub kind: Kind,
    pub body: Body,
    /// The client's, of a group that is made: the thread is made of it, too. None: one for this attempt alone.
    pub cid: Option<Cid>,
}

/// What a change is judged on.
enum State {
    Group(Option<GroupState>),
    Dm(Option<ThreadItem>),
}

impl State {
    /// The last control entry folded into it.
    fn version(&self) -> MsgId {
        match self {
            Self::Group(g) => g.as_ref().map_or(MsgId::NONE, |g| g.version),
            Self::Dm(i) => i.as_ref().map_or(MsgId::NONE, |i| i.v),
        }
    }
}

impl ControlAppender {
    pub fn new(
        log: ThreadLog,
        publisher: &Publisher,
        people: &People,
        clock: &Clock,
        times: &Times,
        max_members: usize,
    ) -> Self {
        Self {
            log,
            publisher: publisher.clone(),
            people: people.clone(),
            clock: clock.clone(),
            times: times.clone(),
            max_members,
        }
    }

    /// Returns once it is so: the id of the control entry in the log, or, if it was so already, of the one it has been
    /// so with. Dropping the future leaves the outcome open; whoever asks again, through any edge, makes no second
    /// change.
    pub async fn append(&self, change: &ThreadChange) -> Result<MsgId, Refusal> {
        fold_limit(change)?;
        let (look, ahead) = self.is_old(change);
        let op = change.cid.unwrap_or_else(|| Cid::mint(self.clock.any_now_ms(), rand::random()));
        let msg_id = op.dedupe_id(&change.thread, &change.actor);
        let mut have_room = false;
        for _ in 0..TRIES {
            let (last, guard) = self.last(&change.thread).await?;
            if let Some(id) = last.filter(|l| l.op == Some(op)).map(|l| l.id) {
                return Ok(id);
            }
            let newest = last.map_or(MsgId::NONE, |l| l.id);
            let state = self.state_at(change, newest, look).await?;
            if state.version() > newest && last.is_some() {
                // Somebody appended between the two reads.
                continue;
            }
            if let (Some(now), true) = (ahead, state.version().is_none()) {
                return Err(clock_ahead(now).with_cid(op));
            }
            let body = match self.judge(&state, change)? {
                Verdict::Already(id) => return Ok(id),
                Verdict::Change(body) => body,
            };
            if !have_room && matches!(change.kind, Kind::GroupCreated | Kind::MemberAdded | Kind::DmStarted) {
                self.have_room(change, &body.users).await?;
                have_room = true;
            }
            let payload = Entry::new(change.actor.clone(), op, change.kind, body).encode();
            match self.publisher.control(&change.thread, &msg_id, payload, guard).await {
                Ok(stored) => return Ok(stored.id),
                Err(PublishError::Conflict) => {
                    if let Some(id) = self.stored(&change.thread, newest, op).await? {
                        return Ok(id);
                    }
                    metrics::counter!(crate::metrics::CONTROL_CONFLICTS).increment(1);
                }
                Err(PublishError::Deadline(why)) => {
                    return self.stored(&change.thread, newest, op).await?.ok_or_else(|| {
                        tracing::warn!(thread = %change.thread, why, "a control entry was not acknowledged");
                        Refusal::unavailable("the log did not answer; ask for the same again, it is done once")
                    });
                }
                Err(e) => return Err(refuse(e)),
            }
        }
        Err(Refusal::unavailable("too many changes of this thread at once; try again"))
    }

    /// What strangers do must leave somebody room for what they do themself.
    async fn have_room(&self, change: &ThreadChange, users: &[UserId]) -> Result<(), Refusal> {
        let (own, others): (Vec<_>, Vec<_>) = users.iter().cloned().partition(|u| *u == change.actor);
        let own = if change.kind == Kind::MemberAdded { own } else { vec![change.actor.clone()] };
        self.people.have_room(own, &change.thread, limits::USER_THREADS).await?;
        self.people.have_room(others, &change.thread, limits::USER_THREADS_BY_GROUPS).await
    }

    /// May the log have forgotten an earlier attempt under this cid? And the log's time if it is ahead of it: then
    /// nothing is made under it, but something may have been. The rule of messages, so that one clock serves clients
    /// for both.
    fn is_old(&self, change: &ThreadChange) -> (bool, Option<u64>) {
        let Some(cid) = change.cid else { return (false, None) };
        let p = self.log.layout().partition(&change.thread);
        let Some((now, since)) = self.clock.now_ms(p).zip(self.clock.dedupe_since_ms(p)) else { return (true, None) };
        match cid.age(now, since, &self.times) {
            Age::Ahead => (true, Some(now)),
            age => (age == Age::Old, None),
        }
    }

    /// Waits until the fold has reached `applied`, so that who asks next sees it; false: it goes on without us.
    pub async fn folded(&self, thread: &Thread, actor: &UserId, applied: MsgId) -> bool {
        let end = Instant::now() + FOLD;
        loop {
            if let Ok(state) = self.state(thread, actor).await
                && state.version() >= applied
                && self.actor_agrees(thread, actor, &state).await
            {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// A group is folded before its members' own keys, and a send is judged on those.
    async fn actor_agrees(&self, thread: &Thread, actor: &UserId, state: &State) -> bool {
        let State::Group(Some(group)) = state else { return true };
        let Some(wanted) = group.item(actor) else { return true };
        let own = self.people.thread(actor, thread).await.ok().flatten();
        own.is_some_and(|own| (own.intervals, own.role) == (wanted.intervals, wanted.role))
    }

    /// The thread's last control entry, and the condition for the next one: the last in the stream that it goes to.
    async fn last(&self, thread: &Thread) -> Result<(Option<Last>, MsgId), Refusal> {
        let (record, guard) = self.log.last_control(thread).await.map_err(refuse)?;
        Ok((record.map(|r| Last { id: r.id, op: Entry::decode(&r.payload).ok().map(|e| e.cid) }), guard))
    }

    /// The entry of this `op` after `after`, if there is one: an attempt may have been stored and its answer lost, and
    /// others may have come behind it. Judged again it would be a second change, or none and answered with theirs.
    async fn stored(&self, thread: &Thread, mut after: MsgId, op: Cid) -> Result<Option<MsgId>, Refusal> {
        while let Some(record) = self.log.next_control(thread, after).await.map_err(refuse)? {
            if Entry::decode(&record.payload).is_ok_and(|e| e.cid == op) {
                return Ok(Some(record.id));
            }
            after = record.id;
        }
        Ok(None)
    }

    async fn state(&self, thread: &Thread, actor: &UserId) -> Result<State, Refusal> {
        Ok(match thread {
            Thread::Group { gid } => State::Group(self.people.group(gid).await?),
            Thread::Dm { .. } => State::Dm(self.people.thread(actor, thread).await?),
        })
    }

    /// The state with everything folded up to `expected`; a group whose key was lost is rebuilt. `look`: also one that
    /// is about to be made.
    async fn state_at(&self, change: &ThreadChange, expected: MsgId, look: bool) -> Result<State, Refusal> {
        let end = Instant::now() + FOLD;
        loop {
            let state = self.state(&change.thread, &change.actor).await?;
            let missing = matches!(state, State::Group(None)) && (change.kind != Kind::GroupCreated || look);
            if state.version() >= expected && !missing {
                return Ok(state);
            }
            if missing
                && (expected.is_none() || Instant::now() >= end)
                && let Thread::Group { gid } = &change.thread
            {
                // Nothing to wait for: never existed, or the key was lost.
                let rebuilt = State::Group(self.people.group_or_rebuild(gid).await?);
                if rebuilt.version() >= expected {
                    return Ok(rebuilt);
                }
            }
            if Instant::now() >= end {
                return Err(Refusal::unavailable(
                    "an earlier change of this thread is still being worked in; try again in a moment",
                ));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn judge(&self, state: &State, change: &ThreadChange) -> Result<Verdict, Refusal> {
        match state {
            State::Group(group) => {
                fold::judge_group(group.as_ref(), &change.actor, change.kind, &change.body, self.max_members)
            }
            State::Dm(item) => fold::judge_dm(item.as_ref(), change.kind),
        }
    }

    /// How long a change may take at most: a publish until its deadline, and what comes before it.
    pub fn deadline(&self) -> Duration {
        self.times.publish_deadline + FOLD * 2
    }
}

#[derive(Clone, Copy)]
struct Last {
    id: MsgId,
    op: Option<Cid>,
}

/// Before 10,000 names are looked up one by one.
fn fold_limit(change: &ThreadChange) -> Result<(), Refusal> {
    let max = limits::USERS_PER_CHANGE;
    if change.body.users.len() > max {
        Err(Refusal::invalid(format!("users: at most {max} in one change")))
    } else {
        Ok(())
    }
}

/// A cid whose timestamp is ahead of the log's clock.
pub fn clock_ahead(now_ms: u64) -> Refusal {
    Refusal {
        now_ms: Some(now_ms),
        ..Refusal::new(Code::ClockAhead, "the cid's timestamp is ahead of the server: mint it in the server's time")
    }
}
