//! The table beside a model that keeps everything that was ever heard and computes each answer anew.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const REFRESH: u64 = 3_000;
const WAIT: u64 = 10_000;

fn user(n: u8) -> UserId {
    UserId::parse(&format!("u{n}")).unwrap()
}

fn run(edge: u8, incarnation: u8) -> EdgeRun {
    EdgeRun { edge: Token::parse(&format!("e{edge}")).unwrap(), incarnation: incarnation.to_string().into() }
}

fn at(ms: u64) -> Moment {
    Moment { server: 1_000_000 + ms, monotonic: ms }
}

#[derive(Debug, Clone)]
enum Heard {
    /// Devices at these runs, and how long ago one left.
    Sessions(u8, Vec<(u8, u8)>, Option<u64>),
    Deleted(u8),
    Settings(u8),
    Lease(u8, u8),
    LeaseGone(u8),
    /// All pings that are due, and which edges answer.
    Pings(Vec<bool>),
    Wait(u64),
    Batch,
}

fn heard() -> impl Strategy<Value = Heard> {
    let runs = || prop::collection::vec((0u8..3, 0u8..2), 0..3);
    prop_oneof![
        4 => (0u8..4, runs(), prop::option::of(0u64..15_000)).prop_map(|(u, r, l)| Heard::Sessions(u, r, l)),
        1 => (0u8..4).prop_map(Heard::Deleted),
        1 => (0u8..4).prop_map(Heard::Settings),
        3 => (0u8..3, 0u8..2).prop_map(|(e, i)| Heard::Lease(e, i)),
        2 => (0u8..3).prop_map(Heard::LeaseGone),
        3 => prop::collection::vec(any::<bool>(), 4).prop_map(Heard::Pings),
        3 => (1u64..8_000).prop_map(Heard::Wait),
        2 => Just(Heard::Batch),
    ]
}

/// Everything that was heard, by time.
#[derive(Default)]
struct Model {
    now: u64,
    revision: u64,
    /// Of each user what the key says, and since when it was heard.
    sessions: BTreeMap<u8, UserSessions>,
    settings: BTreeMap<u8, u64>,
    /// Of each edge the last lease: run, when, standing.
    leases: BTreeMap<u8, (EdgeRun, u64, bool)>,
    dead: BTreeMap<EdgeRun, u64>,
}

impl Model {
    fn at(&self) -> Moment {
        at(self.now)
    }

    fn connected(&self, u: u8) -> Connected {
        let Some(sessions) = self.sessions.get(&u) else { return Connected::Unknown };
        let ends: Vec<Option<u64>> = sessions.runs.iter().map(|r| self.dead.get(r).copied()).collect();
        if ends.iter().any(Option::is_none) {
            return Connected::Yes;
        }
        match ends.into_iter().chain([sessions.left]).max().flatten() {
            Some(left) if self.at().server < left + WAIT => Connected::Yes,
            left => Connected::No(left),
        }
    }

