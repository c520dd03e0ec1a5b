//! P9 as arithmetic: whatever order claims at several edges come in, whoever gives up half-way, freezes, wakes up or is
//! cut off, at no moment more devices of a class can write than its policy allows. The value, its compare-and-set and
//! the edges' rules, without a socket.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{tests::hello, *};

const EDGES: usize = 3;
const DEVICES: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    /// A device says hello at an edge; `back`: with the session that it had last.
    Hello {
        device: usize,
        edge: usize,
        back: bool,
    },
    /// One of the hellos goes on: reads, writes, asks the edges of those who are to be settled, is greeted.
    GoOn {
        which: usize,
    },
    /// The connection of one of the hellos breaks.
    GiveUp {
        which: usize,
    },
    /// A session that was greeted ends.
    Leave {
        which: usize,
    },
    Freeze {
        edge: usize,
    },
    /// Its lease runs out, if it is frozen.
    RunOut {
        edge: usize,
    },
    Wake {
        edge: usize,
    },
    /// What was to be released is.
    Release {
        which: usize,
    },
}

/// A hello on its way.
#[derive(Debug, Clone)]
struct Attempt {
    claim: DeviceClaim,
    edge: usize,
    read: Option<(u64, UserDevices)>,
    /// Once written: who has to be settled.
    settle: Option<Vec<UnsettledSession>>,
    settled: Vec<Token>,
}

#[derive(Debug, Clone, Default)]
struct Edge {
    frozen: bool,
    /// Since it froze others may have given it up; it writes nothing until it has read the value.
    fenced: bool,
    /// Greeted, and not closed yet.
    sessions: Vec<(DeviceId, Token, Vec<Token>)>,
    /// Sessions that were displaced before they were greeted.
    closed: BTreeSet<Token>,
}

struct World {
    policy: DevicePolicy,
    value: UserDevices,
    revision: u64,
    edges: Vec<Edge>,
    attempts: Vec<Attempt>,
    releases: Vec<(DeviceId, Token, Vec<Token>)>,
    last: Vec<Option<Token>>,
    now: u64,
}

impl World {
    fn new(policy: DevicePolicy) -> Self {
        let edges = vec![Edge::default(); EDGES];
        let value = UserDevices::default();
        Self {
            policy,
            value,
            revision: 0,
            edges,
            attempts: Vec::new(),
            releases: Vec::new(),
            last: vec![None; DEVICES],
            now: 1_000,
        }
    }

    fn step(&mut self, step: &Step) {
        self.now += 1;
        match *step {
            Step::Hello { device, edge, back } => {
                let session = format!("s{}", self.now);
                let mut claim =
                    hello(&format!("d{device}"), DeviceClass::Phone, &format!("e{edge}"), &session, self.now);
                claim.had = self.last[device].clone().filter(|_| back);
                self.attempts.push(Attempt { claim, edge, read: None, settle: None, settled: Vec::new() });
            }
            Step::GoOn { which } if !self.attempts.is_empty() => {
                let which = which % self.attempts.len();
                self.go_on(which);
            }
            Step::GiveUp { which } if !self.attempts.is_empty() => {
                let at = which % self.attempts.len();
                let Attempt { claim, settled, settle, .. } = self.attempts.remove(at);
                if settle.is_some() {
                    self.releases.push((claim.device, claim.place.session, settled));
                }
            }
            Step::Leave { which } => {
                let all: Vec<(usize, usize)> = (0..EDGES)
                    .filter(|e| !self.edges[*e].frozen)
                    .flat_map(|e| (0..self.edges[e].sessions.len()).map(move |s| (e, s)))
                    .collect();
                if let Some((edge, session)) = all.get(which % all.len().max(1)) {
                    let session = self.edges[*edge].sessions.remove(*session);
                    self.releases.push(session);
                }
            }
            Step::Release { which } if !self.releases.is_empty() => {
                let (device, session, settled) = self.releases.remove(which % self.releases.len());
                if self.value.leave(&device, &session, self.now, &settled) {
                    self.revision += 1;
                }
            }
            Step::Freeze { edge } => self.edges[edge].frozen = true,
            Step::RunOut { edge } => self.edges[edge].fenced |= self.edges[edge].frozen,
            Step::Wake { edge } => self.wake(edge),
            _ => {}
        }
    }

