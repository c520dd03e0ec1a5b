//! Names for ids (pure): what is known, and what has to be asked.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use natterjack_client::protocol::{Event, GroupId, Kind, Thread, UserId};

use super::model::{Job, UiEffect};
use crate::screen::one_line;

/// After a failed look-up the id has to do for this long.
const AGAIN: Duration = Duration::from_secs(30);

pub struct NameBook {
    pub me: UserId,
    users: HashMap<UserId, String>,
    groups: HashMap<GroupId, String>,
    asked: HashMap<String, Instant>,
}

impl NameBook {
    pub fn new(me: UserId, name: &str) -> Self {
        Self {
            users: HashMap::from([(me.clone(), name.to_owned())]),
            me,
            groups: HashMap::new(),
            asked: HashMap::new(),
        }
    }

    pub fn user<'a>(&'a self, user: &'a UserId) -> &'a str {
        self.users.get(user).map_or(user.as_str(), String::as_str)
    }

    pub fn users(&self, users: &[UserId]) -> String {
        users.iter().map(|u| self.user(u)).collect::<Vec<_>>().join(", ")
    }

    /// The other's name, or `#` and the group's.
    pub fn thread(&self, thread: &Thread) -> String {
        match thread {
            Thread::Dm { .. } => {
                thread.peer(&self.me).map_or_else(|| thread.to_string(), |peer| self.user(peer).to_owned())
            }
            Thread::Group { gid } => format!("#{}", self.groups.get(gid).map_or(gid.as_str(), String::as_str)),
        }
    }

    pub fn learn_user(&mut self, user: UserId, name: String) {
        self.users.insert(user, one_line(&name));
    }

    pub fn learn_group(&mut self, thread: &Thread, name: &str) {
        if let Thread::Group { gid } = thread {
            self.groups.insert(gid.clone(), one_line(name.trim_start_matches('#')));
        }
    }

    /// Learns what an event tells, and asks for whoever is in it.
    pub fn meet(&mut self, event: &Event, now: Instant, ask: &mut Vec<UiEffect>) {
        if let (Kind::GroupCreated | Kind::GroupRenamed, Some(name)) = (event.kind, &event.body.name) {
            self.learn_group(&event.thread, name);
        }
        self.meet_user(&event.from, now, ask);
        for user in &event.body.users {
            self.meet_user(user, now, ask);
        }
    }

    pub fn meet_user(&mut self, user: &UserId, now: Instant, ask: &mut Vec<UiEffect>) {
        if !self.users.contains_key(user) && self.may_ask(user.as_str(), now) {
            ask.push(UiEffect::Job(Job::User(user.clone())));
        }
    }

    pub fn meet_thread(&mut self, thread: &Thread, now: Instant, ask: &mut Vec<UiEffect>) {
        match thread {
            Thread::Dm { .. } => {
                if let Some(peer) = thread.peer(&self.me.clone()) {
                    self.meet_user(peer, now, ask);
                }
            }
            Thread::Group { gid } => {
                if !self.groups.contains_key(gid) && self.may_ask(gid.as_str(), now) {
                    ask.push(UiEffect::Job(Job::Group(gid.clone())));
                }
            }
        }
    }

    fn may_ask(&mut self, id: &str, now: Instant) -> bool {
        let may = self.asked.get(id).is_none_or(|at| now.duration_since(*at) > AGAIN);
        if may {
            self.asked.insert(id.to_owned(), now);
        }
        may
    }
}
