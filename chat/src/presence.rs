//! How those are shown whom this user watches (pure): what is known of them, and the words for it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use natterjack_client::protocol::{
    UserId,
    client::presence::{PresenceChoice, PresenceOf, PresenceState},
};

use super::day;

/// Of somebody whom nobody watched before, an edge says `unknown` at once and the rest a moment later, when it has
/// asked. What is still so after this long is shown.
const ASKED: Duration = Duration::from_secs(3);

#[derive(Default)]
pub struct PresenceBook {
    shown: HashMap<UserId, PresenceOf>,
    /// Of whom nothing but `unknown` was heard; when that is shown.
    asked: HashMap<UserId, Instant>,
}

impl PresenceBook {
    /// Another connection, or others are watched: what is known is old.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Those who are shown in another way now.
    pub fn hear(&mut self, users: Vec<PresenceOf>, now: Instant) -> Vec<PresenceOf> {
        let mut changed = Vec::new();
        for of in users {
            if of.state == PresenceState::Unknown && !self.shown.contains_key(&of.user) {
                self.asked.entry(of.user).or_insert(now + ASKED);
                continue;
            }
            self.asked.remove(&of.user);
            if self.shown.get(&of.user) != Some(&of) {
                self.shown.insert(of.user.clone(), of.clone());
                changed.push(of);
            }
        }
        changed
    }

    /// Those who have stayed unknown.
    pub fn stayed_unknown(&mut self, now: Instant) -> Vec<PresenceOf> {
        let users: Vec<UserId> = self.asked.extract_if(|_, at| *at <= now).map(|(user, _)| user).collect();
        let unknown = |user| PresenceOf { user, state: PresenceState::Unknown, last_seen: None };
        let stayed: Vec<PresenceOf> = users.into_iter().map(unknown).collect();
        self.shown.extend(stayed.iter().map(|of| (of.user.clone(), of.clone())));
        stayed
    }

    pub fn due(&self) -> Option<Instant> {
        self.asked.values().min().copied()
    }

    pub fn of(&self, user: &UserId) -> Option<&PresenceOf> {
        self.shown.get(user)
    }
}

/// How somebody is shown.
pub fn presence_words(of: &PresenceOf) -> String {
    match (of.state, of.last_seen) {
        (PresenceState::Online, _) => "online".into(),
        (PresenceState::Away, _) => "away".into(),
        (PresenceState::Offline, Some(ms)) => format!("offline, last seen {}", day::and_clock(ms)),
        (PresenceState::Offline, None) => "offline".into(),
        (PresenceState::Unknown, _) => "perhaps here; nobody can tell now".into(),
    }
}

/// The same as a mark.
pub fn presence_mark(state: PresenceState) -> &'static str {
    match state {
        PresenceState::Online => "●",
        PresenceState::Away => "◐",
        PresenceState::Offline => "○",
        PresenceState::Unknown => "?",
    }
}

/// What this user chose.
pub fn chosen_words(choice: PresenceChoice) -> &'static str {
    match choice {
        PresenceChoice::Available => "available",
        PresenceChoice::Away => "away",
        PresenceChoice::Dnd => "available, without notifications",
        PresenceChoice::Hidden => "offline",
    }
}

#[cfg(test)]
mod tests {
    use natterjack_client::protocol::Token;

    use super::*;

    fn bob(state: PresenceState) -> PresenceOf {
        PresenceOf { user: Token::parse("bob").unwrap(), state, last_seen: None }
    }

    #[test]
    fn unknown_is_shown_when_it_stays() {
        let (mut book, start) = (PresenceBook::default(), Instant::now());
        assert_eq!(book.hear(vec![bob(PresenceState::Unknown)], start), []);
        assert_eq!((book.of(&bob(PresenceState::Unknown).user), book.due()), (None, Some(start + ASKED)));
        assert_eq!(book.hear(vec![bob(PresenceState::Unknown)], start + ASKED / 2), [], "again is no later");
        assert_eq!(book.stayed_unknown(start + ASKED / 2), []);
        assert_eq!(book.stayed_unknown(start + ASKED), [bob(PresenceState::Unknown)]);
        assert_eq!((book.stayed_unknown(start + 9 * ASKED), book.due()), (vec![], None), "once");
        assert_eq!(book.hear(vec![bob(PresenceState::Online)], start + 9 * ASKED), [bob(PresenceState::Online)]);
    }

    #[test]
    fn the_moment_before_the_answer_is_not_shown_but_what_is_lost_later_is() {
        let (mut book, start) = (PresenceBook::default(), Instant::now());
        book.hear(vec![bob(PresenceState::Unknown)], start);
        assert_eq!(book.hear(vec![bob(PresenceState::Away)], start + ASKED / 3), [bob(PresenceState::Away)]);
        assert_eq!((book.stayed_unknown(start + ASKED), book.due()), (vec![], None));
        assert_eq!(book.hear(vec![bob(PresenceState::Away)], start + ASKED), [], "as before");
        // The presence role has gone away.
        assert_eq!(book.hear(vec![bob(PresenceState::Unknown)], start + ASKED), [bob(PresenceState::Unknown)]);
        book.forget();
        assert_eq!(book.hear(vec![bob(PresenceState::Unknown)], start + ASKED), [], "on the next connection");
    }
}
