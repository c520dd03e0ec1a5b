//! Clearing away what has a date: values of the control bucket that say until when they matter (signing keys, revoked logins).

use std::{collections::BTreeMap, time::Duration};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use natterjack_nats::{Kv, KvError, WatchEvent};
use tokio::time::timeout;

/// How long a tick may wait for the bucket; the next one tries again.
const BEGIN: Duration = Duration::from_secs(5);

/// The keys of one sort, as far as a watch has told.
pub struct Expired {
    control: Kv,
    keys: &'static str,
    until: fn(&[u8]) -> Option<u64>,
    watched: Option<Watched>,
}

struct Watched {
    events: Box<dyn Stream<Item = WatchEvent> + Send + Unpin>,
    /// Date and revision.
    known: BTreeMap<String, (u64, u64)>,
}

impl Expired {
    /// `until` reads the date of a value; none: leave it alone.
    pub fn new(control: &Kv, keys: &'static str, until: fn(&[u8]) -> Option<u64>) -> Self {
        Self { control: control.clone(), keys, until, watched: None }
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
                let Ok(begun) = timeout(BEGIN, self.control.watch(self.keys)).await else { return Ok(()) };
                none.insert(Watched { events: Box::new(begun?), known: BTreeMap::new() })
            }
        };
        watched.catch_up(self.until);
        let old: Vec<(String, u64)> =
            watched.known.iter().filter(|(_, (until, _))| *until < now).map(|(k, (_, r))| (k.clone(), *r)).collect();
        // They leave the map when the watch reports the deletion.
        for (key, revision) in old {
            match self.control.delete_revision(&key, revision).await {
                // Another instance was faster.
                Ok(()) | Err(KvError::Conflict) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Watched {
    /// Takes what is there without waiting; the rest comes at the next tick.
    fn catch_up(&mut self, until: fn(&[u8]) -> Option<u64>) {
        while let Some(Some(event)) = self.events.next().now_or_never() {
            match event.value.and_then(|v| until(v.as_ref())) {
                Some(until) => drop(self.known.insert(event.key, (until, event.revision))),
                None => drop(self.known.remove(&event.key)),
            }
        }
    }
}
