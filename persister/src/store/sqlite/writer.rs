//! The one thread that writes the file. Takes whatever jobs wait, runs them in one transaction, each behind a savepoint of its own,
//! commits once, and only then answers them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;

/// Jobs of one transaction. Enough to hide an fsync (a few ms) behind; few enough that the first one is not kept waiting.
const GROUP: usize = 128;

pub(super) type Job = Box<dyn FnOnce(&Transaction<'_>) -> Done + Send>;

/// A job that ran: whether what it did is to stay, and how to answer once the commit is known.
pub(super) struct Done {
    keep: bool,
    answer: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

pub(super) fn job<T: Send + 'static>(
    f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    reply: oneshot::Sender<Result<T, StoreError>>,
) -> Job {
    Box::new(move |tx| {
        let result = f(tx).map_err(StoreError::from);
        let keep = result.is_ok();
        // Nobody waits any more: nothing to say.
        let answer = Box::new(move |commit: Result<(), StoreError>| drop(reply.send(commit.and(result))));
        Done { keep, answer }
    })
}

pub(super) fn run(mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
    connection.set_prepared_statement_cache_capacity(64);
    let mut jobs = Vec::with_capacity(GROUP);
    while let Some(first) = queue.blocking_recv() {
        jobs.push(first);
        while jobs.len() < GROUP
            && let Ok(next) = queue.try_recv()
        {
            jobs.push(next);
        }
        let mut done = Vec::with_capacity(jobs.len());
        let outcome = transact(&mut connection, &mut jobs, &mut done);
        // Jobs that never ran are dropped with their reply: their callers hear that the store does not answer.
        jobs.clear();
        if let Err(e) = &outcome {
            tracing::error!(error = %e, jobs = done.len(), "a transaction failed; check the disk under the store's file");
        }
        for d in done {
            (d.answer)(outcome.clone());
        }
    }
}

fn transact(connection: &mut Connection, jobs: &mut Vec<Job>, done: &mut Vec<Done>) -> Result<(), StoreError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in jobs.drain(..) {
        tx.execute_batch("SAVEPOINT job")?;
        // A panic in one job is a bug of that job; the store must go on for all others.
        let ran = catch_unwind(AssertUnwindSafe(|| job(&tx)));
        let keep = ran.as_ref().is_ok_and(|d| d.keep);
        tx.execute_batch(if keep { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" })?;
        match ran {
            Ok(d) => done.push(d),
            Err(_) => tracing::error!("a job of the store panicked; it was undone"),
        }
    }
    tx.commit()?;
    Ok(())
}
