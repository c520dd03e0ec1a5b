//! Clearing away what has a date: values of the control bucket that say until when they matter (signing keys, revoked
//! logins).

use std::{collections::BTreeMap, time::Duration};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use natterjack_nats::{KeyChange, KvError, KvValue, TypedKeys};
use natterjack_protocol::internal::kv::{PublicKey, RevokedLogin};
use tokio::time::timeout;

/// How long a tick may wait for the bucket; the next one tries again.
const BEGIN: Duration = Duration::from_secs(5);

/// A value that matters until then, milliseconds since 1970.
pub trait Dated: KvValue + Send + 'static {
    fn until(&self) -> u64;
}

impl Dated for PublicKey {
    fn until(&self) -> u64 {
        self.until
    }
}

impl Dated for RevokedLogin {
    fn until(&self) -> u64 {
        self.until
    }
}

/// The keys of one sort, as far as a watch has told. A value that cannot be read is left alone.
pub struct Expired<T> {
    keys: TypedKeys<T>,
    watched: Option<Watched<T>>,
}

struct Watched<T> {
    events: Box<dyn Stream<Item = KeyChange<T>> + Send + Unpin>,
    /// Date and revision.
    known: BTreeMap<String, (u64, u64)>,
}

impl<T: Dated> Expired<T> {
    pub fn new(keys: TypedKeys<T>) -> Self {
        Self { keys, watched: None }
    }

    pub async fn clear(&mut self, now: u64) -> Result<(), KvError> {
        let cleared = self.try_clear(now).await;
        if cleared.is_err() {
            self.watched = None;
        }
        cleared
    }

    async fn try_clear(&mut self, now: u64) -> Result<(), KvError> {
        let watched = match &mut self.watched {
            Some(w) => w,
            none => {
                // A watch waits for its bucket; who clears away has other things to do.
                let Ok(begun) = timeout(BEGIN, self.keys.watch()).await else { return Ok(()) };
                none.insert(Watched { events: Box::new(begun?), known: BTreeMap::new() })
            }
        };
        watched.catch_up();
        let old: Vec<(String, u64)> =
            watched.known.iter().filter(|(_, (until, _))| *until < now).map(|(k, (_, r))| (k.clone(), *r)).collect();
        // They leave the map when the watch reports the deletion.
        for (name, revision) in old {
            match self.keys.key(&name).delete_revision(revision).await {
                // Another instance was faster.
                Ok(()) | Err(KvError::Conflict) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl<T: Dated> Watched<T> {
    /// Takes what is there without waiting; the rest comes at the next tick.
    fn catch_up(&mut self) {
        while let Some(Some(event)) = self.events.next().now_or_never() {
            match event.value {
                Some(value) => drop(self.known.insert(event.name, (value.until(), event.revision))),
                None => drop(self.known.remove(&event.name)),
            }
        }
    }
}
