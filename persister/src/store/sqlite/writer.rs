//! The one thread that writes the file. Takes whatever jobs wait, runs them in one transaction, each behind a savepoint
//! of its own, commits once, and only then answers them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::store::ArchiveError;

/// Jobs of one transaction. Enough to hide an fsync (a few ms) behind; few enough that the first one is not kept
/// waiting.
const GROUP: usize = 128;

const SECOND: Duration = Duration::from_secs(1);
/// So long a transaction lets others go first: somebody who logs in waits for it.
const POLITE: Duration = Duration::from_millis(20);

/// When what a job did has to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    /// Before its answer.
    Now,
    /// Some time later: the log has it, too. A loss of power undoes the last such transactions, the watermark among
    /// them, and they are written again.
    Later,
}

pub(super) struct Job {
    durable: Durable,
    run: Box<dyn FnOnce(&Transaction<'_>) -> Done + Send>,
}

/// A job that ran: whether what it did is to stay, and how to answer once the commit is known.
pub(super) struct Done {
    keep: bool,
    answer: Box<dyn FnOnce(Result<(), ArchiveError>) + Send>,
}

pub(super) fn job<T: Send + 'static>(
    f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    durable: Durable,
    reply: oneshot::Sender<Result<T, ArchiveError>>,
) -> Job {
    let run = Box::new(move |tx: &Transaction<'_>| {
        let result = f(tx).map_err(ArchiveError::from);
        let keep = result.is_ok();
        // Nobody waits any more: nothing to say.
        let answer = Box::new(move |commit: Result<(), ArchiveError>| drop(reply.send(commit.and(result))));
        Done { keep, answer }
    });
    Job { durable, run }
}

pub(super) fn run(mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
    connection.set_prepared_statement_cache_capacity(64);
    let mut jobs = Vec::with_capacity(GROUP);
    let (mut duty, mut since) = (Duty::default(), Instant::now());
    while let Some(first) = queue.blocking_recv() {
        let begun = Instant::now();
        jobs.push(first);
        while jobs.len() < GROUP
            && let Ok(next) = queue.try_recv()
        {
            jobs.push(next);
        }
        let mut done = Vec::with_capacity(jobs.len());
        let outcome = transact(&mut connection, &mut jobs, &mut done, duty.is_light());
        // Jobs that never ran are dropped with their reply: their callers hear that the store does not answer.
        jobs.clear();
        if let Err(e) = &outcome {
            tracing::error!(
                error = %e, jobs = done.len(),
                "a transaction failed; check the disk under the store's file"
            );
        }
        for d in done {
            (d.answer)(outcome.clone());
        }
        duty.note(begun - since, begun.elapsed());
        since = Instant::now();
    }
    close(connection);
}

/// So that the file alone has everything: the last connection to it writes the journal into it and removes that.
fn close(connection: Connection) {
    // Of another process; each of its reads and writes takes milliseconds.
    let _ = connection.busy_timeout(SECOND);
    let folded = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, i64>(0));
    match folded {
        Ok(0) => {}
        Ok(_) => tracing::info!("another process has the archive open: its journal stays until that one ends"),
        Err(e) => {
            tracing::warn!(error = %e, "the archive's journal was not folded into its file; it is at the next start")
        }
    }
    if let Err((_, e)) = connection.close() {
        tracing::warn!(error = %e, "the archive was not closed");
    }
}

/// How much of the last second or so the thread has worked, the time in which it had let others go first included.
#[derive(Default)]
struct Duty {
    idle: Duration,
    busy: Duration,
}

impl Duty {
    fn note(&mut self, idle: Duration, busy: Duration) {
        self.idle += idle.min(SECOND);
        self.busy += busy;
        if self.idle + self.busy > SECOND {
            self.idle /= 2;
            self.busy /= 2;
        }
    }

    fn is_light(&self) -> bool {
        self.idle > self.busy * 3
    }
}

fn transact(
    connection: &mut Connection,
    jobs: &mut Vec<Job>,
    done: &mut Vec<Done>,
    light: bool,
) -> Result<(), ArchiveError> {
    let begun = Instant::now();
    let sync = jobs.iter().any(|j| j.durable == Durable::Now);
    // NORMAL syncs only when it moves the journal into the file; FULL syncs at the commit, what was committed before
    // included.
    connection.pragma_update(None, "synchronous", if sync { "FULL" } else { "NORMAL" })?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in jobs.drain(..) {
        tx.execute_batch("SAVEPOINT job")?;
        // A panic in one job is a bug of that job; the store must go on for all others.
        let ran = catch_unwind(AssertUnwindSafe(|| (job.run)(&tx)));
        let keep = ran.as_ref().is_ok_and(|d| d.keep);
        tx.execute_batch(if keep { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" })?;
        match ran {
            Ok(d) => done.push(d),
            Err(_) => tracing::error!("a job of the store panicked; it was undone"),
        }
        // The live path may be waiting for this processor, and a scheduler lets a thread go on for a millisecond or
        // more. With much to do that would be too polite: others would always come first, and the archive fall behind.
        if light && begun.elapsed() < POLITE {
            std::thread::yield_now();
        }
    }
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duty_is_that_of_the_last_second_or_so() {
        let ms = Duration::from_millis;
        let mut duty = Duty::default();
        assert!(!duty.is_light(), "nothing is known yet");
        duty.note(ms(3_600_000), ms(10));
        assert!(duty.is_light());
        (0..20).for_each(|_| duty.note(ms(50), ms(50)));
        assert!(!duty.is_light(), "an hour of leisure does not count for long");
        (0..20).for_each(|_| duty.note(ms(90), ms(10)));
        assert!(duty.is_light());
    }
}
