//! The tables `users` (by id), `names` (by name, with the password's login) and `logins` (by issuer and subject): who
//! is who.
//!
//! The key of a name (`name_key`) is the same for names that look alike, so the row of a name keeps all of them for its
//! user.
//!
//! An account with a password is decided by one conditional write, the row of its name, which has all that a login
//! needs. The row by id is written before it: one without a name is an account nobody got, under an id nobody knows.
//!
//! An account of an external login is decided by the row in `logins`, which gives it its id; then it gets a name, then
//! the row by id, which says that it is whole. Whoever finds it half made goes on under the same id. Its name has no
//! secret, so no password fits it.

use futures_util::{StreamExt, TryStreamExt, stream};
use natterjack_protocol::{UserId, client::http::Profile};
use scylla::statement::prepared::PreparedStatement;

use super::{int, session::Requests, token, uint};
use crate::store::{
    ArchiveError,
    accounts::{Account, Added, Joined, Login, NewExternal, NewUser, PASSWORD, Prefix, name_key, no_name},
};

pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS users \
    (user text PRIMARY KEY, name text, created bigint, disabled boolean)";

/// By the first two characters, the least that a search has.
pub(super) const NAMES_SCHEMA: &str = "CREATE TABLE IF NOT EXISTS names (
    prefix text, name_key text, name text, user text, secret text, PRIMARY KEY (prefix, name_key))";

pub(super) const LOGINS_SCHEMA: &str = "CREATE TABLE IF NOT EXISTS logins (
    issuer text, subject text, user text, PRIMARY KEY ((issuer, subject)))";

/// Users that are asked about, or names that are read, at once.
const AT_ONCE: usize = 32;

pub(super) struct Users {
    add: PreparedStatement,
    forget: PreparedStatement,
    claim: PreparedStatement,
    login: PreparedStatement,
    claim_login: PreparedStatement,
    external: PreparedStatement,
    by_id: PreparedStatement,
    account: PreparedStatement,
    first_accounts: PreparedStatement,
    next_accounts: PreparedStatement,
    disable: PreparedStatement,
    set_secret: PreparedStatement,
    find: PreparedStatement,
}

