//! Tables `users` and `logins`. `name_key` is unique: of many registrations of a name exactly one commits.

use natterjack_protocol::{UserId, client::http::Profile};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{bad_column, int, uint};
use crate::store::accounts::{
    Account, Added, DELETIONS, Deletion, Joined, Login, NameHold, NewExternal, NewUser, PASSWORD, Prefix, Renamed,
    name_key,
};

pub(super) const SCHEMA: &str = "
CREATE TABLE users (
    user TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE logins (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    user TEXT NOT NULL REFERENCES users (user),
    secret TEXT NOT NULL,
    PRIMARY KEY (issuer, subject)
) WITHOUT ROWID;
";

pub(super) const DISABLED_SCHEMA: &str = "ALTER TABLE users ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0;";

/// `until`: before it nobody but `user` gets the name; `since`: when the deletion began. Milliseconds since 1970.
pub(super) const DELETED_SCHEMA: &str = "
ALTER TABLE users ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
CREATE TABLE held_names (name_key TEXT PRIMARY KEY, user TEXT NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE deletions (user TEXT PRIMARY KEY, since INTEGER NOT NULL) WITHOUT ROWID;
";

const PROFILE: &str = "SELECT user, name, deleted FROM users";
const ACCOUNT: &str = "SELECT user, name, deleted, created, disabled FROM users";

pub(super) fn add(tx: &Transaction<'_>, new: &NewUser) -> rusqlite::Result<Added> {
    if !add_named(tx, &new.user, &new.name, new.created)? {
        return Ok(Added::NameTaken);
    }
    add_login(tx, PASSWORD, &name_key(&new.name), &new.user, &new.secret)?;
    Ok(Added::Done)
}

/// None: even the id is somebody's name.
pub(super) fn join(tx: &Transaction<'_>, new: &NewExternal) -> rusqlite::Result<Option<Joined>> {
    if let Some(Login { user, name, .. }) = login(tx, &new.issuer, &new.subject)? {
        return Ok(Some(Joined { profile: Profile::named(user, name), made: false }));
    }
    for name in new.names_of(&new.user) {
        if add_named(tx, &new.user, name, new.created)? {
            add_login(tx, &new.issuer, &new.subject, &new.user, "")?;
            return Ok(Some(Joined { profile: Profile::named(new.user.clone(), name), made: true }));
        }
    }
    Ok(None)
}

/// False: the name is taken, perhaps by this user, whose registration came twice.
fn add_named(tx: &Transaction<'_>, user: &UserId, name: &str, created: u64) -> rusqlite::Result<bool> {
    if held(tx, &name_key(name), user, created)? {
        return Ok(false);
    }
    let added = tx.execute(
        "INSERT INTO users (user, name, name_key, created) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        params![user.as_str(), name, name_key(name), int(created)],
    )?;
    Ok(added > 0)
}

/// Is this name kept from this user?
fn held(tx: &Transaction<'_>, name_key: &str, user: &UserId, now: u64) -> rusqlite::Result<bool> {
    tx.prepare_cached("SELECT 1 FROM held_names WHERE name_key = ?1 AND user <> ?2 AND until > ?3")?.exists(params![
        name_key,
        user.as_str(),
        int(now)
    ])
}

fn keep(tx: &Transaction<'_>, name_key: &str, user: &UserId, hold: NameHold) -> rusqlite::Result<()> {
    let values = params![name_key, user.as_str(), int(hold.until)];
    tx.execute("INSERT OR REPLACE INTO held_names (name_key, user, until) VALUES (?1, ?2, ?3)", values).map(drop)
}

pub(super) fn sweep_held(tx: &Transaction<'_>, now: u64) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM held_names WHERE until <= ?1", [int(now)]).map(drop)
}

/// The key of the name of one who is not deleted.
fn key_of(tx: &Transaction<'_>, user: &UserId) -> rusqlite::Result<Option<String>> {
    tx.prepare_cached("SELECT name_key FROM users WHERE user = ?1 AND deleted = 0")?
        .query_row([user.as_str()], |r| r.get(0))
        .optional()
}

pub(super) fn rename(tx: &Transaction<'_>, user: &UserId, name: &str, hold: NameHold) -> rusqlite::Result<Renamed> {
    let Some(old) = key_of(tx, user)? else { return Ok(Renamed::NoSuchUser) };
    let key = name_key(name);
    if key != old {
        let taken = tx.prepare_cached("SELECT 1 FROM users WHERE name_key = ?1")?.exists([&key])?;
        if taken || held(tx, &key, user, hold.now)? {
            return Ok(Renamed::NameTaken);
        }
        keep(tx, &old, user, hold)?;
    }
    tx.execute("UPDATE users SET name = ?2, name_key = ?3 WHERE user = ?1", params![user.as_str(), name, key])?;
    let login = params![PASSWORD, user.as_str(), key];
    tx.execute("UPDATE logins SET subject = ?3 WHERE issuer = ?1 AND user = ?2", login)?;
    Ok(Renamed::Done)
}

pub(super) fn delete(tx: &Transaction<'_>, user: &UserId, hold: NameHold) -> rusqlite::Result<bool> {
    let Some(key) = key_of(tx, user)? else {
        return tx.prepare_cached("SELECT 1 FROM users WHERE user = ?1")?.exists([user.as_str()]);
    };
    keep(tx, &key, user, hold)?;
    // No name has a space, so this key is nobody's.
    tx.execute("UPDATE users SET name = '', name_key = ' ' || user, deleted = 1 WHERE user = ?1", [user.as_str()])?;
    tx.execute("DELETE FROM logins WHERE user = ?1", [user.as_str()])?;
    let begun = params![user.as_str(), int(hold.now)];
    tx.execute("INSERT INTO deletions (user, since) VALUES (?1, ?2)", begun)?;
    Ok(true)
}

pub(super) fn deletions(c: &Connection) -> rusqlite::Result<Vec<Deletion>> {
    let mut some = c.prepare_cached("SELECT user, since FROM deletions ORDER BY since LIMIT ?1")?;
    let deletion = |r: &Row<'_>| Ok(Deletion { user: id(r, 0)?, since: uint(r.get(1)?) });
    some.query_map([int(DELETIONS as u64)], deletion)?.collect()
}

pub(super) fn end_deletion(tx: &Transaction<'_>, user: &UserId) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM deletions WHERE user = ?1", [user.as_str()]).map(drop)
}

fn add_login(tx: &Transaction<'_>, issuer: &str, subject: &str, user: &UserId, secret: &str) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO logins (issuer, subject, user, secret) VALUES (?1, ?2, ?3, ?4)",
        params![issuer, subject, user.as_str(), secret],
    )?;
    Ok(())
}

pub(super) fn login(c: &Connection, issuer: &str, subject: &str) -> rusqlite::Result<Option<Login>> {
    c.prepare_cached(
        "SELECT u.user, u.name, l.secret FROM logins l JOIN users u ON u.user = l.user WHERE l.issuer = ?1 AND \
         l.subject = ?2",
    )?
    .query_row(params![issuer, subject], |r| Ok(Login { user: id(r, 0)?, name: r.get(1)?, secret: r.get(2)? }))
    .optional()
}

pub(super) fn account(c: &Connection, user: &UserId) -> rusqlite::Result<Option<Account>> {
    c.prepare_cached(&format!("{ACCOUNT} WHERE user = ?1"))?.query_row([user.as_str()], of_account).optional()
}

pub(super) fn accounts(c: &Connection, after: Option<&UserId>, limit: usize) -> rusqlite::Result<Vec<Account>> {
    let mut some = c.prepare_cached(&format!("{ACCOUNT} WHERE user > ?1 ORDER BY user LIMIT ?2"))?;
    some.query_map(params![after.map_or("", UserId::as_str), int(limit as u64)], of_account)?.collect()
}

fn of_account(r: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account { profile: profile(r)?, created: uint(r.get(3)?), disabled: r.get(4)? })
}

