//! P6, who is here: nobody is shown as online for longer than the lease of an edge and ten seconds after their last
//! connection ended, and nobody as offline while they are connected to an edge that is reached.
//!
//! What is true is judged by the code that counts lies in `tests/presence`. Here more goes wrong at once: NATS, the
//! role and the watcher's own edge stand still, too. While they do, everybody is unknown, a moment after it began; when
//! it is over, what has to be found out anew has its time again.

use std::{collections::BTreeMap, time::Duration};

use natterjack_protocol::client::presence::PresenceState;
use natterjack_tests::kit::truth::{SLACK, Truth};

use super::{Rule, Verdict};
use crate::{
    record::{Connection, Outage, Recording},
    rules::Target,
};

/// An edge that hears nothing shows everybody as unknown after 3 s, for which it looks twice a second and tells four
/// times.
const STALE: Duration = Duration::from_secs(4);
/// After a fault of an edge or of NATS: the edge connects again, writes its lease, and claims for those who came
/// meanwhile.
pub const RECOVERS: Duration = Duration::from_secs(8);
/// After a fault of NATS or of `presence`: it starts and reads (2 s), and whose edge is gone counts from then on, for
/// it finds no lease that would say since when.
pub const FOUND: Duration = Duration::from_secs(14);

pub fn check(r: &Recording, v: &mut Verdict) {
    let (truths, nobody) = (truths(r), Truth::default());
    for watcher in &r.connections {
        let Some((_, end)) = watcher.heard.last() else { continue };
        let mut shown: BTreeMap<&str, Vec<(Duration, PresenceState)>> = BTreeMap::new();
        for (at, user, state) in &watcher.presence {
            shown.entry(user).or_default().push((micros(*at), *state));
        }
        for (user, shown) in shown {
            let truth = truths.get(user).unwrap_or(&nobody);
            let lies = truth.lies(&shown, micros(*end), |state, at| counts(r, watcher, state, at));
            v.presence += shown.len();
            for (state, at) in lies {
                let rule = if state == PresenceState::Offline { Rule::ShownOffline } else { Rule::ShownOnline };
                let (of, edge, truth) = (&watcher.user, watcher.edge, recent(truth, at));
                v.add(rule, format!("{at:.1?}: {user} to {of} at edge {edge}, shown {shown:.1?}; {truth}"));
            }
        }
    }
}

pub fn micros(us: u64) -> Duration {
    Duration::from_micros(us)
}

impl Outage {
    fn span(&self) -> (Duration, Duration) {
        (micros(self.from), self.to.map_or(Duration::MAX, micros))
    }
}

/// After this nothing excuses what is shown any more: every fault is over for long enough.
pub fn excused_until(r: &Recording) -> Duration {
    let excuse = |o: &Outage| if matches!(o.of, Target::Edge(_)) { RECOVERS + SLACK } else { FOUND };
    r.outages.iter().map(|o| o.span().1.saturating_add(excuse(o))).max().unwrap_or_default()
}

/// Is what this watcher was shown at that moment held against anybody?
fn counts(r: &Recording, watcher: &Connection, state: PresenceState, at: Duration) -> bool {
    let heard = watcher.heard.iter().any(|(from, to)| micros(*from) + SLACK <= at && at <= micros(*to));
    let excused = |o: &Outage| {
        let ((from, to), offline) = (o.span(), state == PresenceState::Offline);
        let (stale, after) = match (o.of, offline) {
            (Target::Edge(edge), _) if edge == watcher.edge => (from + STALE, SLACK),
            (Target::Presence(_), true) => (from + STALE, SLACK),
            (Target::Nats(_), true) => (from + STALE, RECOVERS),
            (Target::Presence(_) | Target::Nats(_), false) => (to, FOUND),
            _ => return false,
        };
        (from..stale).contains(&at) || (to..to.saturating_add(after)).contains(&at)
    };
    heard && !r.outages.iter().any(excused)
}

