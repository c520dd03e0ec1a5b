//! Who watches whom on this edge, what is known of those who are watched, and whom to tell. Pure.
//!
//! A pair of a watcher and a user is four bytes on either side. Work is done for a pair only when what its watcher sees
//! has changed.

use std::collections::{BTreeMap, HashMap};

use natterjack_protocol::{
    UserId,
    client::presence::{PresenceOf, PresenceState, PresenceVisibility},
    internal::presence::UserPresence,
};

/// How a watcher stands to somebody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    pub contact: bool,
    /// Either blocks the other.
    pub blocked: bool,
    /// It is oneself.
    pub own: bool,
}

/// What one sees of somebody. Whoever may not see it sees the same as of somebody who is never here, so that it cannot
/// be told apart; also then unknown is unknown.
pub fn view(known: &UserPresence, silent: bool, standing: Standing) -> (PresenceState, Option<u64>) {
    if silent {
        return (PresenceState::Unknown, None);
    }
    let visible = match known.settings.visibility {
        _ if standing.own => true,
        _ if standing.blocked => false,
        PresenceVisibility::Everyone => true,
        PresenceVisibility::Contacts => standing.contact,
        PresenceVisibility::Nobody => false,
    };
    match known.shown() {
        (PresenceState::Unknown, _) => (PresenceState::Unknown, None),
        shown if visible => shown,
        _ => (PresenceState::Offline, None),
    }
}

/// A user in a watcher's list: where it is, and how the watcher stands to it.
#[derive(Clone, Copy)]
struct Pair(u32);

const CONTACT: u32 = 1;
const BLOCKED: u32 = 2;
const OWN: u32 = 4;
const FLAGS: u32 = 3;

impl Pair {
    fn new(at: u32, standing: Standing) -> Self {
        let Standing { contact, blocked, own } = standing;
        let bit = |set, bit| if set { bit } else { 0 };
        Self(at << FLAGS | bit(contact, CONTACT) | bit(blocked, BLOCKED) | bit(own, OWN))
    }

    fn at(self) -> u32 {
        self.0 >> FLAGS
    }

    fn standing(self) -> Standing {
        Standing { contact: self.0 & CONTACT != 0, blocked: self.0 & BLOCKED != 0, own: self.0 & OWN != 0 }
    }
}

struct Watched {
    shard: u32,
    known: UserPresence,
    /// What came since they were asked for counts, and the answer does not.
    heard_since_asked: bool,
    watchers: Vec<u32>,
}

struct Watcher<H> {
    handle: H,
    /// In their order.
    watched: Vec<Pair>,
    /// Of `watched`, those of whom something is to be told.
    news: Vec<u32>,
}

impl<H> Watcher<H> {
    fn standing(&self, at: u32) -> Option<Standing> {
        let found = self.watched.binary_search_by_key(&at, |pair| pair.at()).ok()?;
        Some(self.watched[found].standing())
    }
}

/// `H`: how a watcher is reached.
pub struct Watching<H> {
    users: Vec<Option<Watched>>,
    free_users: Vec<u32>,
    by_user: HashMap<UserId, u32>,
    watchers: Vec<Option<Watcher<H>>>,
    free_watchers: Vec<u32>,
    /// Watchers with news.
    waiting: Vec<u32>,
    pairs: usize,
}

/// The number of a watcher, given again after it has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatcherNumber(u32);

impl<H> Default for Watching<H> {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            free_users: Vec::new(),
            by_user: HashMap::new(),
            watchers: Vec::new(),
            free_watchers: Vec::new(),
            waiting: Vec::new(),
            pairs: 0,
        }
    }
}

fn put<T>(all: &mut Vec<Option<T>>, free: &mut Vec<u32>, one: T) -> u32 {
    match free.pop() {
        Some(at) => {
            all[at as usize] = Some(one);
            at
        }
        None => {
            all.push(Some(one));
            (all.len() - 1) as u32
        }
    }
}

impl<H> Watching<H> {
    /// From here on `handle` watches these users. Returns those of whom nothing was known here, by shard.
    pub fn watch(
        &mut self,
        handle: H,
        users: impl IntoIterator<Item = (UserId, u32, Standing)>,
    ) -> (WatcherNumber, Vec<(u32, UserId)>) {
        let watcher = Watcher { handle, watched: Vec::new(), news: Vec::new() };
        let number = put(&mut self.watchers, &mut self.free_watchers, watcher);
        let (mut watched, mut new) = (BTreeMap::new(), Vec::new());
        for (user, shard, standing) in users {
            let at = match self.by_user.get(&user) {
                Some(at) => *at,
                None => {
                    let known = UserPresence::unknown(user.clone());
                    let one = Watched { shard, known, heard_since_asked: false, watchers: Vec::new() };
                    let at = put(&mut self.users, &mut self.free_users, one);
                    self.by_user.insert(user.clone(), at);
                    new.push((shard, user));
                    at
                }
            };
            if let Some(user) = &mut self.users[at as usize]
                && watched.insert(at, Pair::new(at, standing)).is_none()
            {
                user.watchers.push(number);
            }
        }
        self.pairs += watched.len();
        if let Some(watcher) = &mut self.watchers[number as usize] {
            watcher.watched = watched.into_values().collect();
        }
        (WatcherNumber(number), new)
    }

    pub fn leave(&mut self, number: WatcherNumber) {
        let Some(watcher) = self.watchers.get_mut(number.0 as usize).and_then(Option::take) else { return };
        self.free_watchers.push(number.0);
        self.waiting.retain(|w| *w != number.0);
        self.pairs -= watcher.watched.len();
        for at in watcher.watched.into_iter().map(Pair::at) {
            let slot = &mut self.users[at as usize];
            let Some(user) = slot else { continue };
            user.watchers.retain(|watcher| *watcher != number.0);
            if user.watchers.is_empty() {
                self.by_user.remove(&user.known.user);
                *slot = None;
                self.free_users.push(at);
            }
        }
    }