    /// Runs that somebody's key names, and of whose edge another run's lease stands.
    fn succeeded(&mut self) {
        let named: Vec<EdgeRun> = self.sessions.values().flat_map(|s| s.runs.clone()).collect();
        for run in named {
            let lease = self.leases.values().find(|(r, ..)| r.edge == run.edge);
            if let Some((_, written, true)) = lease.filter(|(r, ..)| *r != run) {
                self.dead.entry(run).or_insert(at(*written).server);
            }
        }
        // What nobody's key names is forgotten.
        let named = |run: &EdgeRun| self.sessions.values().any(|s| s.runs.contains(run));
        let forgotten: Vec<EdgeRun> = self.dead.keys().filter(|run| !named(run)).cloned().collect();
        self.dead.retain(|run, _| !forgotten.contains(run));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_table_says_what_the_model_says_and_batches_miss_nothing(all in prop::collection::vec(heard(), 1..60)) {
        let (mut table, mut model) = (ShardTable::new(1, Duration::from_millis(REFRESH)), Model::default());
        table.begin(model.at());
        // Who hears every batch, from the state at the beginning.
        let mut watcher: BTreeMap<u8, UserPresence> = (0..4).map(|u| (u, table.get(&user(u), model.at()))).collect();
        for heard in all {
            let now = model.at();
            match heard {
                Heard::Sessions(u, runs, left) => {
                    let runs = runs.into_iter().map(|(e, i)| run(e, i)).collect();
                    let sessions = UserSessions { runs, left: left.map(|ago| now.server - ago) };
                    model.revision += 1;
                    table.sessions(&user(u), Some(sessions.clone()), 10 + model.revision, now);
                    model.sessions.insert(u, sessions);
                }
                Heard::Deleted(u) => {
                    model.revision += 1;
                    table.sessions(&user(u), None, 10 + model.revision, now);
                    model.sessions.insert(u, UserSessions::default());
                }
                Heard::Settings(u) => {
                    model.revision += 1;
                    table.settings(&user(u), PresenceSettings::default(), model.revision, now);
                    model.settings.insert(u, model.revision);
                }
                Heard::Lease(e, i) => {
                    table.lease(&run(e, i), false, now);
                    let former = model.leases.insert(e, (run(e, i), model.now, true));
                    model.dead.remove(&run(e, i));
                    if let Some((former, written, _)) = former.filter(|(f, ..)| *f != run(e, i)) {
                        model.dead.entry(former).or_insert(at(written).server);
                    }
                }
                Heard::LeaseGone(e) => {
                    table.lease_gone(&run(e, 0).edge, now);
                    if let Some((.., standing)) = model.leases.get_mut(&e) {
                        *standing = false;
                    }
                }
                Heard::Pings(answers) => {
                    for (n, pinged) in table.ping_now(now).into_iter().enumerate() {
                        let lease = model.leases.values().find(|(r, ..)| r.edge == pinged.edge);
                        prop_assert!(lease.is_none_or(|(.., standing)| !standing), "an edge with a lease is pinged");
                        if table.pinged(&pinged, answers[n % answers.len()], now) {
                            // The table says when it lived last; that this is right, `edges` tests.
                            let since = table.edges.dead_since(&pinged).unwrap();
                            model.dead.insert(pinged, since);
                        }
                    }
                }
                Heard::Wait(ms) => model.now += ms,
                Heard::Batch => {
                    for said in table.changes(now, 2) {
                        let u = said.user.as_str()[1..].parse::<u8>().unwrap();
                        watcher.get_mut(&u).unwrap().hear(&said);
                    }
                }
            }
            model.succeeded();
            for u in 0..4 {
                prop_assert_eq!(table.get(&user(u), model.at()).connected, model.connected(u));
            }
            let swept: BTreeSet<UserId> = table.to_sweep().map(|(user, ..)| user.clone()).collect();
            let to_sweep = model.sessions.iter().filter(|(_, s)| s.runs.iter().any(|r| model.dead.contains_key(r)));
            prop_assert_eq!(swept, to_sweep.map(|(u, _)| user(*u)).collect());
        }
        while table.has_changes() || table.next_due().is_some_and(|due| due <= model.now) {
            for said in table.changes(model.at(), 3) {
                watcher.get_mut(&said.user.as_str()[1..].parse().unwrap()).unwrap().hear(&said);
            }
        }
        for u in 0..4 {
            prop_assert_eq!(watcher[&u].connected, model.connected(u));
            prop_assert_eq!(watcher[&u].settings_revision, model.settings.get(&u).copied().unwrap_or(0));
        }
    }
}

fn here(runs: &[EdgeRun]) -> Option<UserSessions> {
    Some(UserSessions { runs: runs.to_vec(), left: None })
}

fn left(ms: u64) -> Option<UserSessions> {
    Some(UserSessions { runs: Vec::new(), left: Some(at(ms).server) })
}

fn begun() -> ShardTable {
    let mut table = ShardTable::new(1, Duration::from_millis(REFRESH));
    table.lease(&run(0, 0), true, at(0));
    assert!(table.completes() && !table.completes());
    table.begin(at(0));
    table
}

#[test]
fn who_comes_and_goes_within_the_debounce_is_never_mentioned() {
    let mut table = begun();
    for n in 0..200u64 {
        table.sessions(&user((n % 5) as u8), here(&[run(0, 0)]), 10 + 2 * n, at(n));
        if n == 4 {
            assert_eq!(table.changes(at(n), 10).len(), 5, "they came");
        }
        table.sessions(&user((n % 5) as u8), left(n), 11 + 2 * n, at(n));
    }
    (0..5).for_each(|u| table.sessions(&user(u), here(&[run(0, 0)]), 1_000, at(200)));
    assert_eq!(table.changes(at(300), 10), []);
    assert_eq!((table.next_due(), table.changes(at(60_000), 10)), (None, Vec::new()));
}

#[test]
fn who_leaves_is_offline_after_the_debounce_also_of_an_instance_that_began_meanwhile() {
    let mut table = begun();
    table.sessions(&user(1), left(0), 10, at(4_000));
    table.begin(at(4_000));
    assert_eq!(table.get(&user(1), at(4_000)).connected, Connected::Yes);
    assert_eq!(table.next_due(), Some(10_000));
    assert_eq!(table.changes(at(9_999), 10), []);
    let offline = Connected::No(Some(at(0).server));
    assert_eq!(table.changes(at(10_000), 10).iter().map(|u| u.connected).collect::<Vec<_>>(), [offline]);
}

#[test]
fn absence_is_unknown_until_every_edge_has_put_its_sessions() {
    let mut table = ShardTable::new(7, Duration::from_millis(REFRESH));
    table.lease(&run(0, 0), true, at(0));
    table.lease(&run(1, 0), false, at(0));
    assert!(!table.completes(), "an edge has yet to put its sessions");
    assert_eq!(table.get(&user(1), at(0)), UserPresence { revision: 7, ..UserPresence::unknown(user(1)) });
    table.settings(&user(1), PresenceSettings::default(), 3, at(0));
    assert_eq!(table.get(&user(1), at(0)).connected, Connected::Unknown, "settings are no devices");
    table.lease(&run(1, 0), true, at(10));
    assert!(table.completes());
    assert_eq!(table.get(&user(1), at(10)).connected, Connected::No(None));
    table.lease(&run(2, 0), false, at(20));
    assert_eq!(
        table.get(&user(2), at(20)).connected,
        Connected::No(None),
        "an edge that is new has no sessions to put"
    );
}

#[test]
fn everybody_of_an_edge_that_was_given_up_is_offline_at_once_and_swept() {
    let mut table = begun();
    let dead = run(1, 0);
    table.lease(&dead, true, at(0));
    for u in 0..100 {
        table.sessions(&user(u), here(std::slice::from_ref(&dead)), 10, at(1));
    }
    table.sessions(&user(100), here(&[dead.clone(), run(0, 0)]), 10, at(1));
    assert_eq!(table.changes(at(2), 1_000).len(), 101);
    table.lease_gone(&dead.edge, at(10_000));
    table.lease(&run(0, 0), true, at(10_500));
    assert_eq!(table.ping_now(at(10_500)), std::slice::from_ref(&dead));
    assert_eq!(table.changes(at(10_500), 1_000), [], "a suspect is still who it was");
    assert!(table.pinged(&dead, false, at(12_500)));
    let changes = table.changes(at(12_500), 1_000);
    assert_eq!(changes.len(), 100, "who is at another edge, too, stays");
    assert!(changes.iter().all(|c| c.connected == Connected::No(Some(at(0).server))), "since its last lease");
    assert_eq!(table.to_sweep().count(), 101);
    table.sessions(&user(100), here(&[run(0, 0)]), 11, at(12_600));
    (0..100).for_each(|u| table.sessions(&user(u), left(0), 11, at(12_600)));
    assert_eq!((table.to_sweep().count(), table.changes(at(12_600), 1_000).len()), (0, 0));
}
