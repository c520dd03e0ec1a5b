//! Was it true, what was shown of somebody? Pure; times are since the beginning of the run.

use std::time::Duration;

use natterjack_protocol::client::presence::PresenceState;

/// The lease of an edge.
pub const LEASE: Duration = Duration::from_secs(10);
/// So long somebody without a connection is still shown as online.
pub const DEBOUNCE: Duration = Duration::from_secs(10);
/// How long what is true takes to be shown, besides lease and debounce.
pub const SLACK: Duration = Duration::from_secs(3);
/// Between two looks at what was shown.
const STEP: Duration = Duration::from_millis(100);

/// From, to (none: still).
type Span = (Duration, Option<Duration>);

/// When somebody was connected, as far as the test knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truth {
    /// A connection of theirs was there, greeted or not: they may be shown as online.
    pub connected: Vec<Span>,
    /// Greeted, and at an edge that was reached.
    pub reached: Vec<Span>,
}

impl Truth {
    pub fn comes(&mut self, at: Duration) {
        self.connected.push((at, None));
        self.reached.push((at, None));
    }

    pub fn goes(&mut self, at: Duration) {
        for (_, to) in self.connected.last_mut().into_iter().chain(self.reached.last_mut()) {
            to.get_or_insert(at);
        }
    }

    /// Surely connected at that moment, and for a while before.
    fn here(&self, at: Duration) -> bool {
        self.reached.iter().any(|(from, to)| *from + SLACK <= at && to.is_none_or(|to| at <= to))
    }

    /// Connected at that moment, or so shortly before that it may still be shown.
    fn may_be_online(&self, at: Duration) -> bool {
        let still = LEASE + DEBOUNCE + SLACK;
        self.connected.iter().any(|(from, to)| *from <= at && to.is_none_or(|to| at <= to + still))
    }

    /// Is it a lie to show them like this at that moment? Unknown never is.
    pub fn denies(&self, state: PresenceState, at: Duration) -> bool {
        match state {
            PresenceState::Online | PresenceState::Away => !self.may_be_online(at),
            PresenceState::Offline => self.here(at),
            PresenceState::Unknown => false,
        }
    }

    /// Of what one watcher was shown in this order, until `end`: each state that was a lie at some moment that counts,
    /// and that moment.
    pub fn lies(
        &self,
        shown: &[(Duration, PresenceState)],
        end: Duration,
        counts: impl Fn(PresenceState, Duration) -> bool,
    ) -> Vec<(PresenceState, Duration)> {
        let ends = shown.iter().skip(1).map(|(at, _)| *at).chain([end]);
        let looks = shown.iter().zip(ends).filter_map(|((from, state), to)| {
            let moments = std::iter::successors(Some(*from), |at| Some(*at + STEP)).take_while(|at| *at < to);
            moments.into_iter().find(|at| counts(*state, *at) && self.denies(*state, *at)).map(|at| (*state, at))
        });
        looks.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Here from the 10th to the 20th second, and from the 60th on.
    fn truth() -> Truth {
        let mut truth = Truth::default();
        truth.comes(s(10));
        truth.goes(s(20));
        truth.comes(s(60));
        truth
    }

    fn lies(shown: &[(u64, PresenceState)]) -> Vec<(PresenceState, u64)> {
        let shown: Vec<_> = shown.iter().map(|(at, state)| (s(*at), *state)).collect();
        truth().lies(&shown, s(100), |_, _| true).into_iter().map(|(state, at)| (state, at.as_secs())).collect()
    }

    #[test]
    fn what_is_shown_in_time_is_no_lie_and_unknown_never_is() {
        use PresenceState::{Offline, Online, Unknown};
        assert_eq!(lies(&[(0, Offline), (12, Online), (30, Offline), (61, Online)]), []);
        assert_eq!(lies(&[(0, Offline), (13, Online), (43, Offline), (63, Online)]), [], "as late as may be");
        assert_eq!(lies(&[(0, Unknown)]), []);
    }

    #[test]
    fn whoever_has_gone_is_not_shown_as_online_for_ever() {
        use PresenceState::{Offline, Online};
        assert_eq!(lies(&[(10, Online)]), [(Online, 43)]);
        assert_eq!(lies(&[(5, Online), (44, Offline), (61, Online)]), [(Online, 5)], "before they came");
    }

    #[test]
    fn whoever_is_here_is_not_shown_as_offline() {
        use PresenceState::{Offline, Online};
        assert_eq!(lies(&[(0, Offline)]), [(Offline, 13)]);
        assert_eq!(lies(&[(12, Online), (15, Offline), (64, Online)]), [(Offline, 15)]);
        // And where a moment does not count, it is not judged.
        let all = truth().lies(&[(s(0), Offline)], s(100), |state, at| state == Online || at > s(30));
        assert_eq!(all, [(Offline, s(63))]);
    }
}
