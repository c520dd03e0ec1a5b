//! Which edges live, and what has to be true before one is given up. Pure.
//!
//! An edge without a lease is a suspect. It is given up when the leases of others are refreshed meanwhile (else KV is
//! sick and not the edge), or there are no others, and it does not answer a ping.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use natterjack_protocol::Token;

use crate::moment::Moment;

/// One run of an edge: its sessions end with it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeRun {
    pub edge: Token,
    pub incarnation: Arc<str>,
}

impl fmt::Debug for EdgeRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.edge, self.incarnation)
    }
}

/// What an edge's lease said last.
struct Lease {
    incarnation: Arc<str>,
    written: Moment,
    /// It has not expired, and was not deleted.
    standing: bool,
    /// Its sessions are in the bucket that is watched.
    in_bucket: bool,
}

struct Suspect {
    /// Since then its lease is missed, by the monotonic clock.
    since: u64,
    /// It is pinged from then on; none: a ping is under way.
    ping_at: Option<u64>,
}

pub struct EdgeLeases {
    /// How often a living edge writes its lease, in milliseconds.
    refresh: u64,
    leases: BTreeMap<Token, Lease>,
    suspects: HashMap<EdgeRun, Suspect>,
    /// Given up, and when each was known to live last, by the server's clock.
    dead: HashMap<EdgeRun, u64>,
}

impl EdgeLeases {
    pub fn new(refresh_ms: u64) -> Self {
        Self { refresh: refresh_ms, leases: BTreeMap::new(), suspects: HashMap::new(), dead: HashMap::new() }
    }

    /// An edge has written its lease. Returns the runs whose sessions have to be looked at again: this one, if it was
    /// given up and lives after all, and the former one, whose successor it is.
    pub fn written(&mut self, run: &EdgeRun, in_bucket: bool, now: Moment) -> Vec<EdgeRun> {
        let lease = Lease { incarnation: run.incarnation.clone(), written: now, standing: true, in_bucket };
        let before = self.leases.insert(run.edge.clone(), lease);
        self.suspects.remove(run);
        let mut others: Vec<EdgeRun> = self.dead.remove(run).map(|_| run.clone()).into_iter().collect();
        if let Some(before) = before.filter(|lease| lease.incarnation != run.incarnation) {
            let former = EdgeRun { edge: run.edge.clone(), incarnation: before.incarnation };
            self.suspects.remove(&former);
            self.dead.entry(former.clone()).or_insert(before.written.server);
            others.push(former);
        }
        others
    }

    /// The lease has expired or was deleted.
    pub fn gone(&mut self, edge: &Token) {
        if let Some(lease) = self.leases.get_mut(edge) {
            lease.standing = false;
        }
    }

    /// Does every edge that lives have its sessions in the bucket? Then who is not in it is not here.
    pub fn all_in_bucket(&self) -> bool {
        let mut standing = self.leases.values().filter(|l| l.standing).peekable();
        standing.peek().is_some() && standing.all(|l| l.in_bucket)
    }

    /// If it was given up: when it was known to live last, by the server's clock.
    pub fn dead_since(&self, run: &EdgeRun) -> Option<u64> {
        self.dead.get(run).copied()
    }

    /// Looks at a run that has sessions. True: it has just been found dead.
    pub fn look(&mut self, run: &EdgeRun, now: Moment) -> bool {
        if self.dead.contains_key(run) {
            return false;
        }
        match self.leases.get(&run.edge) {
            Some(lease) if lease.standing && lease.incarnation == run.incarnation => false,
            // Another run of the same edge: this one has ended.
            Some(lease) if lease.standing => {
                let last = lease.written.server;
                self.suspects.remove(run);
                self.dead.insert(run.clone(), last);
                true
            }
            _ => {
                let suspect = Suspect { since: now.monotonic, ping_at: Some(now.monotonic) };
                self.suspects.entry(run.clone()).or_insert(suspect);
                false
            }
        }
    }

    /// Has another lease been refreshed since, or is there none that could be?
    fn others_live(&self, suspect: &Suspect, now: Moment) -> bool {
        let mut standing = self.leases.values().filter(|l| l.standing).peekable();
        match standing.peek() {
            // Those that live have had the time to write theirs again.
            None => now.monotonic >= suspect.since + self.refresh,
            Some(_) => standing.any(|l| l.written.monotonic >= suspect.since),
        }
    }

    /// Suspects to be pinged now. Each has to be answered by [`EdgeLeases::answered`] or [`EdgeLeases::silent`].
    pub fn ping_now(&mut self, now: Moment) -> Vec<EdgeRun> {
        let due = |s: &Suspect| s.ping_at.is_some_and(|at| at <= now.monotonic) && self.others_live(s, now);
        let mut due: Vec<EdgeRun> = self.suspects.iter().filter(|(_, s)| due(s)).map(|(run, _)| run.clone()).collect();
        due.sort_unstable();
        for run in &due {
            if let Some(suspect) = self.suspects.get_mut(run) {
                suspect.ping_at = None;
            }
        }
        due
    }

