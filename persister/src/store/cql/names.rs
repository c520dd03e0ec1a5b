//! The tables `names` (by name, with the password's login) and `held_names` (those that somebody gave up).
//!
//! The key of a name (`name_key`) is the same for names that look alike, so the row of a name keeps all of them for its
//! user. A row has all that a login needs.
//!
//! Whoever gives a name up holds it before its row goes. So who has claimed the row looks afterwards whether the name
//! is held, and gives it back if it is.

use natterjack_protocol::{UserId, client::http::Profile};
use scylla::statement::prepared::PreparedStatement;

use super::{int, session::Requests, token, uint};
use crate::store::{
    ArchiveError,
    accounts::{Login, NameHold, Prefix, name_key},
};

/// By the first two characters, the least that a search has.
pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS names (
    prefix text, name_key text, name text, user text, secret text, PRIMARY KEY (prefix, name_key))";

/// Before `until` nobody but `user` gets the name, milliseconds since 1970.
pub(super) const HELD_SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS held_names (name_key text PRIMARY KEY, user text, until bigint)";

/// The server forgets what is held no longer a day later, and nobody's clock is so wrong.
const FORGET_S: u64 = 24 * 3_600;
/// The largest that a server takes: 20 years.
const TTL_S: u64 = 20 * 365 * 24 * 3_600;

/// Rows that are read at once.
const AT_ONCE: i32 = 32;

pub(super) struct NameTable {
    claim: PreparedStatement,
    login: PreparedStatement,
    respell: PreparedStatement,
    set_secret: PreparedStatement,
    release: PreparedStatement,
    held: PreparedStatement,
    hold: PreparedStatement,
    find: PreparedStatement,
}

impl NameTable {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        Ok(Self {
            claim: r
                .prepare_condition(
                    "INSERT INTO names (prefix, name_key, name, user, secret) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS",
                )
                .await?,
            login: r.prepare("SELECT user, name, secret FROM names WHERE prefix = ? AND name_key = ?").await?,
            respell: r
                .prepare_condition("UPDATE names SET name = ? WHERE prefix = ? AND name_key = ? IF user = ?")
                .await?,
            set_secret: r
                .prepare_condition("UPDATE names SET secret = ? WHERE prefix = ? AND name_key = ? IF user = ?")
                .await?,
            release: r
                .prepare_condition("DELETE FROM names WHERE prefix = ? AND name_key = ? IF user = ? AND secret = ?")
                .await?,
            held: r.prepare("SELECT user, until FROM held_names WHERE name_key = ?").await?,
            hold: r.prepare("INSERT INTO held_names (name_key, user, until) VALUES (?, ?, ?) USING TTL ?").await?,
            find: r
                .prepare(
                    "SELECT user, name, name_key FROM names WHERE prefix = ? AND name_key > ? AND name_key < ? ORDER \
                     BY name_key LIMIT ?",
                )
                .await?,
        })
    }

    /// False: the row is there, perhaps for this very user.
    pub(super) async fn claim(
        &self,
        r: &Requests,
        name: &str,
        user: &UserId,
        secret: &str,
    ) -> Result<bool, ArchiveError> {
        let key = name_key(name);
        r.decide_in_a_crowd(&self.claim, (prefix(&key), key.as_str(), name, user.as_str(), secret)).await
    }

    /// True: the name is this user's, and not held for another.
    pub(super) async fn take(
        &self,
        r: &Requests,
        name: &str,
        user: &UserId,
        secret: &str,
        now: u64,
    ) -> Result<bool, ArchiveError> {
        let key = name_key(name);
        if !self.claim(r, name, user, secret).await? {
            // It may be theirs already, since an attempt that was cut off.
            let theirs = self.named(r, &key).await?.filter(|l| l.user == *user);
            match theirs {
                None => return Ok(false),
                Some(found) if found.secret == secret => {}
                Some(_) => drop(self.set_secret(r, &key, user, secret).await?),
            }
        }
        self.keeps(r, &key, user, now).await
    }

    /// After a claim: false if the name is held for another, and then it is given back.
    pub(super) async fn keeps(&self, r: &Requests, key: &str, user: &UserId, now: u64) -> Result<bool, ArchiveError> {
        let row: Option<(String, i64)> = r.read_one(&self.held, (key,)).await?;
        if row.is_none_or(|(holder, until)| holder == user.as_str() || uint(until) <= now) {
            return Ok(true);
        }
        self.release(r, key, user).await?;
        Ok(false)
    }

    /// Of an account with a password. False: the name is not this user's.
    pub(super) async fn set_secret(
        &self,
        r: &Requests,
        key: &str,
        user: &UserId,
        secret: &str,
    ) -> Result<bool, ArchiveError> {
        r.decide_in_a_crowd(&self.set_secret, (secret, prefix(key), key, user.as_str())).await
    }

    /// Another spelling of the same name.
    pub(super) async fn respell(&self, r: &Requests, name: &str, user: &UserId) -> Result<bool, ArchiveError> {
        let key = name_key(name);
        r.decide_in_a_crowd(&self.respell, (name, prefix(&key), key.as_str(), user.as_str())).await
    }

    pub(super) async fn hold(
        &self,
        r: &Requests,
        key: &str,
        user: &UserId,
        hold: NameHold,
    ) -> Result<(), ArchiveError> {
        let seconds = (hold.until.saturating_sub(hold.now) / 1_000 + FORGET_S).min(TTL_S);
        let ttl = i32::try_from(seconds).unwrap_or(i32::MAX);
        r.write(&self.hold, (key, user.as_str(), int(hold.until), ttl)).await
    }

    /// Gives up the row of a name. Answers with the password it had in the end: somebody may set another one meanwhile.
    /// None: it was not this user's.
    pub(super) async fn release(&self, r: &Requests, key: &str, user: &UserId) -> Result<Option<String>, ArchiveError> {
        let mut last = None;
        while let Some(found) = self.named(r, key).await?.filter(|l| l.user == *user) {
            let values = (prefix(key), key, user.as_str(), found.secret.as_str());
            let gone = r.decide_in_a_crowd(&self.release, values).await?;
            last = Some(found.secret);
            if gone {
                break;
            }
        }
        Ok(last)
    }

    pub(super) async fn named(&self, r: &Requests, key: &str) -> Result<Option<Login>, ArchiveError> {
        let row: Option<(String, String, String)> = r.read_one(&self.login, (prefix(key), key)).await?;
        row.map(|(user, name, secret)| Ok(Login { user: token("names.user", &user)?, name, secret })).transpose()
    }

    pub(super) async fn find(&self, r: &Requests, begins: &Prefix, limit: usize) -> Result<Vec<Profile>, ArchiveError> {
        let key = begins.key();
        let end = format!("{key}{}", char::MAX);
        // The row of the prefix itself, then what lies behind the last one that was read. Those that only look alike
        // are passed over.
        let exact = self.named(r, key).await?.map(|l| Profile::named(l.user, l.name));
        let mut found: Vec<Profile> = exact.into_iter().filter(|p| begins.begins(&p.name)).collect();
        let mut after = key.to_owned();
        while found.len() < limit {
            let rows: Vec<(String, String, String)> =
                r.read(&self.find, (prefix(key), after.as_str(), end.as_str(), AT_ONCE)).await?;
            let all = rows.len() < AT_ONCE as usize;
            for (user, name, key) in rows {
                if begins.begins(&name) {
                    found.push(Profile::named(token("names.user", &user)?, name));
                }
                after = key;
            }
            if all {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}

fn prefix(key: &str) -> &str {
    key.char_indices().nth(2).map_or(key, |(at, _)| &key[..at])
}