pub(super) fn set_disabled(tx: &Transaction<'_>, user: &UserId, disabled: bool) -> rusqlite::Result<()> {
    tx.execute("UPDATE users SET disabled = ?2 WHERE user = ?1", params![user.as_str(), disabled])?;
    Ok(())
}

pub(super) fn set_secret(tx: &Transaction<'_>, user: &UserId, secret: &str) -> rusqlite::Result<bool> {
    let set = tx.execute(
        "UPDATE logins SET secret = ?3 WHERE issuer = ?1 AND user = ?2",
        params![PASSWORD, user.as_str(), secret],
    )?;
    Ok(set > 0)
}

pub(super) fn profiles(c: &Connection, users: &[UserId]) -> rusqlite::Result<Vec<Profile>> {
    let mut one = c.prepare_cached(&format!("{PROFILE} WHERE user = ?1"))?;
    let mut found = Vec::with_capacity(users.len());
    for user in users {
        found.extend(one.query_row([user.as_str()], profile).optional()?);
    }
    Ok(found)
}

pub(super) fn find(c: &Connection, prefix: &Prefix, limit: usize) -> rusqlite::Result<Vec<Profile>> {
    let end = format!("{}{}", prefix.key(), char::MAX);
    let mut found = c.prepare_cached(&format!("{PROFILE} WHERE name_key >= ?1 AND name_key < ?2 ORDER BY name_key"))?;
    let alike = found.query_map(params![prefix.key(), end], profile)?;
    // What only looks alike is passed over.
    alike.filter(|p| p.as_ref().map_or(true, |p| prefix.begins(&p.name))).take(limit).collect()
}

fn profile(r: &Row<'_>) -> rusqlite::Result<Profile> {
    Ok(Profile { user: id(r, 0)?, name: r.get(1)?, deleted: r.get(2)? })
}

/// An id column. What cannot be an id is a damaged row.
pub(super) fn id(r: &Row<'_>, column: usize) -> rusqlite::Result<UserId> {
    let text: String = r.get(column)?;
    UserId::parse(&text).map_err(|e| bad_column(column, e))
}
