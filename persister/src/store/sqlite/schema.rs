//! The schema: brought up to date when a file is opened.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::{BUSY, contacts, cursors, invites, lost, messages, positions, refresh_tokens, threads, users};
use crate::store::ArchiveError;

/// Every change of the schema, in the order in which they are applied; `user_version` counts them. Only append.
const MIGRATIONS: &[&str] = &[
    messages::SCHEMA,
    threads::SCHEMA,
    positions::SCHEMA,
    users::SCHEMA,
    contacts::SCHEMA,
    refresh_tokens::SCHEMA,
    refresh_tokens::NEXT_SCHEMA,
    refresh_tokens::DEVICES_SCHEMA,
    threads::FALLS_SCHEMA,
    lost::SCHEMA,
    refresh_tokens::SINCE_SCHEMA,
    users::DISABLED_SCHEMA,
    invites::SCHEMA,
    users::DELETED_SCHEMA,
    cursors::SCHEMA,
];

/// For this one change of a new file SQLite does not wait as it does elsewhere: of several processes that make it all
/// but one are refused at once.
pub(super) fn to_wal(connection: &Connection) -> rusqlite::Result<()> {
    let deadline = Instant::now() + BUSY;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

/// The transaction is the lock: a second process waits here, then finds nothing left to do.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), ArchiveError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = tx.pragma_query_value(None, "user_version", |r| r.get(0))?;
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        let known = MIGRATIONS.len();
        return Err(ArchiveError::Failed(format!(
            "the file has schema {version}, this build knows {known}: use the newer build"
        )));
    }
    for sql in &MIGRATIONS[done..] {
        tx.execute_batch(sql)?;
    }
    tx.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    tx.commit()?;
    Ok(())
}
