//! P9, one phone: at no moment two phones of one user both have a message acknowledged that was begun after the other
//! one was greeted; and who comes back by itself displaces nobody.

use natterjack_protocol::client::frame::DeviceClass;

use super::{
    Rule, Verdict,
    presence::{RECOVERS, micros},
};
use crate::{
    record::{Connection, Recording},
    rules::Target,
};

/// Of other classes more than one may be in.
fn phones(r: &Recording) -> impl Iterator<Item = &Connection> {
    r.connections.iter().filter(|c| c.class == DeviceClass::Phone)
}

pub fn check(r: &Recording, v: &mut Verdict) {
    let greeted: Vec<(&Connection, u64)> = phones(r).filter_map(|c| Some((c, counts_from(r, c)?))).collect();
    for (n, (one, from)) in greeted.iter().enumerate() {
        for (other, other_from) in &greeted[n + 1..] {
            if one.user != other.user || one.device == other.device {
                continue;
            }
            let since = *from.max(other_from);
            if let (Some(a), Some(b)) = (written(one, since), written(other, since)) {
                let (x, y) = (&one.device, &other.device);
                v.add(Rule::TwoPhones, format!("{}: {x} wrote {a:?} and {y} {b:?}", one.user));
            }
        }
        v.displaced += usize::from(one.displaced_by.is_some());
        took_over(r, one, v);
    }
}

/// From when on a connection is counted, if it was greeted: while the bucket of sessions does not answer, people are
/// let in all the same, and are counted within seconds of its return.
fn counts_from(r: &Recording, c: &Connection) -> Option<u64> {
    let greeted = c.greeted?;
    let uncounted = r.outages.iter().filter(|o| matches!(o.of, Target::Nats(_)) || o.of == Target::Edge(c.edge));
    let spans = uncounted.map(|o| (o.from, o.to.map_or(u64::MAX, |to| to.saturating_add(RECOVERS.as_micros() as u64))));
    let met = spans.filter(|(from, to)| *from <= greeted && c.hello <= *to);
    Some(met.map(|(_, to)| to).fold(greeted, u64::max))
}

/// A message that this connection has acknowledged, and that was begun after that moment.
fn written(c: &Connection, since: u64) -> Option<&str> {
    c.sends.iter().find(|s| s.begun > since && s.acked.is_some()).map(|s| s.text.as_str())
}

/// Whoever was displaced was so by somebody who wanted it.
fn took_over(r: &Recording, displaced: &Connection, v: &mut Verdict) {
    let Some(by) = &displaced.displaced_by else { return };
    let meanwhile = |c: &&Connection| {
        let ended = c.ended.unwrap_or(u64::MAX);
        c.hello <= displaced.ended.unwrap_or(u64::MAX) && ended >= displaced.hello
    };
    let others = phones(r).filter(|c| c.user == displaced.user && c.device == *by).filter(meanwhile);
    let uncounted = |c: &Connection| counts_from(r, c).is_none_or(|from| c.greeted != Some(from));
    let others: Vec<&Connection> = others.collect();
    if !uncounted(displaced) && others.iter().all(|c| c.by_itself && (c.greeted.is_none() || !uncounted(c))) {
        let (at, user) = (displaced.ended.map(micros), &displaced.user);
        v.add(Rule::TookOver, format!("{at:.1?}: {} of {user} by {by}, which came back by itself", displaced.device));
    }
}

mod tests {
    use super::*;
    use crate::record::{Handing, Outage};

    fn phone(device: &str, greeted: u64, sends: &[(u64, bool)]) -> Connection {
        let handing = |(begun, acked): &(u64, bool)| {
            let text = format!("{device} {begun}");
            Handing { text, begun: *begun, acked: acked.then_some(begun + 1) }
        };
        Connection {
            user: "u".into(),
            device: device.into(),
            class: DeviceClass::Phone,
            edge: 0,
            by_itself: false,
            hello: greeted,
            greeted: Some(greeted),
            ended: None,
            displaced_by: None,
            sends: sends.iter().map(handing).collect(),
            heard: Vec::new(),
            presence: Vec::new(),
        }
    }

    fn broken(connections: Vec<Connection>, outages: Vec<Outage>) -> Vec<Rule> {
        let r = Recording { connections, outages, ..Recording::default() };
        let mut v = Verdict::default();
        check(&r, &mut v);
        v.violations.iter().map(|v| v.rule).collect()
    }

    #[test]
    fn the_one_that_went_may_have_an_answer_late_and_none_for_what_it_begins_afterwards() {
        let new = || phone("new", 50, &[(60, true)]);
        assert_eq!(broken(vec![phone("old", 10, &[(20, true), (49, true), (70, false)]), new()], vec![]), []);
        assert_eq!(broken(vec![phone("old", 10, &[(51, true)]), new()], vec![]), [Rule::TwoPhones]);
        assert_eq!(broken(vec![phone("new", 10, &[(51, true)]), new()], vec![]), [], "one device, two connections");
        assert_eq!(broken(vec![phone("old", 10, &[(51, true)]), phone("new", 50, &[])], vec![]), [], "it was silent");
        let laptop = Connection { class: DeviceClass::Desktop, ..phone("old", 10, &[(51, true)]) };
        assert_eq!(broken(vec![laptop, new()], vec![]), []);
    }

    #[test]
    fn who_was_let_in_while_nobody_counted_counts_later() {
        let away = |to| vec![Outage { of: Target::Nats(0), from: 40, to: Some(to) }];
        let late = 100 + RECOVERS.as_micros() as u64;
        let both = |begun| vec![phone("old", 10, &[(begun, true)]), phone("new", 50, &[(begun, true)])];
        assert_eq!(broken(both(late), away(100)), []);
        assert_eq!(broken(both(late + 1), away(100)), [Rule::TwoPhones]);
    }

    #[test]
    fn a_device_takes_over_only_for_its_user() {
        let old = Connection { displaced_by: Some("new".into()), ended: Some(60), ..phone("old", 10, &[]) };
        let itself = Connection { by_itself: true, ..phone("new", 50, &[]) };
        assert_eq!(broken(vec![old.clone(), phone("new", 50, &[])], vec![]), []);
        assert_eq!(broken(vec![old.clone(), itself.clone()], vec![]), [Rule::TookOver]);
        assert_eq!(broken(vec![old.clone(), itself.clone(), phone("new", 55, &[])], vec![]), []);
        assert_eq!(broken(vec![old, itself], vec![Outage { of: Target::Edge(0), from: 5, to: Some(70) }]), []);
    }
}
