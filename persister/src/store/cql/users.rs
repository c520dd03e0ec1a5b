//! The tables `users` (by id) and `names` (by name, with the login): who is who.
//!
//! An account is decided by one conditional write, the row of its name, which has all that a login needs. The row by id is written
//! before it: one without a name is an account nobody got, under an id nobody knows.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use natterjack_protocol::{UserId, rpc::Profile};
use scylla::statement::prepared::PreparedStatement;

use super::{int, session::Requests, token};
use crate::store::{
    StoreError,
    accounts::{Added, Login, NewUser, PASSWORD, name_key},
};

pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS users (user text PRIMARY KEY, name text, created bigint)";

/// By the first two characters, the least that a search has.
pub(super) const NAMES_SCHEMA: &str = "CREATE TABLE IF NOT EXISTS names (
    prefix text, name_key text, name text, user text, secret text, PRIMARY KEY (prefix, name_key))";

/// A server gives up a conditional write after one second in a crowd.
const CROWDED: Duration = Duration::from_millis(1_900);
/// Users that are asked about at once.
const AT_ONCE: usize = 32;

pub(super) struct Users {
    add: PreparedStatement,
    forget: PreparedStatement,
    claim: PreparedStatement,
    login: PreparedStatement,
    by_id: PreparedStatement,
    find: PreparedStatement,
}

impl Users {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, StoreError> {
        Ok(Self {
            add: r.prepare("INSERT INTO users (user, name, created) VALUES (?, ?, ?) USING TIMESTAMP 1").await?,
            // An id is made once: what is forgotten never comes back.
            forget: r.prepare("DELETE FROM users USING TIMESTAMP 2 WHERE user = ?").await?,
            claim: r
                .prepare_condition("INSERT INTO names (prefix, name_key, name, user, secret) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS")
                .await?,
            login: r.prepare("SELECT user, name, secret FROM names WHERE prefix = ? AND name_key = ?").await?,
            by_id: r.prepare("SELECT user, name FROM users WHERE user = ?").await?,
            find: r
                .prepare("SELECT user, name FROM names WHERE prefix = ? AND name_key >= ? AND name_key < ? ORDER BY name_key LIMIT ?")
                .await?,
        })
    }

    pub(super) async fn add(&self, r: &Requests, new: &NewUser) -> Result<Added, StoreError> {
        let key = name_key(&new.name);
        r.write(&self.add, (new.user.as_str(), &new.name, int(new.created))).await?;
        let began = Instant::now();
        let free = loop {
            match r.decide(&self.claim, (prefix(&key), &key, &new.name, new.user.as_str(), &new.secret)).await {
                Ok(applied) => break applied,
                // Many who want names that begin alike get into each other's way. The name may be ours already: the id tells.
                Err(StoreError::Unavailable(_)) if began.elapsed() < CROWDED => {}
                Err(e) => return Err(e),
            }
        };
        if free || self.login(r, PASSWORD, &key).await?.is_some_and(|l| l.user == new.user) {
            return Ok(Added::Done);
        }
        r.write(&self.forget, (new.user.as_str(),)).await?;
        Ok(Added::NameTaken)
    }

    pub(super) async fn login(&self, r: &Requests, issuer: &str, subject: &str) -> Result<Option<Login>, StoreError> {
        // Accounts are made with a password only, so far.
        if issuer != PASSWORD {
            return Ok(None);
        }
        let row: Option<(String, String, String)> = r.read_one(&self.login, (prefix(subject), subject)).await?;
        row.map(|(user, name, secret)| Ok(Login { user: token("names.user", &user)?, name, secret })).transpose()
    }

    pub(super) async fn profile(&self, r: &Requests, user: &UserId) -> Result<Option<Profile>, StoreError> {
        let row: Option<(String, String)> = r.read_one(&self.by_id, (user.as_str(),)).await?;
        row.map(profile).transpose()
    }

    pub(super) async fn profiles(&self, r: &Requests, users: &[UserId]) -> Result<Vec<Profile>, StoreError> {
        let asked: Vec<_> = users.iter().map(|u| self.profile(r, u)).collect();
        let found: Vec<Option<Profile>> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    pub(super) async fn find(&self, r: &Requests, begins: &str, limit: usize) -> Result<Vec<Profile>, StoreError> {
        // DEL sorts behind every character a name may have.
        let values = (prefix(begins), begins, format!("{begins}\u{7f}"), i32::try_from(limit).unwrap_or(i32::MAX));
        let rows: Vec<(String, String)> = r.read(&self.find, values).await?;
        rows.into_iter().map(profile).collect()
    }
}

fn prefix(key: &str) -> &str {
    key.char_indices().nth(2).map_or(key, |(at, _)| &key[..at])
}

fn profile((user, name): (String, String)) -> Result<Profile, StoreError> {
    Ok(Profile { user: token("users.user", &user)?, name })
}