fn truths(r: &Recording) -> BTreeMap<&str, Truth> {
    let mut truths: BTreeMap<&str, Truth> = BTreeMap::new();
    for c in &r.connections {
        let truth = truths.entry(&c.user).or_default();
        let ended = c.ended.map(micros);
        truth.connected.push((micros(c.hello), ended));
        if let Some(greeted) = c.greeted {
            truth.reached.extend(reached(r, c.edge, micros(greeted), ended));
        }
    }
    truths
}

/// The parts of a connection in which its edge was reached, and had been for long enough.
fn reached(r: &Recording, edge: usize, from: Duration, to: Option<Duration>) -> Vec<(Duration, Option<Duration>)> {
    let mut faults: Vec<_> = r
        .outages
        .iter()
        .filter(|o| matches!(o.of, Target::Nats(_)) || o.of == Target::Edge(edge))
        .map(|o| (o.span().0, o.span().1.saturating_add(RECOVERS)))
        .collect();
    faults.sort_unstable();
    let (mut parts, mut from) = (Vec::new(), from);
    for (begins, over) in faults {
        if begins > from {
            parts.push((from, Some(to.map_or(begins, |to| to.min(begins)))));
        }
        from = from.max(over);
    }
    parts.push((from, to));
    parts.retain(|(from, to)| to.is_none_or(|to| *from < to));
    parts
}

/// The connections that say why: the last ones before that moment.
fn recent(truth: &Truth, at: Duration) -> String {
    let part = |spans: &[(Duration, Option<Duration>)]| {
        let mut spans: Vec<_> = spans.iter().filter(|(from, _)| *from <= at).copied().collect();
        spans.sort_unstable();
        spans.split_off(spans.len().saturating_sub(3))
    };
    format!("connected {:.1?}, reached {:.1?}", part(&truth.connected), part(&truth.reached))
}

mod tests {
    use natterjack_protocol::client::frame::DeviceClass;

    use super::*;

    #[test]
    fn an_edge_that_stands_still_reaches_nobody_until_it_has_recovered() {
        let s = |seconds: u64| Duration::from_secs(seconds);
        let outage = |of, from: u64, to: u64| Outage { of, from: from * 1_000_000, to: Some(to * 1_000_000) };
        let mut r = Recording::default();
        r.outages.push(outage(Target::Edge(1), 40, 45));
        r.outages.push(outage(Target::Edge(0), 10, 90));
        r.outages.push(outage(Target::Nats(0), 20, 22));
        assert_eq!(
            reached(&r, 1, s(5), Some(s(60))),
            [(s(5), Some(s(20))), (s(30), Some(s(40))), (s(53), Some(s(60)))]
        );
        assert_eq!(reached(&r, 1, s(21), None), [(s(30), Some(s(40))), (s(53), None)]);
        assert_eq!(reached(&r, 1, s(42), Some(s(50))), []);
        assert_eq!(excused_until(&r), s(90) + RECOVERS + SLACK);
    }

    #[test]
    fn while_the_role_stands_still_unknown_is_no_lie_and_offline_is_one() {
        let s = |seconds: u64| seconds * 1_000_000;
        let connection = |user: &str, presence| Connection {
            user: user.into(),
            device: user.into(),
            class: DeviceClass::Desktop,
            edge: 0,
            by_itself: false,
            hello: s(1),
            greeted: Some(s(1)),
            ended: None,
            displaced_by: None,
            sends: Vec::new(),
            heard: vec![(s(1), s(40))],
            presence,
        };
        let broken = |state| {
            let shown = |at, state| (s(at), "bob".to_owned(), state);
            let shown = vec![shown(2, PresenceState::Online), shown(14, state), shown(25, PresenceState::Online)];
            let connections = vec![connection("bob", Vec::new()), connection("alice", shown)];
            let outages = vec![Outage { of: Target::Presence(0), from: s(10), to: Some(s(22)) }];
            let mut v = Verdict::default();
            check(&Recording { connections, outages, ..Recording::default() }, &mut v);
            v.violations.into_iter().map(|v| v.rule).collect::<Vec<_>>()
        };
        assert_eq!(broken(PresenceState::Unknown), []);
        assert_eq!(broken(PresenceState::Offline), [Rule::ShownOffline]);
    }
}
