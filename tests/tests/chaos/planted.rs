//! The checker is shown to fail: recordings in which one rule was broken on purpose, each caught by that rule.
//! Planted into a made-up recording here, and into the recording of every real run.

mod cursors;
mod healthy;
mod messages;
mod people;

use super::{
    checker::{Rule, Verdict, check, check_reading},
    record::Recording,
};

/// What is broken, which rule must say so, and how. `None`: the recording has no place for it.
type Plant = (&'static str, Rule, fn(&mut Recording) -> Option<()>);

pub const COUNT: usize = messages::PLANTS.len() + people::PLANTS.len() + cursors::PLANTS.len();

/// Each with what judges it.
fn plants() -> impl Iterator<Item = (Plant, fn(&Recording) -> Verdict)> {
    let whole =
        messages::PLANTS.into_iter().chain(people::PLANTS).map(|plant| (plant, check as fn(&Recording) -> Verdict));
    whole.chain(cursors::PLANTS.into_iter().map(|plant| (plant, check_reading as fn(&Recording) -> Verdict)))
}

/// How many of these [`COUNT`] had a place in this recording, all of them caught; panics with the first that was not.
pub fn caught(healthy: &Recording) -> usize {
    let mut caught = 0;
    for ((what, rule, plant), judge) in plants() {
        let mut broken = healthy.clone();
        if plant(&mut broken).is_none() {
            continue;
        }
        let verdict = judge(&broken);
        assert!(verdict.broken().contains(&rule), "{what}: not caught by {rule:?}, but by {:?}", verdict.broken());
        caught += 1;
    }
    caught
}

#[test]
fn a_healthy_recording_passes_and_every_planted_fault_is_caught() {
    let healthy = healthy::healthy();
    let verdict = check(&healthy);
    assert!(verdict.violations.is_empty(), "{verdict}");
    assert_eq!(verdict.acked, 198);
    assert_eq!(caught(&healthy), COUNT);
    // And there is no rule without a fault that it alone has to see.
    assert_eq!(Rule::ALL.len(), Rule::ReadLost as usize + 1);
    for rule in Rule::ALL {
        assert!(plants().any(|((_, of, _), _)| of == rule), "{rule:?} was never shown to fail");
    }
}
