//! Presence in a poll. Nothing is kept between two polls, so an answer has the state of all whom the client watches,
//! and a word by which the next poll shows that it has it. Pure.

use std::collections::BTreeMap;

use natterjack_protocol::{
    UserId,
    client::{poll::PollPresence, presence::PresenceOf},
};
use xxhash_rust::xxh3::Xxh3;

pub struct Watched {
    users: BTreeMap<UserId, PresenceOf>,
    /// What the client has.
    seen: Option<String>,
}

impl Watched {
    /// `users`: all of them, as they are at the beginning of the poll.
    pub fn new(users: Vec<PresenceOf>, seen: Option<String>) -> Self {
        Self { users: users.into_iter().map(|p| (p.user.clone(), p)).collect(), seen }
    }

    /// What has changed since.
    pub fn changed(&mut self, users: &[PresenceOf]) {
        self.users.extend(users.iter().map(|p| (p.user.clone(), p.clone())));
    }

    /// Does the client have something else?
    pub fn is_news(&self) -> bool {
        self.seen.as_deref() != Some(&*self.word())
    }

    fn word(&self) -> String {
        let mut hash = Xxh3::new();
        for PresenceOf { user, state, last_seen } in self.users.values() {
            hash.update(format!("{user} {state:?} {last_seen:?};").as_bytes());
        }
        format!("{:016x}", hash.digest())
    }

    /// None: the client has it all.
    pub fn answer(self) -> Option<PollPresence> {
        let seen = self.word();
        self.is_news().then(|| PollPresence { users: self.users.into_values().collect(), seen })
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::client::presence::PresenceState;

    use super::*;

    #[test]
    fn what_a_client_has_is_no_news_and_comes_whole_when_it_changes() {
        let of = |n: u8, state| PresenceOf { user: UserId::parse(&format!("u{n}")).unwrap(), state, last_seen: None };
        let start = || vec![of(2, PresenceState::Online), of(1, PresenceState::Away)];
        let first = Watched::new(start(), None);
        assert!(first.is_news());
        let given = first.answer().unwrap();
        assert_eq!(given.users.len(), 2);
        let mut next = Watched::new(start(), Some(given.seen.clone()));
        assert!(!next.is_news());
        next.changed(&[of(1, PresenceState::Offline)]);
        assert!(next.is_news());
        next.changed(&[of(1, PresenceState::Away)]);
        assert!(!next.is_news() && next.answer().is_none(), "it is as it was");
    }
}