    fn watcher(&self, number: WatcherNumber) -> Option<&Watcher<H>> {
        self.watchers.get(number.0 as usize)?.as_ref()
    }

    /// Everything that a watcher sees now.
    pub fn all(&self, number: WatcherNumber, silent: impl Fn(u32) -> bool) -> Vec<PresenceOf> {
        let watched = self.watcher(number).into_iter().flat_map(|w| &w.watched);
        watched.filter_map(|pair| self.seen(pair.at(), pair.standing(), &silent)).collect()
    }

    fn seen(&self, at: u32, standing: Standing, silent: &impl Fn(u32) -> bool) -> Option<PresenceOf> {
        let user = self.users.get(at as usize)?.as_ref()?;
        let (state, last_seen) = view(&user.known, silent(user.shard), standing);
        Some(PresenceOf { user: user.known.user.clone(), state, last_seen })
    }

    /// A batch says this of a user; or an answer does (`asked`), which may be older than what came meanwhile.
    pub fn hear(&mut self, heard: &UserPresence, asked: bool) {
        let Some(at) = self.by_user.get(&heard.user).copied() else { return };
        let Some(user) = &mut self.users[at as usize] else { return };
        if asked && std::mem::take(&mut user.heard_since_asked) {
            return;
        }
        user.heard_since_asked = !asked;
        let before = user.known.clone();
        if user.known.hear(heard) {
            let now = user.known.clone();
            self.tell_all(at, |standing| view(&before, false, standing) != view(&now, false, standing));
        }
    }

    /// Everybody who watches the user and for whom that makes a difference.
    fn tell_all(&mut self, at: u32, differs: impl Fn(Standing) -> bool) {
        let Some(user) = &self.users[at as usize] else { return };
        for number in &user.watchers {
            let Some(watcher) = &mut self.watchers[*number as usize] else { continue };
            if watcher.standing(at).is_some_and(&differs) && watcher.news.last() != Some(&at) {
                if watcher.news.is_empty() {
                    self.waiting.push(*number);
                }
                watcher.news.push(at);
            }
        }
    }

    /// The shard fell silent, or speaks again: everybody who watches somebody of it is told. `forget`: what was known
    /// counts no more.
    pub fn shard_changed(&mut self, shard: u32, forget: bool) {
        let of_shard = |user: &Option<Watched>| user.as_ref().is_some_and(|u| u.shard == shard);
        for at in (0..self.users.len() as u32).filter(|at| of_shard(&self.users[*at as usize])).collect::<Vec<_>>() {
            let Some(user) = &mut self.users[at as usize] else { continue };
            if forget {
                user.known = UserPresence::unknown(user.known.user.clone());
            }
            self.tell_all(at, |_| true);
        }
    }

    /// Who is watched of this shard: to be asked for. What comes from now on counts more than the answer.
    pub fn of_shard(&mut self, shard: u32) -> Vec<UserId> {
        let of_shard = self.users.iter_mut().flatten().filter(|u| u.shard == shard);
        of_shard
            .map(|user| {
                user.heard_since_asked = false;
                user.known.user.clone()
            })
            .collect()
    }

    /// How a watcher stands to those it watches may have changed.
    pub fn relate(&mut self, number: WatcherNumber, standing: impl Fn(&UserId, Standing) -> Standing) {
        let Self { users, watchers, waiting, .. } = self;
        let Some(watcher) = watchers.get_mut(number.0 as usize).and_then(Option::as_mut) else { return };
        for pair in &mut watcher.watched {
            let Some(user) = &users[pair.at() as usize] else { continue };
            let now = standing(&user.known.user, pair.standing());
            if view(&user.known, false, pair.standing()) != view(&user.known, false, now) {
                if watcher.news.is_empty() {
                    waiting.push(number.0);
                }
                watcher.news.push(pair.at());
            }
            *pair = Pair::new(pair.at(), now);
        }
    }

    /// Whom this watcher watches.
    pub fn watched_by(&self, number: WatcherNumber) -> Vec<UserId> {
        let watched = self.watcher(number).into_iter().flat_map(|w| &w.watched);
        watched.filter_map(|pair| Some(self.users[pair.at() as usize].as_ref()?.known.user.clone())).collect()
    }

    /// Everybody who has news, with all of it. `tell` says whether that could be told now; else it is told next time,
    /// as it stands then. Returns how many were told.
    pub fn news(&mut self, silent: impl Fn(u32) -> bool, mut tell: impl FnMut(&H, Vec<PresenceOf>) -> bool) -> usize {
        let (waiting, mut later) = (std::mem::take(&mut self.waiting), Vec::new());
        let all = waiting.len();
        for number in waiting {
            let Some(watcher) = &mut self.watchers[number as usize] else { continue };
            let mut news = std::mem::take(&mut watcher.news);
            news.sort_unstable();
            news.dedup();
            let Some(watcher) = &self.watchers[number as usize] else { continue };
            let seen = news.iter().filter_map(|at| self.seen(*at, watcher.standing(*at)?, &silent)).collect();
            if !tell(&watcher.handle, seen)
                && let Some(watcher) = &mut self.watchers[number as usize]
            {
                watcher.news = news;
                later.push(number);
            }
        }
        let told = all - later.len();
        self.waiting = later;
        told
    }

    pub fn has_news(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Users, watchers, and pairs of both.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.by_user.len(), self.watchers.len() - self.free_watchers.len(), self.pairs)
    }
}

#[cfg(test)]
mod tests;
