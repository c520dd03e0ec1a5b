//! P2 as arithmetic: whatever is sent again, frozen on its way, written minutes later, or looked up in between, and
//! however often the log goes on with a new generation meanwhile, or its clock steps up and back by hours, one copy is
//! shown, and every acknowledgement names it. The log, its dedupe window and the edges' rule, without a socket.

use std::collections::HashMap;

use natterjack_protocol::{Cid, Times, cid::Age};
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
struct Stored {
    cid: Cid,
    seen: Option<u64>,
    ts: u64,
}

#[derive(Debug, Clone)]
enum Step {
    /// A client says a message, its clock off by so many milliseconds.
    Say { clock: i64 },
    /// One of the messages is sent (again) through some edge; its publish leaves after this delay, which is any if the
    /// edge is frozen. `behind`: the edge knows only the generation before so many.
    Send { which: usize, delay: u64, behind: usize },
    /// Time passes.
    Wait { ms: u64 },
    /// The streams are closed; some time later there are new ones, which know nothing of what was stored.
    Switch { takes: u64 },
    /// The log's clock is set by so much. Back: edges give up what they have on its way, and look up what was made
    /// before.
    Clock { by: i64 },
}

/// A publish on its way.
struct Publish {
    cid: Cid,
    seen: Option<u64>,
    at: u64,
    generation: usize,
}

struct World {
    times: Times,
    now: u64,
    /// By how much the log's clock is off.
    off: i64,
    /// Since when each generation's dedupe map knows everything.
    created: Vec<u64>,
    log: Vec<Stored>,
    /// The window: when a cid was stored last, and where.
    window: HashMap<Cid, (u64, usize)>,
    flying: Vec<Publish>,
    acks: HashMap<Cid, Vec<usize>>,
}

impl World {
    fn clock(&self) -> u64 {
        self.now.saturating_add_signed(self.off)
    }

    /// The window forgets by the log's clock, at once.
    fn forget(&mut self) {
        let (clock, window) = (self.clock(), self.times.dedupe_window.as_millis() as u64);
        self.window.retain(|_, (ts, _)| clock.saturating_sub(*ts) < window);
    }

    fn set_clock(&mut self, by: i64) {
        self.wait(0);
        let before = self.clock();
        self.off += by;
        if by < 0 {
            self.flying.clear();
            if let Some(since) = self.created.last_mut() {
                *since = before.max(*since);
            }
        }
        self.forget();
    }

    fn lookup(&self, cid: Cid, below: usize) -> Option<usize> {
        self.log[..below].iter().position(|s| s.cid == cid)
    }

    fn send(&mut self, cid: Cid, delay: u64, behind: usize) {
        let generation = (self.created.len() - 1).saturating_sub(behind);
        let seen = match cid.age(self.clock(), self.created[generation], &self.times) {
            Age::Ahead => {
                let found = self.lookup(cid, self.log.len());
                return self.acks.entry(cid).or_default().extend(found);
            }
            Age::Fresh => None,
            Age::Old => match self.lookup(cid, self.log.len()) {
                Some(id) => return self.acks.entry(cid).or_default().push(id),
                None => Some(self.clock()),
            },
        };
        self.flying.push(Publish { cid, seen, at: self.now + delay, generation });
    }

    /// What is on its way to the old streams finds nobody there. Who makes the new ones notes how far the clock has
    /// ever been.
    fn switch(&mut self, takes: u64) {
        self.wait(0);
        let over = self.created.len() - 1;
        self.flying.retain(|p| p.generation != over);
        self.window.clear();
        let known = self.log.iter().map(|s| s.ts).chain(self.created.last().copied()).max().unwrap_or(0);
        self.wait(takes);
        self.created.push(self.clock().max(known));
    }

    fn store(&mut self, publish: &Publish) {
        let Publish { cid, seen, at, generation } = *publish;
        if generation + 1 < self.created.len() {
            return;
        }
        let at = at.saturating_add_signed(self.off);
        let id = match self.window.get(&cid) {
            Some((_, id)) => *id,
            None => {
                self.log.push(Stored { cid, seen, ts: at });
                self.window.insert(cid, (at, self.log.len() - 1));
                self.log.len() - 1
            }
        };
        // An edge that hears of it late looks before it says so.
        let on_time = !cid.is_late(at, seen, &self.times);
        let named = if on_time { Some(id) } else { self.lookup(cid, self.log.len()) };
        self.acks.entry(cid).or_default().extend(named);
    }

    fn wait(&mut self, ms: u64) {
        let end = self.now + ms;
        self.flying.sort_by_key(|p| p.at);
        let due = self.flying.partition_point(|p| p.at <= end);
        for publish in self.flying.drain(..due).collect::<Vec<_>>() {
            self.now = publish.at.max(self.now);
            self.forget();
            self.store(&publish);
        }
        self.now = end;
        self.forget();
    }

    fn shown(&self) -> impl Iterator<Item = (usize, Cid)> {
        let hidden =
            |(id, s): &(usize, &Stored)| s.cid.is_late(s.ts, s.seen, &self.times) && self.lookup(s.cid, *id).is_some();
        self.log.iter().enumerate().filter(move |e| !hidden(e)).map(|(id, s)| (id, s.cid))
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (-200_000i64..30_000).prop_map(|clock| Step::Say { clock }),
        1 => Just(Step::Say { clock: 0 }),
        3 => (any::<usize>(), 0u64..2_000).prop_map(|(which, delay)| Step::Send { which, delay, behind: 0 }),
        2 => (any::<usize>(), 0u64..300_000, 0usize..2)
            .prop_map(|(which, delay, behind)| Step::Send { which, delay, behind }),
        1 => (0u64..20_000).prop_map(|takes| Step::Switch { takes }),
        1 => (-7_200_000i64..7_200_000).prop_map(|by| Step::Clock { by }),
        1 => (-90_000i64..90_000).prop_map(|by| Step::Clock { by }),
        2 => (0u64..5_000).prop_map(|ms| Step::Wait { ms }),
        2 => (0u64..90_000).prop_map(|ms| Step::Wait { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn one_copy_is_shown_and_every_ack_names_it(steps in prop::collection::vec(step(), 1..60)) {
        let start = 1_800_000_000_000;
        let mut world = World {
            times: Times::default(),
            now: start,
            off: 0,
            created: vec![start - 5_000],
            log: Vec::new(),
            window: HashMap::new(),
            flying: Vec::new(),
            acks: HashMap::new(),
        };
        let mut cids = Vec::new();
        for step in steps {
            match step {
                Step::Say { clock } => {
                    let mut random = [0; 10];
                    random[9] = cids.len() as u8;
                    cids.push(Cid::mint(world.clock().saturating_add_signed(clock), random));
                }
                Step::Send { which, delay, behind } if !cids.is_empty() => {
                    world.send(cids[which % cids.len()], delay, behind)
                }
                Step::Send { .. } => {}
                Step::Wait { ms } => world.wait(ms),
                Step::Switch { takes } => world.switch(takes),
                Step::Clock { by } => world.set_clock(by),
            }
        }
        world.wait(1_000_000);
        let mut shown = HashMap::new();
        for (id, cid) in world.shown() {
            prop_assert!(shown.insert(cid, id).is_none(), "{cid} is shown twice: {:?}", world.log);
        }
        for (cid, ids) in &world.acks {
            prop_assert!(ids.iter().all(|id| shown.get(cid) == Some(id)), "{cid} was acknowledged as {ids:?}, shown \
                as {:?}", shown.get(cid));
        }
        prop_assert!(world.log.iter().all(|s| shown.contains_key(&s.cid)), "something stored is shown to nobody");
    }
}