    /// It lives and cannot write its lease: pinged again after the time of a refresh.
    pub fn answered(&mut self, run: &EdgeRun, now: Moment) {
        if let Some(suspect) = self.suspects.get_mut(run) {
            suspect.ping_at = Some(now.monotonic + self.refresh);
        }
    }

    /// It did not answer, and is given up unless its lease has come meanwhile. True: it is dead now.
    pub fn silent(&mut self, run: &EdgeRun, now: Moment) -> bool {
        let Some(suspect) = self.suspects.remove(run) else { return false };
        let lease = self.leases.get(&run.edge).filter(|l| l.incarnation == run.incarnation);
        // Of one whose lease was never seen here: it was missing since then, at the latest.
        let missed_ms = now.monotonic.saturating_sub(suspect.since);
        let last = lease.map_or_else(|| now.server.saturating_sub(missed_ms), |l| l.written.server);
        self.dead.insert(run.clone(), last);
        true
    }

    /// Nothing is left of it.
    pub fn forget(&mut self, run: &EdgeRun) {
        self.suspects.remove(run);
        self.dead.remove(run);
    }

    pub fn dead(&self) -> impl Iterator<Item = &EdgeRun> {
        self.dead.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(edge: &str, incarnation: &str) -> EdgeRun {
        EdgeRun { edge: Token::parse(edge).unwrap(), incarnation: incarnation.into() }
    }

    fn at(ms: u64) -> Moment {
        Moment { server: 1_000_000 + ms, monotonic: ms }
    }

    #[test]
    fn a_suspect_is_pinged_when_another_lease_was_refreshed_since() {
        let (a, b, mut edges) = (run("a", "1"), run("b", "1"), EdgeLeases::new(3_000));
        edges.written(&a, true, at(0));
        edges.written(&b, true, at(0));
        edges.gone(&a.edge);
        assert!(!edges.look(&a, at(10_000)));
        assert_eq!(edges.ping_now(at(20_000)), [], "no lease was refreshed since: KV may be sick");
        edges.written(&b, true, at(20_000));
        assert_eq!(edges.ping_now(at(20_001)), std::slice::from_ref(&a));
        assert_eq!(edges.ping_now(at(20_002)), [], "a ping is under way");
        edges.answered(&a, at(20_500));
        assert_eq!(edges.ping_now(at(23_000)), []);
        assert_eq!(edges.ping_now(at(23_500)), std::slice::from_ref(&a));
        assert!(edges.silent(&a, at(25_000)));
        assert_eq!(edges.dead_since(&a), Some(1_000_000), "its last lease was written then");
        assert_eq!(edges.dead_since(&b), None);
    }

    #[test]
    fn without_any_other_edge_the_ping_decides_after_a_refresh() {
        let (a, mut edges) = (run("a", "1"), EdgeLeases::new(3_000));
        assert!(!edges.look(&a, at(100)));
        assert_eq!(edges.ping_now(at(3_000)), []);
        assert_eq!(edges.ping_now(at(3_100)), std::slice::from_ref(&a));
        assert!(edges.silent(&a, at(5_000)));
        assert_eq!(edges.dead_since(&a), Some(1_000_100), "its lease was missing since it was looked for");
    }

    #[test]
    fn a_lease_that_comes_back_meanwhile_wins() {
        let (a, mut edges) = (run("a", "1"), EdgeLeases::new(3_000));
        edges.look(&a, at(0));
        assert_eq!(edges.ping_now(at(3_000)).len(), 1);
        assert_eq!(edges.written(&a, true, at(3_500)), []);
        assert!(!edges.silent(&a, at(4_000)), "it had no time for the ping, and lives");
        edges.gone(&a.edge);
        edges.look(&a, at(20_000));
        edges.ping_now(at(23_000));
        assert!(edges.silent(&a, at(24_000)));
        assert_eq!(edges.written(&a, true, at(25_000)), std::slice::from_ref(&a), "given up too early");
        assert_eq!(edges.dead_since(&a), None);
    }

    #[test]
    fn a_later_run_of_an_edge_ends_the_former() {
        let (first, second, mut edges) = (run("a", "1"), run("a", "2"), EdgeLeases::new(3_000));
        edges.written(&first, true, at(0));
        assert_eq!(edges.written(&second, false, at(500)), std::slice::from_ref(&first));
        assert_eq!(edges.dead_since(&first), Some(1_000_000));
        assert!(!edges.all_in_bucket());
        edges.written(&second, true, at(600));
        assert!(edges.all_in_bucket());
        // Also one of which nothing was heard before it.
        let zeroth = run("a", "0");
        assert!(edges.look(&zeroth, at(700)));
        edges.forget(&zeroth);
        assert_eq!(edges.dead_since(&zeroth), None);
    }
}
