//! Ready means that what this edge listens to moves: per partition the beats, which come the way of events and through
//! the same task, and each bucket that it watches, compared with the newest key that the bucket's leader has.

use std::time::Duration;

use natterjack_nats::{Layout, WatchProgress};
use natterjack_runtime::{
    Health,
    health::{Part, Reader, Readers, of_partition},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Clock;

const LOOK: Duration = Duration::from_millis(100);
/// How often a bucket is asked for its newest key: one small read for each of the three.
const ASK: Duration = Duration::from_secs(3);

/// Of one generation of the log. Its parts of the health go with it.
pub struct Readiness {
    health: Health,
    clock: Clock,
    partitions: Vec<Part>,
    readers: Readers,
    watches: Vec<(Reader, WatchProgress)>,
}

impl Readiness {
    pub fn new(
        health: &Health,
        layout: Layout,
        clock: &Clock,
        watches: impl IntoIterator<Item = (&'static str, WatchProgress)>,
    ) -> Self {
        let readers = Readers::new(health);
        let watches = watches
            .into_iter()
            .map(|(name, watching)| (readers.open(format!("watch.{name}").into()), watching))
            .collect();
        let partitions = (0..layout.partitions).map(|p| of_partition("live", layout.generation, p)).collect();
        let readiness = Self { health: health.clone(), clock: clock.clone(), partitions, readers, watches };
        readiness.look();
        readiness
    }

    /// Runs until dropped.
    pub async fn run(&self) {
        let look = async {
            let mut tick = interval(LOOK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                self.look();
            }
        };
        let ask = async {
            loop {
                for (reader, watching) in &self.watches {
                    match watching.newest().await {
                        Ok(newest) => {
                            reader.at(watching.seen());
                            reader.end(newest);
                        }
                        Err(e) => tracing::debug!(error = %e, "the newest key of a bucket is not known now"),
                    }
                }
                tokio::time::sleep(ASK).await;
            }
        };
        tokio::join!(look, ask, self.readers.watch());
    }

    fn look(&self) {
        for (p, part) in (0..).zip(&self.partitions) {
            let state = match self.clock.silent(p) {
                None => Ok(()),
                Some(None) => {
                    Err("no beat yet: does a channel run, and what does its /health say of this partition?".into())
                }
                Some(Some(silence)) => Err(format!(
                    "no beat for {} s: does a channel run, and what does its /health say of this partition?",
                    silence.as_secs()
                )),
            };
            self.health.set(part.clone(), state);
        }
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        self.partitions.iter().for_each(|part| self.health.remove(part));
    }
}