impl Users {
    pub(super) async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        Ok(Self {
            add: r.prepare("INSERT INTO users (user, name, created) VALUES (?, ?, ?) USING TIMESTAMP 1").await?,
            // An id is made once: what is forgotten never comes back.
            forget: r.prepare("DELETE FROM users USING TIMESTAMP 2 WHERE user = ?").await?,
            claim: r
                .prepare_condition(
                    "INSERT INTO names (prefix, name_key, name, user, secret) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS",
                )
                .await?,
            login: r.prepare("SELECT user, name, secret FROM names WHERE prefix = ? AND name_key = ?").await?,
            claim_login: r
                .prepare_condition("INSERT INTO logins (issuer, subject, user) VALUES (?, ?, ?) IF NOT EXISTS")
                .await?,
            external: r.prepare("SELECT user FROM logins WHERE issuer = ? AND subject = ?").await?,
            by_id: r.prepare("SELECT user, name FROM users WHERE user = ?").await?,
            account: r.prepare("SELECT user, name, created, disabled FROM users WHERE user = ?").await?,
            first_accounts: r.prepare("SELECT user, name, created, disabled FROM users LIMIT ?").await?,
            next_accounts: r
                .prepare("SELECT user, name, created, disabled FROM users WHERE token(user) > token(?) LIMIT ?")
                .await?,
            disable: r.prepare("UPDATE users SET disabled = ? WHERE user = ?").await?,
            set_secret: r
                .prepare_condition("UPDATE names SET secret = ? WHERE prefix = ? AND name_key = ? IF user = ?")
                .await?,
            find: r
                .prepare(
                    "SELECT user, name, name_key FROM names WHERE prefix = ? AND name_key > ? AND name_key < ? ORDER \
                     BY name_key LIMIT ?",
                )
                .await?,
        })
    }

    pub(super) async fn add(&self, r: &Requests, new: &NewUser) -> Result<Added, ArchiveError> {
        r.write(&self.add, (new.user.as_str(), &new.name, int(new.created))).await?;
        let key = name_key(&new.name);
        let values = (prefix(&key), key.as_str(), new.name.as_str(), new.user.as_str(), new.secret.as_str());
        if r.decide_in_a_crowd(&self.claim, values).await? {
            return Ok(Added::Done);
        }
        match self.named(r, &key).await? {
            Some(login) if login.user == new.user && login.secret == new.secret => Ok(Added::Done),
            // The same registration came twice, with the same invite, and this one was later.
            Some(login) if login.user == new.user => Ok(Added::NameTaken),
            _ => {
                r.write(&self.forget, (new.user.as_str(),)).await?;
                Ok(Added::NameTaken)
            }
        }
    }

    pub(super) async fn join(&self, r: &Requests, new: &NewExternal) -> Result<Joined, ArchiveError> {
        let values = (new.issuer.as_str(), new.subject.as_str(), new.user.as_str());
        let first = r.decide_in_a_crowd(&self.claim_login, values).await?;
        let user = if first {
            new.user.clone()
        } else {
            let found = self.external(r, &new.issuer, &new.subject).await?;
            found.ok_or_else(|| ArchiveError::Unavailable("a login that is there was not read".into()))?
        };
        if let Some(profile) = self.profile(r, &user).await? {
            return Ok(Joined { profile, made: false });
        }
        for name in new.names_of(&user) {
            // Also true if another call for the same login was faster.
            if self.name(r, name, &user, "").await? {
                r.write(&self.add, (user.as_str(), name, int(new.created))).await?;
                return Ok(Joined { profile: Profile { user: user.clone(), name: name.to_owned() }, made: true });
            }
        }
        Err(no_name())
    }

    /// True: the name is this user's.
    async fn name(&self, r: &Requests, name: &str, user: &UserId, secret: &str) -> Result<bool, ArchiveError> {
        let key = name_key(name);
        let values = (prefix(&key), key.as_str(), name, user.as_str(), secret);
        // Not free may be because it is ours already: the id tells.
        Ok(r.decide_in_a_crowd(&self.claim, values).await?
            || self.named(r, &key).await?.is_some_and(|l| l.user == *user))
    }

    pub(super) async fn login(&self, r: &Requests, issuer: &str, subject: &str) -> Result<Option<Login>, ArchiveError> {
        if issuer == PASSWORD {
            return Ok(self.named(r, subject).await?.filter(|l| !l.secret.is_empty()));
        }
        let Some(user) = self.external(r, issuer, subject).await? else { return Ok(None) };
        // None: half made.
        let profile = self.profile(r, &user).await?;
        Ok(profile.map(|Profile { user, name }| Login { user, name, secret: String::new() }))
    }

    async fn named(&self, r: &Requests, key: &str) -> Result<Option<Login>, ArchiveError> {
        let row: Option<(String, String, String)> = r.read_one(&self.login, (prefix(key), key)).await?;
        row.map(|(user, name, secret)| Ok(Login { user: token("names.user", &user)?, name, secret })).transpose()
    }

    async fn external(&self, r: &Requests, issuer: &str, subject: &str) -> Result<Option<UserId>, ArchiveError> {
        let row: Option<(String,)> = r.read_one(&self.external, (issuer, subject)).await?;
        row.map(|(user,)| token("logins.user", &user)).transpose()
    }

    pub(super) async fn profile(&self, r: &Requests, user: &UserId) -> Result<Option<Profile>, ArchiveError> {
        let row: Option<(String, String)> = r.read_one(&self.by_id, (user.as_str(),)).await?;
        row.map(profile).transpose()
    }

    pub(super) async fn account(&self, r: &Requests, user: &UserId) -> Result<Option<Account>, ArchiveError> {
        let row: Option<AccountColumns> = r.read_one(&self.account, (user.as_str(),)).await?;
        row.map(account).transpose()
    }

    /// In the order of the servers' ring.
    pub(super) async fn accounts(
        &self,
        r: &Requests,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<Account>, ArchiveError> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows: Vec<AccountColumns> = match after {
            None => r.read(&self.first_accounts, (limit,)).await?,
            Some(user) => r.read(&self.next_accounts, (user.as_str(), limit)).await?,
        };
        rows.into_iter().map(account).collect()
    }

    pub(super) async fn set_disabled(&self, r: &Requests, user: &UserId, disabled: bool) -> Result<(), ArchiveError> {
        r.write(&self.disable, (disabled, user.as_str())).await
    }

    pub(super) async fn set_secret(&self, r: &Requests, user: &UserId, secret: &str) -> Result<bool, ArchiveError> {
        let Some(Profile { name, .. }) = self.profile(r, user).await? else { return Ok(false) };
        let key = name_key(&name);
        if self.named(r, &key).await?.is_none_or(|login| login.user != *user || login.secret.is_empty()) {
            return Ok(false);
        }
        r.decide_in_a_crowd(&self.set_secret, (secret, prefix(&key), key.as_str(), user.as_str())).await
    }

    pub(super) async fn profiles(&self, r: &Requests, users: &[UserId]) -> Result<Vec<Profile>, ArchiveError> {
        let asked: Vec<_> = users.iter().map(|u| self.profile(r, u)).collect();
        let found: Vec<Option<Profile>> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    pub(super) async fn find(&self, r: &Requests, begins: &Prefix, limit: usize) -> Result<Vec<Profile>, ArchiveError> {
        let key = begins.key();
        let end = format!("{key}{}", char::MAX);
        let mut found = Vec::new();
        // The row of the prefix itself, then what lies behind the last one that was read. Those that only look alike
        // are passed over.
        found.extend(
            self.named(r, key)
                .await?
                .map(|l| Profile { user: l.user, name: l.name })
                .filter(|p| begins.begins(&p.name)),
        );
        let mut after = key.to_owned();
        while found.len() < limit {
            let rows: Vec<(String, String, String)> =
                r.read(&self.find, (prefix(key), after.as_str(), end.as_str(), AT_ONCE as i32)).await?;
            let all = rows.len() < AT_ONCE;
            for (user, name, key) in rows {
                if begins.begins(&name) {
                    found.push(profile((user, name))?);
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

/// Id, name, when it was made, and whether it is disabled.
type AccountColumns = (String, String, i64, Option<bool>);

fn account((user, name, created, disabled): AccountColumns) -> Result<Account, ArchiveError> {
    Ok(Account { profile: profile((user, name))?, created: uint(created), disabled: disabled.unwrap_or(false) })
}

fn profile((user, name): (String, String)) -> Result<Profile, ArchiveError> {
    Ok(Profile { user: token("users.user", &user)?, name })
}
