//! Who of one shard is online: sessions by user, the debounce, and what has changed since the last batch. Pure and
//! deterministic; the loop (`shard`) feeds it and carries out what it decides.
//!
//! Nothing is concluded from absence: a user is offline when their devices say so or their edge was given up (`edges`),
//! and 10 s have passed. A user without a key in the bucket is unknown until every edge has put its sessions there.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use natterjack_protocol::{
    Token, UserId,
    client::presence::PresenceSettings,
    internal::presence::{Connected, UserPresence},
};

use crate::{
    edges::{EdgeLeases, EdgeRun},
    moment::Moment,
};

/// So long somebody without a session is still shown as online: networks flap, and phones change them.
pub const DEBOUNCE: Duration = Duration::from_secs(10);

/// What a user's key says, as far as presence goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserSessions {
    /// The runs of edges at which devices are connected; one may stand several times.
    pub runs: Vec<EdgeRun>,
    /// When the last session ended that is over, milliseconds since 1970.
    pub left: Option<u64>,
}

#[derive(Default)]
struct UserEntry {
    /// None: there is no such key, or there was none yet.
    sessions: Option<UserSessions>,
    revision: u64,
    settings: PresenceSettings,
    settings_revision: u64,
    /// Shown as online until then, by the monotonic clock: since when they are away, and when that shows.
    leaving: Option<(u64, u64)>,
    /// What the last batch said, or would have said if that had been different.
    published: Option<(Connected, u64)>,
}

pub struct ShardTable {
    edges: EdgeLeases,
    /// The revision that stands for the bucket without a key.
    floor: u64,
    /// Who has no key is not here; otherwise nobody knows.
    complete: bool,
    users: HashMap<UserId, UserEntry>,
    by_run: HashMap<EdgeRun, HashSet<UserId>>,
    /// Users that are `leaving`, by when.
    due: BTreeSet<(u64, UserId)>,
    changed: BTreeSet<UserId>,
}

