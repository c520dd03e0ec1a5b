//! Password hashing for `directory`: argon2id behind a bounded queue, on blocking threads only and in a fixed pool of
//! memory, so that a storm of logins can neither starve the chat nor fill the memory. Before it: `directory/login` and
//! `directory/register`; after it: the store.

mod memory;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Params, Version};
use parking_lot::Mutex;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::work_queue::{QueuePermit, WorkPermit, WorkQueue};
use memory::Memory;

/// What one hash costs. Stored in each hash (PHC string), so that it can be raised without locking anybody out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl Default for Cost {
    /// OWASP's first choice for argon2id: 19 MiB, two passes, one lane; 15–30 ms of a core.
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 }
    }
}

/// However many cores there are: 8 × 19 MiB = 152 MiB, and 250 to 500 hashes a second.
const WORKERS: usize = 8;
/// Behind each worker: at 25 ms a hash the last one waits 3.2 s, less than the request's timeout at the edge.
const WAITING_PER_WORKER: usize = 128;
/// One place in so many more, for devices that have logged in before: the last one waits 4 s.
const KNOWN: usize = 4;

fn workers() -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) / 2).clamp(1, WORKERS)
}

/// Logins that may be under way at once, most of them waiting.
pub fn at_once() -> usize {
    workers() * (1 + WAITING_PER_WORKER)
}

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("the settings of argon2 are out of bounds: {0}")]
    BadCost(argon2::Error),
    #[error("hashing a password: {0}")]
    Hash(argon2::password_hash::Error),
    #[error("the stored hash of a password is not a PHC string of argon2")]
    Corrupt,
    #[error("a hash of a password that needs {0} KiB of memory; at most 1 GiB is taken")]
    TooMuchMemory(usize),
    #[error("the source of randomness does not answer")]
    NoRandomness,
    #[error("the thread that hashed a password ended early")]
    Aborted,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Passwords {
    queue: WorkQueue,
    workers: usize,
    hasher: Argon2<'static>,
    /// One for each worker. Whoever has a turn takes one and puts it back, so none is ever missing, and no more are
    /// ever made.
    memories: Arc<Mutex<Vec<Memory>>>,
    /// The hash of a password nobody knows: checking an unknown user costs what checking a known one does.
    nobody: Arc<str>,
    /// How long one hash takes, smoothed, in microseconds.
    usual: Arc<AtomicU64>,
}

impl Passwords {
    /// One worker per two cores: chat in the same process keeps the other half.
    pub async fn start(cost: &Cost) -> Result<Self, PasswordError> {
        let workers = workers();
        Self::with_line(cost, workers, workers * WAITING_PER_WORKER).await
    }

    /// Takes workers × [`Cost::memory_kib`], all of it now: a machine that lacks it shows at the start.
    pub async fn with_line(cost: &Cost, workers: usize, waiting: usize) -> Result<Self, PasswordError> {
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None).map_err(PasswordError::BadCost)?;
        let memories = (0..workers.max(1)).map(|_| Memory::of(&params)).collect::<Result<Vec<_>, _>>()?;
        let mut passwords = Self {
            queue: WorkQueue::with_reserve("password", workers, waiting, waiting.div_ceil(KNOWN)),
            workers,
            hasher: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            memories: Arc::new(Mutex::new(memories)),
            nobody: "".into(),
            usual: Arc::default(),
        };
        let (secret, before) = (random::<32>()?, Instant::now());
        let phc = passwords.blocking(None, move |hasher, memory| memory.hash(hasher, &secret)).await?;
        passwords.nobody = phc.into();
        passwords.usual.store(micros(before.elapsed()), Ordering::Relaxed);
        Ok(passwords)
    }

    /// How many requests may be in the line at once.
    pub fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// To be taken before anything else is done for a request. None: the line is full, come back after
    /// [`Self::retry_after`].
    pub fn enter(&self) -> Option<QueuePermit> {
        self.queue.enter()
    }

    /// The same for somebody whom strangers must not keep out.
    pub fn enter_known(&self) -> Option<QueuePermit> {
        self.queue.enter_known()
    }

    /// The time that a full line takes to empty.
    pub fn retry_after(&self) -> Duration {
        let all = self.usual.load(Ordering::Relaxed).saturating_mul((self.capacity() / self.workers) as u64);
        Duration::from_micros(all).clamp(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// The PHC string to store.
    pub async fn hash(&self, place: &QueuePermit, password: String) -> Result<String, PasswordError> {
        self.timed(place.turn().await, move |hasher, memory| memory.hash(hasher, password.as_bytes())).await
    }

    /// Is this the password of that hash? Without a hash (no such user): no, after the same work.
    pub async fn check(
        &self,
        place: &QueuePermit,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, PasswordError> {
        let nobody = self.nobody.clone();
        self.timed(place.turn().await, move |_, memory| {
            let fits = memory.fits(stored.as_deref().unwrap_or(&nobody), password.as_bytes())?;
            Ok(fits && stored.is_some())
        })
        .await
    }

    async fn timed<T: Send + 'static>(&self, turn: WorkPermit, work: impl Work<T>) -> Result<T, PasswordError> {
        let before = Instant::now();
        let done = self.blocking(Some(turn), work).await?;
        let took = micros(before.elapsed());
        let smoothed = (self.usual.load(Ordering::Relaxed) * 7 + took) / 8;
        self.usual.store(smoothed, Ordering::Relaxed);
        metrics::histogram!(crate::metrics::DIRECTORY_PASSWORD_SECONDS).record(took as f64 / 1e6);
        Ok(done)
    }

    /// The turn goes with the work: if who waits for it is dropped, the work still runs to its end and nobody else
    /// works meanwhile.
    async fn blocking<T: Send + 'static>(
        &self,
        turn: Option<WorkPermit>,
        work: impl Work<T>,
    ) -> Result<T, PasswordError> {
        let (hasher, memories) = (self.hasher.clone(), self.memories.clone());
        let handle = tokio::task::spawn_blocking(move || {
            // None is there only after a panic, which took it along.
            let taken = memories.lock().pop();
            let mut memory = taken.unwrap_or_default();
            let done = work(&hasher, &mut memory);
            memories.lock().push(memory);
            drop(turn);
            done
        });
        handle.await.map_err(|_| PasswordError::Aborted)?
    }
}

