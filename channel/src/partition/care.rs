//! What a partition does beside publishing: it answers heads requests, beats, confirms and saves its position, repeats the heads of
//! quiet threads, forgets what is old, and says how it is.

use std::{sync::PoisonError, time::Duration};

use async_nats::Message;
use futures_util::FutureExt;
use natterjack_nats::{KvError, Position};
use natterjack_protocol::{MsgId, internal::live::Beat};
use tokio::time::Instant;

use super::{Asked, Partition, TURN};
use crate::{
    error::Error,
    heads,
    watch::{Clock, Seen},
};

const SAVE: Duration = Duration::from_millis(500);
/// Beyond this a fold is reported in the health of the role.
const SLOW_FOLD: Duration = Duration::from_secs(2);
/// Requests come before reading in the loop; after this many in a row it reads all the same, so that no flood of them stops the events.
const REQUESTS: u32 = 16;

impl Partition {
    pub(super) async fn answer(&mut self, request: Option<Message>) -> Result<(), Error> {
        match request {
            // The subscription ended with its connection task; the next chore asks for another.
            None => self.heads = None,
            Some(Message { reply: Some(reply), payload, .. }) => {
                self.metrics.requests.increment(1);
                let answer = heads::answer(&payload, &self.last, self.window.frontier(), self.clock.now());
                self.outlet.answer(reply, answer).await?;
                self.requests += 1;
                if self.requests.is_multiple_of(REQUESTS)
                    && self.may_read()
                    && let Some(batch) = self.reader.next_batch(TURN).now_or_never()
                {
                    self.take(batch?);
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    pub(super) fn ask_bounds(&mut self) {
        if self.bounds.is_none() {
            self.asked = Asked { read: self.window.last_read().id, epoch: self.outlet.nats().epoch() };
            self.bounds = Some(Box::pin(self.watch.clone().bounds(self.since, self.set_back)));
        }
        if self.holder && self.lag.is_none() {
            self.lag = Some(Box::pin(self.watch.clone().archive_lag(self.log_first, self.log_end, self.clock.now())));
        }
    }

    pub(super) async fn bounds(&mut self, seen: Option<Seen>) -> Result<(), Error> {
        let Some(Seen { bounds, at, since }) = seen else {
            self.status.set(Err("the log does not answer".into()));
            return Ok(());
        };
        // An end mark below what was read, or in its place, is that of a log that lost its end, and that somebody else has ended.
        let in_its_place = bounds.over && bounds.last == self.asked.read && self.end.is_none();
        if bounds.last < self.asked.read || in_its_place {
            if bounds.over || bounds.replicas <= 1 {
                return Err(Error::LostEnd { p: self.p, read: self.asked.read });
            }
            // A deposed leader, or else the reader will find it when its consumer is made again. No beat until then.
            return Ok(());
        }
        let before = self.clock.now();
        if bounds.ts_ms + (self.shared.times.clock_slack.as_millis() as u64) < before {
            self.set_back = self.set_back.max(before);
        }
        self.clock = Clock { ts: bounds.ts_ms, at };
        if self.holder {
            self.compared.look(self.clock.now(), self.shared.time.now_ms());
        }
        (self.since, self.log_first, self.log_end) = (Some(since), bounds.first, bounds.last);
        self.status.reader.end(bounds.last.0);
        if !self.window.warm() && bounds.first > self.window.confirmed().id {
            // The position's own entry aged out between our question and the first read: nothing older will come.
            let gone = MsgId(bounds.first.0.saturating_sub(1));
            self.last.forget_up_to(gone);
            self.window.skip_to(gone);
        }
        // A beat that waited (for a place in the client's queue, or for a connection) would set the edges' clocks back.
        // One of before a reconnect vouches for a log that may have lost its end since.
        let now = self.outlet.nats().connected() && self.outlet.nats().epoch() == self.asked.epoch;
        if self.holder && now && at.elapsed() < self.shared.times.beat {
            let beat = Beat {
                generation: self.shared.layout.generation,
                p: self.p,
                ts: bounds.ts_ms,
                dedupe_since: since.ms().max(self.set_back),
                // Not what was handed to the connection but what is known to have left: a beat must not vouch for frames that a
                // break, not yet noticed, has swallowed.
                frontier: self.window.confirmed().id,
                archive_lag_ms: self.archive_lag,
            };
            self.outlet.beat(beat).await?;
        }
        Ok(())
    }

    pub(super) async fn chores(&mut self) -> Result<(), Error> {
        self.begin_barrier();
        self.last.evict(self.read_ms());
        if self.saved_at.elapsed() >= SAVE {
            self.saved_at = Instant::now();
            let confirmed = self.window.confirmed();
            if self.holder && self.saving.is_none() && confirmed.id > self.saved.id {
                let (positions, p) = (self.positions.clone(), self.p);
                self.saving = Some(Box::pin(async move { positions.advance(p, confirmed).await.map(|()| confirmed) }));
            }
            if !self.holder && self.peek.is_none() {
                // Half a second after the start a lease that is free is ours.
                self.stood_by = true;
                let (positions, p) = (self.positions.clone(), self.p);
                self.peek = Some(Box::pin(async move { positions.load(p).await.ok().flatten() }));
            }
        }
        // Only a map that knows every thread may say "nothing new".
        if self.holder && self.heads.is_none() && self.window.warm() {
            self.heads = Some(self.outlet.listen().await?);
        }
        if self.may_publish() {
            self.outlet.signals_again().await?;
        }
        self.look_for_the_end();
        self.measure();
        Ok(())
    }

    /// The next generation may begin where it is known, and said to the others, that everything of this one has left.
    fn look_for_the_end(&mut self) {
        let left = if self.holder { self.saved.id } else { self.window.confirmed().id };
        if self.end.is_some_and(|end| left >= end) {
            self.shared.ended.send_if_modified(|ended| ended.insert(self.p));
        }
        // Nothing that was inherited is of use any more, to a task that begins again neither.
        if self.last.horizon().next() >= self.log_first {
            *self.heir.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    pub(super) fn measure(&self) {
        self.metrics.window.set(self.window.len() as f64);
        self.metrics.window_bytes.set(self.window.bytes() as f64);
        self.metrics.threads.set(self.last.len() as f64);
        self.metrics.quiet.set(self.quiet.len() as f64);
        let state = if !self.outlet.nats().connected() {
            Err("not connected to NATS".into())
        } else if self.folding_since.is_some_and(|t| t.elapsed() > SLOW_FOLD) {
            Err("folding a control entry waits for KV; its partition waits with it".into())
        } else if self.judging_since.is_some_and(|t| t.elapsed() > SLOW_FOLD) {
            Err("a late entry waits for history to tell whether it is a copy; its partition waits with it".into())
        } else if self.clock.at.elapsed() > self.shared.times.beat_silence {
            Err("the log does not answer".into())
        } else {
            Ok(())
        };
        self.status.set(state);
        // Who fills its map moves by reading, who publishes by what is known to have left: a publisher that only reads is stuck.
        let publishes = self.holder && self.window.warm();
        self.status.reader.doing(if publishes { "publishes" } else { "reads the log" });
        self.status.reader.at(if publishes { self.window.confirmed().id.0 } else { self.window.last_read().id.0 });
    }

    pub(super) fn saved(&mut self, saved: Result<Position, KvError>) {
        match saved {
            Ok(position) => self.saved = position,
            Err(e) => tracing::warn!(partition = self.p, error = %e, "the position was not saved; tried again"),
        }
    }

    pub(super) async fn quiet_threads(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        while let Some((thread, id)) = self.quiet.pop(now, &self.last) {
            // Without a connection it would arrive late and say nothing new; the events themselves go out again then.
            if self.may_publish() {
                self.outlet.head(&thread, id).await?;
            }
        }
        Ok(())
    }
}