impl ShardTable {
    /// `floor`: a revision below all of the bucket. `edge_refresh`: how often a living edge writes its lease.
    pub fn new(floor: u64, edge_refresh: Duration) -> Self {
        Self {
            edges: EdgeLeases::new(edge_refresh.as_millis() as u64),
            floor,
            complete: false,
            users: HashMap::new(),
            by_run: HashMap::new(),
            due: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    /// A user's key was read. None: it was deleted.
    pub fn sessions(&mut self, user: &UserId, sessions: Option<UserSessions>, revision: u64, now: Moment) {
        let entry = self.users.entry(user.clone()).or_default();
        if revision < entry.revision {
            return;
        }
        // A key that was deleted was there: the user has no devices any more.
        let mut sessions = sessions.unwrap_or_default();
        for run in &mut sessions.runs {
            // One allocation for all users of an edge, and not two for each.
            if let Some((known, _)) = self.by_run.get_key_value(run) {
                *run = known.clone();
            }
        }
        let before = entry.sessions.replace(sessions.clone()).unwrap_or_default();
        entry.revision = revision;
        for run in before.runs.iter().filter(|run| !sessions.runs.contains(run)) {
            self.leave(run, user);
        }
        for run in sessions.runs {
            self.by_run.entry(run.clone()).or_default().insert(user.clone());
            if self.edges.look(&run, now) {
                self.reconsider(&run, now);
            }
        }
        self.judge(user, now);
    }

    fn leave(&mut self, run: &EdgeRun, user: &UserId) {
        if let Some(users) = self.by_run.get_mut(run) {
            users.remove(user);
            if users.is_empty() {
                self.by_run.remove(run);
                self.edges.forget(run);
            }
        }
    }

    pub fn settings(&mut self, user: &UserId, settings: PresenceSettings, revision: u64, now: Moment) {
        let entry = self.users.entry(user.clone()).or_default();
        if revision > entry.settings_revision {
            (entry.settings, entry.settings_revision) = (settings, revision);
            self.judge(user, now);
        }
    }

    /// An edge has written its lease. `in_bucket`: it says that its sessions are in this bucket.
    pub fn lease(&mut self, run: &EdgeRun, in_bucket: bool, now: Moment) {
        for other in self.edges.written(run, in_bucket, now) {
            self.reconsider(&other, now);
        }
        // Runs before it that were never heard of by a lease.
        self.look_at(|other| other.edge == run.edge && other != run, now);
    }

    /// An edge's lease has expired or was deleted.
    pub fn lease_gone(&mut self, edge: &Token, now: Moment) {
        self.edges.gone(edge);
        self.look_at(|run| run.edge == *edge, now);
    }

    /// Looks at every run with sessions: who has no lease from the start is a suspect, too.
    pub fn look(&mut self, now: Moment) {
        self.look_at(|_| true, now);
    }

    fn look_at(&mut self, which: impl Fn(&EdgeRun) -> bool, now: Moment) {
        let runs: Vec<EdgeRun> = self.by_run.keys().filter(|run| which(run)).cloned().collect();
        for run in runs {
            if self.edges.look(&run, now) {
                self.reconsider(&run, now);
            }
        }
    }

    /// Edges to be pinged now; each has to be [`ShardTable::pinged`].
    pub fn ping_now(&mut self, now: Moment) -> Vec<EdgeRun> {
        self.edges.ping_now(now)
    }

    /// True: the edge is given up.
    pub fn pinged(&mut self, run: &EdgeRun, answered: bool, now: Moment) -> bool {
        if answered {
            self.edges.answered(run, now);
            return false;
        }
        let dead = self.edges.silent(run, now);
        if dead {
            self.reconsider(run, now);
        }
        dead
    }

    fn reconsider(&mut self, run: &EdgeRun, now: Moment) {
        let Some(users) = self.by_run.get(run) else {
            self.edges.forget(run);
            return;
        };
        for user in users.iter().cloned().collect::<Vec<_>>() {
            self.judge(&user, now);
        }
    }

    /// Sessions of edges that were given up: to be taken out of the users' keys, with the moment at which they ended.
    pub fn to_sweep(&self) -> impl Iterator<Item = (&UserId, &EdgeRun, u64)> {
        let dead = self.edges.dead().filter_map(|run| Some((run, self.by_run.get(run)?, self.edges.dead_since(run)?)));
        dead.flat_map(|(run, users, since)| users.iter().map(move |user| (user, run, since)))
    }

    /// Has every edge that lives put its sessions into the bucket? Once it has, absence counts, for good. True: it
    /// counts from now on.
    pub fn completes(&mut self) -> bool {
        let completes = !self.complete && self.edges.all_in_bucket();
        self.complete |= completes;
        completes
    }

    /// Everything of the shard was heard: from here on batches say what is different.
    pub fn begin(&mut self, now: Moment) {
        self.look(now);
        self.changed.clear();
        let Self { users, edges, complete, .. } = self;
        for entry in users.values_mut() {
            entry.published = Some((connected(entry, edges, *complete, now), entry.settings_revision));
        }
    }

    fn judge(&mut self, user: &UserId, now: Moment) {
        let Self { users, edges, due, changed, .. } = self;
        let Some(entry) = users.get_mut(user) else { return };
        let leaving = match entry.sessions.as_ref().map(|s| ended(s, edges)) {
            // Once it is known when it shows, a step of the clock does not move it.
            Some(Ended::At(since)) if entry.leaving.is_some_and(|(s, _)| s == since) => entry.leaving,
            Some(Ended::At(since)) => Some((since, now.due(since, DEBOUNCE))),
            Some(Ended::Not | Ended::LongAgo) | None => None,
        };
        if entry.leaving != leaving {
            if let Some((_, at)) = entry.leaving {
                due.remove(&(at, user.clone()));
            }
            if let Some((_, at)) = leaving.filter(|(_, at)| *at > now.monotonic) {
                due.insert((at, user.clone()));
            }
            entry.leaving = leaving;
        }
        changed.insert(user.clone());
    }

    /// What has changed since this was asked last, `most` users at most; the others come next time.
    pub fn changes(&mut self, now: Moment, most: usize) -> Vec<UserPresence> {
        while let Some((due, _)) = self.due.first()
            && *due <= now.monotonic
            && let Some((_, user)) = self.due.pop_first()
        {
            self.changed.insert(user);
        }
        let mut changes = Vec::new();
        while changes.len() < most
            && let Some(user) = self.changed.pop_first()
        {
            let (said, absent) = (self.get(&user, now), absent(self.complete));
            let Some(entry) = self.users.get_mut(&user) else { continue };
            let says = (said.connected, said.settings_revision);
            // Whoever asked before there was an entry heard what is said of those without one.
            if entry.published.replace(says).unwrap_or((absent, 0)) != says {
                changes.push(said);
            }
        }
        changes
    }

    /// What is known of a user.
    pub fn get(&self, user: &UserId, now: Moment) -> UserPresence {
        let Some(entry) = self.users.get(user) else {
            let connected = absent(self.complete);
            return UserPresence { revision: self.floor, connected, ..UserPresence::unknown(user.clone()) };
        };
        UserPresence {
            user: user.clone(),
            revision: entry.revision.max(self.floor),
            connected: connected(entry, &self.edges, self.complete, now),
            settings_revision: entry.settings_revision,
            settings: entry.settings,
        }
    }

    /// When the next one is shown as offline, by the monotonic clock.
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due)
    }

    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    pub fn users(&self) -> usize {
        self.users.len()
    }
}

/// What is said of those without a key.
fn absent(complete: bool) -> Connected {
    if complete { Connected::No(None) } else { Connected::Unknown }
}

/// When a user's sessions ended, if none of them is of an edge that lives.
enum Ended {
    Not,
    At(u64),
    /// There never was one that anybody remembers.
    LongAgo,
}

fn ended(sessions: &UserSessions, edges: &EdgeLeases) -> Ended {
    let mut last = sessions.left;
    for run in &sessions.runs {
        let Some(since) = edges.dead_since(run) else { return Ended::Not };
        last = last.max(Some(since));
    }
    last.map_or(Ended::LongAgo, Ended::At)
}

fn connected(entry: &UserEntry, edges: &EdgeLeases, complete: bool, now: Moment) -> Connected {
    let Some(sessions) = &entry.sessions else { return absent(complete) };
    match (ended(sessions, edges), entry.leaving) {
        (Ended::Not, _) => Connected::Yes,
        (Ended::At(_), Some((_, due))) if now.monotonic < due => Connected::Yes,
        (Ended::At(since), _) => Connected::No(Some(since)),
        (Ended::LongAgo, _) => Connected::No(None),
    }
}

#[cfg(test)]
mod tests;