/// On a blocking thread, with memory of the pool.
trait Work<T>: FnOnce(&Argon2<'static>, &mut Memory) -> Result<T, PasswordError> + Send + 'static {}

impl<T, F: FnOnce(&Argon2<'static>, &mut Memory) -> Result<T, PasswordError> + Send + 'static> Work<T> for F {}

fn micros(d: Duration) -> u64 {
    d.as_micros().try_into().unwrap_or(u64::MAX)
}

fn random<const N: usize>() -> Result<[u8; N], PasswordError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PasswordError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Cost {
        Cost { memory_kib: 256, passes: 1, lanes: 1 }
    }

    #[tokio::test]
    async fn a_hash_fits_its_password_and_carries_its_cost() {
        let passwords = Passwords::with_line(&cheap(), 1, 4).await.unwrap();
        let place = passwords.enter().unwrap();
        let phc = passwords.hash(&place, "correct horse".into()).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=256,t=1,p=1$"), "{phc}");
        assert!(passwords.check(&place, "correct horse".into(), Some(phc.clone())).await.unwrap());
        assert!(!passwords.check(&place, "wrong horse".into(), Some(phc.clone())).await.unwrap());
        assert!(!passwords.check(&place, "correct horse".into(), None).await.unwrap());
        let dearer = Passwords::with_line(&Cost { passes: 2, ..cheap() }, 1, 4).await.unwrap();
        let place = dearer.enter().unwrap();
        assert!(dearer.check(&place, "correct horse".into(), Some(phc)).await.unwrap(), "an old hash stays good");
        for broken in [
            "plain",
            "$argon2id$v=19$m=256,t=1,p=1",
            "$argon2id$v=19$m=256,t=1,p=1$c2FsdHNhbHQ",
            "$scrypt$ln=1$c2FsdHNhbHQ$aGFzaGhhc2g",
        ] {
            assert!(
                matches!(dearer.check(&place, "x".into(), Some(broken.into())).await, Err(PasswordError::Corrupt)),
                "{broken}"
            );
        }
    }

    #[tokio::test]
    async fn the_line_is_bounded() {
        let passwords = Passwords::with_line(&cheap(), 1, 3).await.unwrap();
        let places: Vec<_> = std::iter::from_fn(|| passwords.enter()).collect();
        assert_eq!(places.len(), 4);
        assert!(passwords.retry_after() >= Duration::from_secs(1));
        let waiting = places.iter().map(|p| passwords.hash(p, "a password".into()));
        assert!(futures_util::future::join_all(waiting).await.iter().all(Result::is_ok));
        drop(places);
        assert!(passwords.enter().is_some());
    }

    /// However many ask at once, on however many threads: the same buffers at the end as at the start.
    #[tokio::test(flavor = "multi_thread")]
    async fn no_memory_is_taken_after_the_start() {
        let passwords = Passwords::with_line(&cheap(), 2, 100).await.unwrap();
        let places = || {
            let mut all: Vec<usize> = passwords.memories.lock().iter().map(Memory::address).collect();
            all.sort_unstable();
            all
        };
        let at_start = places();
        assert_eq!(at_start.len(), 2);
        let many = (0..60).map(|n| {
            let (passwords, place) = (passwords.clone(), passwords.enter().unwrap());
            async move {
                match n % 3 {
                    0 => drop(passwords.hash(&place, "a password".into()).await.unwrap()),
                    1 => drop(passwords.check(&place, "a password".into(), None).await.unwrap()),
                    // Given up in the middle.
                    _ => drop(
                        tokio::time::timeout(Duration::from_micros(50), passwords.hash(&place, "a password".into()))
                            .await,
                    ),
                }
            }
        });
        futures_util::future::join_all(many.map(tokio::spawn)).await;
        let _both = (passwords.enter().unwrap(), passwords.enter().unwrap());
        let _turns = (_both.0.turn().await, _both.1.turn().await);
        assert_eq!(places(), at_start);
    }

    /// A ratio with room on both sides, because two cores are shared with other tests.
    #[tokio::test]
    async fn an_unknown_user_takes_as_long() {
        let passwords = Passwords::with_line(&Cost::default(), 1, 4).await.unwrap();
        let place = passwords.enter().unwrap();
        let phc = passwords.hash(&place, "a password".into()).await.unwrap();
        let mut fastest = [Duration::MAX; 2];
        for round in 0..10 {
            let stored = (round % 2 == 0).then(|| phc.clone());
            let before = Instant::now();
            assert!(!passwords.check(&place, "another".into(), stored).await.unwrap());
            fastest[round % 2] = fastest[round % 2].min(before.elapsed());
        }
        let ratio = fastest[0].as_secs_f64() / fastest[1].as_secs_f64();
        assert!((0.5..2.0).contains(&ratio), "{fastest:?}");
    }
}
