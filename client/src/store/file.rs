//! The file of one device: SQLite with its write-ahead log synced at every commit, so a torn tail is cut off at the
//! last whole one.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use natterjack_protocol::{
    Cid, DeviceId, Event, Kind, MsgId, Thread,
    client::{frame::ThreadSummary, http::Tokens},
};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};
use serde::{Serialize, de::DeserializeOwned};

use super::{StoreError, Stored};
use crate::{
    events::Marks,
    outbox::{Change, Local, Unsent},
    resume::Cursor,
};

/// Goes up when a table changes; an older client refuses a newer file.
const VERSION: i64 = 4;
/// Messages kept of each thread.
const MESSAGES: usize = 100;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS cursors (thread TEXT PRIMARY KEY, id INTEGER NOT NULL, ts INTEGER NOT NULL) WITHOUT \
    ROWID;
    CREATE TABLE IF NOT EXISTS outbox (
        local INTEGER PRIMARY KEY AUTOINCREMENT, thread TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, cid \
        BLOB, failed TEXT);
    CREATE TABLE IF NOT EXISTS unsaid_read (thread TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS threads (thread TEXT PRIMARY KEY, summary TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS messages (
        thread TEXT NOT NULL, id INTEGER NOT NULL, event TEXT NOT NULL, PRIMARY KEY (thread, id)) WITHOUT ROWID;
";

#[derive(Clone)]
pub(crate) struct File {
    path: PathBuf,
    /// None after `close`.
    db: Arc<Mutex<Option<Connection>>>,
}

impl File {
    pub fn open(path: &Path) -> Result<(Self, Stored), StoreError> {
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| StoreError::io("create the folder of", path, e))?;
        }
        private(path).map_err(|e| StoreError::io("create", path, e))?;
        let fail = |e| failed("open", path, &e);
        let db = Connection::open(path).map_err(fail)?;
        db.busy_timeout(Duration::ZERO).map_err(fail)?;
        // Exclusive: a second process on the same file would hand out the same messages under other cids.
        db.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN EXCLUSIVE; \
             COMMIT;",
        )
        .map_err(fail)?;
        let version: i64 = db.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(fail)?;
        if version > VERSION {
            return Err(StoreError::Corrupt {
                path: path.to_owned(),
                what: format!("version {version}, this client knows {VERSION}"),
            });
        }
        if version == 1 {
            // Times of cursors came with version 2.
            db.execute_batch("ALTER TABLE cursors ADD COLUMN ts INTEGER NOT NULL DEFAULT 0").map_err(fail)?;
        }
        db.execute_batch(SCHEMA).map_err(fail)?;
        db.pragma_update(None, "user_version", VERSION).map_err(fail)?;
        let stored = load(&db, path)?;
        Ok((Self { path: path.to_owned(), db: Arc::new(Mutex::new(Some(db))) }, stored))
    }

    pub fn apply(&self, changes: &[Change], marks: &Marks) -> Result<(), StoreError> {
        self.write(|tx| {
            for change in changes {
                write_change(tx, change)?;
            }
            for (thread, cursor) in &marks.cursors {
                const PUT: &str = "INSERT INTO cursors (thread, id, ts) VALUES (?1, ?2, ?3)
                    ON CONFLICT DO UPDATE SET id = max(id, excluded.id), ts = max(ts, excluded.ts)";
                tx.prepare_cached(PUT)?.execute(params![thread.to_string(), cursor.id.0, cursor.ts])?;
            }
            marks.synced.as_ref().map_or(Ok(()), |s| put(tx, "synced", &json(s)))
        })
    }

    pub fn save_login(&self, device: &DeviceId, tokens: Option<&Tokens>) -> Result<(), StoreError> {
        self.write(|tx| {
            put(tx, "device", &json(device))?;
            match tokens {
                Some(tokens) => {
                    put(tx, "owner", &json(&tokens.name))?;
                    put(tx, "tokens", &json(tokens))
                }
                None => tx.execute("DELETE FROM meta WHERE key = 'tokens'", []).map(|_| ()),
            }
        })
    }

    /// The last ones of a thread, oldest first.
    pub fn messages(&self, thread: &Thread) -> Result<Vec<Event>, StoreError> {
        let db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = db.as_ref() else { return Err(StoreError::io("read", &self.path, "it is closed")) };
        let read = || {
            db.prepare_cached("SELECT event FROM messages WHERE thread = ?1 ORDER BY id")?
                .query_map([thread.to_string()], |r| r.get::<_, String>(0))?
                .collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = read().map_err(|e| failed("read", &self.path, &e))?;
        // Of another version: the server has it.
        Ok(rows.iter().filter_map(|event| serde_json::from_str(event).ok()).collect())
    }

    /// Lets go of the file, whoever else holds a handle: the next client may open it.
    pub fn close(&self) {
        self.db.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn write(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<(), StoreError> {
        let mut db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = db.as_mut() else { return Err(StoreError::io("write", &self.path, "it is closed")) };
        let done = db.transaction().and_then(|tx| {
            work(&tx)?;
            tx.commit()
        });
        done.map_err(|e| failed("write", &self.path, &e))
    }
}

/// It holds tokens: for its owner only. SQLite gives its journal the same mode.
fn private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(|_| ())
}

fn write_change(tx: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let bytes = |cid: &Option<Cid>| cid.map(|c| c.as_bytes().to_vec());
    match change {
        Change::Insert(row) => tx
            .prepare_cached(
                "INSERT OR REPLACE INTO outbox (local, thread, kind, body, cid, failed) VALUES (?1, ?2, ?3, ?4, ?5, \
                 NULL)",
            )?
            .execute(params![row.local.0, row.thread.to_string(), row.kind.as_str(), json(&row.body), bytes(&row.cid)]),
        Change::Cid(local, cid) => {
            tx.prepare_cached("UPDATE outbox SET cid = ?2 WHERE local = ?1")?.execute(params![local.0, bytes(cid)])
        }
        Change::Fail(local, refusal) => tx
            .prepare_cached("UPDATE outbox SET failed = ?2 WHERE local = ?1")?
            .execute(params![local.0, json(refusal)]),
        Change::Remove(local) => tx.prepare_cached("DELETE FROM outbox WHERE local = ?1")?.execute(params![local.0]),
        Change::Read(thread, id) => tx
            .prepare_cached("INSERT OR REPLACE INTO unsaid_read (thread, id) VALUES (?1, ?2)")?
            .execute(params![thread.to_string(), id.0]),
        Change::Known(summary) => tx
            .prepare_cached("INSERT OR REPLACE INTO threads (thread, summary) VALUES (?1, ?2)")?
            .execute(params![summary.thread.to_string(), json(summary)]),
        Change::Listed(synced) => return put(tx, "listed", &json(synced)),
        Change::Message(event) => {
            let thread = event.thread.to_string();
            tx.prepare_cached("INSERT OR REPLACE INTO messages (thread, id, event) VALUES (?1, ?2, ?3)")?
                .execute(params![thread, event.id.0, json(event)])?;
            tx.prepare_cached(
                "DELETE FROM messages WHERE thread = ?1 AND id <= (SELECT id FROM messages WHERE thread = ?1 ORDER BY \
                 id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![thread, MESSAGES])
        }
        Change::ReadStored(thread) => {
            tx.prepare_cached("DELETE FROM unsaid_read WHERE thread = ?1")?.execute(params![thread.to_string()])
        }
    }
    .map(|_| ())
}

fn put(tx: &Transaction<'_>, key: &str, value: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?.execute([key, value]).map(|_| ())
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types have string keys and plain values")
}

fn load(db: &Connection, path: &Path) -> Result<Stored, StoreError> {
    let fail = |e| failed("read", path, &e);
    let corrupt = |what: &str| StoreError::Corrupt { path: path.to_owned(), what: what.to_owned() };
    let cursors = rows(db, "SELECT thread, id, ts FROM cursors", |r| {
        Ok((r.get::<_, String>(0)?, Cursor { id: MsgId(r.get(1)?), ts: r.get(2)? }))
    })
    .map_err(fail)?;
    let read = rows(db, "SELECT thread, id FROM unsaid_read", |r| Ok((r.get::<_, String>(0)?, MsgId(r.get(1)?))));
    let read = read.map_err(fail)?;
    let known = rows(db, "SELECT summary FROM threads", |r| r.get::<_, String>(0)).map_err(fail)?;
    // What another version wrote is asked for again.
    let known: Option<Vec<ThreadSummary>> = known.iter().map(|row| serde_json::from_str(row).ok()).collect();
    let outbox = rows(db, "SELECT local, thread, kind, body, cid, failed FROM outbox ORDER BY local", |r| {
        Ok((r.get(0)?, r.get::<_, String>(1)?, r.get::<_, String>(2)?, r.get::<_, String>(3)?, r.get(4)?, r.get(5)?))
    })
    .map_err(fail)?;
    let unsent =
        |(local, thread, kind, body, cid, failed): (u64, String, String, String, Option<Vec<u8>>, Option<String>)| {
            Some(Unsent {
                local: Local(local),
                thread: thread.parse().ok()?,
                kind: Kind::parse(&kind),
                body: serde_json::from_str(&body).ok()?,
                cid: match cid {
                    None => None,
                    Some(bytes) => Some(Cid::from_bytes(bytes.try_into().ok()?).ok()?),
                },
                failed: match failed {
                    None => None,
                    Some(f) => Some(serde_json::from_str(&f).ok()?),
                },
                unsure: false,
            })
        };
    let last: Option<u64> = db
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'", [], |r| r.get(0))
        .optional()
        .map_err(fail)?;
    Ok(Stored {
        tokens: get(db, "tokens", path)?,
        device: get(db, "device", path)?,
        owner: get(db, "owner", path)?,
        synced: get(db, "synced", path)?,
        cursors: cursors
            .into_iter()
            .map(|(t, cursor)| Some((t.parse().ok()?, cursor)))
            .collect::<Option<_>>()
            .ok_or_else(|| corrupt("a cursor"))?,
        read: read
            .into_iter()
            .map(|(t, id)| Some((t.parse().ok()?, id)))
            .collect::<Option<_>>()
            .ok_or_else(|| corrupt("how far was read"))?,
        listed: if known.is_some() { get(db, "listed", path)? } else { None },
        known: known.unwrap_or_default(),
        outbox: outbox
            .into_iter()
            .map(unsent)
            .collect::<Option<_>>()
            .ok_or_else(|| corrupt("a message of the outbox"))?,
        next_local: last.unwrap_or(0) + 1,
    })
}

fn rows<T>(
    db: &Connection,
    sql: &str,
    row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    db.prepare(sql)?.query_map([], row)?.collect()
}

fn get<T: DeserializeOwned>(db: &Connection, key: &str, path: &Path) -> Result<Option<T>, StoreError> {
    let value: Option<String> = db
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |r| r.get(0))
        .optional()
        .map_err(|e| failed("read", path, &e))?;
    // Never the value itself: it may be a token.
    let corrupt = |_| StoreError::Corrupt { path: path.to_owned(), what: format!("its {key}") };
    value.map(|v| serde_json::from_str(&v)).transpose().map_err(corrupt)
}

fn failed(doing: &'static str, path: &Path, e: &rusqlite::Error) -> StoreError {
    match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse(path.to_owned()),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            StoreError::Corrupt { path: path.to_owned(), what: "not a database".into() }
        }
        _ => StoreError::io(doing, path, e),
    }
}

#[cfg(test)]
mod tests;