    fn go_on(&mut self, which: usize) {
        let attempt = &mut self.attempts[which];
        if self.edges[attempt.edge].frozen {
            return;
        }
        let Some((revision, mut value)) = attempt.read.take() else {
            attempt.read = Some((self.revision, self.value.clone()));
            return;
        };
        let Some(settle) = attempt.settle.clone() else {
            let edges = &self.edges;
            let gone = |place: &SessionPlace| edges[index(place)].fenced;
            match value.claim(&attempt.claim, &self.policy, gone) {
                Claimed::Yes { settle, .. } if revision == self.revision => {
                    (self.value, self.revision, attempt.settle) = (value, revision + 1, Some(settle));
                    attempt.read = Some((self.revision, UserDevices::default()));
                }
                Claimed::Yes { .. } => {}
                _ => drop(self.attempts.remove(which)),
            }
            return;
        };
        attempt.read = Some((0, UserDevices::default()));
        if let Some(unsettled) = settle.iter().find(|u| !attempt.settled.contains(&u.place.session)) {
            let edge = &mut self.edges[index(&unsettled.place)];
            if edge.frozen && !edge.fenced {
                return;
            }
            if !edge.frozen {
                edge.closed.insert(unsettled.place.session.clone());
                edge.sessions.retain(|(_, s, _)| *s != unsettled.place.session);
            }
            attempt.settled.push(unsettled.place.session.clone());
            return;
        }
        let Attempt { claim, edge, settled, .. } = self.attempts.remove(which);
        let DeviceClaim { device, place: SessionPlace { session, .. }, .. } = claim;
        if self.edges[edge].closed.contains(&session) {
            return self.releases.push((device, session, settled));
        }
        // The older connection of a device at the same edge is replaced there.
        self.edges[edge].sessions.retain(|(d, ..)| *d != device);
        self.last[device.as_str()[1..].parse::<usize>().unwrap()] = Some(session.clone());
        self.edges[edge].sessions.push((device, session, settled));
    }

    /// It reads the value before it goes on, and hellos that were on their way when its lease ran out are refused.
    fn wake(&mut self, at: usize) {
        let edge = &mut self.edges[at];
        edge.frozen = false;
        if std::mem::take(&mut edge.fenced) {
            let value = &self.value;
            edge.sessions.retain(|(device, session, _)| value.has(device, session));
            self.attempts.retain(|a| a.edge != at);
        }
    }

    /// The devices of which something can reach the log.
    fn writers(&self) -> BTreeSet<&str> {
        self.edges.iter().filter(|e| !e.fenced).flat_map(|e| e.sessions.iter().map(|(d, ..)| d.as_str())).collect()
    }
}

fn index(place: &SessionPlace) -> usize {
    place.edge.as_str()[1..].parse().unwrap()
}

fn step() -> impl Strategy<Value = Step> {
    let edge = || 0..EDGES;
    prop_oneof![
        3 => (0..DEVICES, edge(), any::<bool>()).prop_map(|(device, edge, back)| Step::Hello { device, edge, back }),
        12 => any::<usize>().prop_map(|which| Step::GoOn { which }),
        1 => any::<usize>().prop_map(|which| Step::GiveUp { which }),
        1 => any::<usize>().prop_map(|which| Step::Leave { which }),
        2 => any::<usize>().prop_map(|which| Step::Release { which }),
        1 => edge().prop_map(|edge| Step::Freeze { edge }),
        1 => edge().prop_map(|edge| Step::RunOut { edge }),
        2 => edge().prop_map(|edge| Step::Wake { edge }),
    ]
}

fn policy() -> impl Strategy<Value = DevicePolicy> {
    let way = prop_oneof![Just(GivesWay::Oldest), Just(GivesWay::LeastActive), Just(GivesWay::Nobody)];
    (1usize..3, way).prop_map(|(count, gives_way)| DevicePolicy {
        phone: ClassPolicy { count, gives_way },
        ..DevicePolicy::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn never_more_devices_of_a_class_can_write_than_may(
        policy in policy(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(policy);
        for step in &steps {
            world.step(step);
            let writers = world.writers();
            prop_assert!(writers.len() <= policy.phone.count, "{writers:?} after {step:?}: {:?}", world.value);
            let connected = world.value.devices.iter().filter(|d| d.session.is_some()).count();
            prop_assert!(connected <= policy.phone.count);
            prop_assert!(world.value.bytes() <= limits::USER_DEVICES_BYTES);
        }
    }

    /// And somebody gets in: a phone that is opened while nothing is frozen is greeted, whatever was before.
    #[test]
    fn who_opens_it_gets_in(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new(DevicePolicy::default());
        steps.iter().for_each(|step| world.step(step));
        (0..EDGES).for_each(|edge| world.wake(edge));
        world.attempts.clear();
        world.step(&Step::Hello { device: 0, edge: 0, back: false });
        for _ in 0..40 {
            world.step(&Step::GoOn { which: 0 });
        }
        prop_assert_eq!(world.writers(), BTreeSet::from(["d0"]), "{:?}", world.value);
    }
}
