//! The task that holds the presence of watched users: batches and watches in, requests to the role and frames into
//! outboxes out.
//!
//! Requests to the role and the directory run beside it. The state of every watched user is kept; that of others is
//! asked for on demand (`pull`).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use natterjack_protocol::{
    Refusal, UserId,
    client::frame::{Request, ServerFrame},
    internal::presence::{PresenceAnswer, PresenceBatch},
    limits,
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    handle::{Command, Flags, PresenceInbox},
    hearing::{Continuity, Hearing},
    source::PresenceSource,
    watching::{Standing, WatcherNumber, Watching},
};
use crate::sessions::handle::{SessionHandle, SessionId};

/// A watcher gets at most one frame in this time.
const WINDOW: Duration = Duration::from_millis(250);
/// With so many frames in a window the next one is as many times longer, up to eight times: a socket costs a write,
/// however much it is.
const FRAMES_PER_WINDOW: usize = 500;
const LONGEST: u32 = 8;
/// Questions to the role under way.
const ASKS: usize = 16;
/// Before a question that was not answered is asked again, and the directory.
const AGAIN: Duration = Duration::from_millis(500);
const DIRECTORY_AGAIN: Duration = Duration::from_secs(3);
/// How often silence and sessions that have gone are looked for.
const LOOK: Duration = Duration::from_millis(500);

/// What runs beside the desk came back.
enum JobResult {
    Asked { shard: u32, users: Vec<UserId>, answer: Result<PresenceAnswer, Refusal> },
    AskAgain { shard: u32, users: Vec<UserId> },
    Contacts { session: SessionId, contacts: Result<HashSet<UserId>, Refusal> },
    ReadContacts { session: SessionId },
}

struct Watcher {
    number: WatcherNumber,
    handle: Arc<SessionHandle>,
}

struct Desk<S> {
    source: S,
    flags: Arc<Flags>,
    hearing: Hearing,
    watching: Watching<Arc<SessionHandle>>,
    watchers: HashMap<SessionId, Watcher>,
    by_user: HashMap<UserId, Vec<SessionId>>,
    /// Users to be asked for, by shard.
    to_ask: HashMap<u32, Vec<UserId>>,
    asking: usize,
    jobs: JoinSet<JobResult>,
    /// When news may go out again.
    window: Instant,
}

/// Runs until `stop` is cancelled.
pub async fn run<S: PresenceSource>(source: S, silence: Duration, inbox: PresenceInbox, stop: CancellationToken) {
    let PresenceInbox { mut commands, flags } = inbox;
    let hearing = Hearing::new(source.shards(), silence);
    let mut desk = Desk {
        source,
        flags,
        hearing,
        watching: Watching::default(),
        watchers: HashMap::new(),
        by_user: HashMap::new(),
        to_ask: HashMap::new(),
        asking: 0,
        jobs: JoinSet::new(),
        window: Instant::now(),
    };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        desk.ask();
        let window = desk.window;
        tokio::select! {
            () = stop.cancelled() => return,
            Some(command) = commands.recv() => desk.command(command),
            Some(result) = desk.jobs.join_next(), if !desk.jobs.is_empty() => match result {
                Ok(result) => desk.job_ended(result),
                Err(e) => tracing::error!(error = %e, "a job of presence panicked"),
            },
            _ = look.tick() => desk.look(),
            () = sleep_until(window), if desk.watching.has_news() => desk.tell(),
        }
    }
}

impl<S: PresenceSource> Desk<S> {
    fn command(&mut self, command: Command) {
        match command {
            // A job may still watch for a session that has gone.
            Command::Watch { session, .. } if session.gone.load(Relaxed) => {}
            Command::Watch { session, users, contacts, r } => self.watch(session, users, contacts, r),
            Command::Leave(session) => self.leave(session),
            Command::Batch(payload) => self.batch(&payload),
            Command::ContactsChanged(user) => {
                for session in self.by_user.get(&user).cloned().unwrap_or_default() {
                    self.read_contacts(session);
                }
            }
            Command::BlocksChanged(user) => {
                for session in self.by_user.get(&user).into_iter().flatten() {
                    let Some(Watcher { number, handle }) = self.watchers.get(session) else { continue };
                    let standing =
                        |other: &UserId, before| Standing { blocked: handle.state.blocked_with(other), ..before };
                    self.watching.relate(*number, standing);
                }
            }
        }
    }

    fn watch(
        &mut self,
        session: Arc<SessionHandle>,
        users: Vec<UserId>,
        contacts: Result<HashSet<UserId>, Refusal>,
        r: Request,
    ) {
        self.leave(session.id);
        let (known, id) = (contacts.as_ref().ok(), session.id);
        let standing = |other: &UserId| Standing {
            contact: known.is_some_and(|contacts| contacts.contains(other)),
            blocked: session.state.blocked_with(other),
            own: session.user == *other,
        };
        let users = users.into_iter().map(|user| {
            let (shard, standing) = (self.source.shard(&user), standing(&user));
            (user, shard, standing)
        });
        let (number, new) = self.watching.watch(session.clone(), users.collect::<Vec<_>>());
        for (shard, user) in new {
            self.to_ask.entry(shard).or_default().push(user);
        }
        let all = self.watching.all(number, |shard| self.hearing.is_silent(shard));
        session.frame(&ServerFrame::Presence { r: Some(r), users: all });
        self.by_user.entry(session.user.clone()).or_default().push(id);
        self.watchers.insert(id, Watcher { number, handle: session });
        if contacts.is_err() {
            self.read_contacts_later(id);
        }
    }

