//! Whom the app wants to watch: said on each connection anew, and again after a refusal that passes. Pure.

use std::time::{Duration, Instant};

use natterjack_protocol::{Refusal, Retry, UserId};

/// Before a watch that was refused for now is said again.
const AGAIN: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(crate) struct WatchWish {
    /// None: the app never said it. Inside, none: the contacts.
    users: Option<Option<Vec<UserId>>>,
    /// This connection's edge knows.
    said: bool,
    /// It was refused: not before this.
    again: Option<Instant>,
}

impl WatchWish {
    /// None: the contacts, also as they change.
    pub fn is(&mut self, users: Option<Vec<UserId>>) {
        *self = Self { users: Some(users), ..Self::default() };
    }

    pub fn disconnected(&mut self) {
        (self.said, self.again) = (false, None);
    }

    /// Others may be among them now.
    pub fn contacts_changed(&mut self) {
        self.said &= self.users != Some(None);
    }

    pub fn refused(&mut self, refusal: &Refusal, now: Instant) {
        if refusal.code.retry() == Retry::Later {
            (self.said, self.again) = (false, Some(now + AGAIN));
        } else {
            tracing::warn!(code = ?refusal.code, message = ?refusal.message, "the edge refused to have users watched");
        }
    }

    /// What is to be said now, once.
    pub fn say_now(&mut self, now: Instant) -> Option<Option<Vec<UserId>>> {
        let users = self.users.clone().filter(|_| !self.said && self.again.is_none_or(|at| at <= now))?;
        self.said = true;
        Some(users)
    }

    pub fn due(&self) -> Option<Instant> {
        self.again.filter(|_| !self.said)
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::Code;

    use super::*;

    #[test]
    fn it_is_said_once_for_each_connection_and_again_after_what_passes() {
        let (mut wish, now) = (WatchWish::default(), Instant::now());
        assert_eq!(wish.say_now(now), None);
        wish.is(None);
        assert_eq!((wish.say_now(now), wish.say_now(now)), (Some(None), None));
        wish.contacts_changed();
        assert_eq!(wish.say_now(now), Some(None), "others may be contacts now");
        wish.disconnected();
        assert_eq!(wish.say_now(now), Some(None));
        wish.refused(&Refusal::unavailable("the directory is away"), now);
        assert_eq!((wish.say_now(now), wish.due()), (None, Some(now + AGAIN)));
        assert_eq!(wish.say_now(now + AGAIN), Some(None));
        wish.refused(&Refusal::new(Code::Invalid, "too many"), now);
        assert_eq!((wish.say_now(now + AGAIN), wish.due()), (None, None));
        wish.is(Some(Vec::new()));
        assert_eq!(wish.say_now(now), Some(Some(Vec::new())));
        wish.contacts_changed();
        assert_eq!(wish.say_now(now), None, "those that were named stay");
    }
}
