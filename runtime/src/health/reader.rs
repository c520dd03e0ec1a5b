//! Whether a reader moves: it has dealt with everything up to some place, and what there is to read ends at another.
//!
//! A reader that stays where it is while there is more to read is stuck, whatever its connections say; so is one of
//! which nobody knows any more where the end is. Its own words (an error of the store, say) come first, they are the
//! reason.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Health, Part};

/// So long a reader may stay where it is while there is more to read, and so long the end may not be known. The slowest
/// step of a reader that is well is one write of a slow CQL server (10 s); an election of a stream's leader takes 4–9
/// s.
const BOUND: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(500);

/// The readers of a process: each is a part of its health. Clones share them.
#[derive(Debug, Clone)]
pub struct Readers {
    health: Health,
    bound: Duration,
    all: Arc<Mutex<Vec<Weak<Shared>>>>,
}

impl Readers {
    pub fn new(health: &Health) -> Self {
        Self::bounded(health, BOUND)
    }

    /// With another bound than 15 s.
    pub fn bounded(health: &Health, bound: Duration) -> Self {
        Self { health: health.clone(), bound, all: Arc::default() }
    }

    /// A reader that is not ready before it was told where the end is. The part goes with it.
    pub fn open(&self, part: Part) -> Reader {
        self.health.set(part.clone(), Err("starting".into()));
        let state = State {
            progress: Progress::new(),
            doing: "starting",
            resting: false,
            troubles: BTreeMap::new(),
            next: 0,
            closed: false,
        };
        let shared =
            Arc::new(Shared { part, health: self.health.clone(), bound: self.bound, state: Mutex::new(state) });
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&shared));
        Reader { shared }
    }

    /// All of this kind are opened: the part that stood for them before they were is gone.
    pub fn opened(&self, part: &str) {
        self.health.remove(part);
    }

    /// Notices those that stand still. Runs until dropped.
    pub async fn watch(&self) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|reader| match reader.upgrade() {
                Some(reader) => {
                    reader.look();
                    true
                }
                None => false,
            });
        }
    }
}

/// One reader, told by whoever reads and by whoever knows the end.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    part: Part,
    health: Health,
    bound: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    doing: &'static str,
    /// Another process reads.
    resting: bool,
    troubles: BTreeMap<u64, String>,
    next: u64,
    /// Its part is gone; nobody may bring it back.
    closed: bool,
}

impl Reader {
    /// Everything up to here is dealt with.
    pub fn at(&self, id: u64) {
        self.shared.with(|s| s.progress.at(id, Instant::now()));
    }

    /// What there is to read ends here, as the one says who keeps it.
    pub fn end(&self, id: u64) {
        self.shared.with(|s| s.progress.end(id, Instant::now()));
        self.shared.look();
    }

    /// What it is busy with, for the words that say where it is stuck.
    pub fn doing(&self, what: &'static str) {
        self.shared.with(|s| s.doing = what);
    }

    /// Another process reads; here only the end has to be known.
    pub fn rest(&self) {
        self.shared.with(|s| s.resting = true);
    }

    /// This process reads, from wherever it says next.
    pub fn begin(&self) {
        self.shared.with(|s| {
            s.resting = false;
            s.progress.begin(Instant::now());
        });
    }

    /// Something is wrong, as long as the answer lives: others that go well do not hide it.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        let id = self.shared.with(|s| {
            s.next += 1;
            s.next
        });
        Trouble { id, shared: self.shared.clone() }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Shared { part, health, .. } = &*self.shared;
        self.shared.with(|s| {
            s.closed = true;
            health.remove(part);
            metrics::gauge!(crate::metrics::READER_STUCK_SECONDS, "part" => part.clone()).set(0.0);
        });
    }
}

/// A fault that a reader knows of. Over when it is dropped.
#[derive(Debug)]
pub struct Trouble {
    id: u64,
    shared: Arc<Shared>,
}

impl Trouble {
    /// None: nothing is wrong now.
    pub fn is(&self, why: Option<String>) {
        self.shared.with(|s| match why {
            Some(why) => drop(s.troubles.insert(self.id, why)),
            None => drop(s.troubles.remove(&self.id)),
        });
        self.shared.look();
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        self.is(None);
    }
}

impl Shared {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn look(&self) {
        let now = Instant::now();
        self.with(|s| {
            if !s.closed {
                metrics::gauge!(crate::metrics::READER_STUCK_SECONDS, "part" => self.part.clone())
                    .set(s.stuck(now).as_secs_f64());
                self.health.set(self.part.clone(), s.judge(now, self.bound));
            }
        });
    }
}

impl State {
    fn stuck(&self, now: Instant) -> Duration {
        if self.resting { Duration::ZERO } else { self.progress.stuck(now) }
    }

    fn judge(&self, now: Instant, bound: Duration) -> Result<(), String> {
        if let Some(why) = self.troubles.values().next() {
            let more = self.troubles.len() - 1;
            return Err(if more > 0 { format!("{why} (and {more} more)") } else { why.clone() });
        }
        match self.progress.end {
            None => return Err(format!("where the end is was not told yet ({})", self.doing)),
            Some((_, told)) if now - told > bound => {
                return Err(format!(
                    "for {} s nobody could tell where the end is ({})",
                    (now - told).as_secs(),
                    self.doing
                ));
            }
            Some(_) => {}
        }
        let stuck = self.stuck(now);
        if stuck > bound {
            let (at, end) = (self.progress.at, self.progress.end.map_or(0, |(end, _)| end));
            return Err(format!(
                "has not moved from {at} for {} s, and there is more up to {end} ({})",
                stuck.as_secs(),
                self.doing
            ));
        }
        Ok(())
    }
}

/// Where a reader is and where the end is. Pure.
#[derive(Debug)]
struct Progress {
    at: u64,
    /// And when it was told last.
    end: Option<(u64, Instant)>,
    /// Since when it has been here with more to read.
    since: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        Self { at: 0, end: None, since: None }
    }

    fn behind(&self) -> bool {
        self.end.is_some_and(|(end, _)| self.at < end)
    }

    /// Any other place is a move: a reader that begins again further down moves as well.
    fn at(&mut self, id: u64, now: Instant) {
        if id != self.at {
            self.at = id;
            self.since = self.behind().then_some(now);
        }
    }

    fn end(&mut self, id: u64, now: Instant) {
        self.end = Some((id, now));
        if !self.behind() {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(now);
        }
    }

    fn begin(&mut self, now: Instant) {
        self.since = self.behind().then_some(now);
    }

    fn stuck(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now - since)
    }
}

#[cfg(test)]
mod tests;
