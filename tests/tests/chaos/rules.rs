//! What goes wrong and when: a pure function of the seed.
//!
//! `faults` carries the schedule out. The same seed gives the same schedule; what the machine makes of it differs from
//! run to run.

use std::collections::BTreeMap;

/// Stable over versions of every library, so that a seed written down stays good.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Independent of this one's later numbers.
    pub fn fork(&self, salt: u64) -> Self {
        Self(mix(self.0 ^ mix(salt.wrapping_add(0x5151))))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// `from..to`.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.next() % len as u64).expect("below a usize")
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.range(0, 100) < percent
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.index(i + 1));
        }
    }
}

/// splitmix64.
pub fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Numbers of processes, and how long faults may begin.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub edges: usize,
    pub channels: usize,
    pub persisters: usize,
    pub presences: usize,
    pub nats: usize,
    pub millis: u64,
}

impl Form {
    /// Of three edges one may stand still for longer than its lease; of two the other would have to bear everything.
    fn stretched(&self, freeze_ms: u64) -> u64 {
        if self.edges > 2 { freeze_ms * 9 / 5 } else { freeze_ms }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Edge(usize),
    Channel(usize),
    Persister(usize),
    Presence(usize),
    Nats(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9, and started again afterwards.
    Kill(Target),
    /// SIGSTOP, SIGCONT afterwards.
    Freeze(Target),
    /// SIGTERM, and started again when it has left.
    Drain(usize),
    /// This share of what comes on live subjects is lost between NATS and the edge.
    Lose { edge: usize, percent: u64, salt: u64 },
    /// Between it and NATS nothing passes. `reset`: the connection breaks and no new one comes about; otherwise it is
    /// just silent.
    Cut { of: Target, reset: bool },
}

impl Fault {
    pub fn target(self) -> Target {
        match self {
            Self::Kill(t) | Self::Freeze(t) | Self::Cut { of: t, .. } => t,
            Self::Drain(edge) | Self::Lose { edge, .. } => Target::Edge(edge),
        }
    }

    /// Does its target neither speak nor hear while it lasts?
    pub fn is_outage(self) -> bool {
        !matches!(self, Self::Lose { .. })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub at_ms: u64,
    pub for_ms: u64,
    pub fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    KillEdge,
    FreezeEdge,
    Drain,
    Lose,
    Cut,
    KillChannel,
    FreezeChannel,
    KillPersister,
    FreezePersister,
    KillNats,
    FreezeNats,
}

pub const SORTS: [Sort; 11] = [
    Sort::KillEdge,
    Sort::FreezeEdge,
    Sort::Drain,
    Sort::Lose,
    Sort::Cut,
    Sort::KillChannel,
    Sort::FreezeChannel,
    Sort::KillPersister,
    Sort::FreezePersister,
    Sort::KillNats,
    Sort::FreezeNats,
];

/// A target rests so long between two faults.
const REST_MS: u64 = 1_000;
/// One NATS node at a time, and the next only when the last has caught up: two of three down is not what R3 promises to
/// bear.
const NATS_REST_MS: u64 = 12_000;

/// Every sort once in random order, then again, until the time is over. Faults of different targets overlap.
pub fn schedule(seed: u64, form: &Form) -> Vec<Step> {
    let mut rng = Rng::new(seed).fork(1);
    let mut busy: BTreeMap<Target, u64> = BTreeMap::new();
    let mut nats_busy = 0;
    let mut steps = Vec::new();
    // The first round fits into the time whatever its order.
    let stride = (form.millis / SORTS.len() as u64).min(4_000);
    let mut at = 1_000;
    while at < form.millis {
        let mut round = SORTS;
        rng.shuffle(&mut round);
        for sort in round {
            if at >= form.millis + REST_MS {
                break;
            }
            let target = |rng: &mut Rng, make: fn(usize) -> Target, count: usize| {
                let first = rng.index(count);
                // The one that rests longest already, the drawn one before others.
                let candidates = (0..count).map(|i| make((first + i) % count));
                candidates.min_by_key(|t| busy.get(t).copied().unwrap_or(0).max(at)).expect("at least one")
            };
            let of_edge = |t: Target| match t {
                Target::Edge(i) => i,
                _ => unreachable!("asked for an edge"),
            };
            let (fault, for_ms) = match sort {
                Sort::KillEdge => (Fault::Kill(target(&mut rng, Target::Edge, form.edges)), rng.range(200, 3_000)),
                Sort::FreezeEdge => {
                    let frozen = Fault::Freeze(target(&mut rng, Target::Edge, form.edges));
                    (frozen, form.stretched(rng.range(1_000, 7_000)))
                }
                Sort::Drain => {
                    (Fault::Drain(of_edge(target(&mut rng, Target::Edge, form.edges))), rng.range(200, 2_000))
                }
                Sort::Lose => {
                    let edge = of_edge(target(&mut rng, Target::Edge, form.edges));
                    (Fault::Lose { edge, percent: rng.range(5, 60), salt: rng.next() }, rng.range(2_000, 5_000))
                }
                Sort::Cut => {
                    let of = target(&mut rng, Target::Edge, form.edges);
                    (Fault::Cut { of, reset: rng.chance(50) }, rng.range(1_000, 6_000))
                }
                Sort::KillChannel => {
                    (Fault::Kill(target(&mut rng, Target::Channel, form.channels)), rng.range(200, 4_000))
                }
                Sort::FreezeChannel => {
                    (Fault::Freeze(target(&mut rng, Target::Channel, form.channels)), rng.range(1_000, 6_000))
                }
                Sort::KillPersister => {
                    (Fault::Kill(target(&mut rng, Target::Persister, form.persisters)), rng.range(200, 4_000))
                }
                Sort::FreezePersister => {
                    (Fault::Freeze(target(&mut rng, Target::Persister, form.persisters)), rng.range(1_000, 6_000))
                }
                Sort::KillNats => (Fault::Kill(target(&mut rng, Target::Nats, form.nats)), rng.range(200, 4_000)),
                Sort::FreezeNats => (Fault::Freeze(target(&mut rng, Target::Nats, form.nats)), rng.range(1_000, 5_000)),
            };
            let target = fault.target();
            let of_nats = matches!(target, Target::Nats(_));
            let free = if of_nats { nats_busy } else { busy.get(&target).copied().unwrap_or(0) };
            let begin = at.max(free);
            if of_nats {
                nats_busy = begin + for_ms + if form.nats > 1 { NATS_REST_MS } else { REST_MS };
            }
            busy.insert(target, begin + for_ms + REST_MS);
            steps.push(Step { at_ms: begin, for_ms, fault });
            at += stride / 2 + rng.range(0, stride);
        }
    }
    steps.extend(of_presence(seed, form));
    steps.sort_by_key(|s| s.at_ms);
    steps
}

/// The role `presence` is killed, frozen and cut off all the time, beside everything else. From numbers of its own, so
/// that the rest of a seed's schedule is what it was.
fn of_presence(seed: u64, form: &Form) -> Vec<Step> {
    let mut rng = Rng::new(seed).fork(2);
    let (mut steps, mut at) = (Vec::new(), 3_000);
    while at < form.millis && form.presences > 0 {
        let target = Target::Presence(rng.index(form.presences));
        let (fault, for_ms) = match steps.len() % 3 {
            // Longer than it takes until nobody hears it any more.
            0 => (Fault::Cut { of: target, reset: rng.chance(50) }, rng.range(4_500, 8_000)),
            1 => (Fault::Kill(target), rng.range(200, 5_000)),
            _ => (Fault::Freeze(target), rng.range(1_000, 8_000)),
        };
        steps.push(Step { at_ms: at, for_ms, fault });
        at += for_ms + REST_MS + rng.range(1_000, 7_000);
    }
    steps
}

/// None: of presence, which has a schedule of its own.
pub fn sort_of(fault: Fault) -> Option<Sort> {
    let sort = match fault {
        Fault::Kill(Target::Edge(_)) => Sort::KillEdge,
        Fault::Kill(Target::Channel(_)) => Sort::KillChannel,
        Fault::Kill(Target::Persister(_)) => Sort::KillPersister,
        Fault::Kill(Target::Nats(_)) => Sort::KillNats,
        Fault::Freeze(Target::Edge(_)) => Sort::FreezeEdge,
        Fault::Freeze(Target::Channel(_)) => Sort::FreezeChannel,
        Fault::Freeze(Target::Persister(_)) => Sort::FreezePersister,
        Fault::Freeze(Target::Nats(_)) => Sort::FreezeNats,
        Fault::Drain(_) => Sort::Drain,
        Fault::Lose { .. } => Sort::Lose,
        Fault::Cut { of: Target::Edge(_), .. } => Sort::Cut,
        Fault::Kill(Target::Presence(_)) | Fault::Freeze(Target::Presence(_)) | Fault::Cut { .. } => return None,
    };
    Some(sort)
}

mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SHORT: Form = Form { edges: 2, channels: 2, persisters: 1, presences: 1, nats: 1, millis: 38_000 };
    const HEAVY: Form = Form { edges: 3, channels: 2, persisters: 2, presences: 2, nats: 3, millis: 180_000 };

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(schedule(7, &SHORT), schedule(7, &SHORT));
        assert_ne!(schedule(7, &SHORT), schedule(8, &SHORT));
        assert_eq!(Rng::new(42).next(), 13_679_457_532_755_275_413);
        // Written down: a seed of last month means the same today.
        let step = |at_ms, for_ms, fault| Step { at_ms, for_ms, fault };
        let first = [
            step(1_000, 859, Fault::Drain(1)),
            step(5_074, 1_881, Fault::Freeze(Target::Persister(0))),
            step(9_304, 3_048, Fault::Kill(Target::Persister(0))),
            step(12_178, 2_924, Fault::Freeze(Target::Channel(1))),
            step(14_006, 2_292, Fault::Cut { of: Target::Edge(1), reset: true }),
        ];
        let (mut steps, of_presence): (Vec<_>, Vec<_>) =
            schedule(42, &SHORT).into_iter().partition(|s| sort_of(s.fault).is_some());
        assert_eq!((&steps[..5], steps.len()), (&first[..], 11));
        steps.extend(of_presence);
        assert!(steps.len() > 13, "presence is watched while it is away, too: {steps:?}");
    }

    #[test]
    fn no_target_has_two_faults_at_once_and_nats_one_node_at_a_time() {
        for form in [SHORT, HEAVY] {
            for seed in 0..300 {
                let steps = schedule(seed, &form);
                let until = |s: &Step| s.at_ms + s.for_ms;
                for (i, a) in steps.iter().enumerate() {
                    for b in &steps[i + 1..] {
                        let (one, two) = (a.fault.target(), b.fault.target());
                        let nats = matches!((one, two), (Target::Nats(_), Target::Nats(_)));
                        if one == two || nats {
                            assert!(until(a) < b.at_ms, "seed {seed}: {a:?} and {b:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nearly_every_run_meets_every_sort_of_fault() {
        let sorts =
            |seed| schedule(seed, &SHORT).iter().filter_map(|s| sort_of(s.fault)).collect::<BTreeSet<_>>().len();
        for seed in 0..300 {
            assert!(sorts(seed) >= SORTS.len() - 4, "seed {seed} has {} sorts", sorts(seed));
        }
        assert!((0..300).filter(|s| sorts(*s) == SORTS.len()).count() > 150);
        // And none waits for ever behind another.
        for seed in 0..300 {
            assert!(schedule(seed, &SHORT).iter().all(|s| s.at_ms + s.for_ms < 65_000), "seed {seed}");
        }
    }
}