    fn leave(&mut self, session: SessionId) {
        let Some(Watcher { number, handle }) = self.watchers.remove(&session) else { return };
        self.watching.leave(number);
        if let Some(sessions) = self.by_user.get_mut(&handle.user) {
            sessions.retain(|s| *s != session);
            if sessions.is_empty() {
                self.by_user.remove(&handle.user);
            }
        }
    }

    fn batch(&mut self, payload: &[u8]) {
        let batch = match rmp_serde::from_slice::<PresenceBatch>(payload) {
            Ok(batch) => batch,
            Err(e) => {
                tracing::warn!(error = %e, "a batch of presence is dropped: does every role run this version?");
                return;
            }
        };
        let PresenceBatch { shard, epoch, seq, users } = batch;
        let was_silent = self.hearing.is_silent(shard);
        let Some(continuity) = self.hearing.batch(shard, epoch, seq, users.is_empty(), Instant::now()) else { return };
        match continuity {
            Continuity::Whole if was_silent => self.watching.shard_changed(shard, false),
            Continuity::Whole => {}
            Continuity::Missed | Continuity::MissedInSilence => {
                metrics::counter!(crate::metrics::PRESENCE_ASKED_ANEW).increment(1);
                if continuity == Continuity::MissedInSilence {
                    self.watching.shard_changed(shard, true);
                }
                self.to_ask.insert(shard, self.watching.of_shard(shard));
            }
        }
        users.iter().for_each(|user| self.watching.hear(user, false));
    }

    /// Has the role asked for those who are new here, as many at once as may be.
    fn ask(&mut self) {
        while self.asking < ASKS
            && let Some(shard) = self.to_ask.keys().next().copied()
        {
            let Some(mut users) = self.to_ask.remove(&shard) else { continue };
            let rest = users.split_off(users.len().min(limits::WATCHED_USERS));
            if !rest.is_empty() {
                self.to_ask.insert(shard, rest);
            }
            if users.is_empty() {
                continue;
            }
            self.asking += 1;
            let source = self.source.clone();
            self.jobs.spawn(async move {
                let answer = source.ask(shard, users.clone()).await;
                JobResult::Asked { shard, users, answer }
            });
        }
    }

    fn job_ended(&mut self, result: JobResult) {
        match result {
            JobResult::Asked { shard, users, answer } => {
                self.asking -= 1;
                match answer {
                    Ok(answer) => answer.users.iter().for_each(|user| self.watching.hear(user, true)),
                    // Everybody is asked for when it speaks again.
                    Err(_) if self.hearing.is_silent(shard) => {}
                    Err(e) => {
                        tracing::debug!(shard, error = %e, "presence did not answer; it is asked again");
                        self.jobs.spawn(async move {
                            sleep(AGAIN).await;
                            JobResult::AskAgain { shard, users }
                        });
                    }
                }
            }
            JobResult::AskAgain { shard, users } => self.to_ask.entry(shard).or_default().extend(users),
            JobResult::ReadContacts { session } => self.read_contacts(session),
            JobResult::Contacts { session, contacts: Err(_) } => self.read_contacts_later(session),
            JobResult::Contacts { session, contacts: Ok(contacts) } => {
                if let Some(Watcher { number, .. }) = self.watchers.get(&session) {
                    let standing = |other: &UserId, before| Standing { contact: contacts.contains(other), ..before };
                    self.watching.relate(*number, standing);
                }
            }
        }
    }

    fn read_contacts(&mut self, session: SessionId) {
        let Some(Watcher { handle, .. }) = self.watchers.get(&session) else { return };
        let (source, user) = (self.source.clone(), handle.user.clone());
        self.jobs.spawn(async move { JobResult::Contacts { session, contacts: source.contacts(&user).await } });
    }

    fn read_contacts_later(&mut self, session: SessionId) {
        self.jobs.spawn(async move {
            sleep(DIRECTORY_AGAIN).await;
            JobResult::ReadContacts { session }
        });
    }

    fn look(&mut self) {
        if self.flags.missed_batch.swap(false, Relaxed) {
            self.hearing.lost_count();
        }
        if self.flags.missed_leave.swap(false, Relaxed) {
            let gone = self.watchers.iter().filter(|(_, w)| w.handle.gone.load(Relaxed)).map(|(id, _)| *id);
            gone.collect::<Vec<_>>().into_iter().for_each(|session| self.leave(session));
        }
        for shard in self.hearing.fallen_silent(Instant::now()) {
            tracing::warn!(
                shard,
                "nothing is heard of who is here in this shard: does presence run? they are shown as unknown"
            );
            self.watching.shard_changed(shard, false);
        }
        let (users, watchers, pairs) = self.watching.sizes();
        metrics::gauge!(crate::metrics::PRESENCE_USERS).set(users as f64);
        metrics::gauge!(crate::metrics::PRESENCE_WATCHERS).set(watchers as f64);
        metrics::gauge!(crate::metrics::PRESENCE_PAIRS).set(pairs as f64);
    }

    fn tell(&mut self) {
        let Self { watching, hearing, .. } = self;
        let told = watching.news(
            |shard| hearing.is_silent(shard),
            |session, users| {
                // Whoever reads slowly is told later, as it stands then.
                let now = !session.outbox.is_behind();
                if now {
                    session.frame(&ServerFrame::Presence { r: None, users });
                }
                now
            },
        );
        metrics::counter!(crate::metrics::PRESENCE_FRAMES).increment(told as u64);
        let times = (told / FRAMES_PER_WINDOW + 1).min(LONGEST as usize) as u32;
        self.window = Instant::now() + WINDOW * times;
    }
}

#[cfg(test)]
mod tests;
